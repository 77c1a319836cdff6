//! The database is restarted under load: what was acknowledged is there, and the same leader goes on.

use crate::{
    scenario::{Scenario, Stage},
    scenarios::outage,
    scene::Scene,
};

/// How often it is restarted.
const RESTARTS: usize = 5;

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S31",
    title: "PostgreSQL is restarted under load, five times",
    injected: "SIGQUIT to the server (what `-m immediate` sends: no farewell, recovery at the next start), started again at once",
    in_selection: true,
    needs: &[],
    stage: Some(Stage::default),
    not_run: None,
    act,
    judge: outage::keeps_leader,
};

pub(super) fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut longest = 0;
    for _ in 0..RESTARTS {
        scene.fault();
        scene.cluster.database.stop();
        scene.cluster.database.resume();
        longest = outage::resumes(scene, longest)?;
        scene.pause_between(500, 3_000)?;
    }
    scene.measure_time("committed again after, longest", longest);
    Ok(())
}

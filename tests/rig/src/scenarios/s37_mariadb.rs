//! Restarts, kills and unknown commits on MariaDB.

use std::time::Duration;

use super::{outage, s02_kill_unacknowledged::busy};
use crate::{
    capability::Need,
    cluster::Setting,
    database::Engine,
    scenario::{Scenario, Stage},
    scene::Scene,
};

/// How often it is restarted, and as often killed.
const RESTARTS: usize = 3;
/// How many connections are broken.
const BROKEN: u64 = 200;

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S37",
    title: "MariaDB is restarted and killed, and connections break between COMMIT and its answer",
    injected: "three times SIGTERM and three times SIGKILL to the server, started again at once; then a proxy as in S34, 200 times",
    in_selection: false,
    needs: &[Need::MariaDb, Need::Divert],
    stage: Some(mariadb),
    not_run: None,
    act,
    judge: outage::keeps_leader,
};

/// The busy cluster on MariaDB.
pub(super) fn mariadb() -> Stage {
    Stage { setting: Setting { engine: Engine::MariaDb, ..Setting::default() }, ..busy() }
}

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut longest = 0;
    for number in 0..RESTARTS * 2 {
        if number % 2 == 0 {
            scene.cluster.database.stop()
        } else {
            scene.cluster.database.kill()
        }
        scene.cluster.database.resume();
        longest = outage::resumes(scene, longest)?;
        scene.pause_between(200, 1_500)?;
    }
    scene.measure_time("committed again after, longest", longest);
    outage::break_commits(scene, BROKEN, Duration::from_secs(60))
}

//! Executors are killed: their supervisors go on, and the next life takes everything over.

use crate::{
    scenario::{Scenario, Stage, nothing_more},
    scene::Scene,
};

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S17",
    title: "executors are killed, six times",
    injected: "SIGKILL to the executor's process, each of the three twice; the supervisors live",
    in_selection: true,
    needs: &[],
    stage: Some(Stage::default),
    not_run: None,
    act,
    judge: nothing_more,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.long("long", 9, 12, "orphan_timeout: 15s")?;
    for _ in 0..2 {
        for name in ["x1", "x2", "x3"] {
            scene.cluster.kill(name);
            scene.pause(1.5)?;
        }
    }
    Ok(())
}

//! A supervisor is killed: the system ends what it ran, the executor sees that nothing is left, and it runs again.

use crate::{
    history::Figures,
    network,
    scenario::{Scenario, Stage},
    scene::Scene,
};

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S18",
    title: "a supervisor is killed",
    injected: "SIGKILL to the supervisor of x1 while attempts run, three times",
    in_selection: true,
    needs: &[],
    stage: Some(|| Stage { may_lose: true, ..Stage::default() }),
    not_run: None,
    act,
    judge,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.long("long", 9, 15, "orphan_timeout: 15s")?;
    for _ in 0..3 {
        scene.fault();
        scene.kill_supervisor(network::EXECUTORS[0])?;
        scene.pause(4.0)?;
    }
    Ok(())
}

fn judge(scene: &mut Scene<'_>, figures: &Figures) {
    scene.expect(!figures.disturbed.is_empty(), "nothing was tried again, so nothing was shown");
}

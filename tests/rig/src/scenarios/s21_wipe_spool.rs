//! An executor loses its spool: the new one has another id, which attests that nothing of the old one runs.

use std::fs;

use crate::{
    history::Figures,
    scenario::{Scenario, Stage},
    scene::Scene,
};

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S21",
    title: "an executor loses its spool",
    injected: "SIGKILL to x1, its folder `spool` removed, started again; the supervisor lives",
    in_selection: true,
    needs: &[],
    stage: Some(|| Stage { may_lose: true, ..Stage::default() }),
    not_run: None,
    act,
    judge,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.long("long", 9, 20, "orphan_timeout: 60s")?;
    scene.cluster.hold("x1");
    scene.fault();
    scene.cluster.kill("x1");
    fs::remove_dir_all(scene.cluster.executors[0].data().join("spool"))?;
    scene.cluster.release("x1");
    scene.pause(10.0)
}

fn judge(scene: &mut Scene<'_>, figures: &Figures) {
    scene.expect(!figures.disturbed.is_empty(), "nothing was tried again, so nothing was shown");
    let again = figures.disturbed.first().zip(scene.faults.first());
    if let Some(((again, _), at)) = again {
        scene.measure_time("first one again after", again - at);
    }
}

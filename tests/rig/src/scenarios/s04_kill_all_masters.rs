//! All masters die at once and stay away for a while: what runs goes on, and its results are reported later.

use crate::{
    load::workflows::Shape,
    scenario::{Scenario, Stage, nothing_more},
    scene::Scene,
};

/// How long nobody leads, in seconds; below the orphan time.
const AWAY: f64 = 20.0;

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S04",
    title: "all masters are killed at once and come back after 20 s",
    injected: "SIGKILL to all three masters; started again after 20 s; orphan time 60 s",
    in_selection: false,
    needs: &[],
    stage: Some(|| Stage {
        shape: Shape { orphan_timeout: "60s", ..Shape::default() },
        ..Stage::default()
    }),
    not_run: None,
    act,
    judge: nothing_more,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.long("long", 9, 30, "orphan_timeout: 60s")?;
    let masters: Vec<String> = scene.cluster.masters.iter().map(|master| master.program.name.clone()).collect();
    scene.fault();
    for name in &masters {
        scene.cluster.hold(name);
        scene.cluster.kill(name);
    }
    scene.pause(AWAY)?;
    masters.iter().for_each(|name| scene.cluster.release(name));
    scene.pause(5.0)
}

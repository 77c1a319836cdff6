//! Every run is cancelled at about the time when it ends by itself.

use crate::{
    load::{Plan, workflows::Shape},
    scenario::{Scenario, Stage, nothing_more},
    scene::Scene,
};

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S48",
    title: "every run is cancelled while it ends by itself",
    injected: "10 runs a second of 0.2 to 2 s, each cancelled within 2 s of its acknowledgement",
    in_selection: true,
    needs: &[],
    stage: Some(|| Stage {
        shape: Shape { tasks: (1, 3), millis: (100, 900), failing: 0, ..Shape::default() },
        plan: Plan { per_second: 10.0, cancels: 100, workflows: Vec::new() },
        ..Stage::default()
    }),
    not_run: None,
    act,
    judge: nothing_more,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.pause(15.0)
}

//! Nothing is harmed: what the others are compared with.

use crate::{
    history::Figures,
    scenario::{Scenario, Stage},
    scene::Scene,
};

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S00",
    title: "control: nothing is harmed",
    injected: "nothing",
    in_selection: true,
    needs: &[],
    stage: Some(Stage::default),
    not_run: None,
    act,
    judge,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.pause(8.0)
}

fn judge(scene: &mut Scene<'_>, figures: &Figures) {
    scene.expect(figures.claims.len() == 1, "nothing happened, and the leader changed");
}

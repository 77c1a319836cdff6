//! The leader dies after it has committed an assignment and before the executor has it: the next one sends the same attempt.

use super::s02_kill_unacknowledged::{act, busy};
use crate::{history::Figures, scenario::Scenario, scene::Scene};

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S03",
    title: "the leader is killed between assignment and start",
    injected: "no failpoint: SIGKILL to the leader 25 times at random moments under 25 submissions a second; how often the moment was hit is counted afterwards",
    in_selection: false,
    needs: &[],
    stage: Some(busy),
    not_run: None,
    act,
    judge,
};

fn judge(scene: &mut Scene<'_>, figures: &Figures) {
    let hits: usize = scene.faults.iter().map(|at| figures.unstarted_at(*at)).sum();
    scene.measure("assigned and not yet begun at a kill", hits);
    scene.expect(hits > 0, "the moment was never hit, so nothing was shown");
    scene.expect(figures.repeated == 0, "the next leader made another attempt of what it should have sent again");
}

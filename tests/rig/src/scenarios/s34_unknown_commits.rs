//! Connections to the database break between COMMIT and its answer: the outcome is unknown, and settled by the fence row.

use std::time::Duration;

use crate::{capability::Need, history::Figures, scenario::Scenario, scenarios::outage, scene::Scene};

/// How many connections are broken.
const BROKEN: u64 = 1_000;

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S34",
    title: "connections break between COMMIT and its answer, 1,000 times",
    injected: "a proxy in front of PostgreSQL breaks the connection at 30 of 100 COMMITs, by turns of a seed: before it passes it on, right after, or once the server has answered",
    in_selection: false,
    needs: &[Need::Divert],
    stage: Some(super::s02_kill_unacknowledged::busy),
    not_run: None,
    act,
    judge,
};

pub(super) fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    outage::break_commits(scene, BROKEN, Duration::from_secs(150))
}

pub(super) fn judge(scene: &mut Scene<'_>, figures: &Figures) {
    scene.measure("transactions of the longest term", figures.longest_term);
    outage::keeps_leader(scene, figures);
}

//! The leader loses the database, and nobody else does: it makes way, and a healthy master leads.

use std::time::Duration;

use crate::{
    capability::Need,
    history::Figures,
    network,
    scenario::{Scenario, Stage},
    scene::Scene,
};

/// How long nobody may lead: 20 s until a leader without a database makes way, and what the next one takes.
const GAP_MAX: Duration = Duration::from_secs(25);

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S09",
    title: "the leader is cut off from the database, the other masters are not",
    injected: "nft drops both ways between the leader and the database, until 5 s after another one leads",
    in_selection: true,
    needs: &[Need::Filter],
    stage: Some(Stage::default),
    not_run: None,
    act,
    judge,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let leader = scene.leader()?;
    scene.fault();
    scene.cluster.network.cut(network::MASTERS[leader.index], network::DATABASE)?;
    scene.next_leader(&leader, 60)?;
    scene.pause(5.0)
}

fn judge(scene: &mut Scene<'_>, figures: &Figures) {
    let took = scene.faults.first().and_then(|at| figures.claimed_after(*at)).map(Duration::from_micros);
    let said = took.map_or_else(|| "as long as it was watched".to_owned(), |took| format!("{took:.1?}"));
    let is_quick = took.is_some_and(|took| took <= GAP_MAX);
    scene.expect(is_quick, format!("nobody could lead for {said}, {GAP_MAX:?} are the most"));
}

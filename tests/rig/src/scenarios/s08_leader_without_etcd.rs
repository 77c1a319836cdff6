//! The leader loses etcd and nothing else: it ends by its own clock before its lease can run out, and another one leads.

use std::time::Duration;

use crate::{
    capability::Need,
    clock,
    cluster::TTL,
    history::Figures,
    network,
    scenario::{Scenario, Stage},
    scene::Scene,
};

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S08",
    title: "the leader is cut off from etcd, not from the database",
    injected: "nft drops both ways between the leader and all of etcd, for 12 s",
    in_selection: true,
    needs: &[Need::Filter],
    stage: Some(Stage::default),
    not_run: None,
    act,
    judge,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let leader = scene.leader()?;
    let (name, host) = (scene.name_of(&leader), network::MASTERS[leader.index]);
    let at = scene.fault();
    for etcd in network::ETCD {
        scene.cluster.network.cut(host, etcd)?;
    }
    scene.next_leader(&leader, 30)?;
    scene.pause(8.0)?;
    let ended = scene.ended_after(&name, at);
    scene.expect(ended.is_some(), "the leader that lost etcd did not end");
    if let Some(ended) = ended {
        scene.measure_time("old leader ended after", ended);
    }
    Ok(())
}

fn judge(scene: &mut Scene<'_>, figures: &Figures) {
    let bound = clock::micros(TTL + Duration::from_secs(5));
    let took = scene.faults.first().and_then(|at| figures.claimed_after(*at));
    scene.expect(took.is_some_and(|took| took <= bound), format!("the gap without a leader was {took:?} us"));
}

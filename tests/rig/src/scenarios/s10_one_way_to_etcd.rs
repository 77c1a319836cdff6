//! The way between the leader and etcd is open in one direction only, first one, then the other.

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
    id: "S10",
    title: "the leader hears nothing of etcd, then etcd nothing of the leader",
    injected: "nft drops one way between the leader and all of etcd, until 3 s after another one leads; then the other way",
    in_selection: false,
    needs: &[Need::Filter],
    stage: Some(Stage::default),
    not_run: None,
    act,
    judge,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    for is_deaf in [true, false] {
        let leader = scene.leader()?;
        let host = network::MASTERS[leader.index];
        scene.fault();
        for etcd in network::ETCD {
            let (to, from) = if is_deaf { (host, etcd) } else { (etcd, host) };
            scene.cluster.network.deafen(to, from)?;
        }
        scene.next_leader(&leader, 30)?;
        scene.pause(3.0)?;
        scene.cluster.network.heal_all()?;
        scene.pause(3.0)?;
    }
    Ok(())
}

fn judge(scene: &mut Scene<'_>, figures: &Figures) {
    let bound = clock::micros(TTL + Duration::from_secs(5));
    for at in scene.faults.clone() {
        let took = figures.claimed_after(at);
        scene.expect(took.is_some_and(|took| took <= bound), format!("the gap without a leader was {took:?} us"));
    }
}

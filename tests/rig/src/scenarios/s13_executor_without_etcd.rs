//! Executors need no etcd: cutting them off from it changes nothing.

use crate::{
    capability::Need,
    history::Figures,
    network,
    scenario::{Scenario, Stage},
    scene::Scene,
};

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S13",
    title: "executors are cut off from etcd",
    injected: "nft drops both ways between every executor and all of etcd for 10 s",
    in_selection: false,
    needs: &[Need::Filter],
    stage: Some(Stage::default),
    not_run: None,
    act,
    judge,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    for executor in network::EXECUTORS {
        for etcd in network::ETCD {
            scene.cluster.network.cut(executor, etcd)?;
        }
    }
    scene.pause(10.0)
}

fn judge(scene: &mut Scene<'_>, figures: &Figures) {
    scene.expect(figures.claims.len() == 1, "the leader changed");
}

//! The leader and one executor do not see each other for less than the orphan time: nothing is tried again.

use crate::{
    capability::Need,
    network,
    scenario::{Scenario, Stage, nothing_more},
    scene::Scene,
};

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S11",
    title: "the leader and one executor do not see each other for 10 s",
    injected: "nft drops both ways between the leader and x1 for 10 s; orphan time 15 s",
    in_selection: false,
    needs: &[Need::Filter],
    stage: Some(Stage::default),
    not_run: None,
    act,
    judge: nothing_more,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.long("long", 9, 20, "orphan_timeout: 15s")?;
    let leader = scene.leader()?;
    scene.cluster.network.cut(network::MASTERS[leader.index], network::EXECUTORS[0])?;
    scene.pause(10.0)?;
    scene.cluster.network.heal_all()?;
    scene.pause(5.0)
}

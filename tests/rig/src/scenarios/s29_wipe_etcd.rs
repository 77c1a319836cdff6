//! etcd is made anew: nobody leads by its word until an operator adopts it, and terms go on rising.

use crate::{
    history::Figures,
    load::workflows::Shape,
    scenario::{Scenario, Stage},
    scene::Scene,
};

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S29",
    title: "etcd is made anew and has to be adopted",
    injected: "all members killed and started with nothing; `masterctl cluster adopt-etcd` after 8 s",
    in_selection: false,
    needs: &[],
    stage: Some(|| Stage {
        shape: Shape { orphan_timeout: "60s", ..Shape::default() },
        ..Stage::default()
    }),
    not_run: None,
    act,
    judge,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let leader = scene.leader()?;
    scene.fault();
    scene.cluster.etcd.wipe();
    scene.pause(8.0)?;
    let stays = scene.leader()?;
    scene.expect(stays.term == leader.term, "somebody leads by the word of an unknown etcd");
    scene.cluster.ctl(&["cluster", "adopt-etcd"])?;
    let after = scene.next_leader(&leader, 30)?;
    scene.measure("generation of the term", format!("{} to {}", leader.term >> 48, after.term >> 48));
    scene.pause(3.0)
}

fn judge(scene: &mut Scene<'_>, figures: &Figures) {
    scene.expect(figures.claims.len() >= 2, "nobody led after the adoption");
}

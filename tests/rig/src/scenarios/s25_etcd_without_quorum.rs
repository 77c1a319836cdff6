//! etcd has no majority for less than the orphan time: nobody leads, what runs goes on, nothing is lost.

use crate::{
    load::workflows::Shape,
    scenario::{Scenario, Stage, nothing_more},
    scene::Scene,
};

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S25",
    title: "two of three etcd members are away for 30 s; orphan time 60 s",
    injected: "SIGKILL to two members, started again after 30 s",
    in_selection: false,
    needs: &[],
    stage: Some(|| Stage {
        shape: Shape { orphan_timeout: "60s", ..Shape::default() },
        ..Stage::default()
    }),
    not_run: None,
    act,
    judge: nothing_more,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.long("long", 9, 40, "orphan_timeout: 60s")?;
    let leader = scene.leader()?;
    let name = scene.name_of(&leader);
    let at = scene.fault();
    scene.cluster.etcd.kill(0);
    scene.cluster.etcd.kill(1);
    scene.pause(30.0)?;
    let ended = scene.ended_after(&name, at);
    scene.expect(ended.is_some(), "the leader did not end without a majority of etcd");
    if let Some(ended) = ended {
        scene.measure_time("old leader ended after", ended);
    }
    scene.cluster.etcd.resume_all();
    scene.next_leader(&leader, 60).map(drop)
}

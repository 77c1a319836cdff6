//! etcd forgets its past under the masters' watches, and loses them: the election still works.

use crate::{
    scenario::{Scenario, Stage, nothing_more},
    scene::Scene,
};

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S28",
    title: "etcd is compacted and its watches break, then the leader dies",
    injected: "revisions made and compacted away, each member killed and started in turn; then SIGKILL to the leader, twice",
    in_selection: false,
    needs: &[],
    stage: Some(Stage::default),
    not_run: None,
    act,
    judge: nothing_more,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    for _ in 0..2 {
        for member in 0..3 {
            compact(scene)?;
            scene.cluster.etcd.kill(member);
            compact(scene)?;
            scene.cluster.etcd.resume_all();
        }
        let leader = scene.leader()?;
        let name = scene.name_of(&leader);
        scene.fault();
        scene.cluster.kill(&name);
        scene.next_leader(&leader, 30)?;
        scene.pause(2.0)?;
    }
    Ok(())
}

fn compact(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let etcd = &scene.cluster.etcd;
    let mut revision = None;
    for value in ["one", "two", "three"] {
        // A member less changes nothing; one more try comes with the next round.
        let _ = etcd.try_ctl(&["put", "/other", value]);
        let shown = etcd.try_ctl(&["get", "/other", "-w", "json"]);
        let shown = shown.and_then(|shown| serde_json::from_str::<serde_json::Value>(&shown).ok());
        revision = shown.and_then(|shown| shown["header"]["revision"].as_i64()).or(revision);
    }
    if let Some(revision) = revision {
        // It may be compacted already.
        let _ = etcd.try_ctl(&["compact", &revision.to_string()]);
    }
    scene.pause(0.5)
}

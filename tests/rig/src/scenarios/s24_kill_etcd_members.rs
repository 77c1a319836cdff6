//! One member of etcd dies, then its leader again and again: at worst etcd is without a leader for a moment.

use crate::{
    scenario::{Scenario, Stage, nothing_more},
    scene::Scene,
};

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S24",
    title: "a member of etcd is killed, then its leader three times",
    injected: "SIGKILL to one member, back after 5 s; then to etcd's own leader, three times, back after 4 s each",
    in_selection: false,
    needs: &[],
    stage: Some(Stage::default),
    not_run: None,
    act,
    judge: nothing_more,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let first = (scene.etcd_leader()? + 1) % 3;
    bounce(scene, first, 5.0)?;
    for _ in 0..3 {
        let leader = scene.etcd_leader()?;
        bounce(scene, leader, 4.0)?;
    }
    Ok(())
}

fn bounce(scene: &mut Scene<'_>, member: usize, away: f64) -> anyhow::Result<()> {
    scene.cluster.etcd.kill(member);
    scene.pause(away)?;
    scene.cluster.etcd.resume_all();
    scene.pause(2.0)
}

//! The leader is killed again and again: what runs goes on, and nothing is tried again because of it.

use std::time::Duration;

use crate::{
    cluster::TTL,
    clock,
    history::Figures,
    scenario::{Scenario, Stage},
    scene::Scene,
};

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S01",
    title: "the leader is killed, ten times",
    injected: "SIGKILL to the leader's process, 10 times, each time a new leader has dispatched for a second",
    in_selection: true,
    needs: &[],
    stage: Some(Stage::default),
    not_run: None,
    act,
    judge,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    for _ in 0..10 {
        let leader = scene.leader()?;
        let name = scene.name_of(&leader);
        scene.fault();
        scene.cluster.kill(&name);
        scene.next_leader(&leader, 30)?;
        scene.pause(1.0)?;
    }
    Ok(())
}

fn judge(scene: &mut Scene<'_>, figures: &Figures) {
    let bound = clock::micros(TTL + Duration::from_secs(3));
    for at in scene.faults.clone() {
        let took = figures.claimed_after(at);
        scene.expect(took.is_some_and(|took| took <= bound), format!("a fail-over took {took:?} us"));
    }
    scene.expect(figures.claims.len() >= 11, "each kill ends a term");
}

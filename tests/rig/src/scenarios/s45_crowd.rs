//! Many executors come back at once when the leader changes: the next one welcomes all of them, and dispatches meanwhile.

use std::time::Duration;

use crate::{
    clock,
    crowd::{Crowd, Welcome},
    history::Figures,
    scenario::{Scenario, Stage},
    scene::Scene,
};

/// How many there are beside the real ones.
const SESSIONS: u64 = 500;
/// How long after the end of a leader the next one dispatches and has welcomed all.
const READY_WITHIN: Duration = Duration::from_secs(30);

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S45",
    title: "500 executors come back at once after a fail-over, three times",
    injected: "SIGKILL to the leader's process; beside the three real executors 500 sessions of this rig, which offer no kind that is asked for and ask the masters one after the other again, with pauses of at most 0.2 s",
    in_selection: false,
    needs: &[],
    stage: Some(Stage::default),
    not_run: None,
    act,
    judge,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let masters: Vec<String> = scene.cluster.masters.iter().map(millrace_servers::Master::url).collect();
    let mut crowd = Crowd::start(scene.cluster.network, &masters, SESSIONS, &scene.seed)?;
    until_all(scene, &crowd, 0)?;
    let mut longest = 0;
    for _ in 0..3 {
        let leader = scene.leader()?;
        let name = scene.name_of(&leader);
        let at = scene.fault();
        scene.cluster.kill(&name);
        let welcomes = until_all(scene, &crowd, leader.term)?;
        let last = welcomes.iter().map(|welcome| welcome.at).max().unwrap_or(at);
        longest = longest.max(last - at);
        scene.pause(2.0)?;
    }
    scene.measure_time("all welcome again after, longest", longest);
    crowd.stop()
}

fn until_all(scene: &mut Scene<'_>, crowd: &Crowd, term: u64) -> anyhow::Result<Vec<Welcome>> {
    scene.cluster.wait("all executors to be welcome", READY_WITHIN, |_| {
        let welcome = crowd.welcome_after(term);
        Ok((welcome.len() as u64 == SESSIONS).then_some(welcome))
    })
}

fn judge(scene: &mut Scene<'_>, figures: &Figures) {
    for at in scene.faults.clone() {
        let took = figures.dispatched_after(at);
        let is_quick = took.is_some_and(|took| took <= clock::micros(READY_WITHIN));
        scene.expect(is_quick, format!("the next dispatch took {took:?} us"));
    }
}

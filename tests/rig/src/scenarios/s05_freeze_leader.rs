//! The leader stands still for longer than its lease: another one leads, and the old one ends when it goes on.

use nix::sys::signal::Signal;

use crate::{
    history::Figures,
    scenario::{Scenario, Stage},
    scene::Scene,
};

/// Exit code of a leader that lost its term.
const TERM_LOST: i32 = 75;

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S05",
    title: "the leader is frozen past its lease, then thawed",
    injected: "SIGSTOP to the leader's process until 3 s after another one leads, then SIGCONT",
    in_selection: true,
    needs: &[],
    stage: Some(Stage::default),
    not_run: None,
    act,
    judge,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let leader = scene.leader()?;
    let name = scene.name_of(&leader);
    let at = scene.fault();
    scene.signal(&name, Signal::SIGSTOP)?;
    scene.next_leader(&leader, 60)?;
    scene.pause(3.0)?;
    scene.signal(&name, Signal::SIGCONT)?;
    scene.pause(3.0)?;
    let codes = scene.codes_of(&name);
    scene.expect(codes == [Some(TERM_LOST)], format!("the thawed leader ended with {codes:?}"));
    if let Some(ended) = scene.ended_after(&name, at) {
        scene.measure_time("old leader ended after", ended);
    }
    Ok(())
}

fn judge(_: &mut Scene<'_>, _: &Figures) {}

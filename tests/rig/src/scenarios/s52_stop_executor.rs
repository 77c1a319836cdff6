//! Executors are drained and stopped as a service manager does, with long attempts: these go on and are taken over.

use millrace_common::state::AttemptState;
use nix::sys::signal::Signal;

use crate::{
    clock,
    history::Figures,
    scenario::{Scenario, Stage},
    scene::Scene,
};

const EXECUTORS: [&str; 3] = ["x1", "x2", "x3"];
/// How many attempts run all the time.
const LONG: u64 = 9;

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S52",
    title: "executors are drained and stopped with long attempts",
    injected: "`masterctl executor drain`, then SIGTERM, started again by the service manager after 0.3 s, opened again after 4 s; each of the three executors once, while nine attempts run all the time",
    in_selection: false,
    needs: &[],
    stage: Some(Stage::default),
    not_run: None,
    act,
    judge,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.long("long", LONG, 25, "orphan_timeout: 60s")?;
    for name in EXECUTORS {
        scene.cluster.ctl(&["executor", "drain", name, "--reason", "its turn"])?;
        // By the wall clock, as the database has it.
        let drained = clock::wall();
        scene.signal(name, Signal::SIGTERM)?;
        scene.pause(4.0)?;
        let codes = scene.codes_of(name);
        scene.expect(codes == [Some(0)], format!("{name} ended with {codes:?}"));
        let given =
            format!("SELECT count(*) FROM attempt WHERE executor = '{name}' AND assigned_at > {drained}");
        let given = scene.count(&given)?;
        scene.expect(given == 0, format!("{given} attempts were given to {name} although it was drained"));
        scene.cluster.ctl(&["executor", "undrain", name])?;
    }
    let done = "SELECT count(*) FROM run WHERE workflow = 'long' AND state >= 10";
    scene.until_count("the long attempts to end", done, LONG, 60).map(drop)
}

fn judge(scene: &mut Scene<'_>, figures: &Figures) {
    let is_whole = |attempt: &millrace_common::id::AttemptId| {
        attempt.number == 1
            && figures.ends.get(attempt).is_some_and(|(_, end)| end.state == AttemptState::Succeeded)
    };
    let whole = figures.attempts_of("long").filter(is_whole).count() as u64;
    scene.expect(whole == LONG, format!("{whole} of {LONG} long attempts ran through"));
}

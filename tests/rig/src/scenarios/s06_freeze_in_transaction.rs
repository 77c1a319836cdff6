//! The leader stands still inside a transaction that holds the fence row: the next one gets past it.

use std::time::Duration;

use anyhow::bail;
use nix::sys::signal::Signal;

use crate::{clock, cluster::Leader, history::Figures, network, scenario::Scenario, scene::Scene};

/// Exit code of a leader that lost its term.
const TERM_LOST: i32 = 75;
/// How often the leader is stopped until it is inside a transaction.
const TRIES: usize = 600;
/// The longest that an open transaction may keep others from leading: the lease, a wait for the lock, the end of the
/// session that holds it.
const GAP_MAX: Duration = Duration::from_secs(15);

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S06",
    title: "the leader is frozen inside a transaction",
    injected: "no failpoint: SIGSTOP to the leader at random moments until the database says twice, 0.2 s apart, that its session is inside a transaction that has written (else SIGCONT, and again); SIGCONT 3 s after another one leads",
    in_selection: false,
    needs: &[],
    stage: Some(super::s02_kill_unacknowledged::busy),
    not_run: None,
    act,
    judge,
};

pub(super) fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let leader = freeze_in_transaction(scene)?;
    let name = scene.name_of(&leader);
    let before = scene.codes_of(&name).len();
    scene.next_leader(&leader, 60)?;
    scene.pause(3.0)?;
    scene.signal(&name, Signal::SIGCONT)?;
    scene.pause(3.0)?;
    let codes = scene.codes_of(&name).split_off(before);
    scene.expect(codes == [Some(TERM_LOST)], format!("the thawed leader ended with {codes:?}"));
    Ok(())
}

/// Freezes the leader, and leaves it so where the database shows its transaction.
fn freeze_in_transaction(scene: &mut Scene<'_>) -> anyhow::Result<Leader> {
    for tried in 1..=TRIES {
        let leader = scene.leader()?;
        let name = scene.name_of(&leader);
        scene.pause_between(3, 40)?;
        let at = clock::now();
        scene.cluster.program(&name)?.freeze();
        if is_in_transaction(scene, &leader)? {
            scene.faults.push(at);
            scene.measure("stopped until inside a transaction", format!("{tried} times"));
            return Ok(leader);
        }
        scene.signal(&name, Signal::SIGCONT)?;
    }
    bail!("the leader was stopped {TRIES} times and never inside a transaction")
}

/// Looks twice: what the server was about to do is done then, and MariaDB tells of a moment ago.
fn is_in_transaction(scene: &mut Scene<'_>, leader: &Leader) -> anyhow::Result<bool> {
    let address = network::MASTERS[leader.index].address();
    if !scene.cluster.database.has_open_write(&address)? {
        return Ok(false);
    }
    scene.pause(0.2)?;
    scene.cluster.database.has_open_write(&address)
}

pub(super) fn judge(scene: &mut Scene<'_>, figures: &Figures) {
    let took = scene.faults.first().and_then(|at| figures.claimed_after(*at));
    let is_quick = took.is_some_and(|took| took <= clock::micros(GAP_MAX));
    scene.expect(is_quick, format!("the claim took {took:?} us, {GAP_MAX:?} are the most"));
}

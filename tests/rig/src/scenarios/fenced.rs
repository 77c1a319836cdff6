//! What must hold where an executor is out of reach for longer than its attempts may run without contact: they have ended
//! before the next ones begin, with time to spare.

use std::time::Duration;

use anyhow::ensure;
use millrace_common::state::AttemptState;

use crate::{clock, history::Figures, scene::Scene};

/// Policies of the attempts beside those that all have: an orphan time as short as it may be.
pub(super) const POLICIES: &str = "orphan_timeout: 15s";
/// Orphan time, grace and what an executor has to see that nothing is left.
const ENDS_WITHIN: Duration = Duration::from_secs(15 + 2 + 5);
/// How long before the fault the last answered heartbeat may have been.
const CONTACT: Duration = Duration::from_secs(2);
/// How long the fault lasts: the leader's wait, and what it takes to place and run the next attempts.
pub(super) const LASTS: f64 = 40.0;
/// The executor that is out of reach.
pub(super) const EXECUTOR: &str = "x1";

/// Starts long attempts, and sees that the executor has some.
pub(super) fn occupy(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.long("long", 9, 45, POLICIES)?;
    let held = format!("SELECT count(*) FROM attempt WHERE state = 3 AND executor = '{EXECUTOR}'");
    ensure!(scene.count(&held)? > 0, "nothing runs on {EXECUTOR}");
    Ok(())
}

pub(super) fn judge(scene: &mut Scene<'_>, figures: &Figures) {
    let Some(at) = scene.faults.first().copied() else { return };
    let lost = figures.count(AttemptState::Lost);
    scene.expect(lost > 0, "nothing was lost, so nothing was shown");
    let ours = figures.attempts_of("long").filter(|attempt| {
        let on = figures.executors.get(attempt).is_some_and(|executor| executor.as_str() == EXECUTOR);
        on && attempt.number == 1
    });
    let last = ours.filter_map(|attempt| figures.lives.get(&attempt)).map(|life| life.last).max();
    if let Some(last) = last {
        let took = last.saturating_sub(at);
        scene.measure_time("last sign of an orphan after", took);
        scene.expect(took <= clock::micros(ENDS_WITHIN), "an orphan lived longer than it may");
    }
    if let Some((again, _)) = figures.disturbed.first() {
        let took = again.saturating_sub(at);
        scene.measure_time("first one again after", took);
        scene.expect(
            took + clock::micros(CONTACT) >= clock::micros(ENDS_WITHIN),
            "an attempt was tried again before the orphan time was over",
        );
    }
    scene.expect(figures.gap.is_some_and(|gap| gap > 0) && figures.overlap == 0, "attempts overlap");
}

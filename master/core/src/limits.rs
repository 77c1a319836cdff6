//! Every bound of the scheduler, with its unit and where the number comes from.

use std::{collections::BTreeMap, time::Duration};

use millrace_common::id::PoolName;

/// Clocks that differ by more than this are broken; no wait makes up for them.
const CLOCK_RATE_ERROR_PERCENT_MAX: u32 = 50;

/// The longest delay after a rejection. With the default bounds a task outlasts an executor that stops for ten minutes.
const REJECTION_DELAY_MAX: Duration = Duration::from_secs(60);

/// The longest time for which an executor's word about space does not count: a row a day for each hour harms nobody.
const SPACE_WAIT_MAX: Duration = Duration::from_secs(3_600);

/// Bounds that an operator may set; the defaults fit one machine.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Unfinished runs of one workflow; above [`FIRES_MAX`](millrace_common::schedule::FIRES_MAX), so that a schedule fits.
    pub runs_per_workflow_max: usize,
    /// Attempts of one task instance that are lost with their executors before it is quarantined, which is that it fails and
    /// says so: a task that takes its executors down must end. Three, so that two outages in one night do no harm.
    pub losses_max: u32,
    /// Starts in a row that come to nothing for reasons of an executor before it is cordoned; 0 cordons none. Five, so that a
    /// broken machine uses up no more of a queue, and a machine that was short of processes for a moment is not sent away.
    pub failed_starts_max: u32,
    /// How long an executor that refused starts for want of space twice in a row, and said in between that it had some, is
    /// not believed that; it doubles with each further time.
    pub space_wait: Duration,
    /// Attempts of one task instance that may be rejected in a row of its history before it fails.
    pub rejections_max: u32,
    /// Delay before an instance is placed again after its first rejection; it doubles with each further one.
    pub rejection_delay: Duration,
    /// Capacity of each pool.
    pub pools: BTreeMap<PoolName, u32>,
    /// How long the verified end of a killed attempt may take, after its grace.
    pub kill_verify: Duration,
    /// How long a leader may go on answering heartbeats after the next one has claimed its term: its authority.
    pub authority: Duration,
    /// Safety margin on top of an executor's orphan time.
    pub loss_margin: Duration,
    /// How far the rate of a machine's clock may be off, in percent.
    pub clock_rate_error_percent: u32,
    /// Idempotency keys of ended runs that are remembered without asking the store.
    pub keys_remembered_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            runs_per_workflow_max: 1_000,
            losses_max: 3,
            failed_starts_max: 5,
            space_wait: Duration::from_secs(10),
            rejections_max: 16,
            rejection_delay: Duration::from_secs(1),
            pools: BTreeMap::new(),
            kill_verify: Duration::from_secs(5),
            authority: Duration::from_secs(6),
            loss_margin: Duration::from_secs(5),
            clock_rate_error_percent: 1,
            keys_remembered_max: 10_000,
        }
    }
}

impl Limits {
    /// Returns how long an instance waits after being rejected for the `count`th time, from 1.
    #[must_use]
    pub fn rejection_delay_after(&self, count: u32) -> Duration {
        let factor = 1_u32.checked_shl(count.saturating_sub(1)).unwrap_or(u32::MAX);
        self.rejection_delay.saturating_mul(factor).min(REJECTION_DELAY_MAX)
    }

    /// Returns how long an executor that refused starts for want of space is not tried again, after the `count`th time in a
    /// row that it had said otherwise, from 1. Once is not too often: a start and a word about space may cross.
    #[must_use]
    pub fn space_wait_after(&self, count: u32) -> Duration {
        let Some(doublings) = count.checked_sub(2) else { return Duration::ZERO };
        let factor = 1_u32.checked_shl(doublings).unwrap_or(u32::MAX);
        self.space_wait.saturating_mul(factor).min(SPACE_WAIT_MAX)
    }

    /// Returns how long the leader waits, from the last contact, before an attempt counts as ended by itself.
    ///
    /// It is longer than the executor lets an orphan run, plus the time to end it, by clocks that differ in rate.
    #[must_use]
    pub fn loss_wait(&self, orphan_timeout: Duration, kill_grace: Duration) -> Duration {
        let error = self.clock_rate_error_percent.min(CLOCK_RATE_ERROR_PERCENT_MAX);
        let local = orphan_timeout + kill_grace + self.kill_verify;
        // The executor's clock may be slow by the error and the leader's fast by it.
        local * (100 + error) / (100 - error) + self.loss_margin
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The longest that an attempt can live after its last contact, where its clock and the leader's err the worst way,
    /// as a time on the leader's clock.
    fn life(limits: &Limits, orphan_timeout: Duration, kill_grace: Duration) -> f64 {
        let error = f64::from(limits.clock_rate_error_percent) / 100.0;
        let on_its_own_clock = (orphan_timeout + kill_grace + limits.kill_verify).as_secs_f64();
        on_its_own_clock / (1.0 - error) * (1.0 + error)
    }

    #[test]
    fn the_wait_for_a_silent_executor_is_longer_than_anything_lives_on_it() {
        let timeouts = [15, 60, 900, 3_600, 86_400, 7 * 86_400].map(Duration::from_secs);
        let graces = [0, 10, 3_600].map(Duration::from_secs);
        for clock_rate_error_percent in [0, 1, 2, 5] {
            let limits = Limits { clock_rate_error_percent, ..Limits::default() };
            for (orphan, grace) in timeouts.iter().flat_map(|orphan| graces.map(|grace| (*orphan, grace))) {
                let wait = limits.loss_wait(orphan, grace).as_secs_f64();
                let margin = wait - life(&limits, orphan, grace);
                assert!(
                    margin > 4.99,
                    "{orphan:?} and {grace:?} leave {margin} s at {clock_rate_error_percent} %"
                );
            }
        }
    }

    #[test]
    fn a_clock_error_beyond_reason_does_not_make_the_wait_fail() {
        let limits = Limits { clock_rate_error_percent: 100, ..Limits::default() };
        assert!(limits.loss_wait(Duration::from_secs(60), Duration::ZERO) > Duration::from_secs(60));
    }

    #[test]
    fn rejections_wait_longer_and_longer_up_to_a_bound() {
        let delays: Vec<u64> = [1, 2, 3, 7, 16, 1_000]
            .map(|count| Limits::default().rejection_delay_after(count).as_secs())
            .into();
        assert_eq!(delays, [1, 2, 4, 60, 60, 60]);
    }
}

//! Every bound of the scheduler, with its unit and where the number comes from.

use std::{collections::BTreeMap, time::Duration};

use millrace_common::id::PoolName;

/// Bounds that an operator may set; the defaults fit one machine.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Unfinished runs of one workflow; above [`FIRES_MAX`](millrace_common::schedule::FIRES_MAX), so that a schedule fits.
    pub runs_per_workflow_max: usize,
    /// Attempts of one task instance that may be lost before it fails: a task that kills its executors must end.
    pub losses_max: u32,
    /// Attempts of one task instance that may be rejected in a row of its history before it fails.
    pub rejections_max: u32,
    /// Delay before a rejected instance is placed again.
    pub rejection_delay: Duration,
    /// Capacity of each pool.
    pub pools: BTreeMap<PoolName, u32>,
    /// How long the verified end of a killed attempt may take, after its grace.
    pub kill_verify: Duration,
    /// Safety margin on top of an executor's orphan time.
    pub loss_margin: Duration,
    /// Clock-rate error between two machines, in percent.
    pub clock_rate_error_percent: u32,
    /// Idempotency keys of ended runs that are remembered without asking the store.
    pub keys_remembered_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            runs_per_workflow_max: 1_000,
            losses_max: 16,
            rejections_max: 16,
            rejection_delay: Duration::from_secs(1),
            pools: BTreeMap::new(),
            kill_verify: Duration::from_secs(5),
            loss_margin: Duration::from_secs(5),
            clock_rate_error_percent: 1,
            keys_remembered_max: 10_000,
        }
    }
}

impl Limits {
    /// Returns how long the leader waits, from the last contact, before an attempt counts as ended by itself.
    ///
    /// It is longer than the executor lets an orphan run, plus the time to end it, by clocks that differ in rate.
    #[must_use]
    pub fn loss_wait(&self, orphan_timeout: Duration, kill_grace: Duration) -> Duration {
        let local = orphan_timeout + kill_grace + self.kill_verify;
        local + local * (2 * self.clock_rate_error_percent) / 100 + self.loss_margin
    }
}

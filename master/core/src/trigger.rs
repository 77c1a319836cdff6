//! Trigger rules: when a task may start, given the states of its direct upstream tasks. Pure.
//!
//! Names, meanings and what a task becomes when its rule can no longer be met are Airflow's.
//!
//! | rule | runs when | otherwise becomes |
//! |---|---|---|
//! | `all_success` | all success | any failed or `upstream_failed`: `upstream_failed`; all ended, else any skipped: skipped |
//! | `all_failed` | all failed or `upstream_failed` | any success or skipped: skipped |
//! | `all_done` | all ended | – |
//! | `all_done_min_one_success` | all ended, one success | any skipped: skipped; no success: `upstream_failed` |
//! | `all_skipped` | all skipped | any other: skipped |
//! | `one_failed` | one failed or `upstream_failed`, at once | all ended, none failed: skipped |
//! | `one_success` | one success, at once | all skipped: skipped; no success: `upstream_failed` |
//! | `one_done` | one success or failed, at once | all ended, neither: skipped |
//! | `none_failed` | all ended, none failed | any failed: `upstream_failed` |
//! | `none_failed_min_one_success` | all ended, none failed, one success | failed: `upstream_failed`; all skipped: skipped |
//! | `none_skipped` | all ended, none skipped | any skipped: skipped |
//! | `always` | at once | – |
//!
//! A task without upstream runs under every rule. What a task becomes does not depend on the order in which its upstream
//! tasks end: `all_success` therefore waits with a skip until none of them can fail any more.

use millrace_common::{state::TaskState, workflow::TriggerRule};

/// How many direct upstream tasks are in which final state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Succeeded.
    pub success: u32,
    /// Failed; a cancelled one counts here, since what it would have made is missing.
    pub failed: u32,
    /// Could not run because something before them failed.
    pub upstream_failed: u32,
    /// Were not to run.
    pub skipped: u32,
}

impl Counts {
    /// Counts one more ended upstream task; a live state counts nothing.
    pub const fn add(&mut self, state: TaskState) {
        match state {
            TaskState::Success => self.success += 1,
            TaskState::Failed | TaskState::Cancelled => self.failed += 1,
            TaskState::UpstreamFailed => self.upstream_failed += 1,
            TaskState::Skipped => self.skipped += 1,
            TaskState::Waiting
            | TaskState::Ready
            | TaskState::Active
            | TaskState::UpForRetry
            | TaskState::Deferred => {}
        }
    }

    /// Returns how many have ended.
    #[must_use]
    pub const fn done(&self) -> u32 {
        self.success + self.failed + self.upstream_failed + self.skipped
    }
}

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The task may start.
    Run,
    /// It depends on tasks that have not ended.
    Wait,
    /// It will never start; this is its final state.
    Become(TaskState),
}

/// Evaluates `rule` for a task with `total` direct upstream tasks, of which `counts` have ended.
#[must_use]
pub const fn evaluate(rule: TriggerRule, counts: &Counts, total: u32) -> Verdict {
    use TaskState::{Skipped, UpstreamFailed};
    use Verdict::{Become, Run, Wait};

    if total == 0 {
        return Run;
    }
    let all_done = counts.done() == total;
    let failed = counts.failed + counts.upstream_failed;
    let Counts { success, skipped, .. } = *counts;
    match rule {
        TriggerRule::Always => Run,
        TriggerRule::AllSuccess if failed > 0 => Become(UpstreamFailed),
        TriggerRule::AllSuccess if all_done && skipped > 0 => Become(Skipped),
        TriggerRule::AllFailed if success + skipped > 0 => Become(Skipped),
        TriggerRule::AllDoneMinOneSuccess if skipped > 0 => Become(Skipped),
        TriggerRule::AllDoneMinOneSuccess if all_done && success == 0 => Become(UpstreamFailed),
        TriggerRule::AllSkipped if success + failed > 0 => Become(Skipped),
        TriggerRule::OneFailed if failed > 0 => Run,
        TriggerRule::OneFailed if all_done => Become(Skipped),
        TriggerRule::OneSuccess if success > 0 => Run,
        TriggerRule::OneSuccess if all_done && skipped == total => Become(Skipped),
        TriggerRule::OneSuccess if all_done => Become(UpstreamFailed),
        TriggerRule::OneDone if success + counts.failed > 0 => Run,
        TriggerRule::OneDone if all_done => Become(Skipped),
        TriggerRule::NoneFailed | TriggerRule::NoneFailedMinOneSuccess if failed > 0 => {
            Become(UpstreamFailed)
        }
        TriggerRule::NoneFailedMinOneSuccess if all_done && success == 0 => Become(Skipped),
        TriggerRule::NoneSkipped if skipped > 0 => Become(Skipped),
        TriggerRule::AllSuccess
        | TriggerRule::AllFailed
        | TriggerRule::AllDone
        | TriggerRule::AllDoneMinOneSuccess
        | TriggerRule::AllSkipped
        | TriggerRule::OneFailed
        | TriggerRule::OneSuccess
        | TriggerRule::OneDone
        | TriggerRule::NoneFailed
        | TriggerRule::NoneFailedMinOneSuccess
        | TriggerRule::NoneSkipped => {
            if all_done {
                Run
            } else {
                Wait
            }
        }
    }
}

#[cfg(test)]
mod tests;

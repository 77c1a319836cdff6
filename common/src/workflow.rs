//! A workflow in its valid form: what [`definition::parse`](crate::definition::parse) gives and everything else uses.
//!
//! Tasks are numbered in the order of the document; the [`Graph`] holds their dependencies as integers, names are kept
//! once.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    graph::Graph,
    id::{InstanceIndex, KindName, ParamName, PoolName, TaskName, WorkflowName},
    schedule::Schedule,
};

/// A named DAG of tasks with triggers and policies.
#[derive(Debug, Clone, PartialEq)]
pub struct Workflow {
    /// Its name.
    pub name: WorkflowName,
    /// Free text for people.
    pub description: String,
    /// Who answers for it.
    pub owner: String,
    /// When it runs by itself; never where absent.
    pub schedule: Option<Schedule>,
    /// Parameters that a run may set.
    pub params: BTreeMap<ParamName, Param>,
    /// Runs of it that may be running at once.
    pub max_active_runs: u32,
    /// How long a run may take from its start.
    pub run_timeout: Option<Duration>,
    /// Which of its tasks must not fail for a run to succeed.
    pub success: SuccessRule,
    /// Its tasks, in the order of the document.
    pub tasks: Vec<Task>,
    /// Dependencies between tasks, by position in `tasks`.
    pub graph: Graph,
}

impl Workflow {
    /// Finds a task by its name.
    #[must_use]
    pub fn task_named(&self, name: &str) -> Option<(InstanceIndex, &Task)> {
        self.tasks.iter().position(|task| task.name.as_str() == name).and_then(|index| {
            let task = self.tasks.get(index)?;
            Some((InstanceIndex::try_from(index).ok()?, task))
        })
    }
}

/// A node of the DAG.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Its name, unique in the workflow.
    pub name: TaskName,
    /// Free text for people.
    pub description: String,
    /// What runs.
    pub kind: KindName,
    /// Parameters of the kind; texts in it may hold templates.
    pub with: Arc<Value>,
    /// Whether any text of `with` holds a template, so that plain ones are never rendered.
    pub is_templated: bool,
    /// Tasks whose values the templates refer to; each is upstream of this one.
    pub value_refs: Vec<InstanceIndex>,
    /// When it may start, given its upstream tasks.
    pub trigger_rule: TriggerRule,
    /// What happens after a failure.
    pub retry: RetryPolicy,
    /// How long one attempt may take.
    pub timeout: Option<Duration>,
    /// How long processes have between TERM and KILL.
    pub kill_grace: Duration,
    /// What happens when an attempt is lost.
    pub on_lost: OnLost,
    /// How long an attempt may run without contact to a leader.
    pub orphan_timeout: Duration,
    /// Cap that it counts against.
    pub pool: Option<PoolName>,
    /// How much of the pool it takes.
    pub pool_slots: u32,
    /// Higher starts first where places are short.
    pub priority: i32,
    /// Labels that an executor must carry.
    pub labels: Arc<BTreeMap<String, String>>,
}

/// When to try again.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Further attempts after the first.
    pub retries: u32,
    /// Delay before the second attempt, counted from the end of the first.
    pub delay: Duration,
    /// Factor by which the delay grows with each attempt; 1.0 keeps it.
    pub backoff: f64,
    /// Upper bound of the delay.
    pub delay_max: Duration,
}

impl RetryPolicy {
    /// Returns how long to wait after the failure of the attempt with `number` (from 1).
    #[must_use]
    pub fn delay_after(&self, number: u32) -> Duration {
        // A factor that has grown beyond all numbers makes no delay out of none.
        if self.delay.is_zero() {
            return Duration::ZERO;
        }
        let exponent = i32::try_from(number.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.delay.as_secs_f64() * self.backoff.powi(exponent);
        let grown = Duration::try_from_secs_f64(seconds).unwrap_or(self.delay_max);
        grown.min(self.delay_max)
    }
}

/// Which tasks decide whether a run has succeeded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SuccessRule {
    /// Those that nothing comes after, as in Airflow: what an `all_done` task comes after may fail.
    #[default]
    Leaves,
    /// All of them: no task may fail, whatever came after it.
    All,
}

/// What happens to a task instance when its attempt is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnLost {
    /// Try again once a proof exists that nothing of the attempt runs.
    #[default]
    Retry,
    /// Only a proof other than the passing of time allows another attempt.
    Confirm,
    /// The task fails.
    Fail,
}

/// When a task may start, given the states of its direct upstream tasks. The names and meanings are Airflow's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TriggerRule {
    /// All succeeded.
    #[default]
    AllSuccess,
    /// All failed or could not run.
    AllFailed,
    /// All ended, in whatever state.
    AllDone,
    /// All ended and at least one succeeded.
    AllDoneMinOneSuccess,
    /// All were skipped.
    AllSkipped,
    /// At least one failed; does not wait for the others.
    OneFailed,
    /// At least one succeeded; does not wait for the others.
    OneSuccess,
    /// At least one succeeded or failed; does not wait for the others.
    OneDone,
    /// All ended and none failed; skips are allowed.
    NoneFailed,
    /// All ended, none failed, at least one succeeded.
    NoneFailedMinOneSuccess,
    /// All ended and none was skipped.
    NoneSkipped,
    /// At once.
    Always,
}

/// A parameter of a workflow.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Param {
    /// What values it takes.
    pub kind: ParamKind,
    /// The value where a run gives none; such a run must give one where absent.
    pub default: Option<Value>,
    /// The only values allowed; any of the type where empty.
    pub one_of: Vec<Value>,
    /// Free text for people.
    pub description: String,
}

/// The type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ParamKind {
    /// Text.
    String,
    /// A whole number.
    Integer,
    /// Any number.
    Number,
    /// True or false.
    Boolean,
    /// A calendar date, `YYYY-MM-DD`.
    Date,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(delay: Duration, backoff: f64, delay_max: Duration) -> RetryPolicy {
        RetryPolicy { retries: 0, delay, backoff, delay_max }
    }

    #[test]
    fn no_delay_stays_none_however_large_the_factor_grows() {
        let at_once = policy(Duration::ZERO, 100.0, Duration::from_hours(24));
        for number in [1, 2, 155, 156, 1_000, u32::MAX] {
            assert_eq!(at_once.delay_after(number), Duration::ZERO, "after {number} failures");
        }
    }

    #[test]
    fn a_delay_that_grows_ends_at_its_bound() {
        let growing = policy(Duration::from_secs(1), 100.0, Duration::from_hours(24));
        let delays = [1, 2, 3, 155, 156, u32::MAX].map(|number| growing.delay_after(number).as_secs());
        assert_eq!(delays, [1, 100, 10_000, 86_400, 86_400, 86_400]);
    }

    proptest! {
        #[test]
        fn delays_never_shrink_and_are_never_beyond_their_bound(
            delay in 0..=3_600_000_u64, backoff in 1.0..=100.0_f64, delay_max in 0..=86_400_000_u64,
            number in prop_oneof![1..=2_000_u32, Just(u32::MAX - 1)],
        ) {
            let (delay, delay_max) = (Duration::from_millis(delay), Duration::from_millis(delay_max));
            let policy = policy(delay, backoff, delay_max);
            let (this, next) = (policy.delay_after(number), policy.delay_after(number + 1));
            // Floating point may be off in its last digit.
            let error = Duration::from_micros(1);
            prop_assert!(this <= next + error && next <= delay_max, "{this:?} then {next:?}");
            prop_assert!(this + error >= delay.min(delay_max), "{this:?}");
            prop_assert!(!delay.is_zero() || next.is_zero(), "{next:?}");
        }
    }
}

//! Why things wait: the values that answer a person's question.
//!
//! A reason is made where the decision is made (placement, trigger rules, run limits) and only shown here.

use std::{collections::BTreeMap, fmt, sync::Arc};

use millrace_common::{
    id::{ExecutorName, PoolName, RunId, TaskName},
    state::{AttemptState, RunState, TaskState},
    time::Timestamp,
    workflow::TriggerRule,
};

use crate::standing::{Closed, ExecutorStanding};

/// Why a run and its tasks are where they are.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// Which run.
    pub run: RunId,
    /// Its state.
    pub state: RunState,
    /// Why the run as a whole waits; absent where it does not.
    pub reason: Option<Reason>,
    /// Since when no schedule starts runs; absent where they do. What exists goes on all the same.
    pub schedules_paused_since: Option<Timestamp>,
    /// Its tasks, in the order of the definition.
    pub tasks: Vec<TaskReason>,
}

/// Why a task instance is where it is.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskReason {
    /// Which task.
    pub task: TaskName,
    /// Its state.
    pub state: TaskState,
    /// Why.
    pub reason: Reason,
}

/// Why something is not further than it is.
#[derive(Debug, Clone, PartialEq)]
pub enum Reason {
    /// It has ended.
    Ended,
    /// An attempt is under way.
    Active {
        /// Number of the attempt.
        number: u32,
        /// Where.
        executor: ExecutorName,
        /// Its state.
        state: AttemptState,
        /// Since when it is assigned.
        since: Timestamp,
        /// Whether the executor is connected; while it is not, the attempt ends only by a proof.
        is_connected: bool,
    },
    /// The trigger rule is not met yet.
    Upstream {
        /// The rule.
        rule: TriggerRule,
        /// Direct upstream tasks that have not ended; the first few.
        pending: Vec<(TaskName, TaskState)>,
        /// How many more there are.
        more: usize,
    },
    /// The last attempt failed; the next is due at a time.
    RetryAt(Timestamp),
    /// Its workflow has as many running runs as it may have.
    RunLimit {
        /// Running ones.
        active: u32,
        /// How many there may be.
        limit: u32,
    },
    /// A person paused the run.
    Paused,
    /// The run is being ended.
    Ending(Arc<str>),
    /// No executor is connected, or none that takes starts.
    NoExecutor,
    /// No connected executor carries the labels.
    NoExecutorWithLabels(Arc<BTreeMap<String, String>>),
    /// No connected executor that carries the labels can run the kind.
    NoExecutorWithKind(Arc<str>),
    /// Every executor that could run it is short of disk space.
    SpaceLow {
        /// The first of them.
        executor: ExecutorName,
        /// How many more there are.
        more: usize,
    },
    /// Every executor that could run it is closed to starts, or something else stands in its way.
    ExecutorClosed {
        /// The first of them.
        executor: ExecutorName,
        /// How it is closed, why, by whom and since when.
        standing: ExecutorStanding,
        /// How many more cannot be given it, for this or another reason.
        more: usize,
    },
    /// Executors that could run it say that they have disk space, and were wrong about that again and again.
    SpaceUnsteady {
        /// The first of them.
        executor: ExecutorName,
        /// How many more there are.
        more: usize,
    },
    /// Executors that could run it have to show first that they can start anything.
    OnTrial {
        /// The first of them.
        executor: ExecutorName,
        /// How many more there are.
        more: usize,
    },
    /// Every executor that could run it is full.
    SlotsFull {
        /// How many executors could.
        executors: usize,
        /// How many slots they have together.
        slots: u32,
    },
    /// Its pool is full.
    PoolFull {
        /// Which pool.
        pool: PoolName,
        /// Taken.
        used: u32,
        /// There are.
        limit: u32,
    },
    /// Its pool does not exist.
    UnknownPool(PoolName),
    /// It takes more of its pool than the pool has.
    PoolTooSmall {
        /// Which pool.
        pool: PoolName,
        /// Needed.
        needed: u32,
        /// There are.
        limit: u32,
    },
    /// It is next; nothing stands in its way.
    Next,
}

impl Reason {
    /// Returns a stable word for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Active { .. } => "active",
            Self::Upstream { .. } => "upstream",
            Self::RetryAt(_) => "retry_at",
            Self::RunLimit { .. } => "run_limit",
            Self::Paused => "paused",
            Self::Ending(_) => "ending",
            Self::NoExecutor => "no_executor",
            Self::NoExecutorWithLabels(_) => "no_executor_with_labels",
            Self::NoExecutorWithKind(_) => "no_executor_with_kind",
            Self::SpaceLow { .. } => "space_low",
            Self::ExecutorClosed { standing, .. } => match standing.closed {
                Closed::Drained => "executor_drained",
                Closed::Cordoned => "executor_cordoned",
            },
            Self::SpaceUnsteady { .. } => "space_unsteady",
            Self::OnTrial { .. } => "executor_on_trial",
            Self::SlotsFull { .. } => "slots_full",
            Self::PoolFull { .. } => "pool_full",
            Self::UnknownPool(_) => "unknown_pool",
            Self::PoolTooSmall { .. } => "pool_too_small",
            Self::Next => "next",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("has ended"),
            Self::Active { number, executor, state, since, is_connected } => {
                write!(f, "attempt {number} is {state} on executor {executor}, assigned at {since}")?;
                if *is_connected { Ok(()) } else { f.write_str("; the executor is not connected") }
            }
            Self::Upstream { rule, pending, more } => {
                write!(f, "rule {} waits for ", rule_word(*rule))?;
                for (at, (task, state)) in pending.iter().enumerate() {
                    write!(f, "{}{task} ({state})", if at == 0 { "" } else { ", " })?;
                }
                if *more == 0 { Ok(()) } else { write!(f, " and {more} more") }
            }
            Self::RetryAt(at) => write!(f, "the next attempt is due at {at}"),
            Self::RunLimit { active, limit } => {
                write!(f, "max_active_runs of the workflow is {limit}, active runs: {active}")
            }
            Self::Paused => f.write_str("the run is paused; resume it"),
            Self::Ending(reason) => write!(f, "the run is being ended: {reason}"),
            Self::NoExecutor => f.write_str("no executor that takes starts is connected"),
            Self::NoExecutorWithLabels(labels) => {
                f.write_str("no connected executor carries the labels ")?;
                for (at, (key, value)) in labels.iter().enumerate() {
                    write!(f, "{}{key}={value}", if at == 0 { "" } else { ", " })?;
                }
                Ok(())
            }
            Self::NoExecutorWithKind(kind) => {
                write!(f, "no connected executor that fits can run kind {kind}")
            }
            Self::SpaceLow { executor, more: 0 } => {
                write!(f, "executor {executor} is short of disk space")
            }
            Self::SpaceLow { executor, more } => {
                write!(f, "executor {executor} and {more} more are short of disk space")
            }
            Self::ExecutorClosed { executor, standing, more } => {
                write!(f, "executor {executor} is {standing}")?;
                match more {
                    0 => Ok(()),
                    more => write!(f, "; {more} more that fit take no starts either"),
                }
            }
            Self::SpaceUnsteady { executor, more } => {
                write!(
                    f,
                    "executor {executor}{} had no disk space though it had said so, and is tried again later",
                    others(*more)
                )
            }
            Self::OnTrial { executor, more } => {
                write!(
                    f,
                    "the first starts on executor {executor}{} have to show that it can start anything",
                    others(*more)
                )
            }
            Self::SlotsFull { executors, slots } => {
                write!(f, "no slot is free on the executors that fit; executors: {executors}, slots: {slots}")
            }
            Self::PoolFull { pool, used, limit } => write!(f, "pool {pool} is full: {used} of {limit} taken"),
            Self::UnknownPool(pool) => write!(f, "pool {pool} is not configured on the master"),
            Self::PoolTooSmall { pool, needed, limit } => {
                write!(f, "it takes {needed} of pool {pool}, which has {limit} in all")
            }
            Self::Next => f.write_str("it is next"),
        }
    }
}

/// Names how many more there are beside one.
fn others(more: usize) -> String {
    if more == 0 { String::new() } else { format!(" (and {more} more)") }
}

fn rule_word(rule: TriggerRule) -> &'static str {
    match rule {
        TriggerRule::AllSuccess => "all_success",
        TriggerRule::AllFailed => "all_failed",
        TriggerRule::AllDone => "all_done",
        TriggerRule::AllDoneMinOneSuccess => "all_done_min_one_success",
        TriggerRule::AllSkipped => "all_skipped",
        TriggerRule::OneFailed => "one_failed",
        TriggerRule::OneSuccess => "one_success",
        TriggerRule::OneDone => "one_done",
        TriggerRule::NoneFailed => "none_failed",
        TriggerRule::NoneFailedMinOneSuccess => "none_failed_min_one_success",
        TriggerRule::NoneSkipped => "none_skipped",
        TriggerRule::Always => "always",
    }
}

/// What an executor does at the moment.
#[derive(Debug, Clone, PartialEq)]
pub struct ExecutorSummary {
    /// Its name.
    pub name: ExecutorName,
    /// Whether it has a session.
    pub is_connected: bool,
    /// Why it is closed to starts; absent where it is open.
    pub standing: Option<ExecutorStanding>,
    /// Whether it gets no starts for want of disk space.
    pub is_space_low: bool,
    /// Attempts that it runs at once.
    pub slots: u32,
    /// Live attempts on it.
    pub slots_used: u32,
    /// What it is labelled with.
    pub labels: BTreeMap<String, String>,
    /// Kinds that it can run.
    pub kinds: Vec<String>,
    /// Version of its program.
    pub version: Arc<str>,
    /// Milliseconds since it was last heard.
    pub silent_ms: u64,
}

/// What there is to do, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WorkCount {
    /// Runs that are not final.
    pub runs: usize,
    /// Attempts that are live.
    pub attempts: usize,
    /// Task instances that wait for a place.
    pub ready: usize,
    /// Since when no schedule starts runs; absent where they do.
    pub schedules_paused_since: Option<Timestamp>,
}

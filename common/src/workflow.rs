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
        let exponent = i32::try_from(number.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.delay.as_secs_f64() * self.backoff.powi(exponent);
        let bounded = seconds.min(self.delay_max.as_secs_f64());
        Duration::try_from_secs_f64(bounded).unwrap_or(self.delay_max)
    }
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

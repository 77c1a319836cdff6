//! Why a request is refused: not legal now, answered and counted, never a panic.

use std::fmt;

use millrace_common::{
    id::{AttemptId, ExecutorName, RunId, TaskName, WorkflowName},
    settings::SettingError,
    state::RunState,
};
use thiserror::Error;

/// Why the leader does not do what a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// No workflow of that name.
    #[error("there is no workflow {0}; apply its definition first")]
    UnknownWorkflow(WorkflowName),
    /// The version in force was taken by another build and means nothing to this one.
    #[error(
        "version {version} of workflow {workflow}, which is in force, cannot be read by this master: apply its definition \
         again, or start the build that took it"
    )]
    UnreadableWorkflow {
        /// Which workflow.
        workflow: WorkflowName,
        /// The version in force.
        version: u32,
    },
    /// No live run of that id.
    #[error("run {0} does not exist or has ended")]
    UnknownRun(RunId),
    /// No task of that name in the run.
    #[error("run {0} has no task {1}")]
    UnknownTask(RunId, TaskName),
    /// The run is in a state in which this makes no sense.
    #[error("run {run} is {state}: {hint}")]
    WrongState {
        /// Which run.
        run: RunId,
        /// Its state.
        state: RunState,
        /// What to do instead.
        hint: &'static str,
    },
    /// More runs than may wait.
    #[error(
        "workflow {workflow} has {limit} unfinished runs, which is the limit: wait for some to end, or cancel them"
    )]
    TooManyRuns {
        /// Of which workflow.
        workflow: WorkflowName,
        /// The limit.
        limit: usize,
    },
    /// No executor of that name.
    #[error("no executor {0} is known; `masterctl executor list` shows those that are")]
    UnknownExecutor(ExecutorName),
    /// It is there.
    #[error("executor {0} is connected: stop it first, or drain it if it is to take no more starts")]
    ExecutorConnected(ExecutorName),
    /// A live setting cannot be that.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// Something of it may run.
    #[error(
        "executor {executor} may still run {}: bring it back, wait for their orphan time, or confirm each as lost with \
         `masterctl attempt confirm-lost`",
        Listed(attempts, *more)
    )]
    ExecutorHolds {
        /// Which.
        executor: ExecutorName,
        /// The first few of its live attempts.
        attempts: Vec<AttemptId>,
        /// How many more there are.
        more: usize,
    },
    /// It has ended, or never was.
    #[error("attempt {0} does not exist or has ended")]
    AttemptNotLive(AttemptId),
    /// Nobody need be believed where the executor can be asked.
    #[error(
        "executor {executor} is connected and speaks for attempt {attempt}: cancel the run to end it, or stop the executor \
         first"
    )]
    ExecutorSpeaks {
        /// Which attempt.
        attempt: AttemptId,
        /// Where it is.
        executor: ExecutorName,
    },
}

/// Attempts as a message names them.
struct Listed<'a>(&'a [AttemptId], usize);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, attempt) in self.0.iter().enumerate() {
            write!(f, "{}{attempt}", if at == 0 { "" } else { ", " })?;
        }
        if self.1 == 0 { Ok(()) } else { write!(f, " and {} more", self.1) }
    }
}

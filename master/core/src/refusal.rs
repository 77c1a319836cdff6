//! Why a request is refused: not legal now, answered and counted, never a panic.

use millrace_common::{
    id::{RunId, TaskName, WorkflowName},
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
}

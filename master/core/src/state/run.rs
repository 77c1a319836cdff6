//! A run and its task instances in memory.

use std::sync::Arc;

use millrace_common::{
    id::{ExecutorName, InstanceId, InstanceIndex, SpoolId},
    state::{AttemptState, RunState, TaskState},
    time::Timestamp,
    workflow::{SuccessRule, Task, Workflow},
};

use crate::{batch::RunCreated, trigger::Counts};

/// A run that is not final.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) created: RunCreated,
    pub(crate) workflow: Arc<Workflow>,
    pub(crate) state: RunState,
    pub(crate) started_at: Option<Timestamp>,
    /// The final state that it is to have once nothing of it is active, and why.
    pub(crate) ending: Option<(RunState, Arc<str>)>,
    pub(crate) instances: Vec<Instance>,
    /// Instances that are not final.
    pub(crate) unfinished: u32,
}

/// A task instance. Runs of a million of these must fit into memory: what is rare stands behind a pointer.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    pub(crate) state: TaskState,
    /// States of the direct upstream tasks that have ended.
    pub(crate) upstream: Counts,
    /// Number of the last attempt, 0 before the first.
    pub(crate) attempts: u32,
    pub(crate) failures: u16,
    pub(crate) losses: u16,
    pub(crate) rejections: u16,
    pub(crate) retry_at: Option<Timestamp>,
    pub(crate) live: Option<Box<LiveAttempt>>,
    pub(crate) values: Option<Arc<str>>,
}

/// The live attempt of an instance; there is at most one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LiveAttempt {
    pub(crate) number: u32,
    pub(crate) state: AttemptState,
    pub(crate) executor: ExecutorName,
    pub(crate) spool: SpoolId,
    /// The machine on which that spool was when the attempt was assigned, where the executor knew it.
    pub(crate) machine: Option<Arc<str>>,
    pub(crate) assigned_at: Timestamp,
}

impl Instance {
    pub(crate) fn waiting() -> Self {
        Self {
            state: TaskState::Waiting,
            upstream: Counts::default(),
            attempts: 0,
            failures: 0,
            losses: 0,
            rejections: 0,
            retry_at: None,
            live: None,
            values: None,
        }
    }
}

impl Run {
    pub(crate) fn new(created: RunCreated, workflow: Arc<Workflow>) -> Self {
        let instances = vec![Instance::waiting(); workflow.tasks.len()];
        let unfinished = u32::try_from(instances.len()).unwrap_or(u32::MAX);
        Self {
            created,
            workflow,
            state: RunState::Queued,
            started_at: None,
            ending: None,
            instances,
            unfinished,
        }
    }

    pub(crate) fn task(&self, index: InstanceIndex) -> Option<&Task> {
        self.workflow.tasks.get(index as usize)
    }

    /// Tells whether its ready instances may be placed.
    pub(crate) const fn may_place(&self) -> bool {
        matches!(self.state, RunState::Running) && self.ending.is_none()
    }

    pub(crate) fn instance_id(&self, index: InstanceIndex) -> InstanceId {
        InstanceId { run: self.created.run, index }
    }

    /// Returns the final state that its instances call for: failed where one that counts failed.
    pub(crate) fn verdict(&self) -> RunState {
        let counts = |index| match self.workflow.success {
            SuccessRule::Leaves => self.workflow.graph.downstream(index).is_empty(),
            SuccessRule::All => true,
        };
        let is_failed = (0..).zip(&self.instances).any(|(index, instance)| {
            counts(index) && matches!(instance.state, TaskState::Failed | TaskState::UpstreamFailed)
        });
        if is_failed { RunState::Failed } else { RunState::Success }
    }
}

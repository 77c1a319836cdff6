//! What is true: the maps of everything that is not final, and the one function that changes them.
//!
//! [`State::apply`] is shared by live operation and restore. Beside the facts it keeps what follows from them (ready
//! queue, counts of ended upstream tasks, slots and pools in use), so that no decision has to search.

mod apply;
mod executor;
mod run;
mod trial;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use millrace_common::{
    id::{ExecutorName, InstanceId, PoolName, RunId, SessionId, WorkflowName},
    schedule::Schedule,
    time::Timestamp,
    workflow::{Task, Workflow},
};

pub(crate) use self::{
    executor::{Executor, Heard, Missing},
    run::{Instance, LiveAttempt, Run},
    trial::Trial,
};
use crate::{queue::Queue, settings::Settings};

/// Everything that is not final, and what follows from it.
#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) catalog: BTreeMap<WorkflowName, Entry>,
    pub(crate) runs: BTreeMap<RunId, Run>,
    pub(crate) executors: BTreeMap<ExecutorName, Executor>,
    /// Runs that are taken out of scheduling because their rows contradict each other: nothing of them is touched.
    pub(crate) quarantined: BTreeSet<RunId>,
    /// Which executor a session belongs to.
    pub(crate) sessions: BTreeMap<SessionId, ExecutorName>,
    /// Instances that may start, of runs that are running.
    pub(crate) queue: Queue,
    /// What operators set while masters run.
    pub(crate) settings: Settings,
    pools_used: BTreeMap<PoolName, u32>,
    keys: BTreeMap<(WorkflowName, Arc<str>), RunId>,
    keys_of_ended: VecDeque<(WorkflowName, Arc<str>)>,
}

/// A workflow: the version in force and what of it is unfinished.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The highest version that there is; the next one has a higher number whether this one can be read or not.
    pub(crate) version: u32,
    /// The version in force; absent where this program cannot read it. Nothing of it is started then.
    pub(crate) workflow: Option<Arc<Workflow>>,
    /// Up to where its schedule was served.
    pub(crate) cursor: Option<Timestamp>,
    /// Runs that hold one of the places of `max_active_runs`.
    pub(crate) active: u32,
    /// Runs that wait for such a place, oldest first.
    pub(crate) queued: BTreeSet<RunId>,
}

impl Entry {
    /// Returns when it runs by itself, where it does.
    pub(crate) fn schedule(&self) -> Option<&Schedule> {
        self.workflow.as_ref()?.schedule.as_ref()
    }

    /// Returns how many runs may be active, `next` among them: its own version says so where the one in force cannot.
    pub(crate) fn run_limit(&self, next: &Run) -> u32 {
        self.workflow.as_ref().unwrap_or(&next.workflow).max_active_runs
    }

    pub(crate) fn unfinished(&self) -> usize {
        self.active as usize + self.queued.len()
    }
}

impl State {
    pub(crate) fn instance(&self, id: InstanceId) -> Option<(&Run, &Task, &Instance)> {
        let run = self.runs.get(&id.run)?;
        Some((run, run.task(id.index)?, run.instances.get(id.index as usize)?))
    }

    pub(crate) fn live(&self, id: InstanceId) -> Option<&LiveAttempt> {
        self.instance(id).and_then(|(_, _, instance)| instance.live.as_deref())
    }

    pub(crate) fn pool_used(&self, pool: &PoolName) -> u32 {
        self.pools_used.get(pool).copied().unwrap_or(0)
    }

    /// Finds the run that an idempotency key made, as far as it is remembered.
    pub(crate) fn run_by_key(&self, workflow: &WorkflowName, key: &Arc<str>) -> Option<RunId> {
        self.keys.get(&(workflow.clone(), Arc::clone(key))).copied()
    }

    /// Forgets the oldest keys of ended runs beyond `keep`.
    pub(crate) fn forget_keys(&mut self, keep: usize) {
        while self.keys_of_ended.len() > keep {
            if let Some(key) = self.keys_of_ended.pop_front() {
                self.keys.remove(&key);
            }
        }
    }

    /// Returns the session of an executor, where it is connected.
    pub(crate) fn session_of(&self, executor: &ExecutorName) -> Option<SessionId> {
        self.executors.get(executor)?.session
    }

    pub(crate) fn live_attempts(&self) -> usize {
        self.executors.values().map(|executor| executor.live.len()).sum()
    }
}

//! The one function that changes the state.
//!
//! A change that names something unknown, or a `from` that is not so, is a broken invariant of the core itself: it panics,
//! which ends the term before anything wrong can be committed.

use std::sync::Arc;

use millrace_common::{
    id::{AttemptId, ExecutorName, InstanceId, RunId, WorkflowName},
    state::{AttemptState, RunState, TaskState},
    time::{Timestamp, Uptime},
};

use super::{Entry, Executor, LiveAttempt, Run, State};
use crate::batch::{AttemptEnd, Change, RunCreated};

impl State {
    /// Makes `change` true.
    pub(crate) fn apply(&mut self, change: &Change) {
        match change {
            Change::WorkflowApplied { version, workflow, .. } => {
                let entry = self.catalog.entry(workflow.name.clone()).or_insert_with(|| Entry {
                    version: 0,
                    workflow: None,
                    cursor: None,
                    active: 0,
                    queued: std::collections::BTreeSet::new(),
                });
                assert!(*version > entry.version, "versions of a workflow grow");
                entry.version = *version;
                entry.workflow = Some(Arc::clone(workflow));
            }
            Change::CursorMoved { workflow, cursor, .. } => self.apply_cursor(workflow, *cursor),
            Change::SettingChanged(changed) => {
                self.settings.apply(changed);
                for (name, executor) in &mut self.executors {
                    executor.slots = self.settings.slots_of(name, executor.slots_offered);
                }
            }
            Change::RunCreated(created) => self.apply_run_created(created),
            Change::RunMoved { run, from, to, at, .. } => self.apply_run_moved(*run, *from, *to, *at),
            Change::RunEnding { run, to, reason } => self.apply_run_ending(*run, *to, reason),
            Change::TaskMoved { instance, from, to, retry_at, values, .. } => {
                self.apply_task_moved(*instance, *from, *to);
                let moved = self.instance_mut(*instance);
                moved.retry_at = *retry_at;
                if values.is_some() {
                    moved.values.clone_from(values);
                }
            }
            Change::AttemptAssigned { attempt, executor, spool, machine, at } => {
                let live = LiveAttempt {
                    number: attempt.number,
                    state: AttemptState::Assigned,
                    executor: executor.clone(),
                    spool: *spool,
                    machine: machine.clone(),
                    assigned_at: *at,
                };
                self.apply_attempt_assigned(*attempt, live);
            }
            Change::AttemptMoved { attempt, from, to, .. } => {
                let live = self.live_mut(*attempt);
                assert!(
                    live.state == *from && !to.is_final(),
                    "an attempt moves from the state that it is in"
                );
                live.state = *to;
            }
            Change::AttemptEnded { attempt, from, end, .. } => self.apply_attempt_ended(*attempt, *from, end),
            Change::ExecutorClosed { executor, standing } => {
                self.executor_mut(executor).standing = Some(standing.clone());
            }
            Change::ExecutorOpened { executor, .. } => {
                let before = self.executor_mut(executor).standing.take();
                assert!(before.is_some(), "an executor is opened that was closed");
            }
            Change::ExecutorForgotten { executor, .. } => self.apply_executor_forgotten(executor),
        }
    }

    fn apply_cursor(&mut self, workflow: &WorkflowName, cursor: Timestamp) {
        let entry = self.entry_mut(workflow);
        assert!(entry.cursor.is_none_or(|before| before <= cursor), "a schedule's cursor never falls");
        entry.cursor = Some(cursor);
    }

    #[expect(clippy::expect_used, reason = "a change names what exists: the core made it from its own state")]
    fn apply_run_created(&mut self, created: &RunCreated) {
        let entry = self.entry_mut(&created.workflow);
        entry.queued.insert(created.run);
        assert!(entry.version == created.version, "a run is created of the version in force");
        let workflow = entry.workflow.clone().expect("a run is created of a version that can be read");
        self.insert_run(Run::new(created.clone(), workflow));
    }

    /// Adds a run with its key; the run stands in its entry already.
    pub(crate) fn insert_run(&mut self, run: Run) {
        if let Some(key) = &run.created.idempotency_key {
            self.keys.insert((run.created.workflow.clone(), Arc::clone(key)), run.created.run);
        }
        self.runs.insert(run.created.run, run);
    }

    fn apply_run_moved(&mut self, id: RunId, from: RunState, to: RunState, at: Timestamp) {
        let run = self.run_mut(id);
        assert!(run.state == from, "a run moves from the state that it is in");
        run.state = to;
        if to == RunState::Running && run.started_at.is_none() {
            run.started_at = Some(at);
        }
        let workflow = run.created.workflow.clone();
        let entry = self.entry_mut(&workflow);
        let held_place = from != RunState::Queued;
        let holds_place = to != RunState::Queued && !to.is_final();
        if !held_place {
            entry.queued.remove(&id);
        }
        entry.active = entry.active + u32::from(holds_place) - u32::from(held_place);
        if to.is_final() {
            self.remove_run(id);
        } else {
            self.requeue(id);
        }
    }

    fn remove_run(&mut self, id: RunId) {
        let Some(run) = self.runs.remove(&id) else { return };
        assert!(run.unfinished == 0, "a run ends after its last task instance");
        if let Some(key) = run.created.idempotency_key {
            self.keys_of_ended.push_back((run.created.workflow, key));
        }
    }

    fn apply_run_ending(&mut self, id: RunId, to: RunState, reason: &Arc<str>) {
        let run = self.run_mut(id);
        assert!(to.is_final() && run.ending.is_none(), "a run is given one end");
        run.ending = Some((to, Arc::clone(reason)));
        self.requeue(id);
    }

    fn apply_task_moved(&mut self, id: InstanceId, from: TaskState, to: TaskState) {
        let instance = self.instance_mut(id);
        assert!(instance.state == from, "a task instance moves from the state that it is in");
        assert!(!from.is_final(), "a final state never changes");
        instance.state = to;
        if from == TaskState::Ready || to == TaskState::Ready {
            self.queue_or_not(id);
        }
        if to.is_final() {
            self.count_end(id, to);
        }
    }

    /// Tells the direct downstream instances that `id` has ended: the whole cost of a completion.
    pub(crate) fn count_end(&mut self, id: InstanceId, to: TaskState) {
        let run = self.run_mut(id.run);
        run.unfinished -= 1;
        let workflow = Arc::clone(&run.workflow);
        for down in workflow.graph.downstream(id.index) {
            if let Some(instance) = run.instances.get_mut(*down as usize) {
                instance.upstream.add(to);
            }
        }
    }

    fn apply_attempt_assigned(&mut self, attempt: AttemptId, live: LiveAttempt) {
        let instance = self.instance_mut(attempt.instance);
        assert!(instance.live.is_none(), "a task instance has at most one live attempt");
        assert!(instance.attempts + 1 == attempt.number, "attempt numbers have no gap");
        instance.attempts = attempt.number;
        self.insert_live(attempt, live, Uptime::default());
    }

    /// Makes an attempt live and takes its slot and its part of the pool.
    pub(crate) fn insert_live(&mut self, attempt: AttemptId, live: LiveAttempt, heard_at: Uptime) {
        let executor =
            self.executors.entry(live.executor.clone()).or_insert_with(|| Executor::unseen(heard_at));
        executor.live.insert(attempt);
        if let Some((pool, slots)) = self.pool_share(attempt.instance) {
            *self.pools_used.entry(pool).or_default() += slots;
        }
        self.instance_mut(attempt.instance).live = Some(Box::new(live));
    }

    fn apply_attempt_ended(&mut self, attempt: AttemptId, from: AttemptState, end: &AttemptEnd) {
        let live = self.live_mut(attempt);
        assert!(
            live.state == from && end.state.is_final(),
            "an attempt ends once, from the state that it is in"
        );
        let executor = live.executor.clone();
        let instance = self.instance_mut(attempt.instance);
        instance.live = None;
        match end.state {
            AttemptState::Failed | AttemptState::TimedOut => {
                instance.failures = instance.failures.saturating_add(1)
            }
            AttemptState::Lost if end.counts_as_loss() => {
                instance.losses = instance.losses.saturating_add(1);
            }
            AttemptState::Rejected if end.counts_as_rejection() => {
                instance.rejections = instance.rejections.saturating_add(1);
            }
            AttemptState::Rejected
            | AttemptState::Lost
            | AttemptState::Succeeded
            | AttemptState::Killed
            | AttemptState::Assigned
            | AttemptState::Accepted
            | AttemptState::Running
            | AttemptState::Killing => {}
        }
        if let Some(place) = self.executors.get_mut(&executor) {
            place.live.remove(&attempt);
        }
        if let Some((pool, slots)) = self.pool_share(attempt.instance) {
            let used = self.pools_used.entry(pool).or_default();
            *used = used.saturating_sub(slots);
        }
    }

    fn apply_executor_forgotten(&mut self, name: &ExecutorName) {
        let forgotten = self.executor_mut(name);
        assert!(
            forgotten.live.is_empty() && !forgotten.is_connected(),
            "an executor that may run something is not forgotten"
        );
        self.executors.remove(name);
    }

    fn pool_share(&self, id: InstanceId) -> Option<(millrace_common::id::PoolName, u32)> {
        let (_, task, _) = self.instance(id)?;
        Some((task.pool.clone()?, task.pool_slots))
    }

    /// Puts all ready instances of a run into the queue, or takes them out, as the run's state says.
    pub(crate) fn requeue(&mut self, id: RunId) {
        let Some(run) = self.runs.get(&id) else { return };
        let may_place = run.may_place();
        for (index, instance) in (0..).zip(&run.instances) {
            let Some(task) = run.task(index).filter(|_| instance.state == TaskState::Ready) else { continue };
            if may_place {
                self.queue.insert(task, run.instance_id(index));
            } else {
                self.queue.remove(task, run.instance_id(index));
            }
        }
    }

    fn queue_or_not(&mut self, id: InstanceId) {
        let Some(run) = self.runs.get(&id.run) else { return };
        let (Some(task), Some(instance)) = (run.task(id.index), run.instances.get(id.index as usize)) else {
            return;
        };
        if instance.state == TaskState::Ready && run.may_place() {
            self.queue.insert(task, id);
        } else {
            self.queue.remove(task, id);
        }
    }

    #[expect(clippy::expect_used, reason = "a change names what exists: the core made it from its own state")]
    fn entry_mut(&mut self, name: &WorkflowName) -> &mut Entry {
        self.catalog.get_mut(name).expect("a change names a known workflow")
    }

    #[expect(clippy::expect_used, reason = "a change names what exists: the core made it from its own state")]
    fn executor_mut(&mut self, name: &ExecutorName) -> &mut Executor {
        self.executors.get_mut(name).expect("a change names a known executor")
    }

    #[expect(clippy::expect_used, reason = "a change names what exists: the core made it from its own state")]
    fn run_mut(&mut self, id: RunId) -> &mut Run {
        self.runs.get_mut(&id).expect("a change names a live run")
    }

    #[expect(clippy::expect_used, reason = "a change names what exists: the core made it from its own state")]
    pub(crate) fn instance_mut(&mut self, id: InstanceId) -> &mut super::Instance {
        self.run_mut(id.run)
            .instances
            .get_mut(id.index as usize)
            .expect("a change names an instance of its run")
    }

    #[expect(clippy::expect_used, reason = "a change names what exists: the core made it from its own state")]
    fn live_mut(&mut self, id: AttemptId) -> &mut LiveAttempt {
        let live = self.instance_mut(id.instance).live.as_deref_mut().expect("a change names a live attempt");
        assert!(live.number == id.number, "a change names the live attempt");
        live
    }
}

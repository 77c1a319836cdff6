//! Runs: queued until their workflow has room, running until their last task instance ends.
//!
//! | from | to | when |
//! |---|---|---|
//! | – | queued | requested, or due by schedule |
//! | queued | running | fewer than `max_active_runs` of the workflow are active |
//! | running | paused | a person asks |
//! | paused | running | a person asks |
//! | queued, running, paused | cancelled | a person asks; after the last attempt has ended |
//! | running, paused | failed | a task that counts failed, or the run took too long; after the last attempt has ended |
//! | running, paused | success | every task that counts ended well |
//!
//! The workflow says which tasks count: its leaves, or all.
//!
//! An ended run never changes. Retrying one makes a new run that takes over what succeeded and comes after nothing that
//! did not.

use std::{collections::BTreeMap, sync::Arc};

use millrace_common::{
    id::{InstanceId, InstanceIndex, RunId, WorkflowName},
    interval::DataInterval,
    state::{RunState, TaskState},
    workflow::Workflow,
};

use crate::{
    batch::{Answer, Change, RunCreated, Trigger},
    input::{EndedRun, StartRun},
    refusal::Refusal,
    scheduler::Scheduler,
    timers::UptimeTimer,
};

impl Scheduler {
    pub(crate) fn start_run(&mut self, start: StartRun) -> Result<Answer, Refusal> {
        let StartRun { workflow, params, logical_date, idempotency_key } = start;
        if let Some(run) = idempotency_key.as_ref().and_then(|key| self.state.run_by_key(&workflow, key)) {
            return Ok(Answer::RunStarted { run, is_repeat: true });
        }
        let interval = DataInterval::at(logical_date.unwrap_or(self.now.wall));
        let run = self.create_run(&workflow, Trigger::Manual, interval, params, idempotency_key)?;
        self.start_queued_runs(&workflow);
        Ok(Answer::RunStarted { run, is_repeat: false })
    }

    fn create_run(
        &mut self,
        workflow: &WorkflowName,
        trigger: Trigger,
        interval: DataInterval,
        params: Arc<str>,
        idempotency_key: Option<Arc<str>>,
    ) -> Result<RunId, Refusal> {
        let entry =
            self.state.catalog.get(workflow).ok_or_else(|| Refusal::UnknownWorkflow(workflow.clone()))?;
        if entry.workflow.is_none() {
            let version = entry.version;
            return Err(Refusal::UnreadableWorkflow { workflow: workflow.clone(), version });
        }
        let limit = self.limits.runs_per_workflow_max;
        if entry.unfinished() >= limit {
            return Err(Refusal::TooManyRuns { workflow: workflow.clone(), limit });
        }
        let version = entry.version;
        let run = self.ids.run(self.now.wall);
        let at = self.now.wall;
        let workflow = workflow.clone();
        self.emit(Change::RunCreated(Box::new(RunCreated {
            run,
            workflow,
            version,
            trigger,
            interval,
            params,
            idempotency_key,
            at,
        })));
        Ok(run)
    }

    /// Makes a new run of an ended one. It takes over what succeeded, by task name, where the version in force still has
    /// the task and everything before it is taken over as well; everything else runs again.
    pub(crate) fn retry_run(&mut self, ended: &EndedRun) -> Result<Answer, Refusal> {
        let EndedRun { created, state, .. } = ended;
        if !state.is_final() {
            let hint = "it has not ended; cancel it first, or wait";
            return Err(Refusal::WrongState { run: created.run, state: *state, hint });
        }
        let trigger = Trigger::Retry(created.run);
        let run =
            self.create_run(&created.workflow, trigger, created.interval, Arc::clone(&created.params), None)?;
        let kept = self.state.runs.get(&run).map_or_else(BTreeMap::new, |run| kept(ended, &run.workflow));
        for (index, values) in kept {
            self.emit(Change::TaskMoved {
                instance: InstanceId { run, index },
                from: TaskState::Waiting,
                to: TaskState::Success,
                at: self.now.wall,
                retry_at: None,
                values,
            });
        }
        self.start_queued_runs(&created.workflow);
        Ok(Answer::RunStarted { run, is_repeat: false })
    }

    /// Lets as many queued runs of a workflow begin as it may have active.
    pub(crate) fn start_queued_runs(&mut self, name: &WorkflowName) {
        while let Some(run) = self.state.catalog.get(name).and_then(|entry| {
            let next = self.state.runs.get(entry.queued.first()?)?;
            (entry.active < entry.run_limit(next)).then_some(next.created.run)
        }) {
            self.begin_run(run);
        }
    }

    fn begin_run(&mut self, id: RunId) {
        self.emit(Change::RunMoved {
            run: id,
            from: RunState::Queued,
            to: RunState::Running,
            at: self.now.wall,
            reason: None,
        });
        let Some(run) = self.state.runs.get(&id) else { return };
        let workflow = Arc::clone(&run.workflow);
        if let Some(timeout) = workflow.run_timeout {
            self.timers.at_uptime(self.now.uptime + timeout, UptimeTimer::RunTimeout(id));
        }
        for index in workflow.graph.order() {
            self.evaluate(InstanceId { run: id, index: *index });
        }
        // Whoever lets runs begin goes on with the next one: calling it from here would nest as deep as runs wait.
        if self.end_run(id) {
            self.arm_schedule(&workflow.name);
        }
    }

    pub(crate) fn pause_run(&mut self, id: RunId) -> Result<Answer, Refusal> {
        self.move_run(id, RunState::Running, RunState::Paused, "only a running run can be paused")
    }

    pub(crate) fn resume_run(&mut self, id: RunId) -> Result<Answer, Refusal> {
        self.move_run(id, RunState::Paused, RunState::Running, "only a paused run can be resumed")
    }

    fn move_run(
        &mut self,
        id: RunId,
        from: RunState,
        to: RunState,
        hint: &'static str,
    ) -> Result<Answer, Refusal> {
        let run = self.state.runs.get(&id).ok_or_else(|| self.unknown_run(id))?;
        if run.state == to {
            return Ok(Answer::RunMoved(to));
        }
        if run.state != from || run.ending.is_some() {
            let hint = if run.ending.is_some() { "it is being ended" } else { hint };
            return Err(Refusal::WrongState { run: id, state: run.state, hint });
        }
        self.emit(Change::RunMoved { run: id, from, to, at: self.now.wall, reason: None });
        Ok(Answer::RunMoved(to))
    }

    pub(crate) fn cancel_run(&mut self, id: RunId) -> Result<Answer, Refusal> {
        let run = self.state.runs.get(&id).ok_or_else(|| self.unknown_run(id))?;
        if run.ending.is_none() {
            self.end_run_early(id, RunState::Cancelled, "cancelled on request");
        }
        Ok(Answer::RunMoved(self.state.runs.get(&id).map_or(RunState::Cancelled, |run| run.state)))
    }

    pub(crate) fn on_run_timed_out(&mut self, id: RunId) {
        if self.state.runs.get(&id).is_some_and(|run| run.ending.is_none()) {
            self.end_run_early(id, RunState::Failed, "the run took longer than its time-out");
        }
    }

    /// Starts nothing new of a run, kills what runs, and ends the run after the last attempt.
    fn end_run_early(&mut self, id: RunId, to: RunState, reason: &'static str) {
        self.emit(Change::RunEnding { run: id, to, reason: reason.into() });
        let Some(run) = self.state.runs.get(&id) else { return };
        let instances: Vec<_> = (0..)
            .zip(&run.instances)
            .map(|(index, instance)| (run.instance_id(index), instance.state))
            .collect();
        for (instance, state) in instances {
            match state {
                TaskState::Active => self.kill_live(instance, reason),
                TaskState::Waiting | TaskState::Ready | TaskState::UpForRetry | TaskState::Deferred => {
                    self.move_task(instance, state, TaskState::Cancelled);
                }
                TaskState::Success
                | TaskState::Failed
                | TaskState::Skipped
                | TaskState::UpstreamFailed
                | TaskState::Cancelled => {}
            }
        }
        self.end_run_if_done(id);
    }

    /// Ends a run whose last task instance has ended, which may let the next one begin.
    pub(crate) fn end_run_if_done(&mut self, id: RunId) {
        let Some(workflow) = self.state.runs.get(&id).map(|run| run.created.workflow.clone()) else { return };
        if self.end_run(id) {
            self.start_queued_runs(&workflow);
            // A schedule that had no room for further runs is served again.
            self.arm_schedule(&workflow);
        }
    }

    /// Ends a run if nothing of it is left, and tells whether it did.
    fn end_run(&mut self, id: RunId) -> bool {
        let Some(run) = self.state.runs.get(&id).filter(|run| run.unfinished == 0) else { return false };
        let from = run.state;
        if from == RunState::Queued && run.ending.is_none() {
            return false;
        }
        let (to, reason) =
            run.ending.clone().map_or_else(|| (run.verdict(), None), |(to, reason)| (to, Some(reason)));
        self.emit(Change::RunMoved { run: id, from, to, at: self.now.wall, reason });
        self.state.forget_keys(self.limits.keys_remembered_max);
        true
    }
}

/// Returns what a retry takes over, by position in the version in force, with its values.
fn kept(ended: &EndedRun, now: &Workflow) -> BTreeMap<InstanceIndex, Option<Arc<str>>> {
    let succeeded: BTreeMap<&str, &Option<Arc<str>>> = ended
        .tasks
        .iter()
        .filter(|(_, (state, _))| *state == TaskState::Success)
        .filter_map(|(index, (_, values))| {
            Some((ended.workflow.tasks.get(*index as usize)?.name.as_str(), values))
        })
        .collect();
    let mut kept = BTreeMap::new();
    for index in now.graph.order() {
        let task = now.tasks.get(*index as usize);
        let values = task.and_then(|task| succeeded.get(task.name.as_str()));
        if let Some(values) =
            values.filter(|_| now.graph.upstream(*index).iter().all(|up| kept.contains_key(up)))
        {
            kept.insert(*index, (*values).clone());
        }
    }
    kept
}

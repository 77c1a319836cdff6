//! Answers to what people ask. They read the state and the last placement plan and change nothing.

use millrace_common::{
    id::{ExecutorName, InstanceIndex, RunId, TaskName},
    state::{RunState, TaskState},
};

use crate::{
    batch::Answer,
    explain::{ExecutorSummary, Explanation, Reason, TaskReason, WorkCount},
    queue::Class,
    refusal::Refusal,
    scheduler::Scheduler,
    state::{Executor, Instance, Run},
};

/// Upstream tasks that a reason names; more would not be read.
const PENDING_NAMED_MAX: usize = 5;

impl Scheduler {
    pub(crate) fn explain_run(&mut self, id: RunId, only: Option<&TaskName>) -> Result<Answer, Refusal> {
        // The answer speaks of the moment of the question, so the plan is made now.
        self.place_ready();
        let run = self.state.runs.get(&id).ok_or_else(|| self.unknown_run(id))?;
        if let Some(name) = only.filter(|name| run.workflow.task_named(name.as_str()).is_none()) {
            return Err(Refusal::UnknownTask(id, name.clone()));
        }
        let tasks = (0..)
            .zip(&run.instances)
            .filter_map(|(index, instance)| {
                let task = run.task(index)?;
                let is_asked = only.is_none_or(|name| *name == task.name);
                is_asked.then(|| TaskReason {
                    task: task.name.clone(),
                    state: instance.state,
                    reason: self.reason_of(run, index, instance),
                })
            })
            .collect();
        let reason = self.reason_of_run(run);
        let schedules_paused_since = self.state.settings.paused_since();
        let (run, state) = (id, run.state);
        let explanation = Explanation { run, state, reason, schedules_paused_since, tasks };
        Ok(Answer::Explained(Box::new(explanation)))
    }

    fn reason_of_run(&self, run: &Run) -> Option<Reason> {
        match (&run.ending, run.state) {
            (Some((_, reason)), _) => Some(Reason::Ending(reason.clone())),
            (None, RunState::Paused) => Some(Reason::Paused),
            (None, RunState::Queued) => {
                let entry = self.state.catalog.get(&run.created.workflow)?;
                Some(Reason::RunLimit { active: entry.active, limit: entry.run_limit(run) })
            }
            (None, RunState::Running | RunState::Success | RunState::Failed | RunState::Cancelled) => None,
        }
    }

    fn reason_of(&self, run: &Run, index: InstanceIndex, instance: &Instance) -> Reason {
        match instance.state {
            TaskState::Active => self.reason_of_active(instance),
            TaskState::UpForRetry => Reason::RetryAt(instance.retry_at.unwrap_or(self.now.wall)),
            TaskState::Waiting => self.reason_of_run(run).unwrap_or_else(|| reason_of_waiting(run, index)),
            TaskState::Ready => self.reason_of_run(run).unwrap_or_else(|| self.reason_of_ready(run, index)),
            TaskState::Deferred
            | TaskState::Success
            | TaskState::Failed
            | TaskState::Skipped
            | TaskState::UpstreamFailed
            | TaskState::Cancelled => Reason::Ended,
        }
    }

    fn reason_of_active(&self, instance: &Instance) -> Reason {
        let Some(live) = instance.live.as_deref() else { return Reason::Ended };
        Reason::Active {
            number: live.number,
            executor: live.executor.clone(),
            state: live.state,
            since: live.assigned_at,
            is_connected: self.state.session_of(&live.executor).is_some(),
        }
    }

    fn reason_of_ready(&self, run: &Run, index: InstanceIndex) -> Reason {
        // The plan was made for this question: what could be placed is active.
        run.task(index).and_then(|task| self.blocked.get(&Class::of(task))).cloned().unwrap_or(Reason::Next)
    }

    pub(crate) fn executor_summaries(&self) -> Vec<ExecutorSummary> {
        self.state.executors.iter().map(|(name, executor)| self.executor_summary(name, executor)).collect()
    }

    pub(crate) fn executor_summary(&self, name: &ExecutorName, executor: &Executor) -> ExecutorSummary {
        let silent = self.now.uptime.since(executor.heard_at(executor.spool));
        let lacks_space = executor.is_space_low || executor.trial.waits();
        ExecutorSummary {
            name: name.clone(),
            is_connected: executor.is_connected(),
            standing: executor.standing.clone(),
            is_space_low: executor.is_connected() && lacks_space,
            slots: executor.slots,
            slots_used: executor.used(),
            labels: executor.labels.clone(),
            kinds: executor.kinds.clone(),
            version: executor.version.clone(),
            silent_ms: u64::try_from(silent.as_millis()).unwrap_or(u64::MAX),
        }
    }

    pub(crate) fn work_count(&self) -> WorkCount {
        WorkCount {
            runs: self.state.runs.len(),
            attempts: self.state.live_attempts(),
            ready: self.state.queue.len(),
            schedules_paused_since: self.state.settings.paused_since(),
        }
    }
}

fn reason_of_waiting(run: &Run, index: InstanceIndex) -> Reason {
    let rule = run.task(index).map(|task| task.trigger_rule).unwrap_or_default();
    let mut pending = run.workflow.graph.upstream(index).iter().filter_map(|up| {
        let instance = run.instances.get(*up as usize).filter(|instance| !instance.state.is_final())?;
        Some((run.task(*up)?.name.clone(), instance.state))
    });
    let named = pending.by_ref().take(PENDING_NAMED_MAX).collect();
    Reason::Upstream { rule, pending: named, more: pending.count() }
}

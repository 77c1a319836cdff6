//! Task instances: waiting until their rule is met, ready until they have a place, active while an attempt lives.
//!
//! | from | to | when |
//! |---|---|---|
//! | waiting | ready | the trigger rule is met and the run is active |
//! | waiting | skipped, `upstream_failed` | the rule can no longer be met |
//! | ready | active | an attempt is assigned |
//! | active | success, skipped | the attempt succeeded |
//! | active | `up_for_retry` | the attempt did not succeed and another one is due |
//! | active | failed | it did not and none is |
//! | `up_for_retry` | ready | the delay has passed |
//! | any live one | cancelled | the run is ended early; an active one after its attempt has ended |

use std::{sync::Arc, time::Duration};

use millrace_common::{
    id::InstanceId,
    state::{AttemptState, TaskState},
    time::Timestamp,
    workflow::{OnLost, Task},
};

use crate::{
    batch::{AttemptEnd, Change},
    limits::Limits,
    scheduler::Scheduler,
    state::Instance,
    timers::UptimeTimer,
    trigger::{self, Verdict},
};

/// What follows for an instance from the end of its attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// Nothing more.
    End(TaskState),
    /// Another attempt, after a delay.
    Again(Duration),
}

/// Decides what follows from `end`; `instance` has counted it already. Pure.
pub(crate) fn next(task: &Task, instance: &Instance, end: &AttemptEnd, limits: &Limits) -> Next {
    match end.state {
        AttemptState::Succeeded if end.is_skipped => Next::End(TaskState::Skipped),
        AttemptState::Succeeded => Next::End(TaskState::Success),
        AttemptState::Failed | AttemptState::TimedOut => {
            let failures = u32::from(instance.failures);
            if end.is_permanent || failures > task.retry.retries {
                Next::End(TaskState::Failed)
            } else {
                Next::Again(task.retry.delay_after(failures))
            }
        }
        AttemptState::Lost => {
            let is_last = is_quarantined(instance.losses.into(), end, limits) || task.on_lost == OnLost::Fail;
            if is_last { Next::End(TaskState::Failed) } else { Next::Again(Duration::ZERO) }
        }
        AttemptState::Rejected => {
            let is_last =
                u32::from(instance.rejections) >= limits.rejections_max && end.counts_as_rejection();
            if is_last || end.is_permanent {
                Next::End(TaskState::Failed)
            } else if !end.counts_as_rejection() {
                // The executor that refused it gets no starts for now: the task waits in the queue for a place, not for time.
                Next::Again(Duration::ZERO)
            } else {
                Next::Again(limits.rejection_delay_after(instance.rejections.into()))
            }
        }
        AttemptState::Killed
        | AttemptState::Assigned
        | AttemptState::Accepted
        | AttemptState::Running
        | AttemptState::Killing => Next::End(TaskState::Failed),
    }
}

/// Tells whether an instance was lost once too often, `losses` counting this end as well: it may be what ends its executors.
fn is_quarantined(losses: u32, end: &AttemptEnd, limits: &Limits) -> bool {
    end.counts_as_loss() && losses >= limits.losses_max
}

impl Scheduler {
    /// Says that an instance is quarantined by `end`, which it has not counted yet; nothing where it is not.
    pub(crate) fn quarantine_reason(&self, id: InstanceId, end: &AttemptEnd) -> Option<Arc<str>> {
        let (run, task, instance) = self.state.instance(id)?;
        let losses = u32::from(instance.losses) + 1;
        let is_last = is_quarantined(losses, end, &self.limits);
        (is_last && task.on_lost != OnLost::Fail && run.ending.is_none()).then(|| {
            let last =
                if end.reason.is_empty() { String::new() } else { format!("; the last one: {}", end.reason) };
            format!("quarantined: {losses} attempts of this task were lost with their executors{last}").into()
        })
    }

    /// Moves an instance and lets everything that depends on it follow.
    pub(crate) fn move_task(&mut self, instance: InstanceId, from: TaskState, to: TaskState) {
        self.move_task_with(instance, from, to, None, None);
    }

    fn move_task_with(
        &mut self,
        instance: InstanceId,
        from: TaskState,
        to: TaskState,
        retry_at: Option<Timestamp>,
        values: Option<Arc<str>>,
    ) {
        self.emit(Change::TaskMoved { instance, from, to, at: self.now.wall, retry_at, values });
    }

    /// Evaluates the trigger rule of a waiting instance and everything that follows, without recursion.
    pub(crate) fn evaluate(&mut self, first: InstanceId) {
        let mut pending = vec![first];
        while let Some(id) = pending.pop() {
            let Some((run, task, instance)) = self.state.instance(id) else { continue };
            if instance.state != TaskState::Waiting || run.ending.is_some() {
                continue;
            }
            let total = u32::try_from(run.workflow.graph.upstream(id.index).len()).unwrap_or(u32::MAX);
            match trigger::evaluate(task.trigger_rule, &instance.upstream, total) {
                Verdict::Wait => {}
                Verdict::Run => self.move_task(id, TaskState::Waiting, TaskState::Ready),
                Verdict::Become(state) => {
                    let workflow = Arc::clone(&run.workflow);
                    self.move_task(id, TaskState::Waiting, state);
                    let downstream = workflow.graph.downstream(id.index).iter().rev();
                    pending.extend(downstream.map(|index| InstanceId { run: id.run, index: *index }));
                }
            }
        }
    }

    /// Moves an instance on after its attempt ended, and its run and its downstream with it.
    pub(crate) fn follow_attempt_end(&mut self, id: InstanceId, end: &AttemptEnd) {
        let Some((run, task, instance)) = self.state.instance(id) else { return };
        let decided = next(task, instance, end, &self.limits);
        let is_ending = run.ending.is_some();
        match decided {
            Next::Again(_) if is_ending => self.finish_task(id, TaskState::Cancelled, None),
            Next::End(TaskState::Failed) if is_ending => self.finish_task(id, TaskState::Cancelled, None),
            Next::End(state) => {
                let values = end.values.clone().filter(|_| state == TaskState::Success);
                self.finish_task(id, state, values);
            }
            Next::Again(delay) if delay.is_zero() => self.move_task(id, TaskState::Active, TaskState::Ready),
            Next::Again(delay) => {
                let at = self.now.wall + delay;
                self.move_task_with(id, TaskState::Active, TaskState::UpForRetry, Some(at), None);
                self.timers.at_uptime(self.now.uptime + delay, UptimeTimer::RetryDue(id));
            }
        }
    }

    fn finish_task(&mut self, id: InstanceId, to: TaskState, values: Option<Arc<str>>) {
        self.move_task_with(id, TaskState::Active, to, None, values);
        let Some(run) = self.state.runs.get(&id.run) else { return };
        let workflow = Arc::clone(&run.workflow);
        for index in workflow.graph.downstream(id.index) {
            self.evaluate(InstanceId { run: id.run, index: *index });
        }
        self.end_run_if_done(id.run);
    }

    pub(crate) fn on_retry_due(&mut self, id: InstanceId) {
        let waits =
            self.state.instance(id).is_some_and(|(_, _, instance)| instance.state == TaskState::UpForRetry);
        if waits {
            self.move_task(id, TaskState::UpForRetry, TaskState::Ready);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Proof, RejectReason};
    use millrace_common::definition;

    fn task(policy: &str) -> Task {
        let text =
            format!("workflow: w\ntasks:\n  a: {{ kind: shell, with: {{ command: [make] }}, {policy} }}\n");
        definition::parse(&text).unwrap().tasks.remove(0)
    }

    fn end(state: AttemptState) -> AttemptEnd {
        AttemptEnd {
            state,
            exit_code: None,
            reason: "".into(),
            values: None,
            is_skipped: false,
            is_permanent: false,
            started_at: None,
            ended_at: Timestamp::default(),
            log_bytes: 0,
            reject_reason: RejectReason::Other,
            is_planned: false,
            proof: Proof::Reported,
        }
    }

    /// What follows after so many failures, losses and rejections, the present one among them.
    fn after(policy: &str, counts: (u16, u16, u16), end: &AttemptEnd) -> Next {
        let (failures, losses, rejections) = counts;
        let instance = Instance { failures, losses, rejections, ..Instance::waiting() };
        next(&task(policy), &instance, end, &Limits::default())
    }

    #[test]
    fn each_end_leads_where_the_policy_says() {
        use AttemptState::{Failed, Killed, Lost, Rejected, Succeeded, TimedOut};
        let failed = Next::End(TaskState::Failed);
        let again = |seconds| Next::Again(Duration::from_secs(seconds));
        let retries = "retries: 2, retry_delay: 10s, retry_backoff: 3, retry_delay_max: 20s";
        let rows = [
            (retries, (0, 0, 0), Succeeded, Next::End(TaskState::Success)),
            ("retries: 0", (1, 0, 0), Failed, failed),
            (retries, (1, 0, 0), Failed, again(10)),
            (retries, (2, 0, 0), TimedOut, again(20)),
            (retries, (3, 0, 0), Failed, failed),
            // Losses and rejections use up no retries, and have bounds of their own.
            (retries, (0, 2, 0), Lost, again(0)),
            ("retries: 0", (0, 2, 9), Lost, again(0)),
            (retries, (0, 3, 0), Lost, failed),
            ("on_lost: confirm", (0, 1, 0), Lost, again(0)),
            ("on_lost: fail, retries: 2", (0, 1, 0), Lost, failed),
            ("retries: 0", (0, 0, 1), Rejected, again(1)),
            ("retries: 0", (0, 0, 4), Rejected, again(8)),
            (retries, (0, 0, 16), Rejected, failed),
            (retries, (0, 0, 0), Killed, failed),
        ];
        for (policy, counts, state, expected) in rows {
            assert_eq!(
                after(policy, counts, &end(state)),
                expected,
                "{state} with {policy} after {counts:?}"
            );
        }
    }

    #[test]
    fn a_rejection_that_is_not_the_fault_of_the_task_waits_for_a_place_and_not_for_time() {
        for reject_reason in [RejectReason::SpaceLow, RejectReason::Draining, RejectReason::CannotStart] {
            let end = AttemptEnd { reject_reason, ..end(AttemptState::Rejected) };
            assert_eq!(
                after("retries: 0", (0, 0, 16), &end),
                Next::Again(Duration::ZERO),
                "{reject_reason:?}"
            );
            let permanent = AttemptEnd { is_permanent: true, ..end };
            assert_eq!(after("retries: 0", (0, 0, 1), &permanent), Next::End(TaskState::Failed));
        }
    }

    #[test]
    fn a_planned_stop_and_a_word_of_a_person_quarantine_nothing() {
        let lost = end(AttemptState::Lost);
        for end in
            [AttemptEnd { is_planned: true, ..lost.clone() }, AttemptEnd { proof: Proof::Operator, ..lost }]
        {
            assert_eq!(after("retries: 0", (0, 3, 0), &end), Next::Again(Duration::ZERO));
        }
    }

    #[test]
    fn a_skip_and_a_permanent_failure_are_final() {
        let skipped = AttemptEnd { is_skipped: true, ..end(AttemptState::Succeeded) };
        assert_eq!(after("retries: 2", (0, 0, 0), &skipped), Next::End(TaskState::Skipped));
        for state in [AttemptState::Failed, AttemptState::TimedOut, AttemptState::Rejected] {
            let permanent = AttemptEnd { is_permanent: true, ..end(state) };
            assert_eq!(after("retries: 2", (1, 0, 1), &permanent), Next::End(TaskState::Failed), "{state}");
        }
    }
}

//! Attempts: from a place to a proven end.
//!
//! | from | to | when |
//! |---|---|---|
//! | – | assigned | placed; durable before it is sent |
//! | assigned | accepted, running | the executor says so |
//! | accepted | running | the executor says so |
//! | assigned, accepted, running | killing | its run is ended early |
//! | any live one | a final one | the executor reports its end, or another proof of it exists |
//!
//! A report counts only where the attempt is live and was assigned to the spool that reports. Any other changes nothing:
//! the first end stands.

use std::{collections::BTreeMap, sync::Arc};

use millrace_common::{
    id::{AttemptId, ExecutorName, InstanceId, SessionId},
    state::{AttemptState, TaskState},
    workflow::OnLost,
};

#[cfg(feature = "testing")]
use crate::testing::Mutation;
use crate::{
    batch::{AttemptEnd, Change, Effect, Message, Proof, RejectReason, Start},
    input::Report,
    placement::{Plan, place},
    scheduler::Scheduler,
    timers::UptimeTimer,
};

/// What the leader has of an attempt that an executor speaks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is live and was assigned to the spool of this executor.
    Here,
    /// It is live and was assigned to another executor or spool.
    Elsewhere,
    /// It has ended, or never was.
    Gone,
    /// It belongs to a run that is taken out of scheduling.
    Quarantined,
}

impl Scheduler {
    /// Places what can be placed; remembers why the rest was not.
    pub(crate) fn place_ready(&mut self) {
        let Plan { placements, blocked } = place(&self.state, &self.limits);
        self.blocked = blocked;
        for (instance, executor) in placements {
            let Some(place) = self.state.executors.get(&executor) else { continue };
            let (Some(session), Some(spool)) = (place.session, place.spool) else { continue };
            let machine = place.machine.clone();
            let Some((_, _, state)) = self.state.instance(instance) else { continue };
            let attempt = instance.attempt(state.attempts + 1);
            let at = self.now.wall;
            self.emit(Change::AttemptAssigned { attempt, executor, spool, machine, at });
            self.move_task(instance, TaskState::Ready, TaskState::Active);
            self.send_start(session, attempt);
        }
    }

    /// Sends a live attempt to its executor; repeated after a reconnect where it did not arrive.
    pub(crate) fn send_start(&mut self, session: SessionId, attempt: AttemptId) {
        if let Some(start) = self.start_of(attempt) {
            self.push_effect(Effect::Send(session, Message::Start(Box::new(start))));
        }
    }

    fn start_of(&self, attempt: AttemptId) -> Option<Start> {
        let (run, task, instance) = self.state.instance(attempt.instance)?;
        let live = instance.live.as_deref()?;
        let values = task.value_refs.iter().filter_map(|index| {
            // A task without values has an empty object, so that a template can name a default for each of them.
            let values = run.instances.get(*index as usize)?.values.clone().unwrap_or_else(|| "{}".into());
            Some((run.task(*index)?.name.clone(), values))
        });
        Some(Start {
            attempt,
            spool: live.spool,
            workflow: run.workflow.name.clone(),
            task: task.name.clone(),
            kind: task.kind.clone(),
            with: Arc::clone(&task.with),
            is_templated: task.is_templated,
            interval: run.created.interval,
            timezone: run
                .workflow
                .schedule
                .as_ref()
                .map_or_else(|| "UTC".into(), |schedule| schedule.timezone.name().into()),
            params: Arc::clone(&run.created.params),
            values: values.collect::<BTreeMap<_, _>>(),
            timeout: task.timeout,
            kill_grace: task.kill_grace,
            orphan_timeout: (task.on_lost != OnLost::Confirm).then_some(task.orphan_timeout),
        })
    }

    /// Decides that the live attempt of an instance is to end.
    pub(crate) fn kill_live(&mut self, instance: InstanceId, reason: &'static str) {
        let Some(live) = self.state.live(instance) else { return };
        let (attempt, from) = (instance.attempt(live.number), live.state);
        if from != AttemptState::Killing {
            self.emit(Change::AttemptMoved { attempt, from, to: AttemptState::Killing, at: self.now.wall });
        }
        self.send_kill(attempt, reason);
    }

    fn send_kill(&mut self, attempt: AttemptId, reason: &'static str) {
        let Some((_, task, instance)) = self.state.instance(attempt.instance) else { return };
        let grace = task.kill_grace;
        let executor = instance.live.as_deref().and_then(|live| {
            // With another spool it would take note that the attempt never ran, which is not so.
            let executor = self.state.executors.get(&live.executor)?;
            let speaks = executor.speaks_for(live.spool);
            #[cfg(feature = "testing")]
            let speaks = speaks || self.is_planted(Mutation::SpoolIgnored);
            speaks.then_some(executor)
        });
        if let Some(session) = executor.and_then(|executor| executor.session) {
            self.push_effect(Effect::Send(session, Message::Kill { attempt, grace, reason: reason.into() }));
        }
    }

    /// Says what there is of an attempt about which a connected executor speaks.
    pub(crate) fn standing(&self, executor: &ExecutorName, attempt: AttemptId) -> Standing {
        if self.state.quarantined.contains(&attempt.instance.run) {
            return Standing::Quarantined;
        }
        let Some(live) = self.state.live(attempt.instance).filter(|live| live.number == attempt.number)
        else {
            return Standing::Gone;
        };
        let holds = self.state.executors.get(executor).is_some_and(|at| at.speaks_for(live.spool));
        #[cfg(feature = "testing")]
        let holds = holds || self.is_planted(Mutation::SpoolIgnored);
        if live.executor == *executor && holds { Standing::Here } else { Standing::Elsewhere }
    }

    pub(crate) fn on_attempt_reported(&mut self, session: SessionId, attempt: AttemptId, report: Report) {
        let Some(executor) = self.state.sessions.get(&session) else {
            self.count_refusal("report_without_session");
            return;
        };
        let has_ended = matches!(report, Report::Ended(_));
        match self.standing(executor, attempt) {
            Standing::Here => {
                self.note_refusal(session, &report);
                self.take_report(attempt, report);
            }
            Standing::Elsewhere => {
                self.count_refusal("report_of_another_executor");
                self.answer_void(session, attempt, has_ended);
                return;
            }
            Standing::Gone => {
                #[cfg(feature = "testing")]
                self.take_late_result(attempt, &report);
                self.count_refusal("report_of_ended_attempt");
                self.answer_void(session, attempt, has_ended);
                return;
            }
            Standing::Quarantined => {
                self.count_refusal("report_of_quarantined_run");
                return;
            }
        }
        if self.state.live(attempt.instance).is_none_or(|live| live.number != attempt.number) {
            self.push_effect(Effect::Send(session, Message::Ack(attempt)));
        }
    }

    /// Takes from a start that was refused what its executor has not told otherwise yet: the two crossed on the way.
    ///
    /// The next heartbeat says whether there is space again. What a greeting says of an earlier refusal is not asked, because
    /// the greeting itself speaks of the present.
    fn note_refusal(&mut self, session: SessionId, report: &Report) {
        let Report::Ended(end) = report else { return };
        let executor = self.state.sessions.get(&session).and_then(|name| self.state.executors.get_mut(name));
        let Some(executor) = executor else { return };
        match end.reject_reason {
            RejectReason::SpaceLow => {
                // Several starts that are refused at once say no more than one.
                let is_new = !std::mem::replace(&mut executor.is_space_low, true);
                let until = is_new.then(|| executor.trial.note_space_refusal(self.now.uptime, &self.limits));
                if let (Some(until), Some(name)) = (until.flatten(), self.state.sessions.get(&session)) {
                    self.timers.at_uptime(until, UptimeTimer::SpaceWaitOver(name.clone()));
                }
            }
            RejectReason::Draining => executor.is_draining = true,
            RejectReason::Other | RejectReason::CannotStart => {}
        }
    }

    pub(crate) fn on_space_wait_over(&mut self, name: &ExecutorName) {
        if let Some(executor) = self.state.executors.get_mut(name) {
            executor.trial.note_time(self.now.uptime);
        }
    }

    /// Applies a report to the live attempt that it is about.
    pub(crate) fn take_report(&mut self, attempt: AttemptId, report: Report) {
        let Some(live) = self.state.live(attempt.instance) else { return };
        let (from, executor) = (live.state, live.executor.clone());
        let to = match report {
            Report::Accepted => AttemptState::Accepted,
            Report::Started { .. } => AttemptState::Running,
            Report::Killing => AttemptState::Killing,
            Report::Ended(end) if end.state.is_final() => {
                let told = end.clone();
                self.end_attempt(attempt, end);
                return self.judge_start(&executor, &told);
            }
            Report::Ended(_) => return self.count_refusal("end_in_a_live_state"),
        };
        if to == AttemptState::Running
            && let Some(executor) = self.state.executors.get_mut(&executor)
        {
            executor.trial.note_process();
        }
        if from < to {
            self.emit(Change::AttemptMoved { attempt, from, to, at: self.now.wall });
        }
    }

    /// Ends a live attempt and moves its instance on.
    pub(crate) fn end_attempt(&mut self, attempt: AttemptId, mut end: AttemptEnd) {
        let Some(from) = self.state.live(attempt.instance).map(|live| live.state) else { return };
        if let Some(reason) = self.quarantine_reason(attempt.instance, &end) {
            end.reason = reason;
        }
        self.emit(Change::AttemptEnded { attempt, from, end: end.clone(), at: self.now.wall });
        self.follow_attempt_end(attempt.instance, &end);
    }

    /// Makes the end of an attempt that nobody reported but that is proven.
    pub(crate) fn proven_end(&self, state: AttemptState, reason: &'static str, proof: Proof) -> AttemptEnd {
        AttemptEnd {
            state,
            exit_code: None,
            reason: reason.into(),
            values: None,
            is_skipped: false,
            is_permanent: false,
            started_at: None,
            ended_at: self.now.wall,
            log_bytes: 0,
            reject_reason: RejectReason::Other,
            is_planned: false,
            proof,
        }
    }
}

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
//! A report about an attempt that is not live changes nothing: its first end stands.

use std::{collections::BTreeMap, sync::Arc};

use millrace_common::{
    id::{AttemptId, InstanceId, SessionId},
    state::{AttemptState, TaskState},
    workflow::OnLost,
};

use crate::{
    batch::{AttemptEnd, Change, Effect, Message, Proof, Start},
    input::Report,
    placement::{Plan, place},
    scheduler::Scheduler,
};

impl Scheduler {
    /// Places what can be placed; remembers why the rest was not.
    pub(crate) fn place_ready(&mut self) {
        let Plan { placements, blocked } = place(&self.state, &self.limits);
        self.blocked = blocked;
        for (instance, executor) in placements {
            let Some(place) = self.state.executors.get(&executor) else { continue };
            let (Some(session), Some(spool)) = (place.session, place.spool) else { continue };
            let Some((_, _, state)) = self.state.instance(instance) else { continue };
            let attempt = instance.attempt(state.attempts + 1);
            let at = self.now.wall;
            self.emit(Change::AttemptAssigned { attempt, executor, spool, at });
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
            timezone: run.workflow.schedule.as_ref().map_or_else(|| "UTC".into(), |schedule| schedule.timezone.name().into()),
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
        let session = instance.live.as_deref().and_then(|live| self.state.session_of(&live.executor));
        if let Some(session) = session {
            self.push_effect(Effect::Send(session, Message::Kill { attempt, grace, reason: reason.into() }));
        }
    }

    pub(crate) fn on_attempt_reported(&mut self, session: SessionId, attempt: AttemptId, report: Report) {
        let Some(executor) = self.state.sessions.get(&session) else {
            self.count_refusal("report_without_session");
            return;
        };
        let live = self.state.live(attempt.instance).filter(|live| live.number == attempt.number);
        match live {
            Some(live) if live.executor != *executor => self.count_refusal("report_of_another_executor"),
            Some(_) => self.take_report(attempt, report),
            None => self.answer_late_report(session, attempt, &report),
        }
        if self.state.live(attempt.instance).is_none_or(|live| live.number != attempt.number) {
            self.push_effect(Effect::Send(session, Message::Ack(attempt)));
        }
    }

    /// A report about an attempt that is not live: its end stands. What still runs of it must not.
    fn answer_late_report(&mut self, session: SessionId, attempt: AttemptId, report: &Report) {
        self.count_refusal("report_of_ended_attempt");
        if !matches!(report, Report::Ended(_)) {
            let grace = std::time::Duration::ZERO;
            let reason = "the attempt has ended for the leader".into();
            self.push_effect(Effect::Send(session, Message::Kill { attempt, grace, reason }));
        }
    }

    /// Applies a report to the live attempt that it is about.
    pub(crate) fn take_report(&mut self, attempt: AttemptId, report: Report) {
        let Some(from) = self.state.live(attempt.instance).map(|live| live.state) else { return };
        let to = match report {
            Report::Accepted => AttemptState::Accepted,
            Report::Started { .. } => AttemptState::Running,
            Report::Killing => AttemptState::Killing,
            Report::Ended(end) if end.state.is_final() => return self.end_attempt(attempt, end),
            Report::Ended(_) => return self.count_refusal("end_in_a_live_state"),
        };
        if from < to {
            self.emit(Change::AttemptMoved { attempt, from, to, at: self.now.wall });
        }
    }

    /// Ends a live attempt and moves its instance on.
    pub(crate) fn end_attempt(&mut self, attempt: AttemptId, end: AttemptEnd) {
        let Some(from) = self.state.live(attempt.instance).map(|live| live.state) else { return };
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
            proof,
        }
    }
}

//! Executors: sessions, full accounts, and what follows from silence.
//!
//! On connect an executor says everything that it holds, and each attempt gets a verdict:
//!
//! | the leader has it | the executor has it | verdict |
//! |---|---|---|
//! | live | alive | adopt; kill where it is being ended |
//! | live | ended | its end is taken |
//! | live, not yet accepted | not, same spool | it never arrived: sent again |
//! | live, accepted | not, same spool | the spool attests that nothing of it runs: lost |
//! | live | not, a new spool that attests a clean slate | lost |
//! | live | not, a new spool, machine booted since | lost |
//! | live | not, a new spool without either | waits for the orphan time |
//! | not live | alive or ended | discard |

use std::{collections::BTreeMap, time::Duration};

use millrace_common::{
    id::{AttemptId, ExecutorName, SessionId},
    state::AttemptState,
    workflow::OnLost,
};

use crate::{
    batch::{Effect, Message, Proof, Verdict},
    input::{Hello, Report},
    scheduler::Scheduler,
    state::Executor,
    timers::UptimeTimer,
};

impl Scheduler {
    pub(crate) fn on_executor_connected(&mut self, session: SessionId, hello: Hello) {
        let name = hello.executor.clone();
        self.replace_session(session, &name);
        let rebooted = self.register(session, &hello);
        let mut verdicts = Vec::with_capacity(hello.held.len());
        let mut held = BTreeMap::new();
        for item in hello.held {
            held.insert(item.attempt, ());
            verdicts.push((item.attempt, self.judge_held(&name, item.attempt, item.report)));
        }
        // The welcome goes first: verdicts speak of the past, starts of the future.
        self.push_effect(Effect::Send(session, Message::Welcome(verdicts)));
        let absent: Vec<_> =
            self.state.executors.get(&name).map_or_else(Vec::new, |executor| {
                executor.live.iter().filter(|attempt| !held.contains_key(attempt)).copied().collect()
            });
        for attempt in absent {
            self.judge_absent(session, attempt, hello.is_clean, rebooted);
        }
        self.arm_loss(&name);
    }

    /// Ends an earlier session of the same executor: the newest one speaks for it.
    fn replace_session(&mut self, session: SessionId, name: &ExecutorName) {
        if let Some(earlier) = self.state.session_of(name) {
            self.state.sessions.remove(&earlier);
            let reason = "a newer session of this executor took its place".into();
            self.push_effect(Effect::Send(earlier, Message::Refused(reason)));
        }
        self.state.sessions.insert(session, name.clone());
    }

    /// Notes what the executor offers; returns whether its machine has booted since it was last here.
    fn register(&mut self, session: SessionId, hello: &Hello) -> bool {
        let heard_at = self.now.uptime;
        let executor =
            self.state.executors.entry(hello.executor.clone()).or_insert_with(|| Executor::unseen(heard_at));
        let rebooted = executor.boot.as_ref().is_some_and(|boot| *boot != hello.boot);
        executor.session = Some(session);
        executor.spool = Some(hello.spool);
        executor.boot = Some(hello.boot.clone());
        executor.slots = hello.slots;
        executor.labels.clone_from(&hello.labels);
        executor.kinds.clone_from(&hello.kinds);
        executor.version = hello.version.clone();
        executor.heard_at = heard_at;
        rebooted
    }

    fn judge_held(&mut self, executor: &ExecutorName, attempt: AttemptId, report: Report) -> Verdict {
        let Some(live) = self.state.live(attempt.instance).filter(|live| live.number == attempt.number) else {
            return Verdict::Discard;
        };
        if live.executor != *executor {
            self.count_refusal("held_by_another_executor");
            return Verdict::Discard;
        }
        let is_killing = live.state == AttemptState::Killing;
        let has_ended = matches!(report, Report::Ended(_));
        self.take_report(attempt, report);
        match (has_ended, is_killing) {
            (true, _) => Verdict::Discard,
            (false, true) => Verdict::Kill,
            (false, false) => Verdict::Adopt,
        }
    }

    fn judge_absent(&mut self, session: SessionId, attempt: AttemptId, is_clean: bool, rebooted: bool) {
        let Some(live) = self.state.live(attempt.instance) else { return };
        let spool = self.state.executors.get(&live.executor).and_then(|executor| executor.spool);
        let is_same_spool = spool == Some(live.spool);
        match live.state {
            AttemptState::Assigned if is_same_spool => self.send_start(session, attempt),
            AttemptState::Killing if is_same_spool => {
                let end = self.proven_end(AttemptState::Killed, "ended before it reached the executor", Proof::CleanSlate);
                self.end_attempt(attempt, end);
            }
            _ if is_same_spool => self.lose(attempt, "the executor no longer holds it", Proof::CleanSlate),
            _ if rebooted => self.lose(attempt, "the executor's machine was booted", Proof::Rebooted),
            _ if is_clean => self.lose(attempt, "the executor lost its spool", Proof::CleanSlate),
            _ => {}
        }
    }

    fn lose(&mut self, attempt: AttemptId, reason: &'static str, proof: Proof) {
        let end = self.proven_end(AttemptState::Lost, reason, proof);
        self.end_attempt(attempt, end);
    }

    pub(crate) fn on_executor_disconnected(&mut self, session: SessionId) {
        let Some(name) = self.state.sessions.remove(&session) else { return };
        if let Some(executor) = self.state.executors.get_mut(&name) {
            executor.session = None;
        }
        self.arm_loss(&name);
    }

    pub(crate) fn on_heartbeat_received(
        &mut self,
        session: SessionId,
        number: u64,
        held: &[(AttemptId, AttemptState)],
    ) {
        let Some(name) = self.state.sessions.get(&session) else {
            self.count_refusal("heartbeat_without_session");
            return;
        };
        if let Some(executor) = self.state.executors.get_mut(name) {
            executor.heard_at = self.now.uptime;
        }
        self.push_effect(Effect::Send(session, Message::HeartbeatAnswer(number)));
        for (attempt, state) in held {
            if self.state.live(attempt.instance).is_none_or(|live| live.number != attempt.number) {
                let message = if state.is_final() {
                    Message::Ack(*attempt)
                } else {
                    let reason = "the attempt has ended for the leader".into();
                    Message::Kill { attempt: *attempt, grace: Duration::ZERO, reason }
                };
                self.push_effect(Effect::Send(session, message));
            }
        }
    }

    /// Arms the timer after which an attempt of a silent executor may have ended by itself.
    pub(crate) fn arm_loss(&mut self, name: &ExecutorName) {
        if let Some(deadline) = self.loss_deadlines(name).into_iter().map(|(deadline, _)| deadline).min() {
            self.timers.at_uptime(deadline, UptimeTimer::LossDue(name.clone()));
        }
    }

    fn loss_deadlines(&self, name: &ExecutorName) -> Vec<(millrace_common::time::Uptime, AttemptId)> {
        let Some(executor) = self.state.executors.get(name) else { return Vec::new() };
        let due = |attempt: &AttemptId| {
            let (_, task, instance) = self.state.instance(attempt.instance)?;
            let live = instance.live.as_deref()?;
            // A connected executor speaks for what its own spool holds.
            let is_spoken_for = executor.is_connected() && executor.spool == Some(live.spool);
            let may_pass = task.on_lost != OnLost::Confirm && !is_spoken_for;
            may_pass.then(|| (executor.heard_at + self.limits.loss_wait(task.orphan_timeout, task.kill_grace), *attempt))
        };
        executor.live.iter().filter_map(due).collect()
    }

    pub(crate) fn on_loss_due(&mut self, name: &ExecutorName) {
        for (deadline, attempt) in self.loss_deadlines(name) {
            if deadline <= self.now.uptime {
                self.lose(attempt, "the executor was silent for longer than it lets an orphan run", Proof::OrphanTimePassed);
            }
        }
        self.arm_loss(name);
    }
}

//! Executors: sessions, full accounts, and what follows from silence.
//!
//! On connect an executor says everything that it holds, and each attempt gets a verdict:
//!
//! | the leader has it | the executor has it | verdict |
//! |---|---|---|
//! | live | alive | adopt; kill where it is being ended |
//! | live | ended | its end is taken |
//! | live, not yet accepted | not, same spool | it never arrived: sent again |
//! | live, accepted or being ended | not, same spool | the spool attests that nothing of it runs: ended |
//! | live | not, a new spool that attests a clean slate, same machine | lost |
//! | live | not, a new spool, same machine, booted since | lost |
//! | live | not, a new spool, without either or on another machine | waits for the orphan time |
//! | not live, or assigned elsewhere | alive or ended | discard |
//! | in a run that is quarantined | alive or ended | adopt: it is left alone |
//!
//! A network can hold a greeting back until after a later one, so what it does *not* name proves nothing yet. An executor
//! beats only after it was welcomed, and it has one connection: the first heartbeat of a session shows that its greeting
//! was the newest, and only then are the missing attempts ended.
//!
//! An attempt is assigned to a spool. What an executor says of it counts only while it holds that spool, and only
//! heartbeats of that spool put off the time after which it counts as ended by itself.
//!
//! A new spool speaks for its machine and no other: an executor whose name went to another machine knows nothing of what
//! still runs on the first. The machine of a spool is stored with each attempt, so it is known after a restore; a machine
//! without an identity is like none. In which boots a spool spoke is learned anew in each term, so that a new leader has no
//! proof by a boot until the spool has spoken to it: the attempt may have begun in a boot of which this leader never heard.

use std::{collections::BTreeSet, time::Duration};

use millrace_common::{
    id::{AttemptId, ExecutorName, SessionId, SpoolId},
    state::AttemptState,
    time::Uptime,
    workflow::OnLost,
};

#[cfg(feature = "testing")]
use crate::testing::Mutation;
use crate::{
    attempt::Standing,
    batch::{Alarm, Effect, Message, Proof, Verdict},
    input::{Hello, Report},
    scheduler::Scheduler,
    state::{Executor, Heard, Missing},
    timers::UptimeTimer,
};

impl Scheduler {
    pub(crate) fn on_executor_connected(&mut self, session: SessionId, hello: Hello) {
        if self.refuse_doubtful(session, &hello) {
            return;
        }
        let name = hello.executor.clone();
        self.replace_session(session, &name);
        self.register(session, &hello);
        let mut verdicts = Vec::with_capacity(hello.held.len());
        let mut held = BTreeSet::new();
        for item in &hello.held {
            held.insert(item.attempt);
            verdicts.push((item.attempt, self.judge_held(&name, item.attempt, item.report.clone())));
        }
        // The welcome goes first: verdicts speak of the past, starts of the future.
        self.push_effect(Effect::Send(session, Message::Welcome(verdicts)));
        let live = self.state.executors.get(&name).map(|executor| executor.live.clone()).unwrap_or_default();
        let missing: Vec<_> = live
            .difference(&held)
            .filter_map(|attempt| self.judge_absent(session, *attempt, &hello))
            .collect();
        if let Some(executor) = self.state.executors.get_mut(&name) {
            executor.missing = missing;
        }
        #[cfg(feature = "testing")]
        if self.is_planted(Mutation::GreetingProves) {
            self.end_missing(&name, &[]);
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

    /// Notes what the executor offers, and that its spool was heard.
    fn register(&mut self, session: SessionId, hello: &Hello) {
        let at = self.now.uptime;
        let name = &hello.executor;
        self.state.executors.entry(name.clone()).or_insert_with(|| Executor::unseen(at));
        let in_use = self.spools_in_use(name);
        let slots = self.state.settings.slots_of(name, hello.slots);
        let Some(executor) = self.state.executors.get_mut(name) else { return };
        executor.heard.retain(|spool, _| in_use.contains(spool));
        let heard = executor.heard.entry(hello.spool).or_insert_with(|| Heard { at, boots: BTreeSet::new() });
        heard.at = at;
        heard.boots.insert((hello.machine.clone(), hello.boot.clone()));
        executor.session = Some(session);
        executor.alive_after_end.clear();
        executor.is_draining = false;
        executor.is_space_low = hello.is_space_low;
        executor.spool = Some(hello.spool);
        executor.machine.clone_from(&hello.machine);
        executor.slots_offered = hello.slots;
        executor.slots = slots;
        executor.labels.clone_from(&hello.labels);
        executor.kinds.clone_from(&hello.kinds);
        executor.version = hello.version.clone();
        executor.process.clone_from(&hello.process);
        executor.rival = None;
        executor.speak(at, hello.spool_facts);
    }

    fn spools_in_use(&self, name: &ExecutorName) -> BTreeSet<SpoolId> {
        let live = self.state.executors.get(name).into_iter().flat_map(|executor| &executor.live);
        live.filter_map(|attempt| Some(self.state.live(attempt.instance)?.spool)).collect()
    }

    fn judge_held(&mut self, executor: &ExecutorName, attempt: AttemptId, report: Report) -> Verdict {
        match self.standing(executor, attempt) {
            Standing::Quarantined => return Verdict::Adopt,
            Standing::Gone => {
                #[cfg(feature = "testing")]
                self.take_late_result(attempt, &report);
                if let (false, Some(executor)) =
                    (matches!(report, Report::Ended(_)), self.state.executors.get_mut(executor))
                {
                    executor.alive_after_end.push(attempt);
                }
                return Verdict::Discard;
            }
            Standing::Elsewhere => {
                self.count_refusal("held_by_another_executor");
                return Verdict::Discard;
            }
            Standing::Here => {}
        }
        let is_killing =
            self.state.live(attempt.instance).is_some_and(|live| live.state == AttemptState::Killing);
        let has_ended = matches!(report, Report::Ended(_));
        self.take_report(attempt, report);
        match (has_ended, is_killing) {
            (true, _) => Verdict::Discard,
            (false, true) => Verdict::Kill,
            (false, false) => Verdict::Adopt,
        }
    }

    /// Sends an attempt again that never arrived; otherwise says what it is ended by, if it really is not there.
    fn judge_absent(&mut self, session: SessionId, attempt: AttemptId, hello: &Hello) -> Option<Missing> {
        let live = self.state.live(attempt.instance)?;
        let executor = self.state.executors.get(&live.executor)?;
        let is_same_spool = live.spool == hello.spool;
        if is_same_spool && live.state == AttemptState::Assigned {
            #[cfg(feature = "testing")]
            if self.is_planted(Mutation::NotResent) {
                return None;
            }
            #[cfg(feature = "testing")]
            if self.is_planted(Mutation::ResentElsewhere)
                && let Some(other) = self.state.sessions.keys().copied().find(|other| *other != session)
            {
                self.send_start(other, attempt);
                return None;
            }
            self.send_start(session, attempt);
            return None;
        }
        let is_same_machine = hello.machine.as_ref().is_some_and(|machine| {
            live.machine.as_ref() == Some(machine) && executor.was_nowhere_else(live.spool, machine)
        });
        #[cfg(feature = "testing")]
        let is_same_machine = is_same_machine || self.is_planted(Mutation::MachineIgnored);
        let is_clean = hello.is_clean && is_same_machine;
        #[cfg(feature = "testing")]
        let is_clean = is_clean || self.is_planted(Mutation::NewSpoolProves);
        let (reason, proof) = if is_same_spool {
            ("the executor does not hold it", Proof::CleanSlate)
        } else if is_same_machine && executor.has_booted_since(live.spool, &hello.boot) {
            ("the executor's machine was booted", Proof::Rebooted)
        } else if is_clean {
            ("the executor lost its spool", Proof::CleanSlate)
        } else {
            return None;
        };
        Some(Missing { attempt, proof, reason })
    }

    /// Raises an alarm for what the session's greeting named as alive although its end is recorded, now that the greeting is
    /// known to be the newest.
    fn tell_alive_after_end(&mut self, name: &ExecutorName) {
        let Some(executor) = self.state.executors.get_mut(name) else { return };
        for attempt in std::mem::take(&mut executor.alive_after_end) {
            self.count_refusal("alive_after_its_end");
            self.push_effect(Effect::Alarm(Alarm::AliveAfterEnd { executor: name.clone(), attempt }));
        }
    }

    /// Ends what the session's greeting did not name: its first heartbeat shows that the greeting was not overtaken.
    fn end_missing(&mut self, name: &ExecutorName, held: &[(AttemptId, AttemptState)]) {
        let Some(executor) = self.state.executors.get_mut(name) else { return };
        let missing = std::mem::take(&mut executor.missing);
        if missing.is_empty() {
            return;
        }
        let held: BTreeSet<AttemptId> = held.iter().map(|(attempt, _)| *attempt).collect();
        for Missing { attempt, proof, reason } in missing {
            let is_held = held.contains(&attempt);
            let Some((run, _, instance)) = self.state.instance(attempt.instance).filter(|_| !is_held) else {
                continue;
            };
            if instance.live.as_deref().is_some_and(|live| live.number == attempt.number) {
                // What was to be ended anyway is not a loss that anybody has to look into.
                let state = if run.ending.is_some() { AttemptState::Killed } else { AttemptState::Lost };
                let end = self.proven_end(state, reason, proof);
                self.end_attempt(attempt, end);
            }
        }
    }

    fn lose(&mut self, attempt: AttemptId, reason: &'static str, proof: Proof) {
        let end = self.proven_end(AttemptState::Lost, reason, proof);
        self.end_attempt(attempt, end);
    }

    pub(crate) fn on_executor_draining(&mut self, session: SessionId) {
        let executor = self.state.sessions.get(&session).and_then(|name| self.state.executors.get_mut(name));
        match executor {
            Some(executor) => executor.is_draining = true,
            None => self.count_refusal("drain_without_session"),
        }
    }

    pub(crate) fn on_executor_disconnected(&mut self, session: SessionId) {
        let Some(name) = self.state.sessions.remove(&session) else { return };
        if let Some(executor) = self.state.executors.get_mut(&name) {
            executor.session = None;
            executor.missing.clear();
            executor.alive_after_end.clear();
        }
        self.arm_loss(&name);
    }

    pub(crate) fn on_heartbeat_received(
        &mut self,
        session: SessionId,
        number: u64,
        held: &[(AttemptId, AttemptState)],
        is_space_low: bool,
        spool_facts: u64,
    ) {
        let Some(name) = self.state.sessions.get(&session).cloned() else {
            self.count_refusal("heartbeat_without_session");
            return;
        };
        if let Some(executor) = self.state.executors.get_mut(&name) {
            executor.hear(self.now.uptime);
            executor.speak(self.now.uptime, spool_facts);
            executor.is_space_low = is_space_low;
        }
        self.push_effect(Effect::Send(session, Message::HeartbeatAnswer(number)));
        self.end_missing(&name, held);
        self.tell_alive_after_end(&name);
        for (attempt, state) in held {
            match self.standing(&name, *attempt) {
                // It ended without a report that arrived: whoever is asked to end it tells how it ended.
                #[cfg(feature = "testing")]
                Standing::Here if self.is_planted(Mutation::EndNotAskedFor) => {}
                Standing::Here if state.is_final() => {
                    self.ask_to_end(session, *attempt, "its end did not arrive")
                }
                Standing::Here | Standing::Quarantined => {}
                Standing::Gone | Standing::Elsewhere => self.answer_void(session, *attempt, state.is_final()),
            }
        }
    }

    /// Tells an executor what to do with an attempt that does not count: end what lives of it, forget what ended.
    pub(crate) fn answer_void(&mut self, session: SessionId, attempt: AttemptId, has_ended: bool) {
        if has_ended {
            self.push_effect(Effect::Send(session, Message::Ack(attempt)));
        } else {
            self.ask_to_end(session, attempt, "the attempt has ended for the leader");
        }
    }

    fn ask_to_end(&mut self, session: SessionId, attempt: AttemptId, reason: &'static str) {
        let message = Message::Kill { attempt, grace: Duration::ZERO, reason: reason.into() };
        self.push_effect(Effect::Send(session, message));
    }

    /// Arms the timer after which an attempt of a silent executor may have ended by itself.
    pub(crate) fn arm_loss(&mut self, name: &ExecutorName) {
        if let Some(deadline) = self.loss_deadlines(name).into_iter().map(|(deadline, _)| deadline).min() {
            self.timers.at_uptime(deadline, UptimeTimer::LossDue(name.clone()));
        }
    }

    fn loss_deadlines(&self, name: &ExecutorName) -> Vec<(Uptime, AttemptId)> {
        let Some(executor) = self.state.executors.get(name) else { return Vec::new() };
        let due = |attempt: &AttemptId| Some((self.loss_deadline(*attempt)?, *attempt));
        executor.live.iter().filter_map(due).collect()
    }

    /// Returns when an attempt counts as ended by itself; never where its executor speaks for it or its policy forbids.
    pub(crate) fn loss_deadline(&self, attempt: AttemptId) -> Option<Uptime> {
        let (_, task, instance) = self.state.instance(attempt.instance)?;
        let live = instance.live.as_deref()?;
        let executor = self.state.executors.get(&live.executor)?;
        let may_pass = task.on_lost != OnLost::Confirm && !executor.speaks_for(live.spool);
        let wait = self.limits.loss_wait(task.orphan_timeout, task.kill_grace);
        #[cfg(feature = "testing")]
        let wait = self.wait_wrongly(task, wait);
        let heard_at = executor.heard_at(Some(live.spool));
        #[cfg(feature = "testing")]
        let heard_at = self.heard_wrongly(executor, heard_at);
        may_pass.then(|| heard_at + wait)
    }

    pub(crate) fn on_loss_due(&mut self, name: &ExecutorName) {
        for (deadline, attempt) in self.loss_deadlines(name) {
            if deadline <= self.now.uptime {
                self.lose(
                    attempt,
                    "the executor was silent for longer than it lets an orphan run",
                    Proof::OrphanTimePassed,
                );
            }
        }
        self.arm_loss(name);
    }
}

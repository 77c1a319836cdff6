//! The process of a leader, in the steps of its term loop: take inputs, decide, commit, release. Between any two steps it
//! may stand still, be deposed, or end without a trace.

use std::collections::{BTreeMap, VecDeque};

use millrace_common::{id::SessionId, term::Term, time::Uptime};
use millrace_core::{Answer, Batch, Effect, Input, Message, RequestId, Scheduler, check, testing::Mutation};

use crate::{
    network::{ConnectionId, ToExecutor, ToLeader},
    plan::SECOND,
    store::{Committed, Fate},
    world::{Event, World},
};

/// A term loop sleeps no longer than this.
const SLEEP_MAX: u64 = 60 * SECOND;

/// Where the loop stands.
#[derive(Debug)]
enum Phase {
    Waiting,
    /// Decided and not yet durable.
    Committing(Option<Batch>),
    /// Durable and not yet done.
    Releasing(VecDeque<Effect>),
}

/// A process that leads, or believes so.
#[derive(Debug)]
pub(crate) struct Leader {
    pub(crate) master: usize,
    pub(crate) term: Term,
    scheduler: Scheduler,
    phase: Phase,
    inbox: VecDeque<Input>,
    /// Uptime of its master after which it sends nothing: it has been deposed.
    pub(crate) authority_until: Option<u64>,
    pub(crate) stands_until: u64,
    wakes_at: u64,
    sessions: BTreeMap<SessionId, ConnectionId>,
    callers: BTreeMap<RequestId, usize>,
    requests: u64,
}

impl Leader {
    /// Asks for something on behalf of a client.
    pub(crate) fn ask(&mut self, caller: usize, request: millrace_core::Request) {
        self.requests += 1;
        let id = RequestId(self.requests);
        self.callers.insert(id, caller);
        self.inbox.push_back(Input::Requested(id, request));
    }
}

impl World {
    /// Lets a master take over: it claims the next term and restores from what is durable.
    pub(crate) fn take_over(&mut self, master: usize) {
        let term = self.store.claim();
        self.checker.claimed(term);
        self.trace(|| format!("master {master} leads term {term}"));
        let now = self.masters[master].now(self.time);
        let restored = match Scheduler::restore(term, self.store.memory.load(), self.limits.clone(), now) {
            Ok(restored) => restored,
            Err(error) => return self.checker.fail(format!("term {term} cannot be restored: {error}")),
        };
        if let Some((run, problem)) = restored.quarantined.first() {
            return self.checker.fail(format!("run {run} is quarantined: {problem}"));
        }
        let mut scheduler = restored.scheduler;
        scheduler.plant(self.mutation);
        let leader = Leader {
            master,
            term,
            scheduler,
            phase: Phase::Waiting,
            inbox: VecDeque::new(),
            authority_until: None,
            stands_until: 0,
            wakes_at: u64::MAX,
            sessions: BTreeMap::new(),
            callers: BTreeMap::new(),
            requests: 0,
        };
        self.leaders.insert(term.0, leader);
        self.after_decision(term.0);
    }

    /// Ends the process of a leader without a trace.
    pub(crate) fn end_leader(&mut self, id: u64, why: &str) {
        let Some(leader) = self.leaders.remove(&id) else { return };
        self.checker.seen.insert(format!("leader ends: {why}"));
        self.checker
            .seen
            .extend(leader.scheduler.refusals().keys().map(|reason| format!("counted {reason}")));
        self.trace(|| format!("the leader of term {id} ends: {why}"));
        for connection in self.network.of_leader(id) {
            let delay = self.notice();
            self.at(delay, Event::ToExecutor(connection, ToExecutor::Closed));
            self.network.cut(connection);
        }
        if self.leaders.is_empty() {
            self.call_election();
        }
    }

    /// Returns the leader if it may go on now; otherwise ends it, or puts the event off.
    fn awake(&mut self, id: u64, event: Event) -> Option<&mut Leader> {
        let (time, masters) = (self.time, &self.masters);
        let leader = self.leaders.get(&id)?;
        if leader.stands_until > time {
            let wait = leader.stands_until - time;
            self.at(wait, event);
            return None;
        }
        if leader.authority_until.is_some_and(|until| masters[leader.master].uptime(time) >= until) {
            self.end_leader(id, "its authority is over");
            return None;
        }
        self.leaders.get_mut(&id)
    }

    /// Something was put into the inbox.
    pub(crate) fn nudge(&mut self, id: u64) {
        let soon = self.random.between(10, 300);
        let time = self.time;
        let Some(leader) = self.leaders.get_mut(&id) else { return };
        if matches!(leader.phase, Phase::Waiting) && leader.wakes_at > time + soon {
            leader.wakes_at = time + soon;
            self.at(soon, Event::Wake(id, time + soon));
        }
    }

    pub(crate) fn on_wake(&mut self, id: u64, at: u64) {
        let takes_one = self.plan.takes_one;
        let (time, masters) = (self.time, self.masters.clone());
        let Some(leader) = self.awake(id, Event::Wake(id, at)) else { return };
        if leader.wakes_at != at || !matches!(leader.phase, Phase::Waiting) {
            return;
        }
        leader.wakes_at = u64::MAX;
        let now = masters[leader.master].now(time);
        let count = if takes_one { leader.inbox.len().min(1) } else { leader.inbox.len() };
        for input in leader.inbox.drain(..count) {
            leader.scheduler.handle(now, input);
        }
        leader.scheduler.handle_timeout(now);
        self.after_decision(id);
    }

    fn after_decision(&mut self, id: u64) {
        if self.crashes_here() {
            return self.end_leader(id, "it crashes after a decision");
        }
        let Some(leader) = self.leaders.get_mut(&id) else { return };
        match leader.scheduler.take_batch() {
            None => self.sleep(id),
            Some(batch) => {
                let early = early_effects(self.mutation, &batch);
                leader.phase = Phase::Committing(Some(batch));
                for effect in early {
                    self.release(id, effect);
                }
                let latency = self.random.pick(&[300, 3_000, 30_000]);
                self.at(latency, Event::Commit(id));
            }
        }
        self.check_state(id);
    }

    fn check_state(&mut self, id: u64) {
        let Some(leader) = self.leaders.get(&id) else { return };
        let scheduler = &leader.scheduler;
        let mut found = check::violations(scheduler);
        found.extend(check::orphans(scheduler));
        found.extend(check::over_limit(scheduler));
        if let Some(first) = found.first() {
            self.checker.fail(format!("in term {id}: {first}"));
        }
    }

    fn sleep(&mut self, id: u64) {
        let time = self.time;
        let Some(leader) = self.leaders.get_mut(&id) else { return };
        leader.phase = Phase::Waiting;
        let clock = &self.masters[leader.master];
        let micros =
            |deadline: Uptime| u64::try_from(deadline.since_boot().as_nanos().div_ceil(1_000)).unwrap();
        let due =
            leader.scheduler.poll_timeout().map_or(u64::MAX, |deadline| clock.time_of(micros(deadline)));
        let wake = if leader.inbox.is_empty() { due.min(time + SLEEP_MAX).max(time + 1) } else { time + 10 };
        leader.wakes_at = wake;
        self.at(wake - time, Event::Wake(id, wake));
    }

    pub(crate) fn on_commit(&mut self, id: u64) {
        if self.crashes_here() {
            return self.end_leader(id, "it crashes before a commit");
        }
        let fate = match self.random.below(1_000) {
            roll if roll >= self.faults_now(self.plan.commit_faults) => Fate::Commits,
            roll if roll % 2 == 0 => Fate::Fails,
            _ => Fate::CommitsUnheard,
        };
        let Some(leader) = self.awake(id, Event::Commit(id)) else { return };
        let Phase::Committing(batch) = &mut leader.phase else { return };
        let Some(batch) = batch.take() else { return };
        let term = leader.term;
        match self.store.commit(batch, fate) {
            Err(problem) => self.checker.fail(format!("the store refuses a batch of term {term}: {problem}")),
            Ok((changes, heard)) => {
                self.trace(|| format!("term {term} commits {changes:#?}"));
                if !changes.is_empty() {
                    self.checker.committed(term, &changes);
                }
                match heard {
                    Committed::TermEnds => self.end_leader(id, "a commit failed"),
                    Committed::Done(effects) => self.begin_release(id, effects),
                }
            }
        }
    }

    fn begin_release(&mut self, id: u64, effects: Vec<Effect>) {
        let early = self.mutation;
        let left = effects.into_iter().filter(|effect| !is_early(early, effect)).collect();
        let Some(leader) = self.leaders.get_mut(&id) else { return };
        leader.phase = Phase::Releasing(left);
        self.at(1, Event::Release(id));
    }

    pub(crate) fn on_release(&mut self, id: u64) {
        if self.crashes_here() {
            return self.end_leader(id, "it crashes while it releases");
        }
        let Some(leader) = self.awake(id, Event::Release(id)) else { return };
        let Phase::Releasing(effects) = &mut leader.phase else { return };
        match effects.pop_front() {
            None => self.after_decision(id),
            Some(effect) => {
                self.release(id, effect);
                self.at(1, Event::Release(id));
            }
        }
    }

    fn release(&mut self, id: u64, effect: Effect) {
        let Some(leader) = self.leaders.get_mut(&id) else { return };
        match effect {
            Effect::Send(session, message) => {
                let Some(connection) = leader.sessions.get(&session).copied() else { return };
                let term = leader.term;
                self.send_to_executor(connection, ToExecutor::Message(term, message));
            }
            Effect::Answer(request, answer) => {
                let Some(caller) = leader.callers.remove(&request) else { return };
                self.answer(caller, answer);
            }
        }
    }

    /// Something arrives at a leader over a connection.
    pub(crate) fn on_arrived(&mut self, connection: ConnectionId, message: ToLeader) {
        let id = self.network.get(connection).leader;
        let session = self.network.get(connection).session;
        let Some(leader) = self.leaders.get_mut(&id) else { return };
        let input = match (message, session) {
            (ToLeader::Hello(hello), _) => {
                let session = SessionId(leader.sessions.len() as u64 + 1);
                leader.sessions.insert(session, connection);
                self.network.set_session(connection, session);
                Input::ExecutorConnected(session, hello)
            }
            (ToLeader::Heartbeat { number, held }, Some(session)) => {
                Input::HeartbeatReceived { session, number, held, is_space_low: false }
            }
            (ToLeader::Report(attempt, report), Some(session)) => {
                Input::AttemptReported { session, attempt, report }
            }
            (ToLeader::Closed, Some(session)) => Input::ExecutorDisconnected(session),
            (ToLeader::Heartbeat { .. } | ToLeader::Report(..) | ToLeader::Closed, None) => return,
        };
        leader.inbox.push_back(input);
        self.nudge(id);
    }

    /// Tells whether a leader crashes between two of its steps.
    fn crashes_here(&mut self) -> bool {
        let rate = self.faults_now(self.plan.step_crashes);
        self.random.below(10_000) < rate
    }
}

/// Planted faults of the shell: what leaves before it is durable.
fn early_effects(mutation: Option<Mutation>, batch: &Batch) -> Vec<Effect> {
    batch.effects().iter().filter(|effect| is_early(mutation, effect)).cloned().collect()
}

const fn is_early(mutation: Option<Mutation>, effect: &Effect) -> bool {
    match mutation {
        Some(Mutation::StartsBeforeCommit) => matches!(effect, Effect::Send(_, Message::Start(_))),
        Some(Mutation::AcksBeforeCommit) => matches!(effect, Effect::Send(_, Message::Ack(_))),
        Some(Mutation::AnswersBeforeCommit) => matches!(effect, Effect::Answer(_, Answer::RunStarted { .. })),
        _ => false,
    }
}

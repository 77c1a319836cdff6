//! A leader in the steps of its term loop: take inputs, decide, begin, commit, look whether it still may, send. Each step
//! is an event: between any two of them the process may stand still, be deposed, or end without a trace.

use std::collections::{BTreeMap, VecDeque};

use millrace_checker::Event as Recorded;
use millrace_common::{
    id::SessionId,
    term::Term,
    time::{Now, Uptime},
};
use millrace_core::{
    Answer, Batch, Effect, Input, Message, RequestId, Scheduler, Snapshot, check, testing::Mutation,
};

use crate::{
    clock::micros,
    database::{DatabaseCall, DatabaseReply},
    election::Told,
    master::{About, SETTLE_MAX},
    network::{ConnectionId, ProcessId, ToExecutor, ToLeader},
    plan::SECOND,
    planted::Planted,
    world::{Event, World},
};

/// A leader that has written nothing for as long writes nothing in a transaction: one that cannot write must let go.
const IDLE_MAX: u64 = 5 * SECOND;
/// A term loop sleeps no longer than this.
const SLEEP_MAX: u64 = 60 * SECOND;
/// A session over which nothing comes for as long is over: three heartbeats and the time for an answer fit into it.
const SILENCE_MAX: u64 = 15 * SECOND;
/// How often a transaction is sent, where the first is known not to have committed.
const COMMIT_TRIES: u32 = 2;

/// Where the loop stands.
#[derive(Debug)]
enum Phase {
    Waiting,
    /// Decided, or idle for long; the transaction is to begin.
    Beginning(Option<Batch>),
    /// Begun; the transaction is to commit.
    Committing(Option<Batch>),
    /// Nobody knows whether it did, since then.
    Settling(Option<Batch>, u64),
    /// Durable and not yet done.
    Releasing(VecDeque<Effect>),
}

/// What a process is that leads, or believes so.
#[derive(Debug)]
pub(crate) struct Leader {
    pub(crate) term: Term,
    scheduler: Scheduler,
    phase: Phase,
    /// The last transaction that is known to be durable.
    seq: u64,
    tries: u32,
    /// When its last transaction began.
    began_at: u64,
    inbox: VecDeque<Input>,
    wakes_at: u64,
    sessions: BTreeMap<SessionId, ConnectionId>,
    /// When something last came over each connection.
    heard: BTreeMap<ConnectionId, u64>,
    callers: BTreeMap<RequestId, usize>,
    requests: u64,
    pub(crate) is_handing_over: bool,
}

impl Leader {
    /// Asks for something on behalf of a client.
    pub(crate) fn ask(&mut self, caller: usize, request: millrace_core::Request) {
        self.requests += 1;
        let id = RequestId(self.requests);
        self.callers.insert(id, caller);
        self.inbox.push_back(Input::Requested(id, request));
    }

    pub(crate) fn refusals(&self) -> Vec<String> {
        self.scheduler.refusals().keys().map(|reason| format!("counted {reason}")).collect()
    }
}

impl World {
    /// A process has claimed and loaded: it leads.
    pub(crate) fn begin_term(&mut self, id: ProcessId, term: Term, snapshot: Snapshot) {
        let now = self.now_of(id);
        self.trace(|| format!("process {id} leads term {term}"));
        let restored = match Scheduler::restore(term, snapshot, self.limits.clone(), now) {
            Ok(restored) => restored,
            Err(error) => return self.fail(format!("term {term} cannot be restored: {error}")),
        };
        if let Some((run, problem)) = restored.quarantined.first() {
            return self.fail(format!("run {run} is quarantined: {problem}"));
        }
        let mut scheduler = restored.scheduler;
        scheduler.plant(self.planted.and_then(Planted::mutation));
        let leader = Leader {
            term,
            scheduler,
            phase: Phase::Waiting,
            seq: 0,
            tries: 0,
            began_at: self.time,
            inbox: VecDeque::new(),
            wakes_at: u64::MAX,
            sessions: BTreeMap::new(),
            heard: BTreeMap::new(),
            callers: BTreeMap::new(),
            requests: 0,
            is_handing_over: false,
        };
        self.processes.get_mut(&id).unwrap().leader = Some(leader);
        self.after_decision(id);
    }

    fn now_of(&self, id: ProcessId) -> Now {
        self.masters[self.processes[&id].master].now(self.time)
    }

    fn leader(&mut self, id: ProcessId) -> Option<&mut Leader> {
        self.processes.get_mut(&id)?.leader.as_mut()
    }

    /// Tells whether a leader may go on; ends its process where it has no authority.
    fn may_act(&mut self, id: ProcessId) -> bool {
        let Some(master) =
            self.processes.get(&id).filter(|process| process.leader.is_some()).map(|at| at.master)
        else {
            return false;
        };
        let now = self.election_now(master);
        let may = self.processes.get_mut(&id).unwrap().candidate.check(now);
        if !may {
            self.carry_election(id);
        }
        may
    }

    /// Tight plans go without: what must not happen must not rest on it.
    fn leaves_idle_unprobed(&self) -> bool {
        self.planted == Some(Planted::IdleNotProbed) || self.plan.is_tight
    }

    /// Something was put into the inbox.
    pub(crate) fn nudge(&mut self, id: ProcessId) {
        let soon = self.random.between(10, 300);
        let time = self.time;
        let Some(leader) = self.leader(id) else { return };
        if matches!(leader.phase, Phase::Waiting) && leader.wakes_at > time + soon {
            leader.wakes_at = time + soon;
            self.at(soon, Event::Wake(id, time + soon));
        }
    }

    pub(crate) fn on_wake(&mut self, id: ProcessId, at: u64) {
        let takes_one = self.plan.takes_one;
        let is_due = self
            .leader(id)
            .is_some_and(|leader| leader.wakes_at == at && matches!(leader.phase, Phase::Waiting));
        if !is_due || !self.may_act(id) {
            return;
        }
        let now = self.now_of(id);
        let Some(leader) = self.leader(id) else { return };
        leader.wakes_at = u64::MAX;
        let count = if takes_one { leader.inbox.len().min(1) } else { leader.inbox.len() };
        for input in leader.inbox.drain(..count) {
            leader.scheduler.handle(now, input);
        }
        leader.scheduler.handle_timeout(now);
        self.after_decision(id);
    }

    fn after_decision(&mut self, id: ProcessId) {
        if self.trips_here(id, "it crashes after a decision") {
            return;
        }
        let planted = self.planted.and_then(Planted::mutation);
        let (time, is_unprobed) = (self.time, self.leaves_idle_unprobed());
        let mut overfilled = Vec::new();
        let Some(leader) = self.leader(id) else { return };
        match leader.scheduler.take_batch() {
            None if leader.is_handing_over => {
                self.processes.get_mut(&id).unwrap().candidate.hand_over();
                return self.carry_election(id);
            }
            None if leader.began_at + IDLE_MAX <= time && !is_unprobed => {
                leader.tries = 0;
                self.begin_transaction(id, None);
            }
            None => self.sleep(id),
            Some(batch) => {
                overfilled = check::overfilled(&leader.scheduler, batch.changes());
                let early: Vec<Effect> =
                    batch.effects().iter().filter(|effect| is_early(planted, effect)).cloned().collect();
                leader.tries = 0;
                for effect in early {
                    self.release(id, effect, None);
                }
                self.begin_transaction(id, Some(batch));
            }
        }
        self.check_state(id, overfilled);
    }

    /// A batch without changes needs no transaction. A leader without a batch for long makes one without changes, to see
    /// that it still could.
    fn begin_transaction(&mut self, id: ProcessId, batch: Option<Batch>) {
        let time = self.time;
        let Some(leader) = self.leader(id) else { return };
        if batch.as_ref().is_some_and(|batch| batch.changes().is_empty()) {
            return self.begin_release(id, batch);
        }
        let call = DatabaseCall::Begin { term: leader.term, seq: leader.seq + 1 };
        leader.tries += 1;
        leader.began_at = time;
        leader.phase = Phase::Beginning(batch);
        self.call_database(id, About::Transaction, call);
    }

    fn check_state(&mut self, id: ProcessId, overfilled: Vec<check::Violation>) {
        let Some(leader) = self.leader(id) else { return };
        let (term, scheduler) = (leader.term, &leader.scheduler);
        let mut found = check::violations(scheduler);
        found.extend(check::orphans(scheduler));
        found.extend(overfilled);
        if let Some(first) = found.first().cloned() {
            self.fail(format!("in term {term}: {first}"));
        }
    }

    fn sleep(&mut self, id: ProcessId) {
        let (time, is_unprobed) = (self.time, self.leaves_idle_unprobed());
        let clock = self.masters[self.processes[&id].master].clone();
        let Some(leader) = self.leader(id) else { return };
        leader.phase = Phase::Waiting;
        let due = |deadline: Uptime| clock.time_of(micros(deadline.since_boot()));
        let idle_at = if is_unprobed { u64::MAX } else { leader.began_at + IDLE_MAX };
        let due = leader.scheduler.poll_timeout().map_or(u64::MAX, due).min(idle_at);
        let wake = if leader.inbox.is_empty() { due.min(time + SLEEP_MAX).max(time + 1) } else { time + 10 };
        leader.wakes_at = wake;
        self.at(wake - time, Event::Wake(id, wake));
    }

    pub(crate) fn on_transaction_told(&mut self, id: ProcessId, told: Told) {
        let reply = match told {
            Told::Database(reply) => Some(reply),
            Told::Etcd(_) | Told::Nothing => None,
        };
        let Some(leader) = self.leader(id) else { return };
        match std::mem::replace(&mut leader.phase, Phase::Waiting) {
            Phase::Beginning(batch) => self.on_begun(id, batch, reply.as_ref()),
            Phase::Committing(batch) => self.on_commit_told(id, batch, reply.as_ref()),
            Phase::Settling(batch, since) => self.on_fence_told(id, batch, since, reply.as_ref()),
            phase => leader.phase = phase,
        }
    }

    fn on_begun(&mut self, id: ProcessId, batch: Option<Batch>, reply: Option<&DatabaseReply>) {
        if !matches!(reply, Some(DatabaseReply::Begun)) {
            return self.lose_term(id);
        }
        if self.trips_here(id, "it crashes before a commit") {
            return;
        }
        let Some(leader) = self.leader(id) else { return };
        leader.phase = Phase::Committing(batch);
        let process = self.processes.get_mut(&id).unwrap();
        if process.stops_in_transaction {
            process.stands_until = u64::MAX;
        }
        self.at(1, Event::Commit(id));
    }

    pub(crate) fn on_commit(&mut self, id: ProcessId) {
        let Some(leader) = self.leader(id) else { return };
        if let Phase::Committing(batch) = &leader.phase {
            let changes = batch.as_ref().map_or_else(Vec::new, |batch| batch.changes().to_vec());
            self.call_database(id, About::Transaction, DatabaseCall::Commit(changes));
        }
    }

    fn on_commit_told(&mut self, id: ProcessId, batch: Option<Batch>, reply: Option<&DatabaseReply>) {
        match reply {
            Some(DatabaseReply::Committed) => self.on_durable(id, batch),
            Some(_) => self.lose_term(id),
            None if self.planted == Some(Planted::UnknownIsSuccess) => self.on_durable(id, batch),
            None => self.settle(id, batch, self.time),
        }
    }

    /// Reads the fence over a new connection, to learn whether the last transaction committed.
    fn settle(&mut self, id: ProcessId, batch: Option<Batch>, since: u64) {
        self.seen.insert("outcome of a commit unknown".to_owned());
        let Some(leader) = self.leader(id) else { return };
        leader.phase = Phase::Settling(batch, since);
        self.call_database(id, About::Transaction, DatabaseCall::Fence);
    }

    fn on_fence_told(
        &mut self,
        id: ProcessId,
        batch: Option<Batch>,
        since: u64,
        reply: Option<&DatabaseReply>,
    ) {
        let (planted, time) = (self.planted, self.time);
        let Some(leader) = self.leader(id) else { return };
        match reply {
            Some(DatabaseReply::Fence { term, seq, .. }) if *term == leader.term => {
                if planted == Some(Planted::UnknownIsFailure) {
                    leader.seq = *seq;
                    return self.begin_transaction(id, batch);
                }
                if *seq == leader.seq + 1 {
                    self.seen.insert("an unheard commit was durable".to_owned());
                    self.on_durable(id, batch);
                } else if leader.tries < COMMIT_TRIES {
                    self.begin_transaction(id, batch);
                } else {
                    self.lose_term(id);
                }
            }
            None if time < since + SETTLE_MAX => self.settle(id, batch, since),
            _ => self.lose_term(id),
        }
    }

    fn on_durable(&mut self, id: ProcessId, batch: Option<Batch>) {
        let Some(leader) = self.leader(id) else { return };
        leader.seq += 1;
        self.begin_release(id, batch);
    }

    fn lose_term(&mut self, id: ProcessId) {
        self.processes.get_mut(&id).unwrap().candidate.on_commit_failed();
        self.carry_election(id);
    }

    fn begin_release(&mut self, id: ProcessId, batch: Option<Batch>) {
        let effects = batch.map_or_else(Vec::new, |batch| batch.release().1);
        let early = self.planted.and_then(Planted::mutation);
        let left = effects.into_iter().filter(|effect| !is_early(early, effect)).collect();
        let Some(leader) = self.leader(id) else { return };
        leader.phase = Phase::Releasing(left);
        self.at(1, Event::Release(id));
    }

    /// Looks whether it still may; what it sends leaves a moment later.
    pub(crate) fn on_release(&mut self, id: ProcessId) {
        if self.trips_here(id, "it crashes while it releases") || !self.may_act(id) {
            return;
        }
        let checked_at = self.masters[self.processes[&id].master].uptime(self.time);
        let Some(leader) = self.leader(id) else { return };
        let Phase::Releasing(effects) = &mut leader.phase else { return };
        match effects.pop_front() {
            None => self.after_decision(id),
            Some(effect) => self.at(1, Event::Send(id, checked_at, Box::new(effect))),
        }
    }

    pub(crate) fn on_send(&mut self, id: ProcessId, checked_at: u64, effect: Effect) {
        if self.trips_here(id, "it crashes before it sends") {
            return;
        }
        self.release(id, effect, Some(checked_at));
        self.at(1, Event::Release(id));
    }

    fn release(&mut self, id: ProcessId, effect: Effect, checked_at: Option<u64>) {
        let Some(process) = self.processes.get(&id) else { return };
        let (authority_until, Some(term)) =
            (process.authority_until, process.leader.as_ref().map(|leader| leader.term))
        else {
            return;
        };
        if let Some(checked_at) = checked_at {
            self.record(&Recorded::Sent { term, checked_at, authority_until });
        }
        let Some(leader) = self.leader(id) else { return };
        match effect {
            Effect::Send(session, message) => {
                let Some(connection) = leader.sessions.get(&session).copied() else { return };
                let is_last = matches!(message, Message::Refused(_) | Message::SpoolOld(_));
                self.send_to_executor(connection, ToExecutor::Message(term, message));
                if is_last && let Some(leader) = self.leader(id) {
                    leader.sessions.remove(&session);
                }
            }
            Effect::Answer(request, answer) => {
                let Some(caller) = leader.callers.remove(&request) else { return };
                self.answer(caller, answer);
            }
            Effect::Alarm(alarm) => self.trace(|| format!("alarm: {alarm:?}")),
        }
    }

    /// Something arrives at a master over a connection.
    pub(crate) fn on_arrived(&mut self, connection: ConnectionId, message: ToLeader) {
        let (id, session) = (self.network.get(connection).process, self.network.get(connection).session);
        let Some(process) = self.processes.get_mut(&id) else { return };
        let Some(leader) = process.leader.as_mut() else {
            let hint = process.candidate.seen.map(|key| key.master);
            if matches!(message, ToLeader::Hello(_)) {
                self.send_to_executor(connection, ToExecutor::NotLeader(hint));
            }
            return;
        };
        leader.heard.insert(connection, self.time);
        let is_greeting = matches!(message, ToLeader::Hello(_));
        let input = match (message, session) {
            (ToLeader::Hello(hello), _) => {
                let session = SessionId(connection);
                leader.sessions.insert(session, connection);
                self.network.set_session(connection, session);
                Input::ExecutorConnected(session, hello)
            }
            (ToLeader::Heartbeat { number, held }, Some(session)) => {
                Input::HeartbeatReceived { session, number, held, is_space_low: false, spool_facts: 0 }
            }
            (ToLeader::Report(attempt, report), Some(session)) => {
                Input::AttemptReported { session, attempt, report }
            }
            (ToLeader::Closed, Some(session)) => Input::ExecutorDisconnected(session),
            (ToLeader::Heartbeat { .. } | ToLeader::Report(..) | ToLeader::Closed, None) => return,
        };
        leader.inbox.push_back(input);
        if is_greeting {
            self.at(SILENCE_MAX, Event::Silent(connection));
        }
        self.nudge(id);
    }

    /// Ends a session over which nothing has come for too long.
    pub(crate) fn on_silent(&mut self, connection: ConnectionId) {
        if self.planted == Some(Planted::SilenceIgnored) {
            return;
        }
        let id = self.network.get(connection).process;
        let time = self.time;
        let Some(leader) = self.leader(id) else { return };
        let Some(heard) = leader.heard.get(&connection).copied() else { return };
        if time < heard + SILENCE_MAX {
            return self.at(heard + SILENCE_MAX - time, Event::Silent(connection));
        }
        leader.heard.remove(&connection);
        self.network.close(connection);
        self.at(1, Event::ToExecutor(connection, ToExecutor::Closed));
        self.on_arrived(connection, ToLeader::Closed);
    }

    /// Between two of its steps a leader may crash, or stand still.
    fn trips_here(&mut self, id: ProcessId, why: &str) -> bool {
        let (crashes, pauses) =
            (self.faults_now(self.plan.step_crashes), self.faults_now(self.plan.step_pauses));
        let roll = self.random.below(10_000);
        if roll < crashes {
            self.end_process(id, why);
            return true;
        }
        if roll < crashes + pauses {
            let until = self.time + self.random.between(SECOND, 40 * SECOND);
            self.trace(|| format!("process {id} stands still until {until} between two steps"));
            if let Some(process) = self.processes.get_mut(&id) {
                process.stands_until = until;
            }
        }
        false
    }
}

/// Planted faults of the shell: what leaves before it is durable.
const fn is_early(mutation: Option<Mutation>, effect: &Effect) -> bool {
    match mutation {
        Some(Mutation::StartsBeforeCommit) => matches!(effect, Effect::Send(_, Message::Start(_))),
        Some(Mutation::AcksBeforeCommit) => matches!(effect, Effect::Send(_, Message::Ack(_))),
        Some(Mutation::AnswersBeforeCommit) => matches!(effect, Effect::Answer(_, Answer::RunStarted { .. })),
        _ => false,
    }
}

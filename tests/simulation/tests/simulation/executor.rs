//! The program of an executor: the product's own ledger, over a spool that loses what was not synced, and a session that
//! is dialled like the product's. The processes belong to the machine, see `machine.rs`.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use millrace_checker::Event as Recorded;
use millrace_common::{
    id::{AttemptId, ExecutorName, SpoolId},
    term::Term,
};
use millrace_core::{Hello, Message, testing::Mutation};
use millrace_executor::ledger::{Action, Batch, Greeting, Heartbeat, Input, Ledger, Limits, Record};

use crate::{
    clock::micros,
    network::{ConnectionId, Host, ToExecutor, ToLeader},
    plan::SECOND,
    planted::Planted,
    wire,
    world::{Event, World},
};

/// How long the answer to a heartbeat, or to a greeting, may take to count.
pub(crate) const ANSWER_MAX: u64 = 5 * SECOND;
const HEARTBEAT: u64 = 3 * SECOND;
/// How long opening a connection may take.
const CONNECT_MAX: u64 = 3 * SECOND;
/// Batches on their way to the disk.
const BATCHES_MAX: usize = 4;
/// Pause after all masters were tried, at first and at most.
const PAUSE_MIN: u64 = 50_000;
const PAUSE_MAX: u64 = 5 * SECOND;
/// Masters in a row that may name another one as the leader.
const REFERRALS_MAX: u32 = 3;
/// Answered heartbeats in which a leader may be shown an end before it has taken it: more than are ever under way.
const SHOWN_MAX: u32 = 30;

/// What is on the disk.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) spool: SpoolId,
    records: Vec<Record>,
}

impl Disk {
    pub(crate) const fn new(spool: SpoolId) -> Self {
        Self { spool, records: Vec::new() }
    }
}

/// Where the session stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Session {
    /// Waiting, or opening a connection.
    Searching,
    /// Connected; greeted or about to.
    Opening(ConnectionId),
    Open(ConnectionId),
}

impl Session {
    pub(crate) const fn connection(self) -> Option<ConnectionId> {
        match self {
            Self::Searching => None,
            Self::Opening(connection) | Self::Open(connection) => Some(connection),
        }
    }
}

/// A batch on its way to the disk.
#[derive(Debug)]
struct Unsynced {
    records: Vec<Record>,
    /// What waits for it, and the terms of those that asked for that.
    batch: Option<(Batch, Vec<Term>)>,
}

/// A running program.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) ledger: Ledger,
    /// What is not on the disk yet.
    unsynced: VecDeque<Unsynced>,
    /// Terms of leaders that were obeyed in what the ledger has decided since it was last asked.
    obeying: Vec<Term>,
    syncs_at: u64,
    due_at: u64,
    /// Whether its decisions are being carried out: what happens meanwhile waits its turn.
    is_acting: bool,
    /// Whether what an earlier life left has been dealt with.
    pub(crate) is_ready: bool,
    pub(crate) session: Session,
    is_connecting: bool,
    /// The master that is tried in its turn, and the one that another said to lead.
    master: usize,
    told: Option<usize>,
    referrals: u32,
    tried: usize,
    pause: u64,
    /// Answered heartbeats of this session that showed the end of an attempt.
    shown: BTreeMap<AttemptId, u32>,
    ended: Vec<AttemptId>,
}

/// An executor.
#[derive(Debug)]
pub(crate) struct Executor {
    pub(crate) name: ExecutorName,
    pub(crate) slots: u32,
    pub(crate) boot: u32,
    pub(crate) disk: Disk,
    pub(crate) program: Option<Program>,
    /// Counts the starts of the program, so that what was meant for an earlier one is known.
    pub(crate) starts: u32,
    pub(crate) stands_until: u64,
    pub(crate) frozen_until: u64,
    pub(crate) is_out_of_order: bool,
    /// Whether its disk takes what is written and never says that it is there.
    pub(crate) hangs: bool,
}

impl Executor {
    pub(crate) fn new(number: usize, slots: u32) -> Self {
        Self {
            name: World::executor_name(number),
            slots,
            boot: 1,
            disk: Disk::new(wire::spool_id(number as u64 + 1)),
            program: None,
            starts: 0,
            stands_until: 0,
            frozen_until: 0,
            is_out_of_order: false,
            hangs: false,
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            slots: self.slots,
            answer_timeout: Duration::from_micros(ANSWER_MAX),
            stop_grace: Duration::from_secs(2),
        }
    }
}

impl World {
    pub(crate) fn start_program(&mut self, machine: usize) {
        let executor = &mut self.executors[machine];
        if executor.program.is_some() || executor.is_out_of_order {
            return;
        }
        executor.starts += 1;
        executor.stands_until = 0;
        let (spool, limits, records) =
            (executor.disk.spool, executor.limits(), executor.disk.records.clone());
        let kept = self.find_supervisor(machine);
        let ledger = Ledger::restore(spool, limits, records, &kept);
        let executor = &mut self.executors[machine];
        executor.program = Some(Program {
            ledger,
            unsynced: VecDeque::new(),
            obeying: Vec::new(),
            syncs_at: 0,
            due_at: u64::MAX,
            is_acting: false,
            is_ready: false,
            session: Session::Searching,
            is_connecting: false,
            master: self.random.index(self.masters.len()),
            told: None,
            referrals: 0,
            tried: 0,
            pause: PAUSE_MIN,
            shown: BTreeMap::new(),
            ended: Vec::new(),
        });
        let starts = self.executors[machine].starts;
        self.trace(|| format!("the program of x{machine} starts, {starts}"));
        let (executor, slots) = (self.executors[machine].name.clone(), self.executors[machine].slots);
        self.record(&Recorded::Offered { executor, spool, slots });
        self.at(HEARTBEAT, Event::Beat(machine, starts));
        self.take_over(machine);
        self.advance(machine);
    }

    pub(crate) fn program(&mut self, machine: usize, starts: u32) -> Option<&mut Program> {
        let executor = &mut self.executors[machine];
        if executor.starts == starts { executor.program.as_mut() } else { None }
    }

    // The session.

    pub(crate) fn on_dial(&mut self, machine: usize, starts: u32) {
        let Some(program) = self.program(machine, starts) else { return };
        if program.session != Session::Searching || program.is_connecting || !program.is_ready {
            return;
        }
        program.is_connecting = true;
        let master = program.told.unwrap_or(program.master);
        let (here, there) = (Host::Executor(machine), Host::Master(master));
        let is_cut =
            self.network.is_cut(here, there, self.time) || self.network.is_cut(there, here, self.time);
        let process = self.process_of(master).filter(|_| !is_cut);
        let connection = process.map(|process| self.network.open(machine, master, process));
        let wait = if is_cut { CONNECT_MAX } else { self.delay() };
        self.at(wait, Event::Connected(machine, starts, connection));
    }

    pub(crate) fn on_connected(&mut self, machine: usize, starts: u32, connection: Option<ConnectionId>) {
        let Some(program) = self.program(machine, starts) else { return };
        program.is_connecting = false;
        let Some(connection) = connection else { return self.search(machine, None) };
        program.session = Session::Opening(connection);
        self.give(machine, Input::Dialled);
        self.at(ANSWER_MAX, Event::Late(machine, starts, connection));
    }

    /// A greeting is not answered.
    pub(crate) fn on_late(&mut self, machine: usize, starts: u32, connection: ConnectionId) {
        if self
            .program(machine, starts)
            .is_some_and(|program| program.session == Session::Opening(connection))
        {
            self.close_session(machine, None);
        }
    }

    /// Turns to the one that is said to lead, or to the next master.
    fn search(&mut self, machine: usize, hint: Option<usize>) {
        let count = self.masters.len();
        let half = self.random.below(1_000);
        let starts = self.executors[machine].starts;
        let Some(program) = self.executors[machine].program.as_mut() else { return };
        if hint.is_some() && program.referrals < REFERRALS_MAX {
            (program.told, program.referrals) = (hint, program.referrals + 1);
            return self.at(100, Event::Dial(machine, starts));
        }
        (program.told, program.referrals) = (None, 0);
        program.tried += 1;
        program.master = (program.master + 1) % count;
        let wait = if program.tried.is_multiple_of(count) {
            let pause = program.pause;
            program.pause = (pause * 2).min(PAUSE_MAX);
            pause / 2 + pause * half / 2_000
        } else {
            100
        };
        self.at(wait, Event::Dial(machine, starts));
    }

    fn close_session(&mut self, machine: usize, hint: Option<usize>) {
        let Some(program) = self.executors[machine].program.as_mut() else { return };
        let Some(connection) = program.session.connection() else { return };
        program.session = Session::Searching;
        program.shown.clear();
        self.send_to_leader(connection, ToLeader::Closed);
        self.network.close(connection);
        self.search(machine, hint);
        self.give(machine, Input::Disconnected);
    }

    pub(crate) fn on_beat(&mut self, machine: usize, starts: u32) {
        let Some(program) = self.program(machine, starts) else { return };
        if matches!(program.session, Session::Open(_)) {
            self.give(machine, Input::HeartbeatDue);
        }
        self.at(HEARTBEAT, Event::Beat(machine, starts));
    }

    pub(crate) fn on_heard(&mut self, connection: ConnectionId, message: ToExecutor) {
        let machine = self.network.get(connection).executor;
        let Some(program) = self.executors[machine].program.as_mut() else { return };
        if program.session.connection() != Some(connection) {
            return;
        }
        let (term, message) = match message {
            ToExecutor::Message(_, Message::Refused(_)) | ToExecutor::Closed => {
                return self.close_session(machine, None);
            }
            ToExecutor::NotLeader(hint) => return self.close_session(machine, hint),
            ToExecutor::Message(term, message) => (term, message),
        };
        self.trace(|| format!("x{machine} hears from term {term}: {message:?}"));
        self.note_heard(machine, connection, &message);
        let spoken = term;
        let term = match self.planted {
            // Whatever speaks has the highest term.
            Some(Planted::Core(Mutation::TermsForgotten)) => {
                term.max(self.executors[machine].program.as_ref().unwrap().ledger_term())
            }
            _ => term,
        };
        let said = wire::from_leader(message);
        let now = self.clocks[machine].now(self.time);
        let Some(program) = self.executors[machine].program.as_mut() else { return };
        match program.ledger.handle(now, Input::FromLeader(term, said)) {
            Ok(()) => {
                program.obeying.push(spoken);
                self.advance(machine);
            }
            Err(_) => self.close_session(machine, None),
        }
    }

    /// Notes what the checker and the supervisor are to know of what a leader said.
    fn note_heard(&mut self, machine: usize, connection: ConnectionId, message: &Message) {
        let executor = self.executors[machine].name.clone();
        match message {
            Message::Start(start) => {
                let (spool, attempt) = (start.spool, start.attempt);
                self.record(&Recorded::Received { executor, spool, attempt });
            }
            Message::Ack(attempt) => self.record(&Recorded::Released { executor, attempt: *attempt }),
            _ => {}
        }
        let Some(program) = self.executors[machine].program.as_mut() else { return };
        match message {
            Message::Welcome(_) => {
                program.session = Session::Open(connection);
                (program.tried, program.referrals, program.pause) = (0, 0, PAUSE_MIN);
            }
            Message::HeartbeatAnswer(_) => program.count_shown(),
            _ => {}
        }
        if let Some(attempt) = program.neglected() {
            self.fail(format!("L1: x{machine} shows the end of {attempt} again and again"));
        }
    }

    // The ledger.

    /// Hands an input to the ledger that it cannot refuse.
    pub(crate) fn give(&mut self, machine: usize, input: Input) {
        let now = self.clocks[machine].now(self.time);
        let Some(program) = self.executors[machine].program.as_mut() else { return };
        program.ledger.handle(now, input).unwrap();
        self.advance(machine);
    }

    pub(crate) fn on_due(&mut self, machine: usize, starts: u32, at: u64) {
        let now = self.clocks[machine].now(self.time);
        let Some(program) = self.program(machine, starts).filter(|program| program.due_at == at) else {
            return;
        };
        program.due_at = u64::MAX;
        program.ledger.handle_timeout(now);
        self.advance(machine);
    }

    /// Gives what the ledger decided to the spool, or does it at once where nothing is to be written before it.
    pub(crate) fn advance(&mut self, machine: usize) {
        let is_hasty = self.planted == Some(Planted::SpoolNotSynced);
        loop {
            let starts = self.executors[machine].starts;
            let Some(program) = self.executors[machine].program.as_mut() else { return };
            if program.is_acting {
                return;
            }
            if program.unsynced.len() >= BATCHES_MAX {
                break;
            }
            let Some(batch) = program.ledger.take_batch() else { break };
            let terms = std::mem::take(&mut program.obeying);
            if program.unsynced.is_empty() && batch.records().is_empty() {
                self.carry_out(machine, batch, terms);
                continue;
            }
            let longest = self.plan.sync_max;
            let latency = self.random.pick(&[100, 5_000, longest]);
            let program = self.executors[machine].program.as_mut().unwrap();
            program.syncs_at = program.syncs_at.max(self.time + latency);
            let (at, records) = (program.syncs_at, batch.records().to_vec());
            let (waits, done) =
                if is_hasty { (None, Some((batch, terms))) } else { (Some((batch, terms)), None) };
            program.unsynced.push_back(Unsynced { records, batch: waits });
            self.at(at - self.time, Event::Synced(machine, starts));
            if let Some((batch, terms)) = done {
                self.carry_out(machine, batch, terms);
            }
        }
        self.arm_due(machine);
    }

    fn arm_due(&mut self, machine: usize) {
        let starts = self.executors[machine].starts;
        let Some(program) = self.executors[machine].program.as_mut() else { return };
        let Some(due) = program.ledger.poll_timeout() else { return };
        let at = self.clocks[machine].time_of(micros(due.since_boot())).max(self.time + 1);
        if at < program.due_at || program.due_at <= self.time {
            program.due_at = at;
            self.at(at - self.time, Event::Due(machine, starts, at));
        }
    }

    /// The oldest batch is on the disk.
    pub(crate) fn on_synced(&mut self, machine: usize, starts: u32) {
        if self.executors[machine].hangs {
            return;
        }
        let unsynced = self.program(machine, starts).and_then(|program| program.unsynced.pop_front());
        let Some(Unsynced { records, batch }) = unsynced else { return };
        self.executors[machine].disk.records.extend(records);
        let is_rewritten = self.random.happens(3);
        let executor = &mut self.executors[machine];
        if let Some(program) = executor.program.as_ref().filter(|at| is_rewritten && at.unsynced.is_empty()) {
            // The journal is written anew, with all that the ledger holds; what it has decided since is in it too.
            if !program.ledger.has_batch() {
                executor.disk.records = program.ledger.snapshot();
            }
        }
        if let Some((batch, terms)) = batch {
            self.carry_out(machine, batch, terms);
        }
        self.advance(machine);
    }

    fn carry_out(&mut self, machine: usize, batch: Batch, terms: Vec<Term>) {
        for term in terms {
            let executor = &self.executors[machine];
            let (executor, spool) = (executor.name.clone(), executor.disk.spool);
            self.record(&Recorded::Obeyed { executor, spool, term });
        }
        self.set_acting(machine, true);
        let now = self.clocks[machine].now(self.time);
        let program = self.executors[machine].program.as_mut();
        let actions = program.map(|program| program.ledger.release(now, batch)).unwrap_or_default();
        for action in actions {
            self.act(machine, action);
        }
        self.set_acting(machine, false);
    }

    fn set_acting(&mut self, machine: usize, is_acting: bool) {
        if let Some(program) = self.executors[machine].program.as_mut() {
            program.is_acting = is_acting;
        }
    }

    fn act(&mut self, machine: usize, action: Action) {
        let connection = self.executors[machine].program.as_ref().and_then(|at| at.session.connection());
        match action {
            Action::Spawn(start) => self.spawn(machine, &start),
            Action::Kill { attempt, grace, by } => self.kill(machine, attempt, micros(grace), by),
            Action::Settle(attempt) => self.settle_process(machine, attempt),
            Action::Extend(contact) => self.extend_contact(machine, micros(contact.since_boot())),
            Action::Purge(remains) => {
                let mut remains: Vec<AttemptId> = remains.iter().map(|at| at.attempt).collect();
                // The ledger names them in no order.
                remains.sort();
                self.purge(machine, remains);
            }
            Action::Report(attempt, report) => {
                let session = self.executors[machine].program.as_ref().map(|program| program.session);
                let is_lost = self.random.happens(self.faults_now(self.plan.report_loss_percent));
                if let Some(Session::Open(connection)) = session.filter(|_| !is_lost) {
                    self.send_to_leader(connection, ToLeader::Report(attempt, wire::report(report)));
                }
            }
            Action::Greet(greeting) => {
                let Some(connection) = connection else { return };
                let hello = self.hello(machine, greeting);
                self.send_to_leader(connection, ToLeader::Hello(Box::new(hello)));
            }
            Action::Heartbeat(Heartbeat { number, held, .. }) => {
                let program = self.executors[machine].program.as_mut().unwrap();
                let Session::Open(connection) = program.session else { return };
                let ended = held.iter().filter(|held| held.state.is_final()).map(|held| held.attempt);
                program.ended = ended.collect();
                let held = held.iter().map(|held| (held.attempt, held.state)).collect();
                self.send_to_leader(connection, ToLeader::Heartbeat { number, held });
            }
            // Nobody looks at histories here: the checker sees what happens.
            Action::Discard(_) | Action::TellHistory(_) => {}
            Action::SetAside(reason) => panic!("no disk here is put back to what it was: {reason}"),
            Action::CloseSession => self.close_session(machine, None),
        }
    }

    fn hello(&self, machine: usize, greeting: Greeting) -> Hello {
        let executor = &self.executors[machine];
        let wall = self.clocks[machine].wall(self.time);
        Hello {
            executor: executor.name.clone(),
            slots: executor.slots,
            labels: BTreeMap::new(),
            kinds: vec!["shell".to_owned()],
            spool: executor.disk.spool,
            boot: format!("boot-{}", executor.boot).into(),
            machine: Some(format!("machine-{machine}").into()),
            is_clean: greeting.is_clean,
            is_space_low: greeting.is_space_low,
            version: "model".into(),
            // Nobody takes another's name here.
            process: None,
            spool_facts: greeting.spool_facts,
            held: greeting.held.into_iter().map(|held| wire::held(held, wall)).collect(),
        }
    }

    // Its end.

    pub(crate) fn crash_program(&mut self, machine: usize) {
        let Some(program) = self.executors[machine].program.take() else { return };
        self.trace(|| format!("the program of x{machine} crashes"));
        // A part of what it had not synced is on the disk nevertheless.
        let unsynced: Vec<Record> =
            program.unsynced.into_iter().flat_map(|unsynced| unsynced.records).collect();
        let kept = self.random.index(unsynced.len() + 1);
        self.executors[machine].disk.records.extend(unsynced.into_iter().take(kept));
        for connection in self.network.of_executor(machine) {
            let delay = self.notice();
            self.at(delay, Event::ToLeader(connection, ToLeader::Closed));
            self.network.close(connection);
        }
        if self.plan.dies_whole {
            self.end_supervisor(machine);
        }
        let wait = self.random.pick(&[SECOND, 5 * SECOND, 90 * SECOND]);
        self.at(wait, Event::Start(machine));
    }
}

impl Program {
    fn count_shown(&mut self) {
        let ended = std::mem::take(&mut self.ended);
        self.shown.retain(|attempt, _| ended.contains(attempt));
        for attempt in ended {
            *self.shown.entry(attempt).or_default() += 1;
        }
    }

    /// Returns an attempt whose end a leader was shown again and again and does not take.
    fn neglected(&self) -> Option<AttemptId> {
        self.shown.iter().find(|(_, count)| **count > SHOWN_MAX).map(|(attempt, _)| *attempt)
    }

    /// Returns the highest term that was obeyed.
    fn ledger_term(&self) -> Term {
        self.ledger.snapshot().iter().find_map(term_of).unwrap_or_default()
    }
}

const fn term_of(record: &Record) -> Option<Term> {
    match record {
        Record::TermSeen(term) => Some(*term),
        _ => None,
    }
}

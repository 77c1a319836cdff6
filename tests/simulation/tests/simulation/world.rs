//! Virtual time, and everything that happens in it.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
};

use millrace_checker::{Checker, Event as Recorded, Rules, Violation, Waiver};
use millrace_common::id::{AttemptId, ExecutorName, RunId};
use millrace_core::{Answer, Effect, Limits};

use crate::{
    clients::Client,
    clock::Clock,
    database::{Database, DatabaseCall, LineId, Recorded as Committed},
    election::Told,
    etcd::{Etcd, EtcdCall, LeaseId},
    executor::Executor,
    history::fact_of,
    machine::Processes,
    master::Process,
    network::{self, ConnectionId, Host, Network, ProcessId, ToExecutor, ToLeader},
    plan::{Fault, MASTERS, Mode, POOL, Plan, SECOND},
    planted::Planted,
    random::Random,
};

/// What happens at a moment.
#[derive(Debug)]
pub(crate) enum Event {
    // Processes of masters.
    Boot(usize),
    Tick(ProcessId, u64),
    Watched(ProcessId),
    PeerGone(ProcessId, LeaseId),
    Overdue(ProcessId, u64),
    Answered(ProcessId, u64, Told),
    Wake(ProcessId, u64),
    Commit(ProcessId),
    Release(ProcessId),
    Send(ProcessId, u64, Box<Effect>),
    ToLeader(ConnectionId, ToLeader),
    Silent(ConnectionId),
    Requested(ProcessId, usize),
    // What they call.
    AtEtcd(ProcessId, usize, u64, EtcdCall),
    LeaseEnds,
    AtDatabase(LineId, u64, DatabaseCall),
    LockedOut(LineId, u64),
    IdleEnds(LineId, u64),
    LineClosed(LineId),
    // Programs of executors; the number tells one start of it from the next.
    Start(usize),
    Dial(usize, u32),
    Connected(usize, u32, Option<ConnectionId>),
    Late(usize, u32, ConnectionId),
    Beat(usize, u32),
    Due(usize, u32, u64),
    ToExecutor(ConnectionId, ToExecutor),
    Synced(usize, u32),
    Purged(usize, u32, u64),
    // Their machines.
    Exits(AttemptId),
    Dies(AttemptId),
    Vanishes(AttemptId),
    Guard(usize, u64),
    // Clients.
    Ask(usize),
    Told(usize, Answer),
    // Faults: one of the plan comes again.
    Again(Fault),
    Strike(Fault),
    CutOff,
    Heal,
    Tend,
    /// Something that stood still goes on.
    Resume,
}

/// How long after the last fault everything accepted must have ended. The longest chain of a plan takes some minutes; a
/// place in a queue of a workflow that missed an hour of its schedule takes several of those.
pub(crate) const SETTLE_MAX: u64 = 4 * 3_600 * SECOND;
/// How long a healthy cluster may take to answer: 30 s for a leader that commits, the rest for a client to find it.
const ANSWERED_WITHIN: u64 = 45 * SECOND;
/// Events of one seed; a few times what the longest takes.
const EVENTS_MAX: u64 = 2_500_000;
/// Lines of the trace that are kept.
const TRACE_MAX: usize = 200_000;

/// A cluster, its clients, and what befalls them.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) random: Random,
    pub(crate) planted: Option<Planted>,
    pub(crate) limits: Limits,
    pub(crate) time: u64,
    queue: BTreeMap<(u64, u64), Event>,
    called: u64,
    events: u64,
    /// What happened to somebody that stands still, in order.
    parked: Vec<Event>,
    resumes: BTreeSet<u64>,
    pub(crate) is_healed: bool,
    /// Runs that have to end.
    pub(crate) accepted: Vec<RunId>,
    pub(crate) checker: Checker,
    pub(crate) seen: BTreeSet<String>,
    problem: Option<String>,
    pub(crate) etcd: Etcd,
    pub(crate) lease_ends_at: u64,
    pub(crate) database: Database,
    /// Clocks of the masters' machines.
    pub(crate) masters: Vec<Clock>,
    /// Processes of masters that run.
    pub(crate) processes: BTreeMap<ProcessId, Process>,
    pub(crate) started: u64,
    pub(crate) calls: u64,
    /// Masters that are not to come back, and those that no watch reaches.
    pub(crate) out_of_order: BTreeSet<usize>,
    pub(crate) deaf: BTreeSet<usize>,
    pub(crate) network: Network,
    pub(crate) executors: Vec<Executor>,
    /// Clocks of the executors' machines.
    pub(crate) clocks: Vec<Clock>,
    pub(crate) alive: Processes,
    pub(crate) spools: u64,
    pub(crate) clients: Vec<Client>,
    /// The master and the executor that are healthy to the end, in liveness mode.
    pub(crate) core: Option<(usize, usize)>,
    lines: Option<Vec<String>>,
}

/// What became of a seed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct History {
    /// The first thing that was wrong.
    pub(crate) violation: Option<String>,
    /// Two runs of a seed agree in these, or they are not the same.
    pub(crate) digest: (u64, u64, u64, usize),
    pub(crate) lines: Vec<String>,
    /// What happened at all.
    pub(crate) seen: BTreeSet<String>,
}

impl World {
    pub(crate) fn new(plan: Plan, planted: Option<Planted>, is_traced: bool) -> Self {
        let mut random = Random::new(plan.seed);
        let mut clocks: Vec<Clock> =
            plan.rates.iter().map(|rate| Clock::new(*rate, random.below(90) * 86_400 * SECOND)).collect();
        let masters = clocks.drain(..usize::try_from(MASTERS).unwrap()).collect();
        let executors = (0..).zip(&plan.slots).map(|(number, slots)| Executor::new(number, *slots)).collect();
        let pools = [("shared".parse().unwrap(), POOL)];
        let rules = Rules {
            pools: pools.clone().into(),
            answers_within: ANSWERED_WITHIN,
            ends_within: SETTLE_MAX,
            waived: plan.leases_lie.then_some(Waiver::LeasesLie).into_iter().collect(),
            is_sparse: false,
        };
        Self {
            random,
            planted,
            limits: Limits {
                pools: pools.into(),
                runs_per_workflow_max: 112,
                losses_max: plan.bounds.0,
                rejections_max: plan.bounds.1,
                keys_remembered_max: plan.bounds.2,
                ..Limits::default()
            },
            time: 0,
            queue: BTreeMap::new(),
            called: 0,
            events: 0,
            parked: Vec::new(),
            resumes: BTreeSet::new(),
            is_healed: false,
            accepted: Vec::new(),
            checker: Checker::new(rules),
            seen: BTreeSet::new(),
            problem: None,
            etcd: Etcd::new(plan.leases_lie),
            lease_ends_at: 0,
            database: Database::new(planted),
            masters,
            processes: BTreeMap::new(),
            started: 0,
            calls: 0,
            out_of_order: BTreeSet::new(),
            deaf: BTreeSet::new(),
            network: Network::default(),
            executors,
            clocks,
            alive: Processes::default(),
            spools: 100,
            clients: Vec::new(),
            core: None,
            lines: is_traced.then(Vec::new),
            plan,
        }
    }

    /// Lets everything happen until all that was accepted has ended, or something is wrong.
    pub(crate) fn run(mut self) -> History {
        self.begin();
        while self.violation().is_none() && !self.is_over() {
            // A panic of the core is a violation as any other.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.step())) {
                let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
                self.fail(format!("panic: {}", text.unwrap_or_default()));
            }
        }
        if self.violation().is_none() {
            self.checker.finish(self.time);
        }
        let violation = self.violation();
        for process in self.processes.values().filter_map(|process| process.leader.as_ref()) {
            self.seen.extend(process.refusals());
        }
        let digest = (self.time, self.events, self.random.next(), self.checker.runs().len());
        History { violation, digest, lines: self.lines.unwrap_or_default(), seen: self.seen }
    }

    fn begin(&mut self) {
        let plan = format!("{:#?}", self.plan);
        self.trace(|| plan);
        for machine in 0..self.executors.len() {
            let wait = self.random.below(3 * SECOND);
            self.at(wait, Event::Start(machine));
        }
        for master in 0..self.masters.len() {
            let wait = self.random.below(2 * SECOND);
            self.at(wait, Event::Boot(master));
        }
        self.call_clients();
        for (fault, _) in self.plan.faults.clone() {
            self.await_fault(fault);
        }
        self.at(self.plan.fault_time, Event::Heal);
    }

    fn step(&mut self) {
        let Some(((time, _), event)) = self.queue.pop_first() else {
            return self.fail("L1: nothing will happen any more".to_owned());
        };
        self.time = time;
        self.events += 1;
        if self.events > EVENTS_MAX {
            return self.fail(format!("L1: the world does not come to rest: {event:?}"));
        }
        match self.stands_until(&event).filter(|until| *until > time) {
            // For good.
            Some(u64::MAX) => {}
            Some(until) => self.park(event, until),
            None => self.happen(event),
        }
    }

    fn park(&mut self, event: Event, until: u64) {
        self.parked.push(event);
        if self.resumes.insert(until) {
            self.at(until - self.time, Event::Resume);
        }
    }

    /// Lets happen what was put off for those that go on now.
    pub(crate) fn resume(&mut self) {
        for event in std::mem::take(&mut self.parked) {
            match self.stands_until(&event).filter(|until| *until > self.time) {
                Some(u64::MAX) => {}
                Some(until) => self.park(event, until),
                None => self.at(0, event),
            }
        }
    }

    /// Returns until when what an event is for stands still.
    fn stands_until(&self, event: &Event) -> Option<u64> {
        match event {
            Event::Tick(id, _)
            | Event::Watched(id)
            | Event::PeerGone(id, _)
            | Event::Overdue(id, _)
            | Event::Answered(id, ..)
            | Event::Wake(id, _)
            | Event::Commit(id)
            | Event::Release(id)
            | Event::Send(id, ..)
            | Event::Requested(id, _) => self.processes.get(id).map(|process| process.stands_until),
            Event::ToLeader(connection, _) | Event::Silent(connection) => {
                let process = self.network.get(*connection).process;
                self.processes.get(&process).map(|process| process.stands_until)
            }
            Event::Dial(machine, _)
            | Event::Connected(machine, ..)
            | Event::Late(machine, ..)
            | Event::Beat(machine, _)
            | Event::Due(machine, ..)
            | Event::Synced(machine, _)
            | Event::Purged(machine, ..) => {
                let executor = &self.executors[*machine];
                Some(executor.stands_until.max(executor.frozen_until))
            }
            Event::ToExecutor(connection, _) => {
                let executor = &self.executors[self.network.get(*connection).executor];
                Some(executor.stands_until.max(executor.frozen_until))
            }
            Event::Start(machine) | Event::Guard(machine, _) => Some(self.executors[*machine].frozen_until),
            Event::Exits(attempt) | Event::Dies(attempt) | Event::Vanishes(attempt) => {
                self.alive.machine_of(*attempt).map(|machine| self.executors[machine].frozen_until)
            }
            _ => None,
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Boot(master) => self.on_boot(master),
            Event::Tick(id, at) => self.on_tick(id, at),
            Event::Watched(id) => self.on_watched(id),
            Event::PeerGone(id, lease) => self.on_peer_gone(id, lease),
            Event::Overdue(id, call) => self.on_overdue(id, call),
            Event::Answered(id, call, told) => self.on_answered_call(id, call, told),
            Event::Wake(id, at) => self.on_wake(id, at),
            Event::Commit(id) => self.on_commit(id),
            Event::Release(id) => self.on_release(id),
            Event::Send(id, checked_at, effect) => self.on_send(id, checked_at, *effect),
            Event::ToLeader(connection, message) => self.on_arrived(connection, message),
            Event::Silent(connection) => self.on_silent(connection),
            Event::Requested(id, client) => self.on_requested(id, client),
            Event::AtEtcd(id, master, call, asked) => self.on_at_etcd(id, master, call, asked),
            Event::LeaseEnds => self.with_etcd(Etcd::end_leases),
            Event::AtDatabase(line, call, asked) => self.on_at_database(line, call, asked),
            Event::LockedOut(line, call) => self.on_locked_out(line, call),
            Event::IdleEnds(line, transaction) => self.on_idle_ends(line, transaction),
            Event::LineClosed(line) => self.on_line_closed(line),
            Event::Start(machine) => self.start_program(machine),
            Event::Dial(machine, starts) => self.on_dial(machine, starts),
            Event::Connected(machine, starts, connection) => self.on_connected(machine, starts, connection),
            Event::Late(machine, starts, connection) => self.on_late(machine, starts, connection),
            Event::Beat(machine, starts) => self.on_beat(machine, starts),
            Event::Due(machine, starts, at) => self.on_due(machine, starts, at),
            Event::ToExecutor(connection, message) => self.on_heard(connection, message),
            Event::Synced(machine, starts) => self.on_synced(machine, starts),
            Event::Purged(machine, starts, until) => self.on_purged(machine, starts, until),
            Event::Exits(attempt) => self.on_exits(attempt),
            Event::Dies(attempt) => self.on_dies(attempt),
            Event::Vanishes(attempt) => self.on_vanishes(attempt),
            Event::Guard(machine, at) => self.on_guard(machine, at),
            Event::Ask(client) => self.on_ask(client),
            Event::Told(client, answer) => self.on_told(client, answer),
            Event::Again(fault) => {
                self.await_fault(fault);
                self.on_strike(fault);
            }
            Event::Strike(fault) => self.on_strike(fault),
            Event::CutOff => self.cut_off(),
            Event::Heal => self.heal(),
            Event::Tend => self.tend(),
            Event::Resume => self.resume(),
        }
    }

    /// Lets something happen after a while.
    pub(crate) fn at(&mut self, after: u64, event: Event) {
        // Events of one moment happen in the order in which they were called for.
        self.called += 1;
        self.queue.insert((self.time.saturating_add(after), self.called), event);
    }

    pub(crate) fn trace(&mut self, line: impl FnOnce() -> String) {
        let time = self.time;
        if let Some(lines) = self.lines.as_mut().filter(|lines| lines.len() < TRACE_MAX) {
            let (seconds, micros) = (time / SECOND, time % SECOND);
            lines.push(format!("{seconds:5}.{micros:06} {}", line()));
        }
    }

    // What was wrong.

    pub(crate) fn fail(&mut self, what: String) {
        self.problem.get_or_insert(what);
    }

    fn violation(&self) -> Option<String> {
        self.checker.violations().first().map(Violation::to_string).or_else(|| self.problem.clone())
    }

    pub(crate) fn record(&mut self, event: &Recorded) {
        self.checker.record(self.time, event);
    }

    /// Hands over to the checker what the database has committed.
    pub(crate) fn record_committed(&mut self) {
        for committed in std::mem::take(&mut self.database.recorded) {
            match committed {
                Committed::Claim(term, process) => {
                    self.trace(|| format!("process {process} has claimed term {term}"));
                    self.record(&Recorded::Claimed { term, holder: format!("process {process}") });
                }
                Committed::Transaction(term, seq, changes) => {
                    self.trace(|| format!("term {term} commits transaction {seq}: {changes:#?}"));
                    self.seen.extend(changes.iter().filter_map(crate::history::label));
                    let facts = changes.iter().map(fact_of).collect();
                    self.record(&Recorded::Committed { term, seq, facts });
                }
            }
        }
        if let Some(problem) = self.database.problem.take() {
            self.fail(problem);
        }
    }

    // The network.

    pub(crate) fn uptime(&self, machine: usize) -> u64 {
        self.clocks[machine].uptime(self.time)
    }

    pub(crate) fn delay(&mut self) -> u64 {
        if self.is_healed {
            self.random.between(100, 20_000)
        } else {
            network::delay(&self.plan, &mut self.random)
        }
    }

    pub(crate) fn notice(&mut self) -> u64 {
        if self.is_healed { self.random.between(0, SECOND) } else { network::notice(&mut self.random) }
    }

    pub(crate) fn send_to_leader(&mut self, connection: ConnectionId, message: ToLeader) {
        let delay = self.delay();
        if let Some(at) = self.network.arrival_at_leader(connection, self.time, delay) {
            self.trace(|| format!("connection {connection} carries {message:?}"));
            self.at(at - self.time, Event::ToLeader(connection, message));
        }
    }

    pub(crate) fn send_to_executor(&mut self, connection: ConnectionId, message: ToExecutor) {
        let delay = self.delay();
        if let Some(at) = self.network.arrival_at_executor(connection, self.time, delay) {
            self.at(at - self.time, Event::ToExecutor(connection, message));
        }
    }

    pub(crate) fn break_connection(&mut self, connection: ConnectionId) {
        self.network.close(connection);
        let (one, other) = (self.notice(), self.notice());
        self.at(one, Event::ToLeader(connection, ToLeader::Closed));
        self.at(other, Event::ToExecutor(connection, ToExecutor::Closed));
    }

    pub(crate) fn is_out_of_order(&self, master: usize) -> bool {
        self.out_of_order.contains(&master)
    }

    pub(crate) fn is_deaf(&self, master: usize) -> bool {
        self.deaf.contains(&master)
    }

    pub(crate) fn breaks_here(&mut self) -> bool {
        let rate = self.faults_now(self.plan.commit_faults);
        self.random.below(1_000) < rate
    }

    /// Returns the rate of a fault, which is none once faults have stopped.
    pub(crate) const fn faults_now(&self, rate: u64) -> u64 {
        if self.is_healed { 0 } else { rate }
    }

    pub(crate) fn hosts(&self) -> Vec<Host> {
        let masters = (0..self.masters.len()).map(Host::Master);
        let executors = (0..self.executors.len()).map(Host::Executor);
        masters.chain(executors).chain([Host::Etcd, Host::Database]).collect()
    }

    pub(crate) fn executor_name(machine: usize) -> ExecutorName {
        format!("x{machine}").parse().unwrap()
    }

    pub(crate) const fn is_lively(&self) -> bool {
        matches!(self.plan.mode, Mode::Liveness)
    }
}

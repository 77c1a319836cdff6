//! Virtual time, everything that happens in it, and the faults.

use std::{
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
};

use millrace_common::id::{AttemptId, ExecutorName, RunId};
use millrace_core::{Answer, Limits, testing::Mutation};

use crate::{
    checker::Checker,
    clients::Client,
    clock::Clock,
    executor::{Disk, Executor},
    leader::Leader,
    machine::{Process, spool_id},
    network::{self, ConnectionId, Network, ToExecutor, ToLeader},
    plan::{Fault, MASTERS, POOL, Plan, Random, SECOND},
    store::Store,
};

/// What happens at a moment.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Wake(u64, u64),
    Commit(u64),
    Release(u64),
    Elect,
    ToLeader(ConnectionId, ToLeader),
    ToExecutor(ConnectionId, ToExecutor),
    Dial(usize, u32),
    Beat(usize, u32),
    Synced(usize, u32),
    Restart(usize),
    Exits(AttemptId),
    Dies(AttemptId),
    TimesOut(usize, u32, AttemptId),
    Guard(usize, u64),
    Ask(usize),
    Requested(u64, usize),
    Answered(usize, Answer),
    /// A fault of the plan, which comes again.
    Due(Fault),
    Strike(Fault),
    CutOff,
    Heal,
    Tend,
}

/// How long after the last fault everything accepted must have ended. The longest chain of a plan takes some minutes; a
/// place in a queue of a workflow that missed an hour of its schedule takes several of those.
const SETTLE_MAX: u64 = 4 * 3_600 * SECOND;
/// How long clients may take to hear the answers that they wait for.
const ANSWERS_MAX: u64 = 60 * SECOND;
/// Events of one seed; a few times what the longest takes.
const EVENTS_MAX: u64 = 2_000_000;
/// Lines of the trace that are kept.
const TRACE_MAX: usize = 100_000;

/// A cluster, its clients, and what befalls them.
pub(crate) struct World {
    pub(crate) plan: Plan,
    pub(crate) random: Random,
    pub(crate) mutation: Option<Mutation>,
    pub(crate) limits: Limits,
    pub(crate) time: u64,
    queue: BTreeMap<(u64, u64), Event>,
    called: u64,
    events: u64,
    pub(crate) is_healed: bool,
    /// Runs that have to end.
    accepted: Vec<RunId>,
    pub(crate) checker: Checker,
    pub(crate) store: Store,
    pub(crate) masters: Vec<Clock>,
    /// Processes that lead or believe so, by term.
    pub(crate) leaders: BTreeMap<u64, Leader>,
    pub(crate) network: Network,
    pub(crate) executors: Vec<Executor>,
    /// The clocks of the executors' machines.
    pub(crate) clocks: Vec<Clock>,
    pub(crate) processes: BTreeMap<AttemptId, Process>,
    pub(crate) guards: BTreeMap<usize, u64>,
    pub(crate) syncs_at: BTreeMap<usize, u64>,
    pub(crate) spools: u64,
    pub(crate) clients: Vec<Client>,
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
    pub(crate) fn new(plan: Plan, mutation: Option<Mutation>, is_traced: bool) -> Self {
        let mut random = Random::new(plan.seed);
        let name = |number: usize| -> ExecutorName { format!("x{number}").parse().unwrap() };
        let slots = plan.slots.iter().enumerate().map(|(number, slots)| (name(number), *slots)).collect();
        let mut clocks: Vec<Clock> =
            plan.rates.iter().map(|rate| Clock::new(*rate, random.below(90) * 86_400 * SECOND)).collect();
        let masters = clocks.drain(..usize::try_from(MASTERS).unwrap()).collect();
        let executors = (0..).zip(&plan.slots).map(|(number, slots)| Executor {
            name: name(number),
            slots: *slots,
            machine: format!("machine-{number}").into(),
            boot: 1,
            disk: Disk::new(spool_id(number as u64 + 1), true),
            program: None,
            starts: 0,
            is_terse: plan.is_terse,
            forgets_terms: mutation == Some(Mutation::TermsForgotten),
        });
        Self {
            random,
            mutation,
            limits: Limits {
                pools: [("shared".parse().unwrap(), POOL)].into(),
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
            is_healed: false,
            accepted: Vec::new(),
            checker: Checker::new(slots),
            store: Store { forgets_fence: mutation == Some(Mutation::FenceForgotten), ..Store::default() },
            masters,
            leaders: BTreeMap::new(),
            network: Network::default(),
            executors: executors.collect(),
            clocks,
            processes: BTreeMap::new(),
            guards: BTreeMap::new(),
            syncs_at: BTreeMap::new(),
            spools: 100,
            clients: Vec::new(),
            lines: is_traced.then(Vec::new),
            plan,
        }
    }

    /// Lets everything happen until all that was accepted has ended, or something is wrong.
    pub(crate) fn run(mut self) -> History {
        self.begin();
        while self.checker.violation.is_none() && !self.is_over() {
            // A panic of the core is a violation as any other.
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| self.step())) {
                let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
                let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
                self.checker.fail(format!("panic: {}", text.unwrap_or_default()));
            }
        }
        for leader in self.leaders.keys().copied().collect::<Vec<_>>() {
            self.end_leader(leader, "everything has ended");
        }
        let digest = (self.time, self.events, self.random.next(), self.checker.runs.len());
        let Checker { violation, seen, .. } = self.checker;
        History { violation, digest, lines: self.lines.unwrap_or_default(), seen }
    }

    fn begin(&mut self) {
        self.trace_plan();
        for machine in 0..self.executors.len() {
            let wait = self.random.below(3 * SECOND);
            self.at(wait, Event::Restart(machine));
        }
        self.call_election();
        self.call_clients();
        for (fault, _) in self.plan.faults.clone() {
            self.await_fault(fault);
        }
        self.at(self.plan.fault_time, Event::Heal);
    }

    fn step(&mut self) {
        let Some(((time, _), event)) = self.queue.pop_first() else {
            return self.checker.fail("L1: nothing will happen any more".to_owned());
        };
        self.time = time;
        self.events += 1;
        if self.events > EVENTS_MAX {
            return self.checker.fail(format!("the world does not come to rest: {event:?}"));
        }
        self.happen(event);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Wake(leader, at) => self.on_wake(leader, at),
            Event::Commit(leader) => self.on_commit(leader),
            Event::Release(leader) => self.on_release(leader),
            Event::Elect => self.on_elect(),
            Event::ToLeader(connection, message) => self.on_arrived(connection, message),
            Event::ToExecutor(connection, message) => self.on_heard(connection, message),
            Event::Dial(machine, starts) => self.on_dial(machine, starts),
            Event::Beat(machine, starts) => self.on_beat(machine, starts),
            Event::Synced(machine, starts) => self.on_synced(machine, starts),
            Event::Restart(machine) => self.start_program(machine),
            Event::Exits(attempt) => self.on_exits(attempt),
            Event::Dies(attempt) => self.on_dies(attempt),
            Event::TimesOut(machine, starts, attempt) => self.on_timed_out(machine, starts, attempt),
            Event::Guard(machine, at) => self.on_guard(machine, at),
            Event::Ask(client) => self.on_ask(client),
            Event::Requested(leader, client) => self.on_requested(leader, client),
            Event::Answered(client, answer) => self.on_answered(client, answer),
            Event::Due(fault) => {
                self.await_fault(fault);
                self.on_strike(fault);
            }
            Event::Strike(fault) => self.on_strike(fault),
            Event::CutOff => self.cut_off(),
            Event::Heal => self.heal(),
            Event::Tend => self.tend(),
        }
    }

    /// Lets something happen after a while.
    pub(crate) fn at(&mut self, after: u64, event: Event) {
        // Events of one moment happen in the order in which they were called for.
        self.called += 1;
        self.queue.insert((self.time + after, self.called), event);
    }

    pub(crate) fn trace(&mut self, line: impl FnOnce() -> String) {
        let time = self.time;
        if let Some(lines) = self.lines.as_mut().filter(|lines| lines.len() < TRACE_MAX) {
            let (seconds, micros) = (time / SECOND, time % SECOND);
            lines.push(format!("{seconds:5}.{micros:06} {}", line()));
        }
    }

    fn trace_plan(&mut self) {
        let plan = format!("{:#?}", self.plan);
        self.trace(|| plan);
    }

    pub(crate) fn uptime(&self, machine: usize) -> u64 {
        self.clocks[machine].uptime(self.time)
    }

    // The network.

    fn delay(&mut self) -> u64 {
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

    fn break_connection(&mut self, connection: ConnectionId) {
        self.network.cut(connection);
        let (one, other) = (self.notice(), self.notice());
        self.at(one, Event::ToLeader(connection, ToLeader::Closed));
        self.at(other, Event::ToExecutor(connection, ToExecutor::Closed));
    }

    // Leadership.

    pub(crate) fn call_election(&mut self) {
        let wait = self.random.between(SECOND / 10, 8 * SECOND);
        self.at(wait, Event::Elect);
    }

    fn on_elect(&mut self) {
        if self.leaders.is_empty() {
            let master = usize::try_from(self.random.below(MASTERS)).unwrap();
            self.take_over(master);
        }
    }

    /// Returns a leader that somebody finds: the newest, or in some of a hundred cases any that believes so.
    pub(crate) fn leader_to_ask(&mut self, any_percent: u64) -> Option<u64> {
        let leaders: Vec<u64> = self.leaders.keys().copied().collect();
        let newest = leaders.last().copied()?;
        Some(if self.random.happens(any_percent) { self.random.pick(&leaders) } else { newest })
    }

    // Faults.

    /// Returns the rate of a fault, which is none once faults have stopped.
    pub(crate) const fn faults_now(&self, rate: u64) -> u64 {
        if self.is_healed { 0 } else { rate }
    }

    fn await_fault(&mut self, fault: Fault) {
        if self.is_healed {
            return;
        }
        let mean = self.plan.faults.iter().find(|(kind, _)| *kind == fault).map_or(SECOND, |(_, mean)| *mean);
        let wait = self.random.between(SECOND, 2 * mean);
        self.at(wait, Event::Due(fault));
    }

    fn on_strike(&mut self, fault: Fault) {
        if self.is_healed {
            return;
        }
        let machine = usize::try_from(self.random.below(self.executors.len() as u64)).unwrap();
        let newest = self.leaders.keys().next_back().copied();
        match fault {
            Fault::LeaderCrash => newest.into_iter().for_each(|leader| self.end_leader(leader, "it crashes")),
            Fault::LeaderPause => newest.into_iter().for_each(|leader| self.pause_leader(leader)),
            Fault::Takeover => self.depose(),
            Fault::ExecutorCrash => self.crash_program(machine),
            Fault::Reboot => self.boot(machine),
            Fault::DiskLoss => self.lose_disk(machine),
            Fault::Disconnect => {
                let open = self.network.of_executor(machine);
                open.into_iter().for_each(|connection| self.break_connection(connection));
            }
            Fault::Partition => {
                let lasts = self.random.pick(&[5, 30, 90]) * SECOND;
                self.partition(machine, lasts);
            }
            Fault::ClockSet => self.set_clock(),
        }
    }

    fn pause_leader(&mut self, id: u64) {
        let until = self.time + self.random.between(SECOND, 40 * SECOND);
        if let Some(leader) = self.leaders.get_mut(&id) {
            leader.stands_until = until;
        }
        self.trace(|| format!("the leader of term {id} stands still until {until}"));
        if self.random.happens(60) {
            let after = self.random.between(0, until - self.time);
            self.at(after, Event::Strike(Fault::Takeover));
        }
    }

    /// Lets another master take over while the present leaders believe that they lead, until their authority is over.
    fn depose(&mut self) {
        let authority = u64::try_from(self.limits.authority.as_micros()).unwrap();
        let (time, is_tight) = (self.time, self.plan.is_tight);
        for leader in self.leaders.values_mut().filter(|leader| leader.authority_until.is_none()) {
            let left = if is_tight { authority } else { self.random.between(0, authority) };
            leader.authority_until = Some(self.masters[leader.master].uptime(time) + left);
        }
        let master = usize::try_from(self.random.below(MASTERS)).unwrap();
        self.take_over(master);
        // Executors that look for a leader while two believe that they lead find one, then the other.
        if self.random.happens(50) {
            for _ in 0..self.random.between(2, 6) {
                let wait = self.random.between(0, authority);
                self.at(wait, Event::Strike(Fault::Disconnect));
            }
        }
        // An executor that heard the old leader until its last moment, and the new one not at all, is the hardest to
        // reckon with.
        if self.random.happens(50) {
            let wait = self.random.between(authority - SECOND / 10, authority + SECOND / 10);
            self.at(wait, Event::CutOff);
        }
    }

    /// Cuts off the executor that runs most, for long.
    fn cut_off(&mut self) {
        let alive = |machine: usize| {
            let processes = self.processes.values();
            processes.filter(|process| process.machine == machine && process.exit.is_none()).count()
        };
        let busiest = (0..self.executors.len()).max_by_key(|machine| alive(*machine));
        if let Some(machine) = busiest.filter(|_| !self.is_healed) {
            self.partition(machine, 90 * SECOND);
        }
    }

    fn partition(&mut self, machine: usize, lasts: u64) {
        let until = self.time + lasts;
        self.trace(|| format!("x{machine} reaches no leader until {until}"));
        self.network.partitioned.insert(machine, until);
        let open = self.network.of_executor(machine);
        open.into_iter().for_each(|connection| self.break_connection(connection));
    }

    fn set_clock(&mut self) {
        let by = i64::try_from(self.random.between(0, 7_200 * SECOND)).unwrap() - 3_600_000_000;
        let master = usize::try_from(self.random.below(MASTERS)).unwrap();
        self.trace(|| format!("the wall clock of master {master} is off by {by} us"));
        self.masters[master].set_wall(by);
    }

    // The end.

    /// Stops the faults and lets a person put right what only a person can.
    fn heal(&mut self) {
        self.trace(|| "faults stop".to_owned());
        self.is_healed = true;
        self.network.partitioned.clear();
        let newest = self.leaders.keys().next_back().copied();
        let old: Vec<u64> = self.leaders.keys().copied().filter(|leader| Some(*leader) != newest).collect();
        old.into_iter().for_each(|leader| self.end_leader(leader, "faults stop"));
        for leader in self.leaders.values_mut() {
            leader.stands_until = 0;
        }
        for machine in 0..self.executors.len() {
            self.at(SECOND, Event::Restart(machine));
        }
        self.at(ANSWERS_MAX, Event::Tend);
    }

    /// Looks after what is left, from time to time.
    fn tend(&mut self) {
        self.resume_paused_runs();
        self.boot_where_asked_for();
        if self.accepted.is_empty() {
            self.accepted = self.checker.runs.keys().copied().collect();
        }
        if self.time > self.plan.fault_time + SETTLE_MAX {
            let open = self.checker.unsettled();
            return self.checker.fail(format!(
                "L1: this has not ended {} s after the last fault:\n{open}",
                SETTLE_MAX / SECOND
            ));
        }
        self.at(20 * SECOND, Event::Tend);
    }

    /// Where only a person can prove that nothing is alive, a person does.
    fn boot_where_asked_for(&mut self) {
        for machine in 0..self.executors.len() {
            let executor = &mut self.executors[machine];
            let Some(home) = self.checker.needs_proof(&executor.name, executor.disk.spool) else { continue };
            // The executor's name goes back to where the attempt was.
            if !executor.disk.is_clean || executor.machine != home {
                executor.machine = home;
                self.boot(machine);
            }
        }
    }

    fn is_over(&mut self) -> bool {
        let is_waiting = !self.is_healed || self.time < self.plan.fault_time + ANSWERS_MAX + SECOND;
        if is_waiting || !self.checker.have_ended(&self.accepted) {
            return false;
        }
        self.checker.settled();
        true
    }
}

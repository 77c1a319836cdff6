//! What goes wrong, when it stops, and what a person does about what only a person can put right.

use millrace_checker::{Answer as Told, Event as Recorded};
use millrace_core::Limits;

use crate::{
    clients::Wish,
    clock::micros,
    etcd::Etcd,
    network::{Host, ProcessId, ToLeader},
    plan::{Fault, SECOND},
    world::{Event, SETTLE_MAX, World},
};

/// How long clients may take to hear the answers that they wait for.
const ANSWERS_MAX: u64 = 60 * SECOND;
/// A cut that lasts as long breaks the connections over it: both ends ask each other whether they are there.
const BREAKS_AFTER: u64 = 20 * SECOND;
/// For good.
const FOR_EVER: u64 = 1 << 60;

impl World {
    pub(crate) fn await_fault(&mut self, fault: Fault) {
        if self.is_healed {
            return;
        }
        let mean = self.plan.faults.iter().find(|(kind, _)| *kind == fault).map_or(SECOND, |(_, mean)| *mean);
        let wait = self.random.between(SECOND, 2 * mean);
        self.at(wait, Event::Again(fault));
    }

    pub(crate) fn on_strike(&mut self, fault: Fault) {
        if self.is_healed {
            return;
        }
        self.seen.insert(format!("fault {fault:?}"));
        match fault {
            Fault::ExecutorCrash
            | Fault::ExecutorPause
            | Fault::SupervisorCrash
            | Fault::MachineFreeze
            | Fault::Reboot
            | Fault::DiskLoss
            | Fault::Disconnect
            | Fault::Partition => {
                let machine = self.random.index(self.executors.len());
                self.strike_executor(fault, machine);
            }
            Fault::LinkCut => self.cut_some_link(),
            Fault::ClockSet => self.set_clock(),
            Fault::MasterCrash => {
                let ids: Vec<ProcessId> = self.processes.keys().copied().collect();
                if !ids.is_empty() {
                    let id = self.random.pick(&ids);
                    self.end_process(id, "it crashes");
                }
            }
            Fault::EtcdOutage
            | Fault::EtcdElection
            | Fault::WatchLoss
            | Fault::DatabaseRestart
            | Fault::DatabaseFull
            | Fault::DatabaseStall => self.strike_service(fault),
            Fault::LeaderCrash
            | Fault::LeaderPause
            | Fault::LeaderSuspend
            | Fault::HandOver
            | Fault::Takeover => {
                if let Some(id) = self.leading() {
                    self.strike_leader(fault, id);
                }
            }
        }
    }

    fn strike_leader(&mut self, fault: Fault, id: ProcessId) {
        let master = self.processes[&id].master;
        match fault {
            Fault::LeaderCrash => self.end_process(id, "it crashes"),
            Fault::LeaderPause | Fault::LeaderSuspend => {
                let lasts = self.random.between(SECOND, 40 * SECOND);
                let until = self.time + lasts;
                self.trace(|| format!("process {id} of m{master} stands still until {until}: {fault:?}"));
                self.processes.get_mut(&id).unwrap().stands_until = until;
                if fault == Fault::LeaderSuspend {
                    let local = self.masters[master].uptime(until) - self.masters[master].uptime(self.time);
                    self.masters[master].suspend(local);
                }
            }
            Fault::HandOver => {
                if let Some(leader) = self.processes.get_mut(&id).unwrap().leader.as_mut() {
                    leader.is_handing_over = true;
                }
                self.nudge(id);
            }
            _ => self.processes.get_mut(&id).unwrap().is_marked = true,
        }
    }

    /// A leader has just renewed its lease: from now on it hears nothing of the election service, and its lease is revoked.
    /// It goes on believing for as long as it may.
    pub(crate) fn depose(&mut self, id: ProcessId) {
        let Some(process) = self.processes.get_mut(&id).filter(|_| !self.is_healed) else { return };
        process.is_marked = false;
        let (master, authority) = (process.master, micros(Limits::default().authority));
        let until = self.time + self.random.between(SECOND, 60 * SECOND);
        self.trace(|| format!("process {id} of m{master} is deposed and does not know"));
        if !self.plan.leases_lie {
            self.cut(Host::Etcd, Host::Master(master), until);
            self.cut(Host::Master(master), Host::Etcd, until);
        }
        self.with_etcd(|etcd, _| {
            if let Some(key) = etcd.key {
                etcd.revoke(key.lease);
            }
        });
        // Executors that look for a leader while two believe that they lead find one, then the other.
        if self.random.happens(50) {
            for _ in 0..self.random.between(2, 6) {
                let wait = self.random.between(0, authority);
                self.at(wait, Event::Strike(Fault::Disconnect));
            }
        }
        // An executor that heard the old leader until its last moment, and the new one not at all, is the hardest to
        // reckon with.
        if self.random.happens(60) {
            let wait = self.random.between(authority - SECOND / 10, authority + SECOND / 10);
            self.at(wait, Event::CutOff);
        }
    }

    fn strike_service(&mut self, fault: Fault) {
        let lasts = self.random.pick(&[SECOND, 4 * SECOND, 15 * SECOND, 45 * SECOND]);
        let until = self.time + lasts;
        self.trace(|| format!("{fault:?} until {until}"));
        match fault {
            Fault::EtcdOutage => self.with_etcd(|etcd, time| etcd.lose_quorum(time, until)),
            Fault::EtcdElection => self.with_etcd(Etcd::elect),
            Fault::WatchLoss => {
                let master = self.random.index(self.masters.len());
                if !self.deaf.remove(&master) {
                    self.deaf.insert(master);
                }
            }
            Fault::DatabaseRestart => self.database.restart(until),
            Fault::DatabaseFull => self.database.full_until = until,
            _ => {
                for master in 0..self.masters.len() {
                    self.cut(Host::Database, Host::Master(master), until);
                    self.cut(Host::Master(master), Host::Database, until);
                }
            }
        }
    }

    fn strike_executor(&mut self, fault: Fault, machine: usize) {
        match fault {
            Fault::ExecutorCrash => self.crash_program(machine),
            Fault::ExecutorPause => {
                let lasts = self.random.pick(&[SECOND, 10 * SECOND, 90 * SECOND]);
                self.pause_program(machine, self.time + lasts);
            }
            Fault::SupervisorCrash => self.end_supervisor(machine),
            Fault::MachineFreeze => self.freeze(machine),
            Fault::Reboot => self.boot(machine),
            Fault::DiskLoss => self.lose_disk(machine),
            Fault::Disconnect => {
                let open = self.network.of_executor(machine);
                open.into_iter().for_each(|connection| self.break_connection(connection));
            }
            _ => {
                let lasts = self.random.pick(&[5, 30, 90]) * SECOND;
                self.partition(machine, self.time + lasts);
            }
        }
    }

    fn pause_program(&mut self, machine: usize, until: u64) {
        self.trace(|| format!("the program of x{machine} stands still until {until}"));
        self.executors[machine].stands_until = until;
        self.break_where_unanswered(machine, until);
    }

    fn freeze(&mut self, machine: usize) {
        let until = self.time + self.random.pick(&[5, 40, 120]) * SECOND;
        self.trace(|| format!("the machine of x{machine} stands still until {until}"));
        self.executors[machine].frozen_until = until;
        self.record(&Recorded::Frozen { executor: Self::executor_name(machine) });
        self.break_where_unanswered(machine, until);
    }

    /// A leader asks over each connection whether the other end is there.
    fn break_where_unanswered(&mut self, machine: usize, until: u64) {
        if until > self.time + BREAKS_AFTER {
            for connection in self.network.of_executor(machine) {
                self.at(BREAKS_AFTER, Event::ToLeader(connection, ToLeader::Closed));
            }
        }
    }

    /// Cuts off the executor that runs most, for long.
    pub(crate) fn cut_off(&mut self) {
        let busiest = (0..self.executors.len()).max_by_key(|machine| self.alive.count_on(*machine));
        if let Some(machine) = busiest.filter(|_| !self.is_healed) {
            self.partition(machine, self.time + 90 * SECOND);
        }
    }

    fn partition(&mut self, machine: usize, until: u64) {
        self.trace(|| format!("x{machine} reaches no master until {until}"));
        for master in 0..self.masters.len() {
            self.cut(Host::Executor(machine), Host::Master(master), until);
            self.cut(Host::Master(master), Host::Executor(machine), until);
        }
    }

    fn cut_some_link(&mut self) {
        let master = Host::Master(self.random.index(self.masters.len()));
        let leader = self.leading().map(|id| Host::Master(self.processes[&id].master));
        let one = leader.filter(|_| self.random.happens(50)).unwrap_or(master);
        let others: Vec<Host> = self.hosts().into_iter().filter(|host| *host != one).collect();
        let other = self.random.pick(&others);
        let until = self.time + self.random.pick(&[3, 12, 40, 100]) * SECOND;
        let ways = self.random.below(3);
        self.trace(|| format!("the link of {one:?} and {other:?} is cut until {until}, {ways}"));
        if ways != 1 {
            self.cut(one, other, until);
        }
        if ways != 2 {
            self.cut(other, one, until);
        }
    }

    fn cut(&mut self, from: Host, to: Host, until: u64) {
        self.network.cut_link(from, to, until);
        let (Host::Master(master), Host::Executor(machine)) = (from.min(to), from.max(to)) else { return };
        if until > self.time + BREAKS_AFTER {
            let between = self.network.of_executor(machine).into_iter();
            let broken: Vec<_> =
                between.filter(|connection| self.network.get(*connection).master == master).collect();
            broken.into_iter().for_each(|connection| self.break_connection(connection));
        }
    }

    fn set_clock(&mut self) {
        let by = match self.random.below(3) {
            0 => i64::try_from(self.random.between(0, 7_200 * SECOND)).unwrap() - 3_600_000_000,
            1 => i64::try_from(self.random.between(0, 120 * SECOND)).unwrap() - 60_000_000,
            // A machine that comes up without a battery.
            _ => -10 * 365 * 86_400 * 1_000_000,
        };
        if self.random.happens(50) {
            let machine = self.random.index(self.executors.len());
            self.trace(|| format!("the wall clock of x{machine} is off by {by} us"));
            return self.clocks[machine].set_wall(by);
        }
        let master = self.random.index(self.masters.len());
        self.trace(|| format!("the wall clock of m{master} is off by {by} us"));
        self.masters[master].set_wall(by.max(-3_600_000_000));
    }

    // The end.

    /// Random faults stop: everything is put right, or, in liveness mode, a part of it, and the rest is broken for good.
    pub(crate) fn heal(&mut self) {
        self.trace(|| "faults stop".to_owned());
        self.is_healed = true;
        self.network.mend_all();
        self.deaf.clear();
        self.database.down_until = self.database.down_until.min(self.time);
        self.database.full_until = 0;
        self.with_etcd(|etcd, time| {
            if etcd.quorum_lost_until > time {
                etcd.lose_quorum(time, time);
            }
        });
        for process in self.processes.values_mut() {
            process.stands_until = process.stands_until.min(self.time);
            process.is_marked = false;
        }
        for executor in &mut self.executors {
            executor.stands_until = executor.stands_until.min(self.time);
            executor.frozen_until = executor.frozen_until.min(self.time);
        }
        self.resume();
        if self.is_lively() {
            self.break_for_good();
        }
        for master in
            (0..self.masters.len()).filter(|master| !self.out_of_order.contains(master)).collect::<Vec<_>>()
        {
            self.at(SECOND, Event::Boot(master));
        }
        for machine in 0..self.executors.len() {
            self.at(SECOND, Event::Start(machine));
        }
        self.record(&Recorded::Healed);
        self.call_probes();
        self.at(ANSWERS_MAX, Event::Tend);
    }

    /// Chooses who is healthy from now on; everybody else has a fault that stays, whatever is done.
    fn break_for_good(&mut self) {
        let master = self.random.index(self.masters.len());
        let machine = self.random.index(self.executors.len());
        self.trace(|| format!("m{master} and x{machine} are healthy from now on"));
        self.core = Some((master, machine));
        for other in (0..self.masters.len()).filter(|other| *other != master) {
            self.break_master(other);
        }
        for other in (0..self.executors.len()).filter(|other| *other != machine) {
            self.break_executor(other);
        }
    }

    /// A master that reaches everything leads like any other; so each of these is cut off from something that it needs.
    fn break_master(&mut self, master: usize) {
        let (host, until) = (Host::Master(master), FOR_EVER);
        let needed = self.random.pick(&[Host::Etcd, Host::Database]);
        let fault = self.random.below(5);
        self.trace(|| format!("m{master} has fault {fault} with {needed:?} for good"));
        match fault {
            0 => {
                self.out_of_order.insert(master);
                if let Some(id) = self.process_of(master) {
                    self.end_process(id, "it crashes for good");
                }
            }
            1 => {
                if let Some(process) = self.processes.values_mut().find(|process| process.master == master) {
                    // A leader does so where it hurts most.
                    process.stops_in_transaction = true;
                    process.stands_until = if process.leader.is_some() { 0 } else { u64::MAX };
                }
                self.out_of_order.insert(master);
            }
            2 => self.cut(host, needed, until),
            3 => self.cut(needed, host, until),
            _ => {
                self.cut(host, needed, until);
                self.cut(needed, host, until);
            }
        }
        let others: Vec<Host> = self.hosts().into_iter().filter(|other| *other != host).collect();
        for other in others {
            if self.random.happens(20) && other != Host::Etcd && other != Host::Database {
                self.cut(host, other, until);
            }
        }
    }

    fn break_executor(&mut self, machine: usize) {
        let fault = self.random.below(6);
        self.trace(|| format!("x{machine} has fault {fault} for good"));
        match fault {
            // It is healthy too.
            0 => return,
            1 => {
                self.crash_program(machine);
                self.executors[machine].is_out_of_order = true;
            }
            2 => self.pause_program(machine, u64::MAX),
            3 => self.partition(machine, FOR_EVER),
            4 => self.executors[machine].hangs = true,
            _ => {
                for master in 0..self.masters.len() {
                    if self.random.happens(50) {
                        self.cut(Host::Executor(machine), Host::Master(master), FOR_EVER);
                    } else {
                        self.cut(Host::Master(master), Host::Executor(machine), FOR_EVER);
                    }
                }
            }
        }
        self.record(&Recorded::Gone { executor: Self::executor_name(machine) });
    }

    /// Asks the cluster for something, again and again, to see that somebody leads.
    fn call_probes(&mut self) {
        for wait in [0, 20, 40, 60, 120] {
            let definition = self.random.index(self.plan.definitions.len());
            self.call(wait * SECOND, Wish::Probe { definition });
        }
    }

    /// Looks after what is left, from time to time.
    pub(crate) fn tend(&mut self) {
        self.resume_paused_runs();
        self.open_closed_executors();
        self.unset_settings();
        if !self.is_lively() {
            self.boot_where_asked_for();
        }
        if self.accepted.is_empty() {
            self.accepted = self.checker.runs().keys().copied().collect();
        }
        if self.time > self.plan.fault_time + SETTLE_MAX {
            self.checker.finish(self.time);
            return self.fail("L1: this has not ended in time".to_owned());
        }
        self.at(20 * SECOND, Event::Tend);
    }

    /// Where only a person can prove that nothing is alive, a person does.
    fn boot_where_asked_for(&mut self) {
        for machine in 0..self.executors.len() {
            if self.checker.needs_proof(&self.executors[machine].name) {
                self.boot(machine);
                self.lose_disk(machine);
            }
        }
    }

    pub(crate) fn is_over(&mut self) -> bool {
        // Long enough for the last probe to be answered, or to be complained about.
        let is_waiting = !self.is_healed || self.time < self.plan.fault_time + 3 * ANSWERS_MAX + SECOND;
        !is_waiting && !self.accepted.is_empty() && self.checker.have_ended(&self.accepted)
    }

    /// A client gives up: what it asked for is not asked for any more.
    pub(crate) fn give_up(&mut self, request: u64) {
        self.record(&Recorded::Answered { request, answer: Told::Other });
    }
}

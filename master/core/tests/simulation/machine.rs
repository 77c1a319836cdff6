//! The machines of executors: their processes, the guard that ends what is orphaned, and what carries out what the
//! program wants done.
//!
//! Processes are real: they go on whatever the program knows of them, unless the machine is booted. The guard counts by
//! the machine's own clock and needs no program to run.

use std::collections::{BTreeMap, BTreeSet};

use millrace_common::id::{AttemptId, SpoolId};
use millrace_core::{Message, Start};

use crate::{
    clients::Wish,
    executor::{Cause, Deed, Disk, Executor, Exit, HEARTBEAT, Program},
    network::{ConnectionId, ToExecutor, ToLeader},
    plan::{Outcome, SECOND},
    world::{Event, World},
};

/// How long the verified end of a process takes at most, after its grace.
const VERIFY_MAX: u64 = 5 * SECOND;

/// A process of an attempt.
#[derive(Debug, Clone)]
pub(crate) struct Process {
    pub(crate) machine: usize,
    spool: SpoolId,
    outcome: Outcome,
    /// When contact to a leader was last proven for it, on its machine's clock.
    contact: u64,
    /// How long it may run on without.
    limit: Option<u64>,
    grace: u64,
    is_dying: bool,
    pub(crate) exit: Option<Exit>,
}

impl World {
    pub(crate) fn start_program(&mut self, machine: usize) {
        if self.executors[machine].program.is_some() {
            return;
        }
        let spool = self.executors[machine].disk.spool;
        let ours = |process: &&Process| process.machine == machine && process.spool == spool;
        let here: BTreeMap<AttemptId, Process> = self
            .processes
            .iter()
            .filter(|(_, process)| ours(process))
            .map(|(attempt, process)| (*attempt, process.clone()))
            .collect();
        let alive: BTreeSet<_> =
            here.iter().filter(|(_, at)| at.exit.is_none()).map(|(attempt, _)| *attempt).collect();
        // A guard that outlives the program tells how processes ended meanwhile; otherwise nobody knows.
        let exits: BTreeMap<_, _> = here
            .iter()
            .filter(|_| self.plan.adopts)
            .filter_map(|(attempt, process)| Some((*attempt, process.exit?)))
            .collect();
        let contact = here.values().map(|process| process.contact).max().unwrap_or(0);
        let (uptime, wall) = (self.uptime(machine), self.clocks[machine].wall(self.time));
        self.executors[machine].start(uptime, contact, wall, &alive, &exits);
        self.trace(|| format!("the program of x{machine} starts"));
        self.carry_out(machine);
        let starts = self.executors[machine].starts;
        self.at(1, Event::Dial(machine, starts));
        self.at(HEARTBEAT, Event::Beat(machine, starts));
    }

    pub(crate) fn on_dial(&mut self, machine: usize, starts: u32) {
        let executor = &self.executors[machine];
        let is_free = executor.program.as_ref().is_some_and(|program| program.connection.is_none());
        if executor.starts != starts || !is_free {
            return;
        }
        let leader = self.leader_to_ask(50);
        if let Some(leader) = leader.filter(|_| !self.network.is_partitioned(machine, self.time)) {
            let connection = self.network.open(machine, leader);
            let uptime = self.uptime(machine);
            self.executors[machine].dial(connection, uptime);
            self.carry_out(machine);
        } else {
            self.at(SECOND, Event::Dial(machine, starts));
        }
    }

    /// The program's regular work: a heartbeat, or giving up a connection over which nothing comes back.
    pub(crate) fn on_beat(&mut self, machine: usize, starts: u32) {
        if self.executors[machine].starts != starts || self.executors[machine].program.is_none() {
            return;
        }
        self.at(HEARTBEAT, Event::Beat(machine, starts));
        let uptime = self.uptime(machine);
        let Some(program) = self.executors[machine].program.as_mut() else { return };
        if program.is_unanswered(uptime) {
            program.hang_up();
        } else if program.connection.is_none() {
            self.at(1, Event::Dial(machine, starts));
        } else {
            program.beat(uptime);
        }
        self.carry_out(machine);
    }

    pub(crate) fn on_heard(&mut self, connection: ConnectionId, message: ToExecutor) {
        let machine = self.network.get(connection).executor;
        let executor = &mut self.executors[machine];
        let Some(program) =
            executor.program.as_mut().filter(|program| program.connection == Some(connection))
        else {
            return;
        };
        let ToExecutor::Message(term, message) = message else {
            program.hang_up();
            return self.carry_out(machine);
        };
        self.trace(|| format!("x{machine} hears from term {term}: {message:?}"));
        let (uptime, wall) = (self.uptime(machine), self.clocks[machine].wall(self.time));
        let name = self.executors[machine].name.clone();
        match &message {
            Message::Start(start) => self.checker.received(&name, start),
            Message::Ack(attempt) => self.checker.released(&name, *attempt),
            _ => {}
        }
        self.executors[machine].on_message(uptime, wall, term, message);
        if let Some(attempt) = self.executors[machine].program.as_ref().and_then(Program::neglected) {
            self.checker.fail(format!("L1: {name} shows the end of {attempt} again and again"));
        }
        self.carry_out(machine);
    }

    /// Does what a program wants done, or lets it wait for the disk.
    pub(crate) fn carry_out(&mut self, machine: usize) {
        let (deeds, is_writing) = self.executors[machine].take();
        self.extend_contact(machine);
        if is_writing {
            let starts = self.executors[machine].starts;
            let latency = self.random.pick(&[100, 5_000, 400_000]);
            let at = self.syncs_at.get(&machine).copied().unwrap_or(0).max(self.time + latency);
            self.syncs_at.insert(machine, at);
            self.at(at - self.time, Event::Synced(machine, starts));
        }
        for deed in deeds {
            self.carry_out_one(machine, deed);
        }
    }

    pub(crate) fn on_synced(&mut self, machine: usize, starts: u32) {
        if self.executors[machine].starts == starts {
            for deed in self.executors[machine].synced() {
                self.carry_out_one(machine, deed);
            }
        }
    }

    fn carry_out_one(&mut self, machine: usize, deed: Deed) {
        match deed {
            Deed::Send(connection, message) => self.send_to_leader(connection, message),
            Deed::Close(connection) => {
                self.send_to_leader(connection, ToLeader::Closed);
                self.network.cut(connection);
                let starts = self.executors[machine].starts;
                let wait = self.random.between(SECOND / 10, SECOND);
                self.at(wait, Event::Dial(machine, starts));
            }
            Deed::Spawn(start) => self.spawn(machine, &start),
            Deed::Kill(attempt, grace) => self.kill(machine, attempt, grace),
            Deed::Obey(term) => {
                let executor = &self.executors[machine];
                self.checker.obeyed(&executor.name, executor.disk.spool, term);
            }
        }
    }

    fn spawn(&mut self, machine: usize, start: &Start) {
        let attempt = start.attempt;
        let Some(program) = self.executors[machine].program.as_ref().filter(|program| program.wants(attempt))
        else {
            return;
        };
        let contact = program.contact;
        let (name, spool) = (self.executors[machine].name.clone(), self.executors[machine].disk.spool);
        self.trace(|| format!("x{machine} spawns {attempt}"));
        self.checker.spawned(&name, spool, attempt);
        let (outcome, takes) = self.plan.outcome(salt(attempt));
        let micros = |duration: std::time::Duration| u64::try_from(duration.as_micros()).unwrap();
        let process = Process {
            machine,
            spool,
            outcome,
            contact,
            limit: start.orphan_timeout.map(micros),
            grace: micros(start.kill_grace),
            is_dying: false,
            exit: None,
        };
        self.processes.insert(attempt, process);
        let starts = self.executors[machine].starts;
        if let Some(timeout) = start.timeout {
            let after = self.clocks[machine].time_for(micros(timeout));
            self.at(after, Event::TimesOut(machine, starts, attempt));
        }
        self.at(takes, Event::Exits(attempt));
        let wall = self.clocks[machine].wall(self.time);
        if let Some(program) = self.executors[machine].program.as_mut() {
            program.on_spawned(attempt, wall);
        }
        self.watch(machine);
        self.carry_out(machine);
    }

    pub(crate) fn on_timed_out(&mut self, machine: usize, starts: u32, attempt: AttemptId) {
        // A time-out that a restart of the program has lost is armed again by none: the model leaves that out.
        if self.executors[machine].starts == starts
            && let Some(program) = self.executors[machine].program.as_mut()
        {
            program.begin_kill(attempt, Cause::TimedOut);
            self.carry_out(machine);
        }
    }

    /// Begins to end a process; it is gone within its grace and what the verification may take.
    fn kill(&mut self, machine: usize, attempt: AttemptId, grace: u64) {
        let is_tight = self.plan.is_tight;
        let Some(process) = self.processes.get_mut(&attempt) else {
            return self.exited(machine, attempt, Exit::Killed);
        };
        if process.is_dying || process.exit.is_some() {
            return;
        }
        process.is_dying = true;
        let local = match self.random.below(3) {
            _ if is_tight => grace + VERIFY_MAX,
            0 => self.random.between(0, grace + VERIFY_MAX),
            _ => self.random.between(0, 50_000),
        };
        let after = self.clocks[machine].time_for(local).saturating_sub(2);
        self.at(after, Event::Dies(attempt));
    }

    pub(crate) fn on_dies(&mut self, attempt: AttemptId) {
        self.end_process(attempt, Exit::Killed);
    }

    pub(crate) fn on_exits(&mut self, attempt: AttemptId) {
        let outcome = self.processes[&attempt].outcome;
        self.end_process(attempt, Exit::ByItself(outcome));
    }

    fn end_process(&mut self, attempt: AttemptId, exit: Exit) {
        let Some(process) = self.processes.get_mut(&attempt).filter(|process| process.exit.is_none()) else {
            return;
        };
        process.exit = Some(exit);
        let (machine, spool) = (process.machine, process.spool);
        self.trace(|| format!("x{machine}: the process of {attempt} ends: {exit:?}"));
        self.checker.exited(attempt, exit);
        if self.executors[machine].disk.spool == spool {
            self.exited(machine, attempt, exit);
        }
    }

    fn exited(&mut self, machine: usize, attempt: AttemptId, exit: Exit) {
        let wall = self.clocks[machine].wall(self.time);
        if let Some(program) = self.executors[machine].program.as_mut() {
            program.on_exited(attempt, exit, wall);
        }
        self.carry_out(machine);
    }

    // The guard.

    /// Tells the guard how far the program's contact reaches, for the processes of its spool.
    fn extend_contact(&mut self, machine: usize) {
        let Executor { program: Some(program), disk, .. } = &self.executors[machine] else { return };
        let ours = self.processes.values_mut().filter(|at| at.machine == machine && at.spool == disk.spool);
        for process in ours {
            process.contact = process.contact.max(program.contact);
        }
    }

    /// Sets the guard's alarm to the next process that may be orphaned.
    fn watch(&mut self, machine: usize) {
        let due = |process: &Process| {
            let is_watched = process.machine == machine && process.exit.is_none() && !process.is_dying;
            process.limit.filter(|_| is_watched).map(|limit| process.contact + limit)
        };
        let Some(due) = self.processes.values().filter_map(due).min() else { return };
        let at = self.clocks[machine].time_of(due).max(self.time + 1);
        if self.guards.get(&machine).is_none_or(|armed| *armed <= self.time || *armed > at) {
            self.guards.insert(machine, at);
            self.at(at - self.time, Event::Guard(machine, at));
        }
    }

    pub(crate) fn on_guard(&mut self, machine: usize, at: u64) {
        if self.guards.get(&machine) != Some(&at) {
            return;
        }
        self.guards.remove(&machine);
        let uptime = self.uptime(machine);
        let is_orphan = |process: &Process| {
            let is_alive = process.machine == machine && process.exit.is_none() && !process.is_dying;
            is_alive && process.limit.is_some_and(|limit| process.contact + limit <= uptime)
        };
        let orphans: Vec<(AttemptId, u64)> = self
            .processes
            .iter()
            .filter(|(_, process)| is_orphan(process))
            .map(|(attempt, process)| (*attempt, process.grace))
            .collect();
        for (attempt, grace) in orphans {
            self.trace(|| format!("the guard of x{machine} ends {attempt}"));
            if let Some(program) = self.executors[machine].program.as_mut() {
                program.begin_kill(attempt, Cause::Orphaned);
            }
            self.kill(machine, attempt, grace);
        }
        self.carry_out(machine);
        self.watch(machine);
    }

    // Faults.

    pub(crate) fn crash_program(&mut self, machine: usize) {
        if self.executors[machine].program.is_none() {
            return;
        }
        self.trace(|| format!("the program of x{machine} crashes"));
        self.executors[machine].crash(&mut self.random);
        self.syncs_at.remove(&machine);
        for connection in self.network.of_executor(machine) {
            let delay = self.notice();
            self.at(delay, Event::ToLeader(connection, ToLeader::Closed));
            self.network.cut(connection);
        }
        if !self.plan.adopts {
            self.kill_all(machine);
        }
        let wait = self.random.pick(&[SECOND, 5 * SECOND, 90 * SECOND]);
        self.at(wait, Event::Restart(machine));
    }

    fn kill_all(&mut self, machine: usize) {
        let alive = |process: &&Process| process.machine == machine && process.exit.is_none();
        let alive: Vec<_> = self
            .processes
            .iter()
            .filter(|(_, process)| alive(process))
            .map(|(attempt, _)| *attempt)
            .collect();
        for attempt in alive {
            self.end_process(attempt, Exit::Killed);
        }
    }

    pub(crate) fn boot(&mut self, machine: usize) {
        self.crash_program(machine);
        self.trace(|| format!("the machine of x{machine} is booted"));
        self.kill_all(machine);
        self.executors[machine].boot += 1;
        // Whatever an older spool held, it did not survive this.
        self.executors[machine].disk.is_clean = true;
        self.clocks[machine].boot(self.time);
        self.guards.remove(&machine);
        for process in self.processes.values_mut().filter(|process| process.machine == machine) {
            process.contact = 0;
        }
    }

    pub(crate) fn lose_disk(&mut self, machine: usize) {
        self.crash_program(machine);
        // Another machine gets the name of the executor, and sees nothing of what is alive on the first.
        let is_replaced = self.random.happens(30);
        let is_clean = is_replaced
            || self.processes.values().all(|process| process.machine != machine || process.exit.is_some());
        self.spools += 1;
        if is_replaced {
            let executor = &mut self.executors[machine];
            executor.machine = format!("machine-{machine}-{}", self.spools).into();
            executor.boot += 1;
            self.trace(|| format!("x{machine} is another machine now"));
        }
        self.trace(|| format!("the disk of x{machine} is lost, clean: {is_clean}"));
        self.executors[machine].disk = Disk::new(spool_id(self.spools), is_clean);
        // What is still alive is the more interesting if somebody wants it gone.
        let alive =
            self.processes.iter().find(|(_, process)| process.machine == machine && process.exit.is_none());
        if let Some(run) = alive.map(|(attempt, _)| attempt.instance.run).filter(|_| self.random.happens(50))
        {
            let wait = self.random.between(SECOND, 20 * SECOND);
            self.call(wait, Wish::Cancel(run));
        }
    }
}

pub(crate) fn spool_id(number: u64) -> SpoolId {
    SpoolId(format!("00000000-0000-7000-8000-{number:012x}").parse().unwrap())
}

/// A number that tells attempts apart.
fn salt(attempt: AttemptId) -> u64 {
    let bytes = attempt.instance.run.as_bytes();
    let run = bytes.iter().fold(7_u64, |mixed, byte| mixed.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    run ^ (u64::from(attempt.instance.index) << 40) ^ (u64::from(attempt.number) << 50)
}

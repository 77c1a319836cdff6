//! The machines of executors: the processes on them, and the supervisor that ends what is orphaned.
//!
//! Processes are real: they go on whatever the program knows of them, unless the machine is booted. The supervisor counts
//! by the machine's own clock and needs no program to run.

use std::{collections::BTreeMap, time::Duration};

use millrace_checker::{Event as Recorded, Exit};
use millrace_common::{id::AttemptId, time::Timestamp};
use millrace_executor::ledger::{self, EndedBy, Ending, Input, Kept, Spawned, Start, Survivor};

use crate::{
    clients::Wish,
    clock::{micros, uptime},
    executor::Disk,
    plan::{Outcome, SECOND},
    planted::Planted,
    wire,
    world::{Event, World},
};

/// How long the verified end of a process takes at most, after its grace.
const VERIFY_MAX: u64 = 5 * SECOND;
/// How long a program waits for what an earlier one left to be gone.
const PURGE_MAX: u64 = 10 * SECOND;
/// How long something goes on that was forked and not killed with the process that forked it.
const STRAGGLES_FOR: u64 = 40 * SECOND;

/// How long what a supervisor leaves behind lives on, at most, where nobody looks for it.
const LEFT_FOR: u64 = 3 * SECOND;

/// A process of an attempt.
#[derive(Debug)]
struct Process {
    machine: usize,
    started_at: Timestamp,
    /// When it was started, on its machine's clock.
    uptime: u64,
    outcome: Outcome,
    timeout: Option<u64>,
    /// How long it may run on without contact to a leader.
    limit: Option<u64>,
    grace: u64,
    /// Whether a supervisor holds it, or its end until that is settled.
    is_held: bool,
    is_dying: bool,
    /// Why its supervisor ends it.
    ended_by: Option<EndedBy>,
    exit: Option<Exit>,
}

/// What outlives the program of an executor, and keeps the deadlines of what runs.
#[derive(Debug, Default)]
struct Supervisor {
    /// When contact to a leader was last proven, on the machine's clock.
    contact: u64,
}

/// Every process that there ever was.
#[derive(Debug, Default)]
pub(crate) struct Processes {
    all: BTreeMap<AttemptId, Process>,
    /// Those that are alive, by machine.
    alive: BTreeMap<usize, Vec<AttemptId>>,
    supervisors: BTreeMap<usize, Supervisor>,
    /// When the supervisor of a machine looks next.
    guards: BTreeMap<usize, u64>,
    /// What a program has asked to be ended because nobody supervises it.
    purged: BTreeMap<usize, Vec<AttemptId>>,
}

impl Processes {
    pub(crate) fn machine_of(&self, attempt: AttemptId) -> Option<usize> {
        self.all.get(&attempt).map(|process| process.machine)
    }

    pub(crate) fn count_on(&self, machine: usize) -> usize {
        self.alive.get(&machine).map_or(0, Vec::len)
    }

    fn on(&self, machine: usize) -> Vec<AttemptId> {
        self.alive.get(&machine).cloned().unwrap_or_default()
    }

    fn held_on(&self, machine: usize) -> Vec<AttemptId> {
        let held = self.all.iter().filter(|(_, process)| process.machine == machine && process.is_held);
        held.map(|(attempt, _)| *attempt).collect()
    }
}

impl World {
    // What outlives the program.

    /// Finds the supervisor that an earlier life has left, or begins one; returns what it has kept.
    pub(crate) fn find_supervisor(&mut self, machine: usize) -> Kept {
        let Some(supervisor) = self.alive.supervisors.get(&machine) else {
            self.alive.supervisors.insert(machine, Supervisor::default());
            return Kept::default();
        };
        let contact = Some(uptime(supervisor.contact));
        let survivor = |attempt: AttemptId| {
            let process = &self.alive.all[&attempt];
            let span = |limit: u64| Duration::from_micros(limit);
            Survivor {
                attempt,
                process: Spawned { pid: 4_711, uptime: uptime(process.uptime), workspace: 1 },
                started_at: process.started_at,
                timeout: process.timeout.map(span),
                orphan_timeout: process.limit.map(span),
                kill_grace: span(process.grace),
                ended_by: process.ended_by,
            }
        };
        Kept { contact, attempts: self.alive.held_on(machine).into_iter().map(survivor).collect() }
    }

    /// What the ledger knows goes on or is told, the rest is ended.
    pub(crate) fn take_over(&mut self, machine: usize) {
        for attempt in self.alive.held_on(machine) {
            let Some(program) = &self.executors[machine].program else { return };
            let is_known = program.ledger.is_live(attempt);
            match self.alive.all[&attempt].exit {
                Some(exit) => self.tell_exit(machine, attempt, exit),
                None if is_known => {}
                None => self.kill(machine, attempt, 0, EndedBy::Discard),
            }
        }
    }

    /// The end of an attempt is durable: its supervisor forgets it.
    pub(crate) fn settle_process(&mut self, machine: usize, attempt: AttemptId) {
        if let Some(process) = self.alive.all.get_mut(&attempt).filter(|process| process.machine == machine) {
            process.is_held &= process.exit.is_none();
        }
    }

    pub(crate) fn extend_contact(&mut self, machine: usize, contact: u64) {
        if let Some(supervisor) = self.alive.supervisors.get_mut(&machine) {
            supervisor.contact = supervisor.contact.max(contact);
        }
    }

    /// The supervisor ends, and what it supervises dies with it, sooner or later.
    pub(crate) fn end_supervisor(&mut self, machine: usize) {
        let Some(gone) = self.alive.supervisors.remove(&machine) else { return };
        self.trace(|| format!("the supervisor of x{machine} ends"));
        self.alive.guards.remove(&machine);
        for attempt in self.alive.held_on(machine) {
            let process = self.alive.all.get_mut(&attempt).unwrap();
            process.is_held = false;
            process.is_dying = true;
            let longest = if process.limit.is_none() { self.plan.clings_for.max(LEFT_FOR) } else { LEFT_FOR };
            let after = self.random.pick(&[0, 1_000, longest]);
            self.at(after, Event::Vanishes(attempt));
        }
        if self.executors[machine].program.is_some() {
            // The next one is told what the program knows of the contact.
            self.alive.supervisors.insert(machine, gone);
            self.give(machine, Input::SupervisorLost);
        }
    }

    pub(crate) fn spawn(&mut self, machine: usize, start: &Start) {
        let attempt = start.attempt;
        let Some(program) = &self.executors[machine].program else { return };
        // It was killed before its turn came.
        if !program.ledger.is_starting(attempt) {
            return self.tell_exit(machine, attempt, Exit::Killed);
        }
        self.trace(|| format!("x{machine} spawns {attempt}"));
        self.record(&Recorded::Spawned { attempt });
        let (outcome, takes) = self.plan.outcome(wire::salt(attempt));
        let at = self.clocks[machine].now(self.time);
        let process = Process {
            machine,
            started_at: at.wall,
            uptime: self.uptime(machine),
            outcome,
            timeout: start.timeout.map(micros),
            limit: start.orphan_timeout.map(micros),
            grace: micros(start.kill_grace),
            is_held: true,
            is_dying: false,
            ended_by: None,
            exit: None,
        };
        self.alive.all.insert(attempt, process);
        self.alive.alive.entry(machine).or_default().push(attempt);
        self.at(takes, Event::Exits(attempt));
        self.watch(machine);
        self.give(machine, Input::Spawned { attempt, pid: 4_711, workspace: 1, at });
    }

    /// Begins to end a process; it is gone within its grace and what the verification may take.
    pub(crate) fn kill(&mut self, machine: usize, attempt: AttemptId, grace: u64, by: EndedBy) {
        let (is_tight, clings_for) = (self.plan.is_tight, self.plan.clings_for);
        let Some(process) = self.alive.all.get_mut(&attempt) else {
            return self.tell_exit(machine, attempt, Exit::Killed);
        };
        if process.is_dying || process.exit.is_some() {
            return;
        }
        process.is_dying = true;
        process.ended_by = Some(by);
        // Nothing rests on the passing of time for what may run without contact.
        let clings = process.limit.is_none() && clings_for > 0;
        let local = match self.random.below(3) {
            0 if clings => clings_for,
            _ if is_tight => grace + VERIFY_MAX,
            0 => self.random.between(0, grace + VERIFY_MAX),
            _ => self.random.between(0, 50_000),
        };
        let after = self.clocks[machine].time_for(local).saturating_sub(2);
        self.at(after, Event::Dies(attempt));
    }

    pub(crate) fn on_dies(&mut self, attempt: AttemptId) {
        if self.planted == Some(Planted::OnlyLeadersKilled) {
            // What it forked goes on, and nobody looks.
            let machine = self.alive.all[&attempt].machine;
            self.at(STRAGGLES_FOR, Event::Vanishes(attempt));
            return self.tell_exit(machine, attempt, Exit::Killed);
        }
        self.end_of(attempt, Exit::Killed);
    }

    pub(crate) fn on_vanishes(&mut self, attempt: AttemptId) {
        self.end_of(attempt, Exit::Killed);
    }

    pub(crate) fn on_exits(&mut self, attempt: AttemptId) {
        let code = match self.alive.all[&attempt].outcome {
            Outcome::Succeeds => 0,
            Outcome::Skips => 99,
            Outcome::Fails(code) => code,
            Outcome::FailsForGood => 101,
        };
        self.end_of(attempt, Exit::Code(code));
    }

    fn end_of(&mut self, attempt: AttemptId, exit: Exit) {
        let Some(process) = self.alive.all.get_mut(&attempt).filter(|process| process.exit.is_none()) else {
            return;
        };
        process.exit = Some(exit);
        let (machine, is_held) = (process.machine, process.is_held);
        self.alive.alive.entry(machine).or_default().retain(|other| *other != attempt);
        self.trace(|| format!("x{machine}: the process of {attempt} ends: {exit:?}"));
        self.record(&Recorded::Exited { attempt, exit });
        if is_held {
            self.tell_exit(machine, attempt, exit);
        }
    }

    /// Tells the program, if there is one; otherwise the supervisor keeps it for the next.
    fn tell_exit(&mut self, machine: usize, attempt: AttemptId, exit: Exit) {
        let process = self.alive.all.get(&attempt);
        let how = match (exit, process.map(|process| process.outcome)) {
            (Exit::Code(exit_code), Some(Outcome::Succeeds | Outcome::Skips)) => {
                Ending::Succeeded { exit_code, is_skipped: exit_code != 0, values: String::new() }
            }
            (Exit::Code(code), outcome) => Ending::Failed {
                exit_code: Some(code),
                reason: format!("exit code {code}"),
                is_permanent: outcome == Some(Outcome::FailsForGood),
            },
            // The simulation sees every end.
            (Exit::Killed | Exit::Unseen, _) => {
                Ending::Ended { exit_code: None, by: process.and_then(|process| process.ended_by) }
            }
        };
        if self.executors[machine].program.is_some() {
            let at = self.clocks[machine].wall(self.time);
            self.give(machine, Input::Exited(attempt, ledger::Exit { how, log_bytes: 0, at }));
        }
    }

    /// Ends what nobody supervises, before the program looks for a leader, or goes on with one.
    pub(crate) fn purge(&mut self, machine: usize, remains: Vec<AttemptId>) {
        self.alive.purged.entry(machine).or_default().extend(remains);
        let unheld: Vec<AttemptId> =
            self.alive.on(machine).into_iter().filter(|attempt| !self.alive.all[attempt].is_held).collect();
        for attempt in unheld {
            if self.alive.all[&attempt].limit.is_some() || self.plan.clings_for == 0 {
                self.at(1_000, Event::Vanishes(attempt));
            }
        }
        let starts = self.executors[machine].starts;
        let until = self.time + PURGE_MAX;
        self.at(2_000, Event::Purged(machine, starts, until));
    }

    pub(crate) fn on_purged(&mut self, machine: usize, starts: u32, until: u64) {
        if self.program(machine, starts).is_none() {
            return;
        }
        let ledger = &self.executors[machine].program.as_ref().unwrap().ledger;
        let is_left = |attempt: &AttemptId| !self.alive.all[attempt].is_held || !ledger.is_live(*attempt);
        let is_complete = !self.alive.on(machine).iter().any(is_left);
        let is_waited_for = !is_complete && self.time < until;
        let (gone, left): (Vec<AttemptId>, Vec<AttemptId>) =
            self.alive.purged.remove(&machine).unwrap_or_default().into_iter().partition(|attempt| {
                self.alive.all.get(attempt).is_none_or(|process| process.exit.is_some())
            });
        if is_waited_for || !left.is_empty() {
            // It goes on looking for what cannot be killed, also when nobody waits for it any more.
            self.alive.purged.insert(machine, left);
            self.at(SECOND / 2, Event::Purged(machine, starts, until));
        }
        for attempt in gone {
            self.tell_exit(machine, attempt, Exit::Killed);
        }
        let executor = &mut self.executors[machine];
        let Some(program) = executor.program.as_mut().filter(|program| !program.is_ready && !is_waited_for)
        else {
            return;
        };
        program.is_ready = true;
        self.give(machine, Input::Purged { is_complete });
        self.at(1, Event::Dial(machine, starts));
    }

    // The deadlines that the supervisor keeps.

    fn guard_clock(&self, machine: usize) -> u64 {
        if self.planted == Some(Planted::WallClockForOrphans) {
            // As if the boot-time clock were set with the wall clock.
            let clock = &self.clocks[machine];
            return clock.uptime(self.time).saturating_add_signed(clock.wall_error());
        }
        self.uptime(machine)
    }

    /// Returns when a process is to be ended, and why.
    fn deadline(&self, attempt: AttemptId) -> Option<(u64, EndedBy)> {
        let process = self.alive.all.get(&attempt).filter(|process| process.is_held && !process.is_dying)?;
        let contact = self.alive.supervisors.get(&process.machine)?.contact;
        let orphan = process.limit.map(|limit| (contact + limit, EndedBy::Orphan));
        let timeout = process.timeout.map(|limit| (process.uptime + limit, EndedBy::Timeout));
        orphan.into_iter().chain(timeout).min_by_key(|(at, _)| *at)
    }

    /// Sets the supervisor's alarm to the next process that is to be ended.
    fn watch(&mut self, machine: usize) {
        let alive = self.alive.alive.get(&machine).into_iter().flatten();
        let Some((due, _)) = alive.filter_map(|attempt| self.deadline(*attempt)).min_by_key(|(at, _)| *at)
        else {
            return;
        };
        let at = self.clocks[machine].time_of(due).max(self.time + 1);
        let is_odd = self.guard_clock(machine) != self.uptime(machine);
        let at = if is_odd { at.max(self.time + SECOND) } else { at };
        if self.alive.guards.get(&machine).is_none_or(|armed| *armed <= self.time || *armed > at) {
            self.alive.guards.insert(machine, at);
            self.at(at - self.time, Event::Guard(machine, at));
        }
    }

    pub(crate) fn on_guard(&mut self, machine: usize, at: u64) {
        if self.alive.guards.get(&machine) != Some(&at) {
            return;
        }
        self.alive.guards.remove(&machine);
        let now = self.guard_clock(machine);
        for attempt in self.alive.on(machine) {
            let Some((_, by)) = self.deadline(attempt).filter(|(at, _)| *at <= now) else { continue };
            let grace = self.alive.all[&attempt].grace;
            self.trace(|| format!("the supervisor of x{machine} ends {attempt}: {by:?}"));
            self.kill(machine, attempt, grace, by);
        }
        self.watch(machine);
    }

    // Faults.

    pub(crate) fn kill_all(&mut self, machine: usize) {
        for attempt in self.alive.on(machine) {
            self.end_of(attempt, Exit::Killed);
        }
    }

    pub(crate) fn boot(&mut self, machine: usize) {
        self.crash_program(machine);
        self.trace(|| format!("the machine of x{machine} is booted"));
        self.kill_all(machine);
        let executor = &mut self.executors[machine];
        executor.boot += 1;
        executor.frozen_until = 0;
        self.clocks[machine].boot(self.time);
        self.alive.guards.remove(&machine);
        self.alive.supervisors.remove(&machine);
        self.alive.all.values_mut().filter(|process| process.machine == machine).for_each(|process| {
            process.is_held = false;
        });
    }

    pub(crate) fn lose_disk(&mut self, machine: usize) {
        self.crash_program(machine);
        self.spools += 1;
        self.trace(|| format!("the disk of x{machine} is lost"));
        self.executors[machine].disk = Disk::new(wire::spool_id(self.spools));
        // What is still alive is the more interesting if somebody wants it gone.
        let alive = self.alive.on(machine).first().map(|attempt| attempt.instance.run);
        if let Some(run) = alive.filter(|_| self.random.happens(50)) {
            let wait = self.random.between(SECOND, 60 * SECOND);
            self.call(wait, Wish::Cancel(run));
        }
    }
}

//! The processes of masters: they call the election service and the database over links that may be cut, wait for
//! answers, and end. What to call for is decided by [`crate::election`]; what a leader does stands in `leader.rs`.

use std::{collections::BTreeMap, time::Duration};

use millrace_common::time::Uptime;
use millrace_core::Limits;

use crate::{
    clock::{micros, uptime},
    database::{DatabaseCall, DatabaseReply, IDLE_MAX, LOCK_WAIT, LineId, Served},
    election::{Candidate, Doing, Told, Topic},
    etcd::{EtcdCall, EtcdReply, LeaseId},
    leader::Leader,
    network::{Host, ProcessId, ToExecutor},
    plan::SECOND,
    planted::Planted,
    world::{Event, World},
};

/// How long a call to the election service may take.
const ETCD_MAX: u64 = 3 * SECOND / 2;
/// How long a probe of the database may take, and any other call to it.
const PROBE_MAX: u64 = 3 * SECOND / 2;
const DATABASE_MAX: u64 = 8 * SECOND;
/// How long it may stay unknown whether a transaction was committed.
pub(crate) const SETTLE_MAX: u64 = 6 * SECOND;

/// Whom an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    Election(Topic),
    /// The leader's transaction.
    Transaction,
}

/// A call that was not answered yet.
#[derive(Debug, Clone, Copy)]
struct Call {
    about: About,
    line: Option<LineId>,
    sent: u64,
}

/// A process of a master.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) master: usize,
    pub(crate) candidate: Candidate,
    pub(crate) leader: Option<Leader>,
    pub(crate) stands_until: u64,
    calls: BTreeMap<u64, Call>,
    line: Option<LineId>,
    ticks_at: u64,
    /// Until when it has authority, on its boot-time clock, counted apart from the code that is checked.
    pub(crate) authority_until: u64,
    /// Whether the next answered renewal is the last thing it hears before its lease is revoked.
    pub(crate) is_marked: bool,
    /// Whether it stands still for good once it has begun a transaction.
    pub(crate) stops_in_transaction: bool,
}

impl World {
    /// Starts the process of a master, unless it runs.
    pub(crate) fn on_boot(&mut self, master: usize) {
        if self.process_of(master).is_some() || self.is_out_of_order(master) {
            return;
        }
        self.started += 1;
        let id = self.started;
        let now = self.election_now(master);
        self.trace(|| format!("m{master} starts as process {id}"));
        let process = Process {
            master,
            candidate: Candidate::new(id, now, self.planted),
            leader: None,
            stands_until: 0,
            calls: BTreeMap::new(),
            line: None,
            ticks_at: u64::MAX,
            authority_until: 0,
            is_marked: false,
            stops_in_transaction: false,
        };
        self.processes.insert(id, process);
        self.arm_tick(id);
    }

    pub(crate) fn process_of(&self, master: usize) -> Option<ProcessId> {
        self.processes.iter().find(|(_, process)| process.master == master).map(|(id, _)| *id)
    }

    /// Returns the process that leads, or the newest that believes so.
    pub(crate) fn leading(&self) -> Option<ProcessId> {
        let leading =
            self.processes.iter().filter_map(|(id, process)| Some((process.leader.as_ref()?.term, *id)));
        leading.max().map(|(_, id)| id)
    }

    /// Reads the clock that deadlines of the election are kept by.
    pub(crate) fn election_now(&self, master: usize) -> Uptime {
        let clock = &self.masters[master];
        uptime(if self.planted == Some(Planted::ClockStopsInSuspend) {
            clock.running(self.time)
        } else {
            clock.uptime(self.time)
        })
    }

    /// Returns the true time at which that clock shows a reading.
    fn time_of_election(&self, master: usize, at: Uptime) -> u64 {
        let now = self.election_now(master);
        let left = micros(at.since_boot().saturating_sub(now.since_boot()).min(Duration::from_secs(3_600)));
        self.time + self.masters[master].time_for(left)
    }

    fn arm_tick(&mut self, id: ProcessId) {
        let Some(process) = self.processes.get(&id) else { return };
        let at = self.time_of_election(process.master, process.candidate.poll_timeout()).max(self.time + 1);
        if at < process.ticks_at || process.ticks_at <= self.time {
            self.processes.get_mut(&id).unwrap().ticks_at = at;
            self.at(at - self.time, Event::Tick(id, at));
        }
    }

    pub(crate) fn on_tick(&mut self, id: ProcessId, at: u64) {
        // Only the newest alarm counts, or there would be more and more of them.
        let Some(process) = self.processes.get_mut(&id).filter(|process| process.ticks_at == at) else {
            return;
        };
        process.ticks_at = u64::MAX;
        let master = process.master;
        let now = self.election_now(master);
        self.processes.get_mut(&id).unwrap().candidate.on_time(now);
        self.carry_election(id);
    }

    pub(crate) fn on_watched(&mut self, id: ProcessId) {
        let wait = Duration::from_micros(self.random.between(0, SECOND / 2));
        let Some(master) = self.processes.get(&id).map(|process| process.master) else { return };
        let now = self.election_now(master);
        self.processes.get_mut(&id).unwrap().candidate.on_watched(now, wait);
        self.carry_election(id);
    }

    /// The connection that a standby holds to the leader has ended: its process is dead, or so it seems.
    pub(crate) fn on_peer_gone(&mut self, id: ProcessId, lease: LeaseId) {
        let Some(process) = self.processes.get(&id) else { return };
        if process.candidate.seen.is_some_and(|key| key.lease == lease) {
            self.call_etcd(id, Topic::Resign, EtcdCall::Revoke(lease));
            self.on_watched(id);
        }
    }

    /// Does what the election of a process asks for.
    pub(crate) fn carry_election(&mut self, id: ProcessId) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        for doing in process.candidate.take() {
            match doing {
                Doing::Etcd(topic, call) => self.call_etcd(id, topic, call),
                Doing::Database(topic, call) => self.call_database(id, About::Election(topic), call),
                Doing::Lead(term, snapshot) => self.begin_term(id, term, *snapshot),
                Doing::Exit(why) => return self.end_process(id, why),
            }
        }
        self.arm_tick(id);
    }

    /// Ends a process, whatever it is doing; the service manager starts the next one.
    pub(crate) fn end_process(&mut self, id: ProcessId, why: &str) {
        let Some(process) = self.processes.remove(&id) else { return };
        let master = process.master;
        self.trace(|| format!("process {id} of m{master} ends: {why}"));
        if let Some(leader) = &process.leader {
            self.seen.insert(format!("leader ends: {why}"));
            self.seen.extend(leader.refusals());
            self.tell_peers(master, process.candidate.seen.map(|key| key.lease));
        }
        for connection in self.network.of_process(id) {
            let delay = self.notice();
            let executor = self.network.get(connection).executor;
            if !self.network.is_cut(Host::Master(master), Host::Executor(executor), self.time) {
                self.at(delay, Event::ToExecutor(connection, ToExecutor::Closed));
            }
            self.network.close(connection);
        }
        self.hang_up(master, id);
        if !self.is_out_of_order(master) {
            let wait = self.random.pick(&[SECOND, SECOND, 5 * SECOND]);
            self.at(wait, Event::Boot(master));
        }
    }

    /// The kernel closes the connections that standbys hold to a process.
    fn tell_peers(&mut self, master: usize, lease: Option<LeaseId>) {
        let others: Vec<(ProcessId, usize)> =
            self.processes.iter().map(|(id, process)| (*id, process.master)).collect();
        for (id, other) in others {
            let is_cut = self.network.is_cut(Host::Master(master), Host::Master(other), self.time);
            if let Some(lease) = lease.filter(|_| !is_cut) {
                let delay = self.delay();
                self.at(delay, Event::PeerGone(id, lease));
            }
        }
    }

    /// The connections of a process to the database are closed; the database learns of it where it can.
    fn hang_up(&mut self, master: usize, id: ProcessId) {
        let lines: Vec<LineId> = self
            .database
            .lines
            .iter()
            .filter(|(_, line)| line.process == id)
            .map(|(line, _)| *line)
            .collect();
        for line in lines {
            self.close_line(master, line);
        }
    }

    fn close_line(&mut self, master: usize, line: LineId) {
        let delay = self.delay();
        if let Some(at) = self.network.arrival(Host::Master(master), Host::Database, self.time, delay) {
            self.at(at - self.time, Event::LineClosed(line));
        }
    }

    pub(crate) fn on_line_closed(&mut self, line: LineId) {
        self.database.close(line);
        self.serve_waiting();
    }

    // Calls.

    fn remember(&mut self, id: ProcessId, about: About, line: Option<LineId>, within: u64) -> u64 {
        self.calls += 1;
        let (call, sent) = (self.calls, self.time);
        self.processes.get_mut(&id).unwrap().calls.insert(call, Call { about, line, sent });
        self.at(within, Event::Overdue(id, call));
        call
    }

    fn call_etcd(&mut self, id: ProcessId, topic: Topic, asked: EtcdCall) {
        let Some(master) = self.processes.get(&id).map(|process| process.master) else { return };
        let call = self.remember(id, About::Election(topic), None, ETCD_MAX);
        let delay = self.delay();
        if let Some(at) = self.network.arrival(Host::Master(master), Host::Etcd, self.time, delay) {
            self.at(at - self.time, Event::AtEtcd(id, master, call, asked));
        }
    }

    pub(crate) fn on_at_etcd(&mut self, id: ProcessId, master: usize, call: u64, asked: EtcdCall) {
        let reply = self.with_etcd(|etcd, time| etcd.serve(time, (master, id), asked));
        if asked != EtcdCall::Read {
            self.trace(|| format!("etcd answers process {id} of m{master}: {asked:?} {reply:?}"));
        }
        let Some(reply) = reply else { return };
        let delay = self.delay();
        if let Some(at) = self.network.arrival(Host::Etcd, Host::Master(master), self.time, delay) {
            self.at(at - self.time, Event::Answered(id, call, Told::Etcd(reply)));
        }
    }

    /// Lets something happen to the election service; whoever watches the key learns that it has gone.
    pub(crate) fn with_etcd<T>(&mut self, act: impl FnOnce(&mut crate::etcd::Etcd, u64) -> T) -> T {
        let before = self.etcd.key;
        let result = act(&mut self.etcd, self.time);
        if before.is_some() && self.etcd.key != before {
            self.trace(|| format!("the key of {before:?} is gone"));
            self.tell_watches();
        }
        if let Some(at) =
            self.etcd.next_end().filter(|at| *at < self.lease_ends_at || self.lease_ends_at <= self.time)
        {
            self.lease_ends_at = at;
            self.at(at.max(self.time + 1) - self.time, Event::LeaseEnds);
        }
        result
    }

    fn tell_watches(&mut self) {
        let watching: Vec<(ProcessId, usize)> =
            self.processes.iter().map(|(id, process)| (*id, process.master)).collect();
        for (id, master) in watching {
            let is_lost = self.random.happens(self.plan.watch_loss_percent) || self.is_deaf(master);
            let lag = self.random.between(100, self.plan.watch_lag_max);
            let arrival = self.network.arrival(Host::Etcd, Host::Master(master), self.time, lag);
            if let Some(at) = arrival.filter(|_| !is_lost) {
                self.at(at - self.time, Event::Watched(id));
            }
        }
    }

    pub(crate) fn call_database(&mut self, id: ProcessId, about: About, asked: DatabaseCall) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let master = process.master;
        let line = *process.line.get_or_insert_with(|| self.database.open(id));
        let within = match &asked {
            DatabaseCall::Probe => PROBE_MAX,
            DatabaseCall::Fence => SETTLE_MAX,
            _ => DATABASE_MAX,
        };
        let call = self.remember(id, about, Some(line), within);
        let delay = self.delay();
        if self.breaks_here() {
            // The connection breaks on the way.
            self.at(delay, Event::LineClosed(line));
            self.at(delay, Event::Answered(id, call, Told::Nothing));
        } else if let Some(at) = self.network.arrival(Host::Master(master), Host::Database, self.time, delay)
        {
            self.at(at - self.time, Event::AtDatabase(line, call, asked));
        }
    }

    pub(crate) fn on_at_database(&mut self, line: LineId, call: u64, asked: DatabaseCall) {
        let is_begun = matches!(asked, DatabaseCall::Begin { .. });
        let served = self.database.serve(self.time, line, call, asked);
        self.record_committed();
        match served {
            Served::Waits => self.at(LOCK_WAIT, Event::LockedOut(line, call)),
            Served::Broken => self.answer_from_database(line, call, Told::Nothing),
            Served::Reply(reply) => {
                if is_begun && self.plan.ends_idle && matches!(reply, DatabaseReply::Begun) {
                    let transaction = self.database.lines[&line].transactions;
                    self.at(IDLE_MAX, Event::IdleEnds(line, transaction));
                }
                self.answer_from_database(line, call, Told::Database(reply));
            }
        }
        self.serve_waiting();
    }

    pub(crate) fn on_idle_ends(&mut self, line: LineId, transaction: u64) {
        if self.database.end_idle(line, transaction) {
            self.trace(|| format!("the database ends an idle transaction of line {line}"));
            self.serve_waiting();
        }
    }

    pub(crate) fn on_locked_out(&mut self, line: LineId, call: u64) {
        if self.database.give_up(line, call) {
            self.answer_from_database(line, call, Told::Database(DatabaseReply::LockedOut));
        }
    }

    pub(crate) fn serve_waiting(&mut self) {
        while let Some(next) = self.database.next_waiting() {
            let served = self.database.serve(self.time, next.line, next.call, next.asked);
            self.record_committed();
            match served {
                Served::Reply(reply) => {
                    self.answer_from_database(next.line, next.call, Told::Database(reply))
                }
                Served::Broken => self.answer_from_database(next.line, next.call, Told::Nothing),
                Served::Waits => {}
            }
        }
    }

    fn answer_from_database(&mut self, line: LineId, call: u64, told: Told) {
        let owner = self.processes.iter().find(|(_, process)| process.calls.contains_key(&call));
        let Some((id, master)) = owner.map(|(id, process)| (*id, process.master)) else { return };
        let delay = self.delay();
        if self.breaks_here() {
            self.on_line_closed(line);
            return self.at(delay, Event::Answered(id, call, Told::Nothing));
        }
        if let Some(at) = self.network.arrival(Host::Database, Host::Master(master), self.time, delay) {
            self.at(at - self.time, Event::Answered(id, call, told));
        }
    }

    pub(crate) fn on_overdue(&mut self, id: ProcessId, call: u64) {
        self.on_answered_call(id, call, Told::Nothing);
    }

    pub(crate) fn on_answered_call(&mut self, id: ProcessId, call: u64, told: Told) {
        let Some(process) = self.processes.get_mut(&id) else { return };
        let Some(Call { about, line, sent }) = process.calls.remove(&call) else { return };
        let master = process.master;
        if let (Told::Nothing, Some(line)) = (&told, line)
            && process.line == Some(line)
        {
            // Nobody knows what state it is in: it is closed hard.
            process.line = None;
            self.close_line(master, line);
        }
        match about {
            About::Election(topic) => self.on_election_told(id, topic, told, sent),
            About::Transaction => self.on_transaction_told(id, told),
        }
    }

    fn on_election_told(&mut self, id: ProcessId, topic: Topic, told: Told, sent: u64) {
        let process = &self.processes[&id];
        let master = process.master;
        let is_renewed = matches!(told, Told::Etcd(EtcdReply::Renewed(left)) if left > 0)
            || matches!(told, Told::Etcd(EtcdReply::Granted(_)));
        let is_marked = process.is_marked && is_renewed && process.leader.is_some();
        if is_renewed {
            let until = self.masters[master].uptime(sent) + micros(Limits::default().authority);
            let process = self.processes.get_mut(&id).unwrap();
            let is_new = matches!(topic, Topic::Grant(_));
            process.authority_until = if is_new { until } else { until.max(process.authority_until) };
        }
        let now = self.election_now(master);
        self.processes.get_mut(&id).unwrap().candidate.on_told(now, topic, told);
        self.carry_election(id);
        if is_marked {
            self.depose(id);
        }
    }
}

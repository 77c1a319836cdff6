//! The links between machines, and the connections between executors and masters.
//!
//! A link can be cut in one direction. What is sent over a cut link comes after the cut where that is short, as a
//! connection repeats it, and never where it is long. In one direction of one connection messages keep their order;
//! between connections there is none, and what was sent before a connection ended may still arrive long after it.

use std::collections::BTreeMap;

use millrace_common::{
    id::{AttemptId, SessionId},
    state::AttemptState,
    term::Term,
};
use millrace_core::{Hello, Message, Report};

use crate::{
    plan::{Plan, SECOND},
    random::Random,
};

pub(crate) type ConnectionId = u64;
/// One process of a master, of all that there ever were.
pub(crate) type ProcessId = u64;

/// A machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Host {
    Master(usize),
    Executor(usize),
    Etcd,
    Database,
}

/// What an executor says.
#[derive(Debug, Clone)]
pub(crate) enum ToLeader {
    Hello(Box<Hello>),
    Heartbeat {
        number: u64,
        held: Vec<(AttemptId, AttemptState)>,
    },
    Report(AttemptId, Report),
    /// The executor has closed the connection.
    Closed,
}

/// What a leader says.
#[derive(Debug, Clone)]
pub(crate) enum ToExecutor {
    Message(Term, Message),
    /// It does not lead; the master that does, where it knows.
    NotLeader(Option<usize>),
    /// The leader has closed the connection, or is gone.
    Closed,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) executor: usize,
    pub(crate) master: usize,
    pub(crate) process: ProcessId,
    /// The session that it carries, once the leader has read its greeting.
    pub(crate) session: Option<SessionId>,
    is_cut: bool,
    last_to_leader: u64,
    last_to_executor: u64,
}

/// All links, and the connections that there ever were.
#[derive(Debug, Default)]
pub(crate) struct Network {
    connections: BTreeMap<ConnectionId, Connection>,
    /// Connections that nobody has closed.
    open: BTreeMap<ConnectionId, (usize, ProcessId)>,
    count: u64,
    /// Until when nothing comes through, by direction.
    cut: BTreeMap<(Host, Host), u64>,
}

/// How long an end of a connection takes to notice that the other one is gone, at most.
const NOTICE_MAX: u64 = 20 * SECOND;
/// How long a connection goes on repeating what was not acknowledged.
const REPEATS_FOR: u64 = 15 * SECOND;

impl Network {
    /// Lets nothing through from one machine to another until then.
    pub(crate) fn cut_link(&mut self, from: Host, to: Host, until: u64) {
        let cut = self.cut.entry((from, to)).or_default();
        *cut = until.max(*cut);
    }

    pub(crate) fn mend_all(&mut self) {
        self.cut.clear();
    }

    pub(crate) fn is_cut(&self, from: Host, to: Host, time: u64) -> bool {
        self.cut.get(&(from, to)).is_some_and(|until| *until > time)
    }

    /// Returns when something that leaves now arrives; never where the link is cut for long.
    pub(crate) fn arrival(&self, from: Host, to: Host, time: u64, delay: u64) -> Option<u64> {
        match self.cut.get(&(from, to)).filter(|until| **until > time) {
            Some(until) if *until > time + REPEATS_FOR => None,
            Some(until) => Some(until + delay),
            None => Some(time + delay),
        }
    }

    pub(crate) fn open(&mut self, executor: usize, master: usize, process: ProcessId) -> ConnectionId {
        self.count += 1;
        let connection = Connection {
            executor,
            master,
            process,
            session: None,
            is_cut: false,
            last_to_leader: 0,
            last_to_executor: 0,
        };
        self.connections.insert(self.count, connection);
        self.open.insert(self.count, (executor, process));
        self.count
    }

    pub(crate) fn get(&self, id: ConnectionId) -> &Connection {
        &self.connections[&id]
    }

    pub(crate) fn set_session(&mut self, id: ConnectionId, session: SessionId) {
        self.connections.get_mut(&id).unwrap().session = Some(session);
    }

    /// Lets nothing more through a connection; what is under way may still arrive.
    pub(crate) fn close(&mut self, id: ConnectionId) {
        self.connections.get_mut(&id).unwrap().is_cut = true;
        self.open.remove(&id);
    }

    /// Returns when a message to the leader arrives; never where the connection lets nothing through.
    pub(crate) fn arrival_at_leader(&mut self, id: ConnectionId, time: u64, delay: u64) -> Option<u64> {
        let Connection { executor, master, .. } = self.connections[&id];
        let arrival = self.arrival(Host::Executor(executor), Host::Master(master), time, delay);
        let connection = self.connections.get_mut(&id).unwrap();
        let arrival = arrival.filter(|_| connection.last_to_leader < u64::MAX);
        connection.last_to_leader = arrival.map_or(u64::MAX, |at| at.max(connection.last_to_leader));
        (!connection.is_cut).then_some(connection.last_to_leader).filter(|at| *at < u64::MAX)
    }

    /// Returns when a message to the executor arrives; never where the connection lets nothing through.
    pub(crate) fn arrival_at_executor(&mut self, id: ConnectionId, time: u64, delay: u64) -> Option<u64> {
        let Connection { executor, master, .. } = self.connections[&id];
        let arrival = self.arrival(Host::Master(master), Host::Executor(executor), time, delay);
        let connection = self.connections.get_mut(&id).unwrap();
        let arrival = arrival.filter(|_| connection.last_to_executor < u64::MAX);
        connection.last_to_executor = arrival.map_or(u64::MAX, |at| at.max(connection.last_to_executor));
        (!connection.is_cut).then_some(connection.last_to_executor).filter(|at| *at < u64::MAX)
    }

    /// Returns the open connections of an executor.
    pub(crate) fn of_executor(&self, executor: usize) -> Vec<ConnectionId> {
        self.open.iter().filter(|(_, (of, _))| *of == executor).map(|(id, _)| *id).collect()
    }

    /// Returns the open connections of a process of a master.
    pub(crate) fn of_process(&self, process: ProcessId) -> Vec<ConnectionId> {
        self.open.iter().filter(|(_, (_, of))| *of == process).map(|(id, _)| *id).collect()
    }
}

/// How long a message takes.
pub(crate) fn delay(plan: &Plan, random: &mut Random) -> u64 {
    if random.happens(plan.slow_percent) {
        random.between(0, plan.slow_max)
    } else {
        random.between(100, plan.delay_max)
    }
}

/// How long an end of a connection takes to notice that it is broken.
pub(crate) fn notice(random: &mut Random) -> u64 {
    if random.happens(70) { random.between(0, 100_000) } else { random.between(0, NOTICE_MAX) }
}

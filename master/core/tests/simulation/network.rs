//! Connections between executors and leaders. In one direction of one connection messages keep their order; between
//! connections there is none, and what was sent before a connection ended may still arrive long after it.

use std::collections::BTreeMap;

use millrace_common::{
    id::{AttemptId, SessionId},
    state::AttemptState,
    term::Term,
};
use millrace_core::{Hello, Message, Report};

use crate::plan::{Plan, Random};

pub(crate) type ConnectionId = u64;

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
    /// The leader has closed the connection, or is gone.
    Closed,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) executor: usize,
    pub(crate) leader: u64,
    /// The session that it carries, once the leader has read its greeting.
    pub(crate) session: Option<SessionId>,
    is_cut: bool,
    last_to_leader: u64,
    last_to_executor: u64,
}

/// All connections that there ever were.
#[derive(Debug, Default)]
pub(crate) struct Network {
    connections: BTreeMap<ConnectionId, Connection>,
    /// Until when an executor reaches no leader, by its number.
    pub(crate) partitioned: BTreeMap<usize, u64>,
}

/// How long an end of a connection takes to notice that the other one is gone, at most.
const NOTICE_MAX: u64 = 20_000_000;

impl Network {
    pub(crate) fn open(&mut self, executor: usize, leader: u64) -> ConnectionId {
        let id = self.connections.len() as u64;
        let connection = Connection {
            executor,
            leader,
            session: None,
            is_cut: false,
            last_to_leader: 0,
            last_to_executor: 0,
        };
        self.connections.insert(id, connection);
        id
    }

    pub(crate) fn get(&self, id: ConnectionId) -> &Connection {
        &self.connections[&id]
    }

    pub(crate) fn set_session(&mut self, id: ConnectionId, session: SessionId) {
        self.connections.get_mut(&id).unwrap().session = Some(session);
    }

    /// Lets nothing more through; what is under way may still arrive.
    pub(crate) fn cut(&mut self, id: ConnectionId) {
        self.connections.get_mut(&id).unwrap().is_cut = true;
    }

    pub(crate) fn is_partitioned(&self, executor: usize, time: u64) -> bool {
        self.partitioned.get(&executor).is_some_and(|until| *until > time)
    }

    /// Returns when a message to the leader arrives; never where the connection lets nothing through.
    pub(crate) fn arrival_at_leader(&mut self, id: ConnectionId, time: u64, delay: u64) -> Option<u64> {
        let connection = self.connections.get_mut(&id).unwrap();
        connection.last_to_leader = connection.last_to_leader.max(time + delay);
        (!connection.is_cut).then_some(connection.last_to_leader)
    }

    /// Returns when a message to the executor arrives; never where the connection lets nothing through.
    pub(crate) fn arrival_at_executor(&mut self, id: ConnectionId, time: u64, delay: u64) -> Option<u64> {
        let connection = self.connections.get_mut(&id).unwrap();
        connection.last_to_executor = connection.last_to_executor.max(time + delay);
        (!connection.is_cut).then_some(connection.last_to_executor)
    }

    /// Returns the open connections of an executor.
    pub(crate) fn of_executor(&self, executor: usize) -> Vec<ConnectionId> {
        let open = self.connections.iter().filter(|(_, connection)| !connection.is_cut);
        open.filter(|(_, connection)| connection.executor == executor).map(|(id, _)| *id).collect()
    }

    /// Returns the open connections of a leader.
    pub(crate) fn of_leader(&self, leader: u64) -> Vec<ConnectionId> {
        let open = self.connections.iter().filter(|(_, connection)| !connection.is_cut);
        open.filter(|(_, connection)| connection.leader == leader).map(|(id, _)| *id).collect()
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

//! The executors' sessions of a term: where messages to them go.
//!
//! Each session has a bounded queue. An executor that does not read fast enough loses its session; it comes back and is
//! told everything again, which is cheaper than memory without bound.

use std::collections::{BTreeMap, BTreeSet};

use millrace_common::id::SessionId;
use millrace_proto::v1;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio_util::sync::CancellationToken;

/// Messages that wait for one executor: more than one wake-up of the leader makes, which answers up to 4,096 heartbeats and
/// may kill what runs in as many slots.
pub(crate) const SESSION_QUEUE_MAX: usize = 16_384;

/// The sending end of a session's queue.
#[derive(Debug)]
pub(crate) struct SessionSender {
    /// Where messages go. Dropping it ends the session after what is queued was sent.
    pub(crate) queue: mpsc::Sender<v1::LeaderMessage>,
    /// Cancelled where the executor does not read: the session ends at once.
    pub(crate) too_slow: CancellationToken,
}

/// The sessions of a term.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    senders: BTreeMap<SessionId, SessionSender>,
    /// Those with an answered heartbeat: what the greeting attested is durable.
    proven: BTreeSet<SessionId>,
    broken: Vec<SessionId>,
}

impl Sessions {
    pub(super) fn open(&mut self, session: SessionId, sender: SessionSender) {
        self.senders.insert(session, sender);
    }

    /// Ends a session once what is queued for it was sent.
    pub(super) fn close(&mut self, session: SessionId) {
        self.senders.remove(&session);
        self.proven.remove(&session);
    }

    /// Notes that a heartbeat of a session is being answered, with all that follows from it durable.
    pub(super) fn prove(&mut self, session: SessionId) {
        if self.senders.contains_key(&session) {
            self.proven.insert(session);
        }
    }

    /// Tells whether a heartbeat of a session was answered.
    pub(super) fn is_proven(&self, session: SessionId) -> bool {
        self.proven.contains(&session)
    }

    /// Queues a message; a full or closed queue breaks the session.
    pub(super) fn send(&mut self, session: SessionId, message: v1::LeaderMessage) {
        let Some(sender) = self.senders.get(&session) else { return };
        match sender.queue.try_send(message) {
            Ok(()) => return,
            Err(TrySendError::Full(_)) => {
                tracing::warn!(session_id = session.0, "an executor does not read, its session is ended");
                sender.too_slow.cancel();
            }
            Err(TrySendError::Closed(_)) => tracing::debug!(session_id = session.0, "the session is gone"),
        }
        self.close(session);
        self.broken.push(session);
    }

    /// Returns the sessions that broke since the last call.
    pub(super) fn take_broken(&mut self) -> Vec<SessionId> {
        std::mem::take(&mut self.broken)
    }
}

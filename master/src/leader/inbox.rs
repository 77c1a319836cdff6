//! The one way into a term: a bounded queue, and the handle that everybody else holds.
//!
//! A full queue makes callers wait; that is how the leader's pace reaches those who ask.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use millrace_common::id::SessionId;
use millrace_core::{Answer, Hello, Input, Request};
use millrace_proto::v1;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::sessions::SessionSender;

/// Things that wait for the leader; above this, callers wait.
const QUEUE_MAX: usize = 8_192;

/// What arrives at a leader.
#[derive(Debug)]
pub(crate) enum Inbound {
    /// A client's request and where its answer goes.
    Request(Request, oneshot::Sender<Result<Answer, AskError>>),
    /// An executor opened a session; messages to it go through `sender`.
    Connected { session: SessionId, hello: Box<Hello>, sender: SessionSender },
    /// What an executor is asked, and nobody decides about: its answer comes back another way.
    Question(SessionId, v1::HistoryRequest),
    /// Anything else.
    Input(Input),
}

/// The receiving end; owned by the term.
#[derive(Debug)]
pub(crate) struct Inbox {
    queue: mpsc::Receiver<Inbound>,
}

impl Inbox {
    /// Waits for something and takes all that is there, up to `max`. Never returns where nobody holds a [`Handle`].
    ///
    /// Cancellation-safe: what was not returned stays queued.
    pub(super) async fn take(&mut self, into: &mut Vec<Inbound>, max: usize) {
        if self.queue.recv_many(into, max).await == 0 {
            std::future::pending().await
        }
    }

    /// Takes what is there already, up to `max` together with what was taken before.
    pub(super) fn take_ready(&mut self, into: &mut Vec<Inbound>, max: usize) {
        while into.len() < max
            && let Ok(item) = self.queue.try_recv()
        {
            into.push(item);
        }
    }
}

/// Reaches the leader of this process. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    queue: mpsc::Sender<Inbound>,
    sessions: Arc<AtomicU64>,
}

/// The term is over; the request may or may not have been done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("this master no longer leads")]
pub(crate) struct LeaderGone;

/// Why a request has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum AskError {
    /// The term is over; the request may or may not have been done.
    #[error(transparent)]
    Gone(#[from] LeaderGone),
    /// Nothing can be made durable now, and nothing was done.
    #[error("the leader's database is away: nothing was done")]
    DatabaseAway,
}

/// Makes the two ends.
pub(crate) fn open() -> (Handle, Inbox) {
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    (Handle { queue: sender, sessions: Arc::default() }, Inbox { queue: receiver })
}

impl Handle {
    /// Asks for something and waits until the answer is durable.
    pub(crate) async fn request(&self, request: Request) -> Result<Answer, AskError> {
        let (sender, receiver) = oneshot::channel();
        self.queue.send(Inbound::Request(request, sender)).await.map_err(|_| LeaderGone)?;
        receiver.await.map_err(|_| LeaderGone)?
    }

    /// Opens a session for an executor.
    ///
    /// What the leader says goes to `sender`; tell it with [`Input::ExecutorDisconnected`] when the session is over.
    pub(crate) async fn connect(&self, hello: Hello, sender: SessionSender) -> Result<SessionId, LeaderGone> {
        let session = SessionId(self.sessions.fetch_add(1, Ordering::Relaxed) + 1);
        let inbound = Inbound::Connected { session, hello: Box::new(hello), sender };
        self.queue.send(inbound).await.map_err(|_| LeaderGone)?;
        Ok(session)
    }

    /// Asks an executor for a page of its history.
    pub(crate) async fn ask_executor(
        &self,
        session: SessionId,
        request: v1::HistoryRequest,
    ) -> Result<(), LeaderGone> {
        self.queue.send(Inbound::Question(session, request)).await.map_err(|_| LeaderGone)
    }

    /// Passes on what an executor said.
    pub(crate) async fn input(&self, input: Input) -> Result<(), LeaderGone> {
        self.queue.send(Inbound::Input(input)).await.map_err(|_| LeaderGone)
    }
}

//! What executors call.

use std::{net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use futures_util::Stream;
use millrace_common::{id::SessionId, term::Term};
use millrace_core::{Hello, Input};
use millrace_proto::{
    PROTOCOL,
    convert::{self, WireError},
    v1::{self, executor_message::Body, executor_service_server::ExecutorService},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Request, Response, Status, Streaming};

use super::{
    session::{self, Listener, SessionStream},
    status, wire,
};
use crate::{
    histories::Histories,
    leader::{Handle, LeaderGone},
    output::{AppendError, OutputStore},
    role::Seat,
    standby::{self, Standby},
};

/// How long a session lasts without a message: an executor's three heartbeats and the wait for their answers are held to
/// 15 s when its settings are read.
const SILENCE_MAX: Duration = Duration::from_secs(15);
/// How long an executor that comes while nobody leads waits here for who does: told at once, it need not ask again and
/// again. No longer, because it may be this master alone that knows of nobody.
const LEADER_WAIT_MAX: Duration = Duration::from_secs(1);
/// How long an executor may take to say who it is.
const HELLO_TIME_MAX: Duration = Duration::from_secs(10);
/// How long an executor may take to read why its output is no longer taken.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(2);
/// Answers about kept output that wait for one executor; it sends no more until it reads them.
const KEPT_QUEUE_MAX: usize = 64;

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct Executors {
    pub(crate) standby: Standby,
    pub(crate) output: Arc<OutputStore>,
    pub(crate) histories: Histories,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

/// Why a session ended on our side.
#[derive(Debug, thiserror::Error)]
enum SessionEnd {
    #[error("the executor ended it")]
    Closed,
    #[error("the connection is gone")]
    ReaderGone,
    #[error("the executor does not read what it is told")]
    TooSlow,
    #[error("the executor is silent")]
    Silent,
    #[error("this master is stopping")]
    Stopping,
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Leader(#[from] LeaderGone),
    #[error("{}", .0.message())]
    Stream(#[from] Status),
}

impl SessionEnd {
    /// Returns what the executor is told, where it is to be told and listens.
    fn status(self) -> Option<Status> {
        match self {
            Self::Closed | Self::ReaderGone => None,
            Self::TooSlow => Some(session::too_slow()),
            Self::Silent => Some(Status::deadline_exceeded(format!(
                "no message for {} s: the executor sends no heartbeats",
                SILENCE_MAX.as_secs()
            ))),
            Self::Stopping => Some(status::stopping()),
            Self::Wire(error) => Some(status::of_wire(&error)),
            Self::Leader(error) => Some(status::of_leader_gone(error)),
            // It arrives where the stream was broken by a message that we refused, and nowhere else.
            Self::Stream(status) => Some(status),
        }
    }
}

#[tonic::async_trait]
impl ExecutorService for Executors {
    type SessionStream = SessionStream;
    type ShipOutputStream = Pin<Box<dyn Stream<Item = Result<v1::OutputKept, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::ExecutorMessage>>,
    ) -> Result<Response<SessionStream>, Status> {
        let peer = request.remote_addr();
        let mut messages = request.into_inner();
        tokio::select! {
            () = self.standby.roles.known(LEADER_WAIT_MAX) => {}
            () = self.stop.cancelled() => return Err(status::stopping()),
        }
        let Some(Seat { term, leader }) = self.standby.roles.seat() else {
            return Ok(Response::new(session::not_leader(self.standby.leader_address())));
        };
        let hello = tokio::time::timeout(HELLO_TIME_MAX, first_hello(term, &mut messages));
        let (hello, has_history) = hello.await.map_err(|_| {
            Status::deadline_exceeded(format!("no Hello within {} s", HELLO_TIME_MAX.as_secs()))
        })??;
        let executor = hello.executor.clone();
        let (sender, listener, stream) = session::open();
        let session = leader.connect(hello, sender).await.map_err(status::of_leader_gone)?;
        tracing::info!(executor_id = %executor, session_id = session.0, peer = %shown(peer), "executor connected");
        self.histories.join(executor.clone(), session, has_history);
        let service = self.clone();
        self.tasks.spawn(async move {
            let end = service.listen(&leader, session, messages, listener).await;
            tracing::info!(executor_id = %executor, session_id = session.0, %end, "executor disconnected");
            service.histories.leave(session);
            // The leader being gone, nobody needs to know.
            let _ = leader.input(Input::ExecutorDisconnected(session)).await;
        });
        Ok(Response::new(stream))
    }

    async fn ship_output(
        &self,
        request: Request<Streaming<v1::OutputChunk>>,
    ) -> Result<Response<Self::ShipOutputStream>, Status> {
        if self.standby.roles.seat().is_none() {
            return Err(standby::no_leader());
        }
        let mut chunks = request.into_inner();
        let (sender, receiver) = mpsc::channel(KEPT_QUEUE_MAX);
        let service = self.clone();
        self.tasks.spawn(async move {
            let end = tokio::select! {
                biased;
                () = service.stop.cancelled() => Some(status::stopping()),
                () = sender.closed() => None,
                end = service.keep_all(&mut chunks, &sender) => end,
            };
            if let Some(status) = end {
                // An executor that has gone, or reads nothing, does without it.
                let _ = tokio::time::timeout(FAREWELL_TIME_MAX, sender.send(Err(status))).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

impl Executors {
    /// Passes on what the executor says until its session ends; says why, to the executor too.
    async fn listen(
        &self,
        leader: &Handle,
        session: SessionId,
        messages: Streaming<v1::ExecutorMessage>,
        listener: Listener,
    ) -> String {
        let Listener { fault, reader_gone, too_slow } = listener;
        // Biased: whatever ends the session comes before further messages of it. Dropping `receive` loses only those.
        let end = tokio::select! {
            biased;
            () = self.stop.cancelled() => SessionEnd::Stopping,
            () = too_slow.cancelled() => SessionEnd::TooSlow,
            () = reader_gone.cancelled() => SessionEnd::ReaderGone,
            end = receive(leader, &self.histories, session, messages) => end.err().unwrap_or(SessionEnd::Closed),
        };
        let text = end.to_string();
        if let Some(status) = end.status() {
            // Nobody may be there to read it.
            let _ = fault.send(status);
        }
        text
    }

    /// Keeps chunks and says so, until there are no more or one of them cannot be kept.
    async fn keep_all(
        &self,
        chunks: &mut Streaming<v1::OutputChunk>,
        sender: &mpsc::Sender<Result<v1::OutputKept, Status>>,
    ) -> Option<Status> {
        loop {
            let chunk = match chunks.message().await {
                Ok(chunk) => chunk?,
                Err(status) => return Some(status),
            };
            let kept = match keep(&self.output, chunk).await {
                Ok(kept) => kept,
                Err(status) => return Some(status),
            };
            sender.send(Ok(kept)).await.ok()?;
        }
    }
}

/// Waits for a greeting; tells beside it whether the executor can be asked for its history.
async fn first_hello(
    term: Term,
    messages: &mut Streaming<v1::ExecutorMessage>,
) -> Result<(Hello, bool), Status> {
    let first = messages.message().await?.and_then(|message| message.body);
    let Some(Body::Hello(hello)) = first else {
        return Err(Status::invalid_argument("the first message of a session is Hello"));
    };
    if hello.protocol != PROTOCOL {
        let asked = hello.protocol;
        return Err(status::not_now(format!(
            "the executor speaks protocol {asked}, this master speaks {PROTOCOL}: upgrade the older of the two"
        )));
    }
    if hello.term_seen > term.0 {
        let seen = hello.term_seen;
        return Err(status::not_now(format!(
            "the executor has obeyed term {seen}, this master leads term {term}: it is of another cluster, or its \
             database is older than it was"
        )));
    }
    let has_history = hello.has_history;
    let hello = wire::hello(hello).map_err(|error| status::of_wire(&error))?;
    Ok((hello, has_history))
}

/// Passes on what the executor says until its stream ends.
async fn receive(
    leader: &Handle,
    histories: &Histories,
    session: SessionId,
    mut messages: Streaming<v1::ExecutorMessage>,
) -> Result<(), SessionEnd> {
    // A program whose disk hangs still keeps its connection alive, so silence is what tells.
    while let Some(message) =
        tokio::time::timeout(SILENCE_MAX, messages.message()).await.map_err(|_| SessionEnd::Silent)??
    {
        match message.body.ok_or(WireError::Missing("body"))? {
            Body::Hello(_) => {
                return Err(WireError::Invalid { field: "body", problem: "a second Hello".to_owned() }.into());
            }
            Body::Heartbeat(heartbeat) => {
                let v1::Heartbeat { number, held, is_space_low, spool_facts } = heartbeat;
                let held = wire::held_states(held)?;
                leader
                    .input(Input::HeartbeatReceived { session, number, held, is_space_low, spool_facts })
                    .await?;
            }
            Body::HistoryPage(page) => histories.answer(session, page),
            Body::Draining(_) => leader.input(Input::ExecutorDraining(session)).await?,
            Body::Reports(reports) => {
                for report in reports.reports {
                    let (attempt, report) = wire::report(report)?;
                    leader.input(Input::AttemptReported { session, attempt, report }).await?;
                }
            }
        }
    }
    Ok(())
}

async fn keep(output: &OutputStore, chunk: v1::OutputChunk) -> Result<v1::OutputKept, Status> {
    let attempt = convert::attempt(chunk.attempt.as_ref()).map_err(|error| status::of_wire(&error))?;
    let kept = output.append(attempt, chunk.offset, chunk.bytes, chunk.is_last).await;
    let kept = kept.map_err(|error| match error {
        AppendError::NoRoom(_) => status::of(Code::ResourceExhausted, error.to_string()),
        AppendError::Io(_) | AppendError::Stopped(_) => {
            tracing::error!(%attempt, %error, "output could not be kept");
            Status::internal("the output could not be kept; the master's log says why")
        }
    })?;
    Ok(v1::OutputKept { attempt: chunk.attempt, offset: kept.offset, is_complete: kept.is_complete })
}

fn shown(peer: Option<SocketAddr>) -> String {
    peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string())
}

//! What executors call.

use std::{pin::Pin, sync::Arc};

use futures_util::Stream;
use millrace_common::id::SessionId;
use millrace_core::Input;
use millrace_proto::{
    PROTOCOL,
    convert::{self, WireError},
    v1::{self, executor_message::Body, executor_service_server::ExecutorService},
};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt, wrappers::ReceiverStream};
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status, Streaming};

use super::{status, wire};
use crate::{
    leader::{Handle, LeaderGone, sessions::SESSION_QUEUE_MAX},
    output::OutputStore,
};

/// Answers about kept output that wait for one executor.
const KEPT_QUEUE_MAX: usize = 64;

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct Executors {
    pub(crate) leader: Handle,
    pub(crate) output: Arc<OutputStore>,
    pub(crate) tasks: TaskTracker,
}

/// Why a session's stream ended on our side.
#[derive(Debug, thiserror::Error)]
enum SessionEnd {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error(transparent)]
    Leader(#[from] LeaderGone),
    #[error(transparent)]
    Stream(#[from] Status),
}

#[tonic::async_trait]
impl ExecutorService for Executors {
    type SessionStream = ReceiverStream<Result<v1::LeaderMessage, Status>>;
    type ShipOutputStream = Pin<Box<dyn Stream<Item = Result<v1::OutputKept, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<v1::ExecutorMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let mut messages = request.into_inner();
        let hello = first_hello(&mut messages).await?;
        let executor = hello.executor.clone();
        let (sender, receiver) = mpsc::channel(SESSION_QUEUE_MAX);
        let session = self.leader.connect(hello, sender).await.map_err(status::of_leader_gone)?;
        tracing::info!(executor_id = %executor, session_id = session.0, "executor connected");
        let leader = self.leader.clone();
        self.tasks.spawn(async move {
            let end = receive(&leader, session, messages).await;
            tracing::info!(executor_id = %executor, session_id = session.0, end = ?end.err(), "executor disconnected");
            // The leader being gone, nobody needs to know.
            let _ = leader.input(Input::ExecutorDisconnected(session)).await;
        });
        Ok(Response::new(forward(&self.tasks, receiver)))
    }

    async fn ship_output(
        &self,
        request: Request<Streaming<v1::OutputChunk>>,
    ) -> Result<Response<Self::ShipOutputStream>, Status> {
        let mut chunks = request.into_inner();
        let output = Arc::clone(&self.output);
        let (sender, receiver) = mpsc::channel(KEPT_QUEUE_MAX);
        self.tasks.spawn(async move {
            while let Some(chunk) = chunks.next().await {
                let kept = match chunk {
                    Ok(chunk) => keep(&output, chunk).await,
                    Err(status) => Err(status),
                };
                let is_broken = kept.is_err();
                if sender.send(kept).await.is_err() || is_broken {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }
}

async fn first_hello(messages: &mut Streaming<v1::ExecutorMessage>) -> Result<millrace_core::Hello, Status> {
    let first = messages.message().await?.and_then(|message| message.body);
    let Some(Body::Hello(hello)) = first else {
        return Err(Status::invalid_argument("the first message of a session is Hello"));
    };
    if hello.protocol != PROTOCOL {
        let asked = hello.protocol;
        return Err(Status::failed_precondition(format!(
            "the executor speaks protocol {asked}, this master speaks {PROTOCOL}: upgrade the older of the two"
        )));
    }
    wire::hello(hello).map_err(|error| status::of_wire(&error))
}

/// Passes on what the executor says until its stream ends.
async fn receive(
    leader: &Handle,
    session: SessionId,
    mut messages: Streaming<v1::ExecutorMessage>,
) -> Result<(), SessionEnd> {
    while let Some(message) = messages.message().await? {
        match message.body.ok_or(WireError::Missing("body"))? {
            Body::Hello(_) => {
                return Err(WireError::Invalid { field: "body", problem: "a second Hello".to_owned() }.into());
            }
            Body::Heartbeat(heartbeat) => {
                let held = wire::held_states(heartbeat.held)?;
                leader.input(Input::HeartbeatReceived { session, number: heartbeat.number, held }).await?;
            }
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

/// Turns the session's queue into the response stream; ends when the leader drops its sender.
fn forward(
    tasks: &TaskTracker,
    mut messages: mpsc::Receiver<v1::LeaderMessage>,
) -> ReceiverStream<Result<v1::LeaderMessage, Status>> {
    let (sender, receiver) = mpsc::channel(1);
    tasks.spawn(async move {
        while let Some(message) = messages.recv().await {
            if sender.send(Ok(message)).await.is_err() {
                return;
            }
        }
    });
    ReceiverStream::new(receiver)
}

async fn keep(output: &OutputStore, chunk: v1::OutputChunk) -> Result<v1::OutputKept, Status> {
    let attempt = convert::attempt(chunk.attempt.as_ref()).map_err(|error| status::of_wire(&error))?;
    let kept = output.append(attempt, chunk.offset, &chunk.bytes, chunk.is_last).await.map_err(|error| {
        tracing::error!(%attempt, %error, "output could not be kept");
        Status::internal("the output could not be kept; the master's log says why")
    })?;
    Ok(v1::OutputKept { attempt: chunk.attempt, offset: kept.offset, is_complete: kept.is_complete })
}

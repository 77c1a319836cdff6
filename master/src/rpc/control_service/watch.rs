//! What moves: a run while it runs, output while it grows.

use std::{sync::Arc, time::Duration};

use millrace_common::{id::{AttemptId, InstanceId, RunId}, state::RunState};
use millrace_proto::v1;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Control, ReplyStream};
use crate::output::OutputStore;

/// Answers that wait for a slow reader; it then sees fewer of them.
const ANSWERS_MAX: usize = 4;
/// Least time between two views of a run: people do not read faster, and a view reads the whole run.
const VIEW_INTERVAL: Duration = Duration::from_millis(100);
/// Longest time without looking for more output, where a notice was missed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

impl Control {
    /// Streams views of a run until it has ended.
    pub(super) async fn watch(&self, run: RunId) -> Result<ReplyStream<v1::GetRunResponse>, Status> {
        // Subscribed before the first read: nothing falls between the two.
        let mut notices = self.feed.watch(run);
        let mut view = self.read_run(run).await?;
        let (sender, receiver) = mpsc::channel(ANSWERS_MAX);
        let control = self.clone();
        self.tasks.spawn(async move {
            loop {
                let has_ended = has_ended(&view);
                if sender.send(Ok(view)).await.is_err() || has_ended {
                    return;
                }
                let changed = tokio::select! {
                    changed = notices.changed() => changed,
                    () = sender.closed() => false,
                };
                if !changed {
                    return;
                }
                tokio::time::sleep(VIEW_INTERVAL).await;
                view = match control.read_run(run).await {
                    Ok(view) => view,
                    Err(status) => {
                        // The reader having gone, nobody needs to know.
                        let _ = sender.send(Err(status)).await;
                        return;
                    }
                };
            }
        });
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }

    /// Streams the output of an attempt; with `follow` until it has ended and all of it arrived.
    pub(super) async fn stream_output(
        &self,
        run: RunId,
        request: v1::ReadOutputRequest,
    ) -> Result<ReplyStream<v1::OutputPiece>, Status> {
        let attempt = self.find_attempt(run, &request).await?;
        let (sender, receiver) = mpsc::channel(ANSWERS_MAX);
        let follower = Follower {
            control: self.clone(),
            output: Arc::clone(&self.output),
            grown: self.output.grown(),
            attempt,
            offset: request.offset,
            sender,
        };
        self.tasks.spawn(follower.run(request.follow));
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }

    async fn find_attempt(&self, run: RunId, request: &v1::ReadOutputRequest) -> Result<AttemptId, Status> {
        let mut notices = self.feed.watch(run);
        loop {
            let view = self.read_run(run).await?;
            let task = view
                .tasks
                .iter()
                .find(|task| task.name == request.task)
                .ok_or_else(|| Status::not_found(format!("run {run} has no task {:?}", request.task)))?;
            let last = task.attempts.last().map_or(0, |attempt| attempt.number);
            let number = if request.attempt == 0 { last } else { request.attempt };
            if number != 0 && number <= last {
                return Ok(InstanceId { run, index: task.index }.attempt(number));
            }
            let may_come = request.follow && !has_ended(&view);
            if !may_come || !notices.changed().await {
                return Err(Status::not_found(format!("task {:?} has no attempt {number}", request.task)));
            }
        }
    }

    /// Returns how long the output of an ended attempt is; `None` while it is live.
    async fn final_length(&self, attempt: AttemptId) -> Result<Option<u64>, Status> {
        let rows = self.store.attempts(attempt.instance).await.map_err(|error| crate::rpc::status::of_query(&error))?;
        let row = rows.into_iter().find(|row| row.attempt == attempt);
        Ok(row.filter(|row| row.state.is_final()).map(|row| row.log_bytes))
    }
}

fn has_ended(view: &v1::GetRunResponse) -> bool {
    let state = view.run.as_ref().and_then(|run| run.state.parse::<RunState>().ok());
    state.is_some_and(RunState::is_final)
}

/// Sends one attempt's output to one reader.
struct Follower {
    control: Control,
    output: Arc<OutputStore>,
    grown: broadcast::Receiver<AttemptId>,
    attempt: AttemptId,
    offset: u64,
    sender: mpsc::Sender<Result<v1::OutputPiece, Status>>,
}

impl Follower {
    async fn run(mut self, follow: bool) {
        loop {
            let end = if follow { self.control.final_length(self.attempt).await } else { Ok(Some(0)) };
            let end = match end {
                Ok(end) => end,
                Err(status) => return self.fail(status).await,
            };
            if !self.send_what_is_there().await {
                return;
            }
            if end.is_some_and(|end| self.offset >= end) {
                return;
            }
            let reader = self.sender.clone();
            tokio::select! {
                () = self.wait_for_more() => {}
                () = reader.closed() => return,
            }
        }
    }

    async fn send_what_is_there(&mut self) -> bool {
        loop {
            let bytes = match self.output.read(self.attempt, self.offset).await {
                Ok(bytes) if bytes.is_empty() => return true,
                Ok(bytes) => bytes,
                Err(error) => {
                    tracing::error!(attempt = %self.attempt, %error, "output could not be read");
                    let status = Status::internal("the output could not be read; the master's log says why");
                    self.fail(status).await;
                    return false;
                }
            };
            let piece = v1::OutputPiece { attempt: self.attempt.number, offset: self.offset, bytes };
            self.offset += piece.bytes.len() as u64;
            if self.sender.send(Ok(piece)).await.is_err() {
                return false;
            }
        }
    }

    /// Waits for a notice about this attempt; the interval covers a missed one and the end of the attempt.
    async fn wait_for_more(&mut self) {
        let notice = async {
            loop {
                match self.grown.recv().await {
                    Ok(attempt) if attempt == self.attempt => return,
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        };
        // Either way there may be more.
        let _ = tokio::time::timeout(LOOK_INTERVAL, notice).await;
    }

    async fn fail(&self, status: Status) {
        // The reader having gone, nobody needs to know.
        let _ = self.sender.send(Err(status)).await;
    }
}

//! Output while it grows.

use std::{sync::Arc, time::Duration};

use millrace_common::id::{AttemptId, InstanceId, RunId};
use millrace_proto::v1;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status};

use super::{
    Control, ReplyStream,
    fetch::elsewhere,
    watch::{READER_IDLE_MAX, farewell},
};
use crate::{
    output::{Grown, OutputStore},
    rpc::status,
};

/// Pieces that wait for a slow reader.
const PIECES_MAX: usize = 4;
/// Longest time without looking for more output, where a notice was missed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Least time between two looks for the attempt itself.
const ATTEMPT_LOOK_INTERVAL: Duration = Duration::from_millis(200);
/// How long the rest of an ended attempt's output may stay away: its executor ships it within seconds, or is gone, or
/// gave it up.
const ARRIVAL_TIME_MAX: Duration = Duration::from_secs(15);

type Pieces = mpsc::Sender<Result<v1::OutputPiece, Status>>;

/// Whether there is an attempt to read of.
enum Located {
    There(AttemptId),
    /// Not yet, and this is why not.
    Awaited(Status),
}

impl Control {
    /// Streams the output of an attempt; with `follow` until it has ended and all of it arrived.
    pub(super) async fn stream_output(
        &self,
        run: RunId,
        request: v1::ReadOutputRequest,
    ) -> Result<ReplyStream<v1::OutputPiece>, Status> {
        let place = self.place()?;
        let located = self.locate(run, &request).await?;
        if let (Located::Awaited(status), false) = (&located, request.follow) {
            return Err(status.clone());
        }
        let (sender, receiver) = mpsc::channel(PIECES_MAX);
        let control = self.clone();
        self.tasks.spawn(async move {
            let end = tokio::select! {
                biased;
                () = sender.closed() => return,
                () = control.stop.cancelled() => Err(status::stopping()),
                end = control.send_output(run, &request, located, &sender) => end,
            };
            if let Err(status) = end {
                farewell(&sender, status).await;
            }
            drop(place);
        });
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }

    async fn send_output(
        &self,
        run: RunId,
        request: &v1::ReadOutputRequest,
        located: Located,
        sender: &Pieces,
    ) -> Result<(), Status> {
        let attempt = match located {
            Located::There(attempt) => attempt,
            Located::Awaited(_) => self.wait_for_attempt(run, request).await?,
        };
        let grown = self.output.grown();
        // What is shipped while it is asked for arrives by itself; what came before this master led does not.
        let end = self.final_length(attempt).await?.unwrap_or(0);
        let unasked = if end > 0 { self.fetch_output(attempt, end).await? } else { Vec::new() };
        let output = Arc::clone(&self.output);
        let mut reader =
            Reader { output, grown, attempt, offset: request.offset, is_complete: false, sender };
        // Nothing more comes from an executor that has shipped it all to another master.
        let read = if request.follow && unasked.is_empty() {
            self.follow(&mut reader).await
        } else {
            reader.send_what_is_there().await.map(drop)
        };
        if !unasked.is_empty() && reader.offset < end {
            return Err(elsewhere(reader.offset, end, &unasked));
        }
        read
    }

    async fn wait_for_attempt(
        &self,
        run: RunId,
        request: &v1::ReadOutputRequest,
    ) -> Result<AttemptId, Status> {
        let mut notices = self.feed.watch(run);
        loop {
            match self.locate(run, request).await? {
                Located::There(attempt) => return Ok(attempt),
                Located::Awaited(_) => notices.changed().await,
            }
            tokio::time::sleep(ATTEMPT_LOOK_INTERVAL).await;
        }
    }

    /// Finds the attempt that is asked for.
    async fn locate(&self, run: RunId, request: &v1::ReadOutputRequest) -> Result<Located, Status> {
        let detail = self.run_detail(run).await?;
        let task = (0..).zip(&detail.task_names).find(|(_, name)| name.as_str() == request.task);
        let (index, name) =
            task.ok_or_else(|| status::not_found(format!("run {run} has no task {:?}", request.task)))?;
        let instance = InstanceId { run, index };
        let attempts = self.store.attempts(instance).await.map_err(|error| status::of_query(&error))?;
        let last = attempts.last().map_or(0, |one| one.attempt.number);
        let number = if request.attempt == 0 { last } else { request.attempt };
        if number != 0 && number <= last {
            return Ok(Located::There(instance.attempt(number)));
        }
        let absent = status::not_found(match number {
            0 => format!("task {name} of run {run} has not been tried"),
            number => format!("task {name} of run {run} has no attempt {number}"),
        });
        let task_ended = detail.tasks.iter().any(|task| task.index == index && task.state.is_final());
        if task_ended || detail.state.is_final() { Err(absent) } else { Ok(Located::Awaited(absent)) }
    }

    /// Sends output as it comes, until the attempt has ended and all of it was sent, or what is missing stays away.
    async fn follow(&self, reader: &mut Reader<'_>) -> Result<(), Status> {
        let mut quiet = Quiet::default();
        loop {
            // Asked before reading: what arrives in between is read.
            let end = self.final_length(reader.attempt).await?;
            let before = reader.offset;
            if !reader.send_what_is_there().await? {
                return Ok(());
            }
            let Reader { offset, is_complete, .. } = *reader;
            if let Some(end) = end {
                if offset >= end || is_complete {
                    return Ok(());
                }
                quiet.note(offset > before);
                if quiet.is_over() {
                    return Err(missing(offset, end));
                }
            }
            quiet.has_timed_out = !reader.wait_for_more().await;
        }
    }

    /// Returns how long the output of an ended attempt is; `None` while it is live.
    async fn final_length(&self, attempt: AttemptId) -> Result<Option<u64>, Status> {
        let rows = self.store.attempts(attempt.instance).await.map_err(|error| status::of_query(&error))?;
        let Some(row) = rows.into_iter().find(|row| row.attempt == attempt) else {
            return Err(status::not_found(format!("attempt {attempt} is not kept any more")));
        };
        Ok(row.state.is_final().then_some(row.log_bytes))
    }
}

fn missing(offset: u64, end: u64) -> Status {
    let message = format!(
        "the attempt wrote {end} bytes, of which {offset} have arrived; the rest is lost, or its executor is away"
    );
    status::of(Code::DataLoss, message)
}

/// How long nothing has arrived of an ended attempt, in looks.
#[derive(Debug, Default)]
struct Quiet {
    looks: u32,
    /// The last wait ended without a notice.
    has_timed_out: bool,
}

impl Quiet {
    fn note(&mut self, has_grown: bool) {
        self.looks = if has_grown { 0 } else { self.looks + u32::from(self.has_timed_out) };
    }

    fn is_over(&self) -> bool {
        LOOK_INTERVAL.saturating_mul(self.looks) >= ARRIVAL_TIME_MAX
    }
}

/// Sends one attempt's output to one reader.
struct Reader<'a> {
    output: Arc<OutputStore>,
    grown: broadcast::Receiver<Grown>,
    attempt: AttemptId,
    offset: u64,
    /// The executor said that nothing follows.
    is_complete: bool,
    sender: &'a Pieces,
}

impl Reader<'_> {
    /// Sends all that is kept; tells whether anybody still takes it.
    async fn send_what_is_there(&mut self) -> Result<bool, Status> {
        loop {
            let read = self.output.read(self.attempt, self.offset).await;
            let bytes = read.map_err(|error| {
                tracing::error!(attempt = %self.attempt, %error, "output could not be read");
                Status::internal("the output could not be read; the master's log says why")
            })?;
            if bytes.is_empty() {
                return Ok(true);
            }
            let piece = v1::OutputPiece { attempt: self.attempt.number, offset: self.offset, bytes };
            self.offset += piece.bytes.len() as u64;
            let sent = tokio::time::timeout(READER_IDLE_MAX, self.sender.send(Ok(piece))).await;
            if !matches!(sent, Ok(Ok(()))) {
                return Ok(false);
            }
        }
    }

    /// Waits for a notice about this attempt; tells whether one came. The time-out covers a missed one, and the end of
    /// the attempt.
    async fn wait_for_more(&mut self) -> bool {
        let notice = async {
            loop {
                match self.grown.recv().await {
                    Ok(notice) if notice.attempt == self.attempt => return notice.is_complete,
                    Ok(_) => {}
                    Err(_) => return false,
                }
            }
        };
        let notice = tokio::time::timeout(LOOK_INTERVAL, notice).await;
        self.is_complete |= *notice.as_ref().unwrap_or(&false);
        notice.is_ok()
    }
}

//! A run while it runs.

use std::time::Duration;

use millrace_common::{id::RunId, state::RunState};
use millrace_proto::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Control, ReplyStream};
use crate::{feed::Watch, rpc::status};

/// Views that wait for a slow reader; it then sees fewer of them.
const VIEWS_MAX: usize = 1;
/// Least time between two views of a run: people do not read faster.
const VIEW_INTERVAL: Duration = Duration::from_millis(100);
/// What each task adds to that, since a view reads the whole run.
const VIEW_INTERVAL_PER_TASK: Duration = Duration::from_micros(100);
/// How often a master that does not lead looks whether a run has moved: nobody tells it.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a reader may take nothing, as where a person reads page by page.
pub(super) const READER_IDLE_MAX: Duration = Duration::from_secs(10 * 60);

/// How long a reader may take to read why its stream ends.
const FAREWELL_TIME_MAX: Duration = Duration::from_secs(2);

type Views = mpsc::Sender<Result<v1::GetRunResponse, Status>>;

impl Control {
    /// Streams views of a run until it has ended.
    pub(super) async fn watch(&self, run: RunId) -> Result<ReplyStream<v1::GetRunResponse>, Status> {
        let place = self.place()?;
        // Subscribed before the first read: nothing falls between the two.
        let notices = self.feed.watch(run);
        let view = self.read_run(run).await?;
        let (sender, receiver) = mpsc::channel(VIEWS_MAX);
        let control = self.clone();
        self.tasks.spawn(async move {
            let end = tokio::select! {
                biased;
                () = sender.closed() => return,
                () = control.stop.cancelled() => Err(status::stopping()),
                end = control.send_views(run, view, notices, &sender) => end,
            };
            if let Err(status) = end {
                farewell(&sender, status).await;
            }
            drop(place);
        });
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }

    async fn send_views(
        &self,
        run: RunId,
        mut view: v1::GetRunResponse,
        mut notices: Watch,
        sender: &Views,
    ) -> Result<(), Status> {
        loop {
            let is_last = has_ended(&view);
            let tasks = u32::try_from(view.tasks.len()).unwrap_or(u32::MAX);
            let sent = tokio::time::timeout(READER_IDLE_MAX, sender.send(Ok(view))).await;
            if is_last || !matches!(sent, Ok(Ok(()))) {
                return Ok(());
            }
            self.wait_for_news(&mut notices).await;
            tokio::time::sleep(VIEW_INTERVAL + VIEW_INTERVAL_PER_TASK.saturating_mul(tasks)).await;
            view = self.read_run(run).await?;
        }
    }
}

impl Control {
    /// Waits until something was committed; where another master commits, or none, until it is time to look.
    async fn wait_for_news(&self, notices: &mut Watch) {
        if self.standby.roles.seat().is_some() {
            return notices.changed().await;
        }
        // A notice is as good a reason as the time, where this master leads meanwhile.
        let _ = tokio::time::timeout(LOOK_INTERVAL, notices.changed()).await;
    }
}

/// Ends a stream with a status. A reader that has gone, or reads nothing, does without it.
pub(super) async fn farewell<T>(sender: &mpsc::Sender<Result<T, Status>>, status: Status) {
    let _ = tokio::time::timeout(FAREWELL_TIME_MAX, sender.send(Err(status))).await;
}

fn has_ended(view: &v1::GetRunResponse) -> bool {
    let state = view.run.as_ref().and_then(|run| run.state.parse::<RunState>().ok());
    state.is_some_and(RunState::is_final)
}

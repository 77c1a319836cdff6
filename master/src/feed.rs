//! What was committed, for those who watch.
//!
//! Bounded: a watcher that is too slow misses notices and is told so; it then reads the store, which it does anyway.

use std::sync::Arc;

use millrace_common::id::RunId;
use millrace_core::Change;
use tokio::sync::{broadcast, watch};

/// Notices that wait for a slow watcher before it misses some.
const NOTICES_MAX: usize = 256;

/// Tells watchers which runs were touched by a commit.
#[derive(Debug, Clone)]
pub(crate) struct Feed {
    notices: broadcast::Sender<Arc<[RunId]>>,
    /// Counts commits that changed live settings.
    settings: watch::Sender<u64>,
}

impl Feed {
    pub(crate) fn new() -> Self {
        Self { notices: broadcast::Sender::new(NOTICES_MAX), settings: watch::Sender::new(0) }
    }

    /// Publishes committed changes; nobody watching costs nothing.
    pub(crate) fn publish(&self, changes: &[Change]) {
        if changes.iter().any(|change| matches!(change, Change::SettingChanged(_))) {
            self.settings.send_modify(|count| *count += 1);
        }
        if self.notices.receiver_count() == 0 {
            return;
        }
        let mut runs: Vec<RunId> = changes.iter().filter_map(run_of).collect();
        runs.sort_unstable();
        runs.dedup();
        if !runs.is_empty() {
            // Fails only where the last watcher has just gone.
            let _ = self.notices.send(runs.into());
        }
    }

    /// Watches the live settings from now on.
    pub(crate) fn watch_settings(&self) -> watch::Receiver<u64> {
        self.settings.subscribe()
    }

    /// Watches one run from now on.
    pub(crate) fn watch(&self, run: RunId) -> Watch {
        Watch { run, notices: self.notices.subscribe() }
    }
}

fn run_of(change: &Change) -> Option<RunId> {
    match change {
        Change::WorkflowApplied { .. }
        | Change::CursorMoved { .. }
        | Change::SettingChanged(_)
        | Change::ExecutorClosed { .. }
        | Change::ExecutorOpened { .. }
        | Change::ExecutorForgotten { .. } => None,
        Change::RunCreated(created) => Some(created.run),
        Change::RunMoved { run, .. } | Change::RunEnding { run, .. } => Some(*run),
        Change::TaskMoved { instance, .. } => Some(instance.run),
        Change::AttemptAssigned { attempt, .. }
        | Change::AttemptMoved { attempt, .. }
        | Change::AttemptEnded { attempt, .. } => Some(attempt.instance.run),
    }
}

/// Notices about one run.
#[derive(Debug)]
pub(crate) struct Watch {
    run: RunId,
    notices: broadcast::Receiver<Arc<[RunId]>>,
}

impl Watch {
    /// Waits until something of the run was committed since the last call, or may have been.
    pub(crate) async fn changed(&mut self) {
        loop {
            match self.notices.recv().await {
                Ok(runs) if runs.contains(&self.run) => return,
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => return,
                // The term is over and nothing changes any more; the reader is told by other means.
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, poll};
    use millrace_common::{state::RunState, time::Timestamp};

    use super::*;

    fn run(number: i64) -> RunId {
        RunId::new(Timestamp::from_micros(number * 1_000), 7)
    }

    fn moved(run: RunId) -> Change {
        let (from, to) = (RunState::Queued, RunState::Running);
        Change::RunMoved { run, from, to, at: Timestamp::default(), reason: None }
    }

    #[tokio::test]
    async fn a_watcher_hears_of_its_own_run_only() {
        let feed = Feed::new();
        let mut watch = feed.watch(run(1));
        feed.publish(&[moved(run(2))]);
        assert!(poll!(std::pin::pin!(watch.changed())).is_pending());
        feed.publish(&[moved(run(2)), moved(run(1)), moved(run(1))]);
        assert!(watch.changed().now_or_never().is_some());
        assert!(watch.changed().now_or_never().is_none(), "once for each commit");
    }

    #[tokio::test]
    async fn a_watcher_that_missed_notices_looks_again() {
        let feed = Feed::new();
        let mut watch = feed.watch(run(1));
        for _ in 0..=NOTICES_MAX {
            feed.publish(&[moved(run(2))]);
        }
        assert!(watch.changed().now_or_never().is_some());
    }
}

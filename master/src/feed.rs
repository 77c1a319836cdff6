//! What was committed, for those who watch.
//!
//! Bounded: a watcher that is too slow misses notices and is told so; it then reads the store, which it does anyway.

use std::sync::Arc;

use millrace_common::id::RunId;
use millrace_core::Change;
use tokio::sync::broadcast;

/// Notices that wait for a slow watcher before it misses some.
const NOTICES_MAX: usize = 256;

/// Tells watchers which runs were touched by a commit.
#[derive(Debug, Clone)]
pub(crate) struct Feed {
    notices: broadcast::Sender<Arc<[RunId]>>,
}

impl Feed {
    pub(crate) fn new() -> Self {
        Self { notices: broadcast::Sender::new(NOTICES_MAX) }
    }

    /// Publishes committed changes; nobody watching costs nothing.
    pub(crate) fn publish(&self, changes: &[Change]) {
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

    /// Watches one run from now on.
    pub(crate) fn watch(&self, run: RunId) -> Watch {
        Watch { run, notices: self.notices.subscribe() }
    }
}

fn run_of(change: &Change) -> Option<RunId> {
    match change {
        Change::WorkflowApplied { .. } | Change::CursorMoved { .. } => None,
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
    /// Waits until something of the run was committed since the last call, or may have been; false once the term is over.
    pub(crate) async fn changed(&mut self) -> bool {
        loop {
            match self.notices.recv().await {
                Ok(runs) if runs.contains(&self.run) => return true,
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => return true,
                Err(broadcast::error::RecvError::Closed) => return false,
            }
        }
    }
}

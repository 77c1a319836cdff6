//! Deletes what has ended and is old, a bounded part at a time, between the batches of a term.

use std::time::Duration;

use millrace_common::time::{Now, Uptime};
use millrace_runtime::chain::Chain;
use millrace_store::{CommitError, PruneError, Retention, Writer};

/// How often to look for something to delete.
const INTERVAL: Duration = Duration::from_secs(10 * 60);
/// Pause between two parts, so that batches never wait for more than one of them.
const PAUSE: Duration = Duration::from_secs(1);
/// When to look first: a start has better things to do.
const FIRST: Duration = Duration::from_secs(60);

/// Knows what to keep, and when to look for the rest.
#[derive(Debug)]
pub(crate) struct Pruner {
    retention: Retention,
    due: Uptime,
}

impl Pruner {
    pub(crate) fn new(retention: Retention, now: Now) -> Self {
        Self { retention, due: now.uptime + FIRST }
    }

    /// Returns when [`prune`](Self::prune) has something to do.
    pub(super) const fn due(&self) -> Uptime {
        self.due
    }

    /// Deletes a part where that is due.
    ///
    /// # Errors
    /// Where its transaction failed, which ends the term as for any other.
    pub(super) async fn prune(&mut self, writer: &mut Writer, now: Now) -> Result<(), CommitError> {
        if now.uptime < self.due {
            return Ok(());
        }
        let pause = match writer.prune(self.retention, now.wall).await {
            Ok(pruned) => {
                if pruned.runs > 0 {
                    tracing::info!(count = pruned.runs, "old runs deleted");
                }
                if pruned.is_more { PAUSE } else { INTERVAL }
            }
            Err(PruneError::Commit(error)) => return Err(error),
            Err(error @ (PruneError::Database(_) | PruneError::Row(_))) => {
                tracing::warn!(error = %Chain(&error), "old runs could not be deleted");
                INTERVAL
            }
        };
        self.due = now.uptime + pause;
        Ok(())
    }
}

//! Deletes what has ended and is old, a bounded part at a time, between the batches of a term.

use std::time::Duration;

use millrace_common::time::{Now, Uptime};
use millrace_core::Settings;
use millrace_runtime::chain::Chain;
use millrace_store::{CommitError, Committed, PruneError, Retention, Writer};

/// How often to look for something to delete.
const INTERVAL: Duration = Duration::from_secs(10 * 60);
/// Pause between two parts, so that batches never wait for more than one of them.
const PAUSE: Duration = Duration::from_secs(1);
/// When to look first: a start has better things to do.
const FIRST: Duration = Duration::from_secs(60);

/// Knows what to keep, and when to look for the rest.
#[derive(Debug)]
pub(crate) struct Pruner {
    /// What this master's own settings say.
    base: Retention,
    /// What is in force.
    retention: Retention,
    due: Uptime,
}

impl Pruner {
    pub(crate) fn new(retention: Retention, now: Now) -> Self {
        Self { base: retention, retention, due: now.uptime + FIRST }
    }

    /// Goes by the live settings from now on.
    pub(super) fn keep(&mut self, settings: &Settings) {
        self.retention = Retention {
            keep_for: settings.retention().or(self.base.keep_for),
            keep_runs: settings.retention_runs().or(self.base.keep_runs),
        };
    }

    /// Returns when [`prune`](Self::prune) has something to do.
    pub(super) const fn due(&self) -> Uptime {
        self.due
    }

    /// Deletes a part.
    ///
    /// # Errors
    /// Where its transaction failed, as any other may.
    pub(super) async fn prune(&mut self, writer: &mut Writer, now: Now) -> Result<Committed, CommitError> {
        // Where an outage comes between, the rest is looked for after it.
        self.due = now.uptime + PAUSE;
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
        Ok(Committed { changes: Vec::new(), effects: Vec::new(), seq: writer.seq() })
    }
}

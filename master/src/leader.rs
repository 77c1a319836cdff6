//! A term: everything that a leader owns is made here and dropped here.

pub(crate) mod inbox;
mod outbox;
mod prune;
pub(crate) mod sessions;

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use millrace_common::{
    gather::gather_time,
    time::{Clock, Uptime},
};
use millrace_core::{Change, Scheduler, lease::AuthorityEnd};
use millrace_runtime::chain::Chain;
use millrace_store::{CommitError, Writer};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use self::{inbox::Inbox, outbox::Outbox};
pub(crate) use self::{
    inbox::{Handle, LeaderGone},
    prune::Pruner,
};
use crate::{election::Authority, feed::Feed};

/// Inputs that one wake-up takes in; they share a commit.
const INPUTS_PER_WAKE_MAX: usize = 4_096;
/// How long to sleep where nothing is due: a wall clock that was set is noticed after this long at the latest.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// Why a term ended.
#[derive(Debug)]
pub(crate) enum TermEnd {
    /// The program is to stop. Everything decided is durable.
    Stopped,
    /// A commit failed or its outcome is not known.
    CommitFailed(CommitError),
    /// Another master may lead from now on.
    AuthorityOver(AuthorityEnd),
    /// The scheduler broke one of its own invariants: what it would decide next cannot be trusted.
    Broken(String),
}

/// The parts of a term.
pub(crate) struct TermParts {
    pub(crate) scheduler: Scheduler,
    pub(crate) writer: Writer,
    pub(crate) authority: Authority,
    pub(crate) inbox: Inbox,
    pub(crate) feed: Feed,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) pruner: Pruner,
}

/// What ends a term that is not broken.
#[derive(Debug, Error)]
enum LeadError {
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Authority(#[from] AuthorityEnd),
}

/// Leads until told to stop, unable to commit, without authority, or broken.
///
/// A panic ends the term like a failed commit does: nothing of the batch that it interrupted becomes visible.
pub(crate) async fn run_term(parts: TermParts, shutdown: CancellationToken) -> TermEnd {
    let span = tracing::info_span!("term", term = parts.scheduler.term().0);
    // Everything that the panic may have left half-done is dropped with it.
    let led = AssertUnwindSafe(Box::pin(lead(parts, shutdown))).catch_unwind().instrument(span).await;
    match led {
        Ok(Ok(())) => TermEnd::Stopped,
        Ok(Err(LeadError::Commit(error))) => {
            tracing::error!(error = %Chain(&error), "commit failed, the term ends");
            TermEnd::CommitFailed(error)
        }
        Ok(Err(LeadError::Authority(end))) => {
            tracing::error!(error = %end, "another master may lead, the term ends");
            TermEnd::AuthorityOver(end)
        }
        Err(panic) => {
            let problem = text_of(panic.as_ref());
            tracing::error!(error = problem, "an invariant is broken, the term ends");
            TermEnd::Broken(problem)
        }
    }
}

async fn lead(parts: TermParts, shutdown: CancellationToken) -> Result<(), LeadError> {
    let TermParts { mut scheduler, mut writer, authority, mut inbox, feed, clock, mut pruner } = parts;
    let mut outbox = Outbox::new(scheduler.term(), feed);
    let mut inbound = Vec::with_capacity(INPUTS_PER_WAKE_MAX);
    let mut gather_until = Uptime::default();
    loop {
        let now = clock.now();
        let next =
            scheduler.poll_timeout().map_or_else(|| pruner.due(), |deadline| deadline.min(pruner.due()));
        // Biased: a stop comes before new work. The arms hold no logic, so that none of it depends on which one wins.
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            () = authority.over() => {}
            () = inbox.take(&mut inbound, INPUTS_PER_WAKE_MAX) => {}
            () = tokio::time::sleep(next.since(now.uptime).min(SLEEP_MAX)) => {}
        }
        authority.check(clock.as_ref())?;
        // Whoever is about to hand something in may do so: it then shares the commit. After a quiet time nothing waits.
        match gather_until.since(clock.now().uptime) {
            Duration::ZERO => tokio::task::yield_now().await,
            wait => tokio::time::sleep(wait).await,
        }
        inbox.take_ready(&mut inbound, INPUTS_PER_WAKE_MAX);
        let now = clock.now();
        for item in inbound.drain(..) {
            if let Some(input) = outbox.admit(item) {
                scheduler.handle(now, input);
            }
        }
        scheduler.handle_timeout(now);
        while let Some(batch) = scheduler.take_batch() {
            let committed = writer.commit(batch).await?;
            log_changes(&committed.changes);
            // After the receipt of what is answered and right before the answers: whatever was said to an executor was
            // asked for while this master had authority, however long it was frozen in between.
            authority.check(clock.as_ref())?;
            outbox.release(&committed.changes, committed.effects);
            for input in outbox.take_inputs(now.wall) {
                scheduler.handle(now, input);
            }
            gather_until = clock.now().uptime + gather_time(scheduler.live_attempts());
        }
        pruner.prune(&mut writer, now).await?;
    }
}

/// Returns what a panic said.
fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned())
}

/// State changes are logged from what was committed, in this one place, so that log and database agree.
fn log_changes(changes: &[Change]) {
    for change in changes {
        match change {
            Change::WorkflowApplied { version, workflow, .. } => {
                tracing::info!(workflow = %workflow.name, version, "workflow applied");
            }
            Change::CursorMoved { workflow, skipped: Some(skipped), .. } => {
                tracing::warn!(%workflow, count = skipped.count, "scheduled intervals passed over");
            }
            Change::CursorMoved { .. } => {}
            Change::RunCreated(created) => {
                tracing::info!(run_id = %created.run, workflow = %created.workflow, "run created");
            }
            Change::RunMoved { run, from, to, .. } => {
                tracing::info!(run_id = %run, state_from = %from, state_to = %to, "run moved");
            }
            Change::RunEnding { run, reason, .. } => {
                tracing::info!(run_id = %run, %reason, "run is being ended")
            }
            Change::TaskMoved { instance, from, to, .. } => {
                tracing::debug!(run_id = %instance.run, task = instance.index, state_from = %from, state_to = %to, "task moved");
            }
            Change::AttemptAssigned { attempt, executor, .. } => {
                tracing::debug!(%attempt, executor_id = %executor, "attempt assigned");
            }
            Change::AttemptMoved { attempt, from, to, .. } => {
                tracing::debug!(%attempt, state_from = %from, state_to = %to, "attempt moved");
            }
            Change::AttemptEnded { attempt, end, .. } => {
                tracing::debug!(%attempt, state_to = %end.state, reason = %end.reason, "attempt ended");
            }
        }
    }
}

impl std::fmt::Debug for TermParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TermParts").field("term", &self.scheduler.term()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

//! Looks whether the past broke an invariant: rows of the database and histories of executors, judged by the checker.
//!
//! ```text
//! past       what the database keeps            ┐
//! ledger     what an executor has written down  ├─▶ timeline: one history, in the order of commits ─▶ checker ─▶ findings
//! order      claims and transactions in order   ┘
//! ```
//!
//! Commits are ordered by term and number, not by clocks. What executors did has times by their own clocks: it is put
//! between the commits that must have come before and after it, unless its time contradicts them by more than
//! [`CLOCK_TOLERANCE`]. What a row no longer tells is filled in so that it breaks nothing: a missing row is never a
//! finding, a contradiction is. Nothing is written.

mod findings;
mod ledger;
mod order;
mod past;
mod processes;
#[cfg(test)]
mod tests;
mod timeline;

use std::{collections::BTreeMap, time::Duration};

use millrace_common::{id::ExecutorName, time::Timestamp};
use millrace_store::{Store, query::QueryError};
use thiserror::Error;
use tokio::task::{JoinError, spawn_blocking};

pub(crate) use self::{
    findings::Findings,
    ledger::{Ledger, LedgerError},
};
use self::{past::Past, timeline::Timeline};

/// How far clocks of machines may be apart before a contradiction between them counts.
pub(crate) const CLOCK_TOLERANCE: Duration = Duration::from_secs(2);
/// How long ago the range ends where nobody says: what happened before that is told everywhere.
pub(crate) const SETTLED_AFTER: Duration = Duration::from_secs(5);
/// How long the range is where nobody says.
pub(crate) const RANGE: Duration = Duration::from_secs(24 * 60 * 60);
/// Attempts that are looked at in one go: about a kilobyte each.
pub(crate) const ATTEMPTS_MAX: u32 = 100_000;

/// Which time is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) since: Timestamp,
    pub(crate) until: Timestamp,
}

/// Why nothing can be found out.
#[derive(Debug, Error)]
pub(crate) enum VerifyError {
    /// The store does not answer.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// There is too much in the range.
    #[error(
        "there are more than {ATTEMPTS_MAX} attempts in this range: ask for a shorter one with --since and --until"
    )]
    TooMany,
    /// The program ends.
    #[error("this master is stopping")]
    Stopped(#[source] JoinError),
}

/// What came of asking each executor; the error says why its history was not read.
pub(crate) type Ledgers = BTreeMap<ExecutorName, Result<Ledger, LedgerError>>;

/// Reads what the database keeps of the range.
///
/// # Errors
/// Where the store does not answer, or there is too much to read.
pub(crate) async fn read(store: &Store, range: Range) -> Result<Past, VerifyError> {
    Past::read(store, range).await
}

/// Judges the past of a range. The ledgers were read after it.
///
/// # Errors
/// Where the store does not answer.
pub(crate) async fn judge(
    store: &Store,
    range: Range,
    mut past: Past,
    ledgers: Ledgers,
) -> Result<Findings, VerifyError> {
    past.catch_up(store, &ledgers).await?;
    // Beside the tasks that serve calls: it may take a processor for seconds.
    let judged = spawn_blocking(move || {
        let timeline = Timeline::of(&past, &ledgers);
        findings::judged(range, &past, &ledgers, timeline)
    });
    judged.await.map_err(VerifyError::Stopped)
}

//! The read side, for the API and the pages.
//!
//! Queries run on read-only connections beside the leader's writes, on any master, and see what is committed. Lists are
//! paged by key: a page names the last key that it holds, and the next one starts after it, so that a page costs the
//! same however far back it is. Dropping the future of a query is safe.

mod history;
mod run;
mod setting;
mod workflow;

use std::sync::Arc;

use millrace_common::{definition::Rejected, id::WorkflowName, term::Term};
use thiserror::Error;

pub use self::{
    history::{AttemptRow, ClaimRow, RunRow, ScheduleRow, SkipRow, TaskRow},
    run::{AttemptDetail, RunDetail, RunFilter, RunSummary, TaskDetail},
    setting::{SettingChange, SettingChangeKey},
    workflow::{LastRun, VersionSource, WorkflowSummary},
};
use crate::{
    Store,
    claim::{TermError, fence_of},
    dialect::{Row, Trouble, trouble},
    row::{Cells, RowError},
};

/// Rows that one page holds at most, whatever is asked for.
pub const PAGE_ROWS_MAX: u32 = 1_000;

/// Why a query has no answer.
#[derive(Debug, Error)]
pub enum QueryError {
    /// The database does not answer.
    #[error("the store does not answer")]
    Database(#[from] sqlx::Error),
    /// A row cannot be read.
    #[error("a row of {table} cannot be read")]
    Row {
        /// Which table.
        table: &'static str,
        /// Why.
        #[source]
        source: RowError,
    },
    /// A definition that this program does not understand, although the one that stored it did.
    #[error("version {version} of workflow {workflow} cannot be read by this program")]
    Definition {
        /// Which workflow.
        workflow: WorkflowName,
        /// Which version.
        version: u32,
        /// What is wrong with it.
        #[source]
        source: Rejected,
    },
    /// The leadership row cannot be read.
    #[error(transparent)]
    Leadership(#[from] TermError),
}

impl QueryError {
    /// Tells whether the same may be answered when the database is back.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Database(error) | Self::Leadership(TermError::Database(error)) => {
                matches!(trouble(error), Trouble::Outage | Trouble::Conflict)
            }
            Self::Leadership(_) | Self::Row { .. } | Self::Definition { .. } => false,
        }
    }
}

/// A part of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T, K> {
    /// Its rows.
    pub rows: Vec<T>,
    /// What to ask for to get the rows after these; absent on the last page.
    pub next: Option<K>,
}

/// Who leads, as far as the store knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    /// The last term that was claimed, 0 before the first.
    pub term: Term,
    /// Its last transaction.
    pub seq: u64,
    /// Who claimed it; empty before the first.
    pub holder: Arc<str>,
}

impl Store {
    /// Returns the leadership row.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn leadership(&self) -> Result<Leadership, QueryError> {
        let rows =
            self.inner.database.read("SELECT term, seq, holder FROM leadership WHERE id = 1", &[]).await?;
        let fence = fence_of(&rows)?;
        Ok(Leadership { term: fence.term, seq: fence.seq, holder: fence.holder })
    }
}

/// Returns how many rows to fetch for a page: one more than it holds, to see whether another page follows.
fn fetched(limit: u32) -> i64 {
    i64::from(limit.clamp(1, PAGE_ROWS_MAX)) + 1
}

/// Makes a page of what was fetched for it.
fn page<T, K>(mut rows: Vec<T>, limit: u32, key: impl Fn(&T) -> K) -> Page<T, K> {
    let limit = usize::try_from(limit.clamp(1, PAGE_ROWS_MAX)).unwrap_or(usize::MAX);
    let is_more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| is_more).map(key);
    Page { rows, next }
}

/// Reads each row.
fn read_all<T>(
    table: &'static str,
    rows: &[Row],
    read: impl Fn(&mut Cells<'_>) -> Result<T, RowError>,
) -> Result<Vec<T>, QueryError> {
    rows.iter()
        .map(|row| read(&mut row.cells()).map_err(|source| QueryError::Row { table, source }))
        .collect()
}

/// Reads the first row, where there is one.
fn read_one<T>(
    table: &'static str,
    rows: &[Row],
    read: impl Fn(&mut Cells<'_>) -> Result<T, RowError>,
) -> Result<Option<T>, QueryError> {
    rows.first()
        .map(|row| read(&mut row.cells()).map_err(|source| QueryError::Row { table, source }))
        .transpose()
}

//! What tests need and production must not have: faults, and changes that no core has decided.

use std::{fmt, io, time::Duration};

use millrace_common::term::Term;
use millrace_core::Change;

use crate::{
    CommitError, Store, StoreConfig, Writer,
    claim::{TermError, claim_once},
    commit::Pending,
    dialect::{Cell, Connection},
};

/// A connection that breaks while COMMIT, or a claim, is under way.
pub struct Fault {
    is_committed: bool,
    meanwhile: Box<dyn FnOnce() + Send + Sync>,
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault").field("is_committed", &self.is_committed).finish_non_exhaustive()
    }
}

impl Fault {
    /// The database never sees it.
    #[must_use]
    pub fn before_commit() -> Self {
        Self { is_committed: false, meanwhile: Box::new(|| {}) }
    }

    /// The database does it, and its answer is lost.
    #[must_use]
    pub fn after_commit() -> Self {
        Self { is_committed: true, meanwhile: Box::new(|| {}) }
    }

    /// Runs `meanwhile` between the break and the moment when the writer asks what became of its transaction.
    #[must_use]
    pub fn with(self, meanwhile: impl FnOnce() + Send + Sync + 'static) -> Self {
        Self { meanwhile: Box::new(meanwhile), ..self }
    }

    pub(crate) async fn strike(self, connection: &mut Connection) -> Result<(), sqlx::Error> {
        if self.is_committed {
            connection.commit().await?;
        } else {
            connection.rollback().await?;
        }
        (self.meanwhile)();
        Err(broken())
    }

    pub(crate) async fn strike_claim(
        self,
        connection: &mut Connection,
        cells: &[Cell],
    ) -> Result<u64, sqlx::Error> {
        if self.is_committed {
            claim_once(connection, cells).await?;
        }
        (self.meanwhile)();
        Err(broken())
    }
}

/// What happens in the middle of a transaction, after its first statement.
pub(crate) struct Pause(Box<dyn FnOnce() + Send + Sync>);

impl fmt::Debug for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pause")
    }
}

impl Pause {
    pub(crate) fn pass(self) {
        (self.0)();
    }
}

fn broken() -> sqlx::Error {
    sqlx::Error::Io(io::ErrorKind::BrokenPipe.into())
}

impl CommitError {
    /// What a writer says whose database has no room.
    #[must_use]
    pub fn disk_full() -> Self {
        Self::DiskFull(broken())
    }

    /// What a writer says whose database is away.
    #[must_use]
    pub fn unavailable(term: Term, seq: u64) -> Self {
        Self::Unavailable { term, seq, source: TermError::Database(broken()) }
    }
}

impl StoreConfig {
    /// Shortens what is waited for, so that a test need not.
    #[must_use]
    pub const fn with_short_limits(mut self) -> Self {
        self.limits.lock = Duration::from_secs(1);
        self.limits.statement = Duration::from_secs(2);
        self.limits.grace = Duration::from_secs(1);
        self
    }
}

impl Store {
    /// Lets the next claim fail.
    pub async fn inject(&self, fault: Fault) {
        *self.inner.claim_fault.lock().await = Some(fault);
    }
}

impl Writer {
    /// Lets the next COMMIT fail.
    pub fn inject(&mut self, fault: Fault) {
        self.fault = Some(fault);
    }

    /// Runs `meanwhile` in the middle of the next transaction, after the fence was advanced and before anything is written.
    pub fn pause_after_fence(&mut self, meanwhile: impl FnOnce() + Send + Sync + 'static) {
        self.pause = Some(Pause(Box::new(meanwhile)));
    }

    /// Makes changes durable that no core has decided, and returns the number of the last transaction.
    ///
    /// # Errors
    /// As [`Writer::commit`].
    pub async fn commit_changes(&mut self, changes: &[Change]) -> Result<u64, CommitError> {
        let statements = self.prepared(changes)?;
        self.settle(Pending::of(statements)).await.map(|committed| committed.seq)
    }
}

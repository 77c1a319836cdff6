//! One transaction for a batch: the fence, the changes; then the effects are handed out.
//!
//! A [`Writer`] owns the one connection that writes. Transactions are driven by plain statements, never by the driver's
//! transaction type, whose drop only queues a rollback. Whatever goes wrong closes the connection, which undoes what it
//! had begun, and closes the writer: the core has applied a batch before it is committed, so there is no going on after
//! one that is not durable. What is certain is told apart from what is not: an error before COMMIT left nothing; from
//! COMMIT on the outcome is unknown until the fence row has been read over a new connection.

mod fold;
mod rows;
mod shape;

use std::{mem, sync::Arc};

use millrace_common::term::Term;
use millrace_core::{Batch, Change, Effect};
use sqlx::SqlSafeStr;
use thiserror::Error;

use self::{
    fold::{Contradiction, Fold},
    rows::{Stamp, statements},
};
use crate::{
    Inner,
    bulk::{Statement, Texts},
    claim::{Fence, TermError, read_fence, reconnect},
    dialect::{Connection, is_disk_full, is_duplicate},
};

/// The first statement of every transaction. It locks the row, so a claim waits for us or we find its term.
const ADVANCE: &str = "UPDATE leadership SET seq = seq + 1 WHERE id = 1 AND term = ? AND seq = ?";
/// How often a transaction is sent: once more after it is certain that the first did not commit.
const COMMIT_TRIES: u32 = 2;

/// Why a batch is not durable, or not known to be. After any of these the writer is closed.
#[derive(Debug, Error)]
pub enum CommitError {
    /// The batch was decided under another term than the writer's.
    #[error("a batch of term {batch} came to the writer of term {writer}")]
    WrongTerm {
        /// The batch's term.
        batch: Term,
        /// The writer's term.
        writer: Term,
    },
    /// An earlier commit failed, or its future was dropped.
    #[error("the writer of term {0} is closed: an earlier commit failed or was abandoned")]
    Closed(Term),
    /// Another leader has claimed a later term.
    #[error("term {mine} is over: transaction {found_seq} of term {found} is the last in the store")]
    Fenced {
        /// The writer's term.
        mine: Term,
        /// The term that is stored.
        found: Term,
        /// Its last transaction.
        found_seq: u64,
    },
    /// The store holds another state than the leader assumed, or the changes do not fit each other.
    #[error("the changes do not fit what is stored: {what}")]
    Guard {
        /// What does not fit.
        what: String,
    },
    /// Something exists already that there may be only one of.
    #[error("{what} exists already")]
    Duplicate {
        /// What exists.
        what: String,
        /// Which index the database names.
        #[source]
        source: sqlx::Error,
    },
    /// There is no room on the disk. Nothing was written.
    #[error("the disk of the store is full: make room, then start again")]
    DiskFull(#[source] sqlx::Error),
    /// The database refused. Nothing was written.
    #[error("the database failed to {step}; nothing was written")]
    Database {
        /// What it was to do.
        step: &'static str,
        /// Its reason.
        #[source]
        source: sqlx::Error,
    },
    /// It is not known whether transaction `seq` committed.
    #[error("it is not known whether transaction {seq} of term {term} was committed")]
    Unknown {
        /// The writer's term.
        term: Term,
        /// The transaction's number.
        seq: u64,
        /// Why that could not be found out.
        #[source]
        source: TermError,
    },
}

impl CommitError {
    /// Tells whether the leader must end its term. It must after each of these: its memory is ahead of the store.
    #[must_use]
    pub const fn ends_term(&self) -> bool {
        match self {
            Self::WrongTerm { .. }
            | Self::Closed(_)
            | Self::Fenced { .. }
            | Self::Guard { .. }
            | Self::Duplicate { .. }
            | Self::DiskFull(_)
            | Self::Database { .. }
            | Self::Unknown { .. } => true,
        }
    }

    /// Tells whether another leader has taken over: an ordinary end, unlike the others.
    #[must_use]
    pub const fn is_fenced(&self) -> bool {
        matches!(self, Self::Fenced { .. })
    }
}

/// A batch that is durable.
#[derive(Debug)]
#[must_use = "the effects are what the batch was for"]
pub struct Committed {
    /// The facts, in the order in which they became true.
    pub changes: Vec<Change>,
    /// What to do now.
    pub effects: Vec<Effect>,
    /// Number, within the term, of the last transaction.
    pub seq: u64,
}

/// The right to write under one term. There is one in a process, and one task owns it.
#[derive(Debug)]
pub struct Writer {
    pub(crate) inner: Arc<Inner>,
    connection: Option<Connection>,
    term: Term,
    /// The last transaction that is known to be durable.
    seq: u64,
    is_closed: bool,
    texts: Texts,
    #[cfg(feature = "testing")]
    pub(crate) fault: Option<crate::testing::Fault>,
}

/// How a try ended that did not succeed.
enum Failure {
    /// Nothing was written.
    Certain(CommitError),
    /// COMMIT was sent and not answered well.
    Uncertain(sqlx::Error),
}

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        Self::Certain(error)
    }
}

impl Writer {
    pub(crate) fn new(inner: Arc<Inner>, connection: Connection, term: Term) -> Self {
        Self {
            inner,
            connection: Some(connection),
            term,
            seq: 0,
            is_closed: false,
            texts: Texts::default(),
            #[cfg(feature = "testing")]
            fault: None,
        }
    }

    /// Returns the term that it writes under.
    #[must_use]
    pub const fn term(&self) -> Term {
        self.term
    }

    /// Makes a batch durable and hands out its effects. A batch without changes needs no transaction.
    ///
    /// The future must run to its end; if it is dropped, the writer is closed.
    ///
    /// # Errors
    /// See [`CommitError`]; after any of them the writer is closed.
    pub async fn commit(&mut self, batch: Batch) -> Result<Committed, CommitError> {
        if batch.term() != self.term {
            self.is_closed = true;
            return Err(CommitError::WrongTerm { batch: batch.term(), writer: self.term });
        }
        self.write(batch.changes()).await?;
        let (changes, effects) = batch.release();
        Ok(Committed { changes, effects, seq: self.seq })
    }

    pub(crate) async fn write(&mut self, changes: &[Change]) -> Result<(), CommitError> {
        if changes.is_empty() {
            return Ok(());
        }
        let stamp = Stamp { term: self.term, seq: self.seq + 1 };
        let prepared = Fold::of(changes).map(|fold| statements(&fold, stamp));
        let prepared = prepared.map_err(|Contradiction(what)| {
            self.is_closed = true;
            CommitError::Guard { what }
        })?;
        self.transact(&prepared).await.map(drop)
    }

    /// Returns the number, within the term, of its last durable transaction; 0 before the first.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// Runs statements in one fenced transaction and returns how many rows each changed.
    pub(crate) async fn transact(&mut self, statements: &[Statement]) -> Result<Vec<u64>, CommitError> {
        // Opened again at the end, so that a future that is dropped on the way leaves the writer closed.
        if mem::replace(&mut self.is_closed, true) {
            return Err(CommitError::Closed(self.term));
        }
        let result = self.until_settled(statements).await;
        match &result {
            Ok(_) => self.is_closed = false,
            Err(_) => self.hang_up().await,
        }
        result
    }

    async fn hang_up(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.close_hard().await;
        }
    }

    async fn until_settled(&mut self, statements: &[Statement]) -> Result<Vec<u64>, CommitError> {
        let mut tries = 1;
        loop {
            let mut changed = Vec::with_capacity(statements.len());
            let source = match self.run(statements, &mut changed).await {
                Ok(()) => {
                    self.seq += 1;
                    return Ok(changed);
                }
                Err(Failure::Certain(error)) => return Err(error),
                Err(Failure::Uncertain(source)) => source,
            };
            tracing::warn!(error = %source, term = %self.term, "outcome of a commit is unknown, reading the fence");
            if self.is_durable().await? {
                self.seq += 1;
                return Ok(changed);
            }
            if tries == COMMIT_TRIES {
                return Err(refusal("commit", source));
            }
            tries += 1;
        }
    }

    /// Reads over a new connection whether the last transaction committed.
    async fn is_durable(&mut self) -> Result<bool, CommitError> {
        self.hang_up().await;
        let seq = self.seq + 1;
        let (connection, fence) = reconnect(&self.inner).await.map_err(|source| CommitError::Unknown {
            term: self.term,
            seq,
            source,
        })?;
        self.connection = Some(connection);
        if fence.term == self.term && (fence.seq == seq || fence.seq == self.seq) {
            return Ok(fence.seq == seq);
        }
        Err(self.fenced(&fence))
    }

    const fn fenced(&self, fence: &Fence) -> CommitError {
        CommitError::Fenced { mine: self.term, found: fence.term, found_seq: fence.seq }
    }

    async fn run(&mut self, statements: &[Statement], changed: &mut Vec<u64>) -> Result<(), Failure> {
        let Some(mut connection) = self.connection.take() else {
            return Err(CommitError::Closed(self.term).into());
        };
        let result = self.run_on(&mut connection, statements, changed).await;
        self.connection = Some(connection);
        result
    }

    async fn run_on(
        &mut self,
        connection: &mut Connection,
        statements: &[Statement],
        changed: &mut Vec<u64>,
    ) -> Result<(), Failure> {
        if !self.is_done_at_once(connection, statements, changed).await {
            self.run_each(connection, statements, changed).await?;
        }
        self.send_commit(connection).await.map_err(Failure::Uncertain)
    }

    /// Runs a small transaction up to its COMMIT as one message. Where anything is not as it must be, undoes it and
    /// returns false: one by one, the statements will tell what.
    async fn is_done_at_once(
        &mut self,
        connection: &mut Connection,
        statements: &[Statement],
        changed: &mut Vec<u64>,
    ) -> bool {
        let Some(sql) = self.texts.joined(&self.inner.database, ADVANCE, statements) else { return false };
        let mut cells = vec![self.term.0.into(), self.seq.into()];
        cells.extend(statements.iter().flat_map(|statement| statement.cells().iter().cloned()));
        if let Ok(rows) = connection.execute_joined(sql, &cells).await
            && let [_begun, 1, rows @ ..] = rows.as_slice()
            && rows.len() == statements.len()
            && rows.iter().zip(statements).all(|(rows, statement)| statement.is_met_by(*rows))
        {
            changed.extend(rows);
            return true;
        }
        // It may not have begun, or have been undone already: what matters shows when the next one begins.
        let _ = connection.rollback().await;
        false
    }

    async fn run_each(
        &mut self,
        connection: &mut Connection,
        statements: &[Statement],
        changed: &mut Vec<u64>,
    ) -> Result<(), CommitError> {
        connection.begin_write().await.map_err(|source| refusal("begin a transaction", source))?;
        self.advance(connection).await?;
        for statement in statements {
            let sql = self.texts.of(&self.inner.database, statement);
            match connection.execute(sql, statement.cells()).await {
                Ok(rows) if statement.is_met_by(rows) => changed.push(rows),
                result => return Err(self.explained(connection, statement, result.err()).await),
            }
        }
        Ok(())
    }

    /// Advances the fence row, first of all.
    async fn advance(&self, connection: &mut Connection) -> Result<(), CommitError> {
        let cells = [self.term.0.into(), self.seq.into()];
        let advanced = connection.execute(ADVANCE.into_sql_str(), &cells).await;
        if advanced.map_err(|source| refusal("advance the fence", source))? == 1 {
            return Ok(());
        }
        match read_fence(connection).await {
            Ok(fence) => Err(self.fenced(&fence)),
            Err(TermError::Database(source)) => Err(refusal("read the fence", source)),
            Err(TermError::Row(_) | TermError::Missing) => {
                Err(CommitError::Guard { what: "the leadership row is missing or cannot be read".to_owned() })
            }
        }
    }

    async fn send_commit(&mut self, connection: &mut Connection) -> Result<(), sqlx::Error> {
        #[cfg(feature = "testing")]
        if let Some(fault) = self.fault.take() {
            return fault.strike(connection).await;
        }
        connection.commit().await
    }

    /// Finds the row for which a statement failed: undoes all, and repeats the statement row by row.
    async fn explained(
        &mut self,
        connection: &mut Connection,
        statement: &Statement,
        error: Option<sqlx::Error>,
    ) -> CommitError {
        if let Some(source) = error
            && !is_duplicate(&source)
        {
            return refusal("write the changes", source);
        }
        let subject = statement.shape.subject;
        let unexplained = CommitError::Guard { what: format!("a {subject} among {}", statement.rows) };
        if connection.rollback().await.is_err() || connection.begin_write().await.is_err() {
            return unexplained;
        }
        for single in statement.singles() {
            let sql = self.texts.of(&self.inner.database, &single);
            match connection.execute(sql, single.cells()).await {
                Ok(rows) if single.is_met_by(rows) => {}
                Ok(_) => {
                    let what = format!("{} is missing or in another state", single.subject());
                    return CommitError::Guard { what };
                }
                Err(source) if is_duplicate(&source) => {
                    return CommitError::Duplicate { what: single.subject(), source };
                }
                Err(source) => return refusal("write the changes", source),
            }
        }
        unexplained
    }
}

fn refusal(step: &'static str, source: sqlx::Error) -> CommitError {
    if is_disk_full(&source) { CommitError::DiskFull(source) } else { CommitError::Database { step, source } }
}

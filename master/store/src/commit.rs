//! One transaction for a batch: the fence, the changes; then the effects are handed out.
//!
//! A [`Writer`] owns the one connection that writes. Transactions are driven by plain statements, never by the driver's
//! transaction type, whose drop only queues a rollback. What is certain is told apart from what is not: an error before
//! COMMIT left nothing; from COMMIT on the outcome is unknown until the fence row has been read over a new connection.
//!
//! The core has applied a batch before it is committed, so there is no going on after one that is not durable. Where the
//! database is only away, or its disk full, the writer keeps the batch, and [`retry`](Writer::retry) goes on with it when the database is
//! back; whoever leads decides for how long. Anything else closes the writer.

mod fold;
mod rows;
mod shape;
mod transaction;

use std::{mem, sync::Arc, time::Duration};

use millrace_common::term::Term;
use millrace_core::{Batch, Change, Effect};
use thiserror::Error;

use self::{
    fold::{Contradiction, Fold},
    rows::{Stamp, statements},
    transaction::Failure,
};
use crate::{
    Inner,
    bulk::{Statement, Texts},
    claim::{Fence, TermError, reconnect},
    dialect::{Connection, System, Trouble, trouble},
};

/// How often a commit connects again before the caller is told that the database is away.
const LOSSES_MAX: u32 = 2;
/// How often a transaction that another one was in the way of is sent.
const CONFLICT_TRIES: u32 = 5;
/// Wait before it is sent again; it doubles each time.
const CONFLICT_WAIT: Duration = Duration::from_millis(10);

/// Why a batch is not durable, or not known to be. Where [`ends_term`](Self::ends_term) says so the writer is closed.
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
    /// An earlier batch waits for [`Writer::retry`].
    #[error("an earlier batch of term {0} is not durable yet")]
    Unsettled(Term),
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
    /// Another server has taken the place of the one in which the term was claimed.
    #[error("term {term} ends with its database")]
    Moved {
        /// The writer's term.
        term: Term,
        /// What was found.
        #[source]
        source: TermError,
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
    /// There is no room on the disk. Nothing was written yet: [`Writer::retry`] goes on.
    #[error("the disk of the database is full: make room")]
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
    /// The database is away, or others keep it from going on. Nothing was written yet: [`Writer::retry`] goes on.
    #[error("transaction {seq} of term {term} waits for the database")]
    Unavailable {
        /// The writer's term.
        term: Term,
        /// The transaction's number.
        seq: u64,
        /// What keeps it.
        #[source]
        source: TermError,
    },
    /// It is not known whether transaction `seq` committed, because the database is away: [`Writer::retry`] finds out.
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
    /// Tells whether the leader must end its term: its memory is ahead of the store and stays so. If not, it may go on
    /// with [`Writer::retry`] for as long as its authority lasts, and must let nothing out before that succeeds.
    #[must_use]
    pub const fn ends_term(&self) -> bool {
        match self {
            Self::DiskFull(_) | Self::Unavailable { .. } | Self::Unknown { .. } => false,
            Self::WrongTerm { .. }
            | Self::Closed(_)
            | Self::Unsettled(_)
            | Self::Fenced { .. }
            | Self::Moved { .. }
            | Self::Guard { .. }
            | Self::Duplicate { .. }
            | Self::Database { .. } => true,
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
    /// The system in which the term was claimed.
    system: Option<System>,
    term: Term,
    /// The last transaction that is known to be durable.
    seq: u64,
    is_closed: bool,
    /// What is to be made durable before anything else.
    pending: Option<Pending>,
    texts: Texts,
    #[cfg(feature = "testing")]
    pub(crate) fault: Option<crate::testing::Fault>,
    #[cfg(feature = "testing")]
    pub(crate) pause: Option<crate::testing::Pause>,
}

/// A transaction on its way, and the batch that it makes durable.
#[derive(Debug)]
pub(crate) struct Pending {
    batch: Option<Batch>,
    statements: Vec<Statement>,
    /// Whether COMMIT was sent and what became of it has not been seen.
    is_sent: bool,
}

impl Pending {
    pub(crate) const fn of(statements: Vec<Statement>) -> Self {
        Self { batch: None, statements, is_sent: false }
    }
}

impl Writer {
    pub(crate) fn new(inner: Arc<Inner>, connection: Connection, system: Option<System>, term: Term) -> Self {
        Self {
            inner,
            connection: Some(connection),
            system,
            term,
            seq: 0,
            is_closed: false,
            pending: None,
            texts: Texts::default(),
            #[cfg(feature = "testing")]
            fault: None,
            #[cfg(feature = "testing")]
            pause: None,
        }
    }

    /// Returns the term that it writes under.
    #[must_use]
    pub const fn term(&self) -> Term {
        self.term
    }

    /// Returns the number, within the term, of its last durable transaction; 0 before the first.
    #[must_use]
    pub const fn seq(&self) -> u64 {
        self.seq
    }

    /// Makes a batch durable and hands out its effects. A batch without changes needs no transaction.
    ///
    /// The future must run to its end; if it is dropped, the writer is closed.
    ///
    /// # Errors
    /// See [`CommitError`]: some end the term, others leave the batch to [`retry`](Self::retry).
    pub async fn commit(&mut self, batch: Batch) -> Result<Committed, CommitError> {
        if batch.term() != self.term {
            self.is_closed = true;
            return Err(CommitError::WrongTerm { batch: batch.term(), writer: self.term });
        }
        let statements = self.prepared(batch.changes())?;
        self.settle(Pending { batch: Some(batch), statements, is_sent: false }).await
    }

    /// Goes on with what an outage kept from becoming durable, once: it connects, finds out what has become of it, and
    /// sends it where that is not there. Without anything to go on with it has nothing to do.
    ///
    /// The future must run to its end; if it is dropped, the writer is closed.
    ///
    /// # Errors
    /// As [`commit`](Self::commit). Nothing is lost while the error does not end the term.
    pub async fn retry(&mut self) -> Result<Committed, CommitError> {
        match self.pending.take() {
            Some(pending) => self.make_durable(pending).await,
            None => Ok(Committed { changes: Vec::new(), effects: Vec::new(), seq: self.seq }),
        }
    }

    /// Shows that this leader could write, by a transaction that advances the fence and changes nothing else.
    ///
    /// The future must run to its end; if it is dropped, the writer is closed.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    pub async fn probe(&mut self) -> Result<Committed, CommitError> {
        self.refuse_unsettled()?;
        self.make_durable(Pending::of(Vec::new())).await
    }

    /// Puts changes into statements.
    pub(crate) fn prepared(&mut self, changes: &[Change]) -> Result<Vec<Statement>, CommitError> {
        let stamp = Stamp { term: self.term, seq: self.seq + 1 };
        let prepared = Fold::of(changes).map(|fold| statements(&fold, stamp));
        prepared.map_err(|Contradiction(what)| {
            self.is_closed = true;
            CommitError::Guard { what }
        })
    }

    /// Makes a transaction durable, or keeps it for the next try. One without statements needs none.
    pub(crate) async fn settle(&mut self, pending: Pending) -> Result<Committed, CommitError> {
        self.refuse_unsettled()?;
        if pending.statements.is_empty() {
            Ok(self.handed_out(pending))
        } else {
            self.make_durable(pending).await
        }
    }

    const fn refuse_unsettled(&self) -> Result<(), CommitError> {
        if self.pending.is_some() { Err(CommitError::Unsettled(self.term)) } else { Ok(()) }
    }

    async fn make_durable(&mut self, mut pending: Pending) -> Result<Committed, CommitError> {
        // Opened again at the end, so that a future that is dropped on the way leaves the writer closed.
        if mem::replace(&mut self.is_closed, true) {
            return Err(CommitError::Closed(self.term));
        }
        if let Err(error) = self.until_settled(&mut pending).await {
            self.hang_up().await;
            if !error.ends_term() {
                self.pending = Some(pending);
                self.is_closed = false;
            }
            return Err(error);
        }
        self.is_closed = false;
        Ok(self.handed_out(pending))
    }

    fn handed_out(&self, pending: Pending) -> Committed {
        let (changes, effects) = pending.batch.map(Batch::release).unwrap_or_default();
        Committed { changes, effects, seq: self.seq }
    }

    async fn hang_up(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.close_hard().await;
        }
    }

    async fn until_settled(&mut self, pending: &mut Pending) -> Result<(), CommitError> {
        let (mut losses, mut conflicts) = (0, 0);
        let mut lost = None;
        let mut wait = CONFLICT_WAIT;
        loop {
            if self.connection.is_none() {
                if self.is_durable(pending.is_sent).await? {
                    self.seq += 1;
                    return Ok(());
                }
                pending.is_sent = false;
                // Sent often enough, and now it is certain that nothing was written.
                if let Some(source) = lost.take()
                    && losses == LOSSES_MAX
                {
                    return Err(self.spent(source));
                }
            }
            match self.run(&pending.statements).await {
                Ok(()) => {
                    self.seq += 1;
                    return Ok(());
                }
                Err(Failure::Certain(error)) => return Err(error),
                Err(Failure::Conflict(source)) => {
                    conflicts += 1;
                    if conflicts == CONFLICT_TRIES {
                        return Err(self.away(false, source.into()));
                    }
                    tracing::info!(error = %source, "another transaction was in the way, sending again");
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                Err(Failure::Lost { source, is_sent }) => {
                    tracing::warn!(error = %source, term = %self.term, is_sent, "the database was lost, connecting again");
                    pending.is_sent = is_sent;
                    self.hang_up().await;
                    losses += 1;
                    lost = Some(source);
                }
            }
        }
    }

    /// Connects again, and tells whether the last transaction committed.
    async fn is_durable(&mut self, is_sent: bool) -> Result<bool, CommitError> {
        let (connection, fence) = match reconnect(&self.inner, self.system.as_ref(), self.term).await {
            Ok(found) => found,
            Err(source @ TermError::Moved { .. }) => {
                return Err(CommitError::Moved { term: self.term, source });
            }
            Err(source) if source.is_outage() => return Err(self.away(is_sent, source)),
            Err(source) => return Err(CommitError::Guard { what: source.to_string() }),
        };
        self.connection = Some(connection);
        if fence.term == self.term && (fence.seq == self.seq + 1 || fence.seq == self.seq) {
            return Ok(fence.seq > self.seq);
        }
        Err(self.fenced(&fence))
    }

    const fn fenced(&self, fence: &Fence) -> CommitError {
        CommitError::Fenced { mine: self.term, found: fence.term, found_seq: fence.seq }
    }

    /// Says why a transaction was not written although the database could be connected to each time.
    fn spent(&self, source: sqlx::Error) -> CommitError {
        match trouble(&source) {
            Trouble::Outage | Trouble::Conflict => self.away(false, source.into()),
            Trouble::Full => CommitError::DiskFull(source),
            Trouble::Duplicate | Trouble::Other => CommitError::Database { step: "commit", source },
        }
    }

    fn away(&self, is_sent: bool, source: TermError) -> CommitError {
        let (term, seq) = (self.term, self.seq + 1);
        if is_sent {
            CommitError::Unknown { term, seq, source }
        } else {
            CommitError::Unavailable { term, seq, source }
        }
    }
}

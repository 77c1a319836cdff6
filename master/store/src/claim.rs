//! A new leader takes the fence row.
//!
//! From then on no transaction of an earlier term can commit: each of them begins by advancing the same row under its own
//! term, and finds another one there. A transaction that began before and does not end, of a leader that is frozen or cut
//! off, holds the row: it is waited for as long as the server waits for a lock, and then its connection is ended.

use std::{sync::Arc, time::Duration};

use millrace_common::term::Term;
use thiserror::Error;

use crate::{
    Inner, Store, Writer,
    dialect::{Cell, Connection, Purpose, Row, System, Trouble, silence, trouble},
    row::RowError,
};

/// Characters of a holder, as its column has them.
const HOLDER_CHARS_MAX: usize = 191;
/// How often an outcome that is not known is asked for.
pub(crate) const RESOLVE_TRIES: u32 = 4;
/// Wait before asking again; it doubles each time.
pub(crate) const RESOLVE_WAIT: Duration = Duration::from_millis(100);
/// How long asking may take altogether: one wait for a lock that a dead connection of ours holds, and a second for the
/// rest. A leader counts on it: between two tries it looks whether it may still lead.
const RESOLVE_TIME_MAX: Duration = Duration::from_secs(6);
/// How often a claim is sent while others hold the row. Before each but the first, their connections are ended.
const CLAIM_TRIES: u32 = 3;

/// The columns of before come first: MySQL and MariaDB assign from left to right.
const CLAIM: &str = "UPDATE leadership SET before_term = term, before_seq = seq, term = ?, seq = 0, holder = ? \
     WHERE id = 1 AND term < ?";
const FENCE: &str = "SELECT term, seq, holder FROM leadership WHERE id = 1";

/// Why the stored term cannot be read.
#[derive(Debug, Error)]
pub enum TermError {
    /// The database does not answer.
    #[error("the stored term cannot be read")]
    Database(#[from] sqlx::Error),
    /// The row makes no sense.
    #[error("the leadership row cannot be read")]
    Row(#[from] RowError),
    /// The row is not there.
    #[error("the leadership row is missing: this is no database of a store")]
    Missing,
    /// The server follows another one and takes no writes.
    #[error("the database server is a replica: give the address of the one that takes writes")]
    Replica,
    /// Another server, or another line of its history, has taken the place of the one that was known.
    #[error("the database is now {found} and was {known}: what was committed last may not be there")]
    Moved {
        /// What was known.
        known: Arc<str>,
        /// What answers now.
        found: Arc<str>,
    },
}

impl TermError {
    /// Tells whether the answer may be another one when the database is back.
    pub(crate) fn is_outage(&self) -> bool {
        match self {
            // Whatever keeps a connection from being made may pass: the file's folder is mounted again, a password that
            // is being changed is changed everywhere.
            Self::Database(_) | Self::Replica => true,
            Self::Row(_) | Self::Missing | Self::Moved { .. } => false,
        }
    }
}

/// Why a term could not be claimed.
#[derive(Debug, Error)]
pub enum ClaimError {
    /// The same or a later term was claimed before.
    #[error("term {asked} cannot be claimed: {holder:?} has claimed term {stored}")]
    Superseded {
        /// The term asked for.
        asked: Term,
        /// The term that is stored.
        stored: Term,
        /// Who claimed it.
        holder: Arc<str>,
    },
    /// The term is not a number that the store can hold.
    #[error("term {0} is out of range")]
    OutOfRange(Term),
    /// The holder's name is too long.
    #[error("the holder's name has {0} characters, at most {HOLDER_CHARS_MAX} are kept")]
    Holder(usize),
    /// The database did not do it.
    #[error("term {term} could not be claimed")]
    Database {
        /// Which term.
        term: Term,
        /// The database's reason.
        #[source]
        source: sqlx::Error,
    },
    /// The database is not one to lead with. Nothing was written.
    #[error("term {term} cannot be claimed here")]
    Unfit {
        /// Which term.
        term: Term,
        /// What is wrong with the database.
        #[source]
        source: TermError,
    },
    /// It is not known whether the database did it.
    #[error("it is not known whether term {term} was claimed")]
    Unknown {
        /// Which term.
        term: Term,
        /// Why that could not be found out.
        #[source]
        source: TermError,
    },
}

/// What the fence row says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fence {
    pub(crate) term: Term,
    pub(crate) seq: u64,
    pub(crate) holder: Arc<str>,
}

impl Store {
    /// Returns the last term that was claimed, 0 before the first.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn stored_term(&self) -> Result<Term, TermError> {
        let rows = self.inner.database.read(FENCE, &[]).await?;
        Ok(fence_of(&rows)?.term)
    }

    /// Takes the right to write under `term`, which must be higher than all before. `holder` names this one process and
    /// no other: it settles a claim whose outcome is not known at first.
    ///
    /// The future must run to its end.
    ///
    /// # Errors
    /// Where the term is not higher, or the database does not answer.
    pub async fn claim(&self, term: Term, holder: &str) -> Result<Writer, ClaimError> {
        if term.0 == 0 || i64::try_from(term.0).is_err() {
            return Err(ClaimError::OutOfRange(term));
        }
        if holder.chars().count() > HOLDER_CHARS_MAX {
            return Err(ClaimError::Holder(holder.chars().count()));
        }
        let (mut connection, system) = self.inner.lead().await.map_err(|source| match source {
            TermError::Database(source) => ClaimError::Database { term, source },
            source => ClaimError::Unfit { term, source },
        })?;
        let unknown = |source| ClaimError::Unknown { term, source };
        let cells = [term.0.into(), holder.into(), term.0.into()];
        let source = match self.inner.press_claim(&mut connection, &cells, term).await {
            Ok(1) => return Ok(Writer::new(Arc::clone(&self.inner), connection, system, term)),
            Ok(_) => None,
            Err(error) => {
                connection.close_hard().await;
                let (again, _) = reconnect(&self.inner, system.as_ref(), term).await.map_err(unknown)?;
                connection = again;
                Some(error)
            }
        };
        let fence = read_fence(&mut connection).await.map_err(unknown)?;
        match source {
            Some(_) if fence == (Fence { term, seq: 0, holder: holder.into() }) => {
                Ok(Writer::new(Arc::clone(&self.inner), connection, system, term))
            }
            Some(source) if fence.term < term => Err(ClaimError::Database { term, source }),
            _ => Err(ClaimError::Superseded { asked: term, stored: fence.term, holder: fence.holder }),
        }
    }
}

impl Inner {
    /// Opens a connection to lead with, and says which system it is to.
    pub(crate) async fn lead(&self) -> Result<(Connection, Option<System>), TermError> {
        if let Some(connection) = self.spare.lock().await.take() {
            return Ok((connection, None));
        }
        let mut connection = self.database.connect(Purpose::Lead).await?;
        let server = connection.server().await?;
        if server.as_ref().is_some_and(|server| server.is_replica) {
            return Err(TermError::Replica);
        }
        Ok((connection, server.map(|server| server.system)))
    }

    /// Sends the claim, and again after the connections of those were ended who would not let go of the row.
    async fn press_claim(
        &self,
        connection: &mut Connection,
        cells: &[Cell],
        term: Term,
    ) -> Result<u64, sqlx::Error> {
        let mut tries = 1;
        loop {
            match self.send_claim(connection, cells).await {
                Err(error) if trouble(&error) == Trouble::Conflict && tries < CLAIM_TRIES => {
                    tries += 1;
                    if !unblock(connection, term).await? {
                        return Ok(0);
                    }
                }
                result => return result,
            }
        }
    }

    async fn send_claim(&self, connection: &mut Connection, cells: &[Cell]) -> Result<u64, sqlx::Error> {
        #[cfg(feature = "testing")]
        if let Some(fault) = self.claim_fault.lock().await.take() {
            return fault.strike_claim(connection, cells).await;
        }
        claim_once(connection, cells).await
    }
}

/// Takes the row and notes that in the history of claims, in one transaction. Returns how many rows were taken.
pub(crate) async fn claim_once(connection: &mut Connection, cells: &[Cell]) -> Result<u64, sqlx::Error> {
    connection.begin_write().await?;
    match claim_and_note(connection, cells).await {
        Ok(1) => connection.commit().await.map(|()| 1),
        failed => {
            connection.rollback().await?;
            failed
        }
    }
}

async fn claim_and_note(connection: &mut Connection, cells: &[Cell]) -> Result<u64, sqlx::Error> {
    let taken = connection.execute(CLAIM, cells).await?;
    if taken == 1 {
        connection.execute(connection.claim_note(), &[]).await?;
    }
    Ok(taken)
}

/// Ends the connections of other leaders, unless one of them has a later term than ours: then it is we who have to go.
async fn unblock(connection: &mut Connection, mine: Term) -> Result<bool, sqlx::Error> {
    // What is committed shows without waiting for whoever holds the row.
    let rows = connection.fetch(FENCE, &[]).await?;
    if fence_of(&rows).is_ok_and(|fence| fence.term > mine) {
        return Ok(false);
    }
    let ended = connection.end_other_leaders().await?;
    tracing::warn!(term = %mine, ended, "the leadership row is held by an old transaction, its connection was ended");
    Ok(true)
}

/// Connects again and reads the fence row, after whoever holds it: what is read then is settled. `known` is the system
/// that the term was claimed in.
pub(crate) async fn reconnect(
    inner: &Inner,
    known: Option<&System>,
    mine: Term,
) -> Result<(Connection, Fence), TermError> {
    // Where the server keeps silent the connection is dropped: it is nobody's but ours, and nothing is written on it.
    let resolved = tokio::time::timeout(RESOLVE_TIME_MAX, resolve(inner, known, mine)).await;
    resolved.unwrap_or_else(|_| Err(TermError::Database(silence())))
}

async fn resolve(
    inner: &Inner,
    known: Option<&System>,
    mine: Term,
) -> Result<(Connection, Fence), TermError> {
    let mut wait = RESOLVE_WAIT;
    let mut tries = 1;
    loop {
        match settled(inner, known, mine).await {
            Err(error) if tries < RESOLVE_TRIES && error.is_outage() => {
                tracing::warn!(error = %error, "database does not answer, asking again");
                tokio::time::sleep(wait).await;
                wait *= 2;
                tries += 1;
            }
            result => return result,
        }
    }
}

async fn settled(
    inner: &Inner,
    known: Option<&System>,
    mine: Term,
) -> Result<(Connection, Fence), TermError> {
    let (mut connection, found) = inner.lead().await?;
    if let (Some(known), Some(found)) = (known, found)
        && *known != found
    {
        connection.close_hard().await;
        return Err(TermError::Moved { known: Arc::clone(known), found });
    }
    match settled_fence(&mut connection, mine).await {
        Ok(fence) => Ok((connection, fence)),
        Err(error) => {
            connection.close_hard().await;
            Err(error)
        }
    }
}

async fn settled_fence(connection: &mut Connection, mine: Term) -> Result<Fence, TermError> {
    connection.begin_write().await?;
    let rows = match connection.fetch(connection.settled_fence(), &[]).await {
        Ok(rows) => rows,
        // A connection of our own, from before, or an older leader's. It will not commit any more, or it has.
        Err(error) if trouble(&error) == Trouble::Conflict => {
            connection.rollback().await?;
            if unblock(connection, mine).await? {
                return Err(error.into());
            }
            return read_fence(connection).await;
        }
        Err(error) => return Err(error.into()),
    };
    connection.rollback().await?;
    fence_of(&rows)
}

pub(crate) async fn read_fence(connection: &mut Connection) -> Result<Fence, TermError> {
    let rows = connection.fetch(FENCE, &[]).await?;
    fence_of(&rows)
}

pub(crate) fn fence_of(rows: &[Row]) -> Result<Fence, TermError> {
    let row = rows.first().ok_or(TermError::Missing)?;
    let mut cells = row.cells();
    Ok(Fence { term: cells.term()?, seq: cells.long()?, holder: cells.text()? })
}

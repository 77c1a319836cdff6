//! A new leader takes the fence row.
//!
//! From then on no transaction of an earlier term can commit: each of them begins by advancing the same row under its own
//! term, and finds another one there.

use std::{sync::Arc, time::Duration};

use millrace_common::term::Term;
use sqlx::SqlSafeStr;
use thiserror::Error;

use crate::{
    Inner, Store, Writer,
    dialect::{Cell, Connection, Row},
    row::RowError,
};

/// Characters of a holder, as its column has them.
const HOLDER_CHARS_MAX: usize = 191;
/// How often an outcome that is not known is asked for.
pub(crate) const RESOLVE_TRIES: u32 = 4;
/// Wait before asking again; it doubles each time.
pub(crate) const RESOLVE_WAIT: Duration = Duration::from_millis(100);

const CLAIM: &str = "UPDATE leadership SET term = ?, seq = 0, holder = ? WHERE id = 1 AND term < ?";
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
        let failed = |source| ClaimError::Database { term, source };
        let mut connection = self.inner.connect().await.map_err(failed)?;
        let cells = [term.0.into(), holder.into(), term.0.into()];
        let source = match self.inner.send_claim(&mut connection, &cells).await {
            Ok(1) => return Ok(Writer::new(Arc::clone(&self.inner), connection, term)),
            Ok(_) => None,
            Err(error) => {
                connection.close_hard().await;
                let (again, _) =
                    reconnect(&self.inner).await.map_err(|source| ClaimError::Unknown { term, source })?;
                connection = again;
                Some(error)
            }
        };
        let fence =
            read_fence(&mut connection).await.map_err(|source| ClaimError::Unknown { term, source })?;
        match source {
            Some(_) if fence == (Fence { term, seq: 0, holder: holder.into() }) => {
                Ok(Writer::new(Arc::clone(&self.inner), connection, term))
            }
            Some(source) if fence.term < term => Err(failed(source)),
            _ => Err(ClaimError::Superseded { asked: term, stored: fence.term, holder: fence.holder }),
        }
    }
}

impl Inner {
    async fn send_claim(&self, connection: &mut Connection, cells: &[Cell]) -> Result<u64, sqlx::Error> {
        #[cfg(feature = "testing")]
        if let Some(fault) = self.claim_fault.lock().await.take() {
            return fault.strike_claim(connection, CLAIM.into_sql_str(), cells).await;
        }
        connection.execute(CLAIM.into_sql_str(), cells).await
    }
}

/// Connects again and reads the fence row, waiting for whoever writes: what is read then is settled.
pub(crate) async fn reconnect(inner: &Inner) -> Result<(Connection, Fence), TermError> {
    let mut wait = RESOLVE_WAIT;
    let mut tries = 1;
    loop {
        match settled(inner).await {
            Err(error) if tries < RESOLVE_TRIES => {
                tracing::warn!(error = %error, "database does not answer, asking again");
                tokio::time::sleep(wait).await;
                wait *= 2;
                tries += 1;
            }
            result => return result,
        }
    }
}

async fn settled(inner: &Inner) -> Result<(Connection, Fence), TermError> {
    let mut connection = inner.database.connect().await?;
    connection.begin_write().await?;
    let fence = read_fence(&mut connection).await?;
    connection.rollback().await?;
    Ok((connection, fence))
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

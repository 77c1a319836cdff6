//! What an error of a driver means for who called.

use sqlx::{
    error::{DatabaseError, ErrorKind},
    mysql::MySqlDatabaseError,
    postgres::PgDatabaseError,
    sqlite::SqliteError,
};

use super::{mysql, postgres, sqlite};

/// What an error means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// A row exists already.
    Duplicate,
    /// Another transaction was in the way. The same again may succeed.
    Conflict,
    /// The server has gone, is going, or is only just coming up. Over a new connection the same may succeed.
    Outage,
    /// There is no room to write.
    Full,
    /// Anything else: the same again would fail the same way.
    Other,
}

impl Trouble {
    /// Returns what the driver's own classification says.
    pub(super) fn of_kind(error: &dyn DatabaseError) -> Self {
        match error.kind() {
            ErrorKind::UniqueViolation => Self::Duplicate,
            _ => Self::Other,
        }
    }
}

/// Tells what an error means.
pub(crate) fn trouble(error: &sqlx::Error) -> Trouble {
    if let sqlx::Error::Database(error) = error {
        if let Some(error) = error.try_downcast_ref::<SqliteError>() {
            return sqlite::trouble(error);
        }
        if let Some(error) = error.try_downcast_ref::<PgDatabaseError>() {
            return postgres::trouble(error);
        }
        return error.try_downcast_ref::<MySqlDatabaseError>().map_or(Trouble::Other, mysql::trouble);
    }
    match error {
        // A connection that breaks in the middle of a message shows as a protocol error as well.
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::PoolTimedOut => {
            Trouble::Outage
        }
        _ => Trouble::Other,
    }
}

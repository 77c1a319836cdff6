//! The few things in which databases differ, behind a few types that do not.
//!
//! A verb says what it wants with a [`Cell`] for each `?` of its SQL and reads [`Cells`]; only this module knows which
//! driver carries them. Statements over many rows are described by a [`Shape`] and put into words
//! here, because that is where the dialects part.
//!
//! A future of a [`Connection`] must run to its end: dropping it leaves the connection in the middle of a statement.
//! A caller that cannot promise that gives up the connection with it.

mod cell;
mod connection;
mod mysql;
mod postgres;
mod server;
mod sqlite;
mod trouble;

use std::{sync::Arc, time::Duration};

use sqlx::{mysql::MySqlRow, postgres::PgRow, sqlite::SqliteRow};

pub use self::server::{SettingWarning, TooOld};
pub(crate) use self::{
    cell::Cell,
    connection::{Connection, Migrated, silence},
    mysql::MySql,
    postgres::Postgres,
    server::Server,
    sqlite::Sqlite,
    trouble::{Trouble, trouble},
};
use crate::{
    bulk::{Shape, Statement},
    row::Cells,
};

/// The first statement of every transaction of a leader. It locks the row, so a claim waits for us or we find its term.
pub(crate) const ADVANCE: &str = "UPDATE leadership SET seq = seq + 1 WHERE id = 1 AND term = ? AND seq = ?";

/// Reads that one process has under way at a server. Pages ask for little; two cores are busy with eight.
const READERS_MAX: u32 = 8;
/// How long a query waits for a connection.
const READER_WAIT_MAX: Duration = Duration::from_secs(5);
/// How long the end of the program waits for queries that are under way.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// A database that this build can talk to.
#[derive(Debug)]
pub(crate) enum Database {
    Sqlite(Sqlite),
    Postgres(Postgres),
    MySql(MySql),
}

/// What a connection is for. A server ends what takes longer than its purpose allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Checks and migrations, which take as long as they take.
    Prepare,
    /// The writes of a leader. The server shows it as that, so that the next leader can end it.
    Lead,
    /// Reading all that is live.
    Load,
}

impl Database {
    /// Opens a connection that is nobody else's.
    pub(crate) async fn connect(&self, purpose: Purpose) -> Result<Connection, sqlx::Error> {
        match self {
            Self::Sqlite(database) => database.connect().await.map(Connection::of_sqlite),
            Self::Postgres(database) => database.connect(purpose).await,
            Self::MySql(database) => database.connect(purpose).await,
        }
    }

    /// Runs a query on one of the read-only connections. Dropping its future is safe.
    pub(crate) async fn read(&self, sql: &'static str, cells: &[Cell]) -> Result<Vec<Row>, sqlx::Error> {
        match self {
            Self::Sqlite(database) => database.read(sql, cells).await,
            Self::Postgres(database) => database.read(sql, cells).await,
            Self::MySql(database) => database.read(sql, cells).await,
        }
    }

    /// Ends the read-only connections once they are idle.
    pub(crate) async fn close(&self) {
        let close = async {
            match self {
                Self::Sqlite(database) => database.close().await,
                Self::Postgres(database) => database.close().await,
                Self::MySql(database) => database.close().await,
            }
        };
        if tokio::time::timeout(CLOSE_MAX, close).await.is_err() {
            tracing::warn!("queries that are under way are abandoned");
        }
    }

    /// Returns the query for the task instances of live runs: for each run its id and texts in which each instance is
    /// `index state attempts failures losses rejections retry_at;`, the last part empty where it is NULL.
    pub(crate) const fn live_tasks(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => sqlite::LIVE_TASKS,
            Self::Postgres(_) => postgres::LIVE_TASKS,
            Self::MySql(_) => mysql::LIVE_TASKS,
        }
    }

    /// Returns the query for live attempts: for each run its id and texts in which each attempt is
    /// `index number state assigned_at executor spool machine;`, the spool in hexadecimal digits, the machine empty where
    /// it is NULL.
    pub(crate) const fn live_attempts(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => sqlite::LIVE_ATTEMPTS,
            Self::Postgres(_) => postgres::LIVE_ATTEMPTS,
            Self::MySql(_) => mysql::LIVE_ATTEMPTS,
        }
    }

    /// Tells whether the database takes these statements, and the beginning of their transaction, as one.
    pub(crate) fn joins(&self, statements: &[Statement]) -> bool {
        match self {
            Self::Sqlite(_) => sqlite::joins(statements),
            Self::Postgres(_) => postgres::joins(statements),
            Self::MySql(_) => false,
        }
    }

    /// Puts statements, each over so many rows, into the words of one; nothing where the database does not take them so.
    pub(crate) fn joined(&self, shapes: &[(&Shape, usize)]) -> Option<String> {
        match self {
            Self::Sqlite(_) => Some(sqlite::joined(shapes)),
            Self::Postgres(_) => Some(postgres::joined(shapes)),
            Self::MySql(_) => None,
        }
    }

    /// Puts a statement over `rows` rows into words.
    pub(crate) fn text(&self, shape: &Shape, rows: usize) -> String {
        match self {
            Self::Sqlite(_) => sqlite::text(shape, rows),
            Self::Postgres(_) => postgres::text(shape),
            Self::MySql(_) => mysql::text(shape),
        }
    }

    /// Returns what tells the words for `rows` rows from those for others: 0 where they are the same for all.
    pub(crate) fn size(&self, rows: usize) -> usize {
        match self {
            Self::Sqlite(_) => sqlite::size(rows),
            Self::Postgres(_) | Self::MySql(_) => 0,
        }
    }
}

/// A row of an answer.
pub(crate) enum Row {
    Sqlite(SqliteRow),
    Postgres(PgRow),
    MySql(MySqlRow),
}

impl Row {
    /// Starts to read its columns, in their order.
    pub(crate) const fn cells(&self) -> Cells<'_> {
        Cells::new(self)
    }
}

/// Which system a server is: another one may hold less than what was committed to the first.
pub(crate) type System = Arc<str>;

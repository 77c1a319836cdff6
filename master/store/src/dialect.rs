//! The few things in which databases differ, behind four types that do not.
//!
//! A verb says what it wants with a [`Cell`] for each `?` of its SQL and reads [`Cells`]; only this module knows which
//! driver carries them. Statements over many rows are described by a [`Shape`] and put into words
//! here, because that is where the dialects part.
//!
//! A future of a [`Connection`] must run to its end: dropping it leaves the connection in the middle of a statement.
//! A caller that cannot promise that gives up the connection with it.

mod sqlite;

use std::sync::Arc;

use millrace_common::{
    id::{ExecutorName, RunId, SpoolId, TaskName, WorkflowName},
    time::Timestamp,
};
use sqlx::{SqlStr, sqlite::SqliteConnection};

pub(crate) use self::sqlite::Sqlite;
use crate::{bulk::Shape, row::Cells};

/// A database that this build can talk to.
#[derive(Debug)]
pub(crate) enum Database {
    Sqlite(Sqlite),
}

impl Database {
    /// Opens a connection that may write and is nobody else's.
    pub(crate) async fn connect(&self) -> Result<Connection, sqlx::Error> {
        match self {
            Self::Sqlite(database) => database.connect().await.map(Connection::Sqlite),
        }
    }

    /// Runs a query on one of the read-only connections. Dropping its future is safe.
    pub(crate) async fn read(&self, sql: &'static str, cells: &[Cell]) -> Result<Vec<Row>, sqlx::Error> {
        match self {
            Self::Sqlite(database) => database.read(sql, cells).await,
        }
    }

    /// Ends the read-only connections once they are idle.
    pub(crate) async fn close(&self) {
        match self {
            Self::Sqlite(database) => database.close().await,
        }
    }

    /// Returns the query for the task instances of live runs: for each run its id and a text in which each instance is
    /// `index state attempts failures losses rejections retry_at;`, the last part empty where it is NULL.
    pub(crate) const fn live_tasks(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => sqlite::LIVE_TASKS,
        }
    }

    /// Returns the query for live attempts: for each run its id and a text in which each attempt is
    /// `index number state assigned_at executor spool machine;`, the spool in hexadecimal digits, the machine empty where
    /// it is NULL.
    pub(crate) const fn live_attempts(&self) -> &'static str {
        match self {
            Self::Sqlite(_) => sqlite::LIVE_ATTEMPTS,
        }
    }

    /// Returns the beginning of a transaction and statements as one text, where the database takes that.
    pub(crate) fn joined(&self, texts: &[&str]) -> Option<String> {
        match self {
            Self::Sqlite(_) => Some(sqlite::joined(texts)),
        }
    }

    /// Puts a statement over `rows` rows into words.
    pub(crate) fn text(&self, shape: &Shape, rows: usize) -> String {
        match self {
            Self::Sqlite(_) => sqlite::text(shape, rows),
        }
    }
}

/// A connection with one owner.
#[derive(Debug)]
pub(crate) enum Connection {
    Sqlite(SqliteConnection),
}

impl Connection {
    /// Begins a transaction that holds the right to write from the start, so that nothing later waits for it.
    pub(crate) async fn begin_write(&mut self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(connection) => sqlite::control(connection, "BEGIN IMMEDIATE").await,
        }
    }

    /// Begins a transaction that sees one state of the database.
    pub(crate) async fn begin_read(&mut self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(connection) => sqlite::control(connection, "BEGIN").await,
        }
    }

    pub(crate) async fn commit(&mut self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(connection) => sqlite::control(connection, "COMMIT").await,
        }
    }

    pub(crate) async fn rollback(&mut self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(connection) => sqlite::control(connection, "ROLLBACK").await,
        }
    }

    /// Runs a statement and returns how many rows it changed.
    pub(crate) async fn execute(&mut self, sql: SqlStr, cells: &[Cell]) -> Result<u64, sqlx::Error> {
        match self {
            Self::Sqlite(connection) => sqlite::execute(connection, sql, cells).await,
        }
    }

    /// Runs what [`Database::joined`] gave and returns how many rows each of the statements changed.
    pub(crate) async fn execute_joined(
        &mut self,
        sql: SqlStr,
        cells: &[Cell],
    ) -> Result<Vec<u64>, sqlx::Error> {
        match self {
            Self::Sqlite(connection) => sqlite::execute_joined(connection, sql, cells).await,
        }
    }

    /// Runs a query and hands each row to `take`, one at a time.
    pub(crate) async fn each<E: From<sqlx::Error>>(
        &mut self,
        sql: &'static str,
        take: impl FnMut(&Row) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Self::Sqlite(connection) => sqlite::each(connection, sql, take).await,
        }
    }

    /// Runs a query and returns its rows.
    pub(crate) async fn fetch(&mut self, sql: &'static str, cells: &[Cell]) -> Result<Vec<Row>, sqlx::Error> {
        match self {
            Self::Sqlite(connection) => sqlite::fetch(connection, sql, cells).await,
        }
    }

    /// Ends the connection without a word: what it had begun is undone by the server.
    pub(crate) async fn close_hard(self) {
        match self {
            Self::Sqlite(connection) => sqlite::close_hard(connection).await,
        }
    }
}

/// A row of an answer.
pub(crate) struct Row(sqlx::sqlite::SqliteRow);

impl Row {
    /// Starts to read its columns, in their order.
    pub(crate) const fn cells(&self) -> Cells<'_> {
        Cells::new(&self.0)
    }
}

/// Tells whether there was no room to write.
pub(crate) fn is_disk_full(error: &sqlx::Error) -> bool {
    sqlite::is_disk_full(error)
}

/// Tells whether a row exists already.
pub(crate) fn is_duplicate(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

/// A value to bind.
#[derive(Debug, Clone)]
pub(crate) enum Cell {
    Null,
    Int(i64),
    Text(Arc<str>),
    Id([u8; 16]),
}

impl From<i64> for Cell {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<u32> for Cell {
    fn from(value: u32) -> Self {
        Self::Int(value.into())
    }
}

impl From<u8> for Cell {
    fn from(value: u8) -> Self {
        Self::Int(value.into())
    }
}

impl From<bool> for Cell {
    fn from(value: bool) -> Self {
        Self::Int(value.into())
    }
}

/// Terms, sequence numbers and byte counts never get near the bound; beyond it they stick to it.
impl From<u64> for Cell {
    fn from(value: u64) -> Self {
        Self::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<Timestamp> for Cell {
    fn from(value: Timestamp) -> Self {
        Self::Int(value.as_micros())
    }
}

impl From<&str> for Cell {
    fn from(value: &str) -> Self {
        Self::Text(value.into())
    }
}

impl From<&Arc<str>> for Cell {
    fn from(value: &Arc<str>) -> Self {
        Self::Text(Arc::clone(value))
    }
}

impl From<&WorkflowName> for Cell {
    fn from(value: &WorkflowName) -> Self {
        value.as_str().into()
    }
}

impl From<&TaskName> for Cell {
    fn from(value: &TaskName) -> Self {
        value.as_str().into()
    }
}

impl From<&ExecutorName> for Cell {
    fn from(value: &ExecutorName) -> Self {
        value.as_str().into()
    }
}

impl From<RunId> for Cell {
    fn from(value: RunId) -> Self {
        Self::Id(*value.as_bytes())
    }
}

impl From<SpoolId> for Cell {
    fn from(value: SpoolId) -> Self {
        Self::Id(*value.0.as_bytes())
    }
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

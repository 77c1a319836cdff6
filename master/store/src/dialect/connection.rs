//! A connection with one owner, and what ends it when the server does not answer any more.

use std::{io, time::Duration};

use futures_util::future::BoxFuture;
use sqlx::{
    Connection as _, SqlStr, mysql::MySqlConnection, postgres::PgConnection, sqlite::SqliteConnection,
};

use super::{Cell, Row, Server, mysql, postgres, sqlite};
use crate::bulk::Statement;

/// How long a connection gets to say good-bye.
const FAREWELL: Duration = Duration::from_secs(1);

/// A connection with one owner.
#[derive(Debug)]
pub(crate) struct Connection {
    link: Link,
    /// How long one call may take; the server's own limits are shorter. None for a file: a disk that does not answer
    /// cannot be given up.
    limit: Option<Duration>,
    /// Whether a call took longer than that. It was left in the middle of its statement.
    is_given_up: bool,
}

#[derive(Debug)]
enum Link {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
    MySql(MySqlConnection),
}

/// Runs a driver's function of this name, at most as long as the limit.
macro_rules! run {
    ($self:ident, $function:ident($($argument:expr),*)) => {{
        $self.usable()?;
        let limit = $self.limit;
        // Boxed, so that what calls it has one small future whose type names no driver.
        let running: BoxFuture<'_, Result<_, _>> = match &mut $self.link {
            Link::Sqlite(link) => Box::pin(sqlite::$function(link $(, $argument)*)),
            Link::Postgres(link) => Box::pin(postgres::$function(link $(, $argument)*)),
            Link::MySql(link) => Box::pin(mysql::$function(link $(, $argument)*)),
        };
        match within(limit, running).await {
            Some(result) => result,
            None => Err($self.given_up().into()),
        }
    }};
}

impl Connection {
    pub(super) const fn of_sqlite(link: SqliteConnection) -> Self {
        Self { link: Link::Sqlite(link), limit: None, is_given_up: false }
    }

    pub(super) const fn of_postgres(link: PgConnection, limit: Option<Duration>) -> Self {
        Self { link: Link::Postgres(link), limit, is_given_up: false }
    }

    pub(super) const fn of_mysql(link: MySqlConnection, limit: Option<Duration>) -> Self {
        Self { link: Link::MySql(link), limit, is_given_up: false }
    }

    /// Begins a transaction that writes. On a file it holds the right to that from the start; on a server the first
    /// statement locks the fence.
    pub(crate) async fn begin_write(&mut self) -> Result<(), sqlx::Error> {
        let word = match &self.link {
            Link::Sqlite(_) => "BEGIN IMMEDIATE",
            Link::Postgres(_) => postgres::BEGIN,
            Link::MySql(_) => mysql::BEGIN,
        };
        run!(self, control(word))
    }

    /// Begins a transaction that sees one state of the database.
    pub(crate) async fn begin_read(&mut self) -> Result<(), sqlx::Error> {
        let word = match &self.link {
            Link::Sqlite(_) => "BEGIN",
            Link::Postgres(_) => postgres::BEGIN_SNAPSHOT,
            Link::MySql(_) => mysql::BEGIN_SNAPSHOT,
        };
        run!(self, control(word))
    }

    pub(crate) async fn commit(&mut self) -> Result<(), sqlx::Error> {
        run!(self, control("COMMIT"))
    }

    pub(crate) async fn rollback(&mut self) -> Result<(), sqlx::Error> {
        run!(self, control("ROLLBACK"))
    }

    /// Runs a statement and returns how many rows it changed.
    pub(crate) async fn execute(&mut self, sql: &'static str, cells: &[Cell]) -> Result<u64, sqlx::Error> {
        run!(self, execute(sql, cells))
    }

    /// Runs a statement over rows and returns how many it changed.
    pub(crate) async fn write(&mut self, sql: SqlStr, statement: &Statement) -> Result<u64, sqlx::Error> {
        run!(self, write(sql, statement))
    }

    /// Begins a transaction, advances the fence, of which `fence` is the term and the number, and runs all statements in
    /// the words that they have together. Returns how many rows each changed; nothing where the fence is another's.
    pub(crate) async fn write_joined(
        &mut self,
        sql: SqlStr,
        fence: &[Cell],
        statements: &[Statement],
    ) -> Result<Vec<u64>, sqlx::Error> {
        run!(self, write_joined(sql, fence, statements))
    }

    /// Runs a query and hands each row to `take`, one at a time.
    pub(crate) async fn each<E: From<sqlx::Error> + Send>(
        &mut self,
        sql: &'static str,
        take: impl FnMut(&Row) -> Result<(), E> + Send,
    ) -> Result<(), E> {
        run!(self, each(sql, take))
    }

    /// Runs a query and returns its rows.
    pub(crate) async fn fetch(&mut self, sql: &'static str, cells: &[Cell]) -> Result<Vec<Row>, sqlx::Error> {
        run!(self, fetch(sql, cells))
    }

    /// Reads the fence row after whoever holds it: what is read then is settled.
    pub(crate) const fn settled_fence(&self) -> &'static str {
        match &self.link {
            Link::Sqlite(_) => "SELECT term, seq, holder FROM leadership WHERE id = 1",
            Link::Postgres(_) | Link::MySql(_) => {
                "SELECT term, seq, holder FROM leadership WHERE id = 1 FOR UPDATE"
            }
        }
    }

    /// Notes the claim that this transaction has made, by the clock of the database: one clock for all who ever led.
    pub(crate) const fn claim_note(&self) -> &'static str {
        match &self.link {
            Link::Sqlite(_) => sqlite::CLAIM_NOTE,
            Link::Postgres(_) => postgres::CLAIM_NOTE,
            Link::MySql(_) => mysql::CLAIM_NOTE,
        }
    }

    /// Asks a server what it is; a file is nothing but itself.
    pub(crate) async fn server(&mut self) -> Result<Option<Server>, sqlx::Error> {
        let rows = match &self.link {
            Link::Sqlite(_) => return Ok(None),
            Link::Postgres(_) => self.fetch(postgres::SERVER, &[]).await?,
            Link::MySql(_) => self.fetch(mysql::SERVER, &[]).await?,
        };
        match &self.link {
            Link::Sqlite(_) => Ok(None),
            Link::Postgres(_) => postgres::server(&rows).map(Some),
            Link::MySql(_) => mysql::server(&rows).map(Some),
        }
    }

    /// Ends the connections of other leaders of this database, dead ones as a rule, and returns how many there were.
    pub(crate) async fn end_other_leaders(&mut self) -> Result<usize, sqlx::Error> {
        self.usable()?;
        let limit = self.limit;
        let ending: BoxFuture<'_, _> = match &mut self.link {
            Link::Sqlite(_) => return Ok(0),
            Link::Postgres(link) => Box::pin(postgres::end_other_leaders(link)),
            Link::MySql(link) => Box::pin(mysql::end_other_leaders(link)),
        };
        match within(limit, ending).await {
            Some(result) => result,
            None => Err(self.given_up()),
        }
    }

    /// Waits until nobody else changes the schema, where the driver's own migrations do not see to that; for as long as the
    /// connection lasts.
    pub(crate) async fn lock_schema(&mut self) -> Result<(), sqlx::Error> {
        match &self.link {
            Link::Sqlite(_) | Link::Postgres(_) => return Ok(()),
            Link::MySql(_) => {}
        }
        let rows = self.fetch(mysql::LOCK_SCHEMA, &[]).await?;
        let is_ours = rows.first().is_some_and(|row| row.cells().long().is_ok_and(|taken| taken == 1));
        if is_ours { Ok(()) } else { Err(silence()) }
    }

    /// Hands out the connection of a driver, for migrations.
    pub(crate) const fn migrated(&mut self) -> Migrated<'_> {
        match &mut self.link {
            Link::Sqlite(link) => Migrated::Sqlite(link),
            Link::Postgres(link) => Migrated::Postgres(link),
            Link::MySql(link) => Migrated::MySql(link),
        }
    }

    /// Ends the connection without a word: what it had begun is undone by the server. One that was given up is only
    /// dropped, for it may have a statement half sent.
    pub(crate) async fn close_hard(self) {
        if self.is_given_up {
            return;
        }
        // The drivers of servers wait for an answer over TLS, to nothing; what is dropped is hung up on as well.
        let Link::Sqlite(link) = self.link else { return };
        let closing: BoxFuture<'_, _> = Box::pin(link.close_hard());
        match within(self.limit.map(|limit| limit.min(FAREWELL)), closing).await {
            Some(Ok(())) => {}
            Some(Err(error)) => tracing::debug!(error = %error, "closing a database connection failed"),
            None => tracing::debug!("a database connection was dropped while it was being closed"),
        }
    }

    fn usable(&self) -> Result<(), sqlx::Error> {
        if self.is_given_up { Err(silence()) } else { Ok(()) }
    }

    fn given_up(&mut self) -> sqlx::Error {
        self.is_given_up = true;
        tracing::warn!(limit = ?self.limit, "the database does not answer, its connection is given up");
        silence()
    }
}

/// A connection as the driver's migrations take it.
pub(crate) enum Migrated<'c> {
    Sqlite(&'c mut SqliteConnection),
    Postgres(&'c mut PgConnection),
    MySql(&'c mut MySqlConnection),
}

/// The error of a server that keeps silent.
pub(crate) fn silence() -> sqlx::Error {
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, "the database did not answer in time"))
}

/// Runs a future of the driver to its end, or for as long as it may take. The one place where such a future is dropped:
/// its connection is never used again.
pub(super) async fn within<T>(limit: Option<Duration>, running: impl Future<Output = T>) -> Option<T> {
    match limit {
        None => Some(running.await),
        Some(limit) => tokio::time::timeout(limit, running).await.ok(),
    }
}

/// Opens a connection, at most so long: a connection that is being opened has nothing to lose.
pub(super) async fn opened<T>(
    limit: Duration,
    opening: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    within(Some(limit), opening).await.unwrap_or_else(|| Err(silence()))
}

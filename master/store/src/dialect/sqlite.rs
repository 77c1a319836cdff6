//! SQLite: one file in one folder, for one process.
//!
//! Write-ahead log with `synchronous = FULL`: a commit is on the disk when it returns. The one connection that writes
//! belongs to whoever leads; pages and queries read through a small pool that cannot write and never blocks it.

use std::{fmt::Write as _, path::Path, time::Duration};

use futures_util::TryStreamExt;
use sqlx::{
    Arguments, ConnectOptions, Executor, SqlSafeStr, SqlStr,
    error::DatabaseError as _,
    sqlite::{
        SqliteArguments, SqliteConnectOptions, SqliteConnection, SqliteError, SqliteJournalMode, SqlitePool,
        SqlitePoolOptions, SqliteSynchronous,
    },
};

use super::{ADVANCE, Cell, Row, Trouble};
use crate::bulk::{Form, ROWS_MAX, Shape, Statement};

/// How long a statement waits for another connection's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Read-only connections; each has a thread. Two cores are busy with four.
const READERS_MAX: u32 = 4;
/// How long a query waits for one of them.
const READER_WAIT_MAX: Duration = Duration::from_secs(5);
/// Pages of 4 KiB in the log before they are copied into the file: fewer, larger copies than the default of 1,000.
const CHECKPOINT_PAGES: &str = "4096";
/// Bytes that the log keeps after a copy: what a burst made longer is given back.
const LOG_BYTES_KEPT: &str = "67108864";
/// Memory for pages, in KiB (negative means that to SQLite), of a connection that writes or loads.
const CACHE_KIB: &str = "-8192";
/// Rows on their way from the connection's thread; the default of 50 makes two threads wait for each other.
const ROWS_IN_FLIGHT: usize = 1_024;

/// Numbers of rows for which statements are prepared.
const SIZES: [usize; 5] = [1, 4, 16, 64, ROWS_MAX];
/// Rows of a statement that is small enough to be sent together with others.
const JOINED_ROWS_MAX: usize = 16;

/// Notes the claim that was just made.
pub(crate) const CLAIM_NOTE: &str = "INSERT INTO claim (term, holder, claimed_at, after_term, after_seq) \
     SELECT term, holder, CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER) * 1000, \
     before_term, before_seq FROM leadership WHERE id = 1";
/// `format` makes one text of a row's numbers at half the cost of joining them.
pub(crate) const LIVE_TASKS: &str = "SELECT r.id, (\
     SELECT group_concat(format('%d %d %d %d %d %d %s;', t.instance_index, t.state, t.attempts, t.failures, t.losses, \
     t.rejections, COALESCE(t.retry_at, '')), '') FROM task_instance t WHERE t.run_id = r.id) \
     FROM run r WHERE r.state < 10";
/// The index of live attempts has them in the order of runs.
pub(crate) const LIVE_ATTEMPTS: &str = "SELECT run_id, \
     group_concat(format('%d %d %d %d %s %s %s;', instance_index, attempt_number, state, assigned_at, executor, \
     hex(spool_id), COALESCE(machine_id, '')), '') FROM attempt WHERE state < 10 GROUP BY run_id";

/// A database file and how to connect to it.
#[derive(Debug)]
pub(crate) struct Sqlite {
    options: SqliteConnectOptions,
    readers: SqlitePool,
}

impl Sqlite {
    pub(crate) fn new(file: &Path) -> Self {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(false)
            .pragma("wal_autocheckpoint", CHECKPOINT_PAGES)
            .pragma("journal_size_limit", LOG_BYTES_KEPT)
            .pragma("cache_size", CACHE_KIB)
            .pragma("temp_store", "MEMORY")
            // Without statistics SQLite would rather read a whole table and index the rows that come along than look
            // up each of them.
            .pragma("automatic_index", "OFF")
            .row_buffer_size(ROWS_IN_FLIGHT)
            .disable_statement_logging();
        let reading = SqliteConnectOptions::new()
            .filename(file)
            .read_only(true)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS_MAX)
            .min_connections(0)
            .acquire_timeout(READER_WAIT_MAX)
            .test_before_acquire(false)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_lazy_with(reading);
        Self { options, readers }
    }

    pub(crate) async fn connect(&self) -> Result<SqliteConnection, sqlx::Error> {
        self.options.connect().await
    }

    pub(crate) async fn read(&self, sql: &'static str, cells: &[Cell]) -> Result<Vec<Row>, sqlx::Error> {
        let mut connection = self.readers.acquire().await?;
        fetch(&mut connection, sql, cells).await
    }

    pub(crate) async fn close(&self) {
        self.readers.close().await;
    }
}

/// Runs one of the words that begin and end transactions.
///
/// They are plain statements here: a `Transaction` of the driver only queues its end when it is dropped.
pub(crate) async fn control(
    connection: &mut SqliteConnection,
    word: &'static str,
) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::query(word)).await.map(drop)
}

pub(crate) async fn execute(
    connection: &mut SqliteConnection,
    sql: &'static str,
    cells: &[Cell],
) -> Result<u64, sqlx::Error> {
    let done = connection.execute(sqlx::query_with(sql, bind(cells)?)).await?;
    Ok(done.rows_affected())
}

/// Runs a statement over rows and returns how many it changed.
pub(crate) async fn write(
    connection: &mut SqliteConnection,
    sql: SqlStr,
    statement: &Statement,
) -> Result<u64, sqlx::Error> {
    let mut arguments = SqliteArguments::default();
    add_rows(&mut arguments, statement)?;
    let done = connection.execute(sqlx::query_with(sql, arguments)).await?;
    Ok(done.rows_affected())
}

/// Begins a transaction, advances the fence and runs all statements. Returns how many rows each of them changed; nothing
/// where the fence is another's. One message to the connection's thread and back costs as much as a small statement.
pub(crate) async fn write_joined(
    connection: &mut SqliteConnection,
    sql: SqlStr,
    fence: &[Cell],
    statements: &[Statement],
) -> Result<Vec<u64>, sqlx::Error> {
    let mut arguments = bind(fence)?;
    for statement in statements {
        add_rows(&mut arguments, statement)?;
    }
    let mut answers = connection.fetch_many(sqlx::query_with(sql, arguments));
    let mut changed = Vec::new();
    while let Some(answer) = answers.try_next().await? {
        changed.extend(answer.left().map(|done| done.rows_affected()));
    }
    match changed.as_slice() {
        [_begun, 1, changed @ ..] => Ok(changed.to_vec()),
        _ => Ok(Vec::new()),
    }
}

/// Tells whether statements are small enough to be sent as one.
pub(crate) fn joins(statements: &[Statement]) -> bool {
    statements.iter().all(|statement| statement.rows <= JOINED_ROWS_MAX)
}

/// Returns the beginning of a transaction, the fence and statements as one text.
pub(crate) fn joined(shapes: &[(&Shape, usize)]) -> String {
    let mut all = format!("BEGIN IMMEDIATE; {ADVANCE}");
    for (shape, rows) in shapes {
        all.push_str("; ");
        all.push_str(&text(shape, *rows));
    }
    all
}

/// Returns the number of rows that the words for `rows` rows have room for.
pub(crate) fn size(rows: usize) -> usize {
    SIZES.into_iter().find(|size| *size >= rows).unwrap_or(ROWS_MAX)
}

pub(crate) async fn fetch(
    connection: &mut SqliteConnection,
    sql: &'static str,
    cells: &[Cell],
) -> Result<Vec<Row>, sqlx::Error> {
    let rows = connection.fetch_all(sqlx::query_with(sql.into_sql_str(), bind(cells)?)).await?;
    Ok(rows.into_iter().map(Row::Sqlite).collect())
}

pub(crate) async fn each<E: From<sqlx::Error> + Send>(
    connection: &mut SqliteConnection,
    sql: &'static str,
    mut take: impl FnMut(&Row) -> Result<(), E> + Send,
) -> Result<(), E> {
    let mut rows = connection.fetch(sqlx::query(sql));
    while let Some(row) = rows.try_next().await? {
        take(&Row::Sqlite(row))?;
    }
    Ok(())
}

fn bind(cells: &[Cell]) -> Result<SqliteArguments, sqlx::Error> {
    let mut arguments = SqliteArguments::default();
    add_all(&mut arguments, cells.iter())?;
    Ok(arguments)
}

/// Adds the rows of a statement and what fills them up to its size.
fn add_rows(arguments: &mut SqliteArguments, statement: &Statement) -> Result<(), sqlx::Error> {
    let filling = (size(statement.rows) - statement.rows) * statement.shape.columns.len();
    add_all(arguments, statement.cells().iter().chain(std::iter::repeat_n(&Cell::Null, filling)))
}

fn add_all<'a>(
    arguments: &mut SqliteArguments,
    cells: impl Iterator<Item = &'a Cell>,
) -> Result<(), sqlx::Error> {
    arguments.reserve(cells.size_hint().0, 0);
    for cell in cells {
        match cell {
            Cell::Null => arguments.add(None::<i64>),
            Cell::Int(value) => arguments.add(*value),
            Cell::Text(value) => arguments.add(std::sync::Arc::clone(value)),
            Cell::Id(value) => arguments.add(value.to_vec()),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(())
}

pub(crate) fn trouble(error: &SqliteError) -> Trouble {
    const PRIMARY_CODE_MASK: i64 = 0xff;
    const SQLITE_FULL: i64 = 13;
    let code = error.code().and_then(|code| code.parse::<i64>().ok()).unwrap_or(0);
    if code & PRIMARY_CODE_MASK == SQLITE_FULL { Trouble::Full } else { Trouble::of_kind(error) }
}

/// Puts a statement into words. Rows that only fill up a size have NULL as their first column and change nothing.
pub(crate) fn text(shape: &Shape, rows: usize) -> String {
    let rows = size(rows);
    let Shape { table, columns, .. } = shape;
    let names = columns.join(", ");
    let row = format!("({})", vec!["?"; columns.len()].join(", "));
    let values = vec![row; rows].join(", ");
    match &shape.form {
        Form::Insert if rows == 1 => format!("INSERT INTO {table} ({names}) VALUES {values}"),
        Form::Insert => {
            let key = columns.first().copied().unwrap_or_default();
            format!(
                "WITH v ({names}) AS (VALUES {values}) \
                 INSERT INTO {table} ({names}) SELECT {names} FROM v WHERE v.{key} IS NOT NULL"
            )
        }
        Form::Update { set, guard } => {
            let mut text = format!("WITH v ({names}) AS (VALUES {values}) UPDATE {table} SET ");
            for (at, (column, value)) in set.iter().enumerate() {
                let comma = if at == 0 { "" } else { ", " };
                // Writing to a text cannot fail.
                let _ = write!(text, "{comma}{column} = {value}");
            }
            let _ = write!(text, " FROM v WHERE {guard}");
            text
        }
        Form::Delete { guard } => {
            let marks = vec!["?"; rows].join(", ");
            format!("DELETE FROM {table} WHERE {names} IN ({marks}){guard}")
        }
        Form::DeleteUpTo => format!("DELETE FROM {table} WHERE {names} <= ?"),
    }
}

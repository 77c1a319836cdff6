//! PostgreSQL: rows go as one array for each column, so that a statement has the same words for any number of rows.
//!
//! What keeps time is the server: statements, waits for locks and transactions that do nothing are ended by it, and so is
//! a session whose client has gone. The statements of a small batch are one, with the fence before it and not in it: in
//! READ COMMITTED a statement sees what was committed before it began, so the changes must begin after the fence has
//! been passed.

mod words;

use std::time::Duration;

use futures_util::{TryStreamExt, future::BoxFuture};
use sqlx::{
    Arguments, ConnectOptions, Executor, SqlStr,
    postgres::{
        PgArguments, PgConnectOptions, PgConnection, PgDatabaseError, PgPool, PgPoolOptions, PgSslMode,
    },
};

pub(crate) use self::words::{joined, joins, text};
use super::{
    ADVANCE, Cell, Connection, Purpose, READER_WAIT_MAX, READERS_MAX, Row, Server, TooOld, Trouble,
    connection::{opened, within},
    server::{Advice, advise},
};
use crate::{
    bulk::{Form, Kind, Statement, kind},
    config::{Limits, ServerConfig, Tls},
};

const PRODUCT: &str = "PostgreSQL";
/// The first version that notices during a statement that its client has gone.
const VERSION_MIN: i64 = 140_000;
/// What a leader's sessions are called in `pg_stat_activity`.
const LEADER: &str = "millrace-leader";

pub(crate) const BEGIN: &str = "BEGIN";
pub(crate) const BEGIN_SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// Notes the claim that was just made.
pub(crate) const CLAIM_NOTE: &str = "INSERT INTO claim (term, holder, claimed_at, after_term, after_seq) \
     SELECT term, holder, CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000 AS BIGINT), \
     before_term, before_seq FROM leadership WHERE id = 1";
/// Texts of at most 1,024 lines each: a text has a limit, a run has none that is near it.
pub(crate) const LIVE_TASKS: &str = "SELECT t.run_id, string_agg(concat(t.instance_index, ' ', t.state, ' ', \
     t.attempts, ' ', t.failures, ' ', t.losses, ' ', t.rejections, ' ', t.retry_at, ';'), '') \
     FROM run r JOIN task_instance t ON t.run_id = r.id \
     WHERE r.state < 10 GROUP BY t.run_id, t.instance_index / 1024";
pub(crate) const LIVE_ATTEMPTS: &str = "SELECT run_id, string_agg(concat(instance_index, ' ', attempt_number, ' ', \
     state, ' ', assigned_at, ' ', executor, ' ', encode(spool_id, 'hex'), ' ', machine_id, ';'), '') \
     FROM attempt WHERE state < 10 GROUP BY run_id, instance_index / 1024";

/// What the server is. Its timeline changes when a standby takes its place.
pub(crate) const SERVER: &str = "SELECT current_setting('server_version_num')::bigint, current_setting('server_version'), \
     (SELECT system_identifier FROM pg_control_system())::text, \
     CASE WHEN pg_is_in_recovery() THEN '' ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END, \
     CASE WHEN pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on' THEN 1 ELSE 0 END, \
     current_setting('fsync'), current_setting('synchronous_commit'), current_setting('full_page_writes')";

const CRASH: &str = "a crash of its machine can damage the database or lose what was committed";
static ADVICE: [Advice; 3] = [
    ("fsync", &["on"], CRASH),
    (
        "synchronous_commit",
        &["on", "remote_apply", "remote_write"],
        "a crash loses the last transactions although they were acknowledged",
    ),
    ("full_page_writes", &["on"], CRASH),
];

/// Only sessions of the same account show their name, and only those may be ended without further rights.
const END_OTHER_LEADERS: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
     WHERE datname = current_database() AND application_name = $1 AND pid <> pg_backend_pid()";

/// A database of a server and how to connect to it.
#[derive(Debug)]
pub(crate) struct Postgres {
    options: PgConnectOptions,
    readers: PgPool,
    limits: Limits,
}

impl Postgres {
    pub(crate) fn new(server: &ServerConfig, limits: Limits) -> Self {
        let options = options(server);
        let reading = with_limit(options.clone(), limits.query)
            .application_name("millrace-query")
            .options([("default_transaction_read_only", "on")]);
        let readers = PgPoolOptions::new()
            .max_connections(READERS_MAX)
            .min_connections(0)
            .acquire_timeout(READER_WAIT_MAX)
            // After a restart of the server each connection is found to be dead before it is given a query.
            .test_before_acquire(true)
            .max_lifetime(None)
            .connect_lazy_with(reading);
        Self { options, readers, limits }
    }

    pub(crate) async fn connect(&self, purpose: Purpose) -> Result<Connection, sqlx::Error> {
        let Limits { connect, statement, load, grace, .. } = self.limits;
        let (options, limit) = match purpose {
            Purpose::Prepare => (self.options.clone().application_name("millrace-prepare"), None),
            Purpose::Lead => (self.leading(), Some(statement + grace)),
            Purpose::Load => {
                (with_limit(self.options.clone(), load).application_name("millrace-load"), Some(load + grace))
            }
        };
        let opening: BoxFuture<'_, _> = Box::pin(options.connect());
        let link = opened(connect, opening).await?;
        Ok(Connection::of_postgres(link, limit))
    }

    /// A leader's statements look rows up by their keys, all of them. Before the statistics of a new table are made, the
    /// planner would rather read the table, and would keep that plan while the table grows.
    fn leading(&self) -> PgConnectOptions {
        let millis = |duration: Duration| duration.as_millis().to_string();
        with_limit(self.options.clone(), self.limits.statement)
            .application_name(LEADER)
            .options([
                ("lock_timeout", millis(self.limits.lock)),
                ("idle_in_transaction_session_timeout", millis(self.limits.idle)),
            ])
            .options([
                ("default_transaction_isolation", "read committed"),
                ("plan_cache_mode", "force_generic_plan"),
                ("enable_seqscan", "off"),
                ("enable_hashjoin", "off"),
                ("enable_mergejoin", "off"),
                ("jit", "off"),
            ])
    }

    pub(crate) async fn read(&self, sql: &'static str, cells: &[Cell]) -> Result<Vec<Row>, sqlx::Error> {
        let mut connection = self.readers.acquire().await?;
        let limit = self.limits.query + self.limits.grace;
        // The pool takes a connection back only when it answers again.
        let fetching: BoxFuture<'_, _> = Box::pin(fetch(&mut connection, sql, cells));
        within(Some(limit), fetching).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
    }

    pub(crate) async fn close(&self) {
        self.readers.close().await;
    }
}

/// Everything is said, so that no variable of the environment says it instead.
fn options(server: &ServerConfig) -> PgConnectOptions {
    let options = PgConnectOptions::new_without_pgpass()
        .host(&server.host)
        .port(server.port)
        .username(&server.user)
        .password(server.password.expose())
        .database(&server.database)
        .options([
            // So that the server notices, within about ten seconds, that a client's machine has gone.
            ("tcp_keepalives_idle", "5"),
            ("tcp_keepalives_interval", "2"),
            ("tcp_keepalives_count", "3"),
            ("tcp_user_timeout", "10000"),
            ("client_connection_check_interval", "2000"),
        ])
        .disable_statement_logging();
    let options = match &server.socket {
        Some(folder) => options.socket(folder),
        None => options,
    };
    match &server.tls {
        Tls::Off => options.ssl_mode(PgSslMode::Disable),
        Tls::Encrypt => options.ssl_mode(PgSslMode::Require),
        Tls::Verify { ca_file: None } => options.ssl_mode(PgSslMode::VerifyFull),
        Tls::Verify { ca_file: Some(file) } => options.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert(file),
    }
}

fn with_limit(options: PgConnectOptions, limit: Duration) -> PgConnectOptions {
    options.options([("statement_timeout", limit.as_millis().to_string())])
}

/// Runs one of the words that begin and end transactions.
pub(crate) async fn control(connection: &mut PgConnection, word: &'static str) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql(word)).await.map(drop)
}

pub(crate) async fn execute(
    connection: &mut PgConnection,
    sql: &'static str,
    cells: &[Cell],
) -> Result<u64, sqlx::Error> {
    let done = connection.execute(sqlx::query_with(words::numbered(sql), bind(cells)?)).await?;
    Ok(done.rows_affected())
}

pub(crate) async fn write(
    connection: &mut PgConnection,
    sql: SqlStr,
    statement: &Statement,
) -> Result<u64, sqlx::Error> {
    let mut arguments = PgArguments::default();
    add_columns(&mut arguments, statement)?;
    let done = connection.execute(sqlx::query_with(sql, arguments)).await?;
    Ok(done.rows_affected())
}

pub(crate) async fn write_joined(
    connection: &mut PgConnection,
    sql: SqlStr,
    fence: &[Cell],
    statements: &[Statement],
) -> Result<Vec<u64>, sqlx::Error> {
    let mut arguments = PgArguments::default();
    for statement in statements {
        add_columns(&mut arguments, statement)?;
    }
    control(connection, BEGIN).await?;
    if execute(connection, ADVANCE, fence).await? != 1 {
        return Ok(Vec::new());
    }
    if statements.len() == 1 {
        let done = connection.execute(sqlx::query_with(sql, arguments)).await?;
        return Ok(vec![done.rows_affected()]);
    }
    let row = Row::Postgres(connection.fetch_one(sqlx::query_with(sql, arguments)).await?);
    let mut cells = row.cells();
    let counts = statements.iter().map(|_| cells.long().map_err(|error| sqlx::Error::Decode(error.into())));
    counts.collect()
}

pub(crate) async fn fetch(
    connection: &mut PgConnection,
    sql: &'static str,
    cells: &[Cell],
) -> Result<Vec<Row>, sqlx::Error> {
    let rows = connection.fetch_all(sqlx::query_with(words::numbered(sql), bind(cells)?)).await?;
    Ok(rows.into_iter().map(Row::Postgres).collect())
}

pub(crate) async fn each<E: From<sqlx::Error> + Send>(
    connection: &mut PgConnection,
    sql: &'static str,
    mut take: impl FnMut(&Row) -> Result<(), E> + Send,
) -> Result<(), E> {
    let mut rows = connection.fetch(sqlx::query(sql));
    while let Some(row) = rows.try_next().await? {
        take(&Row::Postgres(row))?;
    }
    Ok(())
}

pub(crate) async fn end_other_leaders(connection: &mut PgConnection) -> Result<usize, sqlx::Error> {
    let ended = connection.fetch_all(sqlx::query(END_OTHER_LEADERS).bind(LEADER)).await?;
    Ok(ended.len())
}

/// Reads the answer to [`SERVER`].
pub(crate) fn server(rows: &[Row]) -> Result<Server, sqlx::Error> {
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    read_server(row).map_err(|error| sqlx::Error::Decode(error.into()))
}

fn read_server(row: &Row) -> Result<Server, crate::row::RowError> {
    let mut cells = row.cells();
    let (number, version) = (cells.int()?, cells.text()?);
    let (identifier, timeline, is_replica) = (cells.text()?, cells.text()?, cells.flag()?);
    let mut warnings = Vec::new();
    for advice in &ADVICE {
        warnings.extend(advise(PRODUCT, advice, cells.str()?));
    }
    let too_old =
        (number < VERSION_MIN).then(|| TooOld { product: PRODUCT, found: version.to_string(), needed: "14" });
    Ok(Server { system: format!("{identifier}/{timeline}").into(), is_replica, too_old, warnings })
}

fn bind(cells: &[Cell]) -> Result<PgArguments, sqlx::Error> {
    let mut arguments = PgArguments::default();
    for cell in cells {
        match cell {
            Cell::Null => arguments.add(None::<i64>),
            Cell::Int(value) => arguments.add(*value),
            Cell::Text(value) => arguments.add(storable(value)),
            Cell::Id(value) => arguments.add(value.as_slice()),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

/// Adds an array for each column of a statement.
fn add_columns(arguments: &mut PgArguments, statement: &Statement) -> Result<(), sqlx::Error> {
    if matches!(statement.shape.form, Form::DeleteUpTo) {
        return arguments.add(statement.cells().first().and_then(int)).map_err(sqlx::Error::Encode);
    }
    for (at, name) in statement.shape.columns.iter().enumerate() {
        let column = statement.column(at);
        match kind(name) {
            Kind::Int => arguments.add(column.map(int).collect::<Vec<Option<i64>>>()),
            Kind::Id => arguments.add(column.map(id).collect::<Vec<Option<&[u8]>>>()),
            Kind::Name | Kind::Text => arguments.add(column.map(string).collect::<Vec<Option<String>>>()),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(())
}

const fn int(cell: &Cell) -> Option<i64> {
    match cell {
        Cell::Int(value) => Some(*value),
        Cell::Null | Cell::Text(_) | Cell::Id(_) => None,
    }
}

fn id(cell: &Cell) -> Option<&[u8]> {
    match cell {
        Cell::Id(value) => Some(value),
        Cell::Null | Cell::Text(_) | Cell::Int(_) => None,
    }
}

fn string(cell: &Cell) -> Option<String> {
    match cell {
        Cell::Text(value) => Some(storable(value)),
        Cell::Null | Cell::Int(_) | Cell::Id(_) => None,
    }
}

/// The one character that text cannot hold here. What a process wrote may have it, and must not stop its leader.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
}

pub(crate) fn trouble(error: &PgDatabaseError) -> Trouble {
    match error.code() {
        // Serialization failure, deadlock, a lock that was waited for too long.
        "40001" | "40P01" | "55P03" => Trouble::Conflict,
        // A statement or a transaction that took too long, shut-down, crash, start-up, no connections left, a standby.
        "57014" | "25P03" | "57P01" | "57P02" | "57P03" | "57P05" | "53300" | "25006" => Trouble::Outage,
        "53100" => Trouble::Full,
        code if code.starts_with("08") => Trouble::Outage,
        _ => Trouble::of_kind(error),
    }
}

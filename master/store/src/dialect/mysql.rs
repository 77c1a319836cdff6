//! MySQL and MariaDB: rows go as one JSON document, so that a statement has the same words for any number of rows.
//!
//! Which of the two it is shows when it is connected to; they differ in the names of the limits that the server keeps.
//! MySQL has none for a transaction that does nothing, so a leader that is blocked by one ends it: the connections of
//! leaders are in a table, and each holds a named lock that nobody else's connection of the same number would have.

mod words;

use std::time::Duration;

use futures_util::{TryStreamExt, future::BoxFuture};
use sqlx::{
    Arguments, AssertSqlSafe, ConnectOptions, Executor, SqlStr,
    mysql::{
        MySqlArguments, MySqlConnectOptions, MySqlConnection, MySqlDatabaseError, MySqlPool,
        MySqlPoolOptions, MySqlSslMode,
    },
};

pub(crate) use self::words::text;
use super::{
    Cell, Connection, Purpose, READER_WAIT_MAX, READERS_MAX, Row, Server, TooOld, Trouble,
    connection::{opened, within},
    server::{Advice, advise},
};
use crate::{
    bulk::{Form, Statement},
    config::{Limits, ServerConfig, Tls},
    row::RowError,
};

const MYSQL: &str = "MySQL";
const MARIADB: &str = "MariaDB";
/// The first versions that read rows out of a JSON document.
const MYSQL_MIN: ((u32, u32), &str) = ((8, 0), "8.0");
const MARIADB_MIN: ((u32, u32), &str) = ((10, 6), "10.6");

pub(crate) const BEGIN: &str = "START TRANSACTION";
/// Lets one of several masters go first that start at once. The driver asks for a lock without an end, which MariaDB takes
/// for one without a wait.
pub(crate) const LOCK_SCHEMA: &str = "SELECT GET_LOCK(CONCAT('millrace-', MD5(DATABASE())), 60)";

pub(crate) const BEGIN_SNAPSHOT: &str = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; \
     START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY";

/// Notes the claim that was just made.
pub(crate) const CLAIM_NOTE: &str = "INSERT INTO claim (term, holder, claimed_at, after_term, after_seq) \
     SELECT term, holder, CAST(UNIX_TIMESTAMP(NOW(6)) * 1000000 AS SIGNED), \
     before_term, before_seq FROM leadership WHERE id = 1";
/// Texts of at most 1,024 lines each: a longer one would be cut off without a word.
pub(crate) const LIVE_TASKS: &str = "SELECT t.run_id, GROUP_CONCAT(CONCAT_WS(' ', t.instance_index, t.state, t.attempts, \
     t.failures, t.losses, t.rejections, COALESCE(t.retry_at, '')), ';' SEPARATOR '') \
     FROM run r JOIN task_instance t ON t.run_id = r.id \
     WHERE r.state < 10 GROUP BY t.run_id, t.instance_index DIV 1024";
pub(crate) const LIVE_ATTEMPTS: &str = "SELECT run_id, GROUP_CONCAT(CONCAT_WS(' ', instance_index, attempt_number, \
     state, assigned_at, executor, HEX(spool_id), COALESCE(machine_id, '')), ';' SEPARATOR '') \
     FROM attempt WHERE is_live = 1 GROUP BY run_id, instance_index DIV 1024";
/// Bytes of one of these texts, several times over.
const GROUP_BYTES_MAX: u32 = 1 << 22;

/// What the server is. A setting that it does not know has no row.
pub(crate) const SERVER: &str = "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('version', 'server_uuid', 'server_uid', \
     'hostname', 'port', 'datadir', 'read_only', 'innodb_flush_log_at_trx_commit', 'innodb_doublewrite', 'log_bin', \
     'sync_binlog', 'binlog_format', 'max_allowed_packet')";

/// The lock that a leader's connection holds, by the connection's number.
macro_rules! leader_lock {
    ($connection:literal) => {
        concat!("CONCAT('millrace.', LEFT(SHA1(DATABASE()), 16), '.', ", $connection, ")")
    };
}

/// Makes a connection known as a leader's. Numbers that nobody leads on any more are forgotten.
const ANNOUNCE: [&str; 3] = [
    concat!("SELECT GET_LOCK(", leader_lock!("CONNECTION_ID()"), ", 0)"),
    concat!("DELETE FROM leader_connection WHERE IS_USED_LOCK(", leader_lock!("connection_id"), ") IS NULL"),
    "INSERT IGNORE INTO leader_connection (connection_id) VALUES (CONNECTION_ID())",
];
const OTHER_LEADERS: &str = concat!(
    "SELECT connection_id FROM leader_connection \
     WHERE connection_id <> CONNECTION_ID() AND IS_USED_LOCK(",
    leader_lock!("connection_id"),
    ") = connection_id"
);

/// A database of a server and how to connect to it.
#[derive(Debug)]
pub(crate) struct MySql {
    options: MySqlConnectOptions,
    readers: MySqlPool,
    limits: Limits,
}

impl MySql {
    pub(crate) fn new(server: &ServerConfig, limits: Limits) -> Self {
        let options = options(server);
        let query = limits.query;
        let readers = MySqlPoolOptions::new()
            .max_connections(READERS_MAX)
            .min_connections(0)
            .acquire_timeout(READER_WAIT_MAX)
            // After a restart of the server each connection is found to be dead before it is given a query.
            .test_before_acquire(true)
            .max_lifetime(None)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    set_up(connection, Some(query), None).await?;
                    control(connection, "SET SESSION TRANSACTION READ ONLY").await
                })
            })
            .connect_lazy_with(options.clone());
        Self { options, readers, limits }
    }

    pub(crate) async fn connect(&self, purpose: Purpose) -> Result<Connection, sqlx::Error> {
        let Limits { connect, statement, load, grace, .. } = self.limits;
        let limit = match purpose {
            Purpose::Prepare => None,
            Purpose::Lead => Some(statement),
            Purpose::Load => Some(load),
        };
        let opening: BoxFuture<'_, _> = Box::pin(async {
            let mut link = self.options.connect().await?;
            match purpose {
                Purpose::Lead => {
                    set_up(&mut link, limit, Some(self.limits)).await?;
                    for word in ANNOUNCE {
                        control(&mut link, word).await?;
                    }
                }
                Purpose::Prepare | Purpose::Load => set_up(&mut link, limit, None).await?,
            }
            Ok(link)
        });
        Ok(Connection::of_mysql(opened(connect, opening).await?, limit.map(|limit| limit + grace)))
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

fn options(server: &ServerConfig) -> MySqlConnectOptions {
    let options = MySqlConnectOptions::new()
        .host(&server.host)
        .port(server.port)
        .username(&server.user)
        .password(server.password.expose())
        .database(&server.database)
        .charset("utf8mb4")
        .collation("utf8mb4_bin")
        // The mode is set as a whole below.
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .disable_statement_logging();
    let options = match &server.socket {
        Some(file) => options.socket(file),
        None => options,
    };
    match &server.tls {
        Tls::Off => options.ssl_mode(MySqlSslMode::Disabled),
        Tls::Encrypt => options.ssl_mode(MySqlSslMode::Required),
        Tls::Verify { ca_file: None } => options.ssl_mode(MySqlSslMode::VerifyIdentity),
        Tls::Verify { ca_file: Some(file) } => options.ssl_mode(MySqlSslMode::VerifyIdentity).ssl_ca(file),
    }
}

/// Gives a session its rules: no value is cut to fit, no row is locked that is not written, and limits.
async fn set_up(
    connection: &mut MySqlConnection,
    statement: Option<Duration>,
    leading: Option<Limits>,
) -> Result<(), sqlx::Error> {
    let version: String = sqlx::query_scalar("SELECT VERSION()").fetch_one(&mut *connection).await?;
    let is_mariadb = version.contains(MARIADB);
    let mut settings = vec![
        "sql_mode = 'STRICT_ALL_TABLES,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'".to_owned(),
        format!("group_concat_max_len = {GROUP_BYTES_MAX}"),
    ];
    match statement {
        Some(limit) if is_mariadb => settings.push(format!("max_statement_time = {}", limit.as_secs_f64())),
        // It counts for queries only; for the rest there is the limit on locks, and ours on the connection.
        Some(limit) => settings.push(format!("max_execution_time = {}", limit.as_millis())),
        None => {}
    }
    if let Some(limits) = leading {
        settings.push(format!("innodb_lock_wait_timeout = {}", seconds(limits.lock)));
        settings.push(format!("lock_wait_timeout = {}", seconds(limits.lock)));
        if is_mariadb {
            settings.push(format!("idle_transaction_timeout = {}", seconds(limits.idle)));
        }
    }
    let settings: Vec<String> = settings.iter().map(|setting| format!("SESSION {setting}")).collect();
    let text = format!("SET {}; SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED", settings.join(", "));
    connection.execute(sqlx::raw_sql(AssertSqlSafe(text))).await.map(drop)
}

/// These settings take whole seconds, and 0 would mean none.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs().max(1)
}

/// Runs one of the words that begin and end transactions.
pub(crate) async fn control(connection: &mut MySqlConnection, word: &'static str) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql(word)).await.map(drop)
}

pub(crate) async fn execute(
    connection: &mut MySqlConnection,
    sql: &'static str,
    cells: &[Cell],
) -> Result<u64, sqlx::Error> {
    let done = connection.execute(sqlx::query_with(sql, bind(cells)?)).await?;
    Ok(done.rows_affected())
}

pub(crate) async fn write(
    connection: &mut MySqlConnection,
    sql: SqlStr,
    statement: &Statement,
) -> Result<u64, sqlx::Error> {
    let arguments = match statement.shape.form {
        Form::DeleteUpTo => bind(statement.cells())?,
        Form::Insert | Form::Update { .. } | Form::Delete { .. } => {
            let mut arguments = MySqlArguments::default();
            arguments.add(words::document(statement)).map_err(sqlx::Error::Encode)?;
            arguments
        }
    };
    let done = connection.execute(sqlx::query_with(sql, arguments)).await?;
    Ok(done.rows_affected())
}

/// Statements are never joined here.
pub(crate) async fn write_joined(
    _connection: &mut MySqlConnection,
    _sql: SqlStr,
    _fence: &[Cell],
    _statements: &[Statement],
) -> Result<Vec<u64>, sqlx::Error> {
    Ok(Vec::new())
}

pub(crate) async fn fetch(
    connection: &mut MySqlConnection,
    sql: &'static str,
    cells: &[Cell],
) -> Result<Vec<Row>, sqlx::Error> {
    let rows = connection.fetch_all(sqlx::query_with(sql, bind(cells)?)).await?;
    Ok(rows.into_iter().map(Row::MySql).collect())
}

pub(crate) async fn each<E: From<sqlx::Error> + Send>(
    connection: &mut MySqlConnection,
    sql: &'static str,
    mut take: impl FnMut(&Row) -> Result<(), E> + Send,
) -> Result<(), E> {
    let mut rows = connection.fetch(sqlx::query(sql));
    while let Some(row) = rows.try_next().await? {
        take(&Row::MySql(row))?;
    }
    Ok(())
}

pub(crate) async fn end_other_leaders(connection: &mut MySqlConnection) -> Result<usize, sqlx::Error> {
    let others: Vec<i64> = sqlx::query_scalar(OTHER_LEADERS).fetch_all(&mut *connection).await?;
    for other in &others {
        // A number, which cannot be bound here. It may have ended by itself meanwhile.
        let kill = AssertSqlSafe(format!("KILL CONNECTION {other}"));
        if let Err(error) = connection.execute(sqlx::raw_sql(kill)).await {
            tracing::debug!(error = %error, connection = other, "a leader's connection could not be ended");
        }
    }
    Ok(others.len())
}

/// Reads the answer to [`SERVER`].
pub(crate) fn server(rows: &[Row]) -> Result<Server, sqlx::Error> {
    Variables::read(rows)
        .map(|variables| variables.server())
        .map_err(|error| sqlx::Error::Decode(error.into()))
}

/// Settings by name.
struct Variables<'r>(Vec<(&'r str, &'r str)>);

impl<'r> Variables<'r> {
    fn read(rows: &'r [Row]) -> Result<Self, RowError> {
        let pair = |row: &'r Row| {
            let mut cells = row.cells();
            Ok((cells.str()?, cells.str()?))
        };
        rows.iter().map(pair).collect::<Result<_, _>>().map(Self)
    }

    fn get(&self, name: &str) -> Option<&'r str> {
        self.0.iter().find(|(found, _)| *found == name).map(|(_, value)| *value)
    }

    fn server(&self) -> Server {
        let version = self.get("version").unwrap_or_default();
        let (product, (least, needed)) =
            if version.contains(MARIADB) { (MARIADB, MARIADB_MIN) } else { (MYSQL, MYSQL_MIN) };
        let mut numbers = version.split('.').map_while(|part| part.parse().ok());
        let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        let too_old = (found < least).then(|| TooOld { product, found: version.to_owned(), needed });
        let parts = ["server_uuid", "server_uid", "hostname", "port", "datadir"];
        let system: Vec<&str> = parts.iter().filter_map(|part| self.get(part)).collect();
        let is_on = |name| self.get(name).is_some_and(|value| value.eq_ignore_ascii_case("on"));
        let is_logged = is_on("log_bin");
        let advice = ADVICE.iter().chain(LOG_ADVICE.iter().filter(|_| is_logged));
        let warnings = advice.filter_map(|advice| advise(product, advice, self.get(advice.0)?)).collect();
        Server { system: system.join("/").into(), is_replica: is_on("read_only"), too_old, warnings }
    }
}

static ADVICE: [Advice; 2] = [
    (
        "innodb_flush_log_at_trx_commit",
        &["1"],
        "a crash of its machine loses the last transactions although they were acknowledged",
    ),
    ("innodb_doublewrite", &["ON", "DETECT_AND_RECOVER"], "a crash of its machine can damage the database"),
];
/// What counts where there is a binary log.
static LOG_ADVICE: [Advice; 2] = [
    (
        "sync_binlog",
        &["1"],
        "after a crash of its machine, a replica can lack, or have, transactions that the server has, or lacks",
    ),
    ("binlog_format", &["ROW", "MIXED"], "no transaction of this program can be logged, and all are refused"),
];

fn bind(cells: &[Cell]) -> Result<MySqlArguments, sqlx::Error> {
    let mut arguments = MySqlArguments::default();
    for cell in cells {
        match cell {
            Cell::Null => arguments.add(None::<i64>),
            Cell::Int(value) => arguments.add(*value),
            Cell::Text(value) => arguments.add(value.as_ref()),
            Cell::Id(value) => arguments.add(value.as_slice()),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(arguments)
}

pub(crate) fn trouble(error: &MySqlDatabaseError) -> Trouble {
    match error.number() {
        // A deadlock, a lock that was waited for too long, a row that changed under a snapshot.
        1213 | 1205 | 1020 => Trouble::Conflict,
        // Shut-down, too many connections, killed, interrupted, took too long, read-only, idle.
        1040 | 1053 | 1077 | 1079 | 1203 | 1290 | 1317 | 1792 | 1836 | 1927 | 1969 | 3024 | 4031 => {
            Trouble::Outage
        }
        // The table, the disk, the temporary space.
        1021 | 1114 => Trouble::Full,
        _ => Trouble::of_kind(error),
    }
}

//! The database that rolls are written to: three engines behind one small seam.
//!
//! One connection, transactions begun and ended by their own statements, bound values only. Names of tables are checked by
//! the plan and quoted here. A transaction that is neither committed nor rolled back ends with the connection.

use std::time::Duration;

use sqlx::{
    AssertSqlSafe, ConnectOptions as _, Connection as _, MySqlConnection, PgConnection, Row as _,
    SqliteConnection,
    mysql::MySqlConnectOptions,
    postgres::PgConnectOptions,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use crate::run::ResolvedConnection;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// How long another writer may hold a SQLite file.
const BUSY_TIMEOUT: Duration = Duration::from_mins(1);

/// What a statement is given.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Text(Option<String>),
    Number(Option<f64>),
    Whole(i64),
    /// A time as text; converted where the engine does not do so by itself.
    Time(Option<String>),
}

/// Which engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Sqlite,
    Mysql,
    Postgres,
}

impl Dialect {
    /// Returns the engine of a connection, if rolls can be written to it.
    pub(crate) fn of(connection: &ResolvedConnection) -> Option<Self> {
        match connection.engine.as_str() {
            "sqlite" => Some(Self::Sqlite),
            "mysql" => Some(Self::Mysql),
            "postgres" => Some(Self::Postgres),
            _ => None,
        }
    }

    const fn quote(self) -> char {
        match self {
            Self::Mysql => '`',
            Self::Sqlite | Self::Postgres => '"',
        }
    }
}

/// A statement in the making.
#[derive(Debug)]
pub(crate) struct Statement {
    dialect: Dialect,
    text: String,
    values: Vec<Value>,
}

impl Statement {
    /// Begins a statement.
    pub(crate) fn new(dialect: Dialect, text: &str) -> Self {
        Self { dialect, text: text.to_owned(), values: Vec::new() }
    }

    /// Adds text.
    #[must_use]
    pub(crate) fn text(mut self, text: &str) -> Self {
        self.text.push_str(text);
        self
    }

    /// Returns the text of a statement without values.
    pub(crate) fn into_text(self) -> String {
        self.text
    }

    /// Adds the name of a table or column, quoted.
    #[must_use]
    pub(crate) fn name(mut self, name: &str) -> Self {
        let quote = self.dialect.quote();
        for (index, part) in name.split('.').enumerate() {
            if index > 0 {
                self.text.push('.');
            }
            self.text.extend([quote]);
            self.text.push_str(part);
            self.text.extend([quote]);
        }
        self
    }

    /// Adds names in brackets, separated by commas.
    #[must_use]
    pub(crate) fn names(self, names: &[&str]) -> Self {
        let first = self.text(" (");
        let listed = names.iter().enumerate().fold(first, |statement, (index, name)| {
            let statement = if index > 0 { statement.text(", ") } else { statement };
            statement.name(name)
        });
        listed.text(")")
    }

    /// Adds a value.
    #[must_use]
    pub(crate) fn value(mut self, value: Value) -> Self {
        let number = self.values.len() + 1;
        let placeholder = match (self.dialect, &value) {
            (Dialect::Postgres, Value::Time(_)) => format!("CAST(${number} AS TIMESTAMP)"),
            (Dialect::Postgres, _) => format!("${number}"),
            (Dialect::Sqlite | Dialect::Mysql, _) => "?".to_owned(),
        };
        self.text.push_str(&placeholder);
        self.values.push(value);
        self
    }

    /// Adds values in brackets, separated by commas.
    #[must_use]
    pub(crate) fn values(self, values: impl IntoIterator<Item = Value>) -> Self {
        let first = self.text("(");
        let listed = values.into_iter().enumerate().fold(first, |statement, (index, value)| {
            let statement = if index > 0 { statement.text(", ") } else { statement };
            statement.value(value)
        });
        listed.text(")")
    }
}

/// A database, opened.
#[derive(Debug)]
pub(crate) enum Target {
    Sqlite(SqliteConnection),
    Mysql(MySqlConnection),
    Postgres(PgConnection),
}

/// Binds values to a query; a macro, because each engine has a type of query of its own.
macro_rules! bound {
    ($statement:expr) => {{
        let Statement { text, values, .. } = $statement;
        let mut query = sqlx::query(AssertSqlSafe(text));
        for value in values {
            query = match value {
                Value::Text(text) | Value::Time(text) => query.bind(text),
                Value::Number(number) => query.bind(number),
                Value::Whole(number) => query.bind(number),
            };
        }
        query
    }};
}

impl Target {
    /// Connects to the database of a connection.
    pub(crate) async fn connect(dialect: Dialect, to: &ResolvedConnection) -> sqlx::Result<Self> {
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, Self::connect_unbounded(dialect, to)).await;
        connected.unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())))
    }

    async fn connect_unbounded(dialect: Dialect, to: &ResolvedConnection) -> sqlx::Result<Self> {
        match dialect {
            Dialect::Sqlite => connect_sqlite(to).await.map(Self::Sqlite),
            Dialect::Mysql => connect_mysql(to).await.map(Self::Mysql),
            Dialect::Postgres => connect_postgres(to).await.map(Self::Postgres),
        }
    }

    /// Returns which engine it is.
    pub(crate) const fn dialect(&self) -> Dialect {
        match self {
            Self::Sqlite(_) => Dialect::Sqlite,
            Self::Mysql(_) => Dialect::Mysql,
            Self::Postgres(_) => Dialect::Postgres,
        }
    }

    /// Runs a statement that returns nothing.
    pub(crate) async fn execute(&mut self, statement: Statement) -> sqlx::Result<u64> {
        match self {
            Self::Sqlite(connection) => {
                bound!(statement).execute(connection).await.map(|done| done.rows_affected())
            }
            Self::Mysql(connection) => {
                bound!(statement).execute(connection).await.map(|done| done.rows_affected())
            }
            Self::Postgres(connection) => {
                bound!(statement).execute(connection).await.map(|done| done.rows_affected())
            }
        }
    }

    /// Runs a query and returns the whole numbers of its first column.
    pub(crate) async fn numbers(&mut self, statement: Statement) -> sqlx::Result<Vec<i64>> {
        match self {
            Self::Sqlite(connection) => {
                bound!(statement).fetch_all(connection).await?.iter().map(|row| row.try_get(0)).collect()
            }
            Self::Mysql(connection) => {
                bound!(statement).fetch_all(connection).await?.iter().map(|row| row.try_get(0)).collect()
            }
            Self::Postgres(connection) => {
                bound!(statement).fetch_all(connection).await?.iter().map(|row| row.try_get(0)).collect()
            }
        }
    }

    /// Runs statements without values, as the protocol's plain text.
    pub(crate) async fn run(&mut self, text: String) -> sqlx::Result<()> {
        let text = AssertSqlSafe(text);
        match self {
            Self::Sqlite(connection) => sqlx::raw_sql(text).execute(connection).await.map(drop),
            Self::Mysql(connection) => sqlx::raw_sql(text).execute(connection).await.map(drop),
            Self::Postgres(connection) => sqlx::raw_sql(text).execute(connection).await.map(drop),
        }
    }

    /// Begins a transaction.
    pub(crate) async fn begin(&mut self) -> sqlx::Result<()> {
        let text = match self {
            // The write lock is taken at once: taking it later fails where another writer was faster.
            Self::Sqlite(_) => "BEGIN IMMEDIATE",
            Self::Mysql(_) => "START TRANSACTION",
            Self::Postgres(_) => "BEGIN",
        };
        self.run(text.to_owned()).await
    }

    /// Closes the connection politely.
    pub(crate) async fn close(self) -> sqlx::Result<()> {
        match self {
            Self::Sqlite(connection) => connection.close().await,
            Self::Mysql(connection) => connection.close().await,
            Self::Postgres(connection) => connection.close().await,
        }
    }
}

async fn connect_sqlite(to: &ResolvedConnection) -> sqlx::Result<SqliteConnection> {
    let path = to.path.clone().ok_or_else(|| {
        sqlx::Error::Configuration(
            "the connection has no `path`; it names the file of a SQLite database".into(),
        )
    })?;
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging();
    SqliteConnection::connect_with(&options).await
}

async fn connect_mysql(to: &ResolvedConnection) -> sqlx::Result<MySqlConnection> {
    let mut options = MySqlConnectOptions::new()
        .host(&to.host)
        .username(&to.user)
        .password(to.password.expose())
        .database(&to.database)
        .disable_statement_logging();
    if let Some(port) = to.port {
        options = options.port(port);
    }
    let mut connection = MySqlConnection::connect_with(&options).await?;
    // Without it a server may cut a text that is too long and call that success.
    let strict = "SET SESSION sql_mode = CONCAT(@@SESSION.sql_mode, ',STRICT_ALL_TABLES'), innodb_lock_wait_timeout = 60";
    sqlx::raw_sql(strict).execute(&mut connection).await?;
    Ok(connection)
}

async fn connect_postgres(to: &ResolvedConnection) -> sqlx::Result<PgConnection> {
    let mut options = PgConnectOptions::new_without_pgpass()
        .host(&to.host)
        .username(&to.user)
        .password(to.password.expose())
        .database(&to.database)
        .options([("lock_timeout", "60s")])
        .disable_statement_logging();
    if let Some(port) = to.port {
        options = options.port(port);
    }
    PgConnection::connect_with(&options).await
}

//! `MySQL` and `MariaDB`.
//!
//! The session is that of the JDBC driver which definitions were written for: the server's own time
//! zone, strict mode, no `||` as concatenation. Rows are read in the binary protocol, whose numbers
//! are exact (the text protocol shows six digits of a FLOAT). Numbers are written as text, so that
//! the server parses them with all digits.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt, future::BoxFuture, stream::BoxStream};
use sqlx::{
    AssertSqlSafe, Column as _, ConnectOptions, Connection, Executor, MySql, MySqlConnection, MySqlPool,
    Statement, TypeInfo,
    mysql::{MySqlConnectOptions, MySqlDatabaseError, MySqlPoolOptions, MySqlSslMode},
};

use super::{
    Login,
    link::{Bound, Link, Row, TargetColumn, TargetKind, Verdict, full_statement, insert, statements},
    mysql_row::RowDecoder,
    query::InsertText,
};
use crate::{
    column::Column,
    convert::Conversion,
    jdbc::{MysqlAddress, Tls},
    limits::{CONNECT_SECONDS, MYSQL_PARAMETERS, NET_WRITE_SECONDS},
    moment::Moment,
    number,
    secret::Secret,
};

/// One connection. The pool has room for one only; it is there because its stream of rows owns
/// what it needs, while a stream of a bare connection borrows it.
pub(crate) struct MysqlLink {
    pool: MySqlPool,
}

/// Errors of the server that make every further row fail: shutdown, killed, missing rights or
/// table, read-only, disk full.
const FATAL: [u16; 14] = [1021, 1044, 1045, 1049, 1053, 1077, 1079, 1114, 1142, 1146, 1290, 1317, 1836, 1927];

/// Lock wait time-out and deadlock.
const LOST_LOCK: [u16; 2] = [1205, 1213];

impl MysqlLink {
    pub(crate) async fn connect(address: &MysqlAddress, login: &Login) -> Result<Self, sqlx::Error> {
        let options = options(address, login);
        // Tried apart from the pool, which would go on trying a server that refuses.
        let seconds = Duration::from_secs(CONNECT_SECONDS);
        let probe = tokio::time::timeout(seconds, MySqlConnection::connect_with(&options));
        let probe = probe.await.map_err(|_| sqlx::Error::PoolTimedOut)??;
        probe.close().await?;
        let setup: Arc<[String]> = session(address, login).into();
        let pool = MySqlPoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .acquire_timeout(seconds)
            .after_connect(move |connection, _| {
                let setup = Arc::clone(&setup);
                Box::pin(async move {
                    for statement in setup.iter() {
                        // The session statements of the definition, and ours.
                        connection.execute(AssertSqlSafe(statement.as_str())).await?;
                    }
                    Ok(())
                })
            })
            .connect_with(options)
            .await?;
        Ok(Self { pool })
    }
}

fn options(address: &MysqlAddress, login: &Login) -> MySqlConnectOptions {
    let user =
        if login.username.is_empty() { address.user.as_deref() } else { Some(login.username.as_str()) };
    let password = match login.password.expose() {
        "" => address.password.as_ref().map_or("", Secret::expose),
        password => password,
    };
    let mut options = MySqlConnectOptions::new()
        .username(user.unwrap_or_default())
        .password(password)
        .charset("utf8mb4")
        .timezone(None)
        .pipes_as_concat(false)
        .no_engine_substitution(false)
        .ssl_mode(match address.tls {
            Tls::Off => MySqlSslMode::Disabled,
            Tls::Preferred => MySqlSslMode::Preferred,
            Tls::Required => MySqlSslMode::Required,
            Tls::VerifyCa => MySqlSslMode::VerifyCa,
            Tls::VerifyHost => MySqlSslMode::VerifyIdentity,
        })
        // Statements hold the definition's SQL, which may hold secrets.
        .disable_statement_logging();
    if let Some((host, port)) = address.hosts.first() {
        options = options.host(host).port(*port);
    }
    match &address.database {
        Some(database) => options.database(database),
        None => options,
    }
}

fn session(address: &MysqlAddress, login: &Login) -> Vec<String> {
    let mut statements = vec![format!("SET net_write_timeout={NET_WRITE_SECONDS}")];
    if address.strict {
        statements.push("SET sql_mode=CONCAT(@@sql_mode,',STRICT_TRANS_TABLES')".to_owned());
    }
    statements.extend(address.variables.as_ref().map(|variables| format!("SET {variables}")));
    statements.extend(login.session.iter().cloned());
    statements
}

impl Link for MysqlLink {
    fn rows(
        self: Box<Self>,
        query: String,
        _conversion: Arc<Conversion>,
    ) -> BoxStream<'static, Result<Row, sqlx::Error>> {
        // The query is the definition's own SQL, run with the definition's own login.
        let rows = sqlx::query(AssertSqlSafe(query)).persistent(false).fetch(&self.pool);
        let mut decoder = RowDecoder::default();
        rows.map(move |row| row.map(|row| decoder.decode(&row))).boxed()
    }

    fn execute<'a>(&'a mut self, sql: &'a str) -> BoxFuture<'a, Result<(), sqlx::Error>> {
        Box::pin(async move {
            // preSql and postSql are SQL of the definition's author, with the rights of its login.
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&self.pool).await.map(drop)
        })
    }

    fn columns<'a>(
        &'a mut self,
        table: &'a str,
        columns: &'a str,
    ) -> BoxFuture<'a, Result<Vec<TargetColumn>, sqlx::Error>> {
        Box::pin(async move {
            // Table and columns are SQL of the definition; nothing is run, only described.
            let sql = AssertSqlSafe(format!("select {columns} from {table} where 1=2"));
            let statement = (&self.pool).prepare(sqlx::SqlSafeStr::into_sql_str(sql)).await?;
            Ok(statement
                .columns()
                .iter()
                .map(|column| TargetColumn {
                    name: column.name().to_owned(),
                    kind: target_kind(column.type_info().name()),
                })
                .collect())
        })
    }

    fn bind(&self, column: &Column, target: TargetKind, conversion: &Conversion) -> Result<Bound, String> {
        bind(column, target, conversion)
    }

    fn insert_all<'a>(
        &'a mut self,
        text: &'a InsertText,
        rows: &'a [Vec<Bound>],
    ) -> BoxFuture<'a, Result<(), sqlx::Error>> {
        Box::pin(async move {
            let mut transaction = self.pool.begin().await?;
            let full = full_statement(text.columns, MYSQL_PARAMETERS);
            for rows in statements(rows, text.columns, MYSQL_PARAMETERS) {
                let done = insert::<MySql>(&mut transaction, text, rows, rows.len() == full).await;
                if let Err(error) = done {
                    // The first error says what is wrong; a failed rollback ends with the connection.
                    let _ = transaction.rollback().await;
                    return Err(error);
                }
            }
            transaction.commit().await
        })
    }

    fn insert_one<'a>(
        &'a mut self,
        text: &'a InsertText,
        row: &'a [Bound],
    ) -> BoxFuture<'a, Result<(), sqlx::Error>> {
        Box::pin(async move {
            let mut connection = self.pool.acquire().await?;
            insert::<MySql>(&mut connection, text, &[row.to_vec()], true).await
        })
    }

    fn verdict(&self, error: &sqlx::Error) -> Verdict {
        let sqlx::Error::Database(error) = error else { return Verdict::Fatal };
        match error.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number) {
            Some(number) if LOST_LOCK.contains(&number) => Verdict::Again,
            Some(number) if !FATAL.contains(&number) => Verdict::Row,
            _ => Verdict::Fatal,
        }
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.pool.close().await })
    }
}

fn target_kind(name: &str) -> TargetKind {
    match name {
        "FLOAT" | "DOUBLE" | "DECIMAL" => TargetKind::Real,
        "DATE" => TargetKind::Date,
        "TIME" => TargetKind::Time,
        "DATETIME" | "TIMESTAMP" => TargetKind::DateTime,
        "YEAR" => TargetKind::Year,
        "BIT" => TargetKind::Bit,
        "BOOLEAN" => TargetKind::Integer,
        "GEOMETRY" | "JSON" => TargetKind::Any,
        name if name.contains("INT") => TargetKind::Integer,
        // BLOB and BINARY are also the names of texts with a binary collation, so the value decides.
        name if name.contains("BLOB") || name.contains("BINARY") => TargetKind::Bytes,
        _ => TargetKind::Text,
    }
}

fn bind(column: &Column, target: TargetKind, conversion: &Conversion) -> Result<Bound, String> {
    let text = || match conversion.text(column) {
        Ok(text) => Ok(text.map_or(Bound::Null, |text| Bound::Text(text.into_owned()))),
        Err(error) => Err(error.to_string()),
    };
    let moment = |show: fn(Moment) -> Option<String>| match conversion.moment(column) {
        Ok(moment) => Ok(moment.and_then(show).map_or(Bound::Null, Bound::Text)),
        Err(error) => Err(error.to_string()),
    };
    match (target, column) {
        (TargetKind::Date, _) => moment(|at| at.date().map(|date| Moment::Date(date).sql_text())),
        (TargetKind::DateTime, _) => moment(|at| at.date_time().map(|at| Moment::DateTime(at).sql_text())),
        (TargetKind::Time, _) => moment(|at| Some(Moment::Time(at.time()).sql_text())),
        (TargetKind::Year, _) => match conversion.long(column) {
            Ok(long) => Ok(long.map_or(Bound::Null, year)),
            Err(error) => Err(error.to_string()),
        },
        (TargetKind::Bit, _) => bit(column, conversion),
        (TargetKind::Integer | TargetKind::Real, Column::Bool(Some(value))) => {
            Ok(Bound::Int((*value).into()))
        }
        (TargetKind::Bytes | TargetKind::Any, Column::Bytes(Some(bytes))) => Ok(Bound::Bytes(bytes.clone())),
        // Numbers and dates in a binary column are refused, as the matrix says; texts go as they are.
        (TargetKind::Bytes, column) if !matches!(column, Column::String(_)) => match conversion.bytes(column)
        {
            Ok(bytes) => Ok(bytes.map_or(Bound::Null, |bytes| Bound::Bytes(bytes.into_owned()))),
            Err(error) => Err(error.to_string()),
        },
        (
            TargetKind::Integer | TargetKind::Real | TargetKind::Text | TargetKind::Bytes | TargetKind::Any,
            _,
        ) => text(),
    }
}

/// The year zero as a number is the year zero, but as a text it would be the year 2000.
fn year(digits: String) -> Bound {
    digits.parse().map_or(Bound::Text(digits), Bound::Int)
}

/// A bit field takes its value as bytes, most significant first.
fn bit(column: &Column, conversion: &Conversion) -> Result<Bound, String> {
    if let Column::Bytes(Some(bytes)) = column {
        return Ok(Bound::Bytes(bytes.clone()));
    }
    if let Column::Long(Some(digits)) = column
        && number::is_integer(digits)
        && let Ok(bits) = digits.parse::<u64>()
    {
        return Ok(Bound::Bytes(bits.to_be_bytes().to_vec()));
    }
    match conversion.boolean(column) {
        Ok(value) => Ok(value.map_or(Bound::Null, |value| Bound::Bytes(vec![value.into()]))),
        Err(error) => Err(error.to_string()),
    }
}

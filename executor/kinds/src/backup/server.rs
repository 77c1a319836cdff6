//! What a MySQL or MariaDB server has: databases and tables, asked for once, before the first dump.
//!
//! The connection is closed before a dump starts; one that idles for hours would be closed by the server.

use std::time::Duration;

use sqlx::{Connection as _, MySqlConnection, mysql::MySqlConnectOptions};

use super::{
    BackupError,
    manifest::Table,
    name::Database,
    plan::{Plan, Selection},
};
use crate::run::ResolvedConnection;

/// The port of MySQL and MariaDB.
const PORT: u16 = 3306;

/// How long a server may take to let an account in.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// Databases without anything of a user, left out of `all`.
const OF_SERVER: [&str; 4] = ["information_schema", "performance_schema", "mysql", "sys"];

/// Databases that are views into the server's memory and cannot be dumped.
const VIRTUAL: [&str; 2] = ["information_schema", "performance_schema"];

/// Databases that an error lists.
const KNOWN_SHOWN_MAX: usize = 20;

/// Returns the address of a server as people know it.
pub(super) fn address(connection: &ResolvedConnection) -> String {
    match &connection.path {
        Some(socket) => socket.display().to_string(),
        None => format!("{}:{}", connection.host, port(connection)),
    }
}

/// Returns the port of a server.
pub(super) fn port(connection: &ResolvedConnection) -> u16 {
    connection.port.unwrap_or(PORT)
}

/// A server and what to back up of it.
#[derive(Debug)]
pub(super) struct Catalog {
    /// The version as the server says it.
    pub(super) version: String,
    /// Databases with their tables.
    pub(super) databases: Vec<(Database, Vec<Table>)>,
}

impl Catalog {
    /// Asks a server for the databases of a plan.
    pub(super) async fn load(plan: &Plan, connection: &ResolvedConnection) -> Result<Self, BackupError> {
        let mut server = connect(connection).await?;
        let failed = |source| BackupError::List { address: address(connection), source: Box::new(source) };
        // The casts make text of what some servers declare as binary.
        let version = sqlx::query_scalar("SELECT CAST(VERSION() AS CHAR)")
            .fetch_one(&mut server)
            .await
            .map_err(failed)?;
        let known = sqlx::query_scalar(
            "SELECT CAST(SCHEMA_NAME AS CHAR) FROM information_schema.SCHEMATA ORDER BY 1",
        );
        let known: Vec<String> = known.fetch_all(&mut server).await.map_err(failed)?;
        let mut databases = Vec::new();
        for database in select(&plan.selection, connection, &known)? {
            let tables = tables(&mut server, &database).await.map_err(failed)?;
            databases.push((database, tables));
        }
        // The server is told, but a failure to say goodbye is none of the backup.
        let _ = server.close().await;
        Ok(Self { version, databases })
    }

    /// Says whether the server is a MariaDB.
    pub(super) fn is_mariadb(&self) -> bool {
        self.version.contains("MariaDB")
    }
}

async fn connect(connection: &ResolvedConnection) -> Result<MySqlConnection, BackupError> {
    let options =
        MySqlConnectOptions::new().username(&connection.user).password(connection.password.expose());
    let options = match &connection.path {
        Some(socket) => options.socket(socket),
        None => options.host(&connection.host).port(port(connection)),
    };
    // Giving up on a connection that is not yet one closes a socket and leaves nothing behind.
    match tokio::time::timeout(CONNECT_TIMEOUT, MySqlConnection::connect_with(&options)).await {
        Ok(Ok(server)) => Ok(server),
        Ok(Err(source)) => Err(BackupError::Connect {
            address: address(connection),
            user: connection.user.clone(),
            source: Box::new(source),
        }),
        Err(_) => {
            Err(BackupError::NoAnswer { address: address(connection), seconds: CONNECT_TIMEOUT.as_secs() })
        }
    }
}

async fn tables(server: &mut MySqlConnection, database: &Database) -> Result<Vec<Table>, sqlx::Error> {
    let rows: Vec<(String, String, i64)> = sqlx::query_as(
        "SELECT CAST(TABLE_NAME AS CHAR), CAST(COALESCE(ENGINE, '') AS CHAR), CAST(COALESCE(TABLE_ROWS, 0) AS SIGNED) \
         FROM information_schema.TABLES \
         WHERE TABLE_SCHEMA = ? AND TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') ORDER BY 1",
    )
    .bind(database.as_str())
    .fetch_all(server)
    .await?;
    Ok(rows.into_iter().map(|(name, engine, rows)| Table { name, engine, rows }).collect())
}

fn select(
    selection: &Selection,
    connection: &ResolvedConnection,
    known: &[String],
) -> Result<Vec<Database>, BackupError> {
    let misfit = |problem| BackupError::With { path: "databases", problem };
    let named = match selection {
        Selection::All => {
            let found = known.iter().filter(|name| !OF_SERVER.contains(&name.to_lowercase().as_str()));
            let found = found.map(|name| Database::parse(name)).collect::<Result<Vec<_>, _>>();
            // Leaving one out silently would be found out on the day of the restore.
            let found = found.map_err(|problem| misfit(format!("not all can be backed up: {problem}")))?;
            if found.is_empty() {
                return Err(misfit(format!(
                    "{:?} sees no database on {}",
                    connection.user,
                    address(connection)
                )));
            }
            return Ok(found);
        }
        Selection::OfConnection if connection.database.is_empty() => {
            return Err(misfit(
                "it is absent, and the connection has no database; name some or write `all`".into(),
            ));
        }
        Selection::OfConnection => vec![Database::parse(&connection.database).map_err(misfit)?],
        Selection::Named(named) => named.clone(),
    };
    named.into_iter().map(|database| ensure_known(database, known)).collect()
}

fn ensure_known(database: Database, known: &[String]) -> Result<Database, BackupError> {
    if VIRTUAL.contains(&database.as_str()) {
        let problem = format!("{database} is a view into the server's memory and holds nothing to back up");
        return Err(BackupError::With { path: "databases", problem });
    }
    if known.iter().any(|name| name == database.as_str()) {
        return Ok(database);
    }
    let shown: Vec<&str> = known.iter().map(String::as_str).take(KNOWN_SHOWN_MAX).collect();
    let more = if known.len() > shown.len() { ", ..." } else { "" };
    let known = format!("{}{more}", shown.join(", "));
    Err(BackupError::UnknownDatabase { database: database.to_string(), known })
}

#[cfg(test)]
mod tests {
    use millrace_common::secret::Secret;

    use super::*;

    fn connection(database: &str) -> ResolvedConnection {
        ResolvedConnection {
            engine: "mysql".into(),
            host: "db".into(),
            port: None,
            user: "etl".into(),
            password: Secret::default(),
            database: database.into(),
            path: None,
        }
    }

    fn known() -> Vec<String> {
        ["information_schema", "mes", "mysql", "performance_schema", "sys", "wms"].map(str::to_owned).to_vec()
    }

    fn names(databases: &[Database]) -> Vec<&str> {
        databases.iter().map(Database::as_str).collect()
    }

    #[test]
    fn all_leaves_out_what_belongs_to_the_server() {
        let found = select(&Selection::All, &connection(""), &known()).expect("databases");
        assert_eq!(names(&found), ["mes", "wms"]);
        let odd = ["mes".to_owned(), "a b".to_owned()];
        let error = select(&Selection::All, &connection(""), &odd).expect_err("a name that is no folder");
        assert!(error.to_string().contains("\"a b\""), "{error}");
        assert!(select(&Selection::All, &connection(""), &["sys".to_owned()]).is_err());
    }

    #[test]
    fn the_database_of_the_connection_is_the_default() {
        let found = select(&Selection::OfConnection, &connection("wms"), &known()).expect("a database");
        assert_eq!(names(&found), ["wms"]);
        assert!(select(&Selection::OfConnection, &connection(""), &known()).is_err());
    }

    #[test]
    fn a_database_that_is_not_there_is_named_with_those_that_are() {
        let selection = |name| Selection::Named(vec![Database::parse(name).expect("a name")]);
        let error = select(&selection("nope"), &connection(""), &known()).expect_err("unknown").to_string();
        assert!(error.contains("\"nope\" does not exist") && error.contains("mes, mysql"), "{error}");
        assert!(select(&selection("information_schema"), &connection(""), &known()).is_err());
        assert!(select(&selection("mysql"), &connection(""), &known()).is_ok());
    }
}

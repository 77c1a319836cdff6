//! Connections: named credentials and addresses that a definition refers to and never contains.

use std::{collections::BTreeMap, path::PathBuf};

use serde::Deserialize;

use crate::{id::ConnectionName, secret::Secret};

/// What a connection leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// MySQL or MariaDB.
    Mysql,
    /// PostgreSQL.
    Postgres,
    /// A SQLite file.
    Sqlite,
    /// An FTP server.
    Ftp,
}

/// Credentials and address. Kept in the executor's configuration; the password may come from a file of its own.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Connection {
    /// What it leads to.
    pub engine: Engine,
    /// Host name or address; unused for SQLite.
    #[serde(default)]
    pub host: String,
    /// Port; the engine's own where absent.
    pub port: Option<u16>,
    /// Account.
    #[serde(default)]
    pub user: String,
    /// Password, where it stands in the configuration itself.
    pub password: Option<Secret>,
    /// A file that holds the password alone; read when an attempt starts.
    pub password_file: Option<PathBuf>,
    /// Database of a server; unused for FTP.
    #[serde(default)]
    pub database: String,
    /// File of a SQLite database, or home folder on an FTP server.
    pub path: Option<PathBuf>,
}

/// All connections of an executor, by name.
pub type Connections = BTreeMap<ConnectionName, Connection>;

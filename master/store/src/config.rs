//! Where the store is: a file, or a database on a server.
//!
//! An address is one text for a settings file. What is read from it is typed, and nothing that can be printed holds the
//! password.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use millrace_common::secret::Secret;
use thiserror::Error;

use self::url::{Parts, decoded};

mod url;

const POSTGRES_PORT: u16 = 5_432;
const MYSQL_PORT: u16 = 3_306;

/// Where the store is and how it may be opened.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Where it is.
    pub address: Address,
    /// Whether a data folder may be on a file system whose locks cannot be trusted.
    pub allow_network_filesystem: bool,
    /// Leaves the data folder unlocked, so that a test can have two stores on it.
    #[cfg(feature = "testing")]
    pub is_unlocked: bool,
    pub(crate) limits: Limits,
}

/// A file or a server.
#[derive(Debug, Clone)]
pub enum Address {
    /// A file, whose folder is the data folder.
    Sqlite(PathBuf),
    /// A PostgreSQL server.
    Postgres(ServerConfig),
    /// A MySQL or MariaDB server; which of them shows when it answers.
    MySql(ServerConfig),
}

/// A database on a server.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Name or address of the machine.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// A socket on this machine that is used instead of host and port: for PostgreSQL the folder that holds it, for
    /// MySQL and MariaDB the file.
    pub socket: Option<PathBuf>,
    /// The database, which exists.
    pub database: String,
    /// The account.
    pub user: String,
    /// Its password; empty where the server asks for none.
    pub password: Secret,
    /// How the way there is protected.
    pub tls: Tls,
}

/// How the way to a server is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// In clear text: for a socket, a loopback address, or a network that nobody else is on.
    Off,
    /// Encrypted, to whoever answers.
    Encrypt,
    /// Encrypted, to a server whose certificate names the host and is signed by an authority of this file, or by one that
    /// browsers trust where there is none.
    Verify {
        /// Certificates of authorities, in PEM.
        ca_file: Option<PathBuf>,
    },
}

/// How long each thing may take. The server keeps the shorter ones; `answer` is for a server that keeps nothing any more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Until a connection can be used.
    pub(crate) connect: Duration,
    /// Waiting for a row that another transaction holds.
    pub(crate) lock: Duration,
    /// A statement of a leader.
    pub(crate) statement: Duration,
    /// Between two statements of a leader's transaction.
    pub(crate) idle: Duration,
    /// A statement of a page or of the API.
    pub(crate) query: Duration,
    /// A statement that reads all that is live.
    pub(crate) load: Duration,
    /// What the server gets beyond its own limit before it is given up.
    pub(crate) grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(5),
            // As long as a fail-over may reasonably be held up by a transaction of the dead leader.
            lock: Duration::from_secs(5),
            statement: Duration::from_secs(10),
            idle: Duration::from_secs(5),
            query: Duration::from_secs(30),
            load: Duration::from_secs(300),
            grace: Duration::from_secs(5),
        }
    }
}

/// Why a text is no address of a store.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    /// It has no scheme.
    #[error("the address of the store has no scheme: write {EXAMPLES}")]
    NoScheme,
    /// It names nothing that this program knows.
    #[error("{0:?} is no database that this program knows: write {EXAMPLES}")]
    UnknownScheme(String),
    /// It names no file.
    #[error(
        "the address of the store names no file, or one with '?' in its path: write sqlite:///path/to/file"
    )]
    NoFile,
    /// It names no database or no account.
    #[error("the address of the store names no {0}: write {EXAMPLES}")]
    Missing(&'static str),
    /// The port is none.
    #[error("{0:?} in the address of the store is no port: write a number from 1 to 65535 after the host")]
    Port(String),
    /// A part has a percent sign that does not begin two hexadecimal digits of UTF-8 text.
    #[error("the {0} in the address of the store is not percent-encoded text: write % as %25")]
    Encoding(&'static str),
    /// A parameter has another name or value than there is.
    #[error("{0:?} in the address of the store is not known: {PARAMETERS}")]
    Parameter(String),
}

const EXAMPLES: &str = "sqlite:///path/to/file, postgres://user:password@host/database or \
     mysql://user:password@host/database";
const PARAMETERS: &str = "after the '?' there may be tls=off, tls=encrypt, tls=verify, ca=/path/to/ca.pem and \
     socket=/path, joined by '&'";

impl StoreConfig {
    const fn at(address: Address, limits: Limits) -> Self {
        Self {
            address,
            allow_network_filesystem: false,
            #[cfg(feature = "testing")]
            is_unlocked: false,
            limits,
        }
    }

    /// Makes the configuration for an SQLite file.
    #[must_use]
    pub fn sqlite(file: &Path) -> Self {
        Self::at(Address::Sqlite(file.to_owned()), Limits::default())
    }

    /// Makes the configuration for a database of a PostgreSQL server.
    #[must_use]
    pub fn postgres(server: ServerConfig) -> Self {
        Self::at(Address::Postgres(server), Limits::default())
    }

    /// Makes the configuration for a database of a MySQL or MariaDB server.
    #[must_use]
    pub fn mysql(server: ServerConfig) -> Self {
        Self::at(Address::MySql(server), Limits::default())
    }

    #[cfg(feature = "testing")]
    pub(crate) const fn takes_lock(&self) -> bool {
        !self.is_unlocked
    }

    #[cfg(not(feature = "testing"))]
    #[expect(clippy::unused_self, reason = "the other form of this function needs it")]
    pub(crate) const fn takes_lock(&self) -> bool {
        true
    }
}

impl FromStr for StoreConfig {
    type Err = AddressError;

    /// Reads `sqlite:///path/to/file`, `postgres://user:password@host:port/database` or the same with `mysql`.
    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text.split_once(':').ok_or(AddressError::NoScheme)?;
        let rest = rest.strip_prefix("//").ok_or(AddressError::NoScheme)?;
        match scheme {
            // A path with a question mark would be taken for parameters, of which a file has none.
            "sqlite" if rest.is_empty() || rest.ends_with('/') || rest.contains('?') => {
                Err(AddressError::NoFile)
            }
            "sqlite" => Ok(Self::sqlite(Path::new(rest))),
            "postgres" | "postgresql" => ServerConfig::parse(rest, POSTGRES_PORT).map(Self::postgres),
            "mysql" | "mariadb" => ServerConfig::parse(rest, MYSQL_PORT).map(Self::mysql),
            other => Err(AddressError::UnknownScheme(other.to_owned())),
        }
    }
}

impl ServerConfig {
    fn parse(rest: &str, default_port: u16) -> Result<Self, AddressError> {
        let Parts { user, password, host, port, database, parameters } = Parts::of(rest);
        let port = match port {
            None => default_port,
            Some(text) => text
                .parse()
                .ok()
                .filter(|port| *port > 0)
                .ok_or_else(|| AddressError::Port(text.to_owned()))?,
        };
        let mut server = Self {
            host: decoded("host", host)?,
            port,
            socket: None,
            database: decoded("database", database)?,
            user: decoded("user", user)?,
            password: Secret::new(decoded("password", password)?),
            tls: Tls::Off,
        };
        let mut tls = None;
        let mut ca_file = None;
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            let unknown = || AddressError::Parameter(parameter.to_owned());
            match parameter.split_once('=').ok_or_else(unknown)? {
                ("tls", value @ ("off" | "encrypt" | "verify")) => tls = Some(value),
                ("ca", file) => ca_file = Some(PathBuf::from(decoded("ca", file)?)),
                ("socket", path) => server.socket = Some(PathBuf::from(decoded("socket", path)?)),
                _ => return Err(unknown()),
            }
        }
        server.tls = match tls {
            Some("off") => Tls::Off,
            Some("encrypt") => Tls::Encrypt,
            Some(_) => Tls::Verify { ca_file },
            // What never leaves the machine needs no certificate, and everything else does.
            None if ca_file.is_none() && server.is_local() => Tls::Off,
            None => Tls::Verify { ca_file },
        };
        match () {
            () if server.host.is_empty() && server.socket.is_none() => Err(AddressError::Missing("host")),
            () if server.database.is_empty() => Err(AddressError::Missing("database")),
            () if server.user.is_empty() => Err(AddressError::Missing("user")),
            () => Ok(server),
        }
    }

    fn is_local(&self) -> bool {
        self.socket.is_some() || matches!(self.host.as_str(), "localhost" | "127.0.0.1" | "::1")
    }
}

/// Names the place, for messages: without the account.
impl fmt::Display for ServerConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.socket {
            Some(socket) => write!(f, "database {} at {}", self.database, socket.display()),
            None => write!(f, "database {} on {}:{}", self.database, self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests;

//! Opening: the folder, the lock, the schema.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, Serialize};
use sqlx::migrate::{MigrateError, Migrator};
use thiserror::Error;
use tokio::sync::Mutex;

use crate::{
    Inner, Store,
    dialect::{Connection, Database, Sqlite},
    folder,
};

static SQLITE_MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// A file up to this size, in bytes, is checked as a whole when it is opened: that takes about a millisecond.
const CHECKED_BYTES_MAX: u64 = 4 << 20;

/// Where the store is and how it may be opened.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreConfig {
    /// `sqlite:///absolute/path/to/file`. The file's folder is the data folder.
    pub url: String,
    /// Whether the data folder may be on a file system whose locks cannot be trusted.
    #[serde(default)]
    pub allow_network_filesystem: bool,
    /// Leaves the data folder unlocked, so that a test can have two stores on it.
    #[cfg(feature = "testing")]
    #[serde(skip)]
    pub is_unlocked: bool,
}

impl StoreConfig {
    /// Makes the configuration for `url`, with all else at its default.
    #[must_use]
    pub const fn new(url: String) -> Self {
        Self {
            url,
            allow_network_filesystem: false,
            #[cfg(feature = "testing")]
            is_unlocked: false,
        }
    }

    /// Makes the configuration for an SQLite file.
    #[must_use]
    pub fn sqlite(file: &Path) -> Self {
        Self::new(format!("sqlite://{}", file.display()))
    }

    #[cfg(feature = "testing")]
    const fn takes_lock(&self) -> bool {
        !self.is_unlocked
    }

    #[cfg(not(feature = "testing"))]
    #[expect(clippy::unused_self, reason = "the other form of this function needs it")]
    const fn takes_lock(&self) -> bool {
        true
    }

    fn file(&self) -> Result<PathBuf, OpenError> {
        let (scheme, rest) = self.url.split_once("://").ok_or(OpenError::NoScheme)?;
        match scheme {
            "sqlite" => {}
            "postgres" | "postgresql" | "mysql" | "mariadb" => {
                return Err(OpenError::Unsupported { scheme: scheme.to_owned() });
            }
            other => return Err(OpenError::UnknownScheme { scheme: other.to_owned() }),
        }
        // A path with a question mark would be taken for options, of which there are none.
        if rest.is_empty() || rest.ends_with('/') || rest.contains('?') {
            return Err(OpenError::NoFile);
        }
        Ok(PathBuf::from(rest))
    }
}

/// The address of a server may hold a password, so nothing but the scheme is shown of any but a file's.
impl fmt::Debug for StoreConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = match self.url.split_once("://") {
            Some(("sqlite", _)) => self.url.clone(),
            Some((scheme, _)) => format!("{scheme}://…"),
            None => "…".to_owned(),
        };
        f.debug_struct("StoreConfig")
            .field("url", &shown)
            .field("allow_network_filesystem", &self.allow_network_filesystem)
            .finish_non_exhaustive()
    }
}

/// Why a store cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The address has no scheme.
    #[error("the address of the store has no scheme: write sqlite:///path/to/file")]
    NoScheme,
    /// The address names a database that a later release will support.
    #[error("{scheme} comes with the next release: use sqlite:///path/to/file until then")]
    Unsupported {
        /// The scheme.
        scheme: String,
    },
    /// The address names nothing that this program knows.
    #[error("{scheme:?} is no database that this program knows: write sqlite:///path/to/file")]
    UnknownScheme {
        /// The scheme.
        scheme: String,
    },
    /// The address names no file.
    #[error(
        "the address of the store names no file, or one with '?' in its path: write sqlite:///path/to/file"
    )]
    NoFile,
    /// The folder or a file in it cannot be used.
    #[error("the data folder {} cannot be used", folder.display())]
    Folder {
        /// Which folder.
        folder: PathBuf,
        /// The system's reason.
        #[source]
        source: io::Error,
    },
    /// Another process has the folder.
    #[error(
        "the data folder {} is in use by another process: stop that one, or give this one a folder of its own",
        folder.display()
    )]
    InUse {
        /// Which folder.
        folder: PathBuf,
    },
    /// Locks and syncs cannot be trusted there.
    #[error(
        "the data folder {} is on {filesystem}, where SQLite can lose what was committed: move it to a local disk, \
         or set store.allow_network_filesystem if you know that this one is safe",
        folder.display()
    )]
    NetworkFilesystem {
        /// Which folder.
        folder: PathBuf,
        /// What it is on.
        filesystem: &'static str,
    },
    /// The database cannot be reached or read.
    #[error("the database cannot be opened")]
    Database(#[source] sqlx::Error),
    /// The file is damaged.
    #[error("the database file is damaged ({finding}): restore it from a backup")]
    Damaged {
        /// What the database found.
        finding: String,
    },
    /// A newer program has been here.
    #[error(
        "the database has schema version {found}, this program knows {known} and none after it: run the newer program"
    )]
    NewerSchema {
        /// The version that is not known.
        found: i64,
        /// The newest version that is.
        known: i64,
    },
    /// The schema was made by other migrations than this program's.
    #[error(
        "schema version {version} in the database is not the one that this program made: is it another program's?"
    )]
    ForeignSchema {
        /// Which version.
        version: i64,
    },
    /// The schema could not be brought up to date.
    #[error("the schema cannot be brought up to date")]
    Migrate(#[source] MigrateError),
}

impl Store {
    /// Opens the store, makes it where it is missing, and brings its schema up to date.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing is changed on any but the last.
    pub async fn open(config: &StoreConfig) -> Result<Self, OpenError> {
        let file = config.file()?;
        let folder = match file.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let failed = |source| OpenError::Folder { folder: folder.clone(), source };
        folder::ensure(&folder).map_err(failed)?;
        if !config.allow_network_filesystem
            && let Some(filesystem) = folder::network_filesystem(&folder).map_err(failed)?
        {
            return Err(OpenError::NetworkFilesystem { folder, filesystem });
        }
        let lock = if config.takes_lock() {
            let Some(lock) = folder::lock(&folder).map_err(failed)? else {
                return Err(OpenError::InUse { folder });
            };
            Some(lock)
        } else {
            None
        };
        folder::ensure_file(&file).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        let database = Database::Sqlite(Sqlite::new(&file));
        let connection = prepare(&database, bytes).await?;
        let inner = Inner {
            database,
            spare: Mutex::new(Some(connection)),
            #[cfg(feature = "testing")]
            claim_fault: Mutex::new(None),
            _lock: lock,
        };
        Ok(Self { inner: Arc::new(inner) })
    }
}

/// Checks the file where that is cheap, and migrates.
async fn prepare(database: &Database, bytes: u64) -> Result<Connection, OpenError> {
    let mut connection = database.connect().await.map_err(OpenError::Database)?;
    if bytes <= CHECKED_BYTES_MAX {
        check(&mut connection).await?;
    }
    match &mut connection {
        Connection::Sqlite(sqlite) => {
            SQLITE_MIGRATIONS.run(sqlite).await.map_err(|error| refused(error, &SQLITE_MIGRATIONS))?;
        }
    }
    Ok(connection)
}

async fn check(connection: &mut Connection) -> Result<(), OpenError> {
    let rows = connection.fetch("PRAGMA quick_check(1)", &[]).await.map_err(OpenError::Database)?;
    let finding = rows.first().and_then(|row| row.cells().text().ok());
    match finding {
        Some(finding) if &*finding != "ok" => Err(OpenError::Damaged { finding: finding.to_string() }),
        _ => Ok(()),
    }
}

fn refused(error: MigrateError, migrations: &Migrator) -> OpenError {
    let known = migrations.iter().map(|migration| migration.version).max().unwrap_or(0);
    match error {
        MigrateError::VersionMissing(found) if found > known => OpenError::NewerSchema { found, known },
        MigrateError::VersionMissing(version) | MigrateError::VersionMismatch(version) => {
            OpenError::ForeignSchema { version }
        }
        other => OpenError::Migrate(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_of(url: &str) -> Result<PathBuf, OpenError> {
        StoreConfig::new(url.to_owned()).file()
    }

    #[test]
    fn addresses_name_a_file_or_are_refused() {
        assert_eq!(
            file_of("sqlite:///var/lib/millrace/state.db").unwrap(),
            Path::new("/var/lib/millrace/state.db")
        );
        assert!(matches!(file_of("/var/lib/state.db"), Err(OpenError::NoScheme)));
        assert!(matches!(file_of("sqlite://"), Err(OpenError::NoFile)));
        assert!(matches!(file_of("sqlite:///state.db?mode=ro"), Err(OpenError::NoFile)));
        assert!(matches!(file_of("oracle://db"), Err(OpenError::UnknownScheme { .. })));
        let refusal = file_of("postgres://user:secret@db/millrace").unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "postgres comes with the next release: use sqlite:///path/to/file until then"
        );
    }

    #[test]
    fn the_password_of_an_address_is_not_shown() {
        let shown = format!("{:?}", StoreConfig::new("mysql://user:secret@db/millrace".to_owned()));
        assert!(!shown.contains("secret"), "{shown}");
    }
}

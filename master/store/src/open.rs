//! Opening: the folder and its lock, or the server and what it says of itself; then the schema.

use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use sqlx::migrate::{MigrateError, Migrator};
use thiserror::Error;
use tokio::sync::Mutex;

use crate::{
    Address, Inner, Store, StoreConfig,
    dialect::{
        Connection, Database, Migrated, MySql, Postgres, Purpose, SettingWarning, Sqlite, TooOld, Trouble,
        silence, trouble,
    },
    folder,
};

static SQLITE_MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");
static POSTGRES_MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");
static MYSQL_MIGRATIONS: Migrator = sqlx::migrate!("migrations/mysql");

/// A file up to this size, in bytes, is checked as a whole when it is opened: that takes about a millisecond.
const CHECKED_BYTES_MAX: u64 = 4 << 20;
/// How long a server may take to say what it is. A change of the schema takes as long as it takes.
const SERVER_TIME_MAX: Duration = Duration::from_secs(10);

/// Why a store cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
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
    /// The server lacks what the store needs.
    #[error(transparent)]
    TooOld(#[from] TooOld),
    /// The server follows another one and takes no writes.
    #[error("{server} is a replica and takes no writes: give the address of the server that it follows")]
    Replica {
        /// Which server.
        server: String,
    },
    /// The server cannot be reached, or does not let us in.
    #[error("{server} cannot be opened")]
    Server {
        /// Which server.
        server: String,
        /// Its reason.
        #[source]
        source: sqlx::Error,
    },
    /// A change of the schema was begun and broke off, on a server that cannot undo that.
    #[error(
        "schema version {version} is half made: restore the backup from before it, or drop the database if it is new"
    )]
    HalfMade {
        /// Which version.
        version: i64,
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

impl OpenError {
    /// Tells whether it may pass without anybody changing a setting: the server is away, or just coming up.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        let is_outage = |error: &sqlx::Error| matches!(trouble(error), Trouble::Outage | Trouble::Conflict);
        match self {
            Self::Database(source) | Self::Server { source, .. } => is_outage(source),
            Self::Migrate(MigrateError::Execute(source) | MigrateError::ExecuteMigration(source, _)) => {
                is_outage(source)
            }
            Self::Replica { .. } => true,
            Self::Folder { .. }
            | Self::InUse { .. }
            | Self::NetworkFilesystem { .. }
            | Self::Damaged { .. }
            | Self::NewerSchema { .. }
            | Self::TooOld(_)
            | Self::HalfMade { .. }
            | Self::ForeignSchema { .. }
            | Self::Migrate(_) => false,
        }
    }
}

impl Store {
    /// Opens the store, makes it where it is missing, and brings its schema up to date. On a server the database itself
    /// exists already.
    ///
    /// # Errors
    /// See [`OpenError`]; nothing is changed on any but the last.
    pub async fn open(config: &StoreConfig) -> Result<Self, OpenError> {
        let store = Self::attach(config).await?;
        store.prepare().await?;
        Ok(store)
    }

    /// Opens a store whose server may be away: connects to nobody, until [`prepare`](Self::prepare) or a query does. A
    /// file is opened as by [`open`](Self::open).
    ///
    /// # Errors
    /// As [`open`](Self::open), of a file alone.
    pub async fn attach(config: &StoreConfig) -> Result<Self, OpenError> {
        let (database, server) = match &config.address {
            Address::Sqlite(file) => return Self::open_file(config, file).await,
            Address::Postgres(server) => (Database::Postgres(Postgres::new(server, config.limits)), server),
            Address::MySql(server) => (Database::MySql(MySql::new(server, config.limits)), server),
        };
        Ok(Self::over(database, server.to_string(), None, OnceLock::new(), None))
    }

    /// Asks the server what it is, and brings its schema up to date. What is ready already is left alone.
    ///
    /// # Errors
    /// See [`OpenError`]; where it [is passing](OpenError::is_passing) the same may succeed later.
    pub async fn prepare(&self) -> Result<(), OpenError> {
        if !self.is_ready() {
            let warnings = prepare_server(&self.inner.database, self.inner.name.clone()).await?;
            // Somebody else may have been as fast, and has read the same.
            let _ = self.inner.warnings.set(warnings);
        }
        Ok(())
    }

    /// Tells whether the database was found to be one to work with, its schema up to date.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.inner.warnings.get().is_some()
    }

    /// Tells whether the database is on a server, which can be away.
    #[must_use]
    pub fn has_server(&self) -> bool {
        !matches!(self.inner.database, Database::Sqlite(_))
    }

    /// Returns where the database is, for messages: without the account.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// Returns which kind of database it is: `sqlite`, `postgres` or `mysql`.
    #[must_use]
    pub fn engine(&self) -> &'static str {
        match &self.inner.database {
            Database::Sqlite(_) => "sqlite",
            Database::Postgres(_) => "postgres",
            Database::MySql(_) => "mysql",
        }
    }

    async fn open_file(config: &StoreConfig, file: &Path) -> Result<Self, OpenError> {
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
        folder::ensure_file(file).map_err(failed)?;
        let bytes = file.metadata().map_err(failed)?.len();
        let database = Database::Sqlite(Sqlite::new(file));
        let connection = prepare_file(&database, bytes).await?;
        let name = file.display().to_string();
        Ok(Self::over(database, name, Some(connection), OnceLock::from(Vec::new()), lock))
    }

    fn over(
        database: Database,
        name: String,
        spare: Option<Connection>,
        warnings: OnceLock<Vec<SettingWarning>>,
        lock: Option<folder::Lock>,
    ) -> Self {
        let inner = Inner {
            database,
            name,
            spare: Mutex::new(spare),
            warnings,
            #[cfg(feature = "testing")]
            claim_fault: Mutex::new(None),
            _lock: lock,
        };
        Self { inner: Arc::new(inner) }
    }
}

/// Checks the file where that is cheap, and migrates.
async fn prepare_file(database: &Database, bytes: u64) -> Result<Connection, OpenError> {
    let mut connection = database.connect(Purpose::Prepare).await.map_err(OpenError::Database)?;
    if bytes <= CHECKED_BYTES_MAX {
        check(&mut connection).await?;
    }
    migrate(&mut connection).await?;
    Ok(connection)
}

/// Asks the server what it is, and migrates. Several masters may do so at once: the driver lets one of them go first.
async fn prepare_server(database: &Database, name: String) -> Result<Vec<SettingWarning>, OpenError> {
    let failed = |source| OpenError::Server { server: name.clone(), source };
    let mut connection = database.connect(Purpose::Prepare).await.map_err(failed)?;
    // A connection that is being asked has nothing to lose.
    let asked = tokio::time::timeout(SERVER_TIME_MAX, connection.server()).await;
    let server = asked.unwrap_or_else(|_| Err(silence())).map_err(failed)?;
    let Some(server) = server else { return Ok(Vec::new()) };
    if let Some(too_old) = server.too_old {
        return Err(too_old.into());
    }
    if server.is_replica {
        return Err(OpenError::Replica { server: name });
    }
    connection.lock_schema().await.map_err(failed)?;
    migrate(&mut connection).await?;
    connection.close_hard().await;
    for warning in &server.warnings {
        tracing::warn!(setting = warning.setting, "{warning}");
    }
    Ok(server.warnings)
}

async fn migrate(connection: &mut Connection) -> Result<(), OpenError> {
    // Direct: the plain `run` makes futures that no task can hold, since the compiler cannot tell that they are `Send`.
    let (result, migrations) = match connection.migrated() {
        Migrated::Sqlite(link) => (SQLITE_MIGRATIONS.run_direct(None, link, false).await, &SQLITE_MIGRATIONS),
        Migrated::Postgres(link) => {
            (POSTGRES_MIGRATIONS.run_direct(None, link, false).await, &POSTGRES_MIGRATIONS)
        }
        Migrated::MySql(link) => (MYSQL_MIGRATIONS.run_direct(None, link, false).await, &MYSQL_MIGRATIONS),
    };
    result.map_err(|error| refused(error, migrations))
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
        MigrateError::Dirty(version) => OpenError::HalfMade { version },
        other => OpenError::Migrate(other),
    }
}

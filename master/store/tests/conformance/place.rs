//! Where a store under test lives.

use std::path::PathBuf;

use millrace_store::{Store, StoreConfig};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

/// A fresh database that is gone when this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    config: StoreConfig,
    folder: TempDir,
}

/// Makes a place for SQLite.
pub(crate) fn sqlite() -> Place {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let data = folder.path().join("data");
    let mut config = StoreConfig::sqlite(&data.join("state.db"));
    // Most cases have two stores on one database, as two masters have.
    config.is_unlocked = true;
    Place { config, folder }
}

impl Place {
    pub(crate) const fn config(&self) -> &StoreConfig {
        &self.config
    }

    pub(crate) async fn open(&self) -> Store {
        Store::open(&self.config).await.expect("the store opens")
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("data/state.db")
    }

    /// Returns what makes the database unreachable.
    pub(crate) fn vanish(&self) -> impl FnOnce() + Send + Sync + 'static {
        let folder = self.folder.path().to_owned();
        move || std::fs::rename(folder.join("data"), folder.join("gone")).expect("the folder moves")
    }

    /// Changes the database behind the store's back.
    pub(crate) async fn tamper(&self, sql: String) {
        let options = SqliteConnectOptions::new().filename(self.file());
        let mut connection = options.connect().await.expect("the database answers");
        sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.expect("the statement runs");
        connection.close().await.expect("the connection closes");
    }
}

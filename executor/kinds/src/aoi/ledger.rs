//! What has been done with each version of each file, kept from one attempt to the next in one SQLite file.
//!
//! The ledger saves work and tells what stands in the quarantine. It is never the only proof: a row without its file makes
//! the file be fetched again, a file without its row is taken over.

use std::path::Path;

use chrono::NaiveDate;
use sqlx::{
    ConnectOptions as _, Connection as _, Row as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous},
};
use thiserror::Error;

use super::remote::Version;

/// How long another attempt may hold the ledger's write lock; its transactions are single statements.
const BUSY_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(30);

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS ingest_files (
    id INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL, day TEXT NOT NULL, path TEXT NOT NULL,
    size INTEGER NOT NULL, mtime INTEGER NOT NULL, file TEXT NOT NULL, sha256 TEXT, state TEXT NOT NULL, reason TEXT,
    changed_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, UNIQUE (source, path, size, mtime));
CREATE INDEX IF NOT EXISTS ingest_files_by_day ON ingest_files (source, day);
CREATE TABLE IF NOT EXISTS ingest_rolls (
    target TEXT NOT NULL, aoi_no TEXT NOT NULL, start_time TEXT NOT NULL, sha256 TEXT NOT NULL, defects INTEGER NOT NULL,
    changed_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP, PRIMARY KEY (target, aoi_no, start_time)) WITHOUT ROWID;
";

/// Why the ledger could not be used.
#[derive(Debug, Error)]
#[error("the ledger {path} cannot be used")]
pub struct LedgerError {
    path: String,
    #[source]
    source: sqlx::Error,
}

/// How far a file has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// Lies in the store.
    Mirrored,
    /// Its reports lie in the store.
    Unpacked,
    /// Its rolls are in the database.
    Loaded,
    /// Broken, and put aside.
    Quarantined,
    /// Never fetched, because of its name or size.
    Refused,
}

impl State {
    const ALL: [Self; 5] = [Self::Mirrored, Self::Unpacked, Self::Loaded, Self::Quarantined, Self::Refused];

    const fn word(self) -> &'static str {
        match self {
            Self::Mirrored => "mirrored",
            Self::Unpacked => "unpacked",
            Self::Loaded => "loaded",
            Self::Quarantined => "quarantined",
            Self::Refused => "refused",
        }
    }
}

/// One version of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FileRow {
    pub(crate) source: String,
    pub(crate) day: NaiveDate,
    /// Path at the origin, relative to its home.
    pub(crate) path: String,
    pub(crate) version: Version,
    /// Name in the store.
    pub(crate) file: String,
    pub(crate) sha256: Option<String>,
    pub(crate) state: State,
    /// Why it was refused or put aside.
    pub(crate) reason: Option<String>,
}

/// The version of a roll that a target holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LoadedRoll {
    /// Of the two files of its report.
    pub(crate) sha256: String,
    /// Rows of defects.
    pub(crate) defects: i64,
}

/// The ledger, opened.
#[derive(Debug)]
pub(crate) struct Ledger {
    path: String,
    connection: SqliteConnection,
}

impl Ledger {
    /// Opens a ledger, making its file where it is missing.
    pub(crate) async fn open(file: &Path) -> Result<Self, LedgerError> {
        let path = file.display().to_string();
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .disable_statement_logging();
        let opened = async {
            let mut connection = SqliteConnection::connect_with(&options).await?;
            sqlx::raw_sql(TABLES).execute(&mut connection).await?;
            Ok(connection)
        };
        match opened.await {
            Ok(connection) => Ok(Self { path, connection }),
            Err(source) => Err(LedgerError { path, source }),
        }
    }

    /// Returns the latest row of each path of a day of a source.
    pub(crate) async fn files(&mut self, source: &str, day: NaiveDate) -> Result<Vec<FileRow>, LedgerError> {
        let rows = sqlx::query(
            "SELECT source, day, path, size, mtime, file, sha256, state, reason FROM ingest_files AS this \
             WHERE source = ?1 AND day = ?2 AND id = \
             (SELECT MAX(id) FROM ingest_files AS other WHERE other.source = ?1 AND other.path = this.path) ORDER BY id",
        )
        .bind(source)
        .bind(day.to_string())
        .fetch_all(&mut self.connection)
        .await
        .and_then(|rows| rows.iter().map(file_row).collect());
        self.told(rows)
    }

    /// Writes a row; it becomes the latest of its path.
    pub(crate) async fn record(&mut self, row: &FileRow) -> Result<(), LedgerError> {
        let written = sqlx::query(
            "INSERT OR REPLACE INTO ingest_files (source, day, path, size, mtime, file, sha256, state, reason) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(row.source.clone())
        .bind(row.day.to_string())
        .bind(row.path.clone())
        .bind(row.version.size.cast_signed())
        .bind(row.version.mtime)
        .bind(row.file.clone())
        .bind(row.sha256.clone())
        .bind(row.state.word())
        .bind(row.reason.clone())
        .execute(&mut self.connection)
        .await;
        self.told(written).map(drop)
    }

    /// Forgets what stands in the quarantine of a day of a source and returns how many files that were.
    pub(crate) async fn forget_quarantined(
        &mut self,
        source: &str,
        day: NaiveDate,
    ) -> Result<u64, LedgerError> {
        let deleted =
            sqlx::query("DELETE FROM ingest_files WHERE source = ? AND day = ? AND state = 'quarantined'")
                .bind(source)
                .bind(day.to_string())
                .execute(&mut self.connection)
                .await;
        self.told(deleted).map(|done| done.rows_affected())
    }

    /// Returns the version of a roll that a target should hold.
    pub(crate) async fn roll(
        &mut self,
        target: &str,
        key: &(String, String),
    ) -> Result<Option<LoadedRoll>, LedgerError> {
        let row = sqlx::query(
            "SELECT sha256, defects FROM ingest_rolls WHERE target = ? AND aoi_no = ? AND start_time = ?",
        )
        .bind(target)
        .bind(key.0.clone())
        .bind(key.1.clone())
        .fetch_optional(&mut self.connection)
        .await
        .and_then(|row| {
            row.map(|row| Ok(LoadedRoll { sha256: row.try_get(0)?, defects: row.try_get(1)? })).transpose()
        });
        self.told(row)
    }

    /// Writes the version of a roll that a target holds from now on.
    pub(crate) async fn record_roll(
        &mut self,
        target: &str,
        key: &(String, String),
        roll: &LoadedRoll,
    ) -> Result<(), LedgerError> {
        let written = sqlx::query(
            "INSERT OR REPLACE INTO ingest_rolls (target, aoi_no, start_time, sha256, defects) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(target)
        .bind(key.0.clone())
        .bind(key.1.clone())
        .bind(roll.sha256.clone())
        .bind(roll.defects)
        .execute(&mut self.connection)
        .await;
        self.told(written).map(drop)
    }

    fn told<T>(&self, result: sqlx::Result<T>) -> Result<T, LedgerError> {
        result.map_err(|source| LedgerError { path: self.path.clone(), source })
    }
}

fn file_row(row: &SqliteRow) -> sqlx::Result<FileRow> {
    let day: String = row.try_get("day")?;
    let state: String = row.try_get("state")?;
    let state = State::ALL.into_iter().find(|known| known.word() == state);
    Ok(FileRow {
        source: row.try_get("source")?,
        day: day.parse().map_err(|error| sqlx::Error::Decode(Box::new(error)))?,
        path: row.try_get("path")?,
        version: Version {
            size: row.try_get::<i64, _>("size")?.cast_unsigned(),
            mtime: row.try_get("mtime")?,
        },
        file: row.try_get("file")?,
        sha256: row.try_get("sha256")?,
        state: state
            .ok_or_else(|| sqlx::Error::Decode("a state of another version of this program".into()))?,
        reason: row.try_get("reason")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: NaiveDate = NaiveDate::from_ymd_opt(2018, 7, 25).unwrap();

    fn row(path: &str, size: u64, state: State) -> FileRow {
        FileRow {
            source: "pva".into(),
            day: DAY,
            path: path.into(),
            version: Version { size, mtime: 1_532_480_523 },
            file: format!("{path}.zip"),
            sha256: None,
            state,
            reason: None,
        }
    }

    #[tokio::test]
    async fn the_latest_version_of_a_path_counts() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(&folder.path().join("ingest.db")).await.unwrap();
        ledger.record(&row("a", 1, State::Quarantined)).await.unwrap();
        ledger.record(&row("b", 1, State::Mirrored)).await.unwrap();
        ledger.record(&row("a", 2, State::Mirrored)).await.unwrap();
        ledger.record(&row("b", 1, State::Loaded)).await.unwrap();
        drop(ledger);
        let mut ledger = Ledger::open(&folder.path().join("ingest.db")).await.unwrap();
        assert_eq!(
            ledger.files("pva", DAY).await.unwrap(),
            [row("a", 2, State::Mirrored), row("b", 1, State::Loaded)]
        );
        ledger.record(&row("a", 1, State::Mirrored)).await.unwrap();
        assert_eq!(
            ledger.files("pva", DAY).await.unwrap()[1].version.size,
            1,
            "an old version may come back"
        );
        assert_eq!(ledger.files("psa", DAY).await.unwrap(), []);
    }

    #[tokio::test]
    async fn the_quarantine_is_forgotten_on_request() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(&folder.path().join("ingest.db")).await.unwrap();
        ledger.record(&row("a", 1, State::Quarantined)).await.unwrap();
        ledger.record(&row("b", 1, State::Loaded)).await.unwrap();
        assert_eq!(ledger.forget_quarantined("pva", DAY).await.unwrap(), 1);
        assert_eq!(ledger.files("pva", DAY).await.unwrap(), [row("b", 1, State::Loaded)]);
    }

    #[tokio::test]
    async fn a_roll_is_known_per_target() {
        let folder = tempfile::tempdir().unwrap();
        let mut ledger = Ledger::open(&folder.path().join("ingest.db")).await.unwrap();
        let key = ("1KSPVA01".to_owned(), "2018-07-25 01:02:03".to_owned());
        let roll = LoadedRoll { sha256: "ab".into(), defects: 7 };
        ledger.record_roll("aoi", &key, &roll).await.unwrap();
        assert_eq!(ledger.roll("aoi", &key).await.unwrap(), Some(roll));
        assert_eq!(ledger.roll("other", &key).await.unwrap(), None);
    }
}

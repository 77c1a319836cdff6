//! Backups of SQLite files: equal to their source, consistent under a writer, refused where the source is damaged.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    thread,
    time::Duration,
};

use millrace_common::secret::Secret;
use millrace_kinds::{
    Context, Report,
    backup::{self, BackupError},
    run::ResolvedConnection,
};
use serde_json::{Value, json};
use sqlx::{
    Connection as _, Executor as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tempfile::TempDir;

/// Rows that the writer has written before a backup starts, and while it runs.
const ROWS_BEFORE: i64 = 300;

struct Fixture {
    root: TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self { root: tempfile::tempdir().unwrap() }
    }

    fn source(&self) -> PathBuf {
        self.root.path().join("plant.db")
    }

    async fn run(&self, more: Value) -> Result<Report, BackupError> {
        let mut with = json!({ "connection": "plant", "target": self.root.path().join("backups") });
        with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let connection = ResolvedConnection {
            engine: "sqlite".into(),
            host: String::new(),
            port: None,
            user: String::new(),
            password: Secret::default(),
            database: String::new(),
            path: Some(self.source()),
        };
        let ctx = Context {
            connections: BTreeMap::from([("plant".to_owned(), connection)]),
            work_dir: self.root.path().to_owned(),
            state_dir: self.root.path().to_owned(),
            settings: Value::Null,
        };
        backup::run(serde_json::from_value(with).unwrap(), &ctx).await
    }

    fn files(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.root.path().join("backups/plant")) else { return Vec::new() };
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Unpacks the one backup of a report.
    fn restored(&self, report: &Report) -> PathBuf {
        let packed = fs::read(report.values["files"][0].as_str().unwrap()).unwrap();
        let restored = self.root.path().join("restored.db");
        fs::write(&restored, zstd::decode_all(packed.as_slice()).unwrap()).unwrap();
        restored
    }
}

async fn open(file: &Path, journal: SqliteJournalMode) -> SqliteConnection {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(journal)
        .synchronous(SqliteSynchronous::Off)
        .busy_timeout(Duration::from_secs(60));
    SqliteConnection::connect_with(&options).await.unwrap()
}

async fn rows(file: &Path) -> Vec<(i64, Option<String>, Option<Vec<u8>>, f64)> {
    let mut opened = open(file, SqliteJournalMode::Delete).await;
    sqlx::query_as("SELECT id, name, raw, weight FROM lot ORDER BY id").fetch_all(&mut opened).await.unwrap()
}

#[tokio::test]
async fn a_copy_equals_its_source_row_by_row() {
    let fixture = Fixture::new();
    let mut source = open(&fixture.source(), SqliteJournalMode::Delete).await;
    let made = "PRAGMA user_version = 7;
        CREATE TABLE lot (id INTEGER PRIMARY KEY, name TEXT, raw BLOB, weight REAL);
        CREATE INDEX by_name ON lot (name);
        CREATE TABLE \"odd \"\"name\" (id INTEGER);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 20000)
          INSERT INTO lot SELECT i, '批次 ' || i, randomblob(i % 50), i / 7.0 FROM n;
        INSERT INTO lot VALUES (0, NULL, NULL, -0.0), (-1, '', x'00FF', 1e300);";
    source.execute(made).await.unwrap();
    source.close().await.unwrap();
    let report = fixture.run(json!({})).await.unwrap();
    let name = report.values["files"][0].as_str().unwrap();
    assert!(name.contains("/plant/plant_20") && name.ends_with("Z.sqlite.zst"), "{name}");
    assert_eq!((&report.values["tables"], &report.values["databases"]), (&json!(2), &json!(1)));
    let manifest: Value = serde_json::from_slice(&fs::read(format!("{name}.json")).unwrap()).unwrap();
    assert_eq!(
        manifest["tables"],
        json!([{ "name": "lot", "rows": 20_002 }, { "name": "odd \"name", "rows": 0 }])
    );
    assert_eq!(manifest["tool"], json!("sqlite"));
    let restored = fixture.restored(&report);
    assert!(rows(&restored).await == rows(&fixture.source()).await, "the copy differs");
    let mut opened = open(&restored, SqliteJournalMode::Delete).await;
    let version: i64 = sqlx::query_scalar("PRAGMA user_version").fetch_one(&mut opened).await.unwrap();
    assert_eq!(version, 7);
    assert_eq!(fixture.files().len(), 2, "{:?}", fixture.files());
}

/// Moves money from one account to another until it is told to stop: the sum is zero in every consistent state, and the
/// movements are numbered without a gap.
fn write_until(stop: &AtomicBool, written: &AtomicI64, file: &Path, journal: SqliteJournalMode) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut opened = open(file, journal).await;
        while !stop.load(Ordering::Relaxed) {
            let next = written.load(Ordering::Relaxed) + 1;
            let mut change = opened.begin().await.unwrap();
            let movement = "INSERT INTO movement (id, account, amount) VALUES (?1, 'a', ?1), (-?1, 'b', -?1)";
            sqlx::query(movement).bind(next).execute(&mut *change).await.unwrap();
            change.commit().await.unwrap();
            written.store(next, Ordering::Relaxed);
        }
        opened.close().await.unwrap();
    });
}

#[tokio::test]
async fn a_copy_under_a_writer_is_one_consistent_state() {
    for journal in [SqliteJournalMode::Wal, SqliteJournalMode::Delete] {
        let fixture = Fixture::new();
        let mut source = open(&fixture.source(), journal).await;
        let made = "CREATE TABLE movement (id INTEGER PRIMARY KEY, account TEXT, amount INTEGER);
            CREATE TABLE ballast (raw BLOB);
            WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
              INSERT INTO ballast SELECT randomblob(2000) FROM n;";
        source.execute(made).await.unwrap();
        source.close().await.unwrap();
        let (stop, written) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicI64::new(0)));
        let writer = {
            let (stop, written, file) = (stop.clone(), written.clone(), fixture.source());
            thread::spawn(move || write_until(&stop, &written, &file, journal))
        };
        let wait_for = async |rows: i64| {
            for _ in 0..6_000 {
                if written.load(Ordering::Relaxed) >= rows || writer.is_finished() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert!(written.load(Ordering::Relaxed) >= rows, "the writer does not write");
        };
        wait_for(ROWS_BEFORE).await;
        let before = written.load(Ordering::Relaxed);
        let report = fixture.run(json!({})).await.unwrap();
        let after = written.load(Ordering::Relaxed);
        wait_for(after + 1).await;
        stop.store(true, Ordering::Relaxed);
        writer.join().unwrap();
        let mut restored = open(&fixture.restored(&report), SqliteJournalMode::Delete).await;
        let sums = "SELECT COUNT(*), SUM(amount), MAX(id) FROM movement";
        let (count, sum, last): (i64, i64, i64) =
            sqlx::query_as(sums).fetch_one(&mut restored).await.unwrap();
        assert_eq!((count, sum), (2 * last, 0), "{journal:?}: half a movement was copied");
        // One more may have been committed than the writer had said.
        assert!((before..=after + 1).contains(&last), "{journal:?}: {before} <= {last} <= {after}");
        let verdict: String =
            sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut restored).await.unwrap();
        assert_eq!(verdict, "ok");
    }
}

#[tokio::test]
async fn a_file_that_is_missing_or_damaged_makes_no_backup() {
    let fixture = Fixture::new();
    let error = fixture.run(json!({})).await.unwrap_err();
    assert!(error.to_string().contains("plant.db"), "{error}");
    assert!(!fixture.source().exists(), "a missing database was made");
    fs::write(fixture.source(), b"this is no database, and long enough to be told so".repeat(100)).unwrap();
    assert!(matches!(fixture.run(json!({})).await.unwrap_err(), BackupError::Sqlite { .. }));
    fs::remove_file(fixture.source()).unwrap();
    let mut source = open(&fixture.source(), SqliteJournalMode::Delete).await;
    let made = "CREATE TABLE lot (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
        INSERT INTO lot VALUES (1, 'a');
        PRAGMA writable_schema = ON;
        UPDATE sqlite_schema SET sql = 'CREATE TABLE lot (id INTEGER PRIMARY KEY, name TEXT NOT NULL, more TEXT NOT NULL)';";
    source.execute(made).await.unwrap();
    source.close().await.unwrap();
    let error = fixture.run(json!({})).await.unwrap_err();
    assert!(matches!(error, BackupError::Damaged { .. } | BackupError::Sqlite { .. }), "{error}");
    assert_eq!(fixture.files(), Vec::<String>::new());
}

#[tokio::test]
async fn parameters_of_a_server_are_refused() {
    let fixture = Fixture::new();
    for (with, path) in [
        (json!({ "databases": "all" }), "`with.databases`"),
        (json!({ "engine": "mysqldump" }), "`with.engine`"),
    ] {
        let error = fixture.run(with).await.unwrap_err().to_string();
        assert!(error.contains(path), "{error}");
    }
}

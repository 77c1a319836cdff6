//! Running definitions and looking at what they did.

use std::{collections::BTreeMap, path::Path, time::Duration};

use millrace_transfer::{Job, Options, Parsed, Statistics, TransferError, log::Scan, run};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Row, SqlitePool, ValueRef, sqlite::SqliteConnectOptions};

/// The result of a run, with its log.
pub(crate) struct Ran {
    pub(crate) result: Result<Statistics, TransferError>,
    pub(crate) log: String,
}

impl Ran {
    pub(crate) fn ok(&self) -> &Statistics {
        match &self.result {
            Ok(statistics) => statistics,
            Err(error) => panic!("{error:?}\n{}", self.log),
        }
    }

    pub(crate) fn err(&self) -> &TransferError {
        self.result.as_ref().expect_err("the transfer must fail")
    }

    /// Counts of read, written and failed records.
    pub(crate) fn counts(&self) -> (u64, u64, u64) {
        let statistics = match &self.result {
            Ok(statistics) => statistics,
            Err(error) => error.statistics().expect("a failure with statistics"),
        };
        (statistics.read_records, statistics.written_records, statistics.failed_records)
    }

    pub(crate) fn shown_dirty_records(&self) -> usize {
        self.log.matches("脏数据").count()
    }
}

pub(crate) fn parse(job: &Value) -> Box<Job> {
    match Job::parse(&job.to_string(), &BTreeMap::new()).expect("a valid definition") {
        Parsed::Native(job) => job,
        Parsed::Foreign(foreign) => panic!("{foreign:?}"),
    }
}

pub(crate) async fn run_job(job: &Value) -> Ran {
    run_with(job, &quick()).await
}

/// Options under which a refused connection does not take long.
pub(crate) fn quick() -> Options {
    Options { connect_tries: 1, connect_pause: Duration::from_millis(1), ..Options::default() }
}

pub(crate) async fn run_with(job: &Value, options: &Options) -> Ran {
    let job = parse(job);
    let mut log = Vec::new();
    // Executors drive this on a runtime with several threads.
    let result = send(run(&job, options, &mut log)).await;
    let log = String::from_utf8(log).expect("a log in UTF-8");
    assert_log_tells_the_result(&log, &result);
    Ran { result, log }
}

fn send<F: Future + Send>(future: F) -> F {
    future
}

/// A parser of DataX logs must see in ours what the result says.
fn assert_log_tells_the_result(log: &str, result: &Result<Statistics, TransferError>) {
    let mut scan = Scan::new();
    log.lines().for_each(|line| drop(scan.line(line)));
    let summary = scan.summary();
    let statistics = match result {
        Ok(statistics) => statistics,
        Err(error) => {
            let failure = summary.failure.as_ref().expect("a failure in the log");
            assert_eq!(failure.code, error.code());
            assert!(!failure.detail.is_empty() && !failure.description.is_empty(), "{failure:?}");
            error.statistics().expect("statistics of a failure")
        }
    };
    assert_eq!(summary.is_complete, result.is_ok());
    let seen = summary.statistics.expect("numbers in the log");
    assert_eq!(
        (seen.read_records, seen.failed_records, seen.read_bytes, seen.failed_bytes),
        (statistics.read_records, statistics.failed_records, statistics.read_bytes, statistics.failed_bytes),
        "{log}"
    );
}

pub(crate) fn job(reader: &Value, writer: &Value) -> Value {
    json!({
        "job": {
            "setting": {"speed": {"channel": 1}},
            "content": [{"reader": reader, "writer": writer}],
        },
    })
}

pub(crate) fn with_error_limit(mut job: Value, limit: Value) -> Value {
    job["job"]["setting"]["errorLimit"] = limit;
    job
}

pub(crate) fn plugin(name: &str, parameter: &Value) -> Value {
    json!({"name": name, "parameter": parameter})
}

pub(crate) fn sqlite_reader(path: &Path, table: &str, column: &Value) -> Value {
    let url = format!("jdbc:sqlite:{}", path.display());
    plugin("sqlitereader", &json!({"column": column, "connection": [{"jdbcUrl": [url], "table": [table]}]}))
}

pub(crate) fn sqlite_writer(path: &Path, table: &str, column: &Value) -> Value {
    let url = format!("jdbc:sqlite:{}", path.display());
    plugin("sqlitewriter", &json!({"column": column, "connection": [{"jdbcUrl": url, "table": [table]}]}))
}

/// Runs statements on a file, which is made if it is missing.
pub(crate) async fn sqlite(path: &Path, statements: &str) {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let pool = SqlitePool::connect_with(options).await.expect("a file");
    sqlx::raw_sql(AssertSqlSafe(statements)).execute(&pool).await.expect("statements");
    pool.close().await;
}

/// Returns the rows of a query on a file, each value as SQL literal.
pub(crate) async fn sqlite_rows(path: &Path, columns: &[&str], rest: &str) -> Vec<Vec<String>> {
    let options = SqliteConnectOptions::new().filename(path);
    let pool = SqlitePool::connect_with(options).await.expect("a file");
    let quoted: Vec<_> = columns.iter().map(|column| format!("quote({column})")).collect();
    let query = format!("SELECT {} {rest}", quoted.join(","));
    let rows = sqlx::query(AssertSqlSafe(query)).fetch_all(&pool).await.expect("rows");
    pool.close().await;
    rows.iter().map(|row| (0..row.len()).map(|index| row.get::<String, _>(index)).collect()).collect()
}

/// Returns the value as text, or the word NULL.
pub(crate) fn text_of(row: &sqlx::mysql::MySqlRow, index: usize) -> String {
    let value = row.try_get_raw(index).expect("a column");
    if value.is_null() {
        return "NULL".to_owned();
    }
    let bytes = row.get_unchecked::<Vec<u8>, _>(index);
    String::from_utf8(bytes.clone()).unwrap_or_else(|_| format!("{bytes:?}"))
}

//! A table that is larger than the memory it may take.

use serde_json::json;
use std::fs;
use tempfile::TempDir;

use crate::{
    server::Server,
    support::{job, run_job, sqlite, sqlite_reader, sqlite_rows, sqlite_writer},
};

/// Most memory that this process ever held, in KiB.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn fifty_thousand_rows_pass_through_little_memory() {
    let server = Server::start();
    server
        .sql(
            "CREATE TABLE src (id INT PRIMARY KEY, name VARCHAR(40), fill VARCHAR(3000)); CREATE TABLE dst LIKE src; \
             INSERT INTO src SELECT seq, CONCAT('name ', seq), REPEAT(CHAR(97 + seq % 26), 1200) FROM seq_1_to_50000",
        )
        .await;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("copy.db");
    sqlite(&file, "CREATE TABLE copy (id INTEGER PRIMARY KEY, name TEXT, fill TEXT)").await;
    let columns = json!(["id", "name", "fill"]);
    let before = peak_kib();

    let mut writer = sqlite_writer(&file, "copy", &columns);
    writer["parameter"]["batchSize"] = 1000.into();
    let ran = run_job(&job(&server.reader("src", &columns, &json!({})), &writer)).await;
    assert_eq!(ran.counts(), (50_000, 50_000, 0));

    let back = server.writer("dst", &columns, &json!({"batchSize": 1000}));
    let ran = run_job(&job(&sqlite_reader(&file, "copy", &columns), &back)).await;
    assert_eq!(ran.counts(), (50_000, 50_000, 0));

    // The rows are 60 MB. Two batches are 2.5 MB, in several shapes on their way.
    let grown = (peak_kib() - before) / 1024;
    assert!(grown < 40, "memory grew by {grown} MiB");
    let different = "SELECT COUNT(*) FROM src JOIN dst USING (id) \
         WHERE NOT (src.name <=> dst.name AND src.fill <=> dst.fill)";
    assert_eq!(server.rows(different).await, [["0"]]);
    assert_eq!(server.count("dst").await, 50_000);
    let sums = sqlite_rows(&file, &["COUNT(*)", "SUM(id)", "SUM(LENGTH(fill))"], "FROM copy").await;
    assert_eq!(sums, [["50000", "1250025000", "60000000"]]);
}

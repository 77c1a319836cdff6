//! Rows that a target refuses: counted, shown, and limited.

use millrace_transfer::TransferError;
use serde_json::json;

use crate::{
    server::Server,
    support::{job, plugin, run_job, with_error_limit},
};

/// 40 rows, of which every fourth is too long for the target.
async fn server() -> Server {
    let server = Server::start();
    server
        .sql(
            "CREATE TABLE src (id INT PRIMARY KEY, name VARCHAR(50)); \
             CREATE TABLE dst (id INT PRIMARY KEY, name VARCHAR(10)); \
             INSERT INTO src SELECT seq, IF(seq % 4 = 0, REPEAT('x', 20), CONCAT('n', seq)) FROM seq_1_to_40",
        )
        .await;
    server
}

#[tokio::test]
async fn dirty_rows_without_a_limit_are_left_out_and_ten_are_shown() {
    let server = server().await;
    server.sql("INSERT INTO src SELECT seq, REPEAT('y', 30) FROM seq_41_to_50").await;
    let columns = json!(["id", "name"]);
    let reader = server.reader("src", &columns, &json!({}));
    let ran = run_job(&job(&reader, &server.writer("dst", &columns, &json!({"batchSize": 8})))).await;
    assert_eq!(ran.counts(), (50, 30, 20), "{}", ran.log);
    assert_eq!(ran.shown_dirty_records(), 10);
    assert!(ran.log.contains(r#""rawData":"4","type":"LONG""#), "{}", ran.log);
    assert!(ran.log.contains("Data too long for column 'name'"), "{}", ran.log);
    let good = "SELECT id, name FROM src WHERE LENGTH(name) <= 10 ORDER BY id";
    assert_eq!(server.rows("SELECT id, name FROM dst ORDER BY id").await, server.rows(good).await);
}

#[tokio::test]
async fn error_limits_fail_the_transfer_with_its_numbers() {
    let server = server().await;
    let columns = json!(["id", "name"]);
    let reader = server.reader("src", &columns, &json!({}));
    let more = json!({"batchSize": 8, "preSql": ["delete from @table"], "postSql": ["insert into @table values (999,'post')"]});
    let job = job(&reader, &server.writer("dst", &columns, &more));

    let ran = run_job(&with_error_limit(job.clone(), json!({"record": 3}))).await;
    let TransferError::TooManyDirtyRecords { found, limit, .. } = ran.err() else {
        panic!("{:?}", ran.err())
    };
    assert_eq!((*found, *limit), (4, 3));
    assert_eq!((ran.counts().1, ran.counts().2), (12, 4));
    assert_eq!(
        server.count("dst").await,
        12,
        "what was written before the limit stays, postSql does not run"
    );

    let ran = run_job(&with_error_limit(job.clone(), json!({"record": 10, "percentage": 0.0}))).await;
    assert_eq!(ran.counts(), (40, 30, 10));
    assert!(ran.result.is_ok());
    assert_eq!(server.count("dst").await, 31, "postSql ran");

    let ran = run_job(&with_error_limit(job.clone(), json!({"percentage": 0.24}))).await;
    assert!(
        matches!(ran.err(), TransferError::TooLargeDirtyPart { found: 10, total: 40, .. }),
        "{:?}",
        ran.err()
    );
    assert_eq!(server.count("dst").await, 30, "postSql did not run");

    let ran = run_job(&with_error_limit(job, json!({"percentage": 0.25}))).await;
    assert!(ran.result.is_ok(), "exactly the limit is bearable");
}

#[tokio::test]
async fn values_that_do_not_convert_are_dirty_and_the_others_of_the_batch_arrive() {
    let server = Server::start();
    server.sql("CREATE TABLE dst (d DATE, n INT)").await;
    let stream = |value: &str| {
        let columns = json!([{"value": value, "type": "string"}, {"value": "5", "type": "string"}]);
        plugin("streamreader", &json!({"column": columns, "sliceRecordCount": 3}))
    };
    let columns = json!(["d", "n"]);
    let writer = server.writer("dst", &columns, &json!({}));
    let ran = run_job(&job(&stream("2024-02-30"), &writer)).await;
    assert_eq!(ran.counts(), (3, 0, 3));
    assert!(ran.log.contains("cannot become DATE"), "{}", ran.log);
    let ran = run_job(&job(&stream("20240229"), &writer)).await;
    assert_eq!(ran.counts(), (3, 3, 0));
    assert_eq!(server.rows("SELECT DISTINCT d, n FROM dst").await, [["2024-02-29", "5"]]);
}

#[tokio::test]
async fn table_that_disappears_ends_the_transfer_instead_of_making_all_rows_dirty() {
    let server = server().await;
    let columns = json!(["id", "name"]);
    let reader = server.reader("src", &columns, &json!({}));
    let writer = server.writer("dst", &columns, &json!({"preSql": ["drop table @table"]}));
    let ran = run_job(&job(&reader, &writer)).await;
    assert!(matches!(ran.err(), TransferError::Write { plugin: "mysqlwriter", .. }), "{:?}", ran.err());
    assert_eq!(ran.counts().2, 0);
}

//! Between databases: every type, every write mode, every value.

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    server::Server,
    support::{job, run_job, sqlite, sqlite_reader, sqlite_rows, sqlite_writer},
};

const COLUMNS: &str = "id BIGINT PRIMARY KEY, ti TINYINT, tu TINYINT(1) UNSIGNED, si SMALLINT, mi MEDIUMINT, \
     big BIGINT UNSIGNED, amt DECIMAL(40,18), f FLOAT, d DOUBLE, dt DATE, tm TIME(6), dtm DATETIME(6), \
     ts TIMESTAMP(3) NULL, y YEAR, c CHAR(5), v VARCHAR(200), tx TEXT, bin_v VARCHAR(20) COLLATE utf8mb4_bin, \
     b BLOB, vb VARBINARY(16), flag BIT(1), bits BIT(12), e ENUM('red','green'), s SET('a','b','c'), j JSON";

const NAMES: &str = "id,ti,tu,si,mi,big,amt,f,d,dt,tm,dtm,ts,y,c,v,tx,bin_v,b,vb,flag,bits,e,s,j";

/// Ordinary, extreme, empty and missing values.
const ROWS: &str = "INSERT INTO src VALUES \
    (1, 1, 200, 2, 3, 4, 12.500000000000000000, 1.5, 2.25, '2024-02-29', '12:34:56', '2024-02-29 12:34:56.789', \
     '2024-02-29 12:34:56.789', 2024, 'abc', 'a,b\"c', 'line\nline', 'Ä', 'bytes', X'00FF10', b'1', b'101', 'red', 'a,c', '{\"k\": [1, \"ü\"]}'), \
    (2, -128, 255, -32768, -8388608, 18446744073709551615, -9999999999999999999999.999999999999999999, 16777216, \
     1.7976931348623157e308, '1000-01-01', '-838:59:59', '1000-01-01 00:00:00', '1970-01-02 00:00:01', 1901, '', '表', \
     '😀 emoji', '', '', '', b'0', b'111111111111', 'green', '', '[]'), \
    (3, 127, 0, 32767, 8388607, 0, 0.000000000000000001, 0.1, 5e-324, '9999-12-31', '838:59:59.999999', \
     '9999-12-31 23:59:59.999999', '2038-01-19 03:14:07.999', 2155, 'x', REPEAT('表', 200), REPEAT('t', 60000), 'b', \
     REPEAT(X'00', 1000), X'FFFE', b'1', b'0', 'red', 'b', '1'), \
    (4, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
     NULL, NULL, NULL, NULL, NULL, NULL), \
    (5, 0, 1, 0, 0, 0, 0, 3.4028234663852886e38, -0.1, '2024-03-31', '00:00:00.5', '2024-03-31 02:30:00', NULL, 0, ' a', \
     'null', 'NULL', 'ß', 'ÿ', 'v', b'0', b'1', 'green', 'a,b,c', 'null')";

/// Rows that differ in any column; NULL equals NULL, and bytes are compared as bytes.
async fn different_rows(server: &Server, one: &str, other: &str) -> Vec<Vec<String>> {
    let same: Vec<_> = NAMES.split(',').map(|name| format!("BINARY o.{name} <=> BINARY t.{name}")).collect();
    server.rows(&format!(
        "SELECT o.id FROM {one} o LEFT JOIN {other} t ON t.id = o.id WHERE NOT ({}) OR t.id IS NULL ORDER BY 1",
        same.join(" AND ")
    ))
    .await
}

fn names() -> Value {
    NAMES.split(',').collect::<Vec<_>>().into()
}

async fn server_with_rows() -> Server {
    let server = Server::start();
    server.sql(&format!("CREATE TABLE src ({COLUMNS}); CREATE TABLE dst LIKE src; {ROWS}")).await;
    server
}

#[tokio::test]
async fn every_value_of_every_type_arrives_unchanged_between_servers() {
    let server = server_with_rows().await;
    let reader = server.reader("src", &names(), &json!({}));
    let ran = run_job(&job(&reader, &server.writer("dst", &names(), &json!({})))).await;
    assert_eq!(ran.counts(), (5, 5, 0), "{}", ran.log);
    assert_eq!(different_rows(&server, "src", "dst").await, Vec::<Vec<String>>::new());
    assert!(!ran.log.contains("hunter2"), "{}", ran.log);
    assert!(
        !format!("{:?}", crate::support::parse(&job(&reader, &reader_as_writer(&server))))
            .contains("hunter2")
    );
}

fn reader_as_writer(server: &Server) -> Value {
    server.writer("dst", &names(), &json!({}))
}

#[tokio::test]
async fn star_takes_all_columns_and_bits_are_truth_values_or_numbers() {
    let server = server_with_rows().await;
    let reader = server.reader("src", &json!(["*"]), &json!({"where": "id < 3 ; "}));
    let ran = run_job(&job(&reader, &server.writer("dst", &json!(["*"]), &json!({})))).await;
    assert_eq!(ran.counts(), (2, 2, 0), "{}", ran.log);
    assert_eq!(different_rows(&server, "src", "dst").await, [["3"], ["4"], ["5"]]);
    let reader = server.reader("src", &json!(["flag", "bits", "tu"]), &json!({"where": "id = 1"}));
    let ran = run_job(&job(&reader, &crate::support::plugin("streamwriter", &json!({})))).await;
    assert!(ran.log.contains("\ntrue\t5\t200\n"), "{}", ran.log);
}

#[tokio::test]
async fn write_modes_decide_about_rows_that_are_there() {
    let server = Server::start();
    server
        .sql(
            "CREATE TABLE src (id INT PRIMARY KEY, a VARCHAR(9), b INT); \
             CREATE TABLE dst (id INT PRIMARY KEY, a VARCHAR(9), b INT, extra INT DEFAULT 7); \
             INSERT INTO src VALUES (1,'new',1),(2,'new',2),(3,NULL,3)",
        )
        .await;
    let columns = json!(["id", "a", "b"]);
    let reader = server.reader("src", &columns, &json!({}));
    let old = "DELETE FROM dst; INSERT INTO dst VALUES (2,'old',9,1),(9,'kept',9,1)";
    let all = "SELECT id,a,b,extra FROM dst ORDER BY id";
    let kept = ["9", "kept", "9", "1"];
    for (mode, row_two, counts) in [
        ("insert", ["2", "old", "9", "1"], (3, 2, 1)),
        ("INSERT IGNORE", ["2", "old", "9", "1"], (3, 3, 0)),
        ("replace", ["2", "new", "2", "7"], (3, 3, 0)),
        ("update", ["2", "new", "2", "1"], (3, 3, 0)),
    ] {
        server.sql(old).await;
        let writer = server.writer("dst", &columns, &json!({"writeMode": mode}));
        let ran = run_job(&job(&reader, &writer)).await;
        assert_eq!(ran.counts(), counts, "{mode}: {}", ran.log);
        let expected = [["1", "new", "1", "7"], row_two, ["3", "NULL", "3", "7"], kept];
        assert_eq!(server.rows(all).await, expected, "{mode}");
    }
}

#[tokio::test]
async fn rows_of_a_server_arrive_in_a_file_and_come_back() {
    let server = server_with_rows().await;
    server.sql("UPDATE src SET big = 9223372036854775807 WHERE id = 2").await;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("copy.db");
    let declared = "id INTEGER PRIMARY KEY, ti INTEGER, tu INTEGER, si INTEGER, mi INTEGER, big BIGINT, amt TEXT, \
         f REAL, d REAL, dt DATE, tm TIME, dtm DATETIME, ts TIMESTAMP, y INTEGER, c TEXT, v VARCHAR(200), tx TEXT, \
         bin_v TEXT, b BLOB, vb BLOB, flag BOOLEAN, bits INTEGER, e TEXT, s TEXT, j TEXT";
    sqlite(&file, &format!("CREATE TABLE dst ({declared})")).await;
    let reader = server.reader("src", &names(), &json!({}));
    let ran = run_job(&job(&reader, &sqlite_writer(&file, "dst", &names()))).await;
    assert_eq!(ran.counts(), (5, 5, 0), "{}", ran.log);

    let columns = ["id", "ti", "big", "amt", "dt", "tm", "dtm", "v", "vb", "flag"];
    let rows = sqlite_rows(&file, &columns, "FROM dst WHERE id IN (1,2,4) ORDER BY id").await;
    let null = "NULL";
    assert_eq!(
        rows,
        [
            vec![
                "1",
                "1",
                "4",
                "'12.500000000000000000'",
                "'2024-02-29'",
                "'12:34:56'",
                "'2024-02-29 12:34:56.789'",
                "'a,b\"c'",
                "X'00FF10'",
                "1"
            ],
            vec![
                "2",
                "-128",
                "9223372036854775807",
                "'-9999999999999999999999.999999999999999999'",
                "'1000-01-01'",
                "'-838:59:59'",
                "'1000-01-01 00:00:00'",
                "'表'",
                "X''",
                "0"
            ],
            vec!["4", null, null, null, null, null, null, null, null, null],
        ]
    );

    // Every value that went into the file is back as it was.
    let reader = sqlite_reader(&file, "dst", &names());
    let ran = run_job(&job(&reader, &server.writer("dst", &names(), &json!({})))).await;
    assert_eq!(ran.counts(), (5, 5, 0), "{}", ran.log);
    assert_eq!(different_rows(&server, "src", "dst").await, Vec::<Vec<String>>::new());
}

#[tokio::test]
async fn loosely_typed_rows_of_a_file_arrive_on_a_server() {
    let server = Server::start();
    server
        .sql("CREATE TABLE dst (id INT PRIMARY KEY, n DECIMAL(10,3), t VARCHAR(20), d DATETIME(3), f BIT(1), b BLOB)")
        .await;
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("a.db");
    sqlite(
        &file,
        "CREATE TABLE src (id, n, t, d DATETIME, f BOOLEAN, b); \
         INSERT INTO src VALUES (1, 1.5, 'x', '2024-02-29 12:34:56.789', 1, x'00ff'), \
         (2, '2.125', 7, 1709181296789, 0, 'text'), (3, NULL, NULL, '2024-02-29T01:02:03', NULL, NULL), \
         (4, '', '', '', 1, '')",
    )
    .await;
    let columns = json!(["id", "n", "t", "d", "f", "b"]);
    let ran =
        run_job(&job(&sqlite_reader(&file, "src", &columns), &server.writer("dst", &columns, &json!({}))))
            .await;
    // The empty text is no date, so its row is dirty.
    assert_eq!(ran.counts(), (4, 3, 1), "{}", ran.log);
    assert_eq!(
        server.rows("SELECT id, n, t, d, f+0, HEX(b) FROM dst ORDER BY id").await,
        [
            ["1", "1.500", "x", "2024-02-29 12:34:56.789", "1", "00FF"],
            ["2", "2.125", "7", "2024-02-29 12:34:56.789", "0", "74657874"],
            ["3", "NULL", "NULL", "2024-02-29 01:02:03.000", "NULL", "NULL"],
        ]
    );
}

#[tokio::test]
async fn write_modes_work_on_files_too() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("a.db");
    let columns = json!(["id", "a"]);
    for (mode, row_two) in
        [("insert", "'old'"), ("replace", "'new'"), ("update", "'new'"), ("insert or ignore", "'old'")]
    {
        sqlite(
            &file,
            "DROP TABLE IF EXISTS src; DROP TABLE IF EXISTS dst; \
             CREATE TABLE src (id INTEGER, a TEXT); CREATE TABLE dst (id INTEGER PRIMARY KEY, a TEXT); \
             INSERT INTO src VALUES (1,'new'),(2,'new'); INSERT INTO dst VALUES (2,'old')",
        )
        .await;
        let mut writer = sqlite_writer(&file, "dst", &columns);
        writer["parameter"]["writeMode"] = mode.into();
        // The rows come from a table of the same file, which must not block the writer.
        sqlite(&file, "PRAGMA journal_mode=WAL").await;
        let ran = run_job(&job(&sqlite_reader(&file, "src", &columns), &writer)).await;
        let failed = u64::from(mode == "insert");
        assert_eq!(ran.counts(), (2, 2 - failed, failed), "{mode}: {}", ran.log);
        assert_eq!(
            sqlite_rows(&file, &["a"], "FROM dst ORDER BY id").await,
            [["'new'"], [row_two]],
            "{mode}"
        );
    }
}

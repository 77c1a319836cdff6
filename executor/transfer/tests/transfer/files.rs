//! Text files, both ways.

use std::{fs, io::Read, path::Path};

use flate2::read::GzDecoder;
use millrace_transfer::{PluginError, TransferError};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    server::Server,
    support::{job, plugin, run_job, sqlite, sqlite_reader, sqlite_rows, sqlite_writer},
};

fn text_reader(path: &Path, more: &Value) -> Value {
    merged("txtfilereader", json!({"path": [path], "column": ["*"]}), more)
}

fn text_writer(folder: &Path, more: &Value) -> Value {
    merged("txtfilewriter", json!({"path": folder, "fileName": "out", "writeMode": "truncate"}), more)
}

fn merged(name: &str, mut parameter: Value, more: &Value) -> Value {
    for (key, value) in more.as_object().unwrap() {
        parameter[key] = value.clone();
    }
    plugin(name, &parameter)
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn only_file(folder: &Path) -> Vec<u8> {
    let names = files(folder);
    assert_eq!(names.len(), 1, "{names:?}");
    fs::read(folder.join(&names[0])).unwrap()
}

async fn small_table(folder: &Path) -> std::path::PathBuf {
    let file = folder.join("a.db");
    sqlite(
        &file,
        "CREATE TABLE src (id INTEGER, name TEXT, d DATETIME, n REAL); \
         INSERT INTO src VALUES (1, 'a,\"b\"', '2024-02-29 12:34:56', 1.5), (2, NULL, NULL, NULL), (3, ' 表 ', '2024-01-01 00:00:00', 9.0)",
    )
    .await;
    file
}

#[tokio::test]
async fn text_files_hold_what_the_definition_says() {
    let folder = TempDir::new().unwrap();
    let source = small_table(folder.path()).await;
    let reader = sqlite_reader(&source, "src", &json!(["*"]));
    let out = folder.path().join("out");
    let content = async |more: Value| {
        let ran = run_job(&job(&reader, &text_writer(&out, &more))).await;
        assert_eq!(ran.counts(), (3, 3, 0), "{}", ran.log);
        only_file(&out)
    };
    assert_eq!(
        String::from_utf8(content(json!({})).await).unwrap(),
        "1,a,\"b\",2024-02-29 12:34:56,1.5\n2,null,null,null\n3, 表 ,2024-01-01 00:00:00,9\n"
    );
    let csv = json!({"fileFormat": "csv", "nullFormat": "\\N", "dateFormat": "yyyyMMdd", "header": ["id", "a b", "d", "n"]});
    assert_eq!(
        String::from_utf8(content(csv).await).unwrap(),
        "id,a b,d,n\n1,\"a,\"\"b\"\"\",20240229,1.5\n2,\\N,\\N,\\N\n3,\" 表 \",20240101,9\n"
    );
    let gbk = content(json!({"encoding": "gbk", "fieldDelimiter": "\t", "compress": "gzip"})).await;
    let mut plain = Vec::new();
    GzDecoder::new(gbk.as_slice()).read_to_end(&mut plain).unwrap();
    assert!(plain.ends_with(b"3\t \xb1\xed \t2024-01-01 00:00:00\t9\n"), "{plain:?}");
    let name = &files(&out)[0];
    let id = name.strip_prefix("out__").unwrap();
    assert_eq!((id.len(), id.matches('_').count()), (36, 4), "{name}");
}

#[tokio::test]
async fn write_modes_decide_about_files_that_are_there() {
    let folder = TempDir::new().unwrap();
    let source = small_table(folder.path()).await;
    let reader = sqlite_reader(&source, "src", &json!(["*"]));
    let out = folder.path().join("out");
    fs::create_dir(&out).unwrap();
    for name in ["out_old", "outer.txt", "kept"] {
        fs::write(out.join(name), "").unwrap();
    }
    let run =
        async |mode: &str| run_job(&job(&reader, &text_writer(&out, &json!({"writeMode": mode})))).await;
    let ran = run("nonConflict").await;
    let TransferError::Write { source: PluginError::Conflict { .. }, .. } = ran.err() else {
        panic!("{:?}", ran.err())
    };
    assert!(run("append").await.result.is_ok());
    assert_eq!(files(&out).len(), 4);
    assert!(run("truncate").await.result.is_ok());
    let names = files(&out);
    assert_eq!(names.len(), 2, "{names:?}");
    assert_eq!(names[0], "kept");
}

#[tokio::test]
async fn files_are_read_with_types_constants_and_dirty_lines() {
    let folder = TempDir::new().unwrap();
    fs::create_dir(folder.path().join("in")).unwrap();
    fs::write(
        folder.path().join("in/a.csv"),
        "id;name;when;ok\n1;\"x;\"\"y\"\"\";29.02.2024;true\n\n2; b ;\\N;FALSE\nthree;c;01.01.2024;true\n4;d\n5;e;2024;true\n6;f;31.12.2023;yes\n",
    )
    .unwrap();
    fs::write(folder.path().join("in/b.csv"), "id;name;when;ok\n07;last;03.03.2024;true").unwrap();
    let file = folder.path().join("a.db");
    sqlite(&file, "CREATE TABLE dst (id INTEGER, name TEXT, d DATETIME, ok BOOLEAN, src TEXT)").await;
    let more = json!({
        "path": format!("{}/in/*.csv", folder.path().display()),
        "column": [
            {"index": 0, "type": "long"}, {"index": 1, "type": "string"},
            {"index": 2, "type": "date", "format": "dd.MM.yyyy"}, {"index": "3", "type": "boolean"},
            {"value": "file", "type": "string"},
        ],
        "fieldDelimiter": ";", "skipHeader": true, "nullFormat": "\\N",
    });
    let writer = sqlite_writer(&file, "dst", &json!(["*"]));
    let ran = run_job(&job(&text_reader(folder.path(), &more), &writer)).await;
    assert_eq!(ran.counts(), (7, 3, 4), "{}", ran.log);
    assert_eq!(
        sqlite_rows(&file, &["id", "name", "d", "ok", "src"], "FROM dst ORDER BY id").await,
        [
            ["1", "'x;\"y\"'", "'2024-02-29 00:00:00'", "1", "'file'"],
            ["2", "'b'", "NULL", "0", "'file'"],
            ["7", "'last'", "'2024-03-03 00:00:00'", "1", "'file'"],
        ]
    );
    for why in [
        "cannot become LONG",
        "column 2 does not exist",
        "does not fit the date format",
        "cannot become BOOL",
    ] {
        assert!(ran.log.contains(why), "{why}: {}", ran.log);
    }
}

#[tokio::test]
async fn table_survives_a_compressed_file_in_another_encoding() {
    let server = Server::start();
    server
        .sql(
            "CREATE TABLE src (id INT PRIMARY KEY, t VARCHAR(60), n DECIMAL(20,6), d DATETIME); CREATE TABLE dst LIKE src; \
             INSERT INTO src SELECT seq, IF(seq % 7 = 0, NULL, CONCAT('车间 ', seq, ',\"\r\n,')), seq / 7, \
             DATE_ADD('2024-01-01', INTERVAL seq HOUR) FROM seq_1_to_3000",
        )
        .await;
    let folder = TempDir::new().unwrap();
    let text = json!({"fileFormat": "csv", "encoding": "GBK", "compress": "gzip", "nullFormat": "\\N"});
    let columns = json!(["id", "t", "n", "d"]);
    let reader = server.reader("src", &columns, &json!({}));
    let ran = run_job(&job(&reader, &text_writer(folder.path(), &text))).await;
    assert_eq!(ran.counts(), (3000, 3000, 0), "{}", ran.log);

    let text = json!({"encoding": "gbk", "compress": "gzip", "nullFormat": "\\N"});
    let writer = server.writer("dst", &columns, &json!({}));
    let ran = run_job(&job(&text_reader(folder.path(), &text), &writer)).await;
    assert_eq!(ran.counts(), (3000, 3000, 0), "{}", ran.log);
    let different = "SELECT COUNT(*) FROM src JOIN dst USING (id) \
         WHERE src.t <=> dst.t AND src.n <=> dst.n AND src.d <=> dst.d";
    assert_eq!(server.rows(different).await, [["3000"]]);
}

#[tokio::test]
async fn characters_that_an_encoding_lacks_and_bytes_that_are_no_text_are_dirty() {
    let folder = TempDir::new().unwrap();
    let input = folder.path().join("in.txt");
    fs::write(&input, b"good\nbad \xff byte\nemoji \xf0\x9f\x98\x80\n").unwrap();
    let out = folder.path().join("out");
    let ran =
        run_job(&job(&text_reader(&input, &json!({})), &text_writer(&out, &json!({"encoding": "gb2312"}))))
            .await;
    assert_eq!(ran.counts(), (3, 1, 2), "{}", ran.log);
    assert_eq!(only_file(&out), b"good\n");
}

#[tokio::test]
async fn pattern_without_files_is_an_error() {
    let folder = TempDir::new().unwrap();
    let more = json!({"path": format!("{}/*.none", folder.path().display())});
    let ran = run_job(&job(&text_reader(folder.path(), &more), &plugin("streamwriter", &json!({})))).await;
    let TransferError::Read { source: PluginError::NoFile { .. }, .. } = ran.err() else {
        panic!("{:?}", ran.err())
    };
}

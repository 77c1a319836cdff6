//! The `datax` kind: with a stand-in for DataX that prints logs of real runs, and natively from SQLite to SQLite.

#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use millrace_common::kind::datax::DataxWith;
use millrace_kinds::{
    Context, Kind as _, Launch, LaunchError, Payload, Report, Site, Work,
    datax::{Datax, DataxError, Installation, Start, run},
};
use serde_json::{Map, Value, json};
use sqlx::{Connection as _, Row as _, SqliteConnection};

/// A folder of DataX whose program is a script.
struct Fake {
    folder: tempfile::TempDir,
    start: Start,
}

impl Fake {
    /// Lays out what the stand-in prints and how it ends.
    fn new(out: &str, err: &str, code: i32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("lib")).unwrap();
        fs::create_dir(folder.path().join("work")).unwrap();
        for (file, text) in [("out", out), ("err", err), ("code", &code.to_string())] {
            fs::write(folder.path().join(file), text).unwrap();
        }
        Self { folder, start: Start::Java(program()) }
    }

    /// Lays out a log of a real run.
    fn with_log(log: &str, code: i32) -> Self {
        let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("../transfer/tests/golden").join(log);
        Self::new(&fs::read_to_string(golden).unwrap(), "", code)
    }

    fn context(&self) -> Context {
        let installation = Installation {
            home: Some(self.folder.path().to_owned()),
            start: self.start.clone(),
            jvm: vec!["-Xmx4g".into()],
            env: [].into(),
            jobs_dir: Some(self.folder.path().to_owned()),
        };
        context(&self.folder.path().join("work"), &json!(installation))
    }

    async fn run(&self, with: Value) -> Result<Map<String, Value>, DataxError> {
        run(parameters(with), &self.context()).await.map(|report| report.values)
    }

    fn argv(&self) -> Vec<String> {
        fs::read_to_string(self.folder.path().join("argv")).unwrap().lines().map(str::to_owned).collect()
    }
}

fn program() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/datax/fake-datax.sh")
}

fn context(work_dir: &Path, settings: &Value) -> Context {
    Context {
        connections: [].into(),
        work_dir: work_dir.to_owned(),
        state_dir: work_dir.to_owned(),
        settings: settings.clone(),
    }
}

fn parameters(with: Value) -> DataxWith {
    serde_json::from_value(with).unwrap()
}

/// A job that no native plugin can run.
fn foreign(setting: &Value) -> Value {
    json!({ "job": { "setting": setting, "content": [{
        "reader": { "name": "streamreader", "parameter": { "column": [{ "value": "${day}" }], "sliceRecordCount": 1 } },
        "writer": { "name": "hdfswriter", "parameter": { "path": "/x", "password": "hidden" } },
    }] } })
}

/// A foreign job without a limit, and more parameters.
fn with(more: &Value) -> Value {
    let mut with = json!({ "content": foreign(&json!({ "speed": { "channel": 1 } })) });
    with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    with
}

const LIMITED: &str = "mysql2mysql_update_1dirty_ok.log";

#[tokio::test]
async fn counts_of_the_log_become_values() {
    let fake = Fake::with_log(LIMITED, 0);
    let content = foreign(&json!({ "speed": { "channel": 1 }, "errorLimit": { "record": 100 } }));
    let values = fake.run(json!({ "content": content })).await.unwrap();
    let expected = json!({
        "engine": "external", "read_records": 27, "written_records": 26, "failed_records": 1,
        "bytes": 1457, "seconds": 0, "speed": 1454,
    });
    assert_eq!(Value::Object(values), expected);
}

#[tokio::test]
async fn lost_records_fail_a_job_unless_somebody_allowed_them() {
    let fake = Fake::with_log(LIMITED, 0);
    let error = fake.run(with(&json!({}))).await.unwrap_err();
    assert!(
        error.to_string().starts_with("1 of 27 records failed: neither `allow_failed_records` nor"),
        "{error}"
    );
    let values = error.values().unwrap();
    assert_eq!((&values["failed_records"], &values["error_code"]), (&json!(1), &json!("failed_records")));
    for (allow, is_success) in
        [(json!(true), true), (json!(1), true), (json!(0), false), (json!(false), false)]
    {
        let fake = Fake::with_log(LIMITED, 0);
        let result = fake.run(with(&json!({ "allow_failed_records": allow }))).await;
        assert_eq!(result.is_ok(), is_success, "{allow}");
    }
}

#[tokio::test]
async fn a_limit_of_the_task_is_stricter_than_that_of_the_job() {
    let fake = Fake::with_log(LIMITED, 0);
    let content = foreign(&json!({ "errorLimit": { "record": 100 } }));
    let error = fake.run(json!({ "content": content, "allow_failed_records": 0 })).await.unwrap_err();
    assert!(error.to_string().contains("`allow_failed_records` lets 0 fail"), "{error}");
}

#[tokio::test]
async fn failures_carry_the_code_and_the_words_of_datax() {
    for (log, code, word, detail) in [
        ("mysql2mysql_errorlimit0_fail.log", 1, "Framework-14", "脏数据条数"),
        ("mysql2mysql_percentage_fail.log", 1, "Framework-14", "脏数据百分比"),
        ("config_error.log", 1, "Common-00", "[maybe]"),
    ] {
        let error = Fake::with_log(log, code).run(with(&json!({}))).await.unwrap_err();
        assert!(error.to_string().contains(word) && error.to_string().contains(detail), "{error}");
        assert_eq!(error.values().unwrap()["error_code"], word);
    }
}

#[tokio::test]
async fn counts_of_a_failed_run_are_kept() {
    let error =
        Fake::with_log("mysql2mysql_errorlimit0_fail.log", 1).run(with(&json!({}))).await.unwrap_err();
    assert_eq!(error.values().unwrap()["failed_records"], 1);
}

#[tokio::test]
async fn a_killed_run_says_so() {
    let error = Fake::with_log("sigterm.log", 143).run(with(&json!({}))).await.unwrap_err();
    assert_eq!(error.to_string(), "DataX was killed and gave no reason");
    assert_eq!(error.values().unwrap()["error_code"], "exit-143");
}

#[tokio::test]
async fn a_java_that_does_not_start_is_quoted() {
    let fake = Fake::new("", "Error: Could not find or load main class com.alibaba.datax.core.Engine\n", 1);
    let error = fake.run(with(&json!({}))).await.unwrap_err();
    assert!(
        error.to_string().ends_with("Could not find or load main class com.alibaba.datax.core.Engine"),
        "{error}"
    );
}

#[tokio::test]
async fn success_without_counts_passes_only_where_nobody_asked_for_them() {
    let values = Fake::new("quiet\n", "", 0).run(with(&json!({}))).await.unwrap();
    assert_eq!(Value::Object(values), json!({ "engine": "external" }));
    let error =
        Fake::new("quiet\n", "", 0).run(with(&json!({ "allow_failed_records": 3 }))).await.unwrap_err();
    assert!(matches!(error, DataxError::Uncounted), "{error}");
}

#[tokio::test]
async fn java_gets_job_and_parameters_without_a_shell() {
    let fake = Fake::with_log("stream_print_params.log", 0);
    let job = fake.folder.path().join("a job.json");
    fs::write(&job, foreign(&json!({})).to_string()).unwrap();
    let params = json!({ "day": "2018-11-21 $(touch owned); 'x'", "n": 7 });
    fake.run(json!({ "job": "a job.json", "params": params, "jvm": "-Xmx8g -Xss2m", "log_level": "debug" }))
        .await
        .unwrap();
    let argv = fake.argv();
    let at = |text: &str| {
        argv.iter().position(|found| found == text).unwrap_or_else(|| panic!("no {text} in {argv:?}"))
    };
    assert!(at("-Xmx1g") < at("-Xmx4g") && at("-Xmx4g") < at("-Xmx8g") && at("-Xmx8g") < at("-Xss2m"));
    at("-Dday=2018-11-21 $(touch owned); 'x'");
    at("-Dn=7");
    at("-Dloglevel=debug");
    assert_eq!(argv[at("-job") + 1], job.to_str().unwrap());
    assert!(!argv.join(" ").contains("hidden"));
}

#[tokio::test]
async fn the_starter_of_datax_is_used_where_python_is_configured() {
    let mut fake = Fake::with_log("stream_print_params.log", 0);
    fake.start = Start::Python(program());
    let values = fake.run(with(&json!({ "params": { "day": "20181121" } }))).await.unwrap();
    assert_eq!(values["read_records"], 6);
    assert_eq!(fake.argv()[1..3], ["--jvm=-Xmx4g", "--params=-Dday=20181121"]);
}

#[tokio::test]
async fn an_inline_job_is_private_to_the_attempt() {
    let fake = Fake::with_log("stream_print_params.log", 0);
    fake.run(with(&json!({}))).await.unwrap();
    let file = PathBuf::from(fake.argv().last().unwrap());
    assert_eq!(file.parent().unwrap(), fake.folder.path().join("work"));
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let written: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    assert_eq!(written, with(&json!({}))["content"]);
}

#[tokio::test]
async fn a_plugin_that_is_not_native_needs_an_installation() {
    let folder = tempfile::tempdir().unwrap();
    let error = run(parameters(with(&json!({}))), &context(folder.path(), &Value::Null)).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("hdfswriter") && text.contains("`home` in [datax]"), "{text}");
    let settings = json!({ "home": folder.path() });
    let error = run(parameters(with(&json!({}))), &context(folder.path(), &settings)).await.unwrap_err();
    assert!(matches!(error, DataxError::NotInstalled(_)), "{error}");
    let error = run(parameters(with(&json!({ "native": "always" }))), &context(folder.path(), &settings))
        .await
        .unwrap_err();
    assert!(matches!(&error, DataxError::NotNative { writer, .. } if writer == "hdfswriter"), "{error}");
}

#[tokio::test]
async fn a_job_file_that_cannot_be_read_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let job = |job: &str| parameters(json!({ "job": job }));
    let error = run(job("a.json"), &context(folder.path(), &Value::Null)).await.unwrap_err();
    assert!(error.to_string().contains("set `jobs_dir` in [datax]"), "{error}");
    let context = context(folder.path(), &json!({ "jobs_dir": folder.path() }));
    let error = run(job("../a.json"), &context).await.unwrap_err();
    assert!(matches!(error, DataxError::Outside { .. }), "{error}");
    let error = run(job("a.json"), &context).await.unwrap_err();
    assert!(
        matches!(&error, DataxError::Read { path, .. } if *path == folder.path().join("a.json")),
        "{error}"
    );
    fs::write(folder.path().join("a.json"), "{").unwrap();
    let error = run(job("a.json"), &context).await.unwrap_err();
    assert!(matches!(&error, DataxError::Job { job, .. } if job.ends_with("a.json")), "{error}");
    let error = run(job("/dev/zero"), &context).await.unwrap_err();
    assert!(matches!(error, DataxError::Read { .. }), "{error}");
}

/// Makes a database with one table of `rows` rows, or an empty one.
async fn database(path: &Path, rows: i64) -> SqliteConnection {
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::query("CREATE TABLE t (id INTEGER PRIMARY KEY, name TEXT CHECK (name <> 'bad'))")
        .execute(&mut connection)
        .await
        .unwrap();
    let fill = "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < ?1) \
                INSERT INTO t SELECT id, 'name ' || id FROM n WHERE ?1 > 0";
    sqlx::query(fill).bind(rows).execute(&mut connection).await.unwrap();
    connection
}

fn copying(source: &Path, target: &Path, column: &str) -> Value {
    let parameter = |url: Value, column: Value| json!({ "username": "x", "password": "x", "column": column, "connection": [{ "table": ["t"], "jdbcUrl": url }] });
    let url = |path: &Path| format!("jdbc:sqlite:{}", path.display());
    json!({ "job": { "setting": { "speed": { "channel": 1 } }, "content": [{
        "reader": { "name": "sqlitereader", "parameter": parameter(json!([url(source)]), json!(["id", column])) },
        "writer": { "name": "sqlitewriter", "parameter": parameter(json!(url(target)), json!(["id", "name"])) },
    }] } })
}

async fn copy(with: Value, folder: &Path) -> Result<Report, DataxError> {
    run(parameters(with), &context(folder, &Value::Null)).await
}

#[tokio::test]
async fn native_plugins_move_records_without_any_datax() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("source.db"), folder.path().join("target.db"));
    database(&source, 2_500).await;
    let mut written = database(&target, 0).await;
    let job = folder.path().join("copy.json");
    fs::write(&job, copying(&source, &target, "${column}").to_string()).unwrap();
    let report = copy(json!({ "job": job, "params": { "column": "name" } }), folder.path()).await.unwrap();
    let count = |key: &str| report.values[key].as_u64().unwrap();
    assert_eq!((count("read_records"), count("written_records"), count("failed_records")), (2_500, 2_500, 0));
    assert_eq!(report.values["engine"], "native");
    assert!(count("bytes") > 2_500);
    let row = sqlx::query("SELECT count(*), max(name) FROM t").fetch_one(&mut written).await.unwrap();
    assert_eq!((row.get::<i64, _>(0), row.get::<String, _>(1)), (2_500, "name 999".to_owned()));
}

#[tokio::test]
async fn records_that_a_native_writer_refuses_are_lost_records() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("source.db"), folder.path().join("target.db"));
    database(&source, 10).await;
    let mut written = database(&target, 0).await;
    let content = copying(&source, &target, "CASE id WHEN 3 THEN 'bad' ELSE name END");
    let error = copy(json!({ "content": content }), folder.path()).await.unwrap_err();
    assert!(matches!(error, DataxError::Lost { failed: 1, read: 10, .. }), "{error}");
    sqlx::query("DELETE FROM t").execute(&mut written).await.unwrap();
    let report = copy(json!({ "content": content, "allow_failed_records": 1 }), folder.path()).await.unwrap();
    assert_eq!((&report.values["written_records"], &report.values["failed_records"]), (&json!(9), &json!(1)));
}

#[tokio::test]
async fn a_native_failure_carries_a_code() {
    let folder = tempfile::tempdir().unwrap();
    let (source, target) = (folder.path().join("source.db"), folder.path().join("target.db"));
    database(&source, 1).await;
    database(&target, 0).await;
    let error = copy(json!({ "content": copying(&source, &target, "no_such_column") }), folder.path())
        .await
        .unwrap_err();
    assert!(matches!(error, DataxError::Transfer { .. }), "{error}");
    assert_eq!(error.values().unwrap()["error_code"], "Framework-02");
}

#[tokio::test]
async fn a_native_job_goes_to_datax_where_the_task_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let content = copying(&folder.path().join("a.db"), &folder.path().join("b.db"), "name");
    let fake = Fake::with_log("stream_print_params.log", 0);
    let values = fake.run(json!({ "content": content, "native": "never" })).await.unwrap();
    assert_eq!(values["engine"], "external");
}

fn launch(with: &Value, folder: &Path) -> Result<Launch, LaunchError> {
    let attempt = "018f2f5e-0000-7000-8000-000000000000.0.1".parse().unwrap();
    let work = Work { attempt, with, work_dir: folder.join("work") };
    Datax.launch(&work, &Site { state_dir: folder.join("state"), ..Site::default() })
}

#[test]
fn the_payload_carries_parameters_and_settings() {
    let folder = tempfile::tempdir().unwrap();
    let with = json!({ "job": "a.json", "params": { "day": 1 } });
    let launch = launch(&with, folder.path()).unwrap();
    let payload: Payload = serde_json::from_slice(&launch.stdin).unwrap();
    assert_eq!((payload.kind.as_str(), payload.with, payload.settings), ("datax", with, Value::Null));
    assert!(payload.connections.is_empty() && launch.env.is_empty());
}

#[test]
fn bad_parameters_are_named_by_their_paths() {
    for (with, expected) in [
        (json!({}), "job"),
        (json!({ "job": "" }), "job"),
        (json!({ "job": "a\0" }), "job"),
        (json!({ "job": "a", "content": {} }), "content"),
        (json!({ "job": "a", "params": { "a.b": 1 } }), "params.a.b"),
        (json!({ "job": "a", "params": { "a": "\0" } }), "params.a"),
        (json!({ "job": "a", "params": { "a": [] } }), "params.a"),
        (json!({ "job": "a", "jvm": ["\0"] }), "jvm"),
        (json!({ "job": "a", "jmv": "x" }), "jmv"),
        (json!({ "job": "a", "allow_failed_records": -1 }), "allow_failed_records"),
    ] {
        let path = match launch(&with, Path::new("/nowhere")).unwrap_err() {
            LaunchError::Misfits { misfits, .. } => misfits.0[0].path.clone(),
            LaunchError::With { path, .. } => path,
            other => panic!("{other:?}"),
        };
        assert_eq!(path, expected, "{with}");
    }
}

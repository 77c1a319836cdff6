//! Backups of a real MariaDB: what is restored equals its source, and what goes wrong leaves nothing behind.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{Read as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use millrace_common::secret::Secret;
use millrace_kinds::{
    Context, Report,
    backup::{self, BackupError},
    run::ResolvedConnection,
};
use millrace_servers::{MariaDb, Place, Port, mariadb, programs::find, skipped, wait_until};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// Two databases with what dumps get wrong: bytes, characters, NULLs, zero dates, views, routines, triggers, events.
const SOURCE: &str = r#"
CREATE DATABASE mes CHARACTER SET utf8mb4;
USE mes;
CREATE TABLE lot (id BIGINT PRIMARY KEY, name VARCHAR(80), raw VARBINARY(64), price DECIMAL(20,6), made DATETIME(6),
  note TEXT, doc JSON, flags BIT(9), part ENUM('a','b'), weight DOUBLE) ENGINE=InnoDB;
INSERT INTO lot VALUES
  (1, '批次 🎞 ''quoted'' \\ back', 0x00FF1A270A0D5C, 12345678901234.567891, '2026-02-28 23:59:59.999999', 'line\nline\ttab', '{"a": 1}', b'101010101', 'b', 0.1),
  (2, '', '', -0.000001, NULL, NULL, NULL, NULL, NULL, -1e300),
  (3, NULL, NULL, NULL, '1970-01-01 00:00:00', '-- Dump completed on 1999-01-01', NULL, b'0', 'a', 0);
INSERT INTO lot (id, name) SELECT seq + 10, REPEAT(CHAR(64 + seq % 26), seq % 80) FROM seq_1_to_5000;
CREATE TABLE log (id INT AUTO_INCREMENT PRIMARY KEY, lot BIGINT);
CREATE VIEW named AS SELECT id, name FROM lot WHERE name IS NOT NULL;
DELIMITER //
CREATE TRIGGER lot_logged AFTER INSERT ON lot FOR EACH ROW INSERT INTO log (lot) VALUES (NEW.id)//
CREATE PROCEDURE count_lots(OUT n INT) BEGIN SELECT COUNT(*) INTO n FROM lot; END//
CREATE FUNCTION twice(n INT) RETURNS INT DETERMINISTIC RETURN 2 * n//
CREATE EVENT nightly ON SCHEDULE EVERY 1 DAY DISABLE DO DELETE FROM log//
DELIMITER ;
CREATE DATABASE wms;
USE wms;
CREATE TABLE bin (id INT PRIMARY KEY, parent INT, FOREIGN KEY (parent) REFERENCES bin (id)) ENGINE=InnoDB;
INSERT INTO bin VALUES (1, NULL), (2, 1), (3, 2);
CREATE TABLE old (id INT) ENGINE=MyISAM;
INSERT INTO old SELECT seq FROM seq_1_to_100;
"#;

/// A password with all that needs care: in option files, in SQL, in shells.
const PASSWORD: &str = "pa\"ss\\wo#rd'; $x";

/// A server with the two databases, and a folder for backups.
struct Fixture {
    server: MariaDb,
    root: TempDir,
}

/// Starts a server, or records that the test of this thread cannot run here.
fn started() -> Option<MariaDb> {
    let missing = mariadb::missing()
        .or_else(|| find("mariadb-dump").is_none().then(|| "mariadb-dump is not installed".to_owned()));
    if let Some(reason) = missing {
        skipped(&reason);
        return None;
    }
    let server = MariaDb::start_at(&Place::here(), PASSWORD, &["--log-bin=mb"]);
    // Backups of everything have what a test makes, and nothing else.
    server.sql("DROP DATABASE millrace");
    Some(server)
}

impl Fixture {
    fn start() -> Option<Self> {
        let server = started()?;
        server.sql(SOURCE);
        Some(Self { server, root: tempfile::tempdir().unwrap() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn connection(&self) -> ResolvedConnection {
        ResolvedConnection {
            engine: "mysql".into(),
            host: "127.0.0.1".into(),
            port: Some(self.server.port()),
            user: mariadb::USER.to_owned(),
            password: Secret::new(PASSWORD.to_owned()),
            database: "mes".into(),
            path: None,
        }
    }

    /// Runs a backup with its own, empty private folder, which must be empty again afterwards.
    async fn run_as(
        &self,
        connection: ResolvedConnection,
        settings: Value,
        more: Value,
    ) -> Result<Report, BackupError> {
        let work = tempfile::tempdir().unwrap();
        let mut with = json!({ "connection": "mes", "target": self.path("backups") });
        with.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let ctx = Context {
            connections: BTreeMap::from([("mes".to_owned(), connection)]),
            work_dir: work.path().to_owned(),
            state_dir: self.path("state"),
            settings,
        };
        let result = backup::run(serde_json::from_value(with).unwrap(), &ctx).await;
        assert_eq!(names(work.path()), Vec::<String>::new(), "the private folder is not empty");
        if let Err(error) = &result {
            assert!(!chain(error).contains(PASSWORD), "{}", chain(error));
        }
        result
    }

    async fn run(&self, more: Value) -> Result<Report, BackupError> {
        self.run_as(self.connection(), Value::Null, more).await
    }

    /// Runs a backup with a script in the place of the dump program. `REAL` in it is the real one.
    async fn run_fake(&self, script: &str, more: Value) -> Result<Report, BackupError> {
        let client = self.fake(script);
        self.run_as(self.connection(), json!({ "client": client }), more).await
    }

    fn fake(&self, script: &str) -> PathBuf {
        let real = find("mariadb-dump").unwrap();
        let text = format!(
            "#!/bin/sh\nREAL={}\nDIR={}\ncase \"$1\" in --version) exec $REAL --version;; esac\n{script}\n",
            real.display(),
            self.root.path().display()
        );
        fs::write(self.path("client.text"), text).unwrap();
        // Made executable by another process: one of this process that is started meanwhile would hold it open.
        let (text, client) = (self.path("client.text"), self.path("mysqldump"));
        assert!(
            Command::new("install").args(["-m", "755"]).arg(text).arg(&client).status().unwrap().success()
        );
        client
    }

    fn files(&self, database: &str) -> Vec<String> {
        names(&self.path("backups").join(database))
    }
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {}", chain(cause)))
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unpack(file: &Path) -> Vec<u8> {
    let bytes = fs::read(file).unwrap();
    match file.extension().unwrap().to_str().unwrap() {
        "zst" => zstd::decode_all(bytes.as_slice()).unwrap(),
        "gz" => {
            let mut text = Vec::new();
            flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut text).unwrap();
            text
        }
        _ => bytes,
    }
}

fn manifest(file: &Path) -> Value {
    serde_json::from_slice(&fs::read(format!("{}.json", file.display())).unwrap()).unwrap()
}

fn files_of(report: &Report) -> Vec<PathBuf> {
    report.values["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| PathBuf::from(file.as_str().unwrap()))
        .collect()
}

/// Everything in the two databases: rows one by one, sums, and definitions.
fn contents(server: &MariaDb) -> String {
    let tables = "mes.lot, mes.log, wms.bin, wms.old";
    let rows = "SELECT id, HEX(name), HEX(raw), price, made, HEX(note), doc, HEX(flags), part, weight FROM mes.lot ORDER BY id;
        SELECT * FROM mes.log ORDER BY id; SELECT * FROM wms.bin ORDER BY id; SELECT * FROM wms.old ORDER BY id;
        SELECT COUNT(*) FROM mes.named;";
    let made = "SELECT TABLE_SCHEMA, TABLE_NAME, ENGINE, TABLE_COLLATION, TABLE_TYPE FROM information_schema.TABLES
          WHERE TABLE_SCHEMA IN ('mes', 'wms') ORDER BY 1, 2;
        SELECT ROUTINE_NAME, HEX(ROUTINE_DEFINITION) FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = 'mes' ORDER BY 1;
        SELECT TRIGGER_NAME, ACTION_STATEMENT FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = 'mes';
        SELECT EVENT_NAME, EVENT_DEFINITION FROM information_schema.EVENTS WHERE EVENT_SCHEMA = 'mes';";
    server.sql(&format!("CHECKSUM TABLE {tables};\n{rows}\n{made}"))
}

fn is_alive(pid: &str) -> bool {
    Path::new("/proc").join(pid.trim()).exists()
}

#[tokio::test]
async fn what_is_restored_equals_its_source() {
    let Some(fixture) = Fixture::start() else { return };
    let Some(other) = started() else { return };
    let source = contents(&fixture.server);
    assert!(
        source.lines().count() > 5_000 && source.contains("lot_logged") && source.contains("count_lots"),
        "{source}"
    );
    for (compression, extension) in [("zstd", "sql.zst"), ("gzip", "sql.gz"), ("none", "sql")] {
        let report =
            fixture.run(json!({ "databases": ["mes", "wms"], "compression": compression })).await.unwrap();
        let files = files_of(&report);
        for (file, database) in files.iter().zip(["mes", "wms"]) {
            let name = file.file_name().unwrap().to_str().unwrap();
            assert!(
                name.starts_with(&format!("{database}_20")) && name.ends_with(&format!("Z.{extension}")),
                "{name}"
            );
            assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
            let (packed, raw, manifest) = (fs::read(file).unwrap(), unpack(file), manifest(file));
            assert_eq!(report.values["checksum"][database], json!(sha256(&packed)));
            assert_eq!(
                (&manifest["sha256"], &manifest["sha256_raw"]),
                (&json!(sha256(&packed)), &json!(sha256(&raw)))
            );
            assert_eq!(
                (&manifest["bytes"], &manifest["compressed_bytes"]),
                (&json!(raw.len()), &json!(packed.len()))
            );
            other.try_sql(&raw).unwrap();
        }
        assert_eq!((&report.values["databases"], &report.values["tables"]), (&json!(2), &json!(4)));
        assert!(contents(&other) == source, "{compression}: the restored databases differ");
        other.sql("DROP DATABASE mes; DROP DATABASE wms;");
    }
    assert_eq!(fixture.files("mes").len(), 6, "a run does not make its own new file");
}

#[tokio::test]
async fn a_manifest_says_how_a_dump_was_made() {
    let Some(fixture) = Fixture::start() else { return };
    let report = fixture
        .run(json!({ "databases": ["wms"], "binlog_position": true, "routines": false }))
        .await
        .unwrap();
    assert_eq!((&report.values["warnings"], &report.values["databases"]), (&json!(1), &json!(1)));
    assert!(report.values["checksum"].is_string() && report.values["seconds"].as_f64().unwrap() > 0.0);
    let manifest = manifest(&files_of(&report)[0]);
    assert!(
        manifest["warnings"][0].as_str().unwrap().contains("1 of 2 tables of wms are not InnoDB"),
        "{manifest}"
    );
    assert!(manifest["server"].as_str().unwrap().contains("MariaDB"), "{manifest}");
    assert!(manifest["client"].as_str().unwrap().contains("(MariaDB)"), "{manifest}");
    let binlog = &manifest["binlog"];
    assert!(
        binlog["file"].as_str().unwrap().starts_with("mb.0") && binlog["position"].as_u64().unwrap() > 0,
        "{manifest}"
    );
    assert!(manifest["flags"].as_array().unwrap().contains(&json!("--skip-routines")), "{manifest}");
    assert_eq!(manifest["tables"][1], json!({ "name": "old", "engine": "MyISAM", "rows": 100 }));
    let locked = fixture.run(json!({ "databases": ["wms"], "consistency": "lock" })).await.unwrap();
    assert_eq!(locked.values["warnings"], json!(0));
}

#[tokio::test]
async fn the_retention_deletes_only_after_a_new_backup_is_good() {
    let Some(fixture) = Fixture::start() else { return };
    let keep = json!({ "retention": { "keep_last": 2 } });
    for deleted in [0, 0, 1] {
        assert_eq!(fixture.run(keep.clone()).await.unwrap().values["deleted"], json!(deleted));
    }
    let before = fixture.files("mes");
    assert_eq!(before.len(), 4, "{before:?}");
    fixture.run_fake("exit 3", keep).await.unwrap_err();
    assert_eq!(fixture.files("mes"), before);
}

#[tokio::test]
async fn all_backs_up_what_is_good_and_names_what_is_not() {
    let Some(fixture) = Fixture::start() else { return };
    let report = fixture.run(json!({ "databases": "all" })).await.unwrap();
    assert_eq!(report.values["databases"], json!(2));
    assert_eq!(names(&fixture.path("backups")), ["mes", "wms"]);
    fixture.server.sql("DROP TABLE mes.lot; CREATE DATABASE zzz; CREATE TABLE zzz.t (id INT);");
    let error = fixture.run(json!({ "databases": "all" })).await.unwrap_err();
    let text = chain(&error);
    assert!(text.starts_with("1 of 3 databases failed: mes: ") && text.contains("mes.named"), "{text}");
    assert_eq!(
        (fixture.files("mes").len(), fixture.files("wms").len(), fixture.files("zzz").len()),
        (2, 4, 2)
    );
}

#[tokio::test]
async fn what_a_server_refuses_is_said_in_its_own_words() {
    let Some(fixture) = Fixture::start() else { return };
    let wrong = ResolvedConnection { password: Secret::new("wr0ng".into()), ..fixture.connection() };
    let error = chain(&fixture.run_as(wrong, Value::Null, json!({})).await.unwrap_err());
    assert!(
        error.contains("cannot connect to 127.0.0.1:") && error.contains("Access denied for user 'millrace'"),
        "{error}"
    );
    assert!(error.len() < 300 && !error.contains("wr0ng"), "{error}");
    let down = ResolvedConnection { port: Some(Port::take().number()), ..fixture.connection() };
    let error = chain(&fixture.run_as(down, Value::Null, json!({})).await.unwrap_err());
    assert!(error.contains("cannot connect to 127.0.0.1:") && error.contains("refused"), "{error}");
    let error = chain(&fixture.run(json!({ "databases": ["mes", "nope"] })).await.unwrap_err());
    assert!(error.contains("\"nope\" does not exist") && error.contains("mes, mysql"), "{error}");
    let hidden =
        fixture.run_as(fixture.connection(), json!({ "client": "/nowhere/mysqldump" }), json!({})).await;
    assert!(chain(&hidden.unwrap_err()).contains("cannot run /nowhere/mysqldump: No such file"));
    assert_eq!(fixture.files("mes"), Vec::<String>::new());
    // The client's own words, when it is the one that is refused.
    let error = chain(
        &fixture
            .run_fake("exec $REAL --no-defaults --host=127.0.0.1 --port=1 --protocol=tcp mes", json!({}))
            .await
            .unwrap_err(),
    );
    assert!(
        error.contains("ended with exit status: 2 while it dumped mes: ")
            && error.contains("Can't connect to server"),
        "{error}"
    );
    assert_eq!(fixture.files("mes"), Vec::<String>::new());
}

#[tokio::test]
async fn a_dump_without_its_end_is_not_a_backup() {
    let Some(fixture) = Fixture::start() else { return };
    for script in [
        "$REAL \"$@\" | head -n -1",
        "$REAL \"$@\" | head -c 20000",
        "exit 0",
        "$REAL \"$@\" | sed 's/^-- Dump completed on/-- Dump ended/'",
    ] {
        let error = fixture.run_fake(script, json!({})).await.unwrap_err();
        assert!(matches!(error, BackupError::CutOff { .. }), "{script}: {error}");
        assert_eq!(fixture.files("mes"), Vec::<String>::new(), "{script}");
    }
    // A complete last line does not excuse a failed program, and what it betrays is masked.
    let betrayal =
        "P=$(sed -n 's/^password=//p' \"${1#*=}\"); $REAL \"$@\"; printf 'it is %s\\n' \"$P\" >&2; exit 5";
    let error = fixture.run_fake(betrayal, json!({})).await.unwrap_err();
    assert!(error.to_string().ends_with("mes: it is \"***\""), "{error}");
    assert!(error.to_string().contains("exit status: 5"), "{error}");
    assert_eq!(fixture.files("mes"), Vec::<String>::new());
}

#[tokio::test]
async fn a_dump_starts_again_a_few_times_when_a_table_changes() {
    let Some(fixture) = Fixture::start() else { return };
    let changed =
        "echo 'mysqldump: Error 1412: Table definition has changed, please retry transaction' >&2; exit 3";
    let tries = || fs::read_to_string(fixture.path("tries")).unwrap().lines().count();
    let once = format!(
        "echo >> $DIR/tries; [ -e $DIR/changed ] && exec $REAL \"$@\"; touch $DIR/changed; {changed}"
    );
    fixture.run_fake(&once, json!({})).await.unwrap();
    assert_eq!((tries(), fixture.files("mes").len()), (2, 2));
    let error = fixture.run_fake(&format!("echo >> $DIR/tries; {changed}"), json!({})).await.unwrap_err();
    assert!(error.to_string().contains("Error 1412"), "{error}");
    assert_eq!((tries(), fixture.files("mes").len()), (2 + 3, 2));
}

#[tokio::test]
async fn the_credentials_are_gone_once_the_client_has_connected() {
    let Some(fixture) = Fixture::start() else { return };
    // Ends well only if the file is there with mode 600 at first, and disappears after the first bytes.
    let script = "F=${1#--defaults-extra-file=}
        [ \"$(stat -c %a \"$F\")\" = 600 ] || exit 9
        cp -p \"$F\" $DIR/copy; shift
        echo '-- the first bytes'
        n=0; while [ -e \"$F\" ]; do n=$((n+1)); [ $n -lt 600 ] || exit 8; sleep 0.05; done
        exec $REAL --defaults-extra-file=$DIR/copy \"$@\"";
    fixture.run_fake(script, json!({})).await.unwrap();
    assert_eq!(fixture.files("mes").len(), 2);
}

#[tokio::test]
async fn a_disk_that_is_too_small_is_refused_before() {
    let Some(fixture) = Fixture::start() else { return };
    let error = fixture.run(json!({ "min_free": "900000TiB" })).await.unwrap_err();
    let BackupError::NoSpace { folder, needed, free } = &error else { panic!("{error}") };
    assert_eq!(folder, &fixture.path("backups/mes"));
    assert!(*needed > *free && *free > 0, "{error}");
    assert_eq!(fixture.files("mes"), Vec::<String>::new());
}

#[tokio::test]
async fn a_disk_that_becomes_full_leaves_older_backups_and_no_process() {
    let Some(fixture) = Fixture::start() else { return };
    let Some(_disk) = SmallDisk::mount(&fixture.path("backups")) else { return };
    let report = fixture.run(json!({})).await.unwrap();
    let before = fixture.files("mes");
    let noise = "echo $$ > $DIR/pid; echo '-- MariaDB dump'; exec cat /dev/urandom";
    let error = fixture.run_fake(noise, json!({ "retention": { "keep_last": 1 } })).await.unwrap_err();
    let BackupError::Full { folder, needed, free } = &error else { panic!("{error}") };
    assert_eq!(folder, &fixture.path("backups/mes"));
    assert!(*needed > 1 << 20 && *free > 1 << 20, "{error}");
    let text = error.to_string();
    assert!(
        text.contains("became full")
            && text.contains(&needed.to_string())
            && text.contains(&free.to_string()),
        "{text}"
    );
    let pid = fs::read_to_string(fixture.path("pid")).unwrap();
    assert!(!is_alive(&pid), "the client {pid} still runs");
    assert_eq!(fixture.files("mes"), before);
    let file = &files_of(&report)[0];
    assert_eq!(report.values["checksum"], json!(sha256(&fs::read(file).unwrap())));
}

/// A file system of 4 MiB in memory.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(folder: &Path) -> Option<Self> {
        fs::create_dir(folder).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=4m", "tmpfs"]).arg(folder).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(folder.to_owned())),
            _ => {
                skipped("only root can mount a small disk");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// The sub-command of the executor, played by this test program: set in the environment of its child.
const IS_KIND: &str = "MILLRACE_TEST_IS_KIND";

/// Does the work of the kind's process where this is one.
#[expect(clippy::disallowed_methods, reason = "plays the main function of the executor")]
fn be_the_kind() {
    if std::env::var_os(IS_KIND).is_none() {
        return;
    }
    let values = std::env::var_os("MILLRACE_VALUES").map(PathBuf::from);
    let code = tokio::runtime::Runtime::new().unwrap().block_on(millrace_kinds::run_kind(values));
    std::process::exit(code);
}

/// Starts the kind's process as the runner does; `name` is the test that calls [`be_the_kind`].
fn start_kind(fixture: &Fixture, name: &str, client: &Path) -> Child {
    let (work, with) =
        (fixture.path("work"), json!({ "connection": "mes", "target": fixture.path("backups") }));
    fs::create_dir(&work).unwrap();
    let connection = serde_json::to_value(fixture.connection()).unwrap();
    let payload = json!({
        "kind": "backup", "with": with, "connections": { "mes": connection },
        "work_dir": work, "state_dir": fixture.path("state"), "settings": { "client": client },
    });
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(IS_KIND, "1")
        .env("MILLRACE_VALUES", fixture.path("values"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(payload.to_string().as_bytes()).unwrap();
    child
}

/// A client that waits at a gate before it dumps.
const GATED: &str = "echo $$ > $DIR/pid.new; mv $DIR/pid.new $DIR/pid
    n=0; while [ ! -e $DIR/gate ]; do n=$((n+1)); [ $n -lt 1200 ] || exit 8; sleep 0.05; done
    exec $REAL \"$@\"";

/// Returns the command lines and environments of all processes that can be read, by process id.
fn visible() -> BTreeMap<String, Vec<u8>> {
    let processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
    let pids = processes
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.parse::<u32>().is_ok());
    pids.map(|pid| {
        let read = |what: &str| fs::read(format!("/proc/{pid}/{what}")).unwrap_or_default();
        let bytes = [read("cmdline"), read("environ")].concat();
        (pid, bytes)
    })
    .collect()
}

fn contains(bytes: &[u8], part: &str) -> bool {
    bytes.windows(part.len()).any(|window| window == part.as_bytes())
}

fn ended(child: Child) -> Output {
    child.wait_with_output().unwrap()
}

#[test]
fn the_password_is_nowhere_to_be_seen() {
    be_the_kind();
    let Some(fixture) = Fixture::start() else { return };
    let client = fixture.fake(&format!("echo 'it is pa\"ss\\wo#rd'\"'\"'; $x' >&2\n{GATED}"));
    let kind = start_kind(&fixture, "the_password_is_nowhere_to_be_seen", &client);
    wait_until("the client runs", || fixture.path("pid").exists());
    let pid = fs::read_to_string(fixture.path("pid")).unwrap();
    let seen = visible();
    assert!(contains(&seen[pid.trim()], "--defaults-extra-file="), "the client is not seen");
    assert!(seen.contains_key(&kind.id().to_string()), "the kind is not seen");
    let showing: BTreeSet<&String> =
        seen.iter().filter(|(_, bytes)| contains(bytes, PASSWORD)).map(|(pid, _)| pid).collect();
    fs::write(fixture.path("gate"), "").unwrap();
    // While the real client runs it is seen as often as it can be.
    let mut kind = kind;
    while kind.try_wait().unwrap().is_none() {
        assert!(visible().values().all(|bytes| !contains(bytes, PASSWORD)), "a process shows the password");
    }
    let output = ended(kind);
    let log = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&log));
    assert!(showing.is_empty(), "processes that show the password: {showing:?}");
    assert!(!contains(&log, PASSWORD) && contains(&log, "it is ***"), "{}", String::from_utf8_lossy(&log));
    assert!(!contains(&fs::read(fixture.path("values")).unwrap(), PASSWORD));
    assert_eq!(names(&fixture.path("work")), Vec::<String>::new());
    for name in fixture.files("mes").iter().filter(|name| name.ends_with(".json")) {
        assert!(!contains(&fs::read(fixture.path("backups/mes").join(name)).unwrap(), PASSWORD));
    }
}

#[test]
fn a_backup_that_is_told_to_end_leaves_nothing() {
    be_the_kind();
    let Some(fixture) = Fixture::start() else { return };
    let client = fixture.fake(GATED);
    let kind = start_kind(&fixture, "a_backup_that_is_told_to_end_leaves_nothing", &client);
    wait_until("the client runs", || fixture.path("pid").exists());
    assert!(
        fixture.files("mes").iter().all(|name| name.ends_with(".tmp")) && fixture.files("mes").len() == 1
    );
    let pid = i32::try_from(kind.id()).unwrap();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM).unwrap();
    let output = ended(kind);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("error: the backup was told to end"), "{errors}");
    let client = fs::read_to_string(fixture.path("pid")).unwrap();
    wait_until("the client has ended", || !is_alive(&client));
    assert_eq!(fixture.files("mes"), Vec::<String>::new());
    assert_eq!(names(&fixture.path("work")), Vec::<String>::new());
}

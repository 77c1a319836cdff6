//! A plant: two accounts of an FTP server with archives in dated folders, and attempts that ingest them.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use chrono::NaiveDate;
use millrace_examples::aoi::{Film, Request, Roll};
use millrace_kinds::{
    Context, Report,
    aoi::{AoiError, run},
    run::ResolvedConnection,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The password of both accounts; no message may show it.
pub(crate) const PASSWORD: &str = "Rt-secret-of-the-plant";
/// The day of the examples.
pub(crate) const DAY: NaiveDate = NaiveDate::from_ymd_opt(2018, 7, 25).unwrap();

/// A plant and the executor's folders.
pub(crate) struct Plant {
    pub(crate) folder: TempDir,
    server: Option<FtpServer>,
}

struct FtpServer {
    process: Child,
    port: u16,
}

impl Drop for FtpServer {
    fn drop(&mut self) {
        // The process may have ended already; then there is nothing to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Plant {
    /// Makes a plant without archives and without a server.
    pub(crate) fn new() -> Self {
        let plant = Self { folder: TempDir::new().unwrap(), server: None };
        for folder in ["work", "state", "ftp/cloudin_pva", "ftp/cloudin_psa"] {
            fs::create_dir_all(plant.path(folder)).unwrap();
        }
        plant
    }

    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(relative)
    }

    /// Starts the FTP server, instead of one that runs.
    pub(crate) fn serve(&mut self, faults: &Value) {
        self.server = None;
        let mut config = json!({
            "log": self.path("commands.log"),
            "users": [
                { "name": "cloudin_pva", "password": PASSWORD, "home": self.path("ftp/cloudin_pva") },
                { "name": "cloudin_psa", "password": PASSWORD, "home": self.path("ftp/cloudin_psa") },
            ],
        });
        for (key, value) in faults.as_object().unwrap() {
            config[key] = value.clone();
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/aoi/ftp_server.py");
        let mut process = Command::new("/usr/bin/python3")
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(self.path("ftp.log")).unwrap())
            .spawn()
            .expect("Debian's python3 with python3-pyftpdlib is installed");
        writeln!(process.stdin.take().unwrap(), "{config}").unwrap();
        let mut port = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut port).unwrap();
        let Ok(port) = port.trim().parse() else {
            let log = fs::read_to_string(self.path("ftp.log")).unwrap();
            panic!("the FTP server did not start; python3-pyftpdlib is needed: {log}");
        };
        self.server = Some(FtpServer { process, port });
    }

    /// Puts the archives of a day of the examples onto the server and returns their rolls.
    pub(crate) fn archives(&self, rolls: u32) -> Vec<Roll> {
        self.archives_of(DAY, rolls)
    }

    /// Puts the archives of a day onto the server and returns their rolls.
    pub(crate) fn archives_of(&self, first_day: NaiveDate, rolls: u32) -> Vec<Roll> {
        let request = Request { first_day, days: 1, rolls, seed: 7 };
        millrace_examples::aoi::write(&request, &self.path("ftp"), |film| format!("cloudin_{}", film.name()))
            .unwrap()
    }

    /// Puts a file into the dated folder of the examples.
    pub(crate) fn put(&self, film: Film, name: &str, bytes: &[u8]) -> PathBuf {
        let folder = self.path(format!("ftp/cloudin_{}/2018/07/25", film.name()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(name), bytes).unwrap();
        folder.join(name)
    }

    /// Returns the connections of the executor, with a SQLite database for the rolls.
    pub(crate) fn connections(&self) -> BTreeMap<String, ResolvedConnection> {
        let port = self.server.as_ref().map(|server| server.port);
        let ftp = |user: &str| {
            connection(
                &json!({ "engine": "ftp", "host": "127.0.0.1", "port": port, "user": user, "password": PASSWORD }),
            )
        };
        let aoi = connection(&json!({ "engine": "sqlite", "path": self.path("aoi.db") }));
        BTreeMap::from([
            ("pva".to_owned(), ftp("cloudin_pva")),
            ("psa".to_owned(), ftp("cloudin_psa")),
            ("aoi".to_owned(), aoi),
        ])
    }

    pub(crate) fn context(&self) -> Context {
        Context {
            connections: self.connections(),
            work_dir: self.path("work"),
            state_dir: self.path("state"),
            settings: Value::Null,
        }
    }

    /// Runs an attempt.
    pub(crate) async fn ingest(&self, with: Value) -> Result<Report, AoiError> {
        run(serde_json::from_value(with).unwrap(), &self.context()).await
    }

    /// Runs an attempt that must succeed and returns its values.
    pub(crate) async fn values(&self, with: Value) -> Value {
        match self.ingest(with).await {
            Ok(report) => Value::Object(report.values),
            Err(error) => panic!("the attempt failed: {}", chain(&error)),
        }
    }

    /// Runs an attempt that must fail and returns its message, which must not show the password.
    pub(crate) async fn failure(&self, with: Value) -> String {
        let message = match self.ingest(with).await {
            Ok(report) => panic!("the attempt succeeded: {:?}", report.values),
            Err(error) => format!("{} / {error:?}", chain(&error)),
        };
        assert!(!message.contains(PASSWORD), "{message}");
        message
    }

    /// Returns what clients asked the FTP server for.
    pub(crate) fn commands(&self) -> Vec<String> {
        let log = fs::read_to_string(self.path("commands.log")).unwrap_or_default();
        log.lines().map(|line| line.trim_end().to_owned()).collect()
    }

    /// Returns all files of the store below a folder, relative to it, in order.
    pub(crate) fn stored(&self, area: &str) -> Vec<String> {
        let root = self.path("state/store").join(area);
        let mut files = Vec::new();
        collect(&root, &root, &mut files);
        files.sort();
        files
    }
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            files.push(path.strip_prefix(root).unwrap().to_string_lossy().into_owned());
        }
    }
}

/// Makes a connection from the fields that matter.
pub(crate) fn connection(fields: &Value) -> ResolvedConnection {
    let mut all = json!({
        "engine": "", "host": "", "port": null, "user": "", "password": "", "database": "", "path": null,
    });
    for (key, value) in fields.as_object().unwrap() {
        all[key] = value.clone();
    }
    serde_json::from_value(all).unwrap()
}

/// Returns parameters for the day of the examples, with short times; `more` adds or replaces members.
pub(crate) fn with(more: &Value) -> Value {
    let mut with = json!({
        "sources": [{ "name": "pva", "encoding": "gbk" }, { "name": "psa", "encoding": "gbk" }],
        "days": ["2018-07-25"],
        "mirror": { "ready": "now", "retry_delay": "10ms", "timeout": "5s", "free_space_min": "1MiB" },
        "load": { "connection": "aoi", "create_tables": true },
    });
    for (key, value) in more.as_object().unwrap() {
        match (with.get_mut(key), value) {
            (Some(Value::Object(old)), Value::Object(new)) => old.extend(new.clone()),
            _ => with[key] = value.clone(),
        }
    }
    with
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

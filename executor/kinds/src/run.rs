//! The work of built-in kinds, inside their own process.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use millrace_common::{connection::Engine, secret::Secret};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use thiserror::Error;

use crate::report::{Outcome, Report};

/// Exit code of a kind that did its work.
pub const EXIT_DONE: i32 = 0;
/// Exit code of a kind whose work failed.
pub const EXIT_FAILED: i32 = 1;
/// Exit code of a kind whose payload is not what it takes.
pub const EXIT_PAYLOAD: i32 = 2;
/// Exit code of a kind that found nothing to do and was told that this skips the task.
pub const EXIT_SKIPPED: i32 = 99;

/// Where a kind leaves the reason of its failure, beside the values.
pub const REASON_FILE: &str = "reason";

/// Bytes of a payload; parameters are bounded by the definition, connections by the configuration.
const PAYLOAD_BYTES_MAX: u64 = 8 << 20;

/// A connection as a kind's process receives it: with its password, over standard input.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ResolvedConnection {
    /// What it leads to: `mysql`, `postgres`, `sqlite`, `ftp`.
    pub engine: String,
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: Option<u16>,
    /// Account.
    pub user: String,
    /// Password, empty where there is none.
    #[serde(with = "exposed")]
    pub password: Secret,
    /// Database of a server.
    pub database: String,
    /// File or home folder.
    pub path: Option<PathBuf>,
}

/// Everything that a kind's process needs, read from its standard input as JSON.
#[derive(Debug, Serialize, Deserialize)]
pub struct Payload {
    /// Which kind to run.
    pub kind: String,
    /// Its parameters, templates rendered.
    pub with: Value,
    /// The connections that the parameters name, by name.
    pub connections: BTreeMap<String, ResolvedConnection>,
    /// The attempt's private folder.
    pub work_dir: PathBuf,
    /// The folder that this kind keeps state in between attempts.
    pub state_dir: PathBuf,
    /// Settings of the kind from the executor's configuration.
    pub settings: Value,
}

/// What a kind works with.
#[derive(Debug)]
pub struct Context {
    /// The connections that the parameters name, by name.
    pub connections: BTreeMap<String, ResolvedConnection>,
    /// The attempt's private folder, removed after the attempt.
    pub work_dir: PathBuf,
    /// The folder that this kind keeps state in between attempts.
    pub state_dir: PathBuf,
    /// Settings of the kind from the executor's configuration.
    pub settings: Value,
}

impl Context {
    /// Writes a line to the attempt's log. Failing to log never fails the work.
    #[expect(clippy::print_stdout, reason = "standard output of a kind's process is the attempt's log")]
    pub fn log(&self, line: impl std::fmt::Display) {
        println!("{line}");
        let _ = std::io::stdout().flush();
    }

    /// Finds a connection that the payload carries.
    ///
    /// # Errors
    /// Where it carries none of that name.
    pub fn connection(&self, name: &str) -> Result<&ResolvedConnection, KindError> {
        self.connections.get(name).ok_or_else(|| KindError::Connection(name.to_owned()))
    }
}

/// Why a kind's work failed. What it says ends in the attempt's log and as the reason of its failure.
#[derive(Debug, Error)]
pub enum KindError {
    /// The payload is not JSON of the expected form.
    #[error("the payload on standard input is not what `run-kind` takes: {0}")]
    Payload(String),
    /// A connection is missing in the payload.
    #[error("connection {0:?} is not in the payload")]
    Connection(String),
    /// The backup failed.
    #[error(transparent)]
    Backup(#[from] crate::backup::BackupError),
    /// The AOI ingestion failed.
    #[error(transparent)]
    Aoi(#[from] crate::aoi::AoiError),
    /// The transfer failed.
    #[error(transparent)]
    Datax(#[from] crate::datax::DataxError),
    /// The values could not be written.
    #[error("cannot write the values file")]
    Values(#[source] std::io::Error),
}

impl KindError {
    /// Returns what is known of the work that failed, where that is worth handing on.
    #[must_use]
    pub fn values(&self) -> Option<&Map<String, Value>> {
        match self {
            Self::Datax(error) => error.values(),
            _ => None,
        }
    }
}

/// Runs the kind that the payload on standard input names and returns the exit code of the process.
///
/// Values go to the file named by the environment variable `MILLRACE_VALUES`, the log to standard output, the reason of a
/// failure as the last line to standard error and to the file [`REASON_FILE`] beside the values.
pub async fn run_kind(values_file: Option<PathBuf>) -> i32 {
    let reason_file = values_file.as_deref().map(|file| file.with_file_name(REASON_FILE));
    let payload = match read_payload(std::io::stdin()) {
        Ok(payload) => payload,
        Err(error) => {
            tell_failure(&error, reason_file.as_deref());
            return EXIT_PAYLOAD;
        }
    };
    match run_payload(payload, values_file).await {
        Ok(Outcome::Done) => EXIT_DONE,
        Ok(Outcome::Skipped) => EXIT_SKIPPED,
        Err(error) => {
            tell_failure(&error, reason_file.as_deref());
            EXIT_FAILED
        }
    }
}

/// Says why the work failed: to whoever reads the log, and to the executor, which makes it the reason of the attempt.
#[expect(clippy::print_stderr, reason = "standard error of a kind's process is the attempt's log")]
fn tell_failure(error: &KindError, reason_file: Option<&Path>) {
    let text = chain(error);
    eprintln!("error: {text}");
    if let Some(file) = reason_file {
        // Without it the reason is the exit code.
        let _ = std::fs::write(file, text);
    }
}

fn read_payload(from: impl Read) -> Result<Payload, KindError> {
    let mut text = Vec::new();
    from.take(PAYLOAD_BYTES_MAX + 1)
        .read_to_end(&mut text)
        .map_err(|error| KindError::Payload(error.to_string()))?;
    if text.len() as u64 > PAYLOAD_BYTES_MAX {
        return Err(KindError::Payload(format!("it is longer than {PAYLOAD_BYTES_MAX} bytes")));
    }
    serde_json::from_slice(&text).map_err(|error| KindError::Payload(error.to_string()))
}

async fn run_payload(payload: Payload, values_file: Option<PathBuf>) -> Result<Outcome, KindError> {
    let Payload { kind, with, connections, work_dir, state_dir, settings } = payload;
    let context = Context { connections, work_dir, state_dir, settings };
    let result = work(&kind, with, &context).await;
    let values = result.as_ref().map_or_else(KindError::values, |report| Some(&report.values));
    if let (Some(path), Some(values)) = (values_file, values) {
        let written = write_values(&path, values);
        // The reason of a failure counts for more than that its values are lost.
        if result.is_ok() {
            written.map_err(KindError::Values)?;
        }
    }
    Ok(result?.outcome)
}

async fn work(kind: &str, with: Value, context: &Context) -> Result<Report, KindError> {
    Ok(match kind {
        "backup" => crate::backup::run(parameters(&with)?, context).await?,
        "aoi" => crate::aoi::run(parameters(&with)?, context).await?,
        "datax" => crate::datax::run(parameters(&with)?, context).await?,
        other => return Err(KindError::Payload(format!("there is no built-in kind {other:?}"))),
    })
}

/// Reads typed parameters; the path of a misfit is part of the message.
fn parameters<T: serde::de::DeserializeOwned>(with: &Value) -> Result<T, KindError> {
    crate::parameters::read(with)
        .map_err(|misread| KindError::Payload(format!("with.{}: {}", misread.path, misread.problem)))
}

fn write_values(path: &Path, values: &Map<String, Value>) -> std::io::Result<()> {
    let mut line = Value::Object(values.clone()).to_string();
    line.push('\n');
    std::fs::write(path, line)
}

/// Renders an error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

/// Returns the word of an engine as it stands in a payload.
#[must_use]
pub const fn engine_word(engine: Engine) -> &'static str {
    match engine {
        Engine::Mysql => "mysql",
        Engine::Postgres => "postgres",
        Engine::Sqlite => "sqlite",
        Engine::Ftp => "ftp",
    }
}

/// A payload is the one place where a secret is written out: into the memory behind a process's standard input.
mod exposed {
    use millrace_common::secret::Secret;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(secret: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(secret.expose())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
        String::deserialize(deserializer).map(Secret::new)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::report::read_values;

    /// Makes the payload of a transfer whose DataX is `java`, and does what it says.
    async fn transfer(java: &str, with: Value) -> (Result<Outcome, KindError>, Map<String, Value>) {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir(folder.path().join("lib")).expect("a folder");
        let payload = Payload {
            kind: "datax".into(),
            with,
            connections: BTreeMap::new(),
            work_dir: folder.path().to_owned(),
            state_dir: folder.path().to_owned(),
            settings: json!({ "home": folder.path(), "start": { "java": java } }),
        };
        let file = folder.path().join("values");
        let result = run_payload(payload, Some(file.clone())).await;
        (result, read_values(&file).expect("values"))
    }

    #[tokio::test]
    async fn values_of_success_and_of_failure_are_handed_on() {
        let with = json!({ "content": {}, "native": "never" });
        let (result, values) = transfer("/bin/true", with.clone()).await;
        assert_eq!(
            (result.expect("success"), Value::Object(values)),
            (Outcome::Done, json!({ "engine": "external" }))
        );
        let (result, values) = transfer("/bin/false", with).await;
        assert!(result.is_err());
        assert_eq!(Value::Object(values), json!({ "engine": "external", "error_code": "exit-1" }));
    }

    #[tokio::test]
    async fn a_misfit_names_its_path() {
        let (result, values) = transfer("/bin/true", json!({ "content": {}, "params": { "a": [] } })).await;
        let error = result.expect_err("a misfit").to_string();
        assert!(error.contains("with.params.a: a text, a number, true or false"), "{error}");
        assert!(values.is_empty());
    }

    #[tokio::test]
    async fn a_kind_that_is_not_built_in_is_refused() {
        let payload = Payload {
            kind: "shell".into(),
            with: Value::Null,
            connections: BTreeMap::new(),
            work_dir: PathBuf::new(),
            state_dir: PathBuf::new(),
            settings: Value::Null,
        };
        let error = run_payload(payload, None).await.expect_err("unknown").to_string();
        assert!(error.contains("no built-in kind \"shell\""), "{error}");
    }

    #[test]
    fn a_payload_that_is_none_is_refused() {
        for (bytes, problem) in [(&b"{}"[..], "missing field"), (b"", "EOF"), (b"\xff", "expected value")] {
            let error = read_payload(bytes).expect_err("no payload").to_string();
            assert!(error.contains(problem), "{error}");
        }
        let error = read_payload(std::io::repeat(b' ')).expect_err("endless").to_string();
        assert!(error.contains("longer than"), "{error}");
    }

    #[test]
    fn a_password_survives_the_payload_and_is_never_shown() {
        let password = Secret::new("s3cret".into());
        let connection = ResolvedConnection {
            engine: "mysql".into(),
            host: "db".into(),
            port: None,
            user: "etl".into(),
            password,
            database: String::new(),
            path: None,
        };
        let text = serde_json::to_string(&connection).expect("text");
        let back: ResolvedConnection = serde_json::from_str(&text).expect("a connection");
        assert_eq!(back.password.expose(), "s3cret");
        assert!(!format!("{back:?}").contains("s3cret"));
    }

    #[test]
    fn the_reason_of_a_failure_is_left_for_the_executor() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join(REASON_FILE);
        tell_failure(&KindError::Values(std::io::Error::other("no space left")), Some(&file));
        let reason = std::fs::read_to_string(&file).expect("a reason");
        assert_eq!(reason, "cannot write the values file: no space left");
    }

    #[test]
    fn causes_stand_on_one_line() {
        let cause = std::io::Error::other("no space left");
        assert_eq!(chain(&KindError::Values(cause)), "cannot write the values file: no space left");
    }
}

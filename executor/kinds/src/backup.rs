//! The `backup` kind: makes, verifies and prunes backups of databases.
//!
//! A backup is one file per database with a manifest beside it. Both get their names only after the file was read back
//! and found equal to what the tool wrote, so that a file with a name is a good backup, and an attempt that fails or is
//! killed leaves the older ones as they were. What the retention no longer keeps goes last.
//!
//! Restoring is deliberately absent: it needs a person's decision about where to.

mod archive;
mod client;
mod dump;
mod folder;
mod manifest;
mod name;
mod plan;
mod retention;
mod server;
mod space;
mod sqlite;
mod values;

use std::{fmt, io, path::PathBuf, process::ExitStatus};

use chrono::{DateTime, Utc};
use millrace_common::kind::backup::{BackupTool, BackupWith};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};

use crate::{
    builtin,
    launch::{Kind, Launch, LaunchError, Site, Work},
    report::Report,
    run::{Context, ResolvedConnection},
};

use self::{name::Database, plan::Plan};

/// The kind's name.
const KIND: &str = "backup";

/// Makes a verified, compressed backup of databases and removes those that the retention no longer keeps.
#[derive(Debug, Clone, Copy)]
pub struct Backup;

impl Kind for Backup {
    fn launch(&self, work: &Work<'_>, site: &Site) -> Result<Launch, LaunchError> {
        let with: BackupWith = builtin::parameters(KIND, work.with)?;
        let plan =
            Plan::try_from(with).map_err(|misfit| LaunchError::misfit(KIND, misfit.path, misfit.problem))?;
        builtin::launch(KIND, &[&plan.connection], work, site, json!(site.backup))
    }
}

/// What the machine sets for all backups; absent members mean the defaults.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// The dump program; looked for in `PATH` where absent.
    pub client: Option<PathBuf>,
    /// The folder for backups that name no target; below the kind's state folder where absent.
    pub target: Option<PathBuf>,
}

/// Why a backup failed. Older backups are as they were.
#[derive(Debug, Error)]
pub enum BackupError {
    /// A parameter is of the right form and yet cannot be used.
    #[error("`with.{path}` cannot be used: {problem}")]
    With {
        /// The parameter.
        path: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The settings of the kind are not what it takes.
    #[error("the executor's settings for backups are not what they should be")]
    Settings(#[source] serde_json::Error),
    /// The payload lacks the connection.
    #[error("connection {0:?} is not in the payload")]
    Connection(String),
    /// There is no tool for what the connection leads to.
    #[error(
        "connection {connection:?} leads to {engine}, and backups are made of mysql and sqlite connections only"
    )]
    Engine {
        /// The connection.
        connection: String,
        /// What it leads to.
        engine: String,
    },
    /// A folder for backups cannot be used.
    #[error("the folder {} cannot be used for backups", folder.display())]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server does not let the account in.
    #[error("cannot connect to {address} as {user:?}")]
    Connect {
        /// Host and port, or the socket.
        address: String,
        /// The account.
        user: String,
        /// What the server or the network says.
        #[source]
        source: Box<sqlx::Error>,
    },
    /// The server did not answer in time.
    #[error("{address} did not answer within {seconds} s")]
    NoAnswer {
        /// Host and port, or the socket.
        address: String,
        /// The time waited.
        seconds: u64,
    },
    /// The server cannot say what there is to back up.
    #[error("the server at {address} cannot list databases and tables")]
    List {
        /// Host and port, or the socket.
        address: String,
        /// Why.
        #[source]
        source: Box<sqlx::Error>,
    },
    /// A database is not there.
    #[error("database {database:?} does not exist or is hidden from the account; it sees {known}")]
    UnknownDatabase {
        /// The database.
        database: String,
        /// Those there are.
        known: String,
    },
    /// No dump program.
    #[error("neither {0} is installed: install the client programs of MariaDB or MySQL on this machine")]
    NoClient(String),
    /// A program cannot be run.
    #[error("cannot run {}", program.display())]
    Run {
        /// The program.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A program is not a dump program.
    #[error("{} does not say that it is a dump program of MariaDB or MySQL, but {answer:?}", program.display())]
    NotAClient {
        /// The program.
        program: PathBuf,
        /// What it says.
        answer: String,
    },
    /// The file for the credentials could not be written.
    #[error("cannot write the private file that hands the credentials to the client")]
    Credentials(#[source] io::Error),
    /// The dump program failed.
    #[error("{client} ended with {status} while it dumped {database}: {complaint}")]
    Client {
        /// The database.
        database: String,
        /// The program.
        client: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said last.
        complaint: String,
        /// Whether a table was changed or dropped under it, so that another try makes sense.
        is_table_changed: bool,
    },
    /// The dump ended too early although the program says that it succeeded.
    #[error("the dump of {database} is cut off: its last line is not `{}` but {last:?}", dump::LAST_LINE)]
    CutOff {
        /// The database.
        database: String,
        /// The last line.
        last: String,
    },
    /// The output of the dump program could not be read.
    #[error("cannot read what the client writes")]
    Read(#[source] io::Error),
    /// The space does not suffice, as far as can be told before.
    #[error("not enough space in {}: {needed} bytes are needed, {free} bytes are free", folder.display())]
    NoSpace {
        /// The folder.
        folder: PathBuf,
        /// Bytes that the backup is expected to take, with those to leave free.
        needed: u64,
        /// Bytes free.
        free: u64,
    },
    /// The disk became full.
    #[error("{} became full: more than {needed} bytes are needed, {free} bytes are free without this backup", folder.display())]
    Full {
        /// The folder.
        folder: PathBuf,
        /// Bytes written until then.
        needed: u64,
        /// Bytes free once the unfinished file is removed.
        free: u64,
    },
    /// A file could not be written or read back.
    #[error("cannot keep {}", file.display())]
    Write {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file read back is not what was written.
    #[error("{} does not read back as what was written to it: {problem}; the disk or its connection is not reliable", file.display())]
    Unequal {
        /// The file.
        file: PathBuf,
        /// What differs.
        problem: &'static str,
    },
    /// A SQLite file cannot be copied.
    #[error("cannot copy the SQLite file {}", file.display())]
    Sqlite {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: Box<sqlx::Error>,
    },
    /// The copy of a SQLite file is damaged, which means that the file is.
    #[error("the SQLite file {} is damaged: {problem}", file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What its check says.
        problem: String,
    },
    /// Some of several databases failed; the others have their backups.
    #[error("{} of {of} databases failed: {failures}", failures.0.len())]
    Several {
        /// The databases that failed.
        failures: Failures,
        /// How many there are.
        of: usize,
    },
    /// The process was told to end.
    #[error("the backup was told to end; its unfinished file is removed")]
    Interrupted,
}

impl BackupError {
    /// Says whether a table was changed or dropped during the dump, so that another try may succeed.
    const fn is_table_changed(&self) -> bool {
        matches!(self, Self::Client { is_table_changed: true, .. })
    }
}

/// The databases of one backup that failed, and why.
#[derive(Debug)]
pub struct Failures(Vec<(String, BackupError)>);

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (database, error)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}{database}: {error}")?;
            let mut cause = std::error::Error::source(error);
            while let Some(next) = cause {
                write!(f, ": {next}")?;
                cause = next.source();
            }
        }
        Ok(())
    }
}

/// Backs up what the parameters name.
///
/// # Errors
/// Where a database has no new, verified backup at the end. Where there are several, the others have theirs.
pub async fn run(with: BackupWith, ctx: &Context) -> Result<Report, BackupError> {
    let plan = Plan::try_from(with)
        .map_err(|misfit| BackupError::With { path: misfit.path, problem: misfit.problem })?;
    // Ordered: who tells the process to end shall not wait for the next chunk of a dump.
    tokio::select! {
        biased;
        () = terminated() => Err(BackupError::Interrupted),
        report = Box::pin(back_up(&plan, ctx)) => report,
    }
}

async fn back_up(plan: &Plan, ctx: &Context) -> Result<Report, BackupError> {
    let connection =
        ctx.connection(&plan.connection).map_err(|_| BackupError::Connection(plan.connection.clone()))?;
    let settings = Settings::read(&ctx.settings)?;
    let target = folder::target(plan, &settings, &ctx.state_dir)?;
    let started = tokio::time::Instant::now();
    let saved = match tool(plan, connection)? {
        BackupTool::Mysqldump => {
            dump::back_up(&dump::Order { plan, ctx, connection, target: &target }, &settings).await?
        }
        BackupTool::Sqlite => vec![sqlite::back_up(plan, ctx, connection, &target).await?],
    };
    Ok(Report::done(values::values(&saved, started.elapsed(), ctx)))
}

/// Returns the tool for a connection; one that is asked for must fit.
fn tool(plan: &Plan, connection: &ResolvedConnection) -> Result<BackupTool, BackupError> {
    let fitting = match connection.engine.as_str() {
        "mysql" => BackupTool::Mysqldump,
        "sqlite" => BackupTool::Sqlite,
        _ => {
            let (connection, engine) = (plan.connection.clone(), connection.engine.clone());
            return Err(BackupError::Engine { connection, engine });
        }
    };
    match plan.tool {
        Some(asked) if asked != fitting => Err(BackupError::With {
            path: "engine",
            problem: format!("connection {:?} leads to {}", plan.connection, connection.engine),
        }),
        _ => Ok(fitting),
    }
}

impl Settings {
    fn read(value: &Value) -> Result<Self, BackupError> {
        match value {
            Value::Null => Ok(Self::default()),
            value => Self::deserialize(value).map_err(BackupError::Settings),
        }
    }
}

/// Waits until the process is told to end. Dropping the work then removes its files and kills its child.
async fn terminated() {
    match signal(SignalKind::terminate()) {
        Ok(mut signals) => {
            signals.recv().await;
        }
        // Without a handler the signal ends the process at once, which is as good for older backups.
        Err(_) => std::future::pending().await,
    }
}

/// Returns the time that stands in the names and manifests of backups.
#[expect(
    clippy::disallowed_methods,
    reason = "when a backup was made is a fact of its own process, not a decision of the core"
)]
fn now() -> DateTime<Utc> {
    Utc::now()
}

/// A backup of one database that was made.
#[derive(Debug)]
struct Saved {
    database: Database,
    file: PathBuf,
    manifest: manifest::Manifest,
    deleted: usize,
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use millrace_common::{
        connection::{Connection, Engine},
        secret::Secret,
    };
    use serde_json::json;

    use super::*;

    fn launch(with: &Value, root: &std::path::Path) -> Result<Launch, LaunchError> {
        let mes = Connection {
            engine: Engine::Mysql,
            host: "db".into(),
            port: None,
            user: "etl".into(),
            password: Some(Secret::new("s3cret".into())),
            password_file: None,
            database: "mes".into(),
            path: None,
        };
        let connections = Arc::new(BTreeMap::from([("mes".parse().expect("a name"), mes)]));
        let site = Site { connections, state_dir: root.to_owned(), ..Site::default() };
        let attempt = "018f2f5e-0000-7000-8000-000000000000.0.1".parse().expect("an attempt id");
        Backup.launch(&Work { attempt, with, work_dir: root.to_owned() }, &site)
    }

    #[test]
    fn parameters_are_checked_before_a_process_is_started() {
        let folder = tempfile::tempdir().expect("a folder");
        for (with, path) in [
            (json!({ "connection": "mes", "databases": "mes" }), "with.databases"),
            (json!({ "connection": "mes", "databases": ["-x"] }), "with.databases"),
            (json!({ "connection": "mes", "target": "here" }), "with.target"),
            (json!({ "connection": "mes", "retention": { "daily": -1 } }), "with.retention.daily"),
        ] {
            let error = launch(&with, folder.path()).expect_err("a misfit").to_string();
            assert!(error.contains(&format!("`{path}` is not what kind backup takes")), "{error}");
        }
        let error = launch(&json!({ "connection": "erp" }), folder.path()).expect_err("no such connection");
        assert!(matches!(error, LaunchError::UnknownConnection(ref name) if name == "erp"), "{error}");
    }

    #[test]
    fn a_launch_carries_the_connection_on_standard_input() {
        let folder = tempfile::tempdir().expect("a folder");
        let launch =
            launch(&json!({ "connection": "mes", "databases": "all" }), folder.path()).expect("a command");
        assert!(String::from_utf8_lossy(&launch.stdin).contains("s3cret"));
        assert!(!format!("{:?} {:?}", launch.argv, launch.env).contains("s3cret"));
    }

    #[test]
    fn a_tool_must_fit_the_connection() {
        let plan = |engine: Value| {
            let with = json!({ "connection": "mes", "engine": engine });
            Plan::try_from(serde_json::from_value::<BackupWith>(with).expect("parameters")).expect("a plan")
        };
        let connection = |engine: &str| ResolvedConnection {
            engine: engine.into(),
            host: String::new(),
            port: None,
            user: String::new(),
            password: Secret::default(),
            database: String::new(),
            path: None,
        };
        assert_eq!(tool(&plan(Value::Null), &connection("mysql")).expect("a tool"), BackupTool::Mysqldump);
        assert_eq!(tool(&plan(json!("sqlite")), &connection("sqlite")).expect("a tool"), BackupTool::Sqlite);
        assert!(matches!(
            tool(&plan(json!("sqlite")), &connection("mysql")),
            Err(BackupError::With { path: "engine", .. })
        ));
        assert!(matches!(tool(&plan(Value::Null), &connection("ftp")), Err(BackupError::Engine { .. })));
    }
}

//! The `datax` kind: runs DataX job files.
//!
//! A job whose plugins are all native runs in this process by [`millrace_transfer`]; any other is handed to the DataX that
//! is installed on this machine. Either way the log has DataX's lines, and the same values come out: `read_records`,
//! `written_records`, `failed_records`, `bytes`, `seconds`, `speed` (bytes a second), `engine` (`native` or `external`),
//! and `error_code` after a failure.
//!
//! Unlike DataX itself, a job that lost records fails, unless its `errorLimit` or the task says that it may lose them.

mod external;
mod installation;
mod job;
mod lost;

use std::{collections::BTreeMap, ffi::OsString, io, path::PathBuf};

use millrace_common::kind::datax::{DataxWith, Native, Words};
use millrace_transfer::{Foreign, Job, JobError, Options, Parsed, Statistics, TransferError};
use serde_json::{Map, Value, json};
use thiserror::Error;

pub use self::installation::{Installation, Start};
use self::{
    external::{Ended, Logs},
    installation::Invocation,
    job::{JobFile, is_param_name, params},
    lost::Tolerance,
};
use crate::{
    builtin,
    launch::{Kind, Launch, LaunchError, Misfit, Misfits, Site, Work},
    report::Report,
    run::Context,
};

/// Name of the kind.
pub const KIND: &str = "datax";
/// The value `engine` of a transfer in this process.
const NATIVE: &str = "native";
/// The value `engine` of a transfer by the installed DataX.
const EXTERNAL: &str = "external";

/// Runs DataX job files.
#[derive(Debug, Clone, Copy, Default)]
pub struct Datax;

impl Kind for Datax {
    fn launch(&self, work: &Work<'_>, site: &Site) -> Result<Launch, LaunchError> {
        let with: DataxWith = builtin::parameters(KIND, work.with)?;
        let misfits = misfits(&with);
        if !misfits.is_empty() {
            return Err(LaunchError::Misfits { kind: KIND.to_owned(), misfits: Misfits(misfits) });
        }
        let settings =
            serde_json::to_value(&site.datax).map_err(|error| LaunchError::Prepare(error.into()))?;
        builtin::launch(KIND, &[], work, site, settings)
    }
}

fn misfits(with: &DataxWith) -> Vec<Misfit> {
    let mut misfits = Vec::new();
    match (&with.job, &with.content) {
        (None, None) => misfits.push(Misfit::new(
            "job",
            "is missing: give the path of a job file, or the job itself as `content`",
        )),
        (Some(_), Some(_)) => misfits.push(Misfit::new("content", "stands beside `job`: keep one of them")),
        (Some(job), None) if job.is_empty() || job.contains('\0') => {
            misfits.push(Misfit::new("job", "is not the path of a file"));
        }
        _ => {}
    }
    for (name, value) in &with.params {
        let path = format!("params.{name}");
        if !is_param_name(name) {
            misfits.push(Misfit::new(&path, "the name of a parameter is made of A-Z, a-z, 0-9 and '_'"));
        }
        if value.to_string().contains('\0') {
            misfits.push(Misfit::new(&path, "contains a NUL character"));
        }
    }
    if with.jvm.as_ref().is_some_and(|jvm| jvm.to_list().iter().any(|word| word.contains('\0'))) {
        misfits.push(Misfit::new("jvm", "contains a NUL character"));
    }
    misfits
}

/// Why a transfer failed.
#[derive(Debug, Error)]
pub enum DataxError {
    /// The settings of the payload are not those of an installation.
    #[error("[datax] of the executor's configuration is not understood")]
    Settings(#[source] serde_json::Error),
    /// A relative path, and nothing it could be relative to.
    #[error(
        "job file {0:?} has a relative path, and this executor has no folder of job files: set `jobs_dir` in [datax] of its configuration, or give the absolute path"
    )]
    NoJobsDir(String),
    /// A path that leads out of the folder of job files.
    #[error("job file {job:?} is not below {jobs_dir}: leave out `..`, or give the absolute path")]
    Outside {
        /// The path as written.
        job: String,
        /// The folder.
        jobs_dir: PathBuf,
    },
    /// The job file could not be read.
    #[error("job file {path} cannot be read")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An inline job could not be written for an external DataX.
    #[error("cannot write {path}")]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The job file is wrong.
    #[error("job file {job} cannot be run")]
    Job {
        /// Which.
        job: String,
        /// What is wrong with it.
        #[source]
        source: JobError,
    },
    /// `native: always`, and the job needs an external DataX.
    #[error("{reader} to {writer} does not run natively ({}), and `native: always` allows nothing else", why.join("; "))]
    NotNative {
        /// The reader.
        reader: String,
        /// The writer.
        writer: String,
        /// Everything that cannot be done natively.
        why: Vec<String>,
    },
    /// An external DataX is needed and there is none.
    #[error(
        "{why}, and this executor has no DataX: unpack DataX there and set `home` in [datax] of its configuration, or choose an executor that has one"
    )]
    Missing {
        /// What needs it.
        why: String,
    },
    /// What is configured as DataX's folder is none.
    #[error(
        "there is no DataX in {0}: it has no folder `lib`; correct `home` in [datax] of the executor's configuration"
    )]
    NotInstalled(PathBuf),
    /// A text that would reach a shell through DataX's starter and means something there.
    #[error(
        "{what} contains {letter:?}, which DataX's starter would hand to a shell; set `start = {{ java = ... }}` in [datax] of the executor's configuration to start Java directly"
    )]
    ShellText {
        /// Where it stands.
        what: &'static str,
        /// The character.
        letter: char,
    },
    /// An argv without a program.
    #[error("the configuration names no program to start DataX with")]
    NoProgram,
    /// The program that runs DataX could not be started.
    #[error("cannot start {program}; check `start` in [datax] of the executor's configuration")]
    Start {
        /// Which.
        program: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The output of DataX could not be copied to the log; DataX was ended.
    #[error("cannot copy the output of DataX to the log")]
    Output(#[source] io::Error),
    /// The native engine failed.
    #[error("the transfer failed")]
    Transfer {
        /// Why.
        #[source]
        source: TransferError,
        /// What is known of its work.
        values: Box<Map<String, Value>>,
    },
    /// An external DataX failed.
    #[error("{reason}")]
    Failed {
        /// What it said.
        reason: String,
        /// What is known of its work.
        values: Box<Map<String, Value>>,
    },
    /// Records were lost.
    #[error("{failed} of {read} records failed: {rule}")]
    Lost {
        /// How many.
        failed: u64,
        /// Of how many.
        read: u64,
        /// Which rule that breaks.
        rule: String,
        /// What is known of the work.
        values: Box<Map<String, Value>>,
    },
    /// `allow_failed_records` could not be checked.
    #[error(
        "DataX did not say how many records failed, so `allow_failed_records` cannot be checked; see that its conf/logback.xml writes to the console at level INFO"
    )]
    Uncounted,
}

impl DataxError {
    /// Returns what is known of the work that failed.
    #[must_use]
    pub fn values(&self) -> Option<&Map<String, Value>> {
        match self {
            Self::Transfer { values, .. } | Self::Failed { values, .. } | Self::Lost { values, .. } => {
                Some(values)
            }
            _ => None,
        }
    }
}

/// Runs the transfer that the parameters describe.
///
/// # Errors
/// Where the job cannot be run here, fails, or loses more records than it may.
pub async fn run(with: DataxWith, context: &Context) -> Result<Report, DataxError> {
    let installation: Option<Installation> =
        serde_json::from_value(context.settings.clone()).map_err(DataxError::Settings)?;
    let installation = installation.unwrap_or_default();
    let file = JobFile::read(&with, &installation)?;
    let params = params(&with);
    let tolerance = Tolerance::new(with.allow_failed_records, &file.text);
    let (engine, statistics) = match choose(with.native, &file, &params)? {
        Choice::Native(job) => (NATIVE, Some(run_native(&job).await?)),
        Choice::External(why) => {
            context.log(format_args!("runs by the installed DataX: {why}"));
            let home = home(&installation, why)?;
            let path = file.path(&context.work_dir)?;
            let jvm = with.jvm.as_ref().map(Words::to_list).unwrap_or_default();
            let invocation = Invocation { job: &path, params: &params, jvm: &jvm, log_level: with.log_level };
            (EXTERNAL, run_external(&installation, &installation.argv(&home, &invocation)?, context).await?)
        }
    };
    let values = values(engine, statistics.as_ref());
    check_lost(tolerance, statistics.as_ref(), &values)?;
    Ok(Report::done(values))
}

/// Who runs a job.
enum Choice {
    Native(Box<Job>),
    /// And why not natively.
    External(String),
}

fn choose(native: Native, file: &JobFile, params: &BTreeMap<String, String>) -> Result<Choice, DataxError> {
    if native == Native::Never {
        return Ok(Choice::External("`native: never` asks for it".to_owned()));
    }
    let parsed =
        Job::parse(&file.text, params).map_err(|source| DataxError::Job { job: file.name(), source })?;
    match (parsed, native) {
        (Parsed::Native(job), _) => Ok(Choice::Native(job)),
        (Parsed::Foreign(Foreign { reader, writer, why }), Native::Always) => {
            Err(DataxError::NotNative { reader, writer, why })
        }
        (Parsed::Foreign(Foreign { reader, writer, why }), _) => {
            Ok(Choice::External(format!("{reader} to {writer} does not run natively ({})", why.join("; "))))
        }
    }
}

async fn run_native(job: &Job) -> Result<Statistics, DataxError> {
    let result = millrace_transfer::run(job, &Options::default(), &mut io::stdout()).await;
    result.map_err(|source| {
        let values = failure_values(NATIVE, source.statistics(), source.code());
        DataxError::Transfer { source, values: Box::new(values) }
    })
}

fn home(installation: &Installation, why: String) -> Result<PathBuf, DataxError> {
    let home = installation.home.clone().ok_or(DataxError::Missing { why })?;
    if home.join("lib").is_dir() { Ok(home) } else { Err(DataxError::NotInstalled(home)) }
}

/// Runs an external DataX; absent where it succeeded without saying what it did.
async fn run_external(
    installation: &Installation,
    argv: &[OsString],
    context: &Context,
) -> Result<Option<Statistics>, DataxError> {
    let logs = Logs { out: &mut io::stdout(), err: &mut io::stderr() };
    let start = external::Start { argv, env: &installation.env, cwd: &context.work_dir };
    let ended = external::run(&start, logs).await?;
    if ended.is_success() {
        if ended.summary.statistics.is_none() {
            context.log("DataX succeeded without saying how many records it moved");
        }
        return Ok(ended.summary.statistics);
    }
    Err(failed(&ended))
}

fn failed(ended: &Ended) -> DataxError {
    let values = failure_values(EXTERNAL, ended.summary.statistics.as_ref(), &ended.error_code());
    DataxError::Failed { reason: ended.reason(), values: Box::new(values) }
}

fn failure_values(engine: &str, statistics: Option<&Statistics>, code: &str) -> Map<String, Value> {
    let mut values = values(engine, statistics);
    values.insert("error_code".to_owned(), code.into());
    values
}

fn values(engine: &str, statistics: Option<&Statistics>) -> Map<String, Value> {
    let mut values = Map::from_iter([("engine".to_owned(), engine.into())]);
    if let Some(statistics) = statistics {
        let counts = [
            ("read_records", statistics.read_records),
            ("written_records", statistics.written_records),
            ("failed_records", statistics.failed_records),
            ("bytes", statistics.read_bytes),
            ("seconds", statistics.seconds),
            ("speed", statistics.bytes_per_second),
        ];
        values.extend(counts.map(|(key, count)| (key.to_owned(), json!(count))));
    }
    values
}

fn check_lost(
    tolerance: Tolerance,
    statistics: Option<&Statistics>,
    values: &Map<String, Value>,
) -> Result<(), DataxError> {
    let Some(statistics) = statistics else {
        return if tolerance.needs_count() { Err(DataxError::Uncounted) } else { Ok(()) };
    };
    let Some(allowed) = tolerance.records().filter(|allowed| statistics.failed_records > *allowed) else {
        return Ok(());
    };
    let rule = match tolerance {
        Tolerance::Unsaid => {
            "neither `allow_failed_records` nor the job's `errorLimit` says that they may".to_owned()
        }
        Tolerance::Job | Tolerance::AtMost(_) => format!("`allow_failed_records` lets {allowed} fail"),
    };
    let mut values = Box::new(values.clone());
    values.insert("error_code".to_owned(), "failed_records".into());
    Err(DataxError::Lost { failed: statistics.failed_records, read: statistics.read_records, rule, values })
}

//! The job file of an attempt: found, read, and with its parameters.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Component, Path, PathBuf},
};

use millrace_common::kind::datax::DataxWith;
use serde_json::Value;

use super::{DataxError, Installation};

/// Bytes of a job file; those written by hand have a few thousand.
const JOB_BYTES_MAX: u64 = 4 << 20;
/// Name of the file that an inline job is written to for an external DataX.
const INLINE_FILE: &str = "job.json";

/// A job file: its text, and where it stands.
#[derive(Debug)]
pub(super) struct JobFile {
    /// What it holds.
    pub(super) text: String,
    path: Option<PathBuf>,
}

impl JobFile {
    /// Reads the file, or takes the text, that the parameters name.
    pub(super) fn read(with: &DataxWith, installation: &Installation) -> Result<Self, DataxError> {
        if let Some(content) = &with.content {
            return Ok(Self { text: Value::Object(content.clone()).to_string(), path: None });
        }
        let path = path(with.job.as_deref().unwrap_or_default(), installation)?;
        match read(&path) {
            Ok(text) => Ok(Self { text, path: Some(path) }),
            Err(source) => Err(DataxError::Read { path, source }),
        }
    }

    /// How the job is named in messages.
    pub(super) fn name(&self) -> String {
        self.path.as_ref().map_or_else(|| "`content`".to_owned(), |path| path.display().to_string())
    }

    /// The path of a file for an external DataX; an inline job is written to a file that only this account can read.
    pub(super) fn path(&self, work_dir: &Path) -> Result<PathBuf, DataxError> {
        if let Some(path) = &self.path {
            return Ok(path.clone());
        }
        let path = work_dir.join(INLINE_FILE);
        let written = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        match written.and_then(|mut file| file.write_all(self.text.as_bytes())) {
            Ok(()) => Ok(path),
            Err(source) => Err(DataxError::Write { path, source }),
        }
    }
}

fn path(job: &str, installation: &Installation) -> Result<PathBuf, DataxError> {
    let path = Path::new(job);
    if path.is_absolute() {
        return Ok(path.to_owned());
    }
    let jobs_dir = installation.jobs_dir.as_ref().ok_or_else(|| DataxError::NoJobsDir(job.to_owned()))?;
    if path.components().any(|component| component == Component::ParentDir) {
        return Err(DataxError::Outside { job: job.to_owned(), jobs_dir: jobs_dir.clone() });
    }
    Ok(jobs_dir.join(path))
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?.take(JOB_BYTES_MAX + 1).read_to_string(&mut text)?;
    if text.len() as u64 > JOB_BYTES_MAX {
        let problem = format!("it is longer than {JOB_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
    }
    Ok(text)
}

/// Returns the parameters as text.
pub(super) fn params(with: &DataxWith) -> BTreeMap<String, String> {
    with.params.iter().map(|(name, value)| (name.clone(), value.to_string())).collect()
}

/// Says whether a text can be the name in `$name`; DataX finds no other.
pub(super) fn is_param_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

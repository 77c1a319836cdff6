//! From what a leader sends to a command that can be started.
//!
//! Templates are rendered here, on the machine that runs the attempt, and the kind turns parameters into a command. What
//! does not work would not work a second time either, so such a failure is permanent.

use std::{
    collections::BTreeMap,
    env,
    ffi::{CString, NulError, OsStr, OsString},
    fs, io,
    os::unix::{ffi::OsStrExt as _, fs::PermissionsExt as _},
    path::{Path, PathBuf},
};

use millrace_common::{
    Value,
    id::NameError,
    template::{RenderError, Variables, render_value},
};
use millrace_kinds::{Launch, LaunchError, Registry, Site, Work};
use millrace_spawn::Program;
use nix::errno::Errno;
use serde_json::Map;
use thiserror::Error;

use super::workspace::Workspace;
use crate::{
    ledger::{Rejection, Start},
    procfs::{ATTEMPT_VARIABLE, VALUES_VARIABLE},
};

/// Where programs are looked for if the executor itself was told nothing.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Name of the file for values in an attempt's folder.
const VALUES_FILE: &str = "values";

/// Why an attempt could not be started.
#[derive(Debug, Error)]
pub(crate) enum LaunchFailure {
    #[error("the parameters are not JSON")]
    With(#[source] serde_json::Error),
    #[error("the run's parameters are not a JSON object")]
    Params(#[source] serde_json::Error),
    #[error("the values of task {task} are not a JSON object")]
    Values {
        task: String,
        #[source]
        source: serde_json::Error,
    },
    #[error("{0:?} is no name")]
    Name(String, #[source] NameError),
    #[error("time zone {0:?} is not known on this executor")]
    Timezone(String),
    #[error(transparent)]
    Render(#[from] RenderError),
    #[error(transparent)]
    Kind(#[from] LaunchError),
    #[error("the kind gave no command")]
    NoCommand,
    #[error("program {0:?} is not found on this executor's PATH")]
    NotFound(OsString),
    #[error("cannot start {program:?}")]
    Spawn {
        program: OsString,
        #[source]
        source: io::Error,
    },
    #[error("cannot go to the folder that the attempt is to run in")]
    Folder(#[source] io::Error),
    #[error("an argument or a variable holds a zero byte")]
    Zero(#[from] NulError),
    #[error("cannot prepare the attempt")]
    Prepare(#[source] io::Error),
}

impl LaunchFailure {
    /// Returns what this machine lacked to start the attempt; absent where the attempt itself is at fault. Nothing of it ran.
    ///
    /// A program that is not there, or may not be run, is the attempt's fault: a slip in one workflow would otherwise send
    /// away one executor after the other.
    pub(crate) fn rejection(&self) -> Option<Rejection> {
        let (source, is_ours) = match self {
            Self::Prepare(source) | Self::Kind(LaunchError::Prepare(source)) => (source, true),
            Self::Spawn { source, .. } | Self::Folder(source) => (source, lacks_means(source)),
            _ => return None,
        };
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Some(Rejection::SpaceLow),
            _ => is_ours.then_some(Rejection::CannotStart),
        }
    }

    /// Tells whether a second try would fail the same way. A disk or a process table may have room again.
    pub(crate) fn is_permanent(&self) -> bool {
        match self {
            Self::Prepare(_) | Self::Kind(LaunchError::Prepare(_)) => false,
            Self::Spawn { source, .. } | Self::Folder(source) => matches!(
                source.kind(),
                io::ErrorKind::NotFound
                    | io::ErrorKind::PermissionDenied
                    | io::ErrorKind::NotADirectory
                    | io::ErrorKind::ArgumentListTooLong
                    | io::ErrorKind::InvalidInput
            ),
            _ => true,
        }
    }
}

/// Tells whether a machine was short of something, or broken, when it was to start a program.
fn lacks_means(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw);
    matches!(
        errno,
        Some(Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE | Errno::EIO | Errno::ENOBUFS)
    )
}

/// Turns starts into commands.
#[derive(Debug)]
pub(crate) struct Launcher {
    registry: Registry,
    site: Site,
    inherited: BTreeMap<&'static str, OsString>,
}

impl Launcher {
    pub(crate) fn new(registry: Registry, site: Site) -> Self {
        Self { registry, site, inherited: inherited() }
    }

    /// Makes the command of an attempt: what to run and how to read its exit code.
    pub(crate) fn launch(&self, start: &Start, workspace: &Workspace) -> Result<Launch, LaunchFailure> {
        let with: Value = serde_json::from_slice(&start.with).map_err(LaunchFailure::With)?;
        let with = if start.is_templated { render_value(&with, &variables(start)?)? } else { with };
        let work = Work { attempt: start.attempt, with: &with, work_dir: workspace.dir.clone() };
        let launch = self.registry.get(&start.kind)?.launch(&work, &self.site)?;
        if launch.argv.is_empty() { Err(LaunchFailure::NoCommand) } else { Ok(launch) }
    }

    /// Makes the program of a command, as the supervisor starts it.
    pub(crate) fn program(
        &self,
        start: &Start,
        launch: &Launch,
        workspace: &Workspace,
    ) -> Result<Program, LaunchFailure> {
        let name = launch.argv.first().ok_or(LaunchFailure::NoCommand)?;
        let mut env: BTreeMap<&str, &OsStr> =
            self.inherited.iter().map(|(name, value)| (*name, value.as_os_str())).collect();
        env.extend(launch.env.iter().map(|(name, value)| (name.as_str(), OsStr::new(value))));
        let path = resolve(name, env.get("PATH").copied())?;
        let (marks, values) = (marks(start), values_file(&workspace.dir));
        env.extend(marks.iter().map(|(name, value)| (*name, OsStr::new(value))));
        env.insert(VALUES_VARIABLE, values.as_os_str());
        let cwd = launch.cwd.as_deref().unwrap_or(&workspace.dir);
        Ok(Program {
            path: text(path.as_os_str())?,
            argv: launch.argv.iter().map(|argument| text(argument)).collect::<Result<_, _>>()?,
            env: env.into_iter().map(|(name, value)| variable(name, value)).collect::<Result<_, _>>()?,
            cwd: text(cwd.as_os_str())?,
        })
    }
}

fn text(text: &OsStr) -> Result<CString, NulError> {
    CString::new(text.as_bytes())
}

fn variable(name: &str, value: &OsStr) -> Result<CString, NulError> {
    CString::new([name.as_bytes(), b"=", value.as_bytes()].concat())
}

/// Returns where an attempt puts values for later tasks.
pub(crate) fn values_file(dir: &Path) -> PathBuf {
    dir.join(VALUES_FILE)
}

fn marks(start: &Start) -> [(&'static str, String); 8] {
    let attempt = start.attempt.to_string();
    [
        ("MILLRACE_RUN_ID", start.attempt.instance.run.to_string()),
        ("MILLRACE_WORKFLOW", start.workflow.clone()),
        ("MILLRACE_TASK", start.task.clone()),
        // The number of the attempt grows with each try of the task instance: what a resource should compare.
        ("MILLRACE_FENCE_TOKEN", attempt.clone()),
        (ATTEMPT_VARIABLE, attempt),
        ("MILLRACE_LOGICAL_DATE", start.interval.start.to_string()),
        ("MILLRACE_DATA_INTERVAL_START", start.interval.start.to_string()),
        ("MILLRACE_DATA_INTERVAL_END", start.interval.end.to_string()),
    ]
}

#[expect(clippy::disallowed_methods, reason = "these three are handed on to attempts, not read as settings")]
fn inherited() -> BTreeMap<&'static str, OsString> {
    let defaults = [("PATH", PATH_DEFAULT), ("HOME", "/"), ("LANG", "C.UTF-8")];
    defaults.map(|(name, default)| (name, env::var_os(name).unwrap_or_else(|| default.into()))).into()
}

fn variables(start: &Start) -> Result<Variables, LaunchFailure> {
    fn name<T: std::str::FromStr<Err = NameError>>(text: &str) -> Result<T, LaunchFailure> {
        text.parse().map_err(|error| LaunchFailure::Name(text.to_owned(), error))
    }
    let attempt = start.attempt;
    let mut variables = Variables::new(
        attempt.instance.run,
        name(&start.workflow)?,
        name(&start.task)?,
        attempt.number,
        start.interval,
    );
    variables.timezone =
        start.timezone.parse().map_err(|_| LaunchFailure::Timezone(start.timezone.clone()))?;
    variables.params = object(&start.params).map_err(LaunchFailure::Params)?;
    for (task, values) in &start.values {
        let values = object(values).map_err(|source| LaunchFailure::Values { task: task.clone(), source })?;
        variables.values.insert(name(task)?, values);
    }
    Ok(variables)
}

fn object(text: &str) -> Result<Map<String, Value>, serde_json::Error> {
    if text.is_empty() { Ok(Map::new()) } else { serde_json::from_str(text) }
}

/// Finds a program. The standard library would search too, but then takes the slow way of starting it.
fn resolve(program: &OsStr, path: Option<&OsStr>) -> Result<PathBuf, LaunchFailure> {
    if program.as_encoded_bytes().contains(&b'/') {
        return Ok(PathBuf::from(program));
    }
    let is_executable = |file: &PathBuf| {
        fs::metadata(file).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    env::split_paths(path.unwrap_or(OsStr::new(PATH_DEFAULT)))
        .map(|folder| folder.join(program))
        .filter(|file| file.is_absolute())
        .find(is_executable)
        .ok_or_else(|| LaunchFailure::NotFound(program.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_machine_lacks_is_not_the_fault_of_the_attempt() {
        let spawn = |errno: Errno| LaunchFailure::Spawn { program: "x".into(), source: errno.into() };
        for errno in [Errno::EAGAIN, Errno::ENOMEM, Errno::EMFILE] {
            assert_eq!(spawn(errno).rejection(), Some(Rejection::CannotStart), "{errno}");
            assert_eq!(LaunchFailure::Prepare(errno.into()).rejection(), Some(Rejection::CannotStart));
        }
        assert_eq!(spawn(Errno::ENOSPC).rejection(), Some(Rejection::SpaceLow));
        for errno in [Errno::ENOENT, Errno::EACCES, Errno::ENOEXEC, Errno::E2BIG, Errno::ELOOP] {
            assert_eq!(spawn(errno).rejection(), None, "{errno}");
        }
        assert_eq!(LaunchFailure::Folder(Errno::ENOENT.into()).rejection(), None);
        assert_eq!(LaunchFailure::NoCommand.rejection(), None);
    }

    #[test]
    fn programs_are_found_on_the_path_and_nowhere_else() {
        let path = Some(OsStr::new("/usr/bin:/bin"));
        assert!(resolve(OsStr::new("sh"), path).unwrap().is_absolute());
        assert_eq!(resolve(OsStr::new("./x"), path).unwrap(), Path::new("./x"));
        let error = resolve(OsStr::new("no-such-program"), path).unwrap_err();
        assert!(error.is_permanent() && error.to_string().contains("no-such-program"), "{error}");
        assert!(resolve(OsStr::new("sh"), Some(OsStr::new("."))).is_err());
    }
}

//! From what a leader sends to a command that can be started.
//!
//! Templates are rendered here, on the machine that runs the attempt, and the kind turns parameters into a command. What
//! does not work would not work a second time either, so such a failure is permanent.

use std::{
    collections::BTreeMap,
    env,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Seek as _, Write as _},
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::PathBuf,
    process::{Command, Stdio},
};

use millrace_common::{
    Value,
    id::NameError,
    template::{RenderError, Variables, render_value},
};
use millrace_kinds::{Launch, LaunchError, Registry, Site, Work};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde_json::Map;
use thiserror::Error;

use super::{
    procfs::{ATTEMPT_VARIABLE, VALUES_VARIABLE},
    workspace::Workspace,
};
use crate::ledger::Start;

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
    #[error("cannot prepare the attempt")]
    Prepare(#[source] io::Error),
}

impl LaunchFailure {
    /// Tells whether the disk was too full; the attempt is not at fault, and nothing of it ran.
    pub(crate) fn is_for_space(&self) -> bool {
        let (Self::Prepare(source) | Self::Kind(LaunchError::Prepare(source)) | Self::Spawn { source, .. }) =
            self
        else {
            return false;
        };
        matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
    }

    /// Tells whether a second try would fail the same way. A disk or a process table may have room again.
    pub(crate) fn is_permanent(&self) -> bool {
        match self {
            Self::Prepare(_) | Self::Kind(LaunchError::Prepare(_)) => false,
            Self::Spawn { source, .. } => matches!(
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

/// Turns starts into commands.
#[derive(Debug)]
pub(crate) struct Launcher {
    registry: Registry,
    site: Site,
    inherited: BTreeMap<&'static str, OsString>,
    null: File,
}

impl Launcher {
    pub(crate) fn new(registry: Registry, site: Site) -> io::Result<Self> {
        let null = File::open("/dev/null")?;
        Ok(Self { registry, site, inherited: inherited(), null })
    }

    /// Makes the command of an attempt: what to run and how to read its exit code.
    pub(crate) fn launch(&self, start: &Start, workspace: &Workspace) -> Result<Launch, LaunchFailure> {
        let with: Value = serde_json::from_slice(&start.with).map_err(LaunchFailure::With)?;
        let with = if start.is_templated { render_value(&with, &variables(start)?)? } else { with };
        let work = Work { attempt: start.attempt, with: &with, work_dir: workspace.dir.clone() };
        let launch = self.registry.get(&start.kind)?.launch(&work, &self.site)?;
        if launch.argv.is_empty() { Err(LaunchFailure::NoCommand) } else { Ok(launch) }
    }

    /// Makes the command ready to be started. No hook runs in the child, so that the system's fast way of starting a
    /// process is taken, whatever the size of this one.
    pub(crate) fn command(
        &self,
        start: &Start,
        launch: &Launch,
        workspace: &Workspace,
    ) -> Result<Command, LaunchFailure> {
        let Some((program, arguments)) = launch.argv.split_first() else {
            return Err(LaunchFailure::NoCommand);
        };
        let path =
            launch.env.get("PATH").map(OsStr::new).or(self.inherited.get("PATH").map(OsString::as_os_str));
        let mut command = Command::new(resolve(program, path)?);
        command.arg0(program).args(arguments).env_clear();
        command.envs(&self.inherited).envs(&launch.env);
        for (name, value) in marks(start) {
            command.env(name, value);
        }
        command.env(VALUES_VARIABLE, values_file(workspace));
        command.current_dir(launch.cwd.as_deref().unwrap_or(&workspace.dir)).process_group(0);
        self.connect(&mut command, &launch.stdin, workspace).map_err(LaunchFailure::Prepare)?;
        Ok(command)
    }

    fn connect(&self, command: &mut Command, stdin: &[u8], workspace: &Workspace) -> io::Result<()> {
        let input = if stdin.is_empty() { self.null.try_clone()? } else { in_memory(stdin)? };
        command.stdin(Stdio::from(input));
        command.stdout(Stdio::from(workspace.log.try_clone()?));
        command.stderr(Stdio::from(workspace.log.try_clone()?));
        Ok(())
    }
}

/// Returns where an attempt puts values for later tasks.
pub(crate) fn values_file(workspace: &Workspace) -> PathBuf {
    workspace.dir.join(VALUES_FILE)
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

/// Makes a file that exists in memory only, for parameters that may hold secrets.
fn in_memory(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create(c"stdin", MFdFlags::MFD_CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

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

//! From checked parameters to a command: the one small trait that every kind implements.

use std::{collections::BTreeMap, ffi::OsString, fmt, path::PathBuf, sync::Arc};

use millrace_common::{connection::Connections, id::AttemptId, secret::Secret};
use serde_json::Value;
use thiserror::Error;

/// What the executor's machine offers to kinds; made once from its configuration.
#[derive(Debug, Clone, Default)]
pub struct Site {
    /// The program that runs built-in kinds with the sub-command `run-kind`; the executor's own binary.
    pub program: PathBuf,
    /// Connections that definitions refer to by name.
    pub connections: Arc<Connections>,
    /// A folder that kinds keep state in from one attempt to the next.
    pub state_dir: PathBuf,
    /// Where an external DataX is installed and how it is started.
    pub datax: Option<crate::datax::Installation>,
    /// What this machine sets for all backups.
    pub backup: crate::backup::Settings,
}

/// What one attempt gives its kind.
#[derive(Debug)]
pub struct Work<'a> {
    /// Its id; also the fencing token.
    pub attempt: AttemptId,
    /// Parameters, templates rendered.
    pub with: &'a Value,
    /// A private folder of the attempt; exists, empty, removed after the attempt.
    pub work_dir: PathBuf,
}

/// A command to start, complete: nothing is inherited but what stands here.
#[derive(Clone, Default)]
pub struct Launch {
    /// Program and arguments; never empty.
    pub argv: Vec<OsString>,
    /// The whole environment beside the variables that the runner adds (`PATH`, `HOME`, `LANG`, `MILLRACE_*`).
    pub env: BTreeMap<String, String>,
    /// Folder to run in; the attempt's private one where absent.
    pub cwd: Option<PathBuf>,
    /// What stands on standard input; kept in memory only.
    pub stdin: Vec<u8>,
    /// How the exit code of the process is read.
    pub exit: ExitCodes,
    /// Texts to mask in the output.
    pub secrets: Vec<Secret>,
}

/// Standard input and the values of the environment may hold secrets, so their sizes and names are shown.
impl fmt::Debug for Launch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Launch")
            .field("argv", &self.argv)
            .field("env", &self.env.keys())
            .field("cwd", &self.cwd)
            .field("stdin_bytes", &self.stdin.len())
            .field("exit", &self.exit)
            .field("secrets", &self.secrets.len())
            .finish()
    }
}

/// How an exit code is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitCodes {
    /// Codes that mean success.
    pub success: Vec<i32>,
    /// Codes that mean "nothing to do": the task becomes `skipped`.
    pub skip: Vec<i32>,
}

impl Default for ExitCodes {
    fn default() -> Self {
        Self { success: vec![0], skip: Vec::new() }
    }
}

/// A parameter that does not hold what it must.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfit {
    /// Its path below `with`, such as `env.PATH` or `command[1]`; empty for the whole.
    pub path: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Misfit {
    /// Makes a misfit.
    #[must_use]
    pub fn new(path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { path: path.into(), problem: problem.into() }
    }
}

/// All misfits of a set of parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Misfits(pub Vec<Misfit>);

impl fmt::Display for Misfits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, misfit) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "; " };
            let path = if misfit.path.is_empty() { "the whole" } else { &misfit.path };
            write!(f, "{separator}`{path}` {}", misfit.problem)?;
        }
        Ok(())
    }
}

fn shown(path: &str) -> String {
    if path.is_empty() { "with".to_owned() } else { format!("with.{path}") }
}

/// Why parameters do not make a command. The attempt fails and is not tried again: it would fail the same way.
#[derive(Debug, Error)]
pub enum LaunchError {
    /// No kind of that name on this executor.
    #[error("this executor has no kind {kind:?}; it has {known}")]
    UnknownKind {
        /// The name asked for.
        kind: String,
        /// Those it has.
        known: String,
    },
    /// The parameters do not have the shape that the kind asks for.
    #[error("`{}` is not what kind {kind} takes: {problem}", shown(path))]
    With {
        /// The kind.
        kind: String,
        /// Path of the parameter.
        path: String,
        /// What is wrong.
        problem: String,
    },
    /// Several parameters do not hold what they must.
    #[error("the parameters are not what kind {kind} takes: {misfits}")]
    Misfits {
        /// The kind.
        kind: String,
        /// All that is wrong.
        misfits: Misfits,
    },
    /// A connection that the executor's configuration does not have.
    #[error(
        "connection {0:?} is not configured on this executor; add [connections.{0}] to its configuration"
    )]
    UnknownConnection(String),
    /// A connection's password file could not be read.
    #[error("the password file of connection {name:?} cannot be read")]
    Password {
        /// The connection.
        name: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file that the command needs could not be written.
    #[error("cannot prepare the attempt's folder")]
    Prepare(#[source] std::io::Error),
}

impl LaunchError {
    /// Makes the error of a parameter at `path` that is not what `kind` takes.
    #[must_use]
    pub fn misfit(kind: &str, path: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::With { kind: kind.to_owned(), path: path.into(), problem: problem.into() }
    }
}

/// A task kind.
pub trait Kind: Send + Sync + fmt::Debug {
    /// Turns parameters into a command.
    ///
    /// # Errors
    /// Where the parameters are not what the kind takes, or name what this machine does not have.
    fn launch(&self, work: &Work<'_>, site: &Site) -> Result<Launch, LaunchError>;
}

//! What the executor's runner does with a launch, as far as tests of kinds need it.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use millrace_kinds::{Kind, Launch, LaunchError, Site, Work};
use serde_json::Value;

/// Asks a kind for the command of an attempt whose folder is `work_dir`.
pub(crate) fn launch(kind: &dyn Kind, with: &Value, work_dir: &Path) -> Result<Launch, LaunchError> {
    let attempt = "018f2f5e-0000-7000-8000-000000000000.0.1".parse().unwrap();
    let site = Site { state_dir: work_dir.join("state"), ..Site::default() };
    kind.launch(&Work { attempt, with, work_dir: work_dir.to_owned() }, &site)
}

/// Starts a launch with its own environment and nothing else, and waits for its end.
pub(crate) fn start(launch: &Launch, work_dir: &Path) -> Output {
    let mut child = Command::new(&launch.argv[0])
        .args(&launch.argv[1..])
        .env_clear()
        .envs(&launch.env)
        .env("MILLRACE_VALUES", work_dir.join("values"))
        .current_dir(launch.cwd.as_deref().unwrap_or(work_dir))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(&launch.stdin).unwrap();
    child.wait_with_output().unwrap()
}

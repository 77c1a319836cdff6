//! The `shell` kind: the user's own command, or a script that a named interpreter runs from a file.
//!
//! No text is ever put together for a shell: a command is a list, and parameters of a script travel in the environment.
//! The environment starts empty, so that a task behaves the same on every executor.

use std::{ffi::OsString, fs, io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path};

use millrace_common::kind::shell::ShellWith;

use crate::{
    builtin, check,
    launch::{ExitCodes, Kind, Launch, LaunchError, Misfit, Misfits, Site, Work},
};

/// Name of the kind.
pub const KIND: &str = "shell";
/// Name of the script's file in the attempt's folder; hidden, so that a script that lists its folder finds its own files.
const SCRIPT_FILE: &str = ".millrace-script";
/// What runs a script that names no interpreter: stops at the first failure and at an unset variable.
const INTERPRETER: [&str; 2] = ["/bin/sh", "-eu"];

/// Runs a command or a script.
#[derive(Debug, Clone, Copy, Default)]
pub struct Shell;

impl Kind for Shell {
    fn launch(&self, work: &Work<'_>, _site: &Site) -> Result<Launch, LaunchError> {
        let with: ShellWith = builtin::parameters(KIND, work.with)?;
        let success = with.success_exit_codes.clone().unwrap_or_else(|| vec![0]);
        let misfits = misfits(&with, &success);
        if !misfits.is_empty() {
            return Err(LaunchError::Misfits { kind: KIND.to_owned(), misfits: Misfits(misfits) });
        }
        Ok(Launch {
            argv: argv(&with, &work.work_dir)?,
            env: with.env,
            cwd: with.cwd.map(Into::into),
            stdin: with.stdin.unwrap_or_default().into_bytes(),
            exit: ExitCodes { success, skip: with.skip_exit_codes },
            secrets: Vec::new(),
        })
    }
}

fn misfits(with: &ShellWith, success: &[i32]) -> Vec<Misfit> {
    let mut misfits = Vec::new();
    match (&with.command, &with.script) {
        (Some(command), None) => check::argv("command", command, &mut misfits),
        (None, Some(script)) if script.contains('\0') => {
            misfits.push(Misfit::new("script", "contains a NUL character"));
        }
        (None, Some(_)) => {}
        (Some(_), Some(_)) => {
            misfits.push(Misfit::new("script", "stands beside `command`: keep one of them"));
        }
        (None, None) => {
            misfits.push(Misfit::new("command", "is missing: give `command` (a list) or `script` (a text)"));
        }
    }
    match (&with.interpreter, &with.script) {
        (Some(interpreter), Some(_)) => check::argv("interpreter", interpreter, &mut misfits),
        (Some(_), None) => misfits.push(Misfit::new("interpreter", "needs a `script` to run")),
        (None, _) => {}
    }
    if success.is_empty() {
        misfits.push(Misfit::new("success_exit_codes", "is empty, so that nothing could succeed"));
    }
    check::env("env", &with.env, &mut misfits);
    check::exit_codes(success, &with.skip_exit_codes, &mut misfits);
    if let Some(cwd) = &with.cwd {
        check::folder("cwd", Path::new(cwd), &mut misfits);
    }
    misfits
}

fn argv(with: &ShellWith, work_dir: &Path) -> Result<Vec<OsString>, LaunchError> {
    let Some(script) = &with.script else {
        return Ok(with.command.iter().flatten().map(OsString::from).collect());
    };
    let file = work_dir.join(SCRIPT_FILE);
    write_script(&file, script).map_err(LaunchError::Prepare)?;
    let mut argv: Vec<OsString> = match &with.interpreter {
        Some(interpreter) => interpreter.iter().map(OsString::from).collect(),
        None => INTERPRETER.map(OsString::from).to_vec(),
    };
    argv.push(file.into_os_string());
    Ok(argv)
}

/// Writes a script that only this account can read; a file that is there already is not taken over.
fn write_script(file: &Path, script: &str) -> std::io::Result<()> {
    let mut out = fs::OpenOptions::new().write(true).create_new(true).mode(0o700).open(file)?;
    out.write_all(script.as_bytes())
}

//! Child processes: how they are started, and how their output is both shown and read.

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Command, ExitCode, ExitStatus, Stdio},
    thread,
};

use anyhow::{Context, Result};

/// Longest line of a child that is kept for reading, in bytes; longer ones are still shown in pieces.
const LINE_BYTES_MAX: u64 = 64 * 1024;

/// Beginnings of the variables by which `cargo run` tells a program about its own package.
const OWN_PACKAGE: [&str; 4] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];

/// Returns the top of the repository.
pub(crate) fn root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_path_buf()
}

/// Returns the folder of build output, which a person may have moved.
#[expect(clippy::disallowed_methods, reason = "cargo's own variable; there is no configuration here")]
pub(crate) fn target_dir() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Returns a cargo command at the top of the repository, by the cargo that runs this program.
#[expect(clippy::disallowed_methods, reason = "cargo's own variable; there is no configuration here")]
pub(crate) fn cargo(args: &[&str]) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root()).args(args);
    // Some build scripts (ring's) ask to be rerun when these change; `cargo run` sets them for this program, so that
    // a crate built by hand would be built again here, and the other way round.
    for (name, _) in env::vars_os() {
        if name.to_str().is_some_and(|name| OWN_PACKAGE.iter().any(|prefix| name.starts_with(prefix))) {
            command.env_remove(name);
        }
    }
    command
}

/// Returns whether a program of this name can be found on PATH.
#[expect(clippy::disallowed_methods, reason = "the shell's own variable; there is no configuration here")]
pub(crate) fn is_on_path(program: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Runs a command with this program's own input and output.
pub(crate) fn run(command: &mut Command) -> Result<ExitStatus> {
    announce(command);
    command.status().with_context(|| format!("cannot start {}", shown(command)))
}

/// Runs a command without input, shows its output as it comes, and returns its lines of both streams.
pub(crate) fn run_read(command: &mut Command) -> Result<(ExitStatus, Vec<String>)> {
    announce(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {}", shown(command)))?;
    let errors = child.stderr.take().map(|pipe| thread::spawn(move || tee(pipe, io::stderr())));
    let mut lines = child.stdout.take().map(|pipe| tee(pipe, io::stdout())).unwrap_or_default();
    if let Some(Ok(more)) = errors.map(thread::JoinHandle::join) {
        lines.extend(more);
    }
    let status = child.wait().with_context(|| format!("cannot wait for {}", shown(command)))?;
    Ok((status, lines))
}

/// Returns a child's exit code as this program's, with 1 where a signal ended it.
pub(crate) fn forward(status: ExitStatus) -> ExitCode {
    ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}

/// Returns a command as a person would type it.
pub(crate) fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let mut text = program.to_string_lossy().into_owned();
    for arg in command.get_args() {
        let arg = arg.to_string_lossy();
        text.push(' ');
        if arg.contains([' ', '(', '"', '*']) {
            text.push_str(&format!("'{arg}'"));
        } else {
            text.push_str(&arg);
        }
    }
    text
}

fn announce(command: &Command) {
    println!("$ {}", shown(command));
    // A pipe that nobody reads any more is no reason to stop testing.
    let _ = io::stdout().flush();
}

/// Copies a stream to another line by line, and returns the lines.
fn tee(from: impl Read, mut to: impl Write) -> Vec<String> {
    let mut reader = BufReader::new(from);
    let mut lines = Vec::new();
    loop {
        let mut line = Vec::new();
        match reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return lines,
            Ok(_) => {}
        }
        let _ = to.write_all(&line);
        let _ = to.flush();
        lines.push(String::from_utf8_lossy(&line).trim_end().to_string());
    }
}

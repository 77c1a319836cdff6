//! What comes in from outside: licences, banned crates, sources and known vulnerabilities, by cargo-deny.

use std::process::{Command, Stdio};

use anyhow::{Result, bail};

use crate::command::{cargo, is_on_path, root, run, run_read, target_dir};

/// The version that deny.toml is written for.
const CARGO_DENY: &str = "0.20.2";

/// What cargo-deny found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing that matters.
    Clean,
    /// Something that matters; it has been printed.
    Refused,
    /// Nothing that matters, but the advisories could not be asked, for this reason.
    WithoutAdvisories(String),
}

/// Checks the crates of the lock file against deny.toml.
pub(crate) fn check() -> Result<Verdict> {
    ensure_cargo_deny()?;
    // Two generations of a crate are a warning each, a page long in all; `cargo deny check bans` shows them.
    let checked = run(deny().args(["check", "-A", "duplicate", "licenses", "bans", "sources"]))?;
    if !checked.success() {
        return Ok(Verdict::Refused);
    }
    let (advised, lines) = run_read(deny().args(["check", "advisories"]))?;
    if advised.success() {
        return Ok(Verdict::Clean);
    }
    Ok(match unreachable_database(&lines) {
        Some(reason) => Verdict::WithoutAdvisories(reason),
        None => Verdict::Refused,
    })
}

/// Uses the cargo-deny on PATH, or builds one under the folder of build output: once, in about a minute.
fn ensure_cargo_deny() -> Result<()> {
    if deny()
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|got| got.success())
    {
        return Ok(());
    }
    let mut install =
        cargo(&["install", "cargo-deny", "--version", CARGO_DENY, "--locked", "--debug", "--root"]);
    if !run(install.arg(tools()))?.success() {
        bail!("cannot build cargo-deny {CARGO_DENY}; what cargo printed says why");
    }
    Ok(())
}

fn deny() -> Command {
    let program = if is_on_path("cargo-deny") { "cargo-deny".into() } else { tools().join("bin/cargo-deny") };
    let mut command = Command::new(program);
    command.arg("deny").current_dir(root());
    command
}

fn tools() -> std::path::PathBuf {
    target_dir().join("tools")
}

/// Returns why the database could not be fetched, where that is what went wrong.
fn unreachable_database(lines: &[String]) -> Option<String> {
    let failed = lines.iter().any(|line| line.contains("failed to fetch advisory database"));
    let reason = lines.iter().find(|line| line.starts_with("fatal: ")).map_or("no reason given", |line| line);
    failed
        .then(|| format!("the advisory database cannot be fetched: {}", reason.trim_start_matches("fatal: ")))
}

#[cfg(test)]
mod tests {
    use super::unreachable_database;

    #[test]
    fn a_database_out_of_reach_is_told_from_an_advisory() {
        let offline = [
            "[ERROR] failed to fetch advisory database https://example.org/db with cli: failed to clone"
                .to_string(),
            "fatal: unable to access 'https://example.org/db/': Could not resolve host: example.org"
                .to_string(),
        ];
        assert_eq!(
            unreachable_database(&offline).as_deref(),
            Some(
                "the advisory database cannot be fetched: \
                 unable to access 'https://example.org/db/': Could not resolve host: example.org"
            )
        );
        assert_eq!(
            unreachable_database(&["error[vulnerability]: use after free in example".to_string()]),
            None
        );
    }
}

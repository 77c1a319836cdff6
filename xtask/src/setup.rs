//! Installs what the tests need beside the Rust toolchain: database servers and small tools, from Debian's packages.
//!
//! No service of these packages is used: each test starts its own server on a free port in a temporary folder.

use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};

use crate::command::{is_on_path, run};

/// What the tests need, and what for.
const PACKAGES: [(&str, &str); 11] = [
    ("mariadb-server", "the store, backups and transfers against a real server"),
    ("mariadb-client", "dumps and restores of backups"),
    ("postgresql", "the store against a real server"),
    ("etcd-server", "elections of masters"),
    ("etcd-client", "looks into etcd, and harm done to it"),
    ("python3-pyftpdlib", "an FTP server to fetch from"),
    ("sqlite3", "a second opinion on database files"),
    ("procps", "a second opinion on processes"),
    ("iproute2", "the fault rig's machines: network namespaces"),
    ("nftables", "cuts, losses and resets of their links"),
    ("libfaketime", "another wall clock for one program"),
];

/// How the machine stands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Everything is here.
    Ready,
    /// The machine has no Debian packages; what is missing makes tests skip.
    Foreign,
    /// These packages are missing and only root can install them.
    NeedsRoot(Vec<&'static str>),
}

impl Outcome {
    /// Says how the machine stands and what to do, and returns the exit code.
    pub(crate) fn announce(&self) -> ExitCode {
        match self {
            Self::Ready => {
                println!("setup: everything that the tests need is installed");
                ExitCode::SUCCESS
            }
            Self::Foreign => {
                println!(
                    "setup: no dpkg-query here; install these by hand, or the tests that need them skip:"
                );
                for (package, purpose) in PACKAGES {
                    println!("  {package}: {purpose}");
                }
                ExitCode::FAILURE
            }
            Self::NeedsRoot(missing) => {
                println!("setup: packages are missing and only root can install them; run:");
                println!("  {}", as_root(missing));
                ExitCode::FAILURE
            }
        }
    }
}

/// Installs the packages that are missing, where this user may.
pub(crate) fn install() -> Result<Outcome> {
    if !is_on_path("dpkg-query") {
        return Ok(Outcome::Foreign);
    }
    let missing: Vec<&str> =
        PACKAGES.iter().map(|(package, _)| *package).filter(|package| !is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(Outcome::Ready);
    }
    if !is_root()? {
        return Ok(Outcome::NeedsRoot(missing));
    }
    // The lists of packages may be absent or name versions that have gone: fetched only when that shows.
    if !apt_install(&missing)? {
        if !run(&mut apt(&["update"]))?.success() {
            bail!("apt-get update failed; what it printed says why");
        }
        if !apt_install(&missing)? {
            bail!("cannot install {}; what apt-get printed says why", missing.join(", "));
        }
    }
    Ok(Outcome::Ready)
}

fn apt_install(packages: &[&str]) -> Result<bool> {
    Ok(run(apt(&["install", "-y", "--no-install-recommends"]).args(packages))?.success())
}

fn apt(args: &[&str]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null());
    command
}

fn as_root(missing: &[&str]) -> String {
    format!("sudo apt-get update && sudo apt-get install -y --no-install-recommends {}", missing.join(" "))
}

fn is_installed(package: &str) -> bool {
    Command::new("dpkg-query")
        .args(["-W", "-f", "${db:Status-Status}", package])
        .stderr(Stdio::null())
        .output()
        .is_ok_and(|output| output.stdout == b"installed")
}

fn is_root() -> Result<bool> {
    let output = Command::new("id").arg("-u").output().context("cannot ask `id -u` who this is")?;
    Ok(output.stdout.trim_ascii() == b"0")
}

#[cfg(test)]
mod tests {
    use super::{as_root, is_installed};

    #[test]
    fn a_person_is_told_the_command_to_run() {
        assert_eq!(
            as_root(&["sqlite3", "procps"]),
            "sudo apt-get update && sudo apt-get install -y --no-install-recommends sqlite3 procps"
        );
    }

    #[test]
    fn a_package_that_does_not_exist_is_not_installed() {
        assert!(!is_installed("millrace-no-such-package"));
    }
}

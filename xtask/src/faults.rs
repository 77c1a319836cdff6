//! `cargo xtask faults`: the fault rig over the programs of this checkout.

use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};

use crate::command::{self, cargo, forward, run};

/// The programs that the rig starts, and the rig itself.
const PROGRAMS: [&str; 6] =
    ["millrace-rig", "millrace-witness", "millrace-master", "millrace-executor", "masterctl", "millrace"];

/// The packages that they are in.
const PACKAGES: [&str; 5] =
    ["millrace-rig", "millrace-master", "millrace-executor", "millrace-masterctl", "millrace-standalone"];

/// Builds everything that the rig starts, and starts it.
pub(crate) fn run_rig(args: &[String]) -> Result<ExitCode> {
    let packages = PACKAGES.iter().flat_map(|package| ["-p", package]);
    let built = run(cargo(&["build"]).args(packages))?;
    if !built.success() {
        return Ok(forward(built));
    }
    run(&mut rig(args)?).map(forward)
}

/// Prepares the rig over programs that are built already.
pub(crate) fn rig(args: &[String]) -> Result<Command> {
    let folder = copy_programs()?;
    let mut rig = Command::new(folder.join("millrace-rig"));
    rig.current_dir(command::root()).args(["--commit", &commit()]).args(args);
    Ok(rig)
}

/// Copies the programs aside: the rig starts them again and again, and a build beside it would put others in their place.
fn copy_programs() -> Result<PathBuf> {
    let (from, to) = (command::target_dir().join("debug"), command::target_dir().join("rig/programs"));
    fs::create_dir_all(&to).with_context(|| format!("cannot make {}", to.display()))?;
    for program in PROGRAMS {
        // One that runs cannot be written over; its name can be given to another file.
        let half = to.join(format!("{program}.half"));
        fs::copy(from.join(program), &half)
            .and_then(|_| fs::rename(&half, to.join(program)))
            .with_context(|| format!("cannot copy {program} to {}", to.display()))?;
    }
    Ok(to)
}

/// Returns the commit of this checkout, with a mark where something in it was changed.
fn commit() -> String {
    let git =
        Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(command::root()).output();
    let text = git.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    text.map_or_else(|| "unknown".to_owned(), |text| String::from_utf8_lossy(&text).trim().to_owned())
}

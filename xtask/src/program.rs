//! Commands that hand over to one program of the workspace: the demo, the benchmarks, the simulation.

use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::command::{self, cargo, forward, run};

/// Builds the programs for speed and runs the demo with this terminal.
pub(crate) fn demo(keep: bool) -> Result<ExitCode> {
    let packages = ["-p", "millrace-standalone", "-p", "millrace-masterctl", "-p", "millrace-examples"];
    let built = run(cargo(&["build", "--release"]).args(packages))?;
    if !built.success() {
        return Ok(forward(built));
    }
    let mut demo = Command::new(command::target_dir().join("release/millrace"));
    demo.current_dir(command::root()).arg("demo");
    if keep {
        demo.arg("--keep");
    }
    run(&mut demo).map(forward)
}

/// Builds what is measured for speed, and the benchmarks, and runs them.
pub(crate) fn bench(args: &[String]) -> Result<ExitCode> {
    let packages: &[&str] = if args.iter().any(|arg| arg == "--cluster") {
        &["-p", "millrace-master", "-p", "millrace-executor", "-p", "millrace-standalone"]
    } else {
        &["-p", "millrace-standalone"]
    };
    let built = run(cargo(&["build", "--release"]).args(packages))?;
    if !built.success() {
        return Ok(forward(built));
    }
    run(cargo(&["run", "--release", "-p", "millrace-bench", "--"]).args(args)).map(forward)
}

/// Runs the simulation, or replays one seed with its output.
pub(crate) fn simulate(seeds: Option<u32>, seed: Option<u64>) -> Result<ExitCode> {
    let mut tests = if command::is_on_path("cargo-nextest") {
        cargo(&["nextest", "run", "-p", "millrace-simulation"])
    } else {
        cargo(&["test", "-p", "millrace-simulation"])
    };
    if let Some(seeds) = seeds {
        tests.env("MILLRACE_SIM_SEEDS", seeds.to_string());
    }
    if let Some(seed) = seed {
        tests.env("MILLRACE_SIM_SEED", seed.to_string());
        let shown = if command::is_on_path("cargo-nextest") {
            &["--no-capture"][..]
        } else {
            &["--", "--nocapture"][..]
        };
        tests.args(shown);
    }
    run(&mut tests).map(forward)
}

/// Reads a seed as printed by a failing test: decimal, or hexadecimal after `0x`.
pub(crate) fn parse_seed(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|error| format!("a seed is a number below 2^64, decimal or 0x hexadecimal: {error}"))
}

#[cfg(test)]
mod tests {
    use super::parse_seed;

    #[test]
    fn seeds_are_read_in_both_notations() {
        assert_eq!(parse_seed("12"), Ok(12));
        assert_eq!(parse_seed("0xff"), Ok(255));
        assert!(parse_seed("ff").is_err());
    }
}

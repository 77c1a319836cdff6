//! `cargo xtask`: the commands that people and CI run.
//!
//! It owns the order of the checks and how they are counted, and nothing else: each stage is a command that a person
//! could type. It depends on as little as possible, because it is built before anything can be tested.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people at a terminal")]

mod command;
mod count;
mod deny;
mod faults;
mod program;
mod setup;
mod stage;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "What people and CI run", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build the programs and run the demo: a master and an executor at work, in one terminal
    Demo {
        /// Leave it running until interrupted, to look around
        #[arg(long)]
        keep: bool,
    },
    /// Run every check, in order, up to the first stage that fails
    Test {
        /// Run this stage only; may be repeated
        #[arg(long, value_enum, value_name = "STAGE")]
        only: Vec<stage::Stage>,
    },
    /// Build and run the benchmarks: of one program, or with --cluster of masters, etcd, PostgreSQL and executors
    Bench {
        /// Passed on to the benchmark program; `cargo xtask bench -- --help` tells which works there are
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Run the simulation over many seeds, or replay one
    Sim {
        /// How many seeds to run
        #[arg(long, value_name = "N", conflicts_with = "seed")]
        seeds: Option<u32>,
        /// Replay this seed and print what happens
        #[arg(long, value_name = "S", value_parser = program::parse_seed)]
        seed: Option<u64>,
    },
    /// Build the programs and harm a cluster of them in network namespaces, as root
    Faults {
        /// Passed on to the rig: --only S01,S05, --selection, --list, --seed N, --out FILE
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Install what the tests need from the distribution's packages
    Setup,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Verb::Demo { keep } => program::demo(keep),
        Verb::Test { only } => stage::run(&only),
        Verb::Bench { args } => program::bench(&args),
        Verb::Sim { seeds, seed } => program::simulate(seeds, seed),
        Verb::Faults { args } => faults::run_rig(&args),
        Verb::Setup => setup::install().map(|outcome| outcome.announce()),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

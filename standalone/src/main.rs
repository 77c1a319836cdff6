//! `millrace`: master and executor in one process on embedded defaults.
//!
//! The two talk over the same loopback connection and the same protocol that separate machines use: there is one way a
//! task starts, not two.

mod config;
mod demo;
mod node;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use millrace_runtime::{Chain, shutdown, telemetry};

/// Exit codes, as `--help` shows them; those of a master, because there is one inside.
const EXIT_CODES: &str = "\
Exit codes:
  0   stopped as it was told to; the demo: every task succeeded
  1   it could not start, or could not go on serving; the demo: a task failed
  2   the command line or the settings are wrong
  70  an invariant is broken: a fault of this program
  75  it could no longer commit, or another master leads: to be started again";

/// Exit code where the settings are wrong; the same as for the command line.
const USAGE: u8 = 2;

/// Millrace in one process: a scheduler for data tasks with its own executor, on embedded defaults.
#[derive(Debug, Parser)]
#[command(version, about, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs until it is told to stop.
    Run {
        /// Settings in TOML, with the tables `master` and `executor`; environment variables such as
        /// MILLRACE_STANDALONE_MASTER__LISTEN go over it.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Folder of everything that is kept: database, token, spool, output.
        #[arg(long, value_name = "DIR", env = "MILLRACE_DATA")]
        data: Option<PathBuf>,
    },
    /// Runs the example workflow `nightly` on made-up input and shows how it goes.
    Demo {
        /// Folder for input and state; a new one below the system's temporary folder where absent.
        #[arg(long, value_name = "DIR")]
        data: Option<PathBuf>,
        /// Goes on after the run, so that it can be looked at.
        #[arg(long)]
        keep: bool,
    },
    /// Runs the work of a built-in task kind; called by the executor.
    #[command(hide = true)]
    RunKind,
}

fn main() -> ExitCode {
    // Before anything else: the supervisor of attempts has one thread.
    if millrace_executor::is_supervise() {
        return millrace_executor::supervise_main();
    }
    let ended = match Arguments::parse().command {
        // First and alone: an attempt's process needs nothing of what follows.
        Command::RunKind => run_kind(),
        Command::Run { config, data } => run(config.as_deref(), data),
        Command::Demo { data, keep } => demo(data, keep),
    };
    ended.unwrap_or_else(|error| {
        told(&Chain(error.as_ref()));
        ExitCode::from(millrace_master::exit_code(&error))
    })
}

fn run_kind() -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(millrace_executor::run_kind_main()))
}

fn demo(data: Option<PathBuf>, keep: bool) -> anyhow::Result<ExitCode> {
    telemetry::init("warn", telemetry::Format::Text)?;
    runtime()?.block_on(async {
        Box::pin(shutdown::run_until_signalled(|token| demo::run(data, keep, token))).await?
    })
}

fn run(file: Option<&std::path::Path>, data: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    telemetry::init("info", telemetry::Format::Text)?;
    let config = match config::load(file, data) {
        Ok(config) => config,
        Err(error) => {
            told(&Chain(error.as_ref()));
            return Ok(ExitCode::from(USAGE));
        }
    };
    runtime()?.block_on(async {
        Box::pin(shutdown::run_until_signalled(|token| Box::pin(node::run(config, token, |_| {})))).await?
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Says why the program ends. Not through the log, whose filter may hide it.
fn told(error: &dyn std::fmt::Display) {
    use std::io::Write as _;
    // Nobody can be told that standard error is gone.
    let _ = writeln!(std::io::stderr(), "error: {error}");
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

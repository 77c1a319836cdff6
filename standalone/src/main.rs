//! `millrace`: master and executor in one process on embedded defaults.
//!
//! The two talk over the same loopback connection and the same protocol that separate machines use: there is one way a
//! task starts, not two.

mod config;
mod demo;
mod node;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use millrace_runtime::{shutdown, telemetry};

/// Millrace in one process: a scheduler for data tasks with its own executor, on embedded defaults.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs until it is told to stop.
    Run {
        /// Settings in TOML, with the tables `master` and `executor`.
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

fn main() -> anyhow::Result<ExitCode> {
    match Arguments::parse().command {
        // First and alone: an attempt's process needs nothing of what follows.
        Command::RunKind => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(millrace_executor::run_kind_main()))
        }
        Command::Run { config, data } => run(config.as_deref(), data),
        Command::Demo { data, keep } => {
            telemetry::init("warn", telemetry::Format::Text)?;
            runtime()?.block_on(async {
                Box::pin(shutdown::run_until_signalled(|token| demo::run(data, keep, token))).await?
            })
        }
    }
}

fn run(file: Option<&std::path::Path>, data: Option<PathBuf>) -> anyhow::Result<ExitCode> {
    telemetry::init("info", telemetry::Format::Text)?;
    let config = config::load(file, data)?;
    runtime()?.block_on(async {
        Box::pin(shutdown::run_until_signalled(|token| Box::pin(node::run(config, token, |_| {})))).await?
    })?;
    Ok(ExitCode::SUCCESS)
}

fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

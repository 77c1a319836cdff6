//! The program `millrace-executor`.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use millrace_executor::{ExecutorConfig, is_run_kind, is_supervise, run_kind_main, supervise_main};
use millrace_runtime::{config, shutdown::run_until_signalled, telemetry};

/// Exit codes, as `--help` shows them.
const EXIT_CODES: &str = "\
Exit codes:
  0  stopped as it was told to
  1  it could not start, or could not go on: to be started again
  2  the command line or the settings are wrong";

/// Exit code where the settings are wrong; the same as for the command line.
const USAGE: u8 = 2;

/// Runs attempts on this machine for the masters that it is configured with.
#[derive(Debug, Parser)]
#[command(name = "millrace-executor", version, after_help = EXIT_CODES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the executor until it is told to stop by SIGTERM or SIGINT.
    Run {
        /// Configuration file; keys may also be set as MILLRACE_EXECUTOR_KEY or MILLRACE_EXECUTOR_TABLE__KEY in the environment.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Sets a key of the configuration, such as `slots=16`; wins over file and environment.
        #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_setting)]
        settings: Vec<(String, String)>,
    },
}

fn parse_setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it must be of the form KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

fn main() -> ExitCode {
    // First and without a runtime: the supervisor has one thread.
    if is_supervise() {
        return supervise_main();
    }
    run_program()
}

#[tokio::main]
async fn run_program() -> ExitCode {
    if is_run_kind() {
        return run_kind_main().await;
    }
    let config = match settings(Arguments::parse()) {
        Ok(config) => config,
        Err(error) => {
            told(&error);
            return ExitCode::from(USAGE);
        }
    };
    match run(config).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            told(&error);
            ExitCode::FAILURE
        }
    }
}

/// Says why the program ends. Not through the log, which may not be set up.
#[expect(clippy::print_stderr, reason = "the last words of a program that could not run")]
fn told(error: &anyhow::Error) {
    eprintln!("error: {error:#}");
}

/// Reads the settings and refuses those that are wrong, all at once.
fn settings(arguments: Arguments) -> anyhow::Result<ExecutorConfig> {
    let Command::Run { config, settings } = arguments.command;
    let flags: Vec<_> = settings.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
    let config: ExecutorConfig = config::load(config.as_deref(), "MILLRACE_EXECUTOR_", &flags)?;
    let problems: Vec<String> = config.problems().iter().map(ToString::to_string).collect();
    anyhow::ensure!(problems.is_empty(), "the settings are refused: {}", problems.join("; "));
    Ok(config)
}

async fn run(config: ExecutorConfig) -> anyhow::Result<()> {
    telemetry::init("info", config.log_format)?;
    run_until_signalled(|shutdown| millrace_executor::run(config, shutdown)).await?
}

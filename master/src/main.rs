//! `millrace-master`: a master as a program of its own.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use millrace_master::MasterConfig;
use millrace_runtime::{Chain, config, shutdown, telemetry};
use tokio::sync::oneshot;

/// Exit codes, as `--help` shows them.
const EXIT_CODES: &str = "\
Exit codes:
  0   stopped as it was told to
  1   it could not start, or could not go on serving
  2   the command line or the settings are wrong
  70  an invariant is broken: a fault of this program
  75  it led and leads no more (its lease or its term was lost, or it handed over): to be started again";

/// The Millrace master: leads, schedules and serves.
#[derive(Debug, Parser)]
#[command(version, about, after_help = EXIT_CODES)]
struct Arguments {
    /// Settings in TOML; environment variables MILLRACE_MASTER_<KEY> go over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Exit code where the settings are wrong; the same as for the command line.
const USAGE: u8 = 2;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    telemetry::init("info", telemetry::Format::Text)?;
    let config: MasterConfig = match config::load(arguments.config.as_deref(), "MILLRACE_MASTER_", &[]) {
        Ok(config) => config,
        Err(error) => return Ok(refused(&Chain(&error).to_string())),
    };
    let problems: Vec<String> = config.problems().iter().map(ToString::to_string).collect();
    if !problems.is_empty() {
        return Ok(refused(&problems.join("; ")));
    }
    let ended = shutdown::run_until_signalled(|token| async {
        let (ready, _) = oneshot::channel();
        millrace_master::run(config, token, ready).await
    })
    .await?;
    Ok(match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = %Chain(error.as_ref()), "the master ended");
            ExitCode::from(millrace_master::exit_code(&error))
        }
    })
}

fn refused(problem: &str) -> ExitCode {
    tracing::error!(error = problem, "the settings are refused");
    ExitCode::from(USAGE)
}

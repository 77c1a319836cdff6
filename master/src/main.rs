//! `millrace-master`: a master as a program of its own.

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use millrace_master::MasterConfig;
use millrace_runtime::{config, shutdown, telemetry};
use tokio::sync::oneshot;

/// The Millrace master: leads, schedules and serves.
#[derive(Debug, Parser)]
#[command(version, about)]
struct Arguments {
    /// Settings in TOML; environment variables MILLRACE_MASTER_<KEY> go over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    telemetry::init("info", telemetry::Format::Text)?;
    let config: MasterConfig = config::load(arguments.config.as_deref(), "MILLRACE_MASTER_", &[])?;
    shutdown::run_until_signalled(|token| async {
        let (ready, _) = oneshot::channel();
        millrace_master::run(config, token, ready).await
    })
    .await??;
    Ok(ExitCode::SUCCESS)
}

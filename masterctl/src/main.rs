//! `masterctl`: the command line of Millrace.

mod cli;
mod client;
mod command;
mod diagnose;
mod failure;
mod output;

use std::process::ExitCode;

use clap::Parser;

use crate::cli::Arguments;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match command::run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

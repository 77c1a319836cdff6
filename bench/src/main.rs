//! `cargo xtask bench`: each figure beside its limit, taken in the same run.
//!
//! Machines are shared and noisy, so what counts is the ratio to a raw loop measured just before and after; medians of
//! several rounds after a warm-up.

mod definition;
mod figure;
mod raw;
mod server;
mod statistics;
mod work;

use std::path::PathBuf;

use anyhow::Context;
use clap::Parser;

use crate::figure::Figure;

/// Measures Millrace beside what the machine can do.
#[derive(Debug, Parser)]
struct Arguments {
    /// Which works, such as W1 W2; all where absent.
    works: Vec<String>,
    /// Rounds of each work, of which the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: u32,
    /// Tasks of the fan-outs.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    tasks: u32,
    /// Slots of the executor.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=256))]
    slots: u32,
    /// Writes the figures as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The standalone program.
    #[arg(long, default_value = "target/release/millrace", value_name = "FILE")]
    program: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut figures: Vec<Figure> = vec![raw::sync_latency()?];
    // Definitions are read in this process: for them alone no program is needed.
    if arguments.works != ["definition"] {
        figures.extend(of_programs(&arguments).await?);
    }
    if arguments.wants("definition") {
        figures.extend(definition::figures(arguments.rounds)?);
    }
    figure::print(&figures);
    if let Some(file) = arguments.json {
        std::fs::write(&file, serde_json::to_string_pretty(&figures)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

impl Arguments {
    fn wants(&self, work: &str) -> bool {
        self.works.is_empty() || self.works.iter().any(|wanted| wanted == work)
    }
}

async fn of_programs(arguments: &Arguments) -> anyhow::Result<Vec<Figure>> {
    let plan = work::Plan {
        program: arguments
            .program
            .canonicalize()
            .context("build the programs first: cargo xtask bench does")?,
        rounds: arguments.rounds,
        tasks: arguments.tasks,
        slots: arguments.slots,
    };
    let mut figures = Vec::new();
    if arguments.wants("W1") {
        figures.push(work::fan_out(&plan, work::Shape::True).await?);
    }
    if arguments.wants("W1s") {
        figures.push(work::fan_out(&plan, work::Shape::Shell).await?);
    }
    if arguments.wants("W2") {
        figures.push(work::chain(&plan).await?);
    }
    if arguments.wants("W3") {
        figures.extend(work::request_to_start(&plan).await?);
    }
    if arguments.wants("W4") {
        figures.extend(work::idle(&plan).await?);
    }
    if arguments.wants("W5") {
        figures.extend(work::start_until_ready(&plan).await?);
    }
    Ok(figures)
}

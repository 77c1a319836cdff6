//! `cargo xtask bench`: each figure beside its limit, taken in the same run.
//!
//! Machines are shared and noisy, so what counts is the ratio to a raw loop measured just before and after; medians of
//! several rounds after a warm-up.

mod cluster;
mod definition;
mod figure;
mod process;
mod raw;
mod server;
mod statistics;
mod work;

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use clap::Parser;

use crate::figure::Figure;

/// Works of one program.
const WORKS: [&str; 7] = ["W1", "W1s", "W2", "W3", "W4", "W5", "definition"];

/// Measures Millrace beside what the machine can do.
///
/// Works of one program: W1 W1s W2 W3 W4 W5 definition.
///
/// Works of a cluster (--cluster), each with three masters, an etcd of three members and PostgreSQL:
/// killed, frozen, cut-off: from the harm to the leader until something is dispatched again;
/// hand-over: the longest gap in dispatch;
/// W1p: W1 on PostgreSQL with two executors;
/// crowd: many executors on one leader;
/// restore: from a claim until ready, with 100,000 live task instances;
/// memory: of a leader of many live task instances;
/// cron: from the nominal second to the start of a process;
/// due: 10,000 schedules in one second.
#[derive(Debug, Parser)]
#[command(verbatim_doc_comment)]
struct Arguments {
    /// Which works, such as W1 W2; all where absent.
    works: Vec<String>,
    /// The works of a cluster in the place of those of one program.
    #[arg(long)]
    cluster: bool,
    /// Rounds of each work, of which the median counts; harm is done five times at least.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: u32,
    /// Tasks of the fan-outs.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    tasks: u32,
    /// Slots of all executors together.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=256))]
    slots: u32,
    /// Lifetime of the leader's lease in seconds, for a cluster.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(2..=60))]
    ttl: u64,
    /// Sessions of `crowd`.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    sessions: u32,
    /// Live task instances of `memory`.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(10_000..=2_000_000))]
    live: u32,
    /// Writes the figures as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// The standalone program; those of a cluster are beside it.
    #[arg(long, default_value = "target/release/millrace", value_name = "FILE")]
    program: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    arguments.check()?;
    let mut figures: Vec<Figure> = vec![raw::sync_latency()?];
    if arguments.cluster {
        figures.extend(of_cluster(&arguments).await?);
    } else {
        // Definitions are read in this process: for them alone no program is needed.
        if arguments.works != ["definition"] {
            figures.extend(of_programs(&arguments).await?);
        }
        if arguments.wants("definition") {
            figures.extend(definition::figures(arguments.rounds)?);
        }
    }
    figure::print(&figures);
    if let Some(file) = arguments.json {
        std::fs::write(&file, serde_json::to_string_pretty(&figures)?)
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

impl Arguments {
    /// Refuses works that are not there: a misspelt one would look like one that is fine.
    fn check(&self) -> anyhow::Result<()> {
        let known: &[&str] = if self.cluster { &cluster::WORKS } else { &WORKS };
        for work in &self.works {
            let place = if self.cluster { "with --cluster" } else { "without --cluster" };
            anyhow::ensure!(
                known.contains(&work.as_str()),
                "no work {work:?} {place}; there are {}",
                known.join(" ")
            );
        }
        Ok(())
    }

    fn wants(&self, work: &str) -> bool {
        self.works.is_empty() || self.works.iter().any(|wanted| wanted == work)
    }

    fn program(&self) -> anyhow::Result<PathBuf> {
        self.program.canonicalize().context("build the programs first: cargo xtask bench does")
    }
}

async fn of_cluster(arguments: &Arguments) -> anyhow::Result<Vec<Figure>> {
    let plan = cluster::Plan {
        programs: arguments.program()?.parent().context("a program is in a folder")?.to_owned(),
        rounds: arguments.rounds,
        tasks: arguments.tasks,
        slots: arguments.slots,
        ttl: Duration::from_secs(arguments.ttl),
        sessions: arguments.sessions,
        live: arguments.live,
    };
    Ok(cluster::figures(&plan, |work| arguments.wants(work)).await)
}

async fn of_programs(arguments: &Arguments) -> anyhow::Result<Vec<Figure>> {
    let plan = work::Plan {
        program: arguments.program()?,
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

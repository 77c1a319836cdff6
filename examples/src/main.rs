//! `millrace-examples`: writes the inputs of the example workflows.

use std::path::PathBuf;

use anyhow::Result;
use chrono::NaiveDate;
use clap::{Args, Parser, Subcommand};
use millrace_examples::{
    aoi::{self, Film, Request, Roll},
    source,
};

/// Writes the inputs of the example workflows, the same bytes for the same seed.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Writes inspection archives into `OUT/pva/yyyy/mm/dd` and `OUT/psa/yyyy/mm/dd`.
    Aoi(Archives),
    /// Writes the same archives as the homes of the two accounts of the plant's FTP server, `OUT/cloudin_pva` and `OUT/cloudin_psa`.
    FtpRoot(Archives),
    /// Writes a SQLite database with work orders, their history and a view.
    Source(Source),
}

#[derive(Debug, Args)]
struct Archives {
    /// Folder to write into.
    #[arg(long)]
    out: PathBuf,
    /// The first day.
    #[arg(long, default_value = "2018-07-25")]
    first_day: NaiveDate,
    /// How many days.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(..=366))]
    days: u32,
    /// Rolls of each film on each day.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(..=100))]
    rolls: u32,
    /// What determines everything else.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Debug, Args)]
struct Source {
    /// Database file to make; it must not exist.
    #[arg(long)]
    sqlite: PathBuf,
    /// How many orders.
    #[arg(long, default_value_t = 1_000)]
    orders: u32,
    /// The first of the 30 days that orders are spread over.
    #[arg(long, default_value = "2018-07-01")]
    first_day: NaiveDate,
    /// What determines everything else.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    match Arguments::parse().what {
        What::Aoi(archives) => write_archives(&archives, |film| film.name().to_owned()),
        What::FtpRoot(archives) => write_archives(&archives, |film| format!("cloudin_{}", film.name())),
        What::Source(source) => {
            let orders = source::write(&source.sqlite, source.first_day, source.orders, source.seed).await?;
            say(&format!("{}: {} orders", source.sqlite.display(), orders.len()));
            Ok(())
        }
    }
}

fn write_archives(archives: &Archives, home: fn(Film) -> String) -> Result<()> {
    let request = Request {
        first_day: archives.first_day,
        days: archives.days,
        rolls: archives.rolls,
        seed: archives.seed,
    };
    let rolls: Vec<Roll> = aoi::write(&request, &archives.out, home)?;
    let defects: usize = rolls.iter().map(|roll| roll.defects.len()).sum();
    say(&format!("{}: {} rolls, {defects} defects", archives.out.display(), rolls.len()));
    Ok(())
}

#[expect(clippy::print_stdout, reason = "this program talks to a person")]
fn say(line: &str) {
    println!("{line}");
}

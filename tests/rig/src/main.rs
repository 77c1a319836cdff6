//! The fault rig: `cargo xtask faults` builds and starts it.
//!
//! A scenario makes a whole cluster in network namespaces of its own, puts a load on it, harms it, heals it, waits until
//! everything accepted has ended, and lets the checker that the simulation uses judge what is left behind. The rig owns
//! all that it starts and removes it again, also after a panic or an interrupt.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for people at a terminal")]

mod capability;
mod clock;
mod cluster;
mod crowd;
mod database;
mod history;
mod load;
mod network;
mod outcome;
mod planted;
mod play;
mod proxy;
mod random;
mod scenario;
mod scenarios;
mod scene;

use std::{
    fs::{self, File, TryLockError},
    path::PathBuf,
    process::ExitCode,
    sync::atomic::Ordering,
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use clap::Parser;

use crate::{
    capability::{Capabilities, Need},
    network::Network,
    outcome::{Circumstances, Outcome},
    play::Rig,
    scenario::Scenario,
    scenarios::ALL,
};

/// How long to wait for another rig: a whole set, and then some.
const TURN_WITHIN: Duration = Duration::from_secs(2 * 3_600);
/// What every cluster needs.
const ALWAYS: [Need; 3] = [Need::Namespaces, Need::Etcd, Need::Postgres];

#[derive(Debug, Parser)]
#[command(name = "millrace-rig", about = "Harms a cluster on purpose and judges what is left behind")]
struct Cli {
    /// Run these scenarios only, such as S01,S05
    #[arg(long, value_delimiter = ',', value_name = "IDS")]
    only: Vec<String>,
    /// Run the few that the test command runs
    #[arg(long, conflicts_with = "only")]
    selection: bool,
    /// List the scenarios and run none
    #[arg(long)]
    list: bool,
    /// Where all random choices come from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Write the table of results to this file; rows of scenarios that do not run now stay as they are
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// The commit, for the table
    #[arg(long, default_value = "unknown")]
    commit: String,
    /// Where logs and histories of what went wrong are left
    #[arg(long, value_name = "FOLDER", default_value = "target/rig/kept")]
    kept: PathBuf,
    /// Leave the logs and histories of all scenarios there
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<bool> {
    let chosen = choose(cli)?;
    if cli.list {
        for scenario in chosen {
            let mark = if scenario.in_selection { "*" } else { " " };
            println!("{mark} {}  {}", scenario.id, scenario.title);
        }
        println!("* is in the selection that the test command runs");
        return Ok(true);
    }
    watch_for_interrupts()?;
    println!("seed {:#x}", cli.seed);
    let capabilities = Capabilities::probe();
    let outcomes = match capabilities.lack(&ALWAYS) {
        Some(reason) => chosen.iter().map(|scenario| told(Outcome::not_run(scenario, reason))).collect(),
        None => play_all(cli, &chosen, &capabilities)?,
    };
    println!("{}", outcome::summary(&outcomes));
    note_skips(&outcomes)?;
    if let Some(file) = &cli.out {
        let before = fs::read_to_string(file).unwrap_or_default();
        fs::write(file, outcome::page(&before, &outcomes, &circumstances(cli)?))
            .with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(!outcomes.iter().any(Outcome::is_failed))
}

fn choose(cli: &Cli) -> anyhow::Result<Vec<&'static Scenario>> {
    for id in &cli.only {
        let is_known = ALL.iter().any(|scenario| scenario.id.eq_ignore_ascii_case(id));
        ensure!(is_known, "there is no scenario {id}; --list shows all");
    }
    let is_chosen = |scenario: &&&Scenario| {
        let is_named = cli.only.iter().any(|id| scenario.id.eq_ignore_ascii_case(id));
        is_named || (cli.only.is_empty() && (scenario.in_selection || !cli.selection))
    };
    Ok(ALL.iter().filter(is_chosen).copied().collect())
}

fn play_all(cli: &Cli, chosen: &[&Scenario], capabilities: &Capabilities) -> anyhow::Result<Vec<Outcome>> {
    let folder = network::folder_of(std::process::id());
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let _only = lock()?;
    let rig = Rig {
        network: Network::make()?,
        folder,
        kept: cli.kept.clone(),
        keeps_all: cli.keep,
        seed: cli.seed,
    };
    let mut outcomes = Vec::new();
    for scenario in chosen {
        clock::heed_interrupt()?;
        let lack = scenario.not_run.or_else(|| capabilities.lack(scenario.needs));
        outcomes.push(told(match lack {
            Some(reason) => Outcome::not_run(scenario, reason),
            None => play::play(&rig, scenario),
        }));
    }
    // The network goes first: it ends whatever still uses the folder.
    drop(rig.network);
    let _ = fs::remove_dir_all(&rig.folder);
    Ok(outcomes)
}

/// Waits until no other rig runs: two would judge each other's load.
fn lock() -> anyhow::Result<File> {
    let path = std::env::temp_dir().join("millrace-rig.lock");
    let file = File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut has_told = false;
    clock::wait_for("another rig to end", TURN_WITHIN, || match file.try_lock() {
        Ok(()) => Ok(Some(())),
        Err(TryLockError::WouldBlock) => {
            if !std::mem::replace(&mut has_told, true) {
                println!("waiting for another rig to end");
            }
            Ok(None)
        }
        Err(TryLockError::Error(error)) => Err(error.into()),
    })?;
    Ok(file)
}

fn told(outcome: Outcome) -> Outcome {
    println!("{}", outcome.shown());
    outcome
}

/// Lets the first interrupt end every wait, so that all is removed on the way out.
fn watch_for_interrupts() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    thread::Builder::new().name("interrupts".to_owned()).spawn(move || {
        runtime.block_on(async {
            let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = term.recv() => {}
            }
            clock::INTERRUPTED.store(true, Ordering::Relaxed);
            eprintln!("interrupted: removing what was started");
            std::io::Result::Ok(())
        })
    })?;
    Ok(())
}

/// Tells the test command what did not run, and why.
#[expect(clippy::disallowed_methods, reason = "the test command names the file by an environment variable")]
fn note_skips(outcomes: &[Outcome]) -> anyhow::Result<()> {
    use std::io::Write as _;
    let Some(file) = std::env::var_os("MILLRACE_SKIP_FILE") else { return Ok(()) };
    let mut file = fs::OpenOptions::new().create(true).append(true).open(file)?;
    for outcome in outcomes {
        if let outcome::Verdict::NotRun(reason) = &outcome.verdict {
            writeln!(file, "SKIPPED: rig {}: {reason}", outcome.id)?;
        }
    }
    Ok(())
}

fn circumstances(cli: &Cli) -> anyhow::Result<Circumstances> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = memory.lines().next().and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok());
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let date = millrace_common::time::Timestamp::from_micros(clock::wall()).to_string();
    let machine = format!("{cores} cores, {} GiB, Linux {}", kib.unwrap_or(0) >> 20, kernel.trim());
    Ok(Circumstances { date, machine, commit: cli.commit.clone(), seed: cli.seed })
}

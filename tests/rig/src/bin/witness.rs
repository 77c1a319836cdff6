//! `millrace-witness`: what the attempts of the rig run. It tells, in a file that no part of Millrace can alter, that it
//! lives.
//!
//! Each line is one write to a file opened for appending, so that lines of several processes do not mix. The lines are
//! those that `millrace-checker` reads, and one more: `O <attempt> <other> <microseconds>`, where another process holds
//! the lock of the same task instance. A lock goes with its process, so such a line is an overlap that no clock can
//! explain away.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
    thread,
    time::Duration,
};

use anyhow::Context as _;
use clap::Parser;
use millrace_common::time::Clock as _;
use millrace_runtime::clock::SystemClock;
use nix::{
    fcntl::{Flock, FlockArg},
    sys::signal::{SigSet, Signal},
};

/// Time between two signs of life.
const BEAT: Duration = Duration::from_millis(100);

#[derive(Debug, Parser)]
#[command(name = "millrace-witness", about = "Tells in a file of its own that it lives")]
struct Cli {
    /// The file to tell it in
    #[arg(long)]
    log: PathBuf,
    /// Folder of the locks, one for each task instance
    #[arg(long)]
    locks: PathBuf,
    /// Which attempt this is
    #[arg(long, env = "MILLRACE_FENCE_TOKEN")]
    attempt: String,
    /// How long to live, in milliseconds
    #[arg(long, default_value_t = 1_000)]
    millis: u64,
    /// How to end
    #[arg(long, default_value_t = 0)]
    exit: u8,
    /// Do not end when asked to
    #[arg(long)]
    ignore_term: bool,
    /// Print so many bytes with each beat
    #[arg(long, default_value_t = 0)]
    bytes_per_beat: usize,
    /// Print a numbered line with each beat
    #[arg(long)]
    count: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let cli = Cli::parse();
    if cli.ignore_term {
        // A blocked signal stays pending for ever, which is as good as ignoring it.
        let mut term = SigSet::empty();
        term.add(Signal::SIGTERM);
        term.thread_block().context("cannot block TERM")?;
    }
    let log = OpenOptions::new().append(true).create(true).open(&cli.log);
    let log = log.with_context(|| format!("cannot open {}", cli.log.display()))?;
    let begun = now();
    tell(&log, &format!("S {} {} {begun}\n", cli.attempt, std::process::id()))?;
    let lock = lock(&cli.locks, &cli.attempt)?;
    if let Err(holder) = &lock {
        tell(&log, &format!("O {} {holder} {}\n", cli.attempt, now()))?;
    }
    live(&cli, &log, begun)?;
    tell(&log, &format!("E {} {} {}\n", cli.attempt, cli.exit, now()))?;
    Ok(ExitCode::from(cli.exit))
}

fn live(cli: &Cli, log: &File, begun: u64) -> anyhow::Result<()> {
    let end = begun + cli.millis * 1_000;
    let mut beats: u64 = 0;
    loop {
        let left = Duration::from_micros(end.saturating_sub(now()));
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(BEAT));
        tell(log, &format!("B {} {}\n", cli.attempt, now()))?;
        beats += 1;
        // Nobody may read it any more, and a full disk is what some scenarios are about.
        let _ = speak(cli, beats);
    }
}

fn speak(cli: &Cli, beats: u64) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if cli.count {
        writeln!(out, "line {beats}")?;
    }
    if cli.bytes_per_beat > 0 {
        out.write_all(&vec![b'x'; cli.bytes_per_beat])?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// Takes the lock of the task instance for the life of this process, or says who has it.
fn lock(folder: &Path, attempt: &str) -> anyhow::Result<Result<Flock<File>, String>> {
    let instance = attempt.rsplit_once('.').map_or(attempt, |(instance, _)| instance);
    let path = folder.join(instance);
    let file = OpenOptions::new().read(true).append(true).create(true).open(&path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(held) => {
            fs::write(&path, attempt)?;
            Ok(Ok(held))
        }
        Err(_) => {
            let holder = fs::read_to_string(&path)?;
            Ok(Err(if holder.is_empty() { "unknown".to_owned() } else { holder }))
        }
    }
}

fn tell(mut log: &File, line: &str) -> anyhow::Result<()> {
    log.write_all(line.as_bytes()).context("cannot write what happens")
}

fn now() -> u64 {
    u64::try_from(SystemClock.now().uptime.since_boot().as_micros()).unwrap_or(u64::MAX)
}

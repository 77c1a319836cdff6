//! What the machine can do without us.

use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Instant,
};

use anyhow::Context;

use crate::{
    figure::Figure,
    statistics::{median, quantile},
    work::Shape,
};

/// Processes at a time in the raw loop: more does not help on two cores.
const PARALLEL: u32 = 4;
/// Samples of the disk's latency.
const SYNCS: u32 = 400;

/// Returns how many processes of a shape the machine starts and waits for in a second.
///
/// The log of a shell is the same file for all processes of one loop, and opened anew for each: so does an executor, whose
/// attempts follow each other in a fixed number of workspaces. A loop that makes a file for each process is a third slower
/// on a disk that keeps a journal of names (ext4), and whoever is measured against it looks faster than the machine.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
pub(crate) fn spawn_rate(shape: Shape, count: u32) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir()?;
    let next = AtomicU32::new(0);
    let start = Instant::now();
    std::thread::scope(|scope| {
        let loops: Vec<_> = (0..PARALLEL)
            .map(|number| {
                let log = folder.path().join(format!("{number}.log"));
                let next = &next;
                scope.spawn(move || -> anyhow::Result<()> {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        if at >= count {
                            return Ok(());
                        }
                        let status = command(shape, &log)?.status()?;
                        anyhow::ensure!(status.success(), "a raw process failed");
                    }
                })
            })
            .collect();
        loops
            .into_iter()
            .try_for_each(|one| one.join().unwrap_or_else(|_| anyhow::bail!("a raw loop panicked")))
    })?;
    Ok(f64::from(count) / start.elapsed().as_secs_f64())
}

fn command(shape: Shape, log: &Path) -> anyhow::Result<Command> {
    let mut command = match shape {
        Shape::True => Command::new("/bin/true"),
        Shape::Shell => {
            let mut shell = Command::new("/bin/sh");
            let log = OpenOptions::new().create(true).append(true).open(log)?;
            shell.args(["-c", "/bin/true"]).process_group(0).stdout(log.try_clone()?).stderr(log);
            shell
        }
    };
    command.stdin(Stdio::null());
    Ok(command)
}

/// Returns how long a durable append of 4 KiB takes here: every durable step contains it.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
pub(crate) fn sync_latency() -> anyhow::Result<Figure> {
    let folder = tempfile::tempdir()?;
    let mut file = OpenOptions::new().create(true).append(true).open(folder.path().join("sync"))?;
    let block = [0_u8; 4_096];
    let mut samples = Vec::new();
    for _ in 0..SYNCS {
        let start = Instant::now();
        file.write_all(&block)?;
        file.sync_data().context("the disk does not sync")?;
        samples.push(start.elapsed().as_secs_f64() * 1_000.0);
    }
    let high = quantile(&mut samples, 0.99);
    Ok(Figure::lower("disk", "fdatasync of a 4 KiB append, ms p50", median(&mut samples))
        .note(format!("p99 {high:.3}")))
}

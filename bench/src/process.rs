//! What processes cost, as the system counts it.

use std::{fs, time::Duration};

use anyhow::Context;

/// Returns a process and all that descend from it, sorted.
pub(crate) fn with_descendants(pid: u32) -> anyhow::Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // It may have ended meanwhile.
        if let Ok(fields) = stat(pid) {
            parents.push((pid, fields.get(1).and_then(|parent| parent.parse::<u32>().ok()).unwrap_or(0)));
        }
    }
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found.sort_unstable();
    Ok(found)
}

/// Returns the processor time that processes have used, in ticks of the system's clock.
pub(crate) fn ticks(pids: &[u32]) -> anyhow::Result<u64> {
    pids.iter()
        .map(|pid| {
            let fields = stat(*pid)?;
            // proc(5): utime and stime are fields 14 and 15, and the state, field 3, is the first after the name.
            let field =
                |at: usize| anyhow::Ok(fields.get(at).context("stat has its fields")?.parse::<u64>()?);
            Ok(field(11)? + field(12)?)
        })
        .sum()
}

/// Returns what part of a processor so many ticks are in a time, in percent.
pub(crate) fn percent(ticks: u64, time: Duration) -> anyhow::Result<f64> {
    let per_second =
        nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("the clock has a rate")?;
    #[expect(clippy::cast_precision_loss, reason = "some thousand ticks")]
    let part = ticks as f64 / per_second as f64;
    Ok(part / time.as_secs_f64() * 100.0)
}

/// Returns the memory that a process has, in MiB.
pub(crate) fn resident_mib(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("status has VmRSS")?;
    let kib: f64 = line.split_whitespace().nth(1).context("VmRSS has a value")?.parse()?;
    Ok(kib / 1_024.0)
}

/// Returns the fields of a process after its name, which may hold anything.
fn stat(pid: u32) -> anyhow::Result<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(')').context("stat has a name")?.1;
    Ok(after_name.split_whitespace().map(str::to_owned).collect())
}

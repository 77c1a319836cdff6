//! A steady load, and when its attempts were started.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail, ensure};
use millrace_proto::v1;
use millrace_servers::client::Control;

use super::site::{Cluster, until};
use crate::work::{apply, start};

/// The workflow of the load.
const LOAD: &str = "load";
/// Attempts that have ended before harm is done: executors and database are warm then.
const STARTED_BEFORE: i64 = 100;
/// Slots of each executor under the load: with naps that long a few hundred attempts start in a second, which leaves the
/// machine enough for what is measured.
pub(super) const SLOTS: u32 = 8;
const NAP: &str = "[sleep, \"0.05\"]";

/// A run of the load.
#[derive(Debug)]
pub(super) struct Load {
    run: String,
    tasks: u32,
}

/// Puts the load in force; `tasks` must last longer than what is measured.
pub(super) async fn prepare(client: &mut Control, tasks: u32) -> anyhow::Result<()> {
    let mut text = format!("workflow: {LOAD}\ntasks:\n");
    for at in 0..tasks {
        let _ = writeln!(text, "  t{at}: {{ kind: shell, with: {{ command: {NAP} }} }}");
    }
    apply(client, text).await
}

/// Returns now, in the unit of the database.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
pub(super) fn now() -> anyhow::Result<i64> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros())?)
}

impl Load {
    /// Starts a run and waits until it is in full swing.
    pub(super) async fn start(cluster: &Cluster, client: &mut Control, tasks: u32) -> anyhow::Result<Self> {
        let run = start(client, LOAD).await?;
        let load = Self { run, tasks };
        let ended = format!(
            "SELECT COUNT(*) FROM attempt WHERE ended_at IS NOT NULL AND run_id = decode('{}', 'hex')",
            load.hex()
        );
        until("the load to be in full swing", async || {
            cluster.number(&ended).is_ok_and(|ended| ended >= STARTED_BEFORE).then_some(())
        })
        .await?;
        Ok(load)
    }

    fn hex(&self) -> String {
        self.run.replace('-', "")
    }

    /// Waits for the end of the run, which must be a success of one attempt for each task, and returns when these were
    /// started: with the term that assigned them, in order.
    pub(super) async fn ended(&self, cluster: &Cluster) -> anyhow::Result<Vec<(i64, u64)>> {
        let summary = until("the run of the load to end", async || {
            let (_, mut client) = cluster.leader().await?;
            let request = v1::GetRunRequest { run: self.run.clone() };
            let summary = client.get_run(request).await.ok()?.into_inner().run?;
            summary.ended_at.is_some().then_some(summary)
        })
        .await?;
        if summary.state != "success" {
            bail!("the run of the load ended {}: {}", summary.state, summary.reason);
        }
        let rows = cluster.database.try_sql(&format!(
            "SELECT started_at, assigned_term FROM attempt WHERE started_at IS NOT NULL AND run_id = decode('{}', 'hex') \
             ORDER BY started_at",
            self.hex()
        ));
        let rows = rows.map_err(anyhow::Error::msg)?;
        let starts = rows.lines().map(|row| {
            let (at, term) = row.split_once('|').context("two columns")?;
            anyhow::Ok((at.parse()?, term.parse()?))
        });
        let starts: Vec<(i64, u64)> = starts.collect::<anyhow::Result<_>>()?;
        ensure!(
            starts.len() == self.tasks as usize,
            "{} attempts were started for {} tasks",
            starts.len(),
            self.tasks
        );
        Ok(starts)
    }
}

/// Returns when the first attempt was started that a later term assigned than the last before `harmed`.
pub(super) fn first_of_next(starts: &[(i64, u64)], harmed: i64) -> anyhow::Result<i64> {
    let before = starts.iter().filter(|(at, _)| *at <= harmed).map(|(_, term)| *term).max();
    let before = before.context("nothing was started before the harm")?;
    let next = starts.iter().filter(|(_, term)| *term > before).map(|(at, _)| *at).min();
    next.context("the run ended before anything was dispatched again: it is too short")
}

/// Returns the longest time without a start after `from`.
pub(super) fn longest_gap(starts: &[(i64, u64)], from: i64, within: Duration) -> i64 {
    let to = from + i64::try_from(within.as_micros()).unwrap_or(i64::MAX / 2);
    // The last before it counts as the beginning.
    let first = starts.iter().rposition(|(at, _)| *at <= from).unwrap_or(0);
    let window: Vec<i64> = starts[first..].iter().map(|(at, _)| *at).take_while(|at| *at <= to).collect();
    window.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_start_of_a_later_term_ends_the_outage() {
        let starts = [(10, 1), (20, 1), (35, 1), (90, 2), (95, 2)];
        assert_eq!(first_of_next(&starts, 30).unwrap(), 90, "what the old one had sent does not count");
        assert!(first_of_next(&starts[..3], 30).unwrap_err().to_string().contains("too short"));
    }

    #[test]
    fn a_gap_begins_with_the_last_start_before_the_request() {
        let starts = [(0, 1), (10, 1), (50, 2), (55, 2), (500, 2)];
        assert_eq!(longest_gap(&starts, 20, Duration::from_micros(100)), 40);
    }
}

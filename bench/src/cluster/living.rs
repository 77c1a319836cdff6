//! Leaders of many live task instances: how long one takes to be ready after its claim, and what memory they cost it.
//!
//! Their tasks ask for a label that no executor has, so that every instance stays ready and has a row.

use std::time::Instant;

use anyhow::{Context, ensure};
use millrace_proto::v1;
use sqlx::{Connection as _, postgres::PgConnection};

use super::{
    Plan,
    site::{Cluster, Shape, until},
};
use crate::{figure::Figure, process, statistics::median, work};

/// Task instances of one run: the most that a definition may have.
const RUN: u32 = 10_000;
/// Live instances that are restored.
const RESTORED: u32 = 100_000;
const NOWHERE: &str = "executor: { labels: { site: nowhere } }, ";

/// Starts runs until so many instances are ready.
async fn fill(cluster: &Cluster, instances: u32) -> anyhow::Result<()> {
    let (_, mut client) = cluster.led().await?;
    let source = work::wide("living", RUN, "[/bin/true]", NOWHERE);
    work::apply(&mut client, source.replace("max_active_runs: 16", "max_active_runs: 1000")).await?;
    for _ in 0..instances / RUN {
        work::start(&mut client, "living").await?;
    }
    until("all instances to be ready", async || {
        let work = client.get_cluster(v1::GetClusterRequest {}).await.ok()?.into_inner();
        (work.ready == instances / RUN * RUN).then_some(())
    })
    .await
}

/// How long a leader takes from its claim until it leads, with work of others to take over.
pub(super) async fn restore(plan: &Plan) -> anyhow::Result<Vec<Figure>> {
    let mut cluster = Cluster::start(plan, &Shape { executors: 0, ..Shape::usual(plan) }).await?;
    fill(&cluster, RESTORED).await?;
    let mut raw = raw_read(&cluster, plan.rounds).await?;
    let (mut restores, mut outages) = (Vec::new(), Vec::new());
    for round in 0..=plan.rounds {
        let leader = cluster.settled().await?;
        let killed = super::dispatch::now()?;
        cluster.masters[leader].program.kill();
        let (next, mut client) = cluster.led().await?;
        let outage = super::dispatch::now()? - killed;
        let work = client.get_cluster(v1::GetClusterRequest {}).await?.into_inner();
        ensure!(work.ready == RESTORED, "{} of {RESTORED} instances are ready", work.ready);
        if round > 0 {
            restores.push(restored_in(&cluster.masters[next].program.log())?);
            outages.push(f64::from(u32::try_from(outage)?) / 1_000.0);
        }
        cluster.masters[leader].program.start();
    }
    let outage = median(&mut outages);
    let note =
        format!("{RESTORED} instances; {outage:.0} ms from the kill of the last leader to the first answer");
    let figure =
        Figure::lower("restore", "claim until ready, 100,000 live, PostgreSQL, ms", median(&mut restores));
    Ok(vec![figure.limit(median(&mut raw)).bounds(1_000.0, 300.0).note(note)])
}

/// Returns what a leader says about the last time that it took over.
fn restored_in(log: &str) -> anyhow::Result<f64> {
    let (_, after) = log.rsplit_once("restored_in_ms=").context("a leader says how long it took over")?;
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    Ok(digits.parse()?)
}

/// Returns how long it takes to read the rows of the instances, and do nothing with them.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
async fn raw_read(cluster: &Cluster, rounds: u32) -> anyhow::Result<Vec<f64>> {
    let mut database = PgConnection::connect(&cluster.database.network_url()).await?;
    let mut samples = Vec::new();
    for _ in 0..=rounds {
        let start = Instant::now();
        let rows = sqlx::query("SELECT * FROM task_instance").fetch_all(&mut database).await?;
        samples.push(start.elapsed().as_secs_f64() * 1_000.0);
        ensure!(rows.len() == RESTORED as usize, "{} rows", rows.len());
    }
    database.close().await?;
    Ok(samples)
}

/// What memory a leader of many live instances has: the one that created them, and the next.
pub(super) async fn memory(plan: &Plan) -> anyhow::Result<Vec<Figure>> {
    let mut cluster = Cluster::start(plan, &Shape { executors: 0, ..Shape::usual(plan) }).await?;
    let resident =
        |cluster: &Cluster, index: usize| process::resident_mib(cluster.masters[index].program.pid());
    let (leader, _) = cluster.led().await?;
    let empty = resident(&cluster, leader)?;
    fill(&cluster, plan.live).await?;
    let full = resident(&cluster, leader)?;
    cluster.settled().await?;
    cluster.masters[leader].program.kill();
    let (next, _) = cluster.led().await?;
    let restored = resident(&cluster, next)?;
    let took = restored_in(&cluster.masters[next].program.log())?;
    let scale = 1_000_000.0 / f64::from(plan.live / RUN * RUN);
    let figure = |what, value: f64| {
        let figure =
            Figure::lower("memory", what, value).limit(80.0 / scale).bounds(500.0 / scale, 150.0 / scale);
        figure.note(format!("{} instances; {empty:.0} MiB without any", plan.live / RUN * RUN))
    };
    Ok(vec![
        figure("leader that created them, RSS MiB", full),
        figure("leader that took them over, RSS MiB", restored),
        Figure::lower("memory", "claim until ready, ms", took).note("once, no median"),
    ])
}

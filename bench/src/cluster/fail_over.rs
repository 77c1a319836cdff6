//! How long nothing is dispatched when a leader is killed, frozen, cut off, or hands over.
//!
//! The clock runs from the harm to the start of the first process whose attempt the next leader assigned. What it is
//! beside: one write to etcd, one synced commit of PostgreSQL and one process start, which no take-over can do without.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use millrace_proto::{
    etcd::{PutRequest, kv_client::KvClient},
    v1,
};
use nix::sys::signal::Signal;
use sqlx::{Connection as _, postgres::PgConnection};

use super::{
    Plan,
    dispatch::{self, Load},
    network::Network,
    site::{Cluster, Shape, until},
};
use crate::{
    figure::Figure,
    raw,
    statistics::{median, quantile},
    work::Shape as Process,
};

/// How many times the harm is done, at least: a take-over is one sample.
const HARMS_MIN: u32 = 5;
/// Tasks of the load: three to four seconds of starts, and as many again for each second that nothing is dispatched.
const TASKS: u32 = 1_500;
/// Samples of the raw steps.
const SAMPLES: u32 = 40;
/// The exit code of a leader that was demoted.
const DEMOTED: i32 = 75;
/// How long the starts around a hand-over are looked at.
const HAND_OVER: Duration = Duration::from_secs(2);

/// What is done to a leader.
#[derive(Debug)]
enum Harm {
    /// Its process is killed.
    Kill,
    /// Its process stands still.
    Freeze,
    /// It reaches nobody, and nobody reaches it.
    Cut(Network),
}

pub(super) async fn killed(plan: &Plan) -> anyhow::Result<Vec<Figure>> {
    let mut cluster = Cluster::start(plan, &shape(plan)).await?;
    let raw = raw_steps(&cluster).await?;
    let mut samples = outages(plan, &mut cluster, &Harm::Kill).await?;
    let figure = Figure::lower("killed", "leader killed, to the next dispatch, ms", median(&mut samples));
    let figure = figure.limit(raw).bounds(milliseconds(plan.ttl) + 1_000.0, 100.0);
    Ok(vec![figure.note(spread(plan, &mut samples, "kill -9"))])
}

pub(super) async fn frozen(plan: &Plan) -> anyhow::Result<Vec<Figure>> {
    let mut cluster = Cluster::start(plan, &shape(plan)).await?;
    let samples = outages(plan, &mut cluster, &Harm::Freeze).await?;
    Ok(silent(plan, "frozen", "leader frozen, to the next dispatch, s", samples, "SIGSTOP"))
}

pub(super) async fn cut_off(plan: &Plan) -> anyhow::Result<Vec<Figure>> {
    let network = Network::make(3)?;
    let shape = Shape { masters: network.places(), servers: network.hub(), ..shape(plan) };
    let mut cluster = Cluster::start(plan, &shape).await?;
    let samples = outages(plan, &mut cluster, &Harm::Cut(network)).await?;
    let how = "network namespace taken off its bridge: neither an answer nor a reset";
    Ok(silent(plan, "cut-off", "leader cut off, to the next dispatch, s", samples, how))
}

/// The figure of a leader whose end nobody notices before its lease runs out.
fn silent(plan: &Plan, work: &'static str, what: &str, mut samples: Vec<f64>, how: &str) -> Vec<Figure> {
    let ttl = plan.ttl.as_secs_f64();
    let note = spread(plan, &mut samples, how);
    let figure = Figure::lower(work, what, median(&mut samples) / 1_000.0);
    vec![figure.limit(ttl + 0.5).bounds(ttl + 2.0, ttl + 0.6).note(note)]
}

pub(super) async fn handed_over(plan: &Plan) -> anyhow::Result<Vec<Figure>> {
    let mut cluster = Cluster::start(plan, &shape(plan)).await?;
    let raw = raw_steps(&cluster).await?;
    let (_, mut client) = cluster.led().await?;
    dispatch::prepare(&mut client, TASKS).await?;
    let mut gaps = Vec::new();
    for round in 0..=harms(plan) {
        let leader = cluster.settled().await?;
        let mut client = cluster.masters[leader].control().await?;
        let load = Load::start(&cluster, &mut client, TASKS).await?;
        let asked = dispatch::now()?;
        client.hand_over(v1::HandOverRequest {}).await?;
        let process = &mut cluster.masters[leader].program;
        let ended = until("the old leader to end", async || process.try_ended()).await?;
        ensure!(ended.code() == Some(DEMOTED), "the leader that made way ended with {ended}");
        let starts = load.ended(&cluster).await?;
        // There was one, and the load went on under it.
        dispatch::first_of_next(&starts, asked)?;
        if round > 0 {
            gaps.push(span(0, dispatch::longest_gap(&starts, asked, HAND_OVER)));
        }
        cluster.masters[leader].program.start();
    }
    let note = spread(plan, &mut gaps, "asked by the call of masterctl");
    let figure =
        Figure::lower("hand-over", "planned hand-over, longest gap in dispatch, ms", median(&mut gaps));
    Ok(vec![figure.limit(raw).bounds(1_000.0, 20.0).note(note)])
}

fn shape(plan: &Plan) -> Shape {
    Shape { slots: dispatch::SLOTS, ..Shape::usual(plan) }
}

fn harms(plan: &Plan) -> u32 {
    plan.rounds.max(HARMS_MIN)
}

/// Does harm to the leader again and again under load; returns how long nothing was dispatched, in milliseconds.
async fn outages(plan: &Plan, cluster: &mut Cluster, harm: &Harm) -> anyhow::Result<Vec<f64>> {
    let (_, mut client) = cluster.led().await?;
    dispatch::prepare(&mut client, TASKS).await?;
    let mut samples = Vec::new();
    for round in 0..=harms(plan) {
        let leader = cluster.settled().await?;
        let mut client = cluster.masters[leader].control().await?;
        let load = Load::start(cluster, &mut client, TASKS).await?;
        let harmed = dispatch::now()?;
        harm.do_to(cluster, leader)?;
        cluster.silent = Some(leader);
        let starts = load.ended(cluster).await?;
        if round > 0 {
            samples.push(span(harmed, dispatch::first_of_next(&starts, harmed)?));
        }
        harm.undo(cluster, leader).await?;
        cluster.silent = None;
    }
    Ok(samples)
}

impl Harm {
    fn do_to(&self, cluster: &mut Cluster, leader: usize) -> anyhow::Result<()> {
        let process = &mut cluster.masters[leader].program;
        match self {
            Self::Kill => process.kill(),
            // It stands still within microseconds; seeing that it does would be part of the time.
            Self::Freeze => process.signal(Signal::SIGSTOP),
            Self::Cut(network) => network.cut(leader)?,
        }
        Ok(())
    }

    /// Brings a master that was harmed back, as a standby.
    async fn undo(&self, cluster: &mut Cluster, harmed: usize) -> anyhow::Result<()> {
        let process = &mut cluster.masters[harmed].program;
        if !matches!(self, Self::Kill) {
            process.signal(Signal::SIGCONT);
            let ended = until("the old leader to end", async || process.try_ended()).await?;
            ensure!(ended.code() == Some(DEMOTED), "the old leader ended with {ended}");
        }
        if let Self::Cut(network) = self {
            network.mend(harmed)?;
        }
        cluster.masters[harmed].program.start();
        Ok(())
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// Returns the time between two moments of the database, in milliseconds.
fn span(from: i64, to: i64) -> f64 {
    milliseconds(Duration::from_micros(u64::try_from(to.saturating_sub(from)).unwrap_or(0)))
}

fn spread(plan: &Plan, samples: &mut [f64], how: &str) -> String {
    let (low, high) = (quantile(samples, 0.0), quantile(samples, 1.0));
    format!("{low:.0} to {high:.0} ms in {} times; {how}; TTL {:?}", samples.len(), plan.ttl)
}

/// Returns what one write to etcd, one synced commit and one process start take here, in milliseconds.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
async fn raw_steps(cluster: &Cluster) -> anyhow::Result<f64> {
    let endpoint = cluster.etcd.endpoints().into_iter().next().context("etcd has members")?;
    let mut etcd = KvClient::connect(endpoint).await?;
    let mut database = PgConnection::connect(&cluster.database.network_url()).await?;
    sqlx::raw_sql("CREATE TABLE IF NOT EXISTS bench_raw (n BIGINT); INSERT INTO bench_raw VALUES (0)")
        .execute(&mut database)
        .await?;
    let (mut puts, mut commits) = (Vec::new(), Vec::new());
    for _ in 0..SAMPLES {
        let start = Instant::now();
        let put = PutRequest { key: b"/bench".to_vec(), value: b"1".to_vec(), ..PutRequest::default() };
        etcd.put(put).await?;
        puts.push(milliseconds(start.elapsed()));
        let start = Instant::now();
        sqlx::raw_sql("UPDATE bench_raw SET n = n + 1").execute(&mut database).await?;
        commits.push(milliseconds(start.elapsed()));
    }
    database.close().await?;
    let spawn = 1_000.0 / raw::spawn_rate(Process::True, 400)?;
    Ok(median(&mut puts) + median(&mut commits) + spawn)
}

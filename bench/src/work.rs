//! The works of the design's table of speed, as far as they need neither etcd nor a database server.

use std::{
    fmt::Write as _,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use millrace_proto::v1;
use millrace_servers::client::Control;

use crate::{
    figure::Figure,
    process, raw,
    server::Server,
    statistics::{median, quantile},
};

/// Tasks of the chain.
const CHAIN: u32 = 100;
/// Tasks of the run that comes before a fan-out is measured.
const WARM: u32 = 500;
/// Requests of W3.
const REQUESTS: u32 = 60;
/// How long W4 looks at an idle program.
const IDLE: Duration = Duration::from_secs(10);
/// How long the program is left alone before that.
const SETTLE: Duration = Duration::from_secs(2);
/// Live task instances of W5, over runs of as many tasks as a document may have.
const LIVE_RUNS: u32 = 10;
/// Pause between two looks whether a run has ended, where the answer is awaited to go on.
pub(crate) const LOOK: Duration = Duration::from_millis(5);
/// The same while a long run is measured by its own times: each look is a query that takes away from what is measured.
pub(crate) const LOOK_LONG: Duration = Duration::from_millis(50);
/// How long a run may take before the benchmark gives up.
const RUN_MAX: Duration = Duration::from_secs(180);

/// What is measured and how often.
pub(crate) struct Plan {
    pub(crate) program: PathBuf,
    pub(crate) rounds: u32,
    pub(crate) tasks: u32,
    pub(crate) slots: u32,
}

/// What a task of a fan-out is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// `/bin/true`.
    True,
    /// A shell with its own group and log file.
    Shell,
}

impl Shape {
    pub(crate) const fn command(self) -> &'static str {
        match self {
            Self::True => "[/bin/true]",
            Self::Shell => "[/bin/sh, -c, /bin/true]",
        }
    }
}

pub(crate) fn wide(name: &str, tasks: u32, command: &str, more: &str) -> String {
    let mut text = format!("workflow: {name}\nmax_active_runs: 16\ntasks:\n");
    for at in 0..tasks {
        let _ = writeln!(text, "  t{at}: {{ kind: shell, {more}with: {{ command: {command} }} }}");
    }
    text
}

pub(crate) async fn apply(client: &mut Control, source: String) -> anyhow::Result<()> {
    client.apply_workflow(v1::ApplyWorkflowRequest { source, dry_run: false }).await?;
    Ok(())
}

pub(crate) async fn start(client: &mut Control, workflow: &str) -> anyhow::Result<String> {
    let request = v1::StartRunRequest { workflow: workflow.to_owned(), ..Default::default() };
    Ok(client.start_run(request).await?.into_inner().run)
}

/// Waits for the newest run of a workflow to end and returns its summary.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
pub(crate) async fn wait(
    client: &mut Control,
    workflow: &str,
    pause: Duration,
) -> anyhow::Result<v1::RunSummary> {
    let start = Instant::now();
    while start.elapsed() < RUN_MAX {
        let request =
            v1::ListRunsRequest { workflow: workflow.to_owned(), page_size: 1, ..Default::default() };
        let newest = client
            .list_runs(request)
            .await?
            .into_inner()
            .runs
            .into_iter()
            .next()
            .context("there is a run")?;
        if newest.ended_at.is_some() {
            if newest.state != "success" {
                bail!("run of {workflow} ended {}: {}", newest.state, newest.reason);
            }
            return Ok(newest);
        }
        tokio::time::sleep(pause).await;
    }
    bail!("run of {workflow} took longer than {RUN_MAX:?}")
}

pub(crate) fn seconds(from: i64, to: i64) -> f64 {
    Duration::from_micros(u64::try_from(to.saturating_sub(from)).unwrap_or(0)).as_secs_f64()
}

/// What a fan-out reached, round by round.
#[derive(Debug, Default)]
pub(crate) struct Rates {
    ratios: Vec<f64>,
    rates: Vec<f64>,
    limits: Vec<f64>,
}

impl Rates {
    /// Returns the median ratio to the raw loop as a figure.
    pub(crate) fn figure(mut self, work: &'static str, tasks: u32, slots: u32) -> Figure {
        let (rate, limit) = (median(&mut self.rates), median(&mut self.limits));
        Figure::higher(work, format!("fan-out of {tasks}, ratio to raw"), median(&mut self.ratios))
            .limit(1.0)
            .note(format!("{rate:.0}/s beside {limit:.0}/s raw, {slots} slots"))
    }
}

/// Runs durable fan-outs, each between two halves of the raw loop of the same shape.
pub(crate) async fn rates(
    client: &mut Control,
    shape: Shape,
    tasks: u32,
    rounds: u32,
) -> anyhow::Result<Rates> {
    apply(client, wide("warm", WARM, shape.command(), "")).await?;
    start(client, "warm").await?;
    wait(client, "warm", LOOK_LONG).await?;
    apply(client, wide("wide", tasks, shape.command(), "")).await?;
    let mut rates = Rates::default();
    for _ in 0..rounds {
        let before = raw::spawn_rate(shape, tasks / 2)?;
        start(client, "wide").await?;
        let run = wait(client, "wide", LOOK_LONG).await?;
        let after = raw::spawn_rate(shape, tasks / 2)?;
        let rate = f64::from(tasks) / seconds(run.created_at, run.ended_at.context("it has ended")?);
        let limit = 2.0 / (1.0 / before + 1.0 / after);
        rates.ratios.push(rate / limit);
        rates.rates.push(rate);
        rates.limits.push(limit);
    }
    Ok(rates)
}

/// W1 and W1s: a durable fan-out, as the ratio to the raw loop of the same shape in the same minute.
pub(crate) async fn fan_out(plan: &Plan, shape: Shape) -> anyhow::Result<Figure> {
    let data = tempfile::tempdir()?;
    let mut server = Server::start(&plan.program, data.path(), plan.slots).await?;
    server.wait_for_executor().await?;
    let rates = rates(&mut server.client, shape, plan.tasks, plan.rounds).await?;
    let (work, floor, goal) = match shape {
        Shape::True => ("W1", 0.60, 0.90),
        Shape::Shell => ("W1s", 0.65, 0.85),
    };
    Ok(rates.figure(work, plan.tasks, plan.slots).bounds(floor, goal))
}

/// W2: what a hop costs in a chain.
pub(crate) async fn chain(plan: &Plan) -> anyhow::Result<Figure> {
    let data = tempfile::tempdir()?;
    let mut server = Server::start(&plan.program, data.path(), plan.slots).await?;
    server.wait_for_executor().await?;
    let mut text = String::from("workflow: chain\ntasks:\n");
    for at in 0..CHAIN {
        let after = if at == 0 { String::new() } else { format!("after: t{}, ", at - 1) };
        let _ = writeln!(text, "  t{at}: {{ kind: shell, {after}with: {{ command: [/bin/true] }} }}");
    }
    apply(&mut server.client, text).await?;
    let mut hops = Vec::new();
    for round in 0..=plan.rounds {
        let run = start(&mut server.client, "chain").await?;
        wait(&mut server.client, "chain", LOOK_LONG).await?;
        let view = server.client.get_run(v1::GetRunRequest { run }).await?.into_inner();
        let starts: Vec<i64> =
            view.tasks.iter().filter_map(|task| task.attempts.last()?.started_at).collect();
        if round > 0 {
            hops.extend(starts.windows(2).map(|pair| seconds(pair[0], pair[1]) * 1_000.0));
        }
    }
    let high = quantile(&mut hops, 0.99);
    Ok(Figure::lower("W2", format!("chain of {CHAIN}, ms a hop p50"), median(&mut hops))
        .limit(0.8)
        .bounds(4.0, 1.5)
        .note(format!("p99 {high:.2}")))
}

/// W3: from the request to the start of the process.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
pub(crate) async fn request_to_start(plan: &Plan) -> anyhow::Result<Vec<Figure>> {
    let data = tempfile::tempdir()?;
    let mut server = Server::start(&plan.program, data.path(), plan.slots).await?;
    server.wait_for_executor().await?;
    apply(&mut server.client, wide("one", 1, "[/bin/true]", "")).await?;
    let mut samples = Vec::new();
    for round in 0..REQUESTS + 5 {
        let asked = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        let run = start(&mut server.client, "one").await?;
        wait(&mut server.client, "one", LOOK).await?;
        let view = server.client.get_run(v1::GetRunRequest { run }).await?.into_inner();
        let started =
            view.tasks.first().and_then(|task| task.attempts.last()?.started_at).context("it was started")?;
        if round >= 5 {
            let started = Duration::from_micros(u64::try_from(started)?).as_secs_f64();
            samples.push((started - asked) * 1_000.0);
        }
    }
    let high = quantile(&mut samples, 0.99);
    let figure = |what, value| Figure::lower("W3", what, value).note(format!("{REQUESTS} requests"));
    Ok(vec![
        figure("request to process start, ms p50", median(&mut samples)).limit(1.3).bounds(5.0, 2.0),
        figure("request to process start, ms p99", high).bounds(20.0, 5.0),
    ])
}

/// W4: what the program costs while nothing happens, and what the supervisor of its processes costs.
pub(crate) async fn idle(plan: &Plan) -> anyhow::Result<Vec<Figure>> {
    let data = tempfile::tempdir()?;
    let mut server = Server::start(&plan.program, data.path(), plan.slots).await?;
    server.wait_for_executor().await?;
    // One that has run something has all its processes.
    apply(&mut server.client, wide("one", 1, "[/bin/true]", "")).await?;
    start(&mut server.client, "one").await?;
    wait(&mut server.client, "one", LOOK).await?;
    tokio::time::sleep(SETTLE).await;
    let pids = process::with_descendants(server.pid())?;
    let before = process::ticks(&pids)?;
    tokio::time::sleep(IDLE).await;
    let percent = process::percent(process::ticks(&pids)?.saturating_sub(before), IDLE)?;
    anyhow::ensure!(process::with_descendants(server.pid())? == pids, "processes came or went");
    let own = process::resident_mib(server.pid())?;
    let all = pids.iter().map(|pid| process::resident_mib(*pid)).sum::<anyhow::Result<f64>>()?;
    let figure = |what, value| Figure::lower("W4", what, value).limit(0.0);
    Ok(vec![
        figure("idle, master, executor, supervisor, CPU %", percent)
            .bounds(0.3, 0.1)
            .note(format!("over {IDLE:?}, {} processes", pids.len())),
        figure("idle, master, executor, supervisor, RSS MiB", all)
            .bounds(60.0, 25.0)
            .note(format!("{own:.1} without the supervisor; pages that both have count twice")),
    ])
}

/// W5: from the start of the process to the first answer, empty and with live task instances.
pub(crate) async fn start_until_ready(plan: &Plan) -> anyhow::Result<Vec<Figure>> {
    let mut empty = Vec::new();
    for _ in 0..plan.rounds {
        let data = tempfile::tempdir()?;
        let server = Server::start(&plan.program, data.path(), plan.slots).await?;
        empty.push(server.ready_after.as_secs_f64() * 1_000.0);
        server.kill()?;
    }
    let data = tempfile::tempdir()?;
    let mut server = Server::start(&plan.program, data.path(), plan.slots).await?;
    // Nobody carries this label, so that every instance stays ready.
    apply(
        &mut server.client,
        wide("wide", 10_000, "[/bin/true]", "executor: { labels: { site: nowhere } }, "),
    )
    .await?;
    for _ in 0..LIVE_RUNS {
        start(&mut server.client, "wide").await?;
    }
    let work = server.client.get_cluster(v1::GetClusterRequest {}).await?.into_inner();
    server.kill()?;
    let mut full = Vec::new();
    for _ in 0..plan.rounds {
        let server = Server::start(&plan.program, data.path(), plan.slots).await?;
        full.push(server.ready_after.as_secs_f64() * 1_000.0);
        server.kill()?;
    }
    let figure = |what, value| Figure::lower("W5", what, value);
    Ok(vec![
        figure("start until ready, empty, ms", median(&mut empty)).limit(10.0).bounds(300.0, 30.0),
        figure("start until ready, live instances, ms", median(&mut full))
            .limit(100.0)
            .bounds(1_000.0, 300.0)
            .note(format!("{} ready in {} runs", work.ready, work.runs_live)),
    ])
}

//! The works of the design's table of speed, as far as they need neither etcd nor a database server.

use std::{
    fmt::Write as _,
    path::PathBuf,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use millrace_proto::v1;

use crate::{
    figure::{Better, Figure},
    raw,
    server::{Client, Server},
    statistics::{median, quantile},
};

/// Tasks of the chain.
const CHAIN: u32 = 100;
/// Requests of W3.
const REQUESTS: u32 = 60;
/// How long W4 looks at an idle program.
const IDLE: Duration = Duration::from_secs(10);
/// Live task instances of W5, over runs of as many tasks as a document may have.
const LIVE_RUNS: u32 = 10;
/// Pause between two looks whether a run has ended, where the answer is awaited to go on.
const LOOK: Duration = Duration::from_millis(5);
/// The same while a long run is measured by its own times: each look is a query that takes away from what is measured.
const LOOK_LONG: Duration = Duration::from_millis(50);
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
    const fn command(self) -> &'static str {
        match self {
            Self::True => "[/bin/true]",
            Self::Shell => "[/bin/sh, -c, /bin/true]",
        }
    }
}

fn wide(name: &str, tasks: u32, command: &str, more: &str) -> String {
    let mut text = format!("workflow: {name}\nmax_active_runs: 16\ntasks:\n");
    for at in 0..tasks {
        let _ = writeln!(text, "  t{at}: {{ kind: shell, {more}with: {{ command: {command} }} }}");
    }
    text
}

async fn apply(client: &mut Client, source: String) -> anyhow::Result<()> {
    client.apply_workflow(v1::ApplyWorkflowRequest { source, dry_run: false }).await?;
    Ok(())
}

async fn start(client: &mut Client, workflow: &str) -> anyhow::Result<String> {
    let request = v1::StartRunRequest { workflow: workflow.to_owned(), ..Default::default() };
    Ok(client.start_run(request).await?.into_inner().run)
}

/// Waits for the newest run of a workflow to end and returns its summary.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
async fn wait(client: &mut Client, workflow: &str, pause: Duration) -> anyhow::Result<v1::RunSummary> {
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

fn seconds(from: i64, to: i64) -> f64 {
    Duration::from_micros(u64::try_from(to.saturating_sub(from)).unwrap_or(0)).as_secs_f64()
}

/// W1 and W1s: a durable fan-out, as the ratio to the raw loop of the same shape in the same minute.
pub(crate) async fn fan_out(plan: &Plan, shape: Shape) -> anyhow::Result<Figure> {
    let data = tempfile::tempdir()?;
    let mut server = Server::start(&plan.program, data.path(), plan.slots).await?;
    server.wait_for_executor().await?;
    apply(&mut server.client, wide("warm", 500, shape.command(), "")).await?;
    start(&mut server.client, "warm").await?;
    wait(&mut server.client, "warm", LOOK_LONG).await?;
    apply(&mut server.client, wide("wide", plan.tasks, shape.command(), "")).await?;
    let (mut ratios, mut rates, mut limits) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let before = raw::spawn_rate(shape, plan.tasks / 2)?;
        start(&mut server.client, "wide").await?;
        let run = wait(&mut server.client, "wide", LOOK_LONG).await?;
        let after = raw::spawn_rate(shape, plan.tasks / 2)?;
        let rate = f64::from(plan.tasks) / seconds(run.created_at, run.ended_at.context("it has ended")?);
        let limit = 2.0 / (1.0 / before + 1.0 / after);
        ratios.push(rate / limit);
        rates.push(rate);
        limits.push(limit);
    }
    let (work, floor, goal) = match shape {
        Shape::True => ("W1", 0.60, 0.90),
        Shape::Shell => ("W1s", 0.65, 0.85),
    };
    Ok(Figure {
        work,
        what: format!("fan-out of {}, ratio to raw", plan.tasks),
        value: median(&mut ratios),
        limit: Some(1.0),
        floor: Some(floor),
        goal: Some(goal),
        better: Better::Higher,
        note: format!(
            "{:.0}/s beside {:.0}/s raw, {} slots",
            median(&mut rates),
            median(&mut limits),
            plan.slots
        ),
    })
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
    Ok(Figure {
        work: "W2",
        what: format!("chain of {CHAIN}, ms a hop p50"),
        value: median(&mut hops),
        limit: Some(0.8),
        floor: Some(4.0),
        goal: Some(1.5),
        better: Better::Lower,
        note: format!("p99 {high:.2}"),
    })
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
    let figure = |what: &str, value, limit, floor, goal| Figure {
        work: "W3",
        what: what.to_owned(),
        value,
        limit,
        floor: Some(floor),
        goal: Some(goal),
        better: Better::Lower,
        note: format!("{REQUESTS} requests"),
    };
    let high = quantile(&mut samples, 0.99);
    Ok(vec![
        figure("request to process start, ms p50", median(&mut samples), Some(1.3), 5.0, 2.0),
        figure("request to process start, ms p99", high, None, 20.0, 5.0),
    ])
}

/// W4: what the program costs while nothing happens.
pub(crate) async fn idle(plan: &Plan) -> anyhow::Result<Vec<Figure>> {
    let data = tempfile::tempdir()?;
    let mut server = Server::start(&plan.program, data.path(), plan.slots).await?;
    server.wait_for_executor().await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = cpu_ticks(server.pid())?;
    tokio::time::sleep(IDLE).await;
    let ticks = cpu_ticks(server.pid())?.saturating_sub(before);
    let per_second =
        nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK)?.context("the clock has a rate")?;
    #[expect(clippy::cast_precision_loss, reason = "a few ticks")]
    let percent = ticks as f64 / per_second as f64 / IDLE.as_secs_f64() * 100.0;
    let figure = |what: &str, value, floor, goal| Figure {
        work: "W4",
        what: what.to_owned(),
        value,
        limit: Some(0.0),
        floor: Some(floor),
        goal: Some(goal),
        better: Better::Lower,
        note: format!("over {IDLE:?}"),
    };
    Ok(vec![
        figure("idle, master and executor, CPU %", percent, 0.3, 0.1),
        figure("idle, master and executor, RSS MiB", resident_mib(server.pid())?, 60.0, 25.0),
    ])
}

fn cpu_ticks(pid: u32) -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(')').context("stat has a name")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    // proc(5): utime and stime are fields 14 and 15; the name is field 2.
    let field = |at: usize| anyhow::Ok(fields.get(at).context("stat has its fields")?.parse::<u64>()?);
    Ok(field(11)? + field(12)?)
}

fn resident_mib(pid: u32) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).context("status has VmRSS")?;
    let kib: f64 = line.split_whitespace().nth(1).context("VmRSS has a value")?.parse()?;
    Ok(kib / 1_024.0)
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
    let figure = |what: &str, value, limit, floor, goal, note: String| Figure {
        work: "W5",
        what: what.to_owned(),
        value,
        limit: Some(limit),
        floor: Some(floor),
        goal: Some(goal),
        better: Better::Lower,
        note,
    };
    Ok(vec![
        figure("start until ready, empty, ms", median(&mut empty), 10.0, 300.0, 30.0, String::new()),
        figure(
            "start until ready, live instances, ms",
            median(&mut full),
            100.0,
            1_000.0,
            300.0,
            format!("{} ready in {} runs", work.ready, work.runs_live),
        ),
    ])
}

//! Schedules: how late a due process starts, and how long 10,000 that are due at once keep the leader busy.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use millrace_proto::v1;
use millrace_servers::client::Control;
use tokio::task::JoinSet;

use super::{
    Plan,
    crowd::{Crowd, LABEL},
    dispatch,
    site::{Cluster, Shape},
};
use crate::{
    figure::Figure,
    statistics::{median, quantile},
    work,
};

/// Workflows that are due each second.
const WORKFLOWS: u32 = 5;
/// How long they are watched.
const WATCHED: Duration = Duration::from_secs(40);
const SECOND: i64 = 1_000_000;

/// Schedules that are due at once.
const DUE: u32 = 10_000;
/// Definitions that are put in force at a time.
const APPLIED_AT_ONCE: usize = 32;
/// Definitions from which it is told how long all of them take.
const TRIAL: u32 = 200;
/// Sessions that take the starts, and the slots of each: all of them fit.
const SESSIONS: u32 = 10;
const SLOTS: u32 = 1_200;
/// Left between the last definition and the second, in microseconds, for the leader to be quiet again.
const QUIET: i64 = 10 * SECOND;
/// How long all of them may take.
const DUE_MAX: Duration = Duration::from_secs(60);

/// From the nominal second to the start of the process.
pub(super) async fn lateness(plan: &Plan) -> anyhow::Result<Vec<Figure>> {
    let cluster = Cluster::start(plan, &Shape::usual(plan)).await?;
    let (_, mut client) = cluster.led().await?;
    for number in 0..WORKFLOWS {
        let text = "schedule: { cron: \"* * * * * *\" }\nmax_active_runs: 16\ntasks:\n  t: { kind: shell, with: { command: [/bin/true] } }\n";
        work::apply(&mut client, format!("workflow: tick{number}\n{text}")).await?;
    }
    tokio::time::sleep(WATCHED).await;
    let rows = cluster.database.try_sql(
        "SELECT attempt.started_at - run.interval_end FROM attempt JOIN run ON run.id = attempt.run_id \
         WHERE attempt.started_at IS NOT NULL ORDER BY run.interval_end",
    );
    let rows = rows.map_err(anyhow::Error::msg)?;
    let late = rows.lines().map(|row| Ok(f64::from(row.parse::<i32>()?) / 1_000.0));
    let late: Vec<f64> = late.collect::<anyhow::Result<_>>()?;
    // The first ones are those that warm up.
    let mut late = late[late.len().min(2 * WORKFLOWS as usize)..].to_vec();
    let expected = u64::from(WORKFLOWS) * (WATCHED.as_secs() - 4);
    ensure!(late.len() as u64 >= expected, "{} starts where {expected} were due", late.len());
    let (low, high) = (median(&mut late), quantile(&mut late, 0.99));
    let note = format!("p50 {low:.1}, {} starts, {WORKFLOWS} due each second", late.len());
    Ok(vec![
        Figure::lower("cron", "nominal second to process start, ms p99", high)
            .limit(3.0)
            .bounds(20.0, 5.0)
            .note(note),
    ])
}

/// From the second at which they are due to the last start that an executor has: what is sent is durable.
pub(super) async fn due(plan: &Plan) -> anyhow::Result<Vec<Figure>> {
    let cluster = Cluster::start(plan, &Shape { executors: 0, ..Shape::usual(plan) }).await?;
    let (leader, client) = cluster.led().await?;
    let mut crowd = Crowd::open(&cluster.masters[leader].url(), SESSIONS, SLOTS).await?;
    // Due in the night: it does not fire today.
    let begun = dispatch::now()?;
    apply_all(&client, "trial", TRIAL, "0 0 0 1 1 *").await?;
    let each = (dispatch::now()? - begun) / i64::from(TRIAL);
    let mut samples = Vec::new();
    for round in 0..=plan.rounds {
        // Half as much again as the trial says: a larger table is slower.
        let at = (dispatch::now()? + each * i64::from(DUE) * 3 / 2 + 2 * QUIET) / SECOND * SECOND;
        apply_all(&client, "due", DUE, &cron(at)).await?;
        let left = at - dispatch::now()?;
        ensure!(left > QUIET / 2, "definitions took {} s longer than the trial said", -left / SECOND);
        crowd.take_starts();
        tokio::time::sleep(Duration::from_micros(u64::try_from(left)?)).await;
        let starts = collect(&mut crowd).await?;
        let last = starts.iter().max().context("there were starts")?;
        ensure!(starts.iter().all(|start| *start >= at), "something was started before its second");
        if round > 0 {
            samples.push(f64::from(u32::try_from(last - at)?) / 1_000.0);
        }
    }
    let figure = Figure::lower("due", "10,000 due in one second, last dispatch, ms", median(&mut samples));
    let note = format!(
        "{SESSIONS} scripted executors; a definition took {:.2} ms",
        f64::from(u32::try_from(each)?) / 1_000.0
    );
    Ok(vec![figure.limit(100.0).bounds(2_000.0, 250.0).note(note)])
}

/// Waits for the starts of all that is due.
async fn collect(crowd: &mut Crowd) -> anyhow::Result<Vec<i64>> {
    let begun = dispatch::now()?;
    while crowd.count_starts() < DUE as usize {
        if dispatch::now()? - begun > i64::try_from(DUE_MAX.as_micros())? {
            bail!("{} of {DUE} were started within {DUE_MAX:?}", crowd.count_starts());
        }
        crowd.check().await?;
        tokio::time::sleep(work::LOOK_LONG).await;
    }
    Ok(crowd.take_starts())
}

/// Returns the expression that is due at one second of today alone, and not again for a year.
fn cron(at: i64) -> String {
    let at = millrace_common::time::Timestamp::from_micros(at).to_datetime();
    at.format("%-S %-M %-H %-d %-m *").to_string()
}

/// Puts workflows in force that are due at the same times.
async fn apply_all(client: &Control, name: &str, count: u32, cron: &str) -> anyhow::Result<()> {
    let mut calls = JoinSet::new();
    for number in 0..count {
        if calls.len() >= APPLIED_AT_ONCE
            && let Some(ended) = calls.join_next().await
        {
            ended??;
        }
        let (label, value) = LABEL;
        let source = format!(
            "workflow: {name}{number}\nschedule: {{ cron: \"{cron}\" }}\ntasks:\n  t: {{ kind: shell, executor: {{ labels: {{ {label}: \"{value}\" }} }}, with: {{ command: [/bin/true] }} }}\n"
        );
        let mut client = client.clone();
        calls.spawn(async move {
            client.apply_workflow(v1::ApplyWorkflowRequest { source, dry_run: false }).await.map(drop)
        });
    }
    while let Some(ended) = calls.join_next().await {
        ended??;
    }
    Ok(())
}

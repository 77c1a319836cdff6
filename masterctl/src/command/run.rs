//! Runs: start, watch, show, stop, explain.

mod progress;
mod view;

use std::io::Write as _;

use anyhow::{Context, anyhow};
use millrace_common::{id::RunId, state::RunState};
use millrace_proto::v1;
use serde_json::{Map, Value};

use self::view::{Explained, Moved, RunView, Runs, Started};
use super::workflow::Definition;
use crate::{
    cli::{Format, Global, Page, Run},
    client::{self, Client},
    failure::Failure,
    output::print,
};

pub(super) async fn start(global: &Global, run: Run) -> Result<(), Failure> {
    let Run { workflow, params, logical_date, key, wait } = run;
    let params = parse_params(&params)?;
    let mut client = client::connect(global).await?;
    let request = v1::StartRunRequest {
        workflow,
        params,
        logical_date: logical_date.map(millrace_common::time::Timestamp::as_micros),
        idempotency_key: key.unwrap_or_default(),
    };
    let started = client.start_run(request).await?.into_inner();
    after_start(global, &mut client, started, wait).await
}

async fn after_start(
    global: &Global,
    client: &mut Client,
    started: v1::StartRunResponse,
    wait: bool,
) -> Result<(), Failure> {
    if !wait {
        print(&Started(started), global.output)?;
        return Ok(());
    }
    let ended = watch(client, started.run, global.output).await?;
    let state = ended.run.as_ref().map(|run| run.state.clone()).unwrap_or_default();
    print(&RunView(ended), global.output)?;
    if state.parse() == Ok(RunState::Success) { Ok(()) } else { Err(Failure::Unsuccessful) }
}

/// Follows a run to its end, showing it to a person.
async fn watch(client: &mut Client, run: String, format: Format) -> Result<v1::GetRunResponse, Failure> {
    let mut views = client.watch_run(v1::GetRunRequest { run }).await?.into_inner();
    let mut progress = (format == Format::Table).then(progress::Progress::new);
    let mut last = None;
    while let Some(view) = views.message().await? {
        if let Some(progress) = &mut progress {
            progress.update(&view);
        }
        last = Some(view);
    }
    last.ok_or_else(|| Failure::Unreachable("the master ended the watch without a word".to_owned()))
}

/// Reads `name=value` pairs; a value that is JSON is taken as such, anything else as text.
fn parse_params(pairs: &[String]) -> anyhow::Result<String> {
    let mut params = Map::new();
    for pair in pairs {
        let (name, value) = pair.split_once('=').with_context(|| format!("{pair:?} is not NAME=VALUE"))?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        if params.insert(name.to_owned(), value).is_some() {
            return Err(anyhow!("parameter {name} is given twice"));
        }
    }
    Ok(Value::Object(params).to_string())
}

pub(super) async fn list(
    global: &Global,
    workflow: Option<String>,
    state: Option<String>,
    page: Page,
) -> Result<(), Failure> {
    let mut client = client::connect(global).await?;
    let request = v1::ListRunsRequest {
        workflow: workflow.unwrap_or_default(),
        state: state.unwrap_or_default(),
        page_size: page.limit,
        page_token: page.after,
    };
    let listed = client.list_runs(request).await?.into_inner();
    print(&Runs(listed), global.output)?;
    Ok(())
}

pub(super) async fn show(global: &Global, what: &str) -> Result<(), Failure> {
    let mut client = client::connect(global).await?;
    if what.parse::<RunId>().is_ok() {
        let run = client.get_run(v1::GetRunRequest { run: what.to_owned() }).await?.into_inner();
        print(&RunView(run), global.output)?;
    } else {
        let request = v1::GetWorkflowRequest { name: what.to_owned(), version: 0 };
        let workflow = client.get_workflow(request).await?.into_inner();
        print(&Definition(workflow), global.output)?;
    }
    Ok(())
}

pub(super) async fn logs(
    global: &Global,
    run: String,
    task: String,
    attempt: Option<u32>,
    follow: bool,
) -> Result<(), Failure> {
    let mut client = client::connect(global).await?;
    let request = v1::ReadOutputRequest { run, task, attempt: attempt.unwrap_or(0), offset: 0, follow };
    let mut pieces = client.read_output(request).await?.into_inner();
    let mut stdout = std::io::stdout().lock();
    while let Some(piece) = pieces.message().await? {
        stdout.write_all(&piece.bytes).context("cannot write to standard output")?;
        stdout.flush().context("cannot write to standard output")?;
    }
    Ok(())
}

pub(super) async fn cancel(global: &Global, run: String) -> Result<(), Failure> {
    let state = client::connect(global)
        .await?
        .cancel_run(v1::RunRequest { run: run.clone() })
        .await?
        .into_inner()
        .state;
    moved(global, run, state)
}

pub(super) async fn pause(global: &Global, run: String) -> Result<(), Failure> {
    let state = client::connect(global)
        .await?
        .pause_run(v1::RunRequest { run: run.clone() })
        .await?
        .into_inner()
        .state;
    moved(global, run, state)
}

pub(super) async fn resume(global: &Global, run: String) -> Result<(), Failure> {
    let state = client::connect(global)
        .await?
        .resume_run(v1::RunRequest { run: run.clone() })
        .await?
        .into_inner()
        .state;
    moved(global, run, state)
}

fn moved(global: &Global, run: String, state: String) -> Result<(), Failure> {
    print(&Moved { run, state }, global.output)?;
    Ok(())
}

pub(super) async fn retry(global: &Global, run: String, wait: bool) -> Result<(), Failure> {
    let mut client = client::connect(global).await?;
    let started = client.retry_run(v1::RunRequest { run }).await?.into_inner();
    after_start(global, &mut client, started, wait).await
}

pub(super) async fn explain(global: &Global, run: String, task: Option<String>) -> Result<(), Failure> {
    let mut client = client::connect(global).await?;
    let request = v1::ExplainRunRequest { run, task: task.unwrap_or_default() };
    let explained = client.explain_run(request).await?.into_inner();
    print(&Explained(explained), global.output)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_json_where_they_can_be() {
        let pairs = ["n=3", "day=2026-01-31", "text=a=b", "flag=true"].map(str::to_owned);
        assert_eq!(parse_params(&pairs).unwrap(), r#"{"n":3,"day":"2026-01-31","text":"a=b","flag":true}"#);
        assert!(parse_params(&["n".to_owned()]).is_err());
        assert!(parse_params(&["n=1".to_owned(), "n=2".to_owned()]).is_err());
    }
}

//! Runs: start, watch, show, stop, explain.

mod progress;
mod view;

use std::io::Write as _;

use anyhow::{Context, anyhow};
use millrace_common::{id::RunId, state::RunState, time::Timestamp};
use millrace_proto::v1;
use serde_json::{Map, Value};
use uuid::Uuid;

use self::{
    progress::Progress,
    view::{Explained, Moved, RunView, Runs, Started},
};
use super::workflow::Definition;
use crate::{
    cli::{Format, Global, Logs, Page, Run},
    client::{self, Client, Patience},
    failure::Failure,
    output::{Reader, emit, print},
};

pub(super) async fn start(global: &Global, run: Run) -> Result<(), Failure> {
    let Run { workflow, params, logical_date, key, wait } = run;
    let params = parse_params(&params)?;
    let mut client = client::connect(global).await?;
    let request = v1::StartRunRequest {
        workflow,
        params,
        logical_date: logical_date.map(Timestamp::as_micros),
        // With a key the request can be repeated where its answer was lost.
        idempotency_key: key.unwrap_or_else(|| format!("masterctl-{}", Uuid::now_v7())),
    };
    let mut patience = Patience::default();
    let started = loop {
        match client.start_run(request.clone()).await {
            Ok(started) => break started.into_inner(),
            Err(status) => patience.wait(status.into(), say).await?,
        }
    };
    after_start(global, &mut client, started, wait).await
}

/// Says something beside the output.
fn say(text: &str) {
    // Nobody can be told that standard error is gone.
    let _ = writeln!(std::io::stderr(), "{text}");
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
    let ended = watch(client, &started.run, global.output).await?;
    let state = state_of(&ended);
    print(&RunView(ended), global.output)?;
    if state == Some(RunState::Success) { Ok(()) } else { Err(Failure::Unsuccessful) }
}

fn state_of(view: &v1::GetRunResponse) -> Option<RunState> {
    view.run.as_ref().and_then(|run| run.state.parse().ok())
}

/// Follows a run to its end, showing it to a person, over restarts of the master.
async fn watch(client: &mut Client, run: &str, format: Format) -> Result<v1::GetRunResponse, Failure> {
    let mut progress = (format == Format::Table).then(|| Progress::new(run));
    let mut patience = Patience::default();
    loop {
        let failure = match watch_once(client, run, progress.as_mut(), &mut patience).await {
            Ok(ended) => return Ok(ended),
            Err(failure) => failure,
        };
        let say = |text: &str| progress.as_ref().map_or_else(|| say(text), |progress| progress.say(text));
        patience.wait(failure, say).await?;
    }
}

async fn watch_once(
    client: &mut Client,
    run: &str,
    mut progress: Option<&mut Progress>,
    patience: &mut Patience,
) -> Result<v1::GetRunResponse, Failure> {
    let mut views = client.watch_run(v1::GetRunRequest { run: run.to_owned() }).await?.into_inner();
    while let Some(view) = views.message().await? {
        patience.answered();
        if let Some(progress) = &mut progress {
            progress.update(&view);
        }
        if state_of(&view).is_some_and(RunState::is_final) {
            return Ok(view);
        }
    }
    Err(Failure::Unreachable("the master ended the watch before the run had ended".to_owned()))
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

pub(super) async fn logs(global: &Global, logs: Logs) -> Result<(), Failure> {
    let Logs { run, task, attempt, follow } = logs;
    let mut client = client::connect(global).await?;
    let mut request = v1::ReadOutputRequest { run, task, attempt: attempt.unwrap_or(0), offset: 0, follow };
    let mut patience = Patience::default();
    loop {
        match copy_output(&mut client, &mut request, &mut patience).await {
            Err(failure) if follow => patience.wait(failure, say).await?,
            end => return end,
        }
    }
}

/// Prints output until it ends or nobody reads it; notes in the request where to go on after a break.
async fn copy_output(
    client: &mut Client,
    request: &mut v1::ReadOutputRequest,
    patience: &mut Patience,
) -> Result<(), Failure> {
    let mut pieces = client.read_output(request.clone()).await?.into_inner();
    while let Some(piece) = pieces.message().await? {
        patience.answered();
        if emit(&piece.bytes)? == Reader::Gone {
            return Ok(());
        }
        request.attempt = piece.attempt;
        request.offset = piece.offset + piece.bytes.len() as u64;
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

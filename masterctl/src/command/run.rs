//! Runs: start, watch, show, stop, explain.

mod params;
mod progress;
mod view;

use anyhow::anyhow;
use chrono_tz::Tz;
use millrace_common::{
    definition,
    id::{RunId, WorkflowName},
    state::RunState,
    time::Timestamp,
    workflow::Workflow,
};
use millrace_proto::v1;
use tonic::Code;
use uuid::Uuid;

use self::{
    progress::Progress,
    view::{Ended, Explained, Moved, RunView, Runs, Started},
};
use super::workflow::{Definition, with_nearest};
use crate::{
    cli::{Format, Global, LogicalDate, Logs, Page, Run},
    client::{self, Client, Patience},
    failure::Failure,
    output::{Reader, emit, print, say},
};

pub(super) async fn start(global: &Global, run: Run) -> Result<(), Failure> {
    let Run { workflow, params, logical_date, key, wait } = run;
    let params = params::split(&params)?;
    let mut client = client::connect(global).await?;
    let needs_definition = !params.is_empty() || matches!(logical_date, Some(LogicalDate::Day(_)));
    let definition = if needs_definition { definition(&mut client, &workflow).await? } else { None };
    let declared = definition.as_ref().map(|workflow| workflow.params.clone()).unwrap_or_default();
    let request = v1::StartRunRequest {
        workflow,
        params: params::object(&params, &declared),
        logical_date: logical_date
            .and_then(|date| moment(date, definition.as_ref()))
            .map(Timestamp::as_micros),
        // With a key the request can be repeated where its answer was lost.
        idempotency_key: key.unwrap_or_else(|| format!("masterctl-{}", Uuid::now_v7())),
    };
    let mut patience = Patience::default();
    let started = loop {
        match client.start_run(request.clone()).await {
            Ok(started) => break started.into_inner(),
            Err(status) if status.code() == Code::NotFound => {
                return Err(with_nearest(&mut client, &request.workflow, status).await);
            }
            Err(status) => patience.wait(status.into(), say).await?,
        }
    };
    after_start(global, &mut client, started, wait).await
}

/// Returns the definition in force, to read what a person wrote as the workflow declares it; nothing where this build
/// cannot read it, because the master decides in the end.
async fn definition(client: &mut Client, name: &str) -> Result<Option<Workflow>, Failure> {
    let request = v1::GetWorkflowRequest { name: name.to_owned(), version: 0 };
    match client.get_workflow(request).await {
        Ok(found) => Ok(definition::parse(&found.into_inner().source).ok()),
        Err(status) if status.code() == Code::NotFound => Err(with_nearest(client, name, status).await),
        Err(status) => Err(status.into()),
    }
}

fn moment(date: LogicalDate, workflow: Option<&Workflow>) -> Option<Timestamp> {
    let zone = workflow.and_then(|workflow| workflow.schedule.as_ref()).map(|schedule| schedule.timezone);
    match date {
        LogicalDate::Time(time) => Some(time),
        LogicalDate::Day(day) => Timestamp::start_of_day(&day, zone.unwrap_or(Tz::UTC)),
    }
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
    let run = started.run;
    say(&format!("run {run} {}", if started.existed { "was started before" } else { "is started" }));
    let ended = tokio::select! {
        biased;
        // Unhandled, it would leave half a picture and a person who does not know what became of the run.
        Ok(()) = tokio::signal::ctrl_c() => return Err(Failure::Interrupted(goes_on(&run))),
        ended = watch(client, &run, global.output) => ended,
    };
    let ended = ended.inspect_err(|failure| {
        if failure.is_away() {
            say(&goes_on(&run));
        }
    })?;
    let state = state_of(&ended);
    print(&Ended(RunView(ended)), global.output)?;
    if state == Some(RunState::Success) { Ok(()) } else { Err(Failure::Unsuccessful) }
}

fn goes_on(run: &str) -> String {
    format!(
        "nobody waits for run {run} any more, and it goes on: `masterctl show {run}` shows it, `masterctl cancel {run}` ends it"
    )
}

fn state_of(view: &v1::GetRunResponse) -> Option<RunState> {
    view.run.as_ref().and_then(|run| run.state.parse().ok())
}

/// Follows a run to its end, showing it to a person, over restarts of the master.
async fn watch(client: &mut Client, run: &str, format: Format) -> Result<v1::GetRunResponse, Failure> {
    let mut progress = Progress::new(run, format);
    let mut patience = Patience::default();
    loop {
        let failure = match watch_once(client, run, &mut progress, &mut patience).await {
            Ok(ended) => return Ok(ended),
            Err(failure) => failure,
        };
        patience.wait(failure, |text| progress.say(text)).await?;
    }
}

async fn watch_once(
    client: &mut Client,
    run: &str,
    progress: &mut Progress,
    patience: &mut Patience,
) -> Result<v1::GetRunResponse, Failure> {
    let mut views = client.watch_run(v1::GetRunRequest { run: run.to_owned() }).await?.into_inner();
    while let Some(view) = views.message().await? {
        patience.answered();
        progress.update(&view);
        if state_of(&view).is_some_and(RunState::is_final) {
            return Ok(view);
        }
    }
    Err(Failure::Unreachable("the master ended the watch before the run had ended".to_owned()))
}

/// Refuses what cannot be the id of a run, and says where ids are; names of workflows are a common slip.
fn run_id(text: String) -> Result<String, Failure> {
    if text.parse::<RunId>().is_ok() {
        return Ok(text);
    }
    let of = if text.parse::<WorkflowName>().is_ok() { format!(" --workflow {text}") } else { String::new() };
    Err(anyhow!("{text:?} is not the id of a run; `masterctl list runs{of}` shows ids").into())
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
        match client.get_workflow(request).await {
            Ok(workflow) => print(&Definition(workflow.into_inner()), global.output)?,
            Err(status) => return Err(with_nearest(&mut client, what, status).await),
        }
    }
    Ok(())
}

pub(super) async fn logs(global: &Global, logs: Logs) -> Result<(), Failure> {
    let Logs { run, task, attempt, follow } = logs;
    let run = run_id(run)?;
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
    let run = run_id(run)?;
    let state = client::connect(global)
        .await?
        .cancel_run(v1::RunRequest { run: run.clone() })
        .await?
        .into_inner()
        .state;
    let is_over = state.parse::<RunState>().is_ok_and(RunState::is_final);
    moved(global, run, state)?;
    if !is_over {
        say("nothing new of it starts; what runs of it is being ended");
    }
    Ok(())
}

pub(super) async fn pause(global: &Global, run: String) -> Result<(), Failure> {
    let run = run_id(run)?;
    let state = client::connect(global)
        .await?
        .pause_run(v1::RunRequest { run: run.clone() })
        .await?
        .into_inner()
        .state;
    moved(global, run, state)
}

pub(super) async fn resume(global: &Global, run: String) -> Result<(), Failure> {
    let run = run_id(run)?;
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
    let run = run_id(run)?;
    let mut client = client::connect(global).await?;
    let started = client.retry_run(v1::RunRequest { run }).await?.into_inner();
    after_start(global, &mut client, started, wait).await
}

pub(super) async fn explain(global: &Global, run: String, task: Option<String>) -> Result<(), Failure> {
    let run = run_id(run)?;
    let mut client = client::connect(global).await?;
    let request = v1::ExplainRunRequest { run, task: task.unwrap_or_default() };
    let explained = client.explain_run(request).await?.into_inner();
    print(&Explained(explained), global.output)?;
    Ok(())
}

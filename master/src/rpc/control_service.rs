//! What people's tools call: writes go to the leader, reads to the store.

mod read;
mod view;
mod watch;

use std::{pin::Pin, sync::Arc};

use futures_util::Stream;
use millrace_common::{
    definition,
    id::{RunId, WorkflowName},
    time::Timestamp,
    workflow::Workflow,
};
use millrace_core::{Answer, Request as Ask, StartRun};
use millrace_proto::v1::{self, control_service_server::ControlService};
use millrace_store::Store;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use super::status;
use crate::{definitions::Definitions, feed::Feed, leader::Handle, output::OutputStore};

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    leader: Handle,
    store: Store,
    feed: Feed,
    output: Arc<OutputStore>,
    definitions: Arc<Definitions>,
    tasks: TaskTracker,
    holder: String,
}

type Reply<T> = Result<Response<T>, Status>;
type ReplyStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Control {
    #[expect(clippy::too_many_arguments, reason = "called once, with each part under its own name")]
    pub(crate) const fn new(
        leader: Handle,
        store: Store,
        feed: Feed,
        output: Arc<OutputStore>,
        definitions: Arc<Definitions>,
        tasks: TaskTracker,
        holder: String,
    ) -> Self {
        Self { leader, store, feed, output, definitions, tasks, holder }
    }

    /// Asks the leader; a refusal is an error of the call.
    async fn ask(&self, request: Ask) -> Result<Answer, Status> {
        match self.leader.request(request).await.map_err(status::of_leader_gone)? {
            Answer::Refused(refusal) => Err(status::of_refusal(&refusal)),
            answer => Ok(answer),
        }
    }

    async fn move_run(&self, run: &str, request: fn(RunId) -> Ask) -> Reply<v1::RunResponse> {
        let run = run_id(run)?;
        match self.ask(request(run)).await {
            Ok(Answer::RunMoved(state)) => Ok(Response::new(v1::RunResponse { state: state.to_string() })),
            Ok(other) => Err(unexpected(&other)),
            Err(error) if error.code() == tonic::Code::NotFound => Err(self.not_live(run, error).await),
            Err(error) => Err(error),
        }
    }

    /// Tells an ended run from one that never was.
    async fn not_live(&self, run: RunId, error: Status) -> Status {
        match self.store.run(run).await {
            Ok(Some(row)) => Status::failed_precondition(format!("run {run} has ended: it is {}", row.state)),
            Ok(None) => Status::not_found(format!("there is no run {run}")),
            Err(_) => error,
        }
    }
}

fn run_id(text: &str) -> Result<RunId, Status> {
    text.parse().map_err(|error| Status::invalid_argument(format!("{text:?} is not the id of a run: {error}")))
}

fn workflow_name(text: &str) -> Result<WorkflowName, Status> {
    text.parse().map_err(|error| Status::invalid_argument(format!("{text:?} is not a workflow's name: {error}")))
}

fn unexpected(answer: &Answer) -> Status {
    tracing::error!(?answer, "the leader answered another question");
    Status::internal("the leader answered another question; this is a fault of the master")
}

#[tonic::async_trait]
impl ControlService for Control {
    type WatchRunStream = ReplyStream<v1::GetRunResponse>;
    type ReadOutputStream = ReplyStream<v1::OutputPiece>;

    async fn apply_workflow(&self, request: Request<v1::ApplyWorkflowRequest>) -> Reply<v1::ApplyWorkflowResponse> {
        let v1::ApplyWorkflowRequest { source, dry_run } = request.into_inner();
        let workflow = definition::parse(&source).map_err(|rejected| Status::invalid_argument(rejected.to_string()))?;
        let before = self.in_force(&workflow.name).await?;
        let differences = before.as_ref().map_or_else(Vec::new, |(_, before)| {
            definition::diff(before, &workflow).iter().map(ToString::to_string).collect()
        });
        let name = workflow.name.to_string();
        let is_new = before.is_none();
        let (version, changed) = if dry_run {
            let is_changed = before.as_ref().is_none_or(|(_, before)| **before != workflow);
            (before.map_or(0, |(version, _)| version) + u32::from(is_changed), is_changed)
        } else {
            let ask = Ask::ApplyWorkflow { workflow: Arc::new(workflow), source: source.into() };
            match self.ask(ask).await? {
                Answer::WorkflowApplied { version, is_changed } => (version, is_changed),
                other => return Err(unexpected(&other)),
            }
        };
        Ok(Response::new(v1::ApplyWorkflowResponse { name, version, is_new, changed, differences }))
    }

    async fn list_workflows(&self, request: Request<v1::ListWorkflowsRequest>) -> Reply<v1::ListWorkflowsResponse> {
        self.read_workflows(request.into_inner()).await
    }

    async fn get_workflow(&self, request: Request<v1::GetWorkflowRequest>) -> Reply<v1::GetWorkflowResponse> {
        self.read_workflow(request.into_inner()).await
    }

    async fn start_run(&self, request: Request<v1::StartRunRequest>) -> Reply<v1::StartRunResponse> {
        let request = request.into_inner();
        let workflow = workflow_name(&request.workflow)?;
        let key = Some(request.idempotency_key).filter(|key| !key.is_empty());
        if let Some(key) = &key
            && let Some(run) = self.store.run_by_key(&workflow, key).await.map_err(|error| status::of_query(&error))?
        {
            return Ok(Response::new(v1::StartRunResponse { run: run.to_string(), existed: true }));
        }
        let Some((_, definition)) = self.in_force(&workflow).await? else {
            return Err(Status::not_found(format!("there is no workflow {workflow}; apply its definition first")));
        };
        let params = resolve_params(&definition, &request.params)?;
        let logical_date = request.logical_date.map(Timestamp::from_micros);
        let idempotency_key = key.map(Into::into);
        let start = StartRun { workflow, params, logical_date, idempotency_key };
        run_started(self.ask(Ask::StartRun(start)).await?)
    }

    async fn list_runs(&self, request: Request<v1::ListRunsRequest>) -> Reply<v1::ListRunsResponse> {
        self.read_runs(request.into_inner()).await
    }

    async fn get_run(&self, request: Request<v1::GetRunRequest>) -> Reply<v1::GetRunResponse> {
        let run = run_id(&request.into_inner().run)?;
        Ok(Response::new(self.read_run(run).await?))
    }

    async fn watch_run(&self, request: Request<v1::GetRunRequest>) -> Reply<Self::WatchRunStream> {
        let run = run_id(&request.into_inner().run)?;
        Ok(Response::new(self.watch(run).await?))
    }

    async fn cancel_run(&self, request: Request<v1::RunRequest>) -> Reply<v1::RunResponse> {
        self.move_run(&request.into_inner().run, Ask::CancelRun).await
    }

    async fn pause_run(&self, request: Request<v1::RunRequest>) -> Reply<v1::RunResponse> {
        self.move_run(&request.into_inner().run, Ask::PauseRun).await
    }

    async fn resume_run(&self, request: Request<v1::RunRequest>) -> Reply<v1::RunResponse> {
        self.move_run(&request.into_inner().run, Ask::ResumeRun).await
    }

    async fn retry_run(&self, request: Request<v1::RunRequest>) -> Reply<v1::StartRunResponse> {
        let run = run_id(&request.into_inner().run)?;
        let ended = self.store.ended_run(run).await.map_err(|error| status::of_query(&error))?;
        let ended = ended.ok_or_else(|| Status::not_found(format!("there is no run {run}")))?;
        run_started(self.ask(Ask::RetryRun(Box::new(ended))).await?)
    }

    async fn explain_run(&self, request: Request<v1::ExplainRunRequest>) -> Reply<v1::ExplainRunResponse> {
        let v1::ExplainRunRequest { run, task } = request.into_inner();
        let run = run_id(&run)?;
        let task = Some(task).filter(|task| !task.is_empty());
        let task = task
            .map(|task| task.parse().map_err(|error| Status::invalid_argument(format!("{task:?}: {error}"))))
            .transpose()?;
        match self.ask(Ask::ExplainRun { run, task }).await {
            Ok(Answer::Explained(explanation)) => Ok(Response::new(view::explanation(*explanation))),
            Ok(other) => Err(unexpected(&other)),
            Err(error) if error.code() == tonic::Code::NotFound => self.explain_ended(run, error).await,
            Err(error) => Err(error),
        }
    }

    async fn read_output(&self, request: Request<v1::ReadOutputRequest>) -> Reply<Self::ReadOutputStream> {
        let request = request.into_inner();
        let run = run_id(&request.run)?;
        Ok(Response::new(self.stream_output(run, request).await?))
    }

    async fn list_executors(&self, _: Request<v1::ListExecutorsRequest>) -> Reply<v1::ListExecutorsResponse> {
        match self.ask(Ask::ListExecutors).await? {
            Answer::Executors(executors) => {
                let executors = executors.into_iter().map(view::executor).collect();
                Ok(Response::new(v1::ListExecutorsResponse { executors }))
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn get_cluster(&self, _: Request<v1::GetClusterRequest>) -> Reply<v1::GetClusterResponse> {
        let Answer::Work(work) = self.ask(Ask::CountWork).await? else {
            return Err(Status::internal("the leader answered another question"));
        };
        let count = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        let term = self.store.leadership().await.map_err(|error| status::of_query(&error))?.term;
        Ok(Response::new(v1::GetClusterResponse {
            term: term.0,
            holder: self.holder.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            store: "sqlite".to_owned(),
            runs_live: count(work.runs),
            attempts_live: count(work.attempts),
            ready: count(work.ready),
        }))
    }
}

fn run_started(answer: Answer) -> Reply<v1::StartRunResponse> {
    match answer {
        Answer::RunStarted { run, is_repeat } => {
            Ok(Response::new(v1::StartRunResponse { run: run.to_string(), existed: is_repeat }))
        }
        other => Err(unexpected(&other)),
    }
}

/// Checks the parameters of a request against the definition and fills in the defaults.
fn resolve_params(workflow: &Workflow, text: &str) -> Result<Arc<str>, Status> {
    let given: serde_json::Map<String, serde_json::Value> = if text.is_empty() {
        serde_json::Map::new()
    } else {
        serde_json::from_str(text)
            .map_err(|error| Status::invalid_argument(format!("the parameters are not a JSON object: {error}")))?
    };
    let resolved = definition::resolve_params(workflow, &given).map_err(|problems| {
        let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
        Status::invalid_argument(format!("the parameters do not fit the workflow:\n  {}", problems.join("\n  ")))
    })?;
    Ok(serde_json::Value::Object(resolved).to_string().into())
}

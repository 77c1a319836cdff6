//! What people's tools call: writes go to the leader, reads to the store.

mod follow;
mod read;
mod view;
mod watch;
mod write;

use std::{pin::Pin, sync::Arc};

use futures_util::Stream;
use millrace_common::id::{RunId, WorkflowName};
use millrace_core::{Answer, Request as Ask};
use millrace_proto::v1::{self, control_service_server::ControlService};
use millrace_store::Store;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Request, Response, Status};

use super::status;
use crate::{definitions::Definitions, feed::Feed, leader::Handle, output::OutputStore};

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    pub(crate) leader: Handle,
    pub(crate) store: Store,
    pub(crate) feed: Feed,
    pub(crate) output: Arc<OutputStore>,
    pub(crate) definitions: Arc<Definitions>,
    /// Places for those who watch and follow.
    pub(crate) places: Arc<Semaphore>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) holder: String,
}

type Reply<T> = Result<Response<T>, Status>;
type ReplyStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Control {
    /// Asks the leader; the answer may be a refusal.
    async fn ask(&self, request: Ask) -> Result<Answer, Status> {
        self.leader.request(request).await.map_err(status::of_leader_gone)
    }

    /// Takes one of the places for streams; refuses where there is none.
    fn place(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let problem = "too many runs and outputs are being followed: end some, or try again later";
            status::of(Code::ResourceExhausted, problem)
        })
    }
}

fn run_id(text: &str) -> Result<RunId, Status> {
    text.parse().map_err(|error| status::invalid(format!("{text:?} is not the id of a run: {error}")))
}

fn workflow_name(text: &str) -> Result<WorkflowName, Status> {
    text.parse().map_err(|error| status::invalid(format!("{text:?} is not a workflow's name: {error}")))
}

/// Returns the error of a call whose answer is a refusal, or of another question.
fn not_answered(answer: &Answer) -> Status {
    if let Answer::Refused(refusal) = answer {
        return status::of_refusal(refusal);
    }
    tracing::error!(?answer, "the leader answered another question");
    Status::internal("the leader answered another question; this is a fault of the master")
}

#[tonic::async_trait]
impl ControlService for Control {
    type WatchRunStream = ReplyStream<v1::GetRunResponse>;
    type ReadOutputStream = ReplyStream<v1::OutputPiece>;

    async fn apply_workflow(
        &self,
        request: Request<v1::ApplyWorkflowRequest>,
    ) -> Reply<v1::ApplyWorkflowResponse> {
        Ok(Response::new(self.apply(request.into_inner()).await?))
    }

    async fn list_workflows(
        &self,
        request: Request<v1::ListWorkflowsRequest>,
    ) -> Reply<v1::ListWorkflowsResponse> {
        Ok(Response::new(self.read_workflows(request.into_inner()).await?))
    }

    async fn get_workflow(&self, request: Request<v1::GetWorkflowRequest>) -> Reply<v1::GetWorkflowResponse> {
        Ok(Response::new(self.read_workflow(request.into_inner()).await?))
    }

    async fn start_run(&self, request: Request<v1::StartRunRequest>) -> Reply<v1::StartRunResponse> {
        Ok(Response::new(self.start(request.into_inner()).await?))
    }

    async fn list_runs(&self, request: Request<v1::ListRunsRequest>) -> Reply<v1::ListRunsResponse> {
        Ok(Response::new(self.read_runs(request.into_inner()).await?))
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
        Ok(Response::new(self.move_run(&request.into_inner().run, Ask::CancelRun).await?))
    }

    async fn pause_run(&self, request: Request<v1::RunRequest>) -> Reply<v1::RunResponse> {
        Ok(Response::new(self.move_run(&request.into_inner().run, Ask::PauseRun).await?))
    }

    async fn resume_run(&self, request: Request<v1::RunRequest>) -> Reply<v1::RunResponse> {
        Ok(Response::new(self.move_run(&request.into_inner().run, Ask::ResumeRun).await?))
    }

    async fn retry_run(&self, request: Request<v1::RunRequest>) -> Reply<v1::StartRunResponse> {
        Ok(Response::new(self.retry(&request.into_inner().run).await?))
    }

    async fn explain_run(&self, request: Request<v1::ExplainRunRequest>) -> Reply<v1::ExplainRunResponse> {
        Ok(Response::new(self.explain(request.into_inner()).await?))
    }

    async fn read_output(&self, request: Request<v1::ReadOutputRequest>) -> Reply<Self::ReadOutputStream> {
        let request = request.into_inner();
        let run = run_id(&request.run)?;
        Ok(Response::new(self.stream_output(run, request).await?))
    }

    async fn list_executors(&self, _: Request<v1::ListExecutorsRequest>) -> Reply<v1::ListExecutorsResponse> {
        match self.ask(Ask::ListExecutors).await? {
            Answer::Executors(executors) => Ok(Response::new(view::executors(executors))),
            other => Err(not_answered(&other)),
        }
    }

    async fn get_cluster(&self, _: Request<v1::GetClusterRequest>) -> Reply<v1::GetClusterResponse> {
        let work = match self.ask(Ask::CountWork).await? {
            Answer::Work(work) => work,
            other => return Err(not_answered(&other)),
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

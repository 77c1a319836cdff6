//! What people's tools call: writes go to the leader, in this process or in another one, reads to the store.

mod cluster;
mod executors;
mod explain;
mod fetch;
mod follow;
mod read;
mod settings;
mod verify;
mod view;
mod watch;
mod write;

use std::{pin::Pin, sync::Arc};

use futures_util::Stream;
use millrace_common::id::{RunId, WorkflowName};
use millrace_core::{Answer, Closed, Request as Ask};
use millrace_proto::v1::{self, control_service_server::ControlService};
use millrace_store::Store;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Code, Request, Response, Status};

use super::status;
use crate::{
    definitions::Definitions,
    election::Adoption,
    feed::Feed,
    histories::Histories,
    output::OutputStore,
    settings::{Keeper, Statics},
    standby::{self, Standby},
};

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct Control {
    pub(crate) standby: Standby,
    pub(crate) store: Store,
    pub(crate) feed: Feed,
    pub(crate) output: Arc<OutputStore>,
    pub(crate) histories: Histories,
    pub(crate) definitions: Arc<Definitions>,
    /// Places for those who watch and follow.
    pub(crate) places: Arc<Semaphore>,
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) holder: String,
    pub(crate) outlook: Outlook,
    /// What masters that elect their leader can do beside; absent where this one is alone.
    pub(crate) elective: Option<Elective>,
    /// Where live settings are kept.
    pub(crate) settings: Keeper,
    /// What is in force where no live setting is.
    pub(crate) statics: Statics,
}

/// What is asked of an election.
#[derive(Debug, Clone)]
pub(crate) struct Elective {
    /// Cancelled where the leader is to make way.
    pub(crate) hand_over: CancellationToken,
    pub(crate) adoption: Adoption,
}

/// Passes a call on to the leader, where that is another master.
macro_rules! pass_on {
    ($self:ident, $request:ident, $call:ident) => {
        if let Some(mut relay) = $self.standby.relay($request.metadata())? {
            let request = relay.request($request.into_inner());
            let answer = relay.client.$call(request).await;
            return relay.answered(answer);
        }
    };
}

/// Passes a question on to the leader, where that is another master. Where there is none, or it cannot be reached, what
/// follows is to answer by what is stored.
macro_rules! ask_leader {
    ($self:ident, $request:ident, $call:ident) => {
        if let Ok(Some(mut relay)) = $self.standby.relay($request.metadata()) {
            let question = relay.request($request.get_ref().clone());
            let answer = relay.client.$call(question).await;
            if !standby::is_unreachable(&answer) {
                return relay.answered(answer);
            }
        }
    };
}

/// The same for a question that is answered by a stream.
macro_rules! stream_leader {
    ($self:ident, $request:ident, $call:ident) => {
        if let Ok(Some(mut relay)) = $self.standby.relay($request.metadata()) {
            let question = relay.request($request.get_ref().clone());
            let answer = relay.client.$call(question).await;
            if !standby::is_unreachable(&answer) {
                return relay.streamed(answer, &$self.stop, $self.place()?);
            }
        }
    };
}

/// Passes on a call that is answered by a stream.
macro_rules! stream_from {
    ($self:ident, $request:ident, $call:ident) => {
        if let Some(mut relay) = $self.standby.relay($request.metadata())? {
            let place = $self.place()?;
            let request = relay.request($request.into_inner());
            let answer = relay.client.$call(request).await;
            return relay.streamed(answer, &$self.stop, place);
        }
    };
}

pub(crate) use self::cluster::Outlook;

type Reply<T> = Result<Response<T>, Status>;
type ReplyStream<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Control {
    /// Asks the leader; the answer may be a refusal.
    async fn ask(&self, request: Ask) -> Result<Answer, Status> {
        let seat = self.standby.roles.seat().ok_or_else(standby::no_leader)?;
        seat.leader.request(request).await.map_err(status::of_ask)
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
    type WatchSettingsStream = ReplyStream<v1::ListSettingsResponse>;

    async fn apply_workflow(
        &self,
        request: Request<v1::ApplyWorkflowRequest>,
    ) -> Reply<v1::ApplyWorkflowResponse> {
        pass_on!(self, request, apply_workflow);
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
        pass_on!(self, request, start_run);
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
        stream_leader!(self, request, watch_run);
        let run = run_id(&request.into_inner().run)?;
        Ok(Response::new(self.watch(run).await?))
    }

    async fn cancel_run(&self, request: Request<v1::RunRequest>) -> Reply<v1::RunResponse> {
        pass_on!(self, request, cancel_run);
        Ok(Response::new(self.move_run(&request.into_inner().run, Ask::CancelRun).await?))
    }

    async fn pause_run(&self, request: Request<v1::RunRequest>) -> Reply<v1::RunResponse> {
        pass_on!(self, request, pause_run);
        Ok(Response::new(self.move_run(&request.into_inner().run, Ask::PauseRun).await?))
    }

    async fn resume_run(&self, request: Request<v1::RunRequest>) -> Reply<v1::RunResponse> {
        pass_on!(self, request, resume_run);
        Ok(Response::new(self.move_run(&request.into_inner().run, Ask::ResumeRun).await?))
    }

    async fn retry_run(&self, request: Request<v1::RunRequest>) -> Reply<v1::StartRunResponse> {
        pass_on!(self, request, retry_run);
        Ok(Response::new(self.retry(&request.into_inner().run).await?))
    }

    async fn explain_run(&self, request: Request<v1::ExplainRunRequest>) -> Reply<v1::ExplainRunResponse> {
        ask_leader!(self, request, explain_run);
        Ok(Response::new(self.explain(request.into_inner()).await?))
    }

    async fn read_output(&self, request: Request<v1::ReadOutputRequest>) -> Reply<Self::ReadOutputStream> {
        stream_leader!(self, request, read_output);
        let request = request.into_inner();
        let run = run_id(&request.run)?;
        Ok(Response::new(self.stream_output(run, request).await?))
    }

    async fn list_executors(
        &self,
        request: Request<v1::ListExecutorsRequest>,
    ) -> Reply<v1::ListExecutorsResponse> {
        pass_on!(self, request, list_executors);
        match self.ask(Ask::ListExecutors).await? {
            Answer::Executors(executors) => Ok(Response::new(view::executors(executors))),
            other => Err(not_answered(&other)),
        }
    }

    async fn get_executor(&self, request: Request<v1::GetExecutorRequest>) -> Reply<v1::ExecutorResponse> {
        pass_on!(self, request, get_executor);
        Ok(Response::new(self.show_executor(&request.into_inner().name).await?))
    }

    async fn drain_executor(
        &self,
        request: Request<v1::CloseExecutorRequest>,
    ) -> Reply<v1::ExecutorResponse> {
        pass_on!(self, request, drain_executor);
        Ok(Response::new(self.close_executor(request.into_inner(), Closed::Drained).await?))
    }

    async fn cordon_executor(
        &self,
        request: Request<v1::CloseExecutorRequest>,
    ) -> Reply<v1::ExecutorResponse> {
        pass_on!(self, request, cordon_executor);
        Ok(Response::new(self.close_executor(request.into_inner(), Closed::Cordoned).await?))
    }

    async fn undrain_executor(
        &self,
        request: Request<v1::OpenExecutorRequest>,
    ) -> Reply<v1::ExecutorResponse> {
        pass_on!(self, request, undrain_executor);
        Ok(Response::new(self.open_executor(request.into_inner()).await?))
    }

    async fn forget_executor(
        &self,
        request: Request<v1::ForgetExecutorRequest>,
    ) -> Reply<v1::ForgetExecutorResponse> {
        pass_on!(self, request, forget_executor);
        Ok(Response::new(self.forget(request.into_inner()).await?))
    }

    async fn confirm_attempt_lost(
        &self,
        request: Request<v1::ConfirmAttemptLostRequest>,
    ) -> Reply<v1::ConfirmAttemptLostResponse> {
        pass_on!(self, request, confirm_attempt_lost);
        Ok(Response::new(self.confirm_lost(request.into_inner()).await?))
    }

    async fn get_cluster(&self, request: Request<v1::GetClusterRequest>) -> Reply<v1::GetClusterResponse> {
        Ok(Response::new(self.describe(request.metadata()).await))
    }

    async fn list_settings(
        &self,
        request: Request<v1::ListSettingsRequest>,
    ) -> Reply<v1::ListSettingsResponse> {
        Ok(Response::new(self.read_settings(&request.into_inner().name).await?))
    }

    async fn watch_settings(
        &self,
        request: Request<v1::ListSettingsRequest>,
    ) -> Reply<Self::WatchSettingsStream> {
        stream_from!(self, request, watch_settings);
        Ok(Response::new(self.stream_settings(request.into_inner().name).await?))
    }

    async fn set_setting(&self, request: Request<v1::SetSettingRequest>) -> Reply<v1::SetSettingResponse> {
        pass_on!(self, request, set_setting);
        Ok(Response::new(self.change_setting(request.into_inner()).await?))
    }

    async fn list_setting_changes(
        &self,
        request: Request<v1::ListSettingChangesRequest>,
    ) -> Reply<v1::ListSettingChangesResponse> {
        Ok(Response::new(self.read_setting_changes(&request.into_inner()).await?))
    }

    async fn hand_over(&self, request: Request<v1::HandOverRequest>) -> Reply<v1::HandOverResponse> {
        pass_on!(self, request, hand_over);
        Ok(Response::new(self.make_way()?))
    }

    async fn adopt_etcd(&self, _: Request<v1::AdoptEtcdRequest>) -> Reply<v1::AdoptEtcdResponse> {
        Ok(Response::new(self.adopt().await?))
    }

    async fn verify(&self, request: Request<v1::VerifyRequest>) -> Reply<v1::VerifyResponse> {
        // Where nobody leads the rows can still be looked at, and the answer says that no executor was asked.
        match self.standby.relay(request.metadata()) {
            Ok(Some(mut relay)) => {
                let request = relay.request(request.into_inner());
                let answer = relay.client.verify(request).await;
                relay.answered(answer)
            }
            Ok(None) | Err(_) => Ok(Response::new(self.verify_range(request.into_inner()).await?)),
        }
    }
}

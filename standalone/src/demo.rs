//! The demo: the nightly work of a plant, on input that is made here.

mod input;
mod show;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use millrace_common::state::{RunState, TaskState};
use millrace_proto::v1::{self, control_service_client::ControlServiceClient};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tonic::{metadata::MetadataValue, service::Interceptor, transport::Channel};

use crate::{config, node};

/// The workflow that runs, as it stands in the repository.
const WORKFLOW: &str = include_str!("../../examples/nightly/workflow.yaml");

type Client = ControlServiceClient<tonic::service::interceptor::InterceptedService<Channel, Bearer>>;

/// Makes the input, starts everything, runs the workflow and shows it; success where the run succeeded.
pub(crate) async fn run(
    data: Option<PathBuf>,
    keep: bool,
    shutdown: CancellationToken,
) -> anyhow::Result<ExitCode> {
    let scratch = input::Scratch::new(data)?;
    input::write(scratch.path()).await.context("cannot make the input of the demo")?;
    let config = config::for_demo(scratch.path())?;
    let token_file = config.master.token_file.clone();
    let stop = shutdown.child_token();
    let (address_sender, address) = oneshot::channel();
    let mut node = std::pin::pin!(node::run(config, stop.clone(), |address| {
        // The receiver lives as long as this function.
        let _ = address_sender.send(address);
    }));
    let story = async {
        let address = address.await.context("the master did not start")?;
        let mut client = connect(&format!("http://{address}"), &token_file).await?;
        let state = play(&mut client, scratch.path()).await?;
        show::where_to_look(address, &token_file);
        anyhow::Ok(state)
    };
    let state = tokio::select! {
        ended = &mut node => { ended?; bail!("stopped before the run ended") }
        state = story => state?,
    };
    if keep {
        show::kept(scratch.path());
        scratch.keep();
    } else {
        stop.cancel();
    }
    node.await?;
    Ok(if state == RunState::Success { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn play(client: &mut Client, root: &std::path::Path) -> anyhow::Result<RunState> {
    client.apply_workflow(v1::ApplyWorkflowRequest { source: WORKFLOW.to_owned(), dry_run: false }).await?;
    let params = serde_json::json!({ "root": root }).to_string();
    let logical_date = Some(input::logical_date());
    let request = v1::StartRunRequest {
        workflow: "nightly".to_owned(),
        params,
        logical_date,
        idempotency_key: String::new(),
    };
    let run = client.start_run(request).await?.into_inner().run;
    let mut views = client.watch_run(v1::GetRunRequest { run }).await?.into_inner();
    let mut progress = show::Progress::new();
    let mut last = None;
    while let Some(view) = views.message().await? {
        progress.update(&view);
        last = Some(view);
    }
    let last: v1::GetRunResponse = last.context("the master did not say how the run went")?;
    progress.finish();
    show::outcome(&last);
    show::report(client, &last).await?;
    // The report runs whatever happens, so the run succeeds with it; the demo asks for all of them.
    let has_succeeded = last.tasks.iter().all(|task| task.state.parse() == Ok(TaskState::Success));
    Ok(if has_succeeded { RunState::Success } else { RunState::Failed })
}

async fn connect(address: &str, token_file: &std::path::Path) -> anyhow::Result<Client> {
    let token = millrace_runtime::token::read_token_file(token_file)?;
    let bearer = Bearer(format!("Bearer {}", token.expose()).parse().context("the token is not ASCII")?);
    let channel = Channel::from_shared(address.to_owned())?.connect().await?;
    Ok(ControlServiceClient::with_interceptor(channel, bearer)
        .max_decoding_message_size(millrace_proto::MESSAGE_BYTES_MAX))
}

/// Puts the token on every call.
#[derive(Clone)]
struct Bearer(MetadataValue<tonic::metadata::Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

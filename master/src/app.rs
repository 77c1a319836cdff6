//! Builds the parts of a master, owns its tasks and the order in which they stop.
//!
//! Start: store, token, listener, claim, restore, serve. Stop: the term ends first, so that nothing is decided any more;
//! then the server, whose calls end with it.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use millrace_common::{secret::Secret, time::Clock};
use millrace_core::{Limits, Restored, Scheduler};
use millrace_proto::{
    DESCRIPTORS, MESSAGE_BYTES_MAX,
    v1::{control_service_server::ControlServiceServer, executor_service_server::ExecutorServiceServer},
};
use millrace_runtime::{
    Chain, SystemClock,
    token::{self, CreateTokenError},
};
use millrace_store::{Store, StoreConfig};
use tokio::{net::TcpListener, sync::oneshot};
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{service::InterceptorLayer, transport::Server};

use crate::{
    config::MasterConfig,
    definitions::Definitions,
    election::{Elected, Solo},
    feed::Feed,
    leader::{self, Handle, TermEnd, TermParts},
    output::OutputStore,
    rpc::{Control, Executors, auth::BearerAuth},
};

/// How long calls may take to end after a stop.
const DRAIN: Duration = Duration::from_secs(5);

/// A master that leads and answers.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    /// Where it listens; tells the port where 0 was asked for.
    pub address: SocketAddr,
}

/// Runs a master until `shutdown` is cancelled.
///
/// `ready` is told once it leads and answers.
///
/// # Errors
/// Where it cannot start, or can no longer commit: the process is then to end and to be started again.
pub async fn run(
    config: MasterConfig,
    shutdown: CancellationToken,
    ready: oneshot::Sender<Ready>,
) -> anyhow::Result<()> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = Store::open(&StoreConfig::sqlite(&config.data_dir.join("millrace.db"))).await.context("cannot open the store")?;
    let secret = token_of(&config.token_file)?;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}: set `listen` to a free address", config.listen))?;
    let address = listener.local_addr()?;
    let output = Arc::new(OutputStore::open(config.data_dir.join("output")).await.context("cannot open the output folder")?);

    let Elected { term, writer } = Solo.elect(&store, &config.name).await.context("cannot claim the leadership")?;
    let scheduler = restore(&store, term, limits(&config), clock.as_ref()).await?;
    let (handle, inbox) = leader::inbox::open();
    let feed = Feed::new();
    let parts = TermParts { scheduler, writer, inbox, feed: feed.clone(), clock };

    let tasks = TaskTracker::new();
    let stop_serving = CancellationToken::new();
    let services = Services { handle, store, feed, output, tasks: tasks.clone(), holder: config.name };
    let server = serve(listener, services, BearerAuth::new(&secret), stop_serving.clone());
    let mut server = std::pin::pin!(server);
    let mut term_loop = std::pin::pin!(leader::run_term(parts, shutdown));
    tracing::info!(term = term.0, %address, "leading");
    // Nobody waiting is fine.
    let _ = ready.send(Ready { address });

    let end = tokio::select! {
        end = &mut term_loop => end,
        served = &mut server => {
            served?;
            bail!("the server ended by itself");
        }
    };
    stop_serving.cancel();
    tasks.close();
    // Bounded: a client that does not end its call does not keep the program.
    let _ = tokio::time::timeout(DRAIN, async { tokio::join!(server, tasks.wait()) }).await;
    match end {
        TermEnd::Stopped => Ok(()),
        TermEnd::CommitFailed(error) => Err(error).context("the term ended because a commit failed"),
    }
}

/// Reads the token that every caller must present; makes it at the first start.
fn token_of(file: &Path) -> anyhow::Result<Secret> {
    match token::create_token_file(file) {
        Ok(()) | Err(CreateTokenError::Exists(_)) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(token::read_token_file(file)?)
}

fn limits(config: &MasterConfig) -> Limits {
    Limits {
        pools: config.pools.clone(),
        runs_per_workflow_max: config.runs_per_workflow_max,
        ..Limits::default()
    }
}

async fn restore(
    store: &Store,
    term: millrace_common::term::Term,
    limits: Limits,
    clock: &dyn Clock,
) -> anyhow::Result<Scheduler> {
    let loaded = store.load().await.context("cannot load what is unfinished")?;
    for problem in &loaded.problems {
        tracing::error!(error = %Chain(problem), "taken out of scheduling");
    }
    let Restored { scheduler, quarantined } = Scheduler::restore(term, loaded.snapshot, limits, clock.now())?;
    for (run, problem) in quarantined {
        tracing::error!(run_id = %run, problem, "run taken out of scheduling: its rows contradict each other");
    }
    Ok(scheduler)
}

struct Services {
    handle: Handle,
    store: Store,
    feed: Feed,
    output: Arc<OutputStore>,
    tasks: TaskTracker,
    holder: String,
}

async fn serve(
    listener: TcpListener,
    services: Services,
    auth: BearerAuth,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let Services { handle, store, feed, output, tasks, holder } = services;
    let executors = Executors { leader: handle.clone(), output: Arc::clone(&output), tasks: tasks.clone() };
    let control = Control::new(handle, store, feed, output, Arc::new(Definitions::default()), tasks, holder);
    let (health_reporter, health) = tonic_health::server::health_reporter();
    health_reporter.set_serving::<ControlServiceServer<Control>>().await;
    health_reporter.set_serving::<ExecutorServiceServer<Executors>>().await;
    let reflection =
        tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(DESCRIPTORS).build_v1()?;
    Server::builder()
        .tcp_nodelay(true)
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .layer(InterceptorLayer::new(auth))
        .add_service(health)
        .add_service(reflection)
        .add_service(ExecutorServiceServer::new(executors).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(
            ControlServiceServer::new(control)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX),
        )
        .serve_with_incoming_shutdown(NoDelay::wrap(listener), stop.cancelled_owned())
        .await
        .context("the server failed")
}

/// Accepted connections answer at once instead of waiting to fill a packet: a chain of short tasks is all round trips.
struct NoDelay;

impl NoDelay {
    fn wrap(
        listener: TcpListener,
    ) -> impl tokio_stream::Stream<Item = std::io::Result<tokio::net::TcpStream>> + Send + 'static {
        use tokio_stream::StreamExt;
        TcpListenerStream::new(listener).map(|stream| {
            let stream = stream?;
            stream.set_nodelay(true)?;
            Ok(stream)
        })
    }
}

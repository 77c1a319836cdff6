//! Builds the parts of a master, owns its tasks and the order in which they stop.
//!
//! Start: store, token, listener, claim, restore, serve. Stop: the term ends first, so that nothing is decided any more;
//! then the server, whose calls end with it; then whatever connection is left is cut. So a stop takes [`DRAIN`] and
//! [`CUT`] at most, however the peers behave.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, anyhow, bail};
use millrace_common::{secret::Secret, term::Term, time::Clock};
use millrace_core::{Limits, Restored, Scheduler};
use millrace_runtime::{
    Chain, SystemClock,
    token::{self, CreateTokenError},
};
use millrace_store::{Store, StoreConfig};
use tokio::{net::TcpListener, sync::oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    config::MasterConfig,
    definitions::Definitions,
    door::Door,
    election::{Elected, Solo},
    exit::TermLost,
    feed::Feed,
    leader::{self, Handle, Pruner, TermEnd, TermParts},
    output::{self, OutputStore},
    rpc::{self, Services, auth::BearerAuth},
};

/// How long calls may take to end after a stop.
const DRAIN: Duration = Duration::from_secs(5);
/// How long their connections may take to break after that.
const CUT: Duration = Duration::from_secs(1);

/// A master that leads and answers.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    /// Where it listens; tells the port where 0 was asked for.
    pub address: SocketAddr,
}

/// Runs a master until `shutdown` is cancelled.
///
/// `ready` is told once it leads and answers. The future must run to its end: it may be in the middle of a commit.
///
/// # Errors
/// Where it cannot start, or its term ended by itself: the process is then to end with
/// [`exit_code`](crate::exit_code) and to be started again.
pub async fn run(
    config: MasterConfig,
    shutdown: CancellationToken,
    ready: oneshot::Sender<Ready>,
) -> anyhow::Result<()> {
    refuse_problems(&config)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = Store::open(&StoreConfig::sqlite(&config.data_dir.join("millrace.db")))
        .await
        .context("cannot open the store")?;
    let secret = token_of(&config.token_file)?;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}: set `listen` to a free address", config.listen))?;
    let address = listener.local_addr()?;
    let output =
        OutputStore::open(config.data_dir.join("output")).context("cannot open the output folder")?;

    let Elected { term, writer } =
        Solo.elect(&store, &config.name).await.context("cannot claim the leadership")?;
    let scheduler = restore(&store, term, limits(&config), clock.as_ref()).await?;
    let (handle, inbox) = leader::inbox::open();
    let feed = Feed::new();
    let pruner = Pruner::new(config.keeps(), clock.now());
    let parts = TermParts { scheduler, writer, inbox, feed: feed.clone(), clock, pruner };

    let stop = Stop::default();
    stop.tasks.spawn(output::sweep(Arc::clone(&output), store.clone(), stop.serving.clone()));
    let services = services(&config, term, Shared { handle, store, feed, output }, &stop);
    let door = Door::new(listener, config.connections_max, stop.cut.clone());
    let server = rpc::serve(door, services, BearerAuth::new(&secret), stop.serving.clone());
    tracing::info!(term = term.0, %address, "leading");
    // Nobody waiting is fine.
    let _ = ready.send(Ready { address });
    lead_and_serve(parts, server, shutdown.child_token(), stop).await
}

/// What the stop of a master goes through, in order.
#[derive(Default)]
struct Stop {
    /// Cancelled once the term is over: calls are to end.
    serving: CancellationToken,
    /// Cancelled where they did not: connections are cut.
    cut: CancellationToken,
    /// Everything that runs beside the term.
    tasks: TaskTracker,
}

async fn lead_and_serve(
    parts: TermParts,
    server: impl Future<Output = anyhow::Result<()>>,
    stop_term: CancellationToken,
    stop: Stop,
) -> anyhow::Result<()> {
    let mut server = std::pin::pin!(server);
    let mut term = std::pin::pin!(leader::run_term(parts, stop_term.clone()));
    let end = tokio::select! {
        end = &mut term => end,
        served = &mut server => {
            // The term may be in the middle of a commit, which must run to its end.
            stop_term.cancel();
            term.await;
            stop.serving.cancel();
            stop.cut.cancel();
            return Err(served.err().unwrap_or_else(|| anyhow!("the server ended by itself")));
        }
    };
    stop.serving.cancel();
    stop.tasks.close();
    let mut drained = std::pin::pin!(async { tokio::join!(server, stop.tasks.wait()) });
    if tokio::time::timeout(DRAIN, &mut drained).await.is_err() {
        tracing::warn!("some calls did not end, their connections are cut");
        stop.cut.cancel();
        // Bounded: what does not even end now does not keep the program.
        let _ = tokio::time::timeout(CUT, drained).await;
    }
    match end {
        TermEnd::Stopped => Ok(()),
        TermEnd::CommitFailed(error) => Err(TermLost::Commit(error).into()),
        TermEnd::Broken(problem) => Err(TermLost::Broken(problem).into()),
    }
}

fn refuse_problems(config: &MasterConfig) -> anyhow::Result<()> {
    let problems: Vec<String> = config.problems().iter().map(ToString::to_string).collect();
    if !problems.is_empty() {
        bail!("the settings are refused: {}", problems.join("; "));
    }
    Ok(())
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

async fn restore(store: &Store, term: Term, limits: Limits, clock: &dyn Clock) -> anyhow::Result<Scheduler> {
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

/// What the term and the services have in common.
struct Shared {
    handle: Handle,
    store: Store,
    feed: Feed,
    output: Arc<OutputStore>,
}

fn services(config: &MasterConfig, term: Term, shared: Shared, stop: &Stop) -> Services {
    let Shared { handle, store, feed, output } = shared;
    let executors = rpc::Executors {
        term,
        leader: handle.clone(),
        output: Arc::clone(&output),
        tasks: stop.tasks.clone(),
        stop: stop.serving.clone(),
    };
    let control = rpc::Control {
        leader: handle,
        store,
        feed,
        output,
        definitions: Arc::new(Definitions::default()),
        places: rpc::stream_places(),
        tasks: stop.tasks.clone(),
        stop: stop.serving.clone(),
        holder: config.name.clone(),
    };
    Services { executors, control }
}

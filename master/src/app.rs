//! Builds the parts of a master, owns its tasks and the order in which they stop.
//!
//! Start: store, token, listener, serve; then lead, at once or after an election. Stop: the term ends first, so that
//! nothing is decided any more; then the leadership is given back and the calls end with it; then whatever connection is
//! left is cut. So a stop takes [`DRAIN`] and [`CUT`] at most, however the peers behave.

mod tenancy;

use std::{
    hash::{BuildHasher as _, RandomState},
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use futures_util::future::maybe_done;
use millrace_common::{secret::Secret, time::Clock};
use millrace_runtime::{
    SystemClock,
    token::{self, CreateTokenError},
};
use millrace_store::Store;
use tokio::{net::TcpListener, sync::oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::tenancy::Tenancy;
use crate::{
    config::MasterConfig,
    definitions::Definitions,
    door::Door,
    election::{Adoption, Candidate, Etcd, Record},
    feed::Feed,
    output::{self, OutputStore},
    peer::Peers,
    role,
    rpc::{self, Elective, Services, auth::BearerAuth},
    standby::Standby,
};

/// How long calls may take to end after a stop.
const DRAIN: Duration = Duration::from_secs(5);
/// How long their connections may take to break after that.
const CUT: Duration = Duration::from_secs(1);

/// A master that answers.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    /// Where it listens; tells the port where 0 was asked for.
    pub address: SocketAddr,
}

/// Runs a master until `shutdown` is cancelled.
///
/// `ready` is told once it answers; where it is alone, once it leads, too. The future must run to its end: it may be in
/// the middle of a commit.
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
    let store = Store::open(&config.store()?).await.context("cannot open the store")?;
    let secret = token_of(&config.token_file)?;
    let peers = Peers::new(&secret)?;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}: set `listen` to a free address", config.listen))?;
    let address = listener.local_addr()?;
    let output =
        OutputStore::open(config.data_dir.join("output")).context("cannot open the output folder")?;
    let me = Record::new(config.name.clone(), advertised(&config, address), instance(clock.as_ref()));
    let etcd = config.etcd.as_ref().map(Etcd::new).transpose()?;

    let stop = Stop::default();
    stop.tasks.spawn(output::sweep(Arc::clone(&output), store.clone(), stop.serving.clone()));
    let (roles, role) = role::open();
    let hand_over = CancellationToken::new();
    let feed = Feed::new();
    let elective = etcd.clone().map(|etcd| Elective {
        hand_over: hand_over.clone(),
        adoption: Adoption { etcd, store: store.clone() },
    });
    let shared = Shared {
        standby: Standby { roles: role, peers: peers.clone() },
        store: store.clone(),
        feed: feed.clone(),
        output,
        elective,
    };
    let services = services(&me, shared, &stop);
    let door = Door::new(listener, config.connections_max, stop.cut.clone());
    let server = rpc::serve(door, services, BearerAuth::new(&secret), stop.serving.clone());
    let roles = Arc::new(roles);
    let candidate = config.etcd.clone().zip(etcd).map(|(settings, etcd)| Candidate {
        etcd,
        settings,
        me: me.clone(),
        store: store.clone(),
        peers,
        clock: Arc::clone(&clock),
        tasks: stop.tasks.clone(),
        roles: Arc::clone(&roles),
    });
    let tenancy = Tenancy { config, store, feed, clock, roles, candidate, hand_over, ready, address };
    Box::pin(serve_while(tenancy, server, shutdown.child_token(), stop)).await
}

/// What the stop of a master goes through, in order.
#[derive(Default)]
struct Stop {
    /// Cancelled once the term is over: calls are to end.
    serving: CancellationToken,
    /// Cancelled where they did not, or nothing may be said any more: connections are cut.
    cut: CancellationToken,
    /// Everything that runs beside the term.
    tasks: TaskTracker,
}

/// Serves while this master stands by or leads; ends when either does.
async fn serve_while(
    tenancy: Tenancy,
    server: impl Future<Output = anyhow::Result<()>>,
    stop_term: CancellationToken,
    stop: Stop,
) -> anyhow::Result<()> {
    let mut server = std::pin::pin!(maybe_done(server));
    let mut tenancy = std::pin::pin!(tenancy.run(&stop_term, &stop));
    let ended = tokio::select! {
        end = &mut tenancy => Some(end),
        () = &mut server => None,
    };
    let end = match ended {
        Some(end) => end,
        // A term that is over ends the calls first, and then gives its leadership back.
        None if stop.serving.is_cancelled() => tenancy.await,
        None => {
            // The term may be in the middle of a commit, which must run to its end.
            stop_term.cancel();
            let end = tenancy.await;
            stop.serving.cancel();
            stop.cut.cancel();
            let served = server.as_mut().take_output().and_then(Result::err);
            return end.and(Err(served.unwrap_or_else(|| anyhow!("the server ended by itself"))));
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
    end
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

fn advertised(config: &MasterConfig, address: SocketAddr) -> String {
    config.advertise.clone().unwrap_or_else(|| format!("http://{address}"))
}

/// Names this process: no other one, and no later one of the same master, has the same name.
fn instance(clock: &dyn Clock) -> String {
    let now = clock.now();
    let random = RandomState::new().hash_one((now.wall.as_micros(), std::process::id()));
    format!("{:x}-{random:016x}", now.wall.as_micros())
}

/// What the services have in common with the term.
struct Shared {
    standby: Standby,
    store: Store,
    feed: Feed,
    output: Arc<OutputStore>,
    elective: Option<Elective>,
}

fn services(me: &Record, shared: Shared, stop: &Stop) -> Services {
    let Shared { standby, store, feed, output, elective } = shared;
    let executors = rpc::Executors {
        standby: standby.clone(),
        output: Arc::clone(&output),
        tasks: stop.tasks.clone(),
        stop: stop.serving.clone(),
    };
    let control = rpc::Control {
        standby,
        store,
        feed,
        output,
        definitions: Arc::new(Definitions::default()),
        places: rpc::stream_places(),
        tasks: stop.tasks.clone(),
        stop: stop.serving.clone(),
        holder: me.name.clone(),
        elective,
    };
    let peers = rpc::PeerCalls { instance: me.instance.as_str().into(), stop: stop.serving.clone() };
    Services { executors, control, peers }
}

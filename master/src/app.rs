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
    Chain, SystemClock,
    token::{self, CreateTokenError},
};
use millrace_store::Store;
use tokio::{net::TcpListener, sync::oneshot};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::tenancy::Tenancy;
use crate::{
    config::MasterConfig,
    database::{self, Condition},
    definitions::Definitions,
    door::Door,
    election::{Adoption, Candidate, Etcd, Presence, Record},
    feed::Feed,
    fleet,
    histories::Histories,
    output::{self, OutputStore},
    peer::Peers,
    role,
    rpc::{self, Elective, Outlook, Services, auth::BearerAuth},
    settings::{EtcdKeeper, Follower, Keeper, Statics},
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
    let condition = Condition::default();
    let store = opened(&config, &condition, clock.as_ref()).await?;
    let secret = token_of(&config.token_file)?;
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("cannot listen on {}: set `listen` to a free address", config.listen))?;
    let address = listener.local_addr()?;
    let output =
        OutputStore::open(config.data_dir.join("output")).context("cannot open the output folder")?;
    let me = Record::new(config.name.clone(), advertised(&config, address), instance(clock.as_ref()));
    let etcd = config.etcd.as_ref().map(Etcd::new).transpose()?;
    let opened = Opened { config, clock, condition, store, secret, listener, address, output, me, etcd };
    Box::pin(assembled(opened, ready, shutdown)).await
}

/// What a master has opened before it does anything.
struct Opened {
    config: MasterConfig,
    clock: Arc<dyn Clock>,
    condition: Condition,
    store: Store,
    secret: Secret,
    listener: TcpListener,
    address: SocketAddr,
    output: Arc<OutputStore>,
    me: Record,
    etcd: Option<Etcd>,
}

/// Puts the parts together and runs them.
async fn assembled(
    opened: Opened,
    ready: oneshot::Sender<Ready>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let Opened { config, clock, condition, store, secret, listener, address, output, me, etcd } = opened;
    let peers = Peers::new(&secret)?;
    let stop = Stop::default();
    stop.tasks.spawn(output::sweep(Arc::clone(&output), store.clone(), stop.serving.clone()));
    let (roles, role) = role::open();
    let outlook = watched(&config, &me, &condition, etcd.as_ref(), &stop);
    let fleet = outlook.fleet.clone();
    let sight = (store.clone(), condition.clone(), role.clone());
    stop.tasks.spawn(database::watch(sight, Arc::clone(&clock), stop.serving.clone()));
    let hand_over = CancellationToken::new();
    let feed = Feed::new();
    let etcd_keeper = config
        .etcd
        .as_ref()
        .zip(etcd.clone())
        .map(|(settings, etcd)| EtcdKeeper::new(etcd, store.clone(), &settings.prefix));
    let elective = elective(etcd.as_ref(), etcd_keeper.as_ref(), &store, &hand_over);
    let settings = etcd_keeper.clone().map_or(Keeper::Store, Keeper::Etcd);
    if let Some(keeper) = etcd_keeper.clone() {
        let follower = Follower { keeper, store: store.clone(), roles: role.clone() };
        stop.tasks.spawn(follower.run(stop.serving.clone()));
    }
    let shared = Shared {
        standby: Standby { roles: role, peers: peers.clone() },
        store: store.clone(),
        feed: feed.clone(),
        output,
        outlook,
        elective,
        settings: settings.clone(),
        statics: Statics::of(&tenancy::limits(&config), config.keeps()),
    };
    let services = services(&me, shared, &stop);
    let door = Door::new(listener, config.connections_max, stop.cut.clone());
    let server =
        rpc::serve(door, services, BearerAuth::new(&secret), condition.clone(), stop.serving.clone());
    let roles = Arc::new(roles);
    let candidate =
        config.etcd.clone().zip(etcd).zip(etcd_keeper).map(|((settings, etcd), keeper)| Candidate {
            etcd,
            settings,
            me: me.clone(),
            store: store.clone(),
            keeper,
            peers,
            clock: Arc::clone(&clock),
            tasks: stop.tasks.clone(),
            roles: Arc::clone(&roles),
        });
    let tenancy = Tenancy {
        config,
        store,
        feed,
        clock,
        roles,
        candidate,
        hand_over,
        ready: Some(ready),
        address,
        settings,
        condition,
        fleet,
    };
    Box::pin(serve_while(tenancy, server, shutdown.child_token(), stop)).await
}

/// What masters that elect their leader can be asked for.
fn elective(
    etcd: Option<&Etcd>,
    settings: Option<&EtcdKeeper>,
    store: &Store,
    hand_over: &CancellationToken,
) -> Option<Elective> {
    let (etcd, settings) = (etcd?.clone(), settings?.clone());
    let adoption = Adoption { etcd, store: store.clone(), settings };
    Some(Elective { hand_over: hand_over.clone(), adoption })
}

/// Says that this master is there, and follows what it depends on beside its database.
fn watched(
    config: &MasterConfig,
    me: &Record,
    condition: &Condition,
    etcd: Option<&Etcd>,
    stop: &Stop,
) -> Outlook {
    let (sender, fleet) = fleet::open(&config.name);
    if let Some((settings, etcd)) = config.etcd.clone().zip(etcd.cloned()) {
        let (me, condition) = (me.clone(), condition.clone());
        let presence = Presence { etcd, settings, me, condition, fleet: sender };
        stop.tasks.spawn(presence.run(stop.serving.clone()));
    }
    Outlook { me: me.clone(), condition: condition.clone(), fleet, etcd: etcd.cloned() }
}

/// Opens the store. A server that is away is waited for later: until then this master stands by and says why.
async fn opened(config: &MasterConfig, condition: &Condition, clock: &dyn Clock) -> anyhow::Result<Store> {
    const PROBLEM: &str = "cannot open the store";
    let store = Store::attach(&config.store()?).await.context(PROBLEM)?;
    let asked = clock.now().uptime;
    let prepared = store.prepare().await;
    let now = clock.now();
    match prepared {
        Ok(()) => condition.on_answered(now, now.uptime.since(asked)),
        Err(error) if error.is_passing() => {
            tracing::warn!(error = %Chain(&error), "the database is away: this master stands by until it is there");
            condition.on_trouble(now, &error);
        }
        Err(error) => return Err(error).context(PROBLEM),
    }
    Ok(store)
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
    outlook: Outlook,
    elective: Option<Elective>,
    settings: Keeper,
    statics: Statics,
}

fn services(me: &Record, shared: Shared, stop: &Stop) -> Services {
    let Shared { standby, store, feed, output, outlook, elective, settings, statics } = shared;
    let histories = Histories::default();
    let executors = rpc::Executors {
        standby: standby.clone(),
        output: Arc::clone(&output),
        histories: histories.clone(),
        tasks: stop.tasks.clone(),
        stop: stop.serving.clone(),
    };
    let peers = rpc::PeerCalls {
        instance: me.instance.as_str().into(),
        output: Arc::clone(&output),
        stop: stop.serving.clone(),
    };
    let control = rpc::Control {
        standby,
        store,
        feed,
        output,
        histories,
        definitions: Arc::new(Definitions::default()),
        places: rpc::stream_places(),
        tasks: stop.tasks.clone(),
        stop: stop.serving.clone(),
        holder: me.name.clone(),
        outlook,
        elective,
        settings,
        statics,
    };
    Services { executors, control, peers }
}

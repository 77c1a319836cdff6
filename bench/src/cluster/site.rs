//! The cluster under measurement: its processes, and who leads it.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use millrace_proto::v1;
use millrace_servers::{Etcd, Executor, Master, Place, Postgres, client::Control, etcd::Settings};

use super::Plan;

/// How long a cluster may take to have what is waited for.
const READY_MAX: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(10);
/// What masters write: who leads, since when, and who follows; no line for each attempt.
const LOG: &str = "warn,millrace_master::app::tenancy=info,millrace_master::rpc::peer_service=debug,millrace_master::election=info";

/// How many of what, and where.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// Places of the masters.
    pub(super) masters: Vec<Place>,
    /// Place of everything else.
    pub(super) servers: Place,
    pub(super) executors: u32,
    /// Slots of each executor.
    pub(super) slots: u32,
}

impl Shape {
    /// Three masters and two executors on this machine.
    pub(super) fn usual(plan: &Plan) -> Self {
        let here = Place::here();
        Self { masters: vec![here.clone(); 3], servers: here, executors: 2, slots: (plan.slots / 2).max(1) }
    }
}

/// A cluster; ended when dropped.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) executors: Vec<Executor>,
    pub(super) masters: Vec<Master>,
    pub(super) database: Postgres,
    pub(super) etcd: Etcd,
    /// The master that does not answer now, on purpose.
    pub(super) silent: Option<usize>,
}

impl Cluster {
    /// Starts all of it, and waits until a leader has all executors and is followed by all other masters.
    pub(super) async fn start(plan: &Plan, shape: &Shape) -> anyhow::Result<Self> {
        let mut etcd = Etcd::prepare(&vec![shape.servers.clone(); 3], Settings::default());
        etcd.resume_all();
        let settings = ["-c", "fsync=on", "-c", "shared_buffers=256MB", "-c", "max_wal_size=4GB"];
        let database = Postgres::start_at(&shape.servers, &settings);
        // Beyond the loopback it would be encrypted otherwise, which this server is not.
        let url = format!("{}?tls=off", database.network_url());
        let masters = (1..).zip(&shape.masters).map(|(number, place)| {
            let mut master =
                Master::prepare(&format!("m{number}"), place, plan.programs.join("millrace-master"));
            master.join(&url, &etcd);
            set_timing(&mut master, plan.ttl);
            master.program.set_variable("MILLRACE_LOG", LOG);
            master.program.start();
            master
        });
        let masters: Vec<Master> = masters.collect();
        let urls: Vec<String> = masters.iter().map(Master::url).collect();
        let executors = (1..=shape.executors).map(|number| {
            let mut executor = Executor::prepare_with(
                &format!("e{number}"),
                &shape.servers,
                &urls,
                plan.programs.join("millrace-executor"),
            );
            executor.program.set("slots", i64::from(shape.slots));
            set_heartbeat(&mut executor, plan.ttl);
            executor.program.set_variable("MILLRACE_LOG", "warn");
            executor.program.start();
            executor
        });
        let cluster = Self { executors: executors.collect(), masters, database, etcd, silent: None };
        cluster.settled().await?;
        Ok(cluster)
    }

    /// Waits until a leader has all executors, and all other masters that run follow it.
    pub(super) async fn settled(&self) -> anyhow::Result<usize> {
        let count = self.executors.iter().filter(|executor| executor.program.is_running()).count();
        until("a leader with its executors and standbys", async || {
            let (leader, mut client) = self.leader().await?;
            let listed = client.list_executors(v1::ListExecutorsRequest {}).await.ok()?.into_inner();
            let connected = listed.executors.iter().filter(|one| one.state == "connected").count();
            let standbys = self.answering().count() - 1;
            (connected >= count && self.followers(leader) >= standbys).then_some(leader)
        })
        .await
    }

    /// Returns how many masters have linked themselves to a leader in the life of its process: nobody follows a standby.
    fn followers(&self, leader: usize) -> usize {
        let log = self.masters[leader].program.log();
        let life = log.rsplit_once("standing by").map_or(&*log, |(_, life)| life);
        life.matches("another master follows").count()
    }

    /// Returns the masters that answer.
    fn answering(&self) -> impl Iterator<Item = &Master> {
        let masters = self.masters.iter().enumerate().filter(|(index, _)| Some(*index) != self.silent);
        masters.map(|(_, master)| master).filter(|master| master.program.is_running())
    }

    /// Returns who leads by the word of all that answer, and a client to it.
    pub(super) async fn leader(&self) -> Option<(usize, Control)> {
        let mut found: Option<(u64, String)> = None;
        for master in self.answering() {
            let mut client = master.control().await.ok()?;
            let cluster = client.get_cluster(v1::GetClusterRequest {}).await.ok()?.into_inner();
            if !cluster.is_from_leader {
                return None;
            }
            let said = (cluster.term, cluster.holder);
            if found.as_ref().is_some_and(|other| *other != said) {
                return None;
            }
            found = Some(said);
        }
        let (_, holder) = found?;
        let leader = self.masters.iter().position(|master| master.program.name == holder)?;
        Some((leader, self.masters[leader].control().await.ok()?))
    }

    /// Returns who leads and a client to it, after waiting for one.
    pub(super) async fn led(&self) -> anyhow::Result<(usize, Control)> {
        until("a leader", async || self.leader().await).await
    }

    /// Asks the database for a number.
    pub(super) fn number(&self, sql: &str) -> anyhow::Result<i64> {
        let answer = self.database.try_sql(sql).map_err(anyhow::Error::msg)?;
        answer.parse().with_context(|| format!("{sql} answers {answer:?}"))
    }
}

/// Sets the lease, and what follows from it by the rules that masters insist on.
fn set_timing(master: &mut Master, ttl: Duration) {
    let longest = (ttl.saturating_sub(Duration::from_millis(400))).mul_f64(0.99);
    let authority = longest.saturating_sub(Duration::from_secs(1)).min(ttl.mul_f64(0.6));
    let text = |time: Duration| format!("{}ms", time.as_millis());
    master.program.set("etcd.ttl", format!("{}s", ttl.as_secs()));
    master.program.set("etcd.authority", text(authority));
    master.program.set("etcd.renewal", text(authority / 4));
}

/// Has an executor notice that its leader is silent before that one's lease has run out, as it does with the lease that
/// masters have where nothing is set: otherwise there is a leader, and nobody looks for it.
fn set_heartbeat(executor: &mut Executor, ttl: Duration) {
    const USUAL: Duration = Duration::from_secs(10);
    if ttl < USUAL {
        let text = format!("{}ms", (ttl / 4).as_millis());
        executor.program.set("heartbeat_interval", text.as_str());
        executor.program.set("answer_timeout", text);
    }
}

/// Waits until `look` finds something.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
pub(super) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> anyhow::Result<T> {
    let start = Instant::now();
    while start.elapsed() < READY_MAX {
        if let Some(found) = look().await {
            return Ok(found);
        }
        tokio::time::sleep(LOOK).await;
    }
    bail!("waited {READY_MAX:?} for {what}")
}

//! What a cluster does while its database is away: real servers, masters as processes, an executor driven by hand.

mod proxy;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use millrace_proto::v1::{self, AttemptState, executor_message::Body, leader_message};
use millrace_servers::{Etcd, MariaDb, Place, Postgres, client, etcd, mariadb, postgres, skipped};
use tokio::{task::JoinSet, time::Instant};
use tonic::{Code, Status};

use self::proxy::Proxy;
use crate::support::{Executor, TWO, ended, held, hello, until, within};

/// How soon after its database is back a leader goes on.
const BACK_WITHIN: Duration = Duration::from_secs(10);
/// How soon a heartbeat is answered whatever the database does: executors wait for 5 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
const PASSWORD: &str = "outage";
/// Takes runs and never starts one.
const LOAD: &str = "workflow: load\ntasks:\n  a: { kind: shell, executor: { labels: { site: nowhere } }, with: { command: [make] } }\n";
/// Runs that a client submits at most.
const LOAD_MAX: usize = 800;

enum Server {
    Postgres(Postgres),
    MariaDb(MariaDb),
}

impl Server {
    fn postgres() -> Option<Self> {
        match postgres::missing() {
            Some(reason) => absent(&reason),
            None => Some(Self::Postgres(Postgres::start_at(&Place::here(), &[]))),
        }
    }

    fn mariadb() -> Option<Self> {
        match mariadb::missing() {
            Some(reason) => absent(&reason),
            None => Some(Self::MariaDb(MariaDb::start_at(&Place::here(), PASSWORD, &[]))),
        }
    }

    fn url(&self) -> String {
        match self {
            Self::Postgres(server) => server.network_url(),
            Self::MariaDb(server) => server.network_url(PASSWORD),
        }
    }

    /// Returns where it listens.
    fn address(&self) -> SocketAddr {
        let url = self.url();
        let place = url.split_once('@').unwrap().1.split_once('/').unwrap().0;
        place.parse().unwrap()
    }

    /// Ends it as `pg_ctl stop -m immediate` does, or the loss of its machine.
    fn end(&mut self) {
        match self {
            Self::Postgres(server) => server.stop(),
            Self::MariaDb(server) => server.kill(),
        }
    }

    fn resume(&mut self) {
        match self {
            Self::Postgres(server) => server.resume(),
            Self::MariaDb(server) => server.resume(),
        }
    }

    fn freeze(&self) {
        match self {
            Self::Postgres(server) => server.freeze(),
            Self::MariaDb(server) => server.freeze(),
        }
    }

    fn thaw(&self) {
        match self {
            Self::Postgres(server) => server.thaw(),
            Self::MariaDb(server) => server.thaw(),
        }
    }
}

/// Returns the address of the database behind a proxy.
fn through(server: &Server, proxy: &Proxy) -> String {
    server.url().replace(&server.address().to_string(), &format!("127.0.0.1:{}", proxy.port))
}

fn absent<T>(reason: &str) -> Option<T> {
    skipped(reason);
    None
}

fn started(name: &str, database: &str, etcd: &Etcd) -> millrace_servers::Master {
    let mut master = millrace_servers::Master::with_etcd(name, &Place::here(), database, etcd);
    master.program.set_path(env!("CARGO_BIN_EXE_millrace-master"));
    master.program.start();
    master
}

/// Masters of one cluster, with the etcd that they share.
struct Cluster {
    masters: Vec<millrace_servers::Master>,
    etcd: Etcd,
}

impl Drop for Cluster {
    #[expect(clippy::print_stderr, reason = "what the masters wrote explains a failure")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.masters
                .iter()
                .for_each(|master| eprintln!("{}:\n{}", master.program.name, master.program.log()));
        }
    }
}

impl Cluster {
    /// Starts a master for each of these addresses of a database.
    fn start(databases: &[String]) -> Option<Self> {
        if let Some(reason) = etcd::missing() {
            return absent(&reason);
        }
        let etcd = Etcd::start(1);
        let masters =
            (1..).zip(databases).map(|(number, database)| started(&format!("m{number}"), database, &etcd));
        let masters = masters.collect();
        Some(Self { masters, etcd })
    }

    /// Starts one more master.
    fn join(&mut self, name: &str, database: &str) {
        self.masters.push(started(name, database, &self.etcd));
    }

    async fn cluster(&self, index: usize) -> Option<v1::GetClusterResponse> {
        let mut control = self.masters[index].control().await.ok()?;
        Some(control.get_cluster(v1::GetClusterRequest {}).await.ok()?.into_inner())
    }

    /// Waits until a master leads a later term than `after`; returns its index and its term.
    async fn leader(&self, after: u64) -> (usize, u64) {
        until("a master to lead", async || {
            for (index, master) in self.masters.iter().enumerate().filter(|(_, one)| one.program.is_running())
            {
                let cluster = self.cluster(index).await;
                if let Some(cluster) = cluster.filter(|found| found.holder == master.program.name) {
                    return (cluster.term > after).then_some((index, cluster.term));
                }
            }
            None
        })
        .await
    }

    async fn apply(&self, index: usize, source: &str) -> Result<(), Status> {
        let request = v1::ApplyWorkflowRequest { source: source.to_owned(), dry_run: false };
        self.masters[index].control().await?.apply_workflow(request).await.map(drop)
    }

    /// Waits until a definition is in force again; returns how long that took.
    async fn takes_writes(&self, index: usize, source: &str) -> Duration {
        let asked = Instant::now();
        until("a write to be taken", async || self.apply(index, source).await.ok()).await;
        asked.elapsed()
    }

    async fn executor(&self, index: usize) -> Executor {
        let mut calls = client::executors(&self.masters[index].url()).await.unwrap();
        let mut executor = Executor::open(&mut calls, Body::Hello(hello("e1"))).await.unwrap();
        match executor.next().await.unwrap() {
            leader_message::Body::Welcome(welcome) => executor.welcome = welcome,
            other => panic!("a welcome, not {other:?}"),
        }
        executor
    }
}

/// Says a heartbeat and waits for its answer, which must come in time; nothing else may.
async fn beats_alone(executor: &mut Executor, number: u64, held: Vec<v1::Held>) {
    executor.say(Body::Heartbeat(v1::Heartbeat { number, held, ..Default::default() })).await;
    let answer = tokio::time::timeout(ANSWER_WITHIN, executor.next()).await;
    let answer = answer.unwrap_or_else(|_| panic!("heartbeat {number} is not answered in {ANSWER_WITHIN:?}"));
    let expected = leader_message::Body::HeartbeatAnswer(v1::HeartbeatAnswer { number });
    assert_eq!(answer.unwrap(), expected, "nothing is said that is not durable");
}

/// Runs that were acknowledged, by their keys.
type Acknowledged = Arc<Mutex<BTreeMap<String, String>>>;

/// Submits runs for as long as the set lives. As a program would, it submits again what was not acknowledged, under the
/// same key.
fn submit_beside(url: String, tasks: &mut JoinSet<()>) -> Acknowledged {
    let acknowledged = Acknowledged::default();
    let noted = Arc::clone(&acknowledged);
    tasks.spawn(async move {
        for number in 0..LOAD_MAX {
            let key = format!("key-{number}");
            let run = loop {
                if let Ok(run) = submit(&url, &key).await {
                    break run;
                }
            };
            noted.lock().unwrap().insert(key, run);
        }
    });
    acknowledged
}

/// Waits until some more were acknowledged.
async fn more(acknowledged: &Acknowledged) {
    let before = acknowledged.lock().unwrap().len();
    until("runs to be acknowledged", async || {
        (acknowledged.lock().unwrap().len() >= before + 5).then_some(())
    })
    .await;
}

async fn submit(url: &str, key: &str) -> Result<String, Status> {
    let request = v1::StartRunRequest {
        workflow: "load".to_owned(),
        idempotency_key: key.to_owned(),
        ..Default::default()
    };
    Ok(client::control(url).await?.start_run(request).await?.into_inner().run)
}

/// The database is ended and started again, three times under load. Executors are answered all the time and told
/// nothing that is not durable; what was acknowledged is there, once; the leader stays.
async fn a_restart_costs_nothing(server: Option<Server>) {
    let Some(mut server) = server else { return };
    let Some(cluster) = Cluster::start(&[server.url(), server.url()]) else { return };
    let (leader, term) = cluster.leader(0).await;
    let mut executor = cluster.executor(leader).await;
    executor.beat(1, Vec::new()).await;
    cluster.apply(leader, LOAD).await.unwrap();
    cluster.apply(leader, TWO).await.unwrap();
    let request = v1::StartRunRequest { workflow: "two".to_owned(), ..Default::default() };
    let run =
        cluster.masters[leader].control().await.unwrap().start_run(request).await.unwrap().into_inner().run;
    let first = executor.start().await;
    executor.accept(&first).await;
    executor.beat(2, vec![held(&first, AttemptState::Running)]).await;
    let mut load = JoinSet::new();
    let acknowledged = submit_beside(cluster.masters[1 - leader].url(), &mut load);
    more(&acknowledged).await;

    server.end();
    let refusal = until("a write to be refused", async || {
        let status = cluster.apply(leader, LOAD).await.err()?;
        (status.code() == Code::Unavailable).then_some(status)
    })
    .await;
    assert!(refusal.metadata().contains_key("retry-after"), "{refusal:?}");
    executor.report(&first, v1::report::Body::Ended(ended(AttemptState::Succeeded))).await;
    for number in 3..7 {
        beats_alone(&mut executor, number, vec![held(&first, AttemptState::Succeeded)]).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    server.resume();
    let took = cluster.takes_writes(leader, LOAD).await;
    assert!(took < BACK_WITHIN, "{took:?}");
    let second = executor.start().await;
    assert_eq!(second.task, "b", "the end of the first was taken once it could be durable");

    for number in 7..9 {
        server.end();
        server.resume();
        let took = cluster.takes_writes(leader, LOAD).await;
        assert!(took < BACK_WITHIN, "{took:?}");
        executor.beat(number, vec![held(&second, AttemptState::Running)]).await;
        more(&acknowledged).await;
    }
    executor.finish(&second, ended(AttemptState::Succeeded)).await;
    assert_eq!(cluster.leader(0).await, (leader, term), "the leader stays");
    load.shutdown().await;
    let url = cluster.masters[leader].url();
    let acknowledged = acknowledged.lock().unwrap().clone();
    for (key, run) in &acknowledged {
        assert_eq!(submit(&url, key).await.unwrap(), *run, "one key is one run");
    }
    let mut control = cluster.masters[leader].control().await.unwrap();
    let view = control.get_run(v1::GetRunRequest { run }).await.unwrap().into_inner();
    assert_eq!(view.run.unwrap().state, "success");
    assert!(view.tasks.iter().all(|task| task.attempts.len() == 1), "nothing ran twice");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_postgres_costs_nothing() {
    a_restart_costs_nothing(Server::postgres()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_mariadb_costs_nothing() {
    a_restart_costs_nothing(Server::mariadb()).await;
}

/// The database and its sessions stand still for longer than any of its limits: no error tells, only silence.
#[tokio::test]
async fn a_database_that_stands_still_costs_no_lease() {
    const STALL: Duration = Duration::from_secs(22);
    let Some(server) = Server::postgres() else { return };
    let Some(cluster) = Cluster::start(&[server.url(), server.url()]) else { return };
    let (leader, term) = cluster.leader(0).await;
    let mut executor = cluster.executor(leader).await;
    executor.beat(1, Vec::new()).await;
    server.freeze();
    let frozen = Instant::now();
    let mut number = 1;
    while frozen.elapsed() < STALL {
        number += 1;
        beats_alone(&mut executor, number, Vec::new()).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    server.thaw();
    let took = cluster.takes_writes(leader, LOAD).await;
    println!("writes after a stall of {STALL:?}: {took:?}");
    assert!(took < BACK_WITHIN, "{took:?}");
    assert_eq!(cluster.leader(0).await, (leader, term), "the leader stays");
}

/// The server commits, and its answer is lost: the leader finds out, and says what it said.
#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_acknowledged_once() {
    let Some(server) = Server::postgres() else { return };
    let proxy = Proxy::start(server.address()).await;
    let through = through(&server, &proxy);
    let Some(cluster) = Cluster::start(&[through]) else { return };
    let (leader, term) = cluster.leader(0).await;
    for number in 0..5 {
        proxy.lose_next_answer();
        let source = format!("{LOAD}  b{number}: {{ kind: shell, with: {{ command: [make] }} }}\n");
        within("the acknowledgement", cluster.apply(leader, &source)).await.unwrap();
        assert!(proxy.has_lost_it());
    }
    let mut control = cluster.masters[leader].control().await.unwrap();
    let request = v1::GetWorkflowRequest { name: "load".to_owned(), version: 0 };
    let version = control.get_workflow(request).await.unwrap().into_inner().summary.unwrap().version;
    assert_eq!(version, 5, "each was committed once");
    assert_eq!(cluster.leader(0).await, (leader, term), "the leader stays");
}

/// Only the way of the leader to the database is cut: whoever has one takes over.
#[tokio::test]
async fn a_leader_without_its_database_makes_way_for_a_master_that_has_one() {
    const LED_WITHIN: Duration = Duration::from_secs(30);
    let Some(server) = Server::postgres() else { return };
    let proxy = Proxy::start(server.address()).await;
    let Some(mut cluster) = Cluster::start(&[through(&server, &proxy)]) else { return };
    let (_, term) = cluster.leader(0).await;
    cluster.join("m2", &server.url());
    until("the leader to know the other master", async || {
        let seen = cluster.cluster(0).await?;
        seen.masters.iter().any(|master| master.name == "m2" && master.state == "standby").then_some(())
    })
    .await;
    // Nothing is going on: the leader notices it all the same.
    proxy.cut();
    let cut = Instant::now();
    let after = until("the other master to lead", async || {
        cluster.cluster(1).await.filter(|seen| seen.is_from_leader && seen.holder == "m2" && seen.term > term)
    })
    .await;
    println!("led again after {:?}", cut.elapsed());
    assert!(cut.elapsed() < LED_WITHIN, "{:?}", cut.elapsed());
    assert_eq!(cluster.masters[0].program.ended().code(), Some(75));
    cluster.apply(1, LOAD).await.unwrap();
    // It comes back as a standby that says what is wrong.
    cluster.masters[0].program.start();
    let problem = until("the first master to be seen again", async || {
        let seen = cluster.cluster(1).await?;
        let first = seen.masters.into_iter().find(|master| master.name == "m1")?;
        let is_waiting = first.state == "standby" && first.database_problem.contains("cannot be opened");
        is_waiting.then_some(first.database_problem)
    })
    .await;
    assert!(!problem.contains("admin@"), "the account is nobody's business: {problem}");
    assert_eq!(cluster.cluster(1).await.unwrap().term, after.term);
}

/// No database when masters start: they say so, and take part once it is there.
#[tokio::test]
async fn a_master_that_starts_without_its_database_waits_for_it_and_says_why() {
    let Some(mut server) = Server::postgres() else { return };
    server.end();
    let Some(cluster) = Cluster::start(&[server.url(), server.url()]) else { return };
    let seen = until("a master to answer", async || cluster.cluster(0).await).await;
    assert_eq!((seen.holder.as_str(), seen.is_from_leader), ("", false));
    assert!(seen.problem.contains("cannot be opened"), "{}", seen.problem);
    assert_eq!(seen.etcd.unwrap().members.len(), 1);
    let mut control = cluster.masters[0].control().await.unwrap();
    let status = control.list_workflows(v1::ListWorkflowsRequest::default()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let status = cluster.apply(0, LOAD).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    server.resume();
    let (leader, _) = cluster.leader(0).await;
    cluster.apply(leader, LOAD).await.unwrap();
    let seen = until("nothing to be wrong", async || {
        cluster.cluster(1 - leader).await.filter(|seen| seen.problem.is_empty() && seen.masters.len() == 2)
    })
    .await;
    assert!(seen.masters.iter().all(|master| master.state != "away"), "{seen:?}");
    assert_eq!(seen.database.unwrap().engine, "postgres");
}

/// Output of an attempt that ended under the first leader is on that master's disk: the next one fetches it, and says who
/// has it where it cannot.
#[tokio::test]
async fn output_from_before_a_change_of_leader_is_fetched_from_the_master_that_has_it() {
    const OUTPUT: &[u8] = b"made\n";
    let Some(server) = Server::postgres() else { return };
    let Some(mut cluster) = Cluster::start(&[server.url(), server.url()]) else { return };
    let (first, term) = cluster.leader(0).await;
    let mut executor = cluster.executor(first).await;
    executor.beat(1, Vec::new()).await;
    cluster.apply(first, TWO).await.unwrap();
    let request = v1::StartRunRequest { workflow: "two".to_owned(), ..Default::default() };
    let run =
        cluster.masters[first].control().await.unwrap().start_run(request).await.unwrap().into_inner().run;
    let start = executor.start().await;
    executor.accept(&start).await;
    let mut calls = client::executors(&cluster.masters[first].url()).await.unwrap();
    let attempt = start.attempt.clone();
    let chunk = v1::OutputChunk { attempt, offset: 0, bytes: OUTPUT.to_vec(), is_last: true };
    let mut kept = calls.ship_output(tokio_stream::iter([chunk])).await.unwrap().into_inner();
    assert!(kept.message().await.unwrap().unwrap().is_complete);
    let end = v1::AttemptEnd { log_bytes: OUTPUT.len() as u64, ..ended(AttemptState::Succeeded) };
    executor.finish(&start, end).await;
    let next = 1 - first;
    until("the masters to know each other", async || {
        let seen = cluster.cluster(first).await?;
        (seen.masters.len() == 2 && seen.masters.iter().all(|master| master.state != "away")).then_some(())
    })
    .await;
    cluster.masters[first].program.kill();
    let (leader, _) = cluster.leader(term).await;
    assert_eq!(leader, next);
    let url = cluster.masters[next].url();
    let status = within("an answer", read_output(&url, &run)).await.unwrap_err();
    let expected = format!("m{} at {}", first + 1, cluster.masters[first].url());
    assert!(status.message().contains(&expected), "it says who has it: {status:?}");
    cluster.masters[first].program.start();
    let found = until("the output", async || read_output(&url, &run).await.ok()).await;
    assert_eq!(found, OUTPUT);
}

/// Reads the output of the first task of a run.
async fn read_output(url: &str, run: &str) -> Result<Vec<u8>, Status> {
    let request = v1::ReadOutputRequest { run: run.to_owned(), task: "a".to_owned(), ..Default::default() };
    let mut pieces = client::control(url).await?.read_output(request).await?.into_inner();
    let mut found = Vec::new();
    while let Some(piece) = pieces.message().await? {
        found.extend(piece.bytes);
    }
    Ok(found)
}

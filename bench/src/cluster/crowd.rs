//! Many executors on one leader: sessions of the real protocol, each over a connection of its own, that beat like real
//! executors and end each attempt at once.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use millrace_proto::{
    PROTOCOL,
    v1::{self, AttemptState, executor_message::Body, leader_message::Body as Said, report::Body as Report},
};
use millrace_servers::client;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{sync::mpsc, task::JoinSet, time::MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;

use super::{
    Plan, dispatch,
    site::{Cluster, Shape, until},
};
use crate::{
    figure::Figure,
    process,
    statistics::{median, quantile},
    work::{self, LOOK},
};

/// How often each beats, as an executor does where nothing is set.
const BEAT: Duration = Duration::from_secs(3);
/// How long the leader is watched.
const WATCHED: Duration = Duration::from_secs(20);
/// Tasks of the run that is placed among them.
const TASKS: u32 = 1_000;
/// Messages that wait for one connection.
const QUEUE_MAX: usize = 64;
/// File descriptors beside those of the sessions.
const DESCRIPTORS: u64 = 1_000;
/// The label of all of them, which real executors do not have.
pub(super) const LABEL: (&str, &str) = ("crowd", "yes");

/// Sessions that are open, and what they have seen.
#[derive(Debug)]
pub(super) struct Crowd {
    sessions: JoinSet<anyhow::Result<()>>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Debug, Default)]
struct Seen {
    welcomed: u32,
    /// When starts arrived, in microseconds since 1970.
    starts: Vec<i64>,
    /// How long heartbeats were not answered, in milliseconds.
    answers: Vec<f64>,
}

impl Crowd {
    /// Opens sessions with the leader, each with so many slots, and waits until all are welcome.
    pub(super) async fn open(url: &str, sessions: u32, slots: u32) -> anyhow::Result<Self> {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let needed = 2 * u64::from(sessions) + DESCRIPTORS;
        ensure!(
            most >= needed,
            "{needed} file descriptors are needed and {most} are allowed: raise `ulimit -n`"
        );
        setrlimit(Resource::RLIMIT_NOFILE, needed, most)?;
        let seen = Arc::new(Mutex::new(Seen::default()));
        let mut crowd = Self { sessions: JoinSet::new(), seen: Arc::clone(&seen) };
        for number in 0..sessions {
            let (url, seen) = (url.to_owned(), Arc::clone(&seen));
            // As executors that were not started together: their heartbeats are spread.
            let phase = BEAT.mul_f64(f64::from(number) / f64::from(sessions));
            crowd.sessions.spawn(session(url, number, slots, phase, seen));
        }
        until("all sessions to be welcome", async || {
            let all = crowd.seen().welcomed >= sessions;
            (all || !crowd.is_whole()).then_some(())
        })
        .await?;
        crowd.check().await?;
        Ok(crowd)
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the starts that have arrived.
    pub(super) fn take_starts(&self) -> Vec<i64> {
        std::mem::take(&mut self.seen().starts)
    }

    pub(super) fn count_starts(&self) -> usize {
        self.seen().starts.len()
    }

    /// Whether no session has ended.
    fn is_whole(&mut self) -> bool {
        match self.sessions.try_join_next() {
            None => true,
            Some(ended) => {
                self.sessions.spawn(async move { ended? });
                false
            }
        }
    }

    /// Fails where a session has ended.
    pub(super) async fn check(&mut self) -> anyhow::Result<()> {
        if self.is_whole() {
            return Ok(());
        }
        match self.sessions.join_next().await {
            Some(Ok(Err(error))) => Err(error.context("a session ended")),
            _ => bail!("a session ended"),
        }
    }
}

fn hello(number: u32, slots: u32) -> v1::Hello {
    let (name, value) = LABEL;
    v1::Hello {
        protocol: PROTOCOL,
        executor: format!("crowd-{number}"),
        slots,
        labels: [(name.to_owned(), value.to_owned())].into(),
        kinds: vec!["shell".to_owned()],
        spool_id: u128::from(number + 1).to_be_bytes().to_vec(),
        boot_id: format!("boot-{number}"),
        machine_id: format!("machine-{number}"),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..v1::Hello::default()
    }
}

/// One executor, as the leader sees it.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
async fn session(
    url: String,
    number: u32,
    slots: u32,
    phase: Duration,
    seen: Arc<Mutex<Seen>>,
) -> anyhow::Result<()> {
    tokio::time::sleep(phase).await;
    let mut client = client::executors(&url).await?;
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    let say = async |body| sender.send(v1::ExecutorMessage { body: Some(body) }).await.context("it ended");
    say(Body::Hello(hello(number, slots))).await?;
    let mut messages = client.session(ReceiverStream::new(receiver)).await?.into_inner();
    let mut beats = tokio::time::interval(BEAT);
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut count, mut beaten) = (0, Instant::now());
    let lock = || seen.lock().unwrap_or_else(PoisonError::into_inner);
    loop {
        let message = tokio::select! {
            message = messages.message() => message?.and_then(|message| message.body).context("the leader ended it")?,
            _ = beats.tick() => {
                count += 1;
                beaten = Instant::now();
                say(Body::Heartbeat(v1::Heartbeat { number: count, ..v1::Heartbeat::default() })).await?;
                continue;
            }
        };
        match message {
            Said::Welcome(_) => lock().welcomed += 1,
            Said::HeartbeatAnswer(answer) if answer.number == count => {
                lock().answers.push(beaten.elapsed().as_secs_f64() * 1_000.0);
            }
            Said::Starts(starts) => {
                let now = dispatch::now()?;
                lock().starts.extend(starts.starts.iter().map(|_| now));
                say(Body::Reports(v1::Reports { reports: reports(&starts.starts, now) })).await?;
            }
            Said::Refused(refused) => bail!("refused: {}", refused.reason),
            Said::NotLeader(_) => bail!("this master does not lead"),
            // It holds nothing, so that the rest does not concern it.
            _ => {}
        }
    }
}

/// Says of attempts that they were accepted, started, and have succeeded.
fn reports(starts: &[v1::Start], now: i64) -> Vec<v1::Report> {
    let end = v1::AttemptEnd {
        state: AttemptState::Succeeded.into(),
        exit_code: Some(0),
        started_at: Some(now),
        ended_at: now,
        ..v1::AttemptEnd::default()
    };
    let each = |start: &v1::Start| {
        let bodies = [
            Report::Accepted(v1::Accepted {}),
            Report::Started(v1::Started { at: now, pid: 1 }),
            Report::Ended(end.clone()),
        ];
        let attempt = start.attempt.clone();
        bodies.map(|body| v1::Report { attempt: attempt.clone(), body: Some(body) })
    };
    starts.iter().flat_map(each).collect()
}

/// Measures a leader that many executors are connected to.
pub(super) async fn figures(plan: &Plan) -> anyhow::Result<Vec<Figure>> {
    let cluster = Cluster::start(plan, &Shape { executors: 0, ..Shape::usual(plan) }).await?;
    let (leader, mut client) = cluster.led().await?;
    let pid = cluster.masters[leader].program.pid();
    let mut crowd = Crowd::open(&cluster.masters[leader].url(), plan.sessions, 2).await?;
    // All have beaten once.
    tokio::time::sleep(2 * BEAT).await;
    crowd.seen().answers.clear();
    let before = process::ticks(&[pid])?;
    tokio::time::sleep(WATCHED).await;
    let percent = process::percent(process::ticks(&[pid])?.saturating_sub(before), WATCHED)?;
    let mut answers = std::mem::take(&mut crowd.seen().answers);
    crowd.check().await?;
    let label = format!("executor: {{ labels: {{ {}: \"{}\" }} }}, ", LABEL.0, LABEL.1);
    work::apply(&mut client, work::wide("among", TASKS, "[/bin/true]", &label)).await?;
    let mut placed = Vec::new();
    for round in 0..=plan.rounds {
        crowd.take_starts();
        let asked = dispatch::now()?;
        work::start(&mut client, "among").await?;
        work::wait(&mut client, "among", LOOK).await?;
        let starts = crowd.take_starts();
        ensure!(starts.len() == TASKS as usize, "{} starts for {TASKS} tasks", starts.len());
        if round > 0 {
            let last = starts.iter().max().context("there were starts")?;
            placed.push(Duration::from_micros(u64::try_from(last - asked)?).as_secs_f64() * 1_000.0);
        }
    }
    crowd.check().await?;
    let sessions = f64::from(plan.sessions);
    let high = quantile(&mut answers, 0.99);
    let note = format!("p50 {:.2}, {} answers, one each {BEAT:?}", median(&mut answers), answers.len());
    let memory = format!("{:.0} MiB resident", process::resident_mib(pid)?);
    Ok(vec![
        Figure::higher("crowd", "executors on one leader, all answered", sessions).bounds(1_000.0, 10_000.0),
        Figure::lower("crowd", "CPU of the leader while they beat, %", percent)
            .goal(sessions / 1_000.0)
            .note(memory),
        Figure::lower("crowd", "answer to a heartbeat, ms p99", high).note(note),
        Figure::lower("crowd", "request to the last of 1,000 starts among them, ms", median(&mut placed)),
    ])
}

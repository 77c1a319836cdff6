//! The clients: they submit runs with idempotency keys, cancel some, and note what they were told.
//!
//! They run in this process, on a thread whose network is that of the client's machine. A request that gets no answer is
//! asked again, of another master, under the same key, for as long as the load lasts.

mod caller;
pub(crate) mod workflows;

use std::{
    fs::File,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use millrace_checker::{Answer, Event};
use millrace_common::id::RunId;
use nix::sched::{CloneFlags, setns};
use tokio::{task::JoinSet, time::sleep};

use self::caller::{Caller, Told};
use crate::{
    clock,
    network::{self, Network},
    random::Random,
};

/// Requests on their way at once; more are not begun.
const REQUESTS_MAX: usize = 200;
/// How long after its answer a run may be cancelled, in milliseconds.
const CANCEL_AFTER_MAX: u64 = 2_000;
/// How many answered requests of a hundred are asked once more, with the same key.
const REPEATS: u64 = 5;

/// What the clients do.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    /// Runs that are asked for in a second; 0 for none.
    pub(crate) per_second: f64,
    /// How many of a hundred runs are cancelled.
    pub(crate) cancels: u64,
    /// Names of the workflows to run.
    pub(crate) workflows: Vec<String>,
}

/// What the clients and the rig share.
#[derive(Debug, Default)]
pub(crate) struct Notes {
    events: Mutex<Vec<(u64, Event)>>,
    requests: AtomicU64,
    acknowledged: AtomicU64,
    refused: AtomicU64,
    unanswered: AtomicU64,
    /// The longest time that a request for a run took, in microseconds.
    slowest: AtomicU64,
    is_over: AtomicBool,
}

impl Notes {
    fn locked(&self) -> MutexGuard<'_, Vec<(u64, Event)>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn note(&self, event: Event) {
        let mut events = self.locked();
        // Read under the lock, so that the list is in order.
        events.push((clock::now(), event));
    }

    pub(crate) fn events(&self) -> Vec<(u64, Event)> {
        self.locked().clone()
    }

    fn ask(&self) -> u64 {
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        self.note(Event::Asked { request });
        request
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    /// Returns how many runs were acknowledged.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    pub(crate) fn unanswered(&self) -> u64 {
        self.unanswered.load(Ordering::Relaxed)
    }

    /// Returns how long the slowest answer took, in microseconds.
    pub(crate) fn slowest(&self) -> u64 {
        self.slowest.load(Ordering::Relaxed)
    }
}

/// Clients at work.
#[derive(Debug)]
pub(crate) struct Load {
    notes: Arc<Notes>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

impl Load {
    pub(crate) fn start(
        network: &Network,
        masters: Vec<String>,
        plan: Plan,
        seed: &Random,
        notes: Arc<Notes>,
    ) -> anyhow::Result<Self> {
        let (seed, shared) = (seed.fork("load"), Arc::clone(&notes));
        let namespace =
            File::open(network.file(network::CLIENT)).context("cannot open the client's network")?;
        let thread = thread::Builder::new().name("load".to_owned()).spawn(move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the client's network")?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(work(masters, plan, seed, shared))
        })?;
        Ok(Self { notes, thread: Some(thread) })
    }

    /// Lets the clients finish what is on its way, and waits for them.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        self.notes.is_over.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| anyhow!("the clients panicked"))?
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // Whoever wants to know stops it by hand.
        let _ = self.stop();
    }
}

async fn work(masters: Vec<String>, plan: Plan, mut seed: Random, notes: Arc<Notes>) -> anyhow::Result<()> {
    let caller = Arc::new(Caller::new(&masters)?);
    let mut requests = JoinSet::new();
    let mut number = 0_u64;
    while !notes.is_over() && plan.per_second > 0.0 {
        sleep(Duration::from_secs_f64(1.0 / plan.per_second)).await;
        while requests.try_join_next().is_some() {}
        if requests.len() >= REQUESTS_MAX {
            continue;
        }
        number += 1;
        let workflow = plan.workflows[seed.index(plan.workflows.len())].clone();
        let client = Client {
            caller: Arc::clone(&caller),
            notes: Arc::clone(&notes),
            seed: seed.fork(&number.to_string()),
            cancels: plan.cancels,
        };
        requests.spawn(client.submit(workflow, format!("key-{number}")));
    }
    while requests.join_next().await.is_some() {}
    Ok(())
}

/// One client with one run.
struct Client {
    caller: Arc<Caller>,
    notes: Arc<Notes>,
    seed: Random,
    cancels: u64,
}

impl Client {
    async fn submit(mut self, workflow: String, key: String) {
        let Some(run) = self.ask_for_run(&workflow, &key).await else { return };
        if self.seed.happens(REPEATS) {
            self.ask_for_run(&workflow, &key).await;
        }
        if self.seed.happens(self.cancels) {
            sleep(Duration::from_millis(self.seed.below(CANCEL_AFTER_MAX))).await;
            self.cancel(run).await;
        }
    }

    async fn ask_for_run(&mut self, workflow: &str, key: &str) -> Option<RunId> {
        let (request, begun) = (self.notes.ask(), clock::now());
        let mut master = self.seed.index(self.caller.count());
        while !self.notes.is_over() {
            match self.caller.start_run(master, workflow, key).await {
                Told::Yes(run) => {
                    self.notes.slowest.fetch_max(clock::now() - begun, Ordering::Relaxed);
                    self.notes.acknowledged.fetch_add(1, Ordering::Relaxed);
                    let (Ok(run), Ok(workflow)) = (run.parse(), workflow.parse()) else { return None };
                    let answer = Answer::RunStarted { workflow, key: Some(key.to_owned()), run };
                    self.notes.note(Event::Answered { request, answer });
                    return Some(run);
                }
                Told::No => {
                    self.notes.refused.fetch_add(1, Ordering::Relaxed);
                    self.notes.note(Event::Answered { request, answer: Answer::Other });
                    return None;
                }
                Told::Nothing => {
                    sleep(Duration::from_millis(100 + self.seed.below(200))).await;
                    master = (master + 1) % self.caller.count();
                }
            }
        }
        self.give_up(request);
        None
    }

    async fn cancel(&mut self, run: RunId) {
        let request = self.notes.ask();
        let mut master = self.seed.index(self.caller.count());
        while !self.notes.is_over() {
            let answer = match self.caller.cancel_run(master, &run.to_string()).await {
                Told::Yes(state) => {
                    state.parse().map_or(Answer::Other, |state| Answer::RunMoved { run, state })
                }
                Told::No => Answer::Other,
                Told::Nothing => {
                    sleep(Duration::from_millis(100 + self.seed.below(200))).await;
                    master = (master + 1) % self.caller.count();
                    continue;
                }
            };
            return self.notes.note(Event::Answered { request, answer });
        }
        self.give_up(request);
    }

    fn give_up(&self, request: u64) {
        self.notes.unanswered.fetch_add(1, Ordering::Relaxed);
        self.notes.note(Event::Answered { request, answer: Answer::Other });
    }
}

//! Executors that are only sessions: they greet, beat, and offer a kind of task that nobody asks for. When the leader
//! goes they all come back at once, without the pauses that a real executor makes.
//!
//! They run in this process, on a thread whose network is that of the client's machine.

use std::{
    collections::BTreeMap,
    fs::File,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, anyhow, bail, ensure};
use millrace_proto::{
    PROTOCOL,
    v1::{self, executor_message::Body, leader_message::Body as Said},
};
use millrace_servers::client;
use nix::{
    sched::{CloneFlags, setns},
    sys::resource::{Resource, getrlimit, setrlimit},
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::sleep,
};
use tokio_stream::wrappers::ReceiverStream;

use crate::{
    clock,
    network::{self, Network},
    random::Random,
};

/// How often each beats.
const BEAT: Duration = Duration::from_secs(3);
/// Messages that wait for one connection.
const QUEUE_MAX: usize = 16;
/// File descriptors beside those of the sessions.
const DESCRIPTORS: u64 = 1_000;
/// The longest pause before another master is asked, in milliseconds.
const PAUSE_MAX: u64 = 200;

/// Sessions, and which leader welcomed each last.
#[derive(Debug)]
pub(crate) struct Crowd {
    welcomes: Arc<Mutex<BTreeMap<u64, Welcome>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

/// By whom one is welcome, and since when.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Welcome {
    pub(crate) term: u64,
    pub(crate) at: u64,
}

impl Crowd {
    pub(crate) fn start(
        network: &Network,
        masters: &[String],
        count: u64,
        seed: &Random,
    ) -> anyhow::Result<Self> {
        let (soft, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        let needed = (2 * count + DESCRIPTORS).max(soft);
        ensure!(
            most >= needed,
            "{needed} file descriptors are needed and {most} are allowed: raise `ulimit -n`"
        );
        setrlimit(Resource::RLIMIT_NOFILE, needed, most)?;
        let namespace =
            File::open(network.file(network::CLIENT)).context("cannot open the client's network")?;
        let welcomes = Arc::new(Mutex::new(BTreeMap::new()));
        let (masters, seed, seen) = (masters.to_vec(), seed.fork("crowd"), Arc::clone(&welcomes));
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new().name("crowd".to_owned()).spawn(move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the client's network")?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let mut sessions = JoinSet::new();
                for number in 0..count {
                    let seed = seed.fork(&number.to_string());
                    sessions.spawn(come_back(masters.clone(), number, seed, Arc::clone(&seen)));
                }
                // Nobody may want to know any more.
                let _ = stopped.await;
            });
            Ok(())
        })?;
        Ok(Self { welcomes, stop: Some(stop), thread: Some(thread) })
    }

    /// Returns those who are welcome under a term later than this.
    pub(crate) fn welcome_after(&self, term: u64) -> Vec<Welcome> {
        locked(&self.welcomes).values().filter(|welcome| welcome.term > term).copied().collect()
    }

    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        // It may have ended by itself.
        let _ = self.stop.take().map(|stop| stop.send(()));
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| anyhow!("the crowd panicked"))?
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        // Whoever wants to know stops it by hand.
        let _ = self.stop();
    }
}

fn locked(welcomes: &Mutex<BTreeMap<u64, Welcome>>) -> MutexGuard<'_, BTreeMap<u64, Welcome>> {
    welcomes.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens sessions for as long as it lives, with whoever leads.
async fn come_back(
    masters: Vec<String>,
    number: u64,
    mut seed: Random,
    seen: Arc<Mutex<BTreeMap<u64, Welcome>>>,
) {
    let mut asked = seed.index(masters.len());
    loop {
        // Why it ended makes no difference to who comes back.
        let _ = session(&masters[asked], number, &seen).await;
        asked = (asked + 1) % masters.len();
        sleep(Duration::from_millis(seed.below(PAUSE_MAX))).await;
    }
}

async fn session(url: &str, number: u64, seen: &Mutex<BTreeMap<u64, Welcome>>) -> anyhow::Result<()> {
    let mut client = client::executors(url).await?;
    let (sender, receiver) = mpsc::channel(QUEUE_MAX);
    let say = async |body| sender.send(v1::ExecutorMessage { body: Some(body) }).await.context("it ended");
    say(Body::Hello(hello(number))).await?;
    let mut messages = client.session(ReceiverStream::new(receiver)).await?.into_inner();
    let mut beats = tokio::time::interval(BEAT);
    let mut count = 0;
    loop {
        let message = tokio::select! {
            message = messages.message() => message?.context("the leader ended it")?,
            _ = beats.tick() => {
                count += 1;
                say(Body::Heartbeat(v1::Heartbeat { number: count, ..v1::Heartbeat::default() })).await?;
                continue;
            }
        };
        match message.body {
            Some(Said::Welcome(_)) => {
                let welcome = Welcome { term: message.term, at: clock::now() };
                locked(seen).insert(number, welcome);
            }
            Some(Said::Refused(refused)) => bail!("refused: {}", refused.reason),
            Some(Said::NotLeader(_)) => bail!("this master does not lead"),
            // It holds nothing and takes nothing, so that the rest does not concern it.
            _ => {}
        }
    }
}

fn hello(number: u64) -> v1::Hello {
    v1::Hello {
        protocol: PROTOCOL,
        executor: format!("crowd-{number}"),
        slots: 1,
        kinds: vec!["crowd".to_owned()],
        spool_id: (u128::from(number) + 1).to_be_bytes().to_vec(),
        boot_id: format!("boot-{number}"),
        machine_id: format!("machine-{number}"),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..v1::Hello::default()
    }
}

//! What stands between masters and their database while it is there: connections break where a COMMIT passes, so that
//! the outcome of a transaction is not known to who sent it.
//!
//! It runs in this process, on a thread whose network is that of the database's machine, and gets what comes for the
//! database's port by a rule of that machine; dropping it takes nothing back but its own connections. It knows nothing
//! of the protocols: both send the word alone, in a message of its own.

use std::{
    fs::File,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use nix::sched::{CloneFlags, setns};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
};

use crate::{
    network::{Host, Network},
    random::Random,
};

/// The longest message that is a COMMIT and nothing else, of either protocol.
const COMMIT_BYTES_MAX: usize = 16;
/// Bytes that are passed on at a time.
const BUFFER_BYTES: usize = 1 << 16;
/// How long the thread may take to listen.
const LISTENS_WITHIN: Duration = Duration::from_secs(10);

/// What becomes of a COMMIT that passes.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Pass,
    /// The connection breaks before the server gets it.
    Withheld,
    /// The server gets it, and the connection breaks at once.
    Torn,
    /// The server answers, and the connection breaks instead of passing the answer on.
    Unanswered,
}

/// How many COMMITs met which fate.
#[derive(Debug, Default)]
struct Tally {
    passed: AtomicU64,
    withheld: AtomicU64,
    torn: AtomicU64,
    unanswered: AtomicU64,
}

/// What the rig holds of it.
#[derive(Debug)]
pub(crate) struct Proxy {
    tally: Arc<Tally>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<anyhow::Result<()>>>,
}

/// What connections have in common.
struct Shared {
    server: SocketAddr,
    tally: Arc<Tally>,
    /// How many of a hundred COMMITs break their connection.
    percent: u64,
}

impl Proxy {
    /// Takes in from now on what comes to a port of a machine; connections that are there already stay as they are.
    pub(crate) fn start(
        network: &Network,
        host: Host,
        port: u16,
        percent: u64,
        seed: &Random,
    ) -> anyhow::Result<Self> {
        let namespace = File::open(network.file(host)).context("cannot open the database's network")?;
        let tally = Arc::new(Tally::default());
        let shared = Shared { server: SocketAddr::new(host.ip(), port), tally: Arc::clone(&tally), percent };
        let (stop, stopped) = oneshot::channel();
        let (listens, own_port) = mpsc::sync_channel(1);
        let seed = seed.fork("proxy");
        let thread = thread::Builder::new().name("proxy".to_owned()).spawn(move || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).context("cannot enter the database's network")?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let listener = TcpListener::bind((host.ip(), 0)).await?;
                // Whoever waits for it may have given up.
                let _ = listens.send(listener.local_addr()?.port());
                tokio::select! {
                    served = serve(listener, Arc::new(shared), seed) => served.context("the proxy cannot go on"),
                    _ = stopped => Ok(()),
                }
            })
        })?;
        let mut proxy = Self { tally, stop: Some(stop), thread: Some(thread) };
        match own_port.recv_timeout(LISTENS_WITHIN) {
            Ok(own) => network.divert(host, port, own)?,
            Err(_) => proxy.stop().context("the proxy does not listen")?,
        }
        Ok(proxy)
    }

    /// Returns how many COMMITs broke their connection.
    pub(crate) fn broken(&self) -> u64 {
        let Tally { withheld, torn, unanswered, .. } = &*self.tally;
        [withheld, torn, unanswered].into_iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Says how many COMMITs met which fate.
    pub(crate) fn told(&self) -> String {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let Tally { passed, withheld, torn, unanswered } = &*self.tally;
        format!(
            "{} (not passed on {}, broken at once {}, answer swallowed {}) of {}",
            self.broken(),
            count(withheld),
            count(torn),
            count(unanswered),
            self.broken() + count(passed)
        )
    }

    /// Breaks all connections and ends.
    pub(crate) fn stop(&mut self) -> anyhow::Result<()> {
        // It may have ended by itself.
        let _ = self.stop.take().map(|stop| stop.send(()));
        let Some(thread) = self.thread.take() else { return Ok(()) };
        thread.join().map_err(|_| anyhow!("the proxy panicked"))?
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Whoever wants to know stops it by hand.
        let _ = self.stop();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, mut seed: Random) -> io::Result<()> {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await?;
        while connections.try_join_next().is_some() {}
        let seed = Random::new(seed.next());
        // One that breaks is what this is for.
        connections.spawn(carry(client, Arc::clone(&shared), seed));
    }
}

/// Passes everything on, both ways, until a side ends or a COMMIT meets its fate.
async fn carry(mut client: TcpStream, shared: Arc<Shared>, mut seed: Random) -> io::Result<()> {
    let mut server = TcpStream::connect(shared.server).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (mut up, mut down) = (vec![0; BUFFER_BYTES], vec![0; BUFFER_BYTES]);
    loop {
        // Dropping a read that is not ready loses nothing.
        tokio::select! {
            read = client.read(&mut up) => {
                let message = &up[..read?];
                if message.is_empty() {
                    return Ok(());
                }
                let fate = shared.fate_of(message, &mut seed);
                if !matches!(fate, Fate::Withheld) {
                    server.write_all(message).await?;
                }
                if matches!(fate, Fate::Unanswered) {
                    // Whatever the answer is, nobody gets it.
                    let _answer = server.read(&mut down).await?;
                }
                if !matches!(fate, Fate::Pass) {
                    return Ok(());
                }
            }
            read = server.read(&mut down) => match read? {
                0 => return Ok(()),
                bytes => client.write_all(&down[..bytes]).await?,
            },
        }
    }
}

impl Shared {
    fn fate_of(&self, message: &[u8], seed: &mut Random) -> Fate {
        let is_commit = message.len() <= COMMIT_BYTES_MAX && message.windows(6).any(|part| part == b"COMMIT");
        if !is_commit {
            return Fate::Pass;
        }
        let (fate, count) = match (seed.happens(self.percent), seed.below(3)) {
            (false, _) => (Fate::Pass, &self.tally.passed),
            (true, 0) => (Fate::Withheld, &self.tally.withheld),
            (true, 1) => (Fate::Torn, &self.tally.torn),
            (true, _) => (Fate::Unanswered, &self.tally.unanswered),
        };
        count.fetch_add(1, Ordering::Relaxed);
        fate
    }
}

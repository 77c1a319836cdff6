//! The executor as a whole: builds its parts, passes on what each of them tells, and ends them in order.
//!
//! One task owns the ledger. Each turn of its loop takes in whatever has happened, hands what must be written to the spool
//! and does what has become durable. The arms of the loop hold no logic: decisions are the ledger's.

use std::{fs, path::Path, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use millrace_common::{
    gather::gather_time,
    id::{KindName, SpoolId},
    secret::Secret,
    time::{Clock as _, Uptime},
};
use millrace_kinds::{Registry, Site};
use millrace_runtime::{SystemClock, token::read_token_file};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    config::ExecutorConfig,
    history::{self, History, Keep},
    ledger::{Action, Batch, HistoryQuestion, Input, Ledger, Limits, OnStop},
    output::{Output, Shipper, ShipperSettings},
    runner::{self, Event, Runner, Settings},
    session::{Introduction, News, Session, history_page},
    spool::{self, BATCHES_IN_FLIGHT_MAX, FolderLock, Spool, WriteError, Written},
};

/// Bytes of the shortest journal that is written anew, and by how much it must have grown since the last time.
const REWRITE_BYTES_MIN: u64 = 2 << 20;
const REWRITE_GROWTH: u64 = 4;
/// Open files of the program and of its supervisor, and for each living attempt: its log and its control group.
const FILES_BASE: u64 = 256;
const FILES_PER_SLOT: u64 = 4;
/// Files that must be free to be made on the disk of the data folder for an attempt to start.
const FREE_FILES_MIN: u64 = 64;
/// How long a deadline is slept for at once: timers stop while the machine is suspended, deadlines do not.
const SLEEP_MAX: Duration = Duration::from_secs(2);
/// How long the leader may take to acknowledge the last ends when the program stops.
const FLUSH_MAX: Duration = Duration::from_secs(3);

/// Runs an executor until `shutdown`, then leaves what it runs to the supervisor, or ends it and reports that.
///
/// # Errors
/// Where a part cannot be built from the configuration, the spool cannot be written, or a thread is gone.
pub async fn run(config: ExecutorConfig, shutdown: CancellationToken) -> anyhow::Result<()> {
    let problems: Vec<String> = config.problems().iter().map(ToString::to_string).collect();
    anyhow::ensure!(problems.is_empty(), "the configuration does not hold together: {}", problems.join("; "));
    let token = read_token_file(&config.token_file).context("the token cannot be used")?;
    let (app, written, shipper) = App::build(config, &token).await?;
    let mut tasks = JoinSet::new();
    let stop = CancellationToken::new();
    tasks.spawn(shipper.run(stop.clone()));
    let result = tokio::select! {
        result = app.run(written, shutdown) => result,
        _ = tasks.join_next() => Err(anyhow::anyhow!("the task that ships output has ended")),
    };
    stop.cancel();
    while let Some(ended) = tasks.join_next().await {
        ended.context("the task that ships output failed")?;
    }
    result
}

struct App {
    ledger: Ledger,
    spool: Spool,
    batches_in_flight: usize,
    rewritten_bytes: u64,
    runner: Runner,
    output: Arc<Output>,
    session: Session,
    data_dir: PathBuf,
    min_free: u64,
    heartbeat_interval: Duration,
    heartbeat_at: Uptime,
    /// Until then what is decided is gathered, so that one write to the disk serves many attempts.
    gather_until: Uptime,
    /// Whether what an earlier life left has been dealt with, so that a leader may be looked for.
    is_ready: bool,
    stopping: Option<Stopping>,
    stop_timeout: Duration,
    on_stop: OnStop,
    _lock: FolderLock,
}

/// The way out.
struct Stopping {
    until: Uptime,
    flush_until: Option<Uptime>,
}

/// What the thread that writes the spool tells.
type Writings = mpsc::Receiver<Result<Written, WriteError>>;

impl App {
    async fn build(mut config: ExecutorConfig, token: &Secret) -> anyhow::Result<(Self, Writings, Shipper)> {
        raise_file_limit(config.slots);
        let lock = spool::lock(&config.data_dir)?;
        let data_dir = fs::canonicalize(&config.data_dir).context("the data folder has no absolute path")?;
        let opened = spool::open(&data_dir)?;
        let limits = Limits {
            slots: config.slots,
            answer_timeout: config.answer_timeout,
            stop_grace: config.stop_grace,
        };
        let mut registry = Registry::builtin();
        registry.declare(std::mem::take(&mut config.kinds)).context("the declared kinds cannot be used")?;
        let kinds = registry.names().map(KindName::to_string).collect();
        let introduction = introduction(&config, kinds, opened.id);
        let session = Session::new(&config.masters, token, config.answer_timeout, introduction)?;
        let output = Arc::new(Output::default());
        let site = site(&config, &data_dir);
        let secrets = passwords(&site);
        let settings = Settings { data_dir: data_dir.clone(), registry, site };
        let (mut runner, found, kept) = Runner::open(settings).await.context("attempts cannot be run")?;
        let ledger = Ledger::restore(opened.id, limits, opened.records, &kept);
        runner.take_over(found, |attempt| ledger.is_live(attempt));
        let shipper = Shipper::new(ShipperSettings {
            output: Arc::clone(&output),
            folder: data_dir.join("output"),
            secrets,
            leader: session.leader(),
        });
        let keep = Keep { size: config.history_size, time: config.history_keep };
        let history = History::open(&data_dir, keep, opened.id, config.slots)
            .context("the folder `history` of the data folder cannot be used")?;
        let (spool, written) =
            Spool::start(opened.journal, history).context("the spool's thread cannot be started")?;
        let app = Self {
            ledger,
            spool,
            batches_in_flight: 0,
            rewritten_bytes: REWRITE_BYTES_MIN,
            runner,
            output,
            session,
            data_dir,
            min_free: config.min_free,
            heartbeat_interval: config.heartbeat_interval,
            heartbeat_at: Uptime::default(),
            gather_until: Uptime::default(),
            is_ready: false,
            stopping: None,
            stop_timeout: config.stop_timeout,
            on_stop: config.on_stop.unwrap_or(OnStop::Keep),
            _lock: lock,
        };
        Ok((app, written, shipper))
    }

    async fn run(mut self, mut written: Writings, shutdown: CancellationToken) -> anyhow::Result<()> {
        let mut events = Vec::new();
        self.advance()?;
        self.runner.flush();
        while !self.has_stopped() {
            let pause = self.next_wake().map(|at| at.since(SystemClock.now().uptime).min(SLEEP_MAX));
            tokio::select! {
                // What is rare and what others wait for comes first; none of the arms stays ready for long.
                biased;
                () = shutdown.cancelled(), if self.stopping.is_none() => self.on_stop(),
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => self.on_time(),
                written = written.recv() => self.on_written(written.unwrap_or(Err(WriteError::Gone)))?,
                turned = self.runner.turn(&mut events) => {
                    turned.context("attempts cannot be run")?;
                    events.drain(..).for_each(|event| self.on_event(event));
                }
                news = self.session.next(), if self.is_ready => self.on_news(news),
            }
            self.advance()?;
            self.runner.flush();
        }
        if self.on_stop == OnStop::End {
            self.runner.leave();
        }
        Ok(())
    }

    fn next_wake(&self) -> Option<Uptime> {
        let heartbeat = self.session.is_open().then_some(self.heartbeat_at);
        let stop = self.stopping.as_ref().map(|stopping| stopping.flush_until.unwrap_or(stopping.until));
        let gathered = self.ledger.has_batch().then_some(self.gather_until);
        [self.ledger.poll_timeout(), heartbeat, stop, gathered].into_iter().flatten().min()
    }

    fn on_stop(&mut self) {
        match self.on_stop {
            OnStop::Keep => {
                tracing::info!(
                    attempts = self.ledger.live_count(),
                    "the executor stops; what it runs goes on"
                );
            }
            OnStop::End => {
                tracing::info!(
                    attempts = self.ledger.live_count(),
                    "the executor stops; what it runs is ended"
                );
            }
        }
        self.stopping =
            Some(Stopping { until: SystemClock.now().uptime + self.stop_timeout, flush_until: None });
        self.session.announce_draining();
        self.take(Input::StopRequested(self.on_stop));
    }

    fn on_time(&mut self) {
        let now = SystemClock.now();
        self.ledger.handle_timeout(now);
        if self.session.is_open() && self.heartbeat_at <= now.uptime {
            self.heartbeat_at = now.uptime + self.heartbeat_interval;
            self.take(Input::SpaceChecked { is_low: self.is_space_low() });
            self.take(Input::HeartbeatDue);
        }
    }

    fn on_written(&mut self, written: Result<Written, WriteError>) -> anyhow::Result<()> {
        let written = written?;
        if written.is_disk_full {
            self.output.give_way();
        }
        self.batches_in_flight -= written.batches.len();
        for batch in written.batches {
            self.release(batch)?;
        }
        if written.journal_bytes > self.rewritten_bytes.saturating_mul(REWRITE_GROWTH) {
            self.spool.rewrite(self.ledger.snapshot())?;
            // Until its size is told; a journal of live attempts alone is far smaller than this.
            self.rewritten_bytes = written.journal_bytes;
        } else if written.journal_bytes < self.rewritten_bytes {
            self.rewritten_bytes = written.journal_bytes.max(REWRITE_BYTES_MIN);
        }
        Ok(())
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Spawned { attempt, pid, workspace, at, source } => {
                self.output.open(source);
                self.take(Input::Spawned { attempt, pid, workspace, at });
            }
            Event::Adopted(source) => self.output.open(source),
            Event::Exited(attempt, exit) => self.take(Input::Exited(attempt, exit)),
            Event::SupervisorLost => {
                tracing::error!(
                    attempts = self.ledger.live_count(),
                    "the supervisor of attempts is gone; what it ran is ended"
                );
                self.is_ready = false;
                self.take(Input::SupervisorLost);
            }
            Event::Ready { is_clean } => {
                self.is_ready = true;
                self.take(Input::Purged { is_complete: is_clean });
            }
        }
    }

    fn on_news(&mut self, news: News) {
        match news {
            News::Dialled => {
                // The ledger sends the first heartbeat itself, when it is welcome.
                self.heartbeat_at = SystemClock.now().uptime + self.heartbeat_interval;
                self.take(Input::SpaceChecked { is_low: self.is_space_low() });
                self.take(Input::Dialled);
            }
            News::Said(term, said) => {
                if let Err(refusal) = self.ledger.handle(SystemClock.now(), Input::FromLeader(term, said)) {
                    self.session.close(&refusal.to_string());
                    self.take(Input::Disconnected);
                }
            }
            News::Closed => self.take(Input::Disconnected),
        }
    }

    /// Hands an input to the ledger that it cannot refuse: it comes from this program itself.
    fn take(&mut self, input: Input) {
        if let Err(refusal) = self.ledger.handle(SystemClock.now(), input) {
            tracing::error!(%refusal, "the ledger refused an input of this program");
        }
    }

    /// Gives what the ledger decided to the spool, or does it at once where nothing is to be written before it.
    fn advance(&mut self) -> anyhow::Result<()> {
        let now = SystemClock.now().uptime;
        if now < self.gather_until {
            return Ok(());
        }
        self.gather_until = now + gather_time(self.ledger.live_count());
        while self.batches_in_flight < BATCHES_IN_FLIGHT_MAX
            && let Some(batch) = self.ledger.take_batch()
        {
            if self.batches_in_flight == 0 && batch.records().is_empty() {
                self.release(batch)?;
            } else {
                self.spool.write(batch)?;
                self.batches_in_flight += 1;
            }
        }
        Ok(())
    }

    fn release(&mut self, batch: Batch) -> anyhow::Result<()> {
        for action in self.ledger.release(SystemClock.now(), batch) {
            match action {
                Action::Spawn(start) => self.runner.spawn(&start),
                Action::Kill { attempt, grace, by } => self.runner.kill(attempt, grace, by),
                Action::Settle(attempt) => {
                    if let Some(bytes) = self.runner.settle(attempt) {
                        self.output.end(attempt, bytes);
                    }
                }
                Action::Extend(contact) => self.runner.extend(contact),
                Action::Purge(remains) => self.runner.purge(remains),
                Action::Report(attempt, report) => self.session.report(attempt, report),
                Action::Greet(greeting) => self.session.greet(greeting),
                Action::Heartbeat(heartbeat) => self.session.heartbeat(heartbeat),
                Action::Discard(attempt) => self.output.discard(attempt),
                // A page is small and was written a moment ago, as a rule: the loop waits for it.
                Action::TellHistory(HistoryQuestion { number, since, until, page }) => {
                    let read = history::read(&self.data_dir, since, until, &page);
                    self.session.tell_history(history_page(number, read));
                }
                Action::SetAside(reason) => {
                    spool::set_aside(&self.data_dir)?;
                    anyhow::bail!(
                        "the leader refuses this spool, which was put aside for a new one: {reason}"
                    );
                }
                Action::CloseSession => {
                    self.session.close("heartbeats are not answered in time");
                    self.take(Input::Disconnected);
                }
            }
        }
        Ok(())
    }

    /// Tells whether the program may end: nothing lives or all that lives is left to the supervisor, and what there is to say
    /// was said or has waited long enough.
    fn has_stopped(&mut self) -> bool {
        let Some(stopping) = &mut self.stopping else { return false };
        let now = SystemClock.now().uptime;
        if now >= stopping.until {
            tracing::warn!(attempts = self.ledger.live_count(), "the time to stop is over");
            return true;
        }
        let is_waiting = self.on_stop == OnStop::End && self.ledger.live_count() > 0;
        // What was decided is handed over: an attempt with an intent and no process would be lost.
        if is_waiting || self.batches_in_flight > 0 || self.ledger.has_batch() || !self.runner.is_flushed() {
            return false;
        }
        let is_told = self.session.is_flushed() && self.ledger.unacknowledged_count() == 0;
        let flush_until = *stopping.flush_until.get_or_insert(now + FLUSH_MAX);
        is_told || !self.session.is_open() || now >= flush_until
    }

    fn is_space_low(&self) -> bool {
        match nix::sys::statvfs::statvfs(&self.data_dir) {
            Ok(found) => {
                let has_few_files = found.files() > 0 && found.files_available() < FREE_FILES_MIN;
                let needed = self.min_free.saturating_add(spool::missing_reserve(&self.data_dir));
                has_few_files || found.blocks_available().saturating_mul(found.fragment_size()) < needed
            }
            // A folder that cannot be looked at shows itself at the next write.
            Err(_) => false,
        }
    }
}

/// Returns what this executor says of itself.
fn introduction(config: &ExecutorConfig, kinds: Vec<String>, spool: SpoolId) -> Introduction {
    Introduction {
        executor: config.name.to_string(),
        slots: config.slots,
        labels: config.labels.clone(),
        kinds,
        spool,
        boot: boot_id(),
        machine: machine_id(),
        process: Uuid::now_v7().to_string(),
    }
}

/// Returns what this machine offers to kinds.
fn site(config: &ExecutorConfig, data_dir: &Path) -> Site {
    Site {
        program: runner::own_program(),
        connections: Arc::new(config.connections.clone()),
        state_dir: data_dir.join("state"),
        datax: config.datax.clone(),
        backup: config.backup.clone(),
    }
}

/// Lets this program, and the supervisor that it starts, open as many files as its slots need. No more than that: attempts inherit the limit, and there are
/// programs that walk through every descriptor they might have.
fn raise_file_limit(slots: u32) {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let needed = FILES_BASE + FILES_PER_SLOT * u64::from(slots);
    let raised = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(soft, hard)| {
        if soft >= needed { Ok(()) } else { setrlimit(Resource::RLIMIT_NOFILE, needed.min(hard), hard) }
    });
    if let Err(error) = raised {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

/// Returns every password of the configuration that can be read now, to hide it in output from before a restart.
fn passwords(site: &Site) -> Vec<Secret> {
    let read =
        |path: &Path| fs::read_to_string(path).ok().map(|text| Secret::new(text.trim_end().to_owned()));
    let both = site.connections.values().flat_map(|connection| {
        [connection.password.clone(), connection.password_file.as_deref().and_then(read)]
    });
    both.flatten().collect()
}

/// Returns the id of this boot of the machine; empty where the kernel gives none.
fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Returns the id of this machine, which stays the same from one boot to the next; empty where it has none.
fn machine_id() -> String {
    fs::read_to_string("/etc/machine-id").unwrap_or_default().trim().to_owned()
}

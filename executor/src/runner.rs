//! Running attempts: the executor's side of the supervisor.
//!
//! A start is rendered and made a program here, the supervisor starts it; what becomes of it comes back as an exit, whose
//! outcome is read here. Nothing here knows of leaders, terms or the spool. A supervisor that fails is noticed, and what is
//! left of its attempts is ended and looked for before another one is started.
//!
//! One task owns all of this. Waiting may be given up at any time; everything else happens at once.

mod found;
mod launcher;
mod link;
mod outcome;
mod purge;
mod workspace;

use std::{
    collections::{HashMap, HashSet},
    io,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::{Child, ExitStatus},
    time::Duration,
};

use millrace_common::{
    id::AttemptId,
    secret::Secret,
    time::{Clock as _, Now, Timestamp, Uptime},
};
use millrace_kinds::{Registry, Site};
use millrace_runtime::{Chain, SystemClock};
use thiserror::Error;

pub(crate) use self::workspace::log_file;
use self::{
    found::Found,
    launcher::{LaunchFailure, Launcher},
    link::{Inventory, Link, LinkError},
    purge::Purge,
    workspace::{Workspace, Workspaces},
};
use crate::{
    ledger::{EndedBy, Ending, Exit, Kept, Remains, Start},
    output::{Source, shown_bytes},
    supervisor::{
        folder::Folder,
        protocol::{Ended, FailedStep, NotStarted, Order, Spawn, Terms, Word, millis, tail},
    },
};

/// How long the rest of the program waits for attempts that the spool does not know to end.
const STRANGERS_MAX: Duration = Duration::from_secs(10);

/// What the rest of the program is told.
#[derive(Debug)]
pub(crate) enum Event {
    /// The process of an attempt was started.
    Spawned { attempt: AttemptId, pid: u32, workspace: u32, at: Now, source: Source },
    /// An attempt of an earlier life goes on.
    Adopted(Source),
    /// Nothing of an attempt is left, or it could not be started.
    Exited(AttemptId, Exit),
    /// The supervisor is gone.
    SupervisorLost,
    /// Attempts may be started; whether nothing is left of earlier ones that nobody supervises.
    Ready { is_clean: bool },
}

/// Why processes cannot be run.
#[derive(Debug, Error)]
pub(crate) enum RunnerError {
    /// There is no supervisor.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// A folder cannot be used.
    #[error("the folders of attempts cannot be used")]
    Folder(#[source] io::Error),
}

/// What a runner works with.
#[derive(Debug)]
pub(crate) struct Settings {
    /// The executor's data folder, absolute.
    pub(crate) data_dir: PathBuf,
    /// The kinds of this executor.
    pub(crate) registry: Registry,
    /// What the machine offers to them.
    pub(crate) site: Site,
}

/// The attempts of this executor, as far as they have processes.
#[derive(Debug)]
pub(crate) struct Runner {
    launcher: Launcher,
    workspaces: Workspaces,
    data_dir: PathBuf,
    folder: Folder,
    link: Option<Link>,
    /// A supervisor that is gone, or about to be.
    fallen: Option<Child>,
    held: HashMap<AttemptId, Held>,
    /// Attempts that a supervisor holds and this executor does not know.
    strangers: HashSet<AttemptId>,
    strangers_until: Uptime,
    purge: Option<Purge>,
    /// What the purge that is being waited for came to.
    purged: Option<bool>,
    is_ready: bool,
    contact: Uptime,
    settled: Vec<AttemptId>,
    events: Vec<Event>,
}

/// An attempt that has a workspace.
#[derive(Debug)]
struct Held {
    workspace: Workspace,
    /// Its process, once there is one.
    pid: Option<u32>,
    /// What to hide in its output, until that is shipped.
    secrets: Vec<Secret>,
    /// What was to be started, for people.
    program: String,
}

impl Runner {
    /// Finds what an earlier life left. Nothing is started or ended by this.
    pub(crate) async fn open(settings: Settings) -> Result<(Self, Found, Kept), RunnerError> {
        let Settings { data_dir, registry, site } = settings;
        let folder = Folder::open(&data_dir).map_err(RunnerError::Folder)?;
        let workspaces = Workspaces::open(&data_dir).map_err(RunnerError::Folder)?;
        let (link, inventory) = match Link::find(&folder).await? {
            Some((link, inventory)) => (Some(link), inventory),
            None => (None, Inventory::default()),
        };
        let Inventory { contact, running, ended } = inventory;
        let is_held = |end: &Ended| {
            let of_running = running.iter().map(|running| &running.origin);
            of_running.chain(ended.iter().map(|ended| &ended.origin)).any(|o| o.attempt == end.origin.attempt)
        };
        let left = folder.left_ends().into_iter().filter(|end| !is_held(end)).collect();
        let found = Found { running, ended, left };
        let kept = found.kept(link.is_some().then_some(contact));
        let runner = Self {
            launcher: Launcher::new(registry, site),
            workspaces,
            data_dir,
            folder,
            link,
            fallen: None,
            held: HashMap::new(),
            strangers: HashSet::new(),
            strangers_until: SystemClock.now().uptime + STRANGERS_MAX,
            purge: None,
            purged: None,
            is_ready: false,
            contact,
            settled: Vec::new(),
            events: Vec::new(),
        };
        Ok((runner, found, kept))
    }

    /// Returns the output of an attempt, once.
    fn source(&mut self, attempt: AttemptId) -> Option<Source> {
        let held = self.held.get_mut(&attempt)?;
        let path = self.workspaces.log_path(held.workspace.number);
        Some(Source::new(attempt, path, std::mem::take(&mut held.secrets)))
    }

    /// Has the process of an attempt started. Call it once for an attempt.
    pub(crate) fn spawn(&mut self, start: &Start) {
        if let Err(failure) = self.try_spawn(start) {
            self.on_failed(start.attempt, &failure);
        }
    }

    fn try_spawn(&mut self, start: &Start) -> Result<(), LaunchFailure> {
        // What is settled leaves first: its workspace may be used again by this very start.
        self.tell_settled();
        let workspace = self.workspaces.acquire().map_err(LaunchFailure::Prepare)?;
        let (number, dir) = (workspace.number, workspace.dir.clone());
        let held = Held { workspace, pid: None, secrets: Vec::new(), program: String::new() };
        let held = self.held.entry(start.attempt).insert_entry(held).into_mut();
        let workspace = Workspace { number, dir };
        let launch = self.launcher.launch(start, &workspace)?;
        let program = self.launcher.program(start, &launch, &workspace)?;
        held.program =
            launch.argv.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let terms = Terms {
            timeout_ms: start.timeout.map(in_millis),
            orphan_ms: start.orphan_timeout.map(in_millis),
            grace_ms: in_millis(start.kill_grace),
            success: launch.exit.success,
            skip: launch.exit.skip,
            secrets: launch.secrets.iter().map(|secret| secret.expose().to_owned()).collect(),
        };
        held.secrets = launch.secrets;
        let (arguments, variables) = (program.argv.len(), program.env.len());
        let spawn = Spawn { attempt: start.attempt, workspace: number, arguments, variables, terms };
        // Without a link its loss is about to be told, and with it this attempt's.
        if let Some(link) = &mut self.link {
            link.order(&Order::Spawn(Box::new(spawn)), &tail(&program, &launch.stdin));
        }
        Ok(())
    }

    /// Has an attempt ended: TERM, grace, KILL, and a look that nothing is left.
    pub(crate) fn kill(&mut self, attempt: AttemptId, grace: Duration, by: EndedBy) {
        if let Some(link) = &mut self.link {
            link.order(&Order::Kill { attempt, grace_ms: in_millis(grace), by }, &[]);
            // Somebody waits for this, so a supervisor that is stopped must be noticed.
            link.ask();
        }
    }

    /// Tells the supervisor when a leader was last heard of: one message for all attempts.
    pub(crate) fn extend(&mut self, contact: Uptime) {
        self.contact = self.contact.max(contact);
        if let Some(link) = &mut self.link {
            link.order(&Order::Extend { contact_ms: millis(contact) }, &[]);
            link.ask();
        }
    }

    /// Forgets an attempt whose end is durable, and gives the length of its output where it had a workspace.
    pub(crate) fn settle(&mut self, attempt: AttemptId) -> Option<u64> {
        self.strangers.remove(&attempt);
        let held = self.held.remove(&attempt)?;
        if self.link.is_some() {
            self.settled.push(attempt);
        }
        Some(shown_bytes(self.workspaces.release(&held.workspace, attempt)))
    }

    /// Has what an earlier life left alive ended, where no supervisor holds it; the spool knows of some of it.
    pub(crate) fn purge(&mut self, remains: Vec<Remains>) {
        for Remains { attempt, process } in &remains {
            if let Some(process) = process
                && !self.held.contains_key(attempt)
            {
                let workspace = self.workspaces.adopt(process.workspace);
                let held = Held { workspace, pid: None, secrets: Vec::new(), program: String::new() };
                self.held.insert(*attempt, held);
            }
        }
        self.is_ready = false;
        self.purged = None;
        if self.link.is_some() && remains.is_empty() {
            // Whatever runs is under this supervisor.
            self.purged = Some(true);
            return;
        }
        let spared = match &self.link {
            Some(_) => self.held.iter().filter_map(|(attempt, held)| Some((*attempt, held.pid?))).collect(),
            None => HashMap::new(),
        };
        let cgroup = if self.link.is_none() { self.folder.cgroup() } else { None };
        self.purge = Some(Purge::new(self.data_dir.clone(), remains, cgroup, spared));
    }

    /// Waits for what is next and adds it to `events`. May be dropped and called again at any time.
    pub(crate) async fn turn(&mut self, events: &mut Vec<Event>) -> Result<(), RunnerError> {
        if self.events.is_empty() && !self.may_become_ready() {
            self.wait().await;
        }
        self.take_in()?;
        if self.purge.as_ref().is_some_and(|purge| purge.next_sweep() <= SystemClock.now().uptime) {
            self.sweep();
        }
        if self.may_become_ready() {
            self.become_ready()?;
        }
        events.append(&mut self.events);
        Ok(())
    }

    async fn wait(&self) {
        let now = SystemClock.now().uptime;
        let sweep = self.purge.as_ref().map(Purge::next_sweep);
        let answer = self.link.as_ref().and_then(Link::answer_until);
        let strangers = (!self.is_ready && !self.strangers.is_empty()).then_some(self.strangers_until);
        let wake = [sweep, answer, strangers].into_iter().flatten().min();
        let arrival = async {
            match &self.link {
                Some(link) => link.ready().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = arrival => {}
            () = tokio::time::sleep(wake.unwrap_or_default().since(now)), if wake.is_some() => {}
        }
    }

    /// Takes in what the supervisor says.
    fn take_in(&mut self) -> Result<(), RunnerError> {
        let Some(link) = &mut self.link else { return Ok(()) };
        link.receive();
        while let Some(link) = &mut self.link {
            match link.next() {
                Ok(Some(word)) => self.on_word(word),
                Ok(None) => break,
                Err(error) => {
                    link.kill(&Chain(&error).to_string());
                    break;
                }
            }
        }
        if let Some(link) = &mut self.link
            && link.is_silent(SystemClock.now().uptime)
        {
            link.kill("it does not answer");
        }
        match self.link.take_if(|link| link.is_closed()) {
            Some(link) if !link.is_known => Err(LinkError::DidNotStart.into()),
            Some(link) => {
                self.on_lost(link);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn on_lost(&mut self, mut link: Link) {
        if self.folder.try_lock().is_ok_and(|lock| lock.is_none()) {
            // It has only hung up, and must not go on beside the next one.
            link.kill("it has hung up");
        }
        self.fallen = link.into_child();
        self.settled.clear();
        self.strangers.clear();
        self.is_ready = false;
        self.events.push(Event::SupervisorLost);
    }

    fn on_word(&mut self, word: Word) {
        match word {
            Word::Spawned { attempt, pid, uptime_ms, at } => {
                let at = Now { wall: at, uptime: Uptime::new(Duration::from_millis(uptime_ms)) };
                self.on_spawned(attempt, pid, at);
            }
            Word::Ended(ended) => self.on_ended(*ended),
            Word::Stuck { attempt, pids } => {
                tracing::error!(%attempt, ?pids, "processes cannot be killed; their task waits until they are gone");
            }
            Word::Banner { pid, version, containment, .. } => {
                tracing::debug!(pid, version, containment, "the supervisor has started");
            }
            Word::Refused { reason } => tracing::error!(reason, "the supervisor hangs up"),
            Word::Inventory { .. } | Word::Pong { .. } => {}
        }
    }

    fn on_spawned(&mut self, attempt: AttemptId, pid: u32, at: Now) {
        let Some(held) = self.held.get_mut(&attempt) else { return };
        held.pid = Some(pid);
        let workspace = held.workspace.number;
        let Some(source) = self.source(attempt) else { return };
        self.events.push(Event::Spawned { attempt, pid, workspace, at, source });
    }

    /// Reads the outcome of an attempt of which nothing is left. Its workspace stays until the end is durable.
    fn on_ended(&mut self, ended: Ended) {
        let attempt = ended.origin.attempt;
        let Some(held) = self.held.get(&attempt) else { return };
        if let Some(NotStarted { step, errno }) = ended.not_started {
            let source = io::Error::from_raw_os_error(errno);
            let failure = match step {
                FailedStep::Prepare => LaunchFailure::Prepare(source),
                FailedStep::Folder => LaunchFailure::Folder(source),
                FailedStep::Load => LaunchFailure::Spawn { program: held.program.clone().into(), source },
            };
            return self.on_failed(attempt, &failure);
        }
        let (status, codes) = (ExitStatus::from_raw(ended.status), ended.terms.exit_codes());
        let secrets: Vec<Secret> = ended.terms.secrets.iter().cloned().map(Secret::new).collect();
        let how = outcome::ending(&outcome::Ended {
            status,
            by: ended.ended_by,
            codes: &codes,
            dir: &held.workspace.dir,
            secrets: &secrets,
        });
        self.exited(attempt, how, shown_bytes(ended.log_bytes), ended.at);
    }

    fn on_failed(&mut self, attempt: AttemptId, failure: &LaunchFailure) {
        let (reason, is_permanent) = (Chain(failure).to_string(), failure.is_permanent());
        let how = match failure.rejection() {
            Some(rejection) => Ending::NotStarted { reason, rejection },
            None => Ending::Failed { exit_code: None, reason, is_permanent },
        };
        self.exited(attempt, how, 0, SystemClock.now().wall);
    }

    fn exited(&mut self, attempt: AttemptId, how: Ending, log_bytes: u64, at: Timestamp) {
        self.events.push(Event::Exited(attempt, Exit { how, log_bytes, at }));
    }

    /// Looks for what no supervisor holds, and ends it.
    fn sweep(&mut self) {
        let Some(mut purge) = self.purge.take() else { return };
        if let Some(child) = &mut self.fallen
            && !matches!(child.try_wait(), Ok(None))
        {
            self.fallen = None;
        }
        // Once the rest of the program goes on there is another supervisor, which holds the lock.
        let is_gone = !purge.is_waited_for()
            || self.link.is_some()
            || self.folder.try_lock().is_ok_and(|lock| lock.is_some());
        let swept = purge.sweep(SystemClock.now().uptime, is_gone);
        for Remains { attempt, .. } in swept.gone {
            let how = Ending::Ended { exit_code: None, by: None };
            let log_bytes = self.held.get(&attempt).map_or(0, |held| self.log_bytes(held.workspace.number));
            self.exited(attempt, how, log_bytes, SystemClock.now().wall);
        }
        self.purged = self.purged.or(swept.tell);
        self.purge = (!swept.is_done).then_some(purge);
    }

    fn log_bytes(&self, workspace: u32) -> u64 {
        std::fs::metadata(self.workspaces.log_path(workspace)).map_or(0, |log| shown_bytes(log.len()))
    }

    fn may_become_ready(&self) -> bool {
        let is_patient = || SystemClock.now().uptime < self.strangers_until;
        !self.is_ready && self.purged.is_some() && (self.strangers.is_empty() || !is_patient())
    }

    fn become_ready(&mut self) -> Result<(), RunnerError> {
        let is_clean = self.purged.take().unwrap_or(false) && self.strangers.is_empty();
        self.is_ready = true;
        if is_clean && let Err(error) = self.workspaces.clear_left_over() {
            tracing::warn!(%error, "folders of earlier attempts could not be removed");
        }
        if self.link.is_none() {
            let mut link = Link::start(&self.data_dir)?;
            // What it starts may run on as long as what the one before it started.
            link.order(&Order::Extend { contact_ms: millis(self.contact) }, &[]);
            link.flush();
            self.link = Some(link);
        }
        self.events.push(Event::Ready { is_clean });
        Ok(())
    }

    fn tell_settled(&mut self) {
        let attempts = std::mem::take(&mut self.settled);
        if let Some(link) = self.link.as_mut().filter(|_| !attempts.is_empty()) {
            link.order(&Order::Settled { attempts }, &[]);
        }
    }

    /// Sends what was gathered.
    pub(crate) fn flush(&mut self) {
        self.tell_settled();
        if let Some(link) = &mut self.link {
            link.flush();
        }
    }

    /// Tells whether everything was sent.
    pub(crate) fn is_flushed(&self) -> bool {
        self.settled.is_empty() && self.link.as_ref().is_none_or(Link::is_flushed)
    }

    /// Goes for good: the supervisor ends as soon as it supervises nothing.
    pub(crate) fn leave(mut self) {
        if let Some(link) = &mut self.link {
            link.order(&Order::Leave, &[]);
        }
        self.flush();
    }
}

fn in_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Returns the program that runs built-in kinds: this one, also where another has taken its name meanwhile, and whoever
/// starts it.
pub(crate) fn own_program() -> PathBuf {
    Path::new("/proc").join(std::process::id().to_string()).join("exe")
}

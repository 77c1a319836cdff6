//! The thread that watches processes: it notices exits, ends attempts, and looks that nothing of them is left.
//!
//! What belongs to an attempt: its process group, and every process whose environment carries the attempt's mark, which a
//! second session or a double fork does not shed. When the main process has exited, whatever else lived below it has been
//! adopted by this program (a subreaper), so an empty list of adopted children proves that nothing is left, for the price
//! of one system call. Only where something is left is all of `/proc` looked through, once for all attempts concerned.
//!
//! Invariant: an exit is told only after no process of the attempt was found.

use std::{
    collections::{BTreeMap, HashMap},
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use millrace_common::{
    id::AttemptId,
    time::{Clock as _, Uptime},
};
use millrace_kinds::launch::ExitCodes;
use millrace_runtime::SystemClock;
use nix::{
    sys::{
        signal::{Signal, kill, killpg},
        wait::{WaitPidFlag, waitpid},
    },
    unistd::Pid,
};
use tokio::sync::mpsc;

use super::{
    Command, Event,
    ending::{Ending, is_group_alive, members_of},
    outcome,
    procfs::{self, Adopted},
    purge::Purge,
    spawner::{Registered, Spawned},
    workspace::{Workspace, Workspaces},
};
use crate::ledger::{Exit, Remains};

/// How often children that were adopted and have ended are taken leave of while attempts run.
const REAP_INTERVAL: Duration = Duration::from_secs(5);

type ExitFuture = Pin<Box<dyn Future<Output = (AttemptId, std::io::Result<ExitStatus>)> + Send>>;

/// The processes of all attempts.
pub(super) struct Processes {
    commands: mpsc::Receiver<Command>,
    registrations: mpsc::Receiver<Spawned>,
    events: mpsc::Sender<Event>,
    workspaces: Arc<Workspaces>,
    data_dir: PathBuf,
    /// Starts that were handed to the spawners and not registered yet.
    spawning: Arc<AtomicUsize>,
    adopted: Adopted,
    exits: FuturesUnordered<ExitFuture>,
    live: BTreeMap<AttemptId, Live>,
    /// Kills of attempts whose process is still being started.
    early_kills: HashMap<AttemptId, Duration>,
    purge: Option<Purge>,
    reap_at: Option<Uptime>,
}

/// An attempt whose process was started.
struct Live {
    pid: i32,
    workspace: Workspace,
    exit_codes: ExitCodes,
    /// How the main process ended, and whether a signal of ours came first.
    exited: Option<(ExitStatus, bool)>,
    ending: Option<Ending>,
}

/// What [`Processes::new`] takes.
pub(super) struct Wiring {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) registrations: mpsc::Receiver<Spawned>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) workspaces: Arc<Workspaces>,
    /// The folder that marks the processes of this executor.
    pub(super) data_dir: PathBuf,
    pub(super) spawning: Arc<AtomicUsize>,
}

impl Processes {
    pub(super) fn new(wiring: Wiring) -> Self {
        let Wiring { commands, registrations, events, workspaces, data_dir, spawning } = wiring;
        Self {
            commands,
            registrations,
            events,
            workspaces,
            data_dir,
            spawning,
            adopted: Adopted::open(),
            exits: FuturesUnordered::new(),
            live: BTreeMap::new(),
            early_kills: HashMap::new(),
            purge: None,
            reap_at: None,
        }
    }

    /// Runs until nobody gives commands any more. What lives then goes on living.
    pub(super) async fn run(mut self) {
        loop {
            let pause = self.next_wake().map(|at| at.since(SystemClock.now().uptime));
            tokio::select! {
                // Exits before time, so that one look through `/proc` serves all that ended together.
                biased;
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
                Some(spawned) = self.registrations.recv() => self.on_spawned(spawned),
                Some((attempt, status)) = self.exits.next() => self.on_exit(attempt, status).await,
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => self.on_time().await,
            }
        }
    }

    fn next_wake(&self) -> Option<Uptime> {
        let sweeps =
            self.live.values().filter_map(|live| live.ending.as_ref().map(|ending| ending.next_sweep));
        let purge = self.purge.as_ref().map(Purge::next_sweep);
        sweeps.chain(purge).chain(self.reap_at).min()
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Kill { attempt, grace } if self.live.contains_key(&attempt) => {
                self.begin(attempt, grace);
            }
            Command::Kill { attempt, grace } if self.spawning.load(Ordering::Acquire) > 0 => {
                self.early_kills.insert(attempt, grace);
            }
            Command::Kill { .. } => {}
            Command::Purge(remains) => self.purge = Some(Purge::new(self.data_dir.clone(), remains)),
        }
    }

    fn on_spawned(&mut self, spawned: Spawned) {
        let left = self.spawning.fetch_sub(1, Ordering::AcqRel) - 1;
        if let Spawned::Child(registered) = spawned {
            self.register(*registered);
        }
        if left == 0 {
            // The others were never started, and their ends are told.
            self.early_kills.clear();
        }
    }

    fn register(&mut self, registered: Registered) {
        let Registered { attempt, mut child, pid, workspace, exit_codes } = registered;
        let pid = i32::try_from(pid).unwrap_or(i32::MAX);
        self.live.insert(attempt, Live { pid, workspace, exit_codes, exited: None, ending: None });
        self.exits.push(Box::pin(async move { (attempt, child.wait().await) }));
        if let Some(grace) = self.early_kills.remove(&attempt) {
            self.begin(attempt, grace);
        }
        if self.reap_at.is_none() {
            self.reap_at = Some(SystemClock.now().uptime + REAP_INTERVAL);
        }
    }

    /// Begins to end an attempt: TERM to all of it, or KILL where there is no grace.
    fn begin(&mut self, attempt: AttemptId, grace: Duration) {
        let now = SystemClock.now().uptime;
        let Some(live) = self.live.get_mut(&attempt).filter(|live| live.ending.is_none()) else { return };
        live.ending = Some(Ending::new(now, grace));
        if !grace.is_zero() {
            // The group may be empty by now, which is what is wanted.
            let _ = killpg(live.group(), Signal::SIGTERM);
        }
    }

    async fn on_exit(&mut self, attempt: AttemptId, status: std::io::Result<ExitStatus>) {
        let now = SystemClock.now().uptime;
        let adopted = self.reap_adopted();
        let Some(live) = self.live.get_mut(&attempt) else { return };
        let status = status.unwrap_or_else(|error| {
            tracing::error!(%attempt, %error, "the exit of a process could not be read");
            std::os::unix::process::ExitStatusExt::from_raw(0xff00)
        });
        live.exited = Some((status, live.ending.is_some()));
        if let Some(ending) = &mut live.ending {
            ending.next_sweep = now;
        } else if is_group_alive(live.group())
            || adopted.iter().any(|pid| live.owns(attempt, *pid, &self.data_dir))
        {
            // What a main process leaves behind is ended before its own outcome is told.
            live.ending = Some(Ending::new(now, Duration::ZERO));
        } else {
            self.finish(attempt).await;
        }
    }

    async fn on_time(&mut self) {
        let now = SystemClock.now().uptime;
        if self.reap_at.is_some_and(|at| at <= now) {
            self.reap_adopted();
            self.reap_at = (!self.live.is_empty()).then_some(now + REAP_INTERVAL);
        }
        if self.purge.as_ref().is_some_and(|purge| purge.next_sweep() <= now) {
            self.sweep_purge().await;
        }
        if self.live.values().any(|live| live.ending.as_ref().is_some_and(|ending| ending.next_sweep <= now))
        {
            self.sweep().await;
        }
    }

    /// Looks once for everything that belongs to the attempts that are being ended, and ends it or tells their exit.
    async fn sweep(&mut self) {
        self.reap_adopted();
        let now = SystemClock.now().uptime;
        let ending = self.live.iter().filter(|(_, live)| live.ending.is_some());
        let mut members =
            members_of(&ending.map(|(attempt, live)| (*attempt, live.pid)).collect(), &self.data_dir);
        let mut gone = Vec::new();
        for (attempt, live) in &mut self.live {
            let members = members.remove(attempt).unwrap_or_default();
            let (group, has_exited) = (live.group(), live.exited.is_some());
            let Some(ending) = &mut live.ending else { continue };
            if members.is_empty() && has_exited {
                gone.push(*attempt);
                continue;
            }
            ending.go_on(now, group, &members);
            if ending.is_overdue_now(now) {
                let pids: Vec<i32> = members.iter().map(|process| process.pid).collect();
                tracing::error!(%attempt, ?pids, "processes cannot be killed; their task waits until they are gone");
            }
        }
        for attempt in gone {
            self.finish(attempt).await;
        }
    }

    /// Tells the exit of an attempt of which nothing is left.
    async fn finish(&mut self, attempt: AttemptId) {
        let Some(live) = self.live.remove(&attempt) else { return };
        let Some((status, was_ended)) = live.exited else { return };
        let how = outcome::ending(status, was_ended, &live.exit_codes, &live.workspace);
        let log_bytes = crate::output::shown_bytes(self.workspaces.release(&live.workspace, attempt));
        let at = SystemClock.now().wall;
        self.tell(Event::Exited(attempt, Exit { how, log_bytes, at })).await;
        if self.live.is_empty() && self.spawning.load(Ordering::Acquire) == 0 {
            self.kill_strays();
        }
    }

    /// Ends adopted processes that hid where they come from. While an attempt lives, they might belong to it.
    fn kill_strays(&self) {
        for pid in self.reap_adopted() {
            tracing::warn!(pid, "a process that left its attempt without a mark is ended");
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }

    async fn sweep_purge(&mut self) {
        let Some(mut purge) = self.purge.take() else { return };
        let swept = purge.sweep(SystemClock.now().uptime);
        for Remains { attempt, process } in swept.gone {
            let log_bytes = process.map_or(0, |process| self.workspaces.recover(process.workspace, attempt));
            let how = crate::ledger::Ending::Ended { exit_code: None };
            let exit =
                Exit { how, log_bytes: crate::output::shown_bytes(log_bytes), at: SystemClock.now().wall };
            self.tell(Event::Exited(attempt, exit)).await;
        }
        if swept.is_done
            && let Err(error) = self.workspaces.clear_left_over()
        {
            tracing::warn!(%error, "folders of earlier attempts could not be removed");
        }
        if let Some(is_complete) = swept.tell {
            self.tell(Event::Purged { is_complete }).await;
        }
        self.purge = (!swept.is_done).then_some(purge);
    }

    /// Takes leave of adopted children that have ended, and returns those that live.
    ///
    /// They are asked for one by one: waiting for any child would take exits away from whoever waits for their own.
    fn reap_adopted(&self) -> Vec<i32> {
        let mut adopted = self.adopted.pids();
        adopted.retain(|pid| {
            let state = waitpid(Pid::from_raw(*pid), Some(WaitPidFlag::WNOHANG));
            matches!(state, Ok(nix::sys::wait::WaitStatus::StillAlive))
        });
        adopted
    }

    async fn tell(&self, event: Event) {
        // Without a listener the program is ending.
        let _ = self.events.send(event).await;
    }
}

impl Live {
    fn group(&self) -> Pid {
        Pid::from_raw(self.pid)
    }

    /// Tells whether a process belongs to this attempt.
    fn owns(&self, attempt: AttemptId, pid: i32, data_dir: &Path) -> bool {
        procfs::process(pid).is_some_and(|process| process.group == self.pid)
            || procfs::marks(pid).attempt_below(data_dir) == Some(attempt)
    }
}

//! Running processes: the part of the executor that forks.
//!
//! Behind [`Supervisor`] are three threads: two that start processes and one that watches them. Nothing here knows of
//! leaders, terms or the spool: starts and kills go in, what became of them comes out. This is the seam at which a process
//! of its own will take over, so that attempts survive a restart of the executor.
//!
//! The program's main thread must start no processes: its children are taken for adopted ones.

mod ending;
mod launcher;
mod outcome;
mod processes;
mod procfs;
mod purge;
mod spawner;
mod workspace;

use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::SyncSender,
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use millrace_common::{id::AttemptId, time::Now};
use millrace_kinds::{Registry, Site};
use thiserror::Error;
use tokio::sync::mpsc;

use self::{
    launcher::Launcher,
    processes::{Processes, Wiring},
    spawner::Spawner,
    workspace::Workspaces,
};
pub(crate) use self::{procfs::VALUES_VARIABLE, workspace::log_file};
use crate::{
    ledger::{Exit, Remains, Start},
    output::Source,
};

/// Events that wait for the rest of the program; while there are as many, exits are noticed later.
const EVENTS_MAX: usize = 4_096;
/// Processes that were started and are not watched yet.
const REGISTRATIONS_MAX: usize = 256;
/// Commands beside one for each slot: kills that are repeated, and the purge at the start.
const COMMANDS_SPARE: usize = 64;

/// What the supervisor is told, beside what to start.
#[derive(Debug)]
pub enum Command {
    /// End an attempt: TERM, grace, KILL, and look that nothing is left.
    Kill {
        /// Which.
        attempt: AttemptId,
        /// Time between TERM and KILL.
        grace: Duration,
    },
    /// End whatever an earlier life of this executor left alive; the spool knows of some of it.
    Purge(Vec<Remains>),
}

/// What the supervisor tells.
#[derive(Debug)]
pub enum Event {
    /// The process of an attempt was started.
    Spawned {
        /// Which attempt.
        attempt: AttemptId,
        /// Its process, which also names its group.
        pid: u32,
        /// Where it runs.
        workspace: u32,
        /// When.
        at: Now,
        /// Its output, as it grows.
        source: Source,
    },
    /// Nothing of an attempt is left, or it could not be started.
    Exited(AttemptId, Exit),
    /// What an earlier life left alive has been ended, or resists.
    Purged {
        /// Whether nothing is left.
        is_complete: bool,
    },
}

/// Why the supervisor did not take a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SupervisorError {
    /// One of its threads is gone.
    #[error("a thread that runs processes has ended")]
    Gone,
    /// More was asked of it than there are slots.
    #[error("more starts or kills wait than there are slots")]
    Full,
}

/// What the supervisor works with.
#[derive(Debug)]
pub struct Settings<'a> {
    /// The executor's data folder, absolute.
    pub data_dir: &'a Path,
    /// Attempts that live at once.
    pub slots: u32,
    /// The kinds of this executor.
    pub registry: Registry,
    /// What the machine offers to them.
    pub site: Site,
}

/// The way to the threads that run processes.
#[derive(Debug)]
pub struct Supervisor {
    starts: Option<SyncSender<Box<Start>>>,
    commands: Option<mpsc::Sender<Command>>,
    spawning: Arc<AtomicUsize>,
    threads: Vec<JoinHandle<()>>,
}

impl Supervisor {
    /// Starts the threads; what they tell comes out of the receiver.
    ///
    /// # Errors
    /// Where the system gives no thread, or the data folder cannot be used.
    pub fn start(settings: Settings<'_>) -> io::Result<(Self, mpsc::Receiver<Event>)> {
        // Orphans of attempts come to this program instead of vanishing below the system's first process.
        nix::sys::prctl::set_child_subreaper(true)?;
        let slots = usize::try_from(settings.slots).unwrap_or(usize::MAX);
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        let (registrations, registered) = mpsc::channel(REGISTRATIONS_MAX);
        let (commands, queue) = mpsc::channel(2 * slots + COMMANDS_SPARE);
        let workspaces = Arc::new(Workspaces::open(settings.data_dir)?);
        let spawning = Arc::new(AtomicUsize::new(0));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let spawner = Spawner {
            launcher: Launcher::new(settings.registry, settings.site)?,
            workspaces: Arc::clone(&workspaces),
            events: events.clone(),
            registrations,
            runtime: runtime.handle().clone(),
        };
        let (starts, mut threads) = spawner.start(slots + 1)?;
        let wiring = Wiring {
            commands: queue,
            registrations: registered,
            events,
            workspaces,
            data_dir: settings.data_dir.to_owned(),
            spawning: Arc::clone(&spawning),
        };
        let watch = move || runtime.block_on(Processes::new(wiring).run());
        threads.push(thread::Builder::new().name("processes".to_owned()).spawn(watch)?);
        Ok((Self { starts: Some(starts), commands: Some(commands), spawning, threads }, receiver))
    }

    /// Has the process of an attempt started. Call it once for an attempt.
    ///
    /// # Errors
    /// Where the threads are gone, or more wait than there are slots.
    pub fn spawn(&self, start: Box<Start>) -> Result<(), SupervisorError> {
        let starts = self.starts.as_ref().ok_or(SupervisorError::Gone)?;
        // Counted before it is handed over, so that a kill that follows finds it.
        self.spawning.fetch_add(1, Ordering::AcqRel);
        starts.try_send(start).map_err(|error| match error {
            std::sync::mpsc::TrySendError::Full(_) => SupervisorError::Full,
            std::sync::mpsc::TrySendError::Disconnected(_) => SupervisorError::Gone,
        })
    }

    /// Gives a command.
    ///
    /// # Errors
    /// Where the threads are gone, or more wait than there are slots.
    pub fn command(&self, command: Command) -> Result<(), SupervisorError> {
        let commands = self.commands.as_ref().ok_or(SupervisorError::Gone)?;
        commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SupervisorError::Full,
            mpsc::error::TrySendError::Closed(_) => SupervisorError::Gone,
        })
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.starts = None;
        self.commands = None;
        for thread in self.threads.drain(..) {
            // A panic in it was shown already.
            let _ = thread.join();
        }
    }
}

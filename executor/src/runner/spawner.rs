//! The threads that start processes.
//!
//! Starting a process blocks its thread until the new program is loaded, a quarter of a millisecond or, from a slow file
//! system, much longer. Two threads keep both cores of a small machine busy, and neither sessions nor kills ever wait.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::{self, JoinHandle},
};

use millrace_common::{
    id::AttemptId,
    time::{Clock as _, Now},
};
use millrace_kinds::launch::ExitCodes;
use millrace_runtime::{Chain, SystemClock};
use tokio::{process::Child, runtime::Handle, sync::mpsc};

use super::{
    Event,
    launcher::{LaunchFailure, Launcher},
    workspace::{Workspace, Workspaces},
};
use crate::{
    ledger::{Ending, Exit, Start},
    output::Source,
};

/// Threads that start processes.
const THREADS: usize = 2;

/// The queue of the threads, and the threads.
pub(super) type Started = (SyncSender<Box<Start>>, Vec<JoinHandle<()>>);

/// What the threads tell the one that watches processes.
#[derive(Debug)]
pub(super) enum Spawned {
    Child(Box<Registered>),
    Nothing,
}

/// A process that was started.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) attempt: AttemptId,
    pub(super) child: Child,
    pub(super) pid: u32,
    pub(super) workspace: Workspace,
    pub(super) exit_codes: ExitCodes,
}

/// What the threads share.
#[derive(Debug)]
pub(super) struct Spawner {
    pub(super) launcher: Launcher,
    pub(super) workspaces: Arc<Workspaces>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) registrations: mpsc::Sender<Spawned>,
    /// The runtime of the thread that watches processes.
    pub(super) runtime: Handle,
}

impl Spawner {
    /// Starts the threads; they end when the sender of starts is dropped.
    pub(super) fn start(self, starts_max: usize) -> io::Result<Started> {
        let (sender, receiver) = sync_channel(starts_max);
        let queue = Arc::new(Mutex::new(receiver));
        let spawner = Arc::new(self);
        let threads = (1..=THREADS).map(|number| {
            let (spawner, queue) = (Arc::clone(&spawner), Arc::clone(&queue));
            thread::Builder::new().name(format!("spawner-{number}")).spawn(move || spawner.run(&queue))
        });
        Ok((sender, threads.collect::<io::Result<_>>()?))
    }

    fn run(&self, queue: &Mutex<Receiver<Box<Start>>>) {
        // The children's exits are watched by that runtime, so they are registered with it.
        let _entered = self.runtime.enter();
        loop {
            // The lock is held while waiting: the other threads wait for it instead.
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(start) = next else { return };
            if !self.serve(&start) {
                return;
            }
        }
    }

    /// Starts one; `false` where nobody listens any more.
    fn serve(&self, start: &Start) -> bool {
        let attempt = start.attempt;
        match self.spawn(start) {
            Ok((registered, at, source)) => {
                let (pid, workspace) = (registered.pid, registered.workspace.number);
                let event = Event::Spawned { attempt, pid, workspace, at, source };
                // In this order, so that no exit overtakes the news of the start.
                self.events.blocking_send(event).is_ok()
                    && self.registrations.blocking_send(Spawned::Child(Box::new(registered))).is_ok()
            }
            Err(failure) => {
                let reason = Chain(&failure).to_string();
                let is_permanent = failure.is_permanent();
                let how = if failure.is_for_space() {
                    Ending::NoSpace { reason }
                } else {
                    Ending::Failed { exit_code: None, reason, is_permanent }
                };
                let exit = Exit { how, log_bytes: 0, at: SystemClock.now().wall };
                self.registrations.blocking_send(Spawned::Nothing).is_ok()
                    && self.events.blocking_send(Event::Exited(attempt, exit)).is_ok()
            }
        }
    }

    fn spawn(&self, start: &Start) -> Result<(Registered, Now, Source), LaunchFailure> {
        let workspace = self.workspaces.acquire().map_err(LaunchFailure::Prepare)?;
        match self.spawn_in(start, &workspace) {
            Ok((child, pid, exit_codes, secrets)) => {
                let source = Source::new(start.attempt, Arc::clone(&workspace.log), secrets);
                let registered = Registered { attempt: start.attempt, child, pid, workspace, exit_codes };
                Ok((registered, SystemClock.now(), source))
            }
            Err(failure) => {
                self.workspaces.release(&workspace, start.attempt);
                Err(failure)
            }
        }
    }

    fn spawn_in(&self, start: &Start, workspace: &Workspace) -> Result<Parts, LaunchFailure> {
        let launch = self.launcher.launch(start, workspace)?;
        let command = self.launcher.command(start, &launch, workspace)?;
        let program = launch.argv.first().cloned().unwrap_or_default();
        let failed = |source| LaunchFailure::Spawn { program, source };
        let spawned = tokio::process::Command::from(command).spawn().and_then(|child| {
            // It has not been waited for, so it has its number; zero would mean this program's own group.
            let pid = child.id().ok_or_else(|| io::Error::other("the process has no number"))?;
            Ok((child, pid))
        });
        let (child, pid) = spawned.map_err(failed)?;
        Ok((child, pid, launch.exit, launch.secrets))
    }
}

type Parts = (Child, u32, ExitCodes, Vec<millrace_common::secret::Secret>);

//! The connection to the supervisor, from the executor's side.
//!
//! Orders are gathered and leave together; words are read as many as there are. A supervisor that is stopped looks like one
//! that has nothing to say, so questions are asked of it whenever something depends on it, and one that leaves them
//! unanswered is ended: its processes die with it, and are reported.

use std::{
    io,
    os::fd::OwnedFd,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use millrace_common::time::{Clock as _, Uptime};
use millrace_runtime::SystemClock;
use nix::{
    sys::{
        signal::{Signal, kill},
        socket::{getsockopt, sockopt::PeerCredentials},
    },
    unistd::{Pid, geteuid},
};
use thiserror::Error;
use tokio::{io::Interest, net::UnixStream};

use crate::supervisor::{
    SUBCOMMAND,
    folder::Folder,
    frame::{self, Arrived, FrameError},
    protocol::{Ended, Order, PROTOCOL, PROTOCOL_MIN, Running, Word},
};

/// How long an answer may take before the supervisor counts as failed.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// How long after that it is asked once more: this program may have been the one that was stopped.
const SECOND_CHANCE: Duration = Duration::from_secs(1);
/// How long an earlier supervisor may take to answer the connection, to end, or to begin.
const MEETING_MAX: Duration = Duration::from_secs(10);
const MEETING_PAUSE: Duration = Duration::from_millis(20);
/// Bytes of one read.
const READ_BYTES: usize = 64 << 10;

/// Why there is no supervisor to work with.
#[derive(Debug, Error)]
pub(crate) enum LinkError {
    /// Another version of the program started it and it still has attempts.
    #[error(
        "the supervisor of this data folder (process {pid}, version {version}) speaks versions {oldest} to {newest}, this executor \
         {PROTOCOL_MIN} to {PROTOCOL}: run the version of the executor that started it until its attempts have ended, or end \
         process {pid}, which ends them"
    )]
    Version {
        /// Its process.
        pid: u32,
        /// Its program's version.
        version: String,
        /// The oldest version of the protocol that it understands.
        oldest: u32,
        /// The newest.
        newest: u32,
    },
    /// It runs under another account.
    #[error(
        "the supervisor of this data folder runs under another account; give each account its own `data_dir`"
    )]
    Account,
    /// It holds the folder and cannot be talked to.
    #[error("the supervisor of this data folder can neither be reached nor ended")]
    Unreachable,
    /// It ended before it said anything.
    #[error("the supervisor ended as soon as it was started; its last words are on standard error")]
    DidNotStart,
    /// The system refused something.
    #[error("the supervisor cannot be started or reached")]
    Io(#[from] io::Error),
    /// What it says makes no sense.
    #[error("the supervisor is not understood")]
    Frame(#[from] FrameError),
}

/// What a supervisor has kept.
#[derive(Debug, Default)]
pub(super) struct Inventory {
    pub(super) contact: Uptime,
    pub(super) running: Vec<Running>,
    pub(super) ended: Vec<Ended>,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    stream: UnixStream,
    /// Where this life of the executor started it.
    child: Option<Child>,
    pid: i32,
    arrived: Arrived,
    leaving: Vec<u8>,
    is_closed: bool,
    /// Whether it has given its account.
    pub(super) is_known: bool,
    pings: u64,
    unanswered: Option<(u64, Uptime)>,
    has_second_chance: bool,
}

impl Link {
    /// Starts a supervisor for a data folder.
    pub(super) fn start(data_dir: &Path) -> Result<Self, LinkError> {
        let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
        ours.set_nonblocking(true)?;
        // What this program was started with, such as a terminal's or a lock's, must not be held by what outlives it.
        if let Err(error) = millrace_spawn::keep_descriptors() {
            tracing::debug!(%error, "descriptors that this program inherited may be inherited further");
        }
        // This very binary, even where another has taken its name. Nothing of this program's environment goes with it.
        let child = Command::new("/proc/self/exe")
            .arg(SUBCOMMAND)
            .arg(data_dir)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .spawn()?;
        let pid = i32::try_from(child.id()).unwrap_or(i32::MAX);
        let mut link = Self::over(UnixStream::from_std(ours)?, pid);
        link.child = Some(child);
        // It speaks this version: it is this program.
        link.order(&Order::Hello { protocol: PROTOCOL }, &[]);
        link.ask();
        Ok(link)
    }

    fn over(stream: UnixStream, pid: i32) -> Self {
        Self {
            stream,
            child: None,
            pid,
            arrived: Arrived::default(),
            leaving: Vec::new(),
            is_closed: false,
            is_known: false,
            pings: 0,
            unanswered: None,
            has_second_chance: true,
        }
    }

    /// Connects to the supervisor that an earlier life of the executor started; `None` where none lives.
    pub(super) async fn find(folder: &Folder) -> Result<Option<(Self, Inventory)>, LinkError> {
        let mut until = SystemClock.now().uptime + 2 * MEETING_MAX;
        while SystemClock.now().uptime < until {
            if folder.try_lock()?.is_some() {
                return Ok(None);
            }
            if let Ok(stream) = folder.connect() {
                let mut link = Self::to(stream)?;
                match tokio::time::timeout(MEETING_MAX, link.meet()).await {
                    Ok(Ok(Some(inventory))) => return Ok(Some((link, inventory))),
                    // It was ending.
                    Ok(Ok(None)) => {}
                    Ok(Err(error)) => return Err(error),
                    Err(_) => {
                        link.kill("it does not answer an executor that was restarted");
                        until = SystemClock.now().uptime + MEETING_MAX;
                    }
                }
            }
            tokio::time::sleep(MEETING_PAUSE).await;
        }
        Err(LinkError::Unreachable)
    }

    fn to(stream: std::os::unix::net::UnixStream) -> Result<Self, LinkError> {
        let peer = getsockopt(&stream, PeerCredentials).map_err(io::Error::from)?;
        if peer.uid() != geteuid().as_raw() {
            return Err(LinkError::Account);
        }
        stream.set_nonblocking(true)?;
        Ok(Self::over(UnixStream::from_std(stream)?, peer.pid()))
    }

    /// Hears which versions it speaks, greets it and takes its account; `None` where it hangs up.
    async fn meet(&mut self) -> Result<Option<Inventory>, LinkError> {
        loop {
            while let Some(word) = self.next()? {
                match word {
                    Word::Banner { protocol, protocol_min, version, pid, .. } => {
                        if protocol < PROTOCOL_MIN || protocol_min > PROTOCOL {
                            let (oldest, newest) = (protocol_min, protocol);
                            return Err(LinkError::Version { pid, version, oldest, newest });
                        }
                        self.order(&Order::Hello { protocol: protocol.min(PROTOCOL) }, &[]);
                    }
                    Word::Inventory { contact_ms, running, ended } => {
                        let contact = Uptime::new(Duration::from_millis(contact_ms));
                        return Ok(Some(Inventory { contact, running, ended }));
                    }
                    _ => {}
                }
            }
            if self.is_closed {
                return Ok(None);
            }
            self.flush();
            self.ready().await;
            self.receive();
        }
    }

    /// Waits until something may be read, or written where something waits to be.
    pub(super) async fn ready(&self) {
        let interest = if self.leaving.is_empty() {
            Interest::READABLE
        } else {
            Interest::READABLE | Interest::WRITABLE
        };
        // What is wrong with it shows when it is read.
        let _ = self.stream.ready(interest).await;
    }

    /// Reads what has arrived.
    pub(super) fn receive(&mut self) {
        let mut buffer = [0; READ_BYTES];
        loop {
            match self.stream.try_read(&mut buffer) {
                Ok(0) => {
                    self.is_closed = true;
                    return;
                }
                Ok(length) => self.arrived.push(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.is_closed = true;
                    return;
                }
            }
        }
    }

    /// Takes out the next word.
    pub(super) fn next(&mut self) -> Result<Option<Word>, LinkError> {
        let Some((word, _)) = self.arrived.next()? else { return Ok(None) };
        match &word {
            Word::Pong { number } if self.unanswered.is_some_and(|(asked, _)| asked <= *number) => {
                self.unanswered = None;
                self.has_second_chance = true;
            }
            Word::Inventory { .. } => self.is_known = true,
            _ => {}
        }
        Ok(Some(word))
    }

    /// Has an order leave with the next flush.
    pub(super) fn order(&mut self, order: &Order, tail: &[u8]) {
        if let Err(error) = frame::append(&mut self.leaving, order, tail) {
            tracing::error!(%error, "an order to the supervisor cannot be written");
            self.is_closed = true;
        }
    }

    /// Asks for a sign of life.
    pub(super) fn ask(&mut self) {
        self.pings += 1;
        let number = self.pings;
        self.order(&Order::Ping { number }, &[]);
        self.unanswered = self.unanswered.or(Some((number, SystemClock.now().uptime)));
    }

    /// Sends as much as the supervisor takes now.
    pub(super) fn flush(&mut self) {
        while !self.leaving.is_empty() && !self.is_closed {
            match self.stream.try_write(&self.leaving) {
                Ok(length) => _ = self.leaving.drain(..length),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => self.is_closed = true,
            }
        }
    }

    pub(super) fn is_flushed(&self) -> bool {
        self.leaving.is_empty()
    }

    pub(super) const fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Returns when an answer is too late.
    pub(super) fn answer_until(&self) -> Option<Uptime> {
        let wait = if self.has_second_chance { ANSWER_MAX } else { ANSWER_MAX + SECOND_CHANCE };
        self.unanswered.map(|(_, asked)| asked + wait)
    }

    /// Tells whether the supervisor has failed to answer; call it after what has arrived was taken in.
    pub(super) fn is_silent(&mut self, now: Uptime) -> bool {
        self.answer_until().is_some_and(|until| until <= now)
            && !std::mem::replace(&mut self.has_second_chance, false)
    }

    /// Ends the supervisor, and so what it started.
    pub(super) fn kill(&mut self, reason: &str) {
        tracing::error!(pid = self.pid, reason, "the supervisor is ended, and the attempts with it");
        match &mut self.child {
            Some(child) => _ = child.kill(),
            // It holds the lock of the data folder, so the number is still its own.
            None => _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL),
        }
        self.is_closed = true;
    }

    /// Returns the supervisor's process where it is a child of this program, which must be waited for.
    pub(super) fn into_child(self) -> Option<Child> {
        self.child
    }
}

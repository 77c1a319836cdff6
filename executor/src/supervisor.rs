//! The supervisor: a second process of the same binary that owns the processes of all attempts.
//!
//! It has one thread, no runtime and no network code, so that it stays small, starts processes fast, and has no reason to
//! fail or to be replaced when the executor does. The executor tells it what to start and to end over a socket in the data
//! folder; it tells what became of it. When the executor is gone it goes on: deadlines are kept, exits are written down, and
//! the next life of the executor is given everything. When it dies itself, the system kills what it started.
//!
//! It wakes for a message, for a child that has ended, and for a deadline; there is no tick.

pub(crate) mod cgroup;
pub(crate) mod folder;
pub(crate) mod frame;
pub(crate) mod protocol;

mod attempts;
mod connection;
mod containment;
mod ending;

use std::{
    env,
    ffi::OsStr,
    fmt,
    fs::File,
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::ExitCode,
    rc::Rc,
    time::Duration,
};

use millrace_common::{
    id::AttemptId,
    time::{Clock as _, Uptime},
};
use millrace_runtime::{Chain, SystemClock};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        time::TimeSpec,
        timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
};

use self::{
    attempts::Attempts,
    connection::{Connection, is_own_account},
    folder::{Ends, Folder},
    protocol::{Order, PROTOCOL, PROTOCOL_MIN, Word, read_tail},
};

/// The sub-command that it is started with.
pub(crate) const SUBCOMMAND: &str = "supervise";
/// How long it waits for an executor when there is nothing to supervise.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// Words that are gathered while orders wait: each message wakes the executor.
const GATHERED_MAX: usize = 8;

/// Tells whether this process was started as a supervisor; asked before arguments are parsed.
#[must_use]
pub fn is_supervise() -> bool {
    env::args_os().nth(1).as_deref() == Some(OsStr::new(SUBCOMMAND))
}

/// Supervises attempts until there is nothing to supervise and nobody to do it for.
#[must_use]
pub fn supervise_main() -> ExitCode {
    let result = match env::args_os().nth(2) {
        Some(data_dir) => Supervision::open(&PathBuf::from(data_dir)).and_then(Supervision::run),
        None => Err(io::Error::other("no data folder was given; executors start this, not people")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report("the supervisor ends", &error);
            ExitCode::FAILURE
        }
    }
}

/// Tells a person what went wrong: on standard error, which is the executor's. That nobody reads it is no reason to stop.
fn report(what: &str, error: &(dyn std::error::Error + 'static)) {
    let _ = writeln!(io::stderr(), "millrace supervisor {}: {what}: {}", std::process::id(), Chain(error));
}

/// Everything that the supervisor owns.
struct Supervision {
    attempts: Attempts,
    ends: Ends,
    listener: UnixListener,
    connection: Option<Connection>,
    children: SignalFd,
    timer: Timer,
    idle_since: Option<Uptime>,
    is_leaving: bool,
    _lock: File,
}

impl Supervision {
    fn open(data_dir: &Path) -> io::Result<Self> {
        let first = take_stdin()?;
        // Out of the executor's session: what ends a terminal's programs does not end attempts.
        nix::unistd::setsid()?;
        nix::unistd::chdir("/")?;
        // Orphans of attempts come to this program instead of vanishing below the system's first process.
        nix::sys::prctl::set_child_subreaper(true)?;
        let folder = Folder::open(data_dir)?;
        let lock =
            folder.try_lock()?.ok_or_else(|| io::Error::other("another supervisor has this data folder"))?;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGCHLD);
        mask.thread_block()?;
        let children = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let attempts = Attempts::open(data_dir.to_owned())?;
        folder.note_cgroup(attempts.containment().base())?;
        let listener = folder.listen()?;
        listener.set_nonblocking(true)?;
        let mut supervision = Self {
            attempts,
            ends: folder.ends()?,
            listener,
            connection: None,
            children,
            timer: Timer::new()?,
            idle_since: None,
            is_leaving: false,
            _lock: lock,
        };
        supervision.greet(UnixStream::from(first))?;
        Ok(supervision)
    }

    fn run(mut self) -> io::Result<()> {
        while !self.has_ended() {
            let ready = self.wait()?;
            if ready.children {
                while self.children.read_signal()?.is_some() {}
                self.attempts.reap();
            }
            // In this order: the end of one executor is noticed before the next one is heard.
            if ready.connection {
                self.serve();
            }
            if ready.listener {
                self.accept();
            }
            self.attempts.on_time();
            self.speak();
        }
        Ok(())
    }

    /// Waits for something to happen.
    fn wait(&mut self) -> io::Result<Ready> {
        let idle = self.idle_since.map(|since| since + IDLE_MAX);
        self.timer.wake_at(self.attempts.next_wake().into_iter().chain(idle).min())?;
        let mut files = vec![
            PollFd::new(self.children.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.timer.file.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(connection) = &self.connection {
            files.push(PollFd::new(connection.as_fd(), connection.awaited()));
        }
        match poll(&mut files, PollTimeout::NONE) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready = |index: usize| files.get(index).and_then(PollFd::any).unwrap_or(false);
        let ready = Ready { children: is_ready(0), listener: is_ready(1), connection: is_ready(3) };
        if is_ready(2) {
            self.timer.rest();
        }
        Ok(ready)
    }

    fn accept(&mut self) {
        match self.listener.accept() {
            // One executor at a time holds the data folder: whoever else comes is hung up on, and may try again.
            Ok((stream, _)) if self.connection.is_some() => drop(stream),
            Ok((stream, _)) => {
                if let Err(error) = self.greet(stream) {
                    report("a connection was refused", &error);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => report("a connection cannot be taken", &error),
        }
    }

    /// Takes up a connection of the same account: says which versions are understood.
    fn greet(&mut self, stream: UnixStream) -> io::Result<()> {
        if !is_own_account(&stream)? {
            return Err(io::Error::other("it comes from another account"));
        }
        let mut connection = Connection::new(stream)?;
        connection.say(&Word::Banner {
            protocol: PROTOCOL,
            protocol_min: PROTOCOL_MIN,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            containment: self.attempts.containment().name().to_owned(),
        });
        self.connection = Some(connection);
        self.is_leaving = false;
        Ok(())
    }

    /// Takes in what the executor says.
    fn serve(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        connection.receive();
        loop {
            let Some(connection) = &mut self.connection else { return };
            let next = connection.next_order();
            match next {
                Ok(Some((order, tail))) => self.obey(order, &tail),
                Ok(None) => break,
                Err(error) => {
                    report("the executor is not understood", &error);
                    self.refuse(&format!("not understood: {}", Chain(&error)));
                    return;
                }
            }
        }
        if self.connection.as_ref().is_some_and(Connection::is_closed) {
            self.on_disconnect();
        }
    }

    fn obey(&mut self, order: Order, tail: &[u8]) {
        if let Order::Hello { protocol } = order {
            return self.on_hello(protocol);
        }
        if !self.connection.as_ref().is_some_and(|connection| connection.is_greeted) {
            return self.refuse("no greeting came first");
        }
        match order {
            Order::Hello { .. } => {}
            Order::Spawn(spawn) => match read_tail(&spawn, tail) {
                Some((program, input)) => self.spawn(*spawn, &Rc::new(program), input),
                None => self.refuse("a program is incomplete"),
            },
            Order::Kill { attempt, grace_ms, by } => {
                self.attempts.end(attempt, Duration::from_millis(grace_ms), by);
            }
            Order::Extend { contact_ms } => {
                self.attempts.extend(Uptime::new(Duration::from_millis(contact_ms)));
            }
            Order::Settled { attempts } => self.settle(&attempts),
            Order::Ping { number } => self.say(&Word::Pong { number }),
            Order::Leave => self.is_leaving = true,
        }
    }

    fn on_hello(&mut self, protocol: u32) {
        if !(PROTOCOL_MIN..=PROTOCOL).contains(&protocol) {
            let versions = format!("{PROTOCOL_MIN} to {PROTOCOL}");
            return self.refuse(&format!("version {protocol} is not spoken here, but {versions}"));
        }
        let inventory = self.attempts.inventory();
        self.say(&inventory);
        if let Some(connection) = &mut self.connection {
            connection.is_greeted = true;
        }
    }

    fn spawn(&mut self, spawn: protocol::Spawn, program: &Rc<millrace_spawn::Program>, input: &[u8]) {
        self.attempts.spawn(spawn, program, input);
        // Others may have ended meanwhile; their slots are waited for.
        self.attempts.reap();
        if self.attempts.words() >= GATHERED_MAX {
            self.speak();
        }
    }

    fn settle(&mut self, attempts: &[AttemptId]) {
        if self.attempts.settle(attempts)
            && let Err(error) = self.ends.clear()
        {
            report("the journal of ends cannot be cut", &error);
        }
    }

    /// Tells what there is to tell, as far as the other side takes it.
    fn speak(&mut self) {
        match &mut self.connection {
            Some(connection) if connection.is_greeted => {
                while let Some(word) = self.attempts.next_word() {
                    connection.say(&word);
                }
                connection.send();
            }
            Some(connection) => connection.send(),
            // Nobody listens: ends are written down, the rest is in the inventory.
            None => self.note_ends(),
        }
        if self.connection.as_ref().is_some_and(Connection::is_closed) {
            self.on_disconnect();
        }
    }

    fn note_ends(&mut self) {
        let mut ends = Vec::new();
        while let Some(word) = self.attempts.next_word() {
            if let Word::Ended(ended) = word {
                ends.push(*ended);
            }
        }
        self.write_ends(&ends);
    }

    fn write_ends(&mut self, ends: &[protocol::Ended]) {
        if let Err(error) = self.ends.append(ends) {
            report("an end cannot be written; it is kept in memory", &error);
        }
    }

    fn say(&mut self, word: &Word) {
        if let Some(connection) = &mut self.connection {
            connection.say(word);
        }
    }

    fn refuse(&mut self, reason: &str) {
        self.say(&Word::Refused { reason: reason.to_owned() });
        if let Some(connection) = &mut self.connection {
            connection.send();
        }
        self.on_disconnect();
    }

    /// Goes on alone: what the executor may not have made durable is written down.
    fn on_disconnect(&mut self) {
        if self.connection.take().is_none() {
            return;
        }
        // What waits to be told is among the unsettled ends.
        while self.attempts.next_word().is_some() {}
        let unsettled: Vec<_> = self.attempts.unsettled().cloned().collect();
        self.write_ends(&unsettled);
    }

    /// Tells whether there is nothing to supervise, and nobody to do it for.
    fn has_ended(&mut self) -> bool {
        if !self.attempts.is_empty() || self.connection.is_some() {
            self.idle_since = None;
            return false;
        }
        let now = SystemClock.now().uptime;
        let since = *self.idle_since.get_or_insert(now);
        self.is_leaving || now.since(since) >= IDLE_MAX
    }
}

/// What happened.
struct Ready {
    children: bool,
    listener: bool,
    connection: bool,
}

/// A timer on the clock that counts suspend.
struct Timer {
    file: TimerFd,
    armed: Option<Uptime>,
}

impl Timer {
    fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Ok(Self { file: TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)?, armed: None })
    }

    /// Sees to it that the timer fires then or earlier: waking in vain is cheaper than setting it for each attempt.
    fn wake_at(&mut self, at: Option<Uptime>) -> io::Result<()> {
        let Some(at) = at.filter(|at| self.armed.is_none_or(|armed| *at < armed)) else { return Ok(()) };
        // Zero would disarm it.
        let at_least = at.since_boot().max(Duration::from_nanos(1));
        self.file.set(Expiration::OneShot(TimeSpec::from(at_least)), TimerSetTimeFlags::TFD_TIMER_ABSTIME)?;
        self.armed = Some(at);
        Ok(())
    }

    /// Takes note that it has fired.
    fn rest(&mut self) {
        self.armed = None;
        let _ = self.file.wait();
    }
}

impl fmt::Debug for Supervision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervision").finish_non_exhaustive()
    }
}

/// Takes over the socket that the executor gave as standard input, and leaves nothing there for attempts to inherit.
fn take_stdin() -> io::Result<OwnedFd> {
    let socket = io::stdin().as_fd().try_clone_to_owned()?;
    nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
    Ok(socket)
}

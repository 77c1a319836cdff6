//! One process: started, signalled, awaited, and ended with the program that started it.

use std::{
    fs::{self, File},
    io,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        LazyLock,
        mpsc::{SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::place::Place;

/// How long anything may take before it counts as failed; generous, since machines are shared.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Pause between two looks.
pub(crate) const LOOK: Duration = Duration::from_millis(20);
/// The account of servers that refuse to run as root: nobody.
const NOBODY: u32 = 65_534;

/// Whose account a process runs under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Account {
    /// That of this program.
    Own,
    /// That of nobody, where this program is root.
    Nobody,
}

/// A running process; killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Begins a command that runs at a place, under an account, and ends with this program whatever becomes of it.
#[must_use]
pub fn command(place: &Place, account: Account, program: &Path) -> Command {
    let mut command = place.command("setpriv");
    if account == Account::Nobody && nix::unistd::geteuid().is_root() {
        let user = NOBODY.to_string();
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
    }
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

/// Gives a folder and all in it to the account of servers.
pub(crate) fn give_away(folder: &Path) {
    if nix::unistd::geteuid().is_root() {
        let given = Command::new("chown").arg("-R").arg(format!("{NOBODY}:{NOBODY}")).arg(folder).status();
        assert!(given.is_ok_and(|status| status.success()), "{} is given away", folder.display());
    }
}

/// Waits until something holds.
///
/// # Panics
/// Where it does not within [`PATIENCE`], with what was awaited.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let mut waited = Duration::ZERO;
    while waited < PATIENCE {
        if holds() {
            return;
        }
        thread::sleep(LOOK);
        waited += LOOK;
    }
    panic!("waited {PATIENCE:?} for {what}");
}

type Start = (Command, SyncSender<io::Result<Child>>);

/// Starts a process from a thread that lives as long as this program: a process that is to die with its parent dies with
/// the thread that started it, and threads of runtimes and tests come and go.
fn start(command: Command) -> io::Result<Child> {
    static STARTER: LazyLock<SyncSender<Start>> = LazyLock::new(|| {
        let (sender, receiver) = sync_channel::<Start>(0);
        thread::spawn(move || {
            for (mut command, answer) in receiver {
                // Whoever asked may have panicked.
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let (answer, answered) = sync_channel(1);
    STARTER.send((command, answer)).map_err(io::Error::other)?;
    answered.recv().map_err(io::Error::other)?
}

impl Process {
    /// Starts a command whose output goes to the end of the file `log`.
    ///
    /// # Panics
    /// Where it cannot be started.
    #[must_use]
    pub fn start(mut command: Command, log: &Path) -> Self {
        let output = File::options().create(true).append(true).open(log).expect("a file for what it says");
        let errors = output.try_clone().expect("the same file");
        command.stdin(Stdio::null()).stdout(output).stderr(errors);
        let shown = format!("{command:?}");
        let child = start(command).unwrap_or_else(|error| panic!("{shown} cannot be started: {error}"));
        Self { child }
    }

    /// Returns its id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        // It may have ended; until it is waited for, its id is nobody else's.
        let _ = kill(Pid::from_raw(self.pid().cast_signed()), signal);
    }

    /// Stops it where it stands, and sees that it stands.
    ///
    /// # Panics
    /// Where it does not.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
        wait_until("a frozen process to stand still", || {
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap_or_default();
            stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with(['T', 't']))
        });
    }

    /// Lets it go on after [`Self::freeze`].
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Ends it with no chance to tidy up, and waits for that.
    pub fn kill(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Returns how it ended; `None` while it runs.
    pub fn try_ended(&mut self) -> Option<ExitStatus> {
        // What cannot be asked for is not ours any more.
        self.child.try_wait().unwrap_or_else(|_| Some(ExitStatus::from_raw(0)))
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// Where it does not within [`PATIENCE`].
    pub fn ended(&mut self) -> ExitStatus {
        let ended = self.ended_within(PATIENCE);
        ended.unwrap_or_else(|| panic!("waited {PATIENCE:?} for process {} to end", self.pid()))
    }

    /// Waits until it has ended, or for that time.
    pub fn ended_within(&mut self, time: Duration) -> Option<ExitStatus> {
        let mut waited = Duration::ZERO;
        loop {
            let ended = self.try_ended();
            if ended.is_some() || waited >= time {
                return ended;
            }
            thread::sleep(LOOK);
            waited += LOOK;
        }
    }
}

//! Database servers of a test's own, from Debian's packages: a socket in a temporary folder, no port, ended by their own
//! process id.
//!
//! A data folder with the system tables is made once and copied for each server, which then starts in a fraction of a
//! second. Commits are not synced to the disk: what a killed process has handed to the system is there all the same.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::place::Engine;

/// The account of servers that refuse to run as root: nobody.
const NOBODY: u32 = 65_534;
/// How often a server is asked whether it answers, and how long in between: 60 s altogether.
const POLLS_MAX: u32 = 3_000;
const POLL: Duration = Duration::from_millis(20);
/// The number in the name of PostgreSQL's socket.
pub(crate) const PORT: u16 = 5_432;

/// A server and its folder.
#[derive(Debug)]
pub(crate) struct Server {
    engine: Engine,
    child: Option<Child>,
    folder: TempDir,
    /// Where in the folder its data is.
    data: &'static str,
    settings: Vec<String>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end(Signal::SIGQUIT);
    }
}

/// Returns what keeps a server of this kind from being started here.
pub(crate) fn missing(engine: Engine) -> Option<String> {
    let programs: &[PathBuf] = &match engine {
        Engine::Sqlite => return None,
        Engine::Postgres => vec![postgres("initdb"), postgres("postgres")],
        Engine::MariaDb => vec!["/usr/bin/mariadb-install-db".into(), "/usr/sbin/mariadbd".into()],
    };
    let absent = programs.iter().find(|program| !program.exists())?;
    Some(format!("{} is not installed", absent.display()))
}

impl Server {
    /// Starts one with `settings` beside the usual ones, and returns at once.
    pub(crate) fn start(engine: Engine, settings: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        copy(&template(engine), &folder.path().join("data"));
        give_away(folder.path());
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let mut server = Self { engine, child: None, folder, data: "data", settings };
        server.resume();
        server
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts it again after it ended.
    pub(crate) fn resume(&mut self) {
        let at = |name: &str| self.folder.path().join(name).display().to_string();
        let mut command = unprivileged();
        match self.engine {
            Engine::Sqlite => panic!("a file needs no server"),
            Engine::Postgres => command
                .arg(postgres("postgres"))
                .args(["-D", &at(self.data), "-k", &at(""), "-p", &PORT.to_string(), "-F"])
                .args(["-c", "listen_addresses=", "-c", "shared_buffers=16MB", "-c", "max_connections=40"]),
            Engine::MariaDb => command
                .arg("/usr/sbin/mariadbd")
                .args(["--no-defaults", "--skip-networking", "--skip-name-resolve"])
                .args(["--innodb-buffer-pool-size=32M", "--innodb-log-file-size=16M"])
                .args(["--innodb-flush-log-at-trx-commit=2"])
                .args([format!("--datadir={}", at(self.data)), format!("--socket={}", at("socket"))])
                .args([format!("--pid-file={}", at("pid")), format!("--tmpdir={}", at(""))]),
        };
        command.args(&self.settings);
        let log = File::options().create(true).append(true).open(at("log")).expect("a file for its messages");
        let errors = log.try_clone().expect("the same file");
        let child =
            command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn().expect("the server starts");
        self.child = Some(child);
    }

    /// Kills it, with no chance to tidy up.
    pub(crate) fn kill(&mut self) {
        self.end(Signal::SIGKILL);
    }

    /// Goes on with the same data in another folder, as another system would.
    pub(crate) fn move_data(&mut self) {
        self.kill();
        self.data = "moved";
        fs::rename(self.folder.path().join("data"), self.folder.path().join(self.data)).expect("a free name");
    }

    fn end(&mut self, signal: Signal) {
        let Some(mut child) = self.child.take() else { return };
        // It may have ended by itself.
        let _ = kill(Pid::from_raw(child.id().cast_signed()), signal);
        let _ = child.wait();
    }

    /// Waits until `answers`. A server that was killed may refuse to start again until the last of its processes, which
    /// end by themselves, has gone: it is started anew then.
    pub(crate) fn wait(&mut self, mut answers: impl FnMut() -> bool) {
        for _ in 0..POLLS_MAX {
            if answers() {
                return;
            }
            let ended = self.child.as_mut().map(|child| child.try_wait().expect("a child"));
            if ended.flatten().is_some() {
                self.resume();
            }
            thread::sleep(POLL);
        }
        let log = fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        panic!("the server does not answer:\n{log}");
    }
}

fn postgres(program: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.map(|version| version.path()).max().unwrap_or_else(|| "/usr/lib/postgresql".into());
    newest.join("bin").join(program)
}

/// Begins a command that ends with the thread that started it, and that is not run as root.
fn unprivileged() -> Command {
    let mut command = Command::new("setpriv");
    if nix::unistd::geteuid().is_root() {
        let user = NOBODY.to_string();
        command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
    }
    command.args(["--pdeathsig", "KILL", "--"]);
    command
}

/// Returns a data folder with the system tables, and makes it where it is missing.
fn template(engine: Engine) -> PathBuf {
    let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(&root).expect("a folder");
    let lock = File::create(root.join(format!("{engine:?}.lock"))).expect("a lock file");
    lock.lock().expect("the lock");
    let template = root.join(format!("{engine:?}.template"));
    if !template.exists() {
        let work = tempfile::tempdir().expect("a temporary folder");
        give_away(work.path());
        let data = work.path().join("data");
        let mut command = unprivileged();
        match engine {
            Engine::Sqlite => panic!("a file needs no server"),
            Engine::Postgres => command
                .arg(postgres("initdb"))
                .args(["--username=admin", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
                .args(["--wal-segsize=1", "--pgdata"])
                .arg(&data),
            Engine::MariaDb => command
                .arg("/usr/bin/mariadb-install-db")
                .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
                .args(["--innodb-log-file-size=16M".to_owned(), format!("--datadir={}", data.display())]),
        };
        let made = command.output().expect("the program runs");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let half = root.join(format!("{engine:?}.half"));
        let _ = fs::remove_dir_all(&half);
        copy(&data, &half);
        fs::rename(&half, &template).expect("the template gets its name");
    }
    template
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").args(["-a", "--sparse=always"]).args([from, to]).status();
    assert!(copied.is_ok_and(|status| status.success()), "{} is copied", from.display());
}

/// Gives a folder to the account of the servers.
fn give_away(folder: &Path) {
    if nix::unistd::geteuid().is_root() {
        let given = Command::new("chown").arg("-R").arg(format!("{NOBODY}:{NOBODY}")).arg(folder).status();
        assert!(given.is_ok_and(|status| status.success()), "{} is given away", folder.display());
    }
}

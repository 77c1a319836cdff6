//! A PostgreSQL server of a test's own: a socket in a temporary folder, no port, ended by its own process id.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

/// The account of servers that refuse to run as root: nobody.
const NOBODY: &str = "65534";
const PORT: u16 = 5_432;

pub(super) struct Database {
    folder: TempDir,
    child: Option<Child>,
}

impl Drop for Database {
    fn drop(&mut self) {
        self.stop();
    }
}

pub(super) fn missing() -> Option<String> {
    let program = postgres("initdb");
    (!program.exists()).then(|| format!("{} is not installed", program.display()))
}

impl Database {
    pub(super) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        give_away(folder.path());
        let data = folder.path().join("data");
        let made = unprivileged()
            .arg(postgres("initdb"))
            .args(["--username=admin", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
            .arg("--pgdata")
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut database = Self { folder, child: None };
        database.resume();
        database
    }

    /// Starts the server, again where it was stopped.
    pub(super) fn resume(&mut self) {
        let child = unprivileged()
            .arg(postgres("postgres"))
            .arg("-D")
            .arg(self.folder.path().join("data"))
            .arg("-k")
            .arg(self.folder.path())
            .args(["-p", &PORT.to_string(), "-F", "-c", "listen_addresses=", "-c", "max_connections=60"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        self.wait();
    }

    /// Ends the server and all that are connected to it.
    pub(super) fn stop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // It may have ended by itself.
        let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGQUIT);
        let _ = child.wait();
    }

    /// Returns the address of the database.
    pub(super) fn url(&self) -> String {
        format!("postgres://admin@localhost/postgres?socket={}", self.folder.path().display())
    }

    /// Runs a statement; tells whether the server did it.
    pub(super) fn run(&self, statement: &str) -> bool {
        let mut psql = Command::new(postgres("psql"));
        psql.args(["-U", "admin", "-d", "postgres", "-c", statement, "-h"]).arg(self.folder.path());
        psql.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    }

    fn wait(&self) {
        for _ in 0..3_000 {
            if self.run("select 1") {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("the database does not answer");
    }
}

fn postgres(program: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.map(|version| version.path()).max().unwrap_or_else(|| "/usr/lib/postgresql".into());
    newest.join("bin").join(program)
}

/// Begins a command that ends with the test, and that is not run as root.
fn unprivileged() -> Command {
    let mut command = Command::new("setpriv");
    if nix::unistd::geteuid().is_root() {
        command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
    }
    command.args(["--pdeathsig", "KILL", "--"]);
    command
}

fn give_away(folder: &Path) {
    if nix::unistd::geteuid().is_root() {
        let given = Command::new("chown").arg(format!("{NOBODY}:{NOBODY}")).arg(folder).status();
        assert!(given.unwrap().success());
    }
}

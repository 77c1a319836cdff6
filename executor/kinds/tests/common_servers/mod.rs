//! Real servers for tests: started on free loopback ports in temporary folders, ended by their own process id.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::allow_attributes,
    reason = "each test program uses a part of it"
)]

use std::{
    fs,
    io::Write as _,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use tempfile::TempDir;

/// A password with all that needs care: in option files, in SQL, in shells.
const PASSWORD: &str = "pa\"ss\\wo#rd'; $x";

/// How often a server is looked at, and how often at most: 60 s altogether.
const POLL: Duration = Duration::from_millis(20);
const POLLS_MAX: u32 = 3_000;

/// How often another port is tried; somebody may take a free one before the server does.
const PORTS_MAX: u32 = 5;

/// A MariaDB server with one account that may do everything.
#[derive(Debug)]
pub(crate) struct Server {
    /// Its port on 127.0.0.1.
    pub port: u16,
    /// The account.
    pub user: String,
    /// The account's password.
    pub password: String,
    /// Its folder, gone with it.
    pub dir: PathBuf,
    child: Child,
    _root: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    /// Runs statements and returns what they print, tab-separated, without headings.
    pub(crate) fn sql(&self, statements: &str) -> String {
        self.try_sql(statements.as_bytes()).unwrap()
    }

    /// Runs statements as bytes, such as a dump.
    pub(crate) fn try_sql(&self, statements: &[u8]) -> Result<String, String> {
        let mut client = Command::new("mariadb")
            .args(["--no-defaults", "--user=root", "--batch", "--skip-column-names", "--binary-mode"])
            .arg("--default-character-set=utf8mb4")
            .arg(format!("--socket={}", socket(&self.dir).display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = client.stdin.take().unwrap();
        let statements = statements.to_vec();
        // Written from beside: a client with much to print would not read on otherwise.
        let writer = thread::spawn(move || input.write_all(&statements));
        let output = client.wait_with_output().unwrap();
        let _ = writer.join().unwrap();
        let (text, errors) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Ok(text.into_owned()) } else { Err(errors.into_owned()) }
    }
}

/// Starts a MariaDB server.
pub(crate) fn mariadb() -> Server {
    let root = tempfile::tempdir().unwrap();
    let dir = root.path().to_owned();
    install(&dir);
    let mut server = Server {
        port: 0,
        user: "millrace".into(),
        password: PASSWORD.into(),
        child: Command::new("true").spawn().unwrap(),
        dir,
        _root: root,
    };
    for _ in 0..PORTS_MAX {
        server.child.wait().unwrap();
        server.port = free_port();
        server.child = start(&server.dir, server.port);
        if is_up(&mut server) {
            return server;
        }
    }
    panic!("the server does not start: {}", fs::read_to_string(server.dir.join("log")).unwrap_or_default());
}

/// Starts a MariaDB server, or records that the test of this thread cannot run here.
pub(crate) fn mariadb_or_skip() -> Option<Server> {
    let programs = ["mariadbd", "mariadb-install-db", "mariadb-dump", "mariadb"];
    let missing: Vec<&str> = programs.into_iter().filter(|program| find(program).is_none()).collect();
    if missing.is_empty() {
        return Some(mariadb());
    }
    skip(&format!("not installed: {}", missing.join(", ")));
    None
}

/// Records that the test of this thread cannot run here.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "the test command says where skips are recorded"
)]
pub(crate) fn skip(reason: &str) {
    let name = thread::current().name().unwrap_or("unnamed").to_owned();
    let line = format!("SKIPPED: {name}: {reason}\n");
    eprint!("{line}");
    if let Some(path) = std::env::var_os("MILLRACE_SKIP_FILE") {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}

/// Returns a port of 127.0.0.1 that nobody listens on.
pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Waits until something holds, and panics with `what` where it does not within a minute.
pub(crate) fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..POLLS_MAX {
        if holds() {
            return;
        }
        thread::sleep(POLL);
    }
    panic!("not within a minute: {what}");
}

/// Finds a program; servers stand in folders that `PATH` of an ordinary account lacks.
#[expect(clippy::disallowed_methods, reason = "programs are where the environment says")]
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    folders.map(|folder| folder.join(program)).find(|program| program.is_file())
}

fn install(dir: &Path) {
    fs::create_dir(dir.join("tmp")).unwrap();
    let output = Command::new(find("mariadb-install-db").expect("mariadb-install-db is installed"))
        .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
        .args(folders(dir))
        .args(as_root())
        .args(SMALL)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let user = format!(
        "CREATE OR REPLACE USER 'millrace'@'%' IDENTIFIED BY '{}';\nGRANT ALL ON *.* TO 'millrace'@'%' WITH GRANT OPTION;\n",
        PASSWORD.replace('\\', "\\\\").replace('\'', "\\'")
    );
    fs::write(dir.join("init.sql"), user).unwrap();
}

/// A test has little data, and two servers share a machine.
const SMALL: [&str; 2] = ["--innodb-log-file-size=8M", "--innodb-buffer-pool-size=32M"];

fn start(dir: &Path, port: u16) -> Child {
    let log = fs::File::create(dir.join("log")).unwrap();
    Command::new(find("mariadbd").expect("mariadbd is installed"))
        .args([
            "--no-defaults",
            "--bind-address=127.0.0.1",
            "--skip-name-resolve",
            "--log-bin=mb",
            "--server-id=1",
        ])
        .arg(format!("--port={port}"))
        .args(folders(dir))
        .arg(format!("--socket={}", socket(dir).display()))
        .arg(format!("--pid-file={}", dir.join("pid").display()))
        .arg(format!("--init-file={}", dir.join("init.sql").display()))
        .args(as_root())
        .args(SMALL)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// Its own folder for temporary files: a server that starts removes those of all others from a shared one.
fn folders(dir: &Path) -> [String; 2] {
    [("datadir", "data"), ("tmpdir", "tmp")]
        .map(|(option, name)| format!("--{option}={}", dir.join(name).display()))
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("socket")
}

/// A server started by root refuses to run as root unless it is told to.
fn as_root() -> Option<&'static str> {
    nix::unistd::geteuid().is_root().then_some("--user=root")
}

/// Waits until a server answers; `false` where it ended instead.
fn is_up(server: &mut Server) -> bool {
    for _ in 0..POLLS_MAX {
        if server.child.try_wait().unwrap().is_some() {
            return false;
        }
        if server.try_sql(b"SELECT 1").is_ok() {
            return true;
        }
        thread::sleep(POLL);
    }
    false
}

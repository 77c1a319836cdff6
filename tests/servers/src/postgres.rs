//! A PostgreSQL server, as Debian installs it: on a socket in its folder, and where asked for on a port.
//!
//! Commits are not synced to the disk unless the settings say so (`-c fsync=on`): what a killed process has handed to
//! the system is there all the same.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use nix::sys::signal::Signal;

use crate::{
    home::Home,
    place::Place,
    port::Port,
    process::{Account, Process, command, give_away, wait_until},
    programs, template,
};

/// The number in the name of its socket.
pub const SOCKET_PORT: u16 = 5_432;
/// The account that may do everything, without a password.
pub const USER: &str = "admin";

/// How long it may take to end where nobody waits for it.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);

/// A PostgreSQL server.
#[derive(Debug)]
pub struct Postgres {
    place: Place,
    settings: Vec<String>,
    /// Where in the folder its data is.
    data: &'static str,
    process: Option<Process>,
    home: Home,
    /// Where it listens beside its socket.
    port: Option<Port>,
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // One that is killed leaves a piece of the system's memory behind; the folder kills what does not go by itself.
        if let Some(process) = &mut self.process {
            self.home.signal_all(Signal::SIGCONT);
            process.signal(Signal::SIGQUIT);
            let _ = process.ended_within(STOP_TIME_MAX);
        }
    }
}

/// Returns what keeps one from being started here.
#[must_use]
pub fn missing() -> Option<String> {
    programs::missing(&[program("initdb"), program("postgres"), program("psql")])
}

/// Returns a program of the newest version that is installed.
#[must_use]
pub fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.map(|version| version.path()).max().unwrap_or_else(|| "/usr/lib/postgresql".into());
    newest.join("bin").join(name)
}

impl Postgres {
    /// Starts one that listens on its socket alone, and waits until it answers.
    #[must_use]
    pub fn start() -> Self {
        let mut server = Self::prepare(&Place::here(), None, &[]);
        server.resume();
        server
    }

    /// Starts one that also listens on its place's address, and waits until it answers.
    #[must_use]
    pub fn start_at(place: &Place, settings: &[&str]) -> Self {
        let mut server = Self::prepare(place, Some(Port::take()), settings);
        server.resume();
        server
    }

    /// Makes the data of one, with `settings` after the usual ones, and starts nothing.
    #[must_use]
    pub fn prepare(place: &Place, port: Option<Port>, settings: &[&str]) -> Self {
        let home = Home::new(place);
        template::copy_to("postgres", &home.file("data"), |folder| {
            let mut initdb = command(&Place::here(), Account::Nobody, &program("initdb"));
            initdb.args([&format!("--username={USER}"), "--auth=trust", "--encoding=UTF8", "--locale=C"]);
            initdb.args(["--no-sync", "--wal-segsize=1", "--pgdata"]).arg(folder);
            initdb
        });
        let access = "local all all trust\nhost all all 0.0.0.0/0 trust\nhost all all ::/0 trust\n";
        fs::write(home.file("data").join("pg_hba.conf"), access).expect("who may connect");
        give_away(home.path());
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Self { place: place.clone(), settings, data: "data", process: None, home, port }
    }

    /// Starts it, where it does not run, and waits until it answers.
    pub fn resume(&mut self) {
        if self.process.is_none() {
            self.begin();
        }
        wait_until("PostgreSQL to answer", || {
            // One that was killed refuses to start until the last of its processes, which end by themselves, has gone.
            if self.process.as_mut().is_some_and(|process| process.try_ended().is_some()) {
                self.begin();
            }
            self.try_sql("select 1").is_ok()
        });
    }

    fn begin(&mut self) {
        let folder = self.home.path();
        let mut postgres = command(&self.place, Account::Nobody, &program("postgres"));
        postgres.current_dir(folder).arg("-D").arg(folder.join(self.data)).arg("-k").arg(folder);
        let (addresses, port) = match &self.port {
            Some(port) => (self.place.address().to_string(), port.number()),
            None => (String::new(), SOCKET_PORT),
        };
        postgres
            .args(["-p", &port.to_string(), "-F", "-c", &format!("listen_addresses={addresses}")])
            .args(["-c", "shared_buffers=32MB", "-c", "max_connections=60"])
            .args(&self.settings);
        self.process = Some(Process::start(postgres, &self.home.file("log")));
    }

    /// Returns its folder, where its socket is.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.home.path()
    }

    /// Returns the address of its database `postgres`, over the socket, which no network comes between.
    #[must_use]
    pub fn url(&self) -> String {
        let (folder, port) = (self.folder().display(), self.socket_port());
        format!("postgres://{USER}@localhost:{port}/postgres?socket={folder}")
    }

    /// Returns the address of its database `postgres` over the network.
    ///
    /// # Panics
    /// Where it listens on its socket alone.
    #[must_use]
    pub fn network_url(&self) -> String {
        let port = self.port.as_ref().expect("a server that listens on the network");
        format!("postgres://{USER}@{}/postgres", self.place.socket(port))
    }

    /// Returns the number in the name of its socket.
    #[must_use]
    pub fn socket_port(&self) -> u16 {
        self.port.as_ref().map_or(SOCKET_PORT, Port::number)
    }

    /// Runs statements; returns what they print, a line for each row, or what the server said against them.
    ///
    /// # Errors
    /// Where the server refuses them or does not answer.
    pub fn try_sql(&self, statements: &str) -> Result<String, String> {
        let mut psql = Command::new(program("psql"));
        psql.args(["-U", USER, "-d", "postgres", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
            .args(["-c", statements, "-p", &self.socket_port().to_string(), "-h"])
            .arg(self.folder())
            .env("PGCONNECT_TIMEOUT", "5")
            .stdin(Stdio::null());
        let output = psql.output().expect("psql is installed");
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
        } else {
            Err(String::from_utf8_lossy(&output.stderr).into_owned())
        }
    }

    /// Runs statements, which must succeed.
    ///
    /// # Panics
    /// Where they do not.
    pub fn sql(&self, statements: &str) -> String {
        self.try_sql(statements).unwrap_or_else(|problem| panic!("{statements}: {problem}"))
    }

    /// Ends it and all that are connected to it, with no chance to tidy up; the sessions too.
    pub fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill();
        }
        self.process = None;
        let left = self.home.end();
        assert!(left.is_empty(), "processes of PostgreSQL do not end: {left:?}");
    }

    /// Ends it at once, as its operator would where that must be quick, and waits for that.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::SIGQUIT);
            process.ended();
        }
    }

    /// Stops it and all its sessions where they stand.
    pub fn freeze(&self) {
        // The first stands before the others do, so that it starts no more of them.
        self.process.iter().for_each(Process::freeze);
        self.home.signal_all(Signal::SIGSTOP);
    }

    /// Lets it go on after [`Self::freeze`].
    pub fn thaw(&self) {
        self.home.signal_all(Signal::SIGCONT);
    }

    /// Kills it and moves its data within its folder, as another system would have them; [`Self::resume`] goes on.
    ///
    /// # Panics
    /// Where they cannot be moved.
    pub fn move_data(&mut self) {
        self.kill();
        fs::rename(self.home.file(self.data), self.home.file("moved")).expect("a free name");
        self.data = "moved";
    }

    /// Returns what it wrote.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.file("log")).unwrap_or_default()
    }
}

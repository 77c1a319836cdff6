//! A MariaDB server, as Debian installs it: on a socket in its folder, and where asked for on a port.
//!
//! Commits reach the system and not the disk unless the settings say so (`--innodb-flush-log-at-trx-commit=1`): what a
//! killed process has handed to the system is there all the same.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use nix::sys::signal::Signal;

use crate::{
    home::Home,
    place::Place,
    port::Port,
    process::{Account, Process, command, give_away, wait_until},
    programs, template,
};

/// The account that may do everything over the network; it has a database `millrace`.
pub const USER: &str = "millrace";

/// A MariaDB server.
#[derive(Debug)]
pub struct MariaDb {
    place: Place,
    settings: Vec<String>,
    /// Where in the folder its data is.
    data: &'static str,
    process: Option<Process>,
    home: Home,
    /// Where it listens beside its socket.
    port: Option<Port>,
}

fn programs_needed() -> [PathBuf; 3] {
    ["mariadb-install-db", "mariadbd", "mariadb"]
        .map(|name| programs::find(name).unwrap_or_else(|| Path::new("/usr/bin").join(name)))
}

/// Returns what keeps one from being started here.
#[must_use]
pub fn missing() -> Option<String> {
    programs::missing(&programs_needed())
}

impl MariaDb {
    /// Starts one that listens on its socket alone, and waits until it answers.
    #[must_use]
    pub fn start() -> Self {
        let mut server = Self::prepare(&Place::here(), None, "", &[]);
        server.resume();
        server
    }

    /// Starts one that also listens on its place's address, where [`USER`] has `password`, and waits until it answers.
    #[must_use]
    pub fn start_at(place: &Place, password: &str, settings: &[&str]) -> Self {
        let mut server = Self::prepare(place, Some(Port::take()), password, settings);
        server.resume();
        server
    }

    /// Makes the data of one, with `settings` after the usual ones, and starts nothing.
    ///
    /// # Panics
    /// Where that is not possible.
    #[must_use]
    pub fn prepare(place: &Place, port: Option<Port>, password: &str, settings: &[&str]) -> Self {
        let home = Home::new(place);
        template::copy_to("mariadb", &home.file("data"), |folder| {
            let [install, _, _] = programs_needed();
            let mut install = command(&Place::here(), Account::Nobody, &install);
            install
                .args(["--no-defaults", "--auth-root-authentication-method=normal", "--skip-test-db"])
                .args(["--innodb-log-file-size=16M".to_owned(), format!("--datadir={}", folder.display())]);
            install
        });
        let text = password.replace('\\', "\\\\").replace('\'', "\\'");
        let user = format!(
            "CREATE OR REPLACE USER '{USER}'@'%' IDENTIFIED BY '{text}';\nGRANT ALL ON *.* TO '{USER}'@'%' WITH GRANT OPTION;\nCREATE DATABASE IF NOT EXISTS millrace;\n"
        );
        // Over the socket there is root.
        let setup = if port.is_some() { user } else { String::new() };
        fs::write(home.file("init.sql"), setup).expect("a file of statements");
        fs::create_dir(home.file("tmp")).expect("a folder for its temporary files");
        give_away(home.path());
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        Self { place: place.clone(), settings, data: "data", process: None, home, port }
    }

    /// Starts it, where it does not run, and waits until it answers.
    pub fn resume(&mut self) {
        if self.process.is_none() {
            self.begin();
        }
        wait_until("MariaDB to answer", || {
            if self.process.as_mut().is_some_and(|process| process.try_ended().is_some()) {
                self.begin();
            }
            self.try_sql(b"SELECT 1").is_ok()
        });
    }

    fn begin(&mut self) {
        let at = |name: &str| self.home.file(name).display().to_string();
        let [_, server, _] = programs_needed();
        let mut mariadbd = command(&self.place, Account::Nobody, &server);
        mariadbd
            .current_dir(self.home.path())
            .args(["--no-defaults", "--skip-name-resolve", "--server-id=1"])
            .args(["--innodb-buffer-pool-size=32M", "--innodb-log-file-size=16M"])
            .args(["--innodb-flush-log-at-trx-commit=2", "--character-set-server=utf8mb4"])
            .args([format!("--datadir={}", at(self.data)), format!("--socket={}", at("socket"))])
            .args([format!("--pid-file={}", at("pid")), format!("--init-file={}", at("init.sql"))])
            // Its own: a server that starts removes the temporary files of all others from a shared one.
            .arg(format!("--tmpdir={}", at("tmp")));
        match &self.port {
            Some(port) => mariadbd
                .arg(format!("--bind-address={}", self.place.address()))
                .arg(format!("--port={}", port.number())),
            None => mariadbd.arg("--skip-networking"),
        };
        mariadbd.args(&self.settings);
        self.process = Some(Process::start(mariadbd, &self.home.file("log")));
    }

    /// Returns its folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.home.path()
    }

    /// Returns its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.home.file("socket")
    }

    /// Returns its port.
    ///
    /// # Panics
    /// Where it listens on its socket alone.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.as_ref().expect("a server that listens on the network").number()
    }

    /// Returns the address of its database `millrace` over the network, for [`USER`] with this password.
    #[must_use]
    pub fn network_url(&self, password: &str) -> String {
        format!("mysql://{USER}:{password}@{}:{}/millrace", self.place.address(), self.port())
    }

    /// Runs statements as root, which must succeed; returns what they print, tab-separated, without headings.
    ///
    /// # Panics
    /// Where they do not.
    pub fn sql(&self, statements: &str) -> String {
        self.try_sql(statements.as_bytes()).unwrap_or_else(|problem| panic!("{statements}: {problem}"))
    }

    /// Runs statements as bytes, such as a dump.
    ///
    /// # Errors
    /// Where the server refuses them or does not answer.
    ///
    /// # Panics
    /// Where the client is not installed.
    pub fn try_sql(&self, statements: &[u8]) -> Result<String, String> {
        let [_, _, client] = programs_needed();
        let mut client = Command::new(client)
            .args(["--no-defaults", "--user=root", "--batch", "--skip-column-names", "--binary-mode"])
            .args(["--default-character-set=utf8mb4", "--connect-timeout=5"])
            .arg(format!("--socket={}", self.socket().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("mariadb is installed");
        let mut input = client.stdin.take().expect("its input is a pipe");
        let statements = statements.to_vec();
        // Written from beside: a client with much to print would not read on otherwise.
        let writer = thread::spawn(move || input.write_all(&statements));
        let output = client.wait_with_output().expect("the client ends");
        // One that was refused does not read to the end.
        let _ = writer.join();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    /// Ends it, with no chance to tidy up.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Asks it to end, and waits for that.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::SIGTERM);
            process.ended();
        }
    }

    /// Stops it where it stands.
    pub fn freeze(&self) {
        self.process.iter().for_each(Process::freeze);
    }

    /// Lets it go on after [`Self::freeze`].
    pub fn thaw(&self) {
        self.process.iter().for_each(Process::thaw);
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

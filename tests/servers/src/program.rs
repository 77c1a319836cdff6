//! Millrace's own programs, with their settings in a file: masters and executors.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
};

use nix::sys::signal::Signal;
use toml::{Table, Value};
use tonic::Status;

use crate::{
    client::{self, Control, TOKEN},
    etcd::Etcd,
    home::Home,
    place::Place,
    port::Port,
    process::{Account, Process, command},
    programs,
};

/// A program of Millrace: its settings, its folder, its process while it runs.
#[derive(Debug)]
pub struct Program {
    /// Its name in the cluster.
    pub name: String,
    path: PathBuf,
    arguments: Vec<&'static str>,
    settings: Table,
    variables: Vec<(String, String)>,
    place: Place,
    process: Option<Process>,
    home: Home,
}

impl Program {
    fn new(name: &str, place: &Place, path: PathBuf, arguments: Vec<&'static str>) -> Self {
        let variables = vec![
            ("NO_COLOR".to_owned(), "1".to_owned()),
            ("PATH".to_owned(), "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()),
        ];
        let (place, home) = (place.clone(), Home::new(place));
        let settings = Table::new();
        let mut new =
            Self { name: name.to_owned(), path, arguments, settings, variables, place, process: None, home };
        let token = new.home.file("token");
        fs::write(&token, TOKEN).expect("a file for the token");
        fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).expect("a file of one's own");
        new.set("name", name);
        new.set("token_file", text(&token));
        new.set("data_dir", text(&new.home.file("data")));
        new
    }

    /// Sets a key, such as `etcd.ttl`; for the next start.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        let (tables, last) = key.rsplit_once('.').map_or((None, key), |(tables, last)| (Some(tables), last));
        let mut table = &mut self.settings;
        for name in tables.into_iter().flat_map(|tables| tables.split('.')) {
            let inner = table.entry(name).or_insert_with(|| Table::new().into());
            table = inner.as_table_mut().expect("a key that is a table");
        }
        table.insert(last.to_owned(), value.into());
    }

    /// Leaves a key to its default.
    pub fn unset(&mut self, key: &str) {
        let mut names: Vec<&str> = key.split('.').collect();
        let last = names.pop().unwrap_or_default();
        let mut table = Some(&mut self.settings);
        for name in names {
            table = table.and_then(|table| table.get_mut(name)).and_then(Value::as_table_mut);
        }
        if let Some(table) = table {
            table.remove(last);
        }
    }

    /// Sets a variable of its environment, which holds nothing else of this program's.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        self.variables.retain(|(set, _)| set != name);
        self.variables.push((name.to_owned(), value.to_owned()));
    }

    /// Takes another file as the program, for the next start.
    pub fn set_path(&mut self, path: impl Into<PathBuf>) {
        self.path = path.into();
    }

    /// Starts it, and does not wait for anything.
    ///
    /// # Panics
    /// Where it runs already or cannot be started.
    pub fn start(&mut self) {
        assert!(self.process.is_none(), "{} runs already", self.name);
        let file = self.home.file("settings.toml");
        fs::write(&file, self.settings.to_string()).expect("a file of settings");
        let mut command = command(&self.place, Account::Own, &self.path);
        command
            .args(&self.arguments)
            .arg("--config")
            .arg(file)
            .current_dir(self.home.path())
            .env_clear()
            .envs(self.variables.iter().map(|(name, value)| (name, value)));
        self.process = Some(Process::start(command, &self.home.file("log")));
    }

    /// Returns whether it was started and neither killed nor waited for since.
    #[must_use]
    pub const fn is_running(&self) -> bool {
        self.process.is_some()
    }

    fn running(&self) -> &Process {
        self.process.as_ref().unwrap_or_else(|| panic!("{} does not run", self.name))
    }

    /// Returns the id of its process.
    ///
    /// # Panics
    /// Where it does not run.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running().pid()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// Where it does not run.
    pub fn signal(&self, signal: Signal) {
        self.running().signal(signal);
    }

    /// Kills its process, with no chance to tidy up, and waits for that. What it started itself goes on.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Kills all that belongs to it, as the loss of its machine does.
    ///
    /// # Panics
    /// Where something of it does not end.
    pub fn kill_all(&mut self) {
        self.process = None;
        let left = self.home.end();
        assert!(left.is_empty(), "processes of {} do not end: {left:?}", self.name);
    }

    /// Stops its process where it stands.
    pub fn freeze(&self) {
        self.running().freeze();
    }

    /// Lets its process go on after [`Self::freeze`].
    pub fn thaw(&self) {
        self.running().thaw();
    }

    /// Stops all that belongs to it, as a machine that stands still does.
    pub fn freeze_all(&self) {
        self.process.iter().for_each(Process::freeze);
        self.home.signal_all(Signal::SIGSTOP);
    }

    /// Lets all go on after [`Self::freeze_all`].
    pub fn thaw_all(&self) {
        self.home.signal_all(Signal::SIGCONT);
    }

    /// Returns how it ended, once; `None` while it runs.
    pub fn try_ended(&mut self) -> Option<ExitStatus> {
        let ended = self.process.as_mut().and_then(Process::try_ended);
        if ended.is_some() {
            self.process = None;
        }
        ended
    }

    /// Waits until it has ended by itself.
    ///
    /// # Panics
    /// Where it does not, with what it wrote; where it does not run.
    pub fn ended(&mut self) -> ExitStatus {
        let mut process = self.process.take().unwrap_or_else(|| panic!("{} does not run", self.name));
        process.ended()
    }

    /// Returns what it wrote, in all its lives.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.home.file("log")).unwrap_or_default()
    }

    /// Returns its folder, and through it all processes that belong to it.
    #[must_use]
    pub const fn home(&self) -> &Home {
        &self.home
    }

    /// Returns its folder, to keep it.
    pub const fn home_mut(&mut self) -> &mut Home {
        &mut self.home
    }
}

fn text(path: &Path) -> String {
    path.display().to_string()
}

/// A master.
#[derive(Debug)]
pub struct Master {
    /// Its process and settings.
    pub program: Program,
    address: SocketAddr,
    _port: Port,
}

impl Master {
    /// Prepares one at a place, with its settings to come; `path` is its program.
    #[must_use]
    pub fn prepare(name: &str, place: &Place, path: impl Into<PathBuf>) -> Self {
        let port = Port::take();
        let address = place.socket(&port);
        let mut program = Program::new(name, place, path.into(), Vec::new());
        program.set("listen", address.to_string());
        program.set_variable("MILLRACE_LOG", "info,millrace_master=debug");
        Self { program, address, _port: port }
    }

    /// Prepares one that shares a database and an etcd, which may be an old one.
    #[must_use]
    pub fn with_etcd(name: &str, place: &Place, database: &str, etcd: &Etcd) -> Self {
        let mut master = Self::prepare(name, place, programs::built("millrace-master"));
        master.join(database, etcd);
        master
    }

    /// Prepares one that is alone with an executor of its own, in one process over a file in the folder `data`. Its settings
    /// are those of `millrace run`, such as `master.retention` and `executor.slots`.
    ///
    /// # Panics
    /// Where its folder cannot be written to.
    #[must_use]
    pub fn alone(name: &str, place: &Place, data: &Path) -> Self {
        let port = Port::take();
        let address = place.socket(&port);
        let mut program = Program::new(name, place, programs::built("millrace"), vec!["run"]);
        ["name", "token_file", "data_dir"].into_iter().for_each(|key| program.unset(key));
        fs::create_dir_all(data).expect("a folder for its data");
        fs::copy(program.home.file("token"), data.join("token")).expect("its own token");
        program.set("master.name", name);
        program.set("master.listen", address.to_string());
        program.set_variable("MILLRACE_DATA", &text(data));
        program.set_variable("MILLRACE_LOG", "info,millrace_master=debug");
        Self { program, address, _port: port }
    }

    /// Sets the database and the etcd that it shares with others.
    pub fn join(&mut self, database: &str, etcd: &Etcd) {
        let endpoints: Vec<Value> = etcd.endpoints().into_iter().map(Value::from).collect();
        self.program.set("database", database);
        self.program.set("etcd.endpoints", endpoints);
        self.program.set("etcd.election_timeout", "200ms");
        self.program.set("etcd.allow_old_etcd", true);
    }

    /// Returns where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns where it listens, as executors and clients are told.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Connects to it, from this program's own place.
    ///
    /// # Errors
    /// Where it does not listen.
    pub async fn control(&self) -> Result<Control, Status> {
        client::control(&self.url()).await
    }

    /// Prepares masterctl to talk to it, from its own place.
    #[must_use]
    pub fn ctl(&self) -> Command {
        let mut command = self.program.place.command(programs::built("masterctl"));
        command
            .env("MILLRACE_MASTER", self.url())
            .env("MILLRACE_TOKEN_FILE", self.program.home.file("token"))
            .env("NO_COLOR", "1")
            .stdin(Stdio::null());
        command
    }
}

/// An executor.
#[derive(Debug)]
pub struct Executor {
    /// Its process and settings.
    pub program: Program,
}

impl Executor {
    /// Prepares one at a place for masters at these addresses.
    #[must_use]
    pub fn prepare(name: &str, place: &Place, masters: &[String]) -> Self {
        Self::prepare_with(name, place, masters, programs::built("millrace-executor"))
    }

    /// Prepares one whose program is `path`.
    #[must_use]
    pub fn prepare_with(name: &str, place: &Place, masters: &[String], path: impl Into<PathBuf>) -> Self {
        let mut program = Program::new(name, place, path.into(), vec!["run"]);
        program.set("masters", masters.iter().cloned().map(Value::from).collect::<Vec<_>>());
        program.set_variable("MILLRACE_LOG", "info");
        Self { program }
    }

    /// Returns the folder of its spool and its attempts.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.program.home.file("data")
    }
}

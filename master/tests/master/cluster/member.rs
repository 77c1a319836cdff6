//! A master as a process: its settings, its signals, its end.

use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    process::Stdio,
    time::Duration,
};

use millrace_proto::{
    MESSAGE_BYTES_MAX,
    v1::{self, control_service_client::ControlServiceClient},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tonic::{Status, transport::Endpoint};

use super::{AUTHORITY, Database, Etcd, TTL};
use crate::support::{Control, Token, within};

const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef";

pub(super) struct Member {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    folder: TempDir,
    database: String,
    etcd: String,
    child: Option<Child>,
}

impl Member {
    pub(super) fn new(name: &str, database: &Database, etcd: &Etcd) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let timing = format!(
            "ttl = \"{}s\"\nauthority = \"{}ms\"\nrenewal = \"500ms\"\nelection_timeout = \"200ms\"\nallow_old_etcd = true\n",
            TTL.as_secs(),
            AUTHORITY.as_millis()
        );
        let etcd = format!("[etcd]\nendpoints = {:?}\n{timing}", etcd.endpoints());
        let folder = tempfile::tempdir().unwrap();
        Self { name: name.to_owned(), address, folder, database: database.url(), etcd, child: None }
    }

    /// Replaces a line of the table about etcd, by its key; removes it where there is no line.
    pub(super) fn set(&mut self, key: &str, line: Option<&str>) {
        let kept = self.etcd.lines().filter(|one| !one.starts_with(&format!("{key} ")));
        self.etcd = kept.chain(line).map(|line| format!("{line}\n")).collect();
    }

    /// Takes the timing values that are in force where nothing is set.
    pub(super) fn use_default_timing(&mut self) {
        ["ttl", "authority", "renewal", "election_timeout"].iter().for_each(|key| self.set(key, None));
    }

    /// Takes a file as the database.
    pub(super) fn use_file(&mut self) {
        self.database = format!("sqlite://{}", self.folder.path().join("m.db").display());
    }

    pub(super) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub(super) fn start(&mut self) {
        let (folder, Self { name, address, database, etcd, .. }) = (self.folder.path(), &*self);
        let token = folder.join("token");
        if !token.exists() {
            fs::write(&token, TOKEN).unwrap();
            fs::set_permissions(&token, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        }
        let data = folder.join("data");
        let settings = format!(
            "name = {name:?}\nlisten = \"{address}\"\ndata_dir = {data:?}\ntoken_file = {token:?}\ndatabase = {database:?}\n{etcd}"
        );
        let file = folder.join("master.toml");
        fs::write(&file, settings).unwrap();
        let log = File::options().create(true).append(true).open(folder.join("log")).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_millrace-master"))
            .arg("--config")
            .arg(file)
            .env_clear()
            .env("NO_COLOR", "1")
            .env("MILLRACE_LOG", "info,millrace_master=debug")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    pub(super) const fn is_running(&self) -> bool {
        self.child.is_some()
    }

    pub(super) fn signal(&self, signal: Signal) {
        let pid = self.child.as_ref().unwrap().id().unwrap();
        kill(Pid::from_raw(pid.cast_signed()), signal).unwrap();
    }

    /// Waits until it has ended, and returns its exit code; none where a signal ended it.
    pub(super) async fn ended(&mut self) -> Option<i32> {
        let mut child = self.child.take().unwrap();
        let status = tokio::time::timeout(Duration::from_secs(60), child.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("{} did not end:\n{}", self.name, self.log()));
        status.unwrap().code()
    }

    /// Returns what it wrote so far, in all its lives.
    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    pub(super) fn token() -> Token {
        Token(format!("Bearer {TOKEN}"))
    }

    pub(super) async fn control(&self) -> Result<Control, Status> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        let channel = endpoint.timeout(Duration::from_secs(10)).connect().await;
        let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(ControlServiceClient::with_interceptor(channel, Self::token())
            .max_decoding_message_size(MESSAGE_BYTES_MAX))
    }

    pub(super) async fn cluster(&self) -> Result<v1::GetClusterResponse, Status> {
        let mut control = self.control().await?;
        let answer =
            within("an answer about the cluster", control.get_cluster(v1::GetClusterRequest {})).await;
        answer.map(tonic::Response::into_inner)
    }
}

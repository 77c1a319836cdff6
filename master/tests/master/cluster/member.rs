//! A master as a process: its settings, its signals, its end.

use std::net::SocketAddr;

use millrace_proto::v1;
use millrace_servers::{
    Etcd, Master, Place, Postgres,
    client::{Control, TOKEN},
};
use nix::sys::signal::Signal;
use tonic::Status;

use super::{AUTHORITY, TTL};
use crate::support::{Token, until, within};

pub(super) struct Member {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    master: Master,
}

impl Member {
    pub(super) fn new(name: &str, database: &Postgres, etcd: &Etcd) -> Self {
        let mut master = Master::prepare(name, &Place::here(), env!("CARGO_BIN_EXE_millrace-master"));
        master.join(&database.url(), etcd);
        let mut member = Self { name: name.to_owned(), address: master.address(), master };
        member.set("etcd.ttl", format!("{}s", TTL.as_secs()));
        member.set("etcd.authority", format!("{}ms", AUTHORITY.as_millis()));
        member.set("etcd.renewal", "500ms");
        member
    }

    pub(super) fn set(&mut self, key: &str, value: impl Into<toml::Value>) {
        self.master.program.set(key, value);
    }

    pub(super) fn unset(&mut self, key: &str) {
        self.master.program.unset(key);
    }

    /// Takes the timing values that are in force where nothing is set.
    pub(super) fn use_default_timing(&mut self) {
        ["ttl", "authority", "renewal", "election_timeout"]
            .iter()
            .for_each(|key| self.unset(&format!("etcd.{key}")));
    }

    /// Takes a file as the database.
    pub(super) fn use_file(&mut self) {
        let file = self.folder().join("m.db");
        self.set("database", format!("sqlite://{}", file.display()));
    }

    pub(super) fn folder(&self) -> &std::path::Path {
        self.master.program.home().path()
    }

    pub(super) fn start(&mut self) {
        self.master.program.start();
    }

    pub(super) const fn is_running(&self) -> bool {
        self.master.program.is_running()
    }

    pub(super) fn signal(&self, signal: Signal) {
        self.master.program.signal(signal);
    }

    /// Waits until it has ended, and returns its exit code; none where a signal ended it.
    pub(super) async fn ended(&mut self) -> Option<i32> {
        let what = format!("{} to end", self.name);
        until(&what, async || self.master.program.try_ended()).await.code()
    }

    /// Returns what it wrote so far, in all its lives.
    pub(super) fn log(&self) -> String {
        self.master.program.log()
    }

    pub(super) fn token() -> Token {
        Token(format!("Bearer {TOKEN}"))
    }

    pub(super) async fn control(&self) -> Result<Control, Status> {
        self.master.control().await
    }

    pub(super) async fn cluster(&self) -> Result<v1::GetClusterResponse, Status> {
        let mut control = self.control().await?;
        let answer =
            within("an answer about the cluster", control.get_cluster(v1::GetClusterRequest {})).await;
        answer.map(tonic::Response::into_inner)
    }
}

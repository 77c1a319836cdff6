//! What the machine can do, found out before anything is started: what a scenario needs and is not there makes it count
//! as not run, with the reason.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use millrace_servers::{etcd, mariadb, postgres};
use nix::unistd::geteuid;

use crate::network::is_on_path;

/// Something that a scenario needs of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Need {
    /// Network namespaces and what cuts links in them; of all scenarios with a cluster.
    Namespaces,
    /// Dropping, losing and resetting packets.
    Filter,
    /// Giving what comes to one port to another one.
    Divert,
    /// Limiting the bandwidth of a link.
    Bandwidth,
    Etcd,
    Postgres,
    MariaDb,
    /// Another wall clock for one program.
    FakeTime,
    /// Small disks.
    Mount,
    /// The controller of control groups that limits processes.
    PidsGroup,
    /// The `sqlite3` command.
    Sqlite,
}

/// What is missing, by need.
#[derive(Debug, Default)]
pub(crate) struct Capabilities {
    missing: BTreeMap<Need, String>,
}

impl Capabilities {
    pub(crate) fn probe() -> Self {
        let mut found = Self::default();
        found.note(Need::Namespaces, namespaces());
        found.note(Need::Filter, filter());
        found.note(Need::Divert, divert());
        found.note(Need::Bandwidth, bandwidth());
        found.note(Need::Etcd, etcd::missing());
        found.note(Need::Postgres, postgres::missing());
        found.note(Need::MariaDb, mariadb::missing());
        found.note(Need::FakeTime, fake_time().is_none().then(|| "libfaketime is not installed".to_owned()));
        found.note(Need::Mount, not_root());
        let pids = Path::new("/sys/fs/cgroup/pids/cgroup.procs").exists();
        found.note(Need::PidsGroup, (!pids).then(|| "there is no `pids` controller of version 1".to_owned()));
        found.note(Need::Sqlite, absent("sqlite3"));
        found
    }

    fn note(&mut self, need: Need, missing: Option<String>) {
        self.missing.extend(missing.map(|reason| (need, reason)));
    }

    /// Returns why a scenario with these needs cannot run here.
    pub(crate) fn lack(&self, needs: &[Need]) -> Option<&str> {
        needs.iter().find_map(|need| self.missing.get(need)).map(String::as_str)
    }
}

/// Returns the library that gives one program another wall clock.
pub(crate) fn fake_time() -> Option<PathBuf> {
    let folders =
        ["/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime", "/usr/lib/faketime"];
    folders.iter().map(|folder| Path::new(folder).join("libfaketimeMT.so.1")).find(|path| path.exists())
}

fn absent(program: &str) -> Option<String> {
    (!is_on_path(program)).then(|| format!("{program} is not installed"))
}

fn not_root() -> Option<String> {
    (!geteuid().is_root()).then(|| "only root may do that".to_owned())
}

fn namespaces() -> Option<String> {
    not_root().or_else(|| ["ip", "nsenter", "setpriv"].into_iter().find_map(absent)).or_else(|| {
        tries("ip", &["netns", "add", &probe_name()])
            .then(|| tries("ip", &["netns", "del", &probe_name()]))
            .is_none()
            .then(|| "this kernel or container makes no network namespaces".to_owned())
    })
}

fn filter() -> Option<String> {
    absent("nft").or_else(|| {
        let rules = "add table inet rig; add chain inet rig input { type filter hook input priority 0; }; \
                     add rule inet rig input numgen random mod 100 < 30 drop; \
                     add rule inet rig input meta l4proto tcp reject with tcp reset";
        in_probe("nft", &[rules], "nft does not filter in a network namespace here")
    })
}

fn divert() -> Option<String> {
    absent("nft").or_else(|| {
        let rules = "add table ip rig; add chain ip rig turn { type nat hook prerouting priority -100; }; \
                     add rule ip rig turn tcp dport 1 redirect to :2";
        in_probe("nft", &[rules], "nft does not redirect in a network namespace here")
    })
}

fn bandwidth() -> Option<String> {
    let arguments =
        ["qdisc", "add", "dev", "lo", "root", "tbf", "rate", "1mbit", "burst", "32kb", "latency", "400ms"];
    absent("tc").or_else(|| in_probe("tc", &arguments, "this kernel has no tbf"))
}

/// Tries something in a namespace of its own.
fn in_probe(program: &str, arguments: &[&str], reason: &str) -> Option<String> {
    let name = probe_name();
    if !tries("ip", &["netns", "add", &name]) {
        return Some("this kernel or container makes no network namespaces".to_owned());
    }
    let works = tries("ip", &[&["netns", "exec", &name, program], arguments].concat());
    tries("ip", &["netns", "del", &name]);
    (!works).then(|| reason.to_owned())
}

fn probe_name() -> String {
    format!("mrig{}-probe", std::process::id())
}

fn tries(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

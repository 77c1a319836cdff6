//! The cluster under test: three etcd, a database, three masters, three executors, each on a machine of its own.
//!
//! It stands in for the service manager too: whatever ends is started again, unless a scenario holds it down, and every
//! end is noted with its code.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{ExitStatus, Output},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use millrace_servers::{Etcd, Executor, Master, Place, Program, etcd};

use crate::{
    clock,
    database::{Database, Engine},
    network::{self, Host, Network},
};

/// How long a service manager waits before it starts something again.
const RESTART_DELAY: Duration = Duration::from_millis(300);
/// How long a fresh cluster may take to have a leader and its executors.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// What a scenario wants of its cluster.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) engine: Engine,
    pub(crate) slots: u32,
    /// Further arguments of the database server.
    pub(crate) database: &'static [&'static str],
    /// Size of a disk of its own for a machine, by its name, as `mount` takes it.
    pub(crate) disks: &'static [(&'static str, &'static str)],
    /// Environment of a program, by its name.
    pub(crate) variables: Vec<(&'static str, String, String)>,
    /// Further settings of all masters, and of all executors, as key and text.
    pub(crate) masters: &'static [(&'static str, &'static str)],
    pub(crate) executors: &'static [(&'static str, &'static str)],
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            engine: Engine::Postgres,
            slots: 8,
            database: &[],
            disks: &[],
            variables: Vec::new(),
            masters: &[],
            executors: &[],
        }
    }
}

/// The folder of all that is kept where one process is all of it; a disk of this name is mounted there.
pub(crate) const ALONE: &str = "alone";

/// Lease, authority and renewal of the leader: short, and in the relation that masters insist on.
pub(crate) const TTL: Duration = Duration::from_secs(3);
const TIMING: [(&str, &str); 3] =
    [("etcd.ttl", "3s"), ("etcd.authority", "1400ms"), ("etcd.renewal", "400ms")];

/// An end of a program.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) at: u64,
    pub(crate) name: String,
    pub(crate) status: ExitStatus,
}

/// Who leads, as the database says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Leader {
    pub(crate) term: u64,
    /// Position among the masters.
    pub(crate) index: usize,
}

#[derive(Debug)]
pub(crate) struct Cluster<'n> {
    pub(crate) network: &'n Network,
    pub(crate) etcd: Etcd,
    pub(crate) database: Database,
    pub(crate) masters: Vec<Master>,
    pub(crate) executors: Vec<Executor>,
    pub(crate) slots: u32,
    pub(crate) ends: Vec<Ended>,
    held: BTreeSet<String>,
    down_since: BTreeMap<String, u64>,
    /// Unmounted after everything that uses them has gone.
    _disks: Vec<Disk>,
    folder: PathBuf,
}

impl<'n> Cluster<'n> {
    /// Starts everything, and waits until it is ready.
    pub(crate) fn start(
        network: &'n Network,
        folder: &Path,
        setting: &Setting,
        kept: &Path,
    ) -> anyhow::Result<Self> {
        let disks = setting.disks.iter().map(|(host, size)| Disk::mount(&folder.join(host), size));
        let disks = disks.collect::<anyhow::Result<Vec<_>>>()?;
        let host = place(network, folder, network::DATABASE);
        let Parts { etcd, database, masters, executors } = match setting.engine {
            Engine::Postgres => several(network, folder, Database::postgres(&host, setting.database)),
            Engine::MariaDb => several(network, folder, Database::mariadb(&host, setting.database)),
            Engine::Sqlite => alone(network, folder),
        };
        let mut cluster = Self {
            network,
            etcd,
            database,
            masters,
            executors,
            slots: setting.slots,
            ends: Vec::new(),
            held: BTreeSet::new(),
            down_since: BTreeMap::new(),
            _disks: disks,
            folder: folder.to_owned(),
        };
        cluster.configure(setting);
        let ready = cluster.wait("the first leader and its executors", READY_WITHIN, |cluster| {
            // One that is alone brings an executor of its own.
            let executors = cluster.executors.len().max(1);
            Ok((cluster.leader().is_some() && cluster.connected()? == executors).then_some(()))
        });
        if ready.is_err() {
            cluster.keep_logs(kept);
        }
        ready.map(|()| cluster)
    }

    /// Copies what the programs and servers wrote to a folder; they only help to understand.
    pub(crate) fn keep_logs(&mut self, folder: &Path) {
        let mut logs: Vec<(String, String)> =
            self.programs().map(|program| (program.name.clone(), program.log())).collect();
        logs.push(("database".to_owned(), self.database.log()));
        logs.extend((0..self.etcd.count()).map(|index| (format!("etcd-{index}"), self.etcd.log(index))));
        let _ = fs::create_dir_all(folder);
        for (name, log) in logs {
            let _ = fs::write(folder.join(format!("{name}.log")), log);
        }
    }

    fn configure(&mut self, setting: &Setting) {
        if setting.engine == Engine::Sqlite {
            for master in &mut self.masters {
                configure_executor(&mut master.program, "executor.", setting);
                for (key, value) in setting.masters {
                    master.program.set(&format!("master.{key}"), *value);
                }
            }
        } else {
            for master in &mut self.masters {
                for (key, value) in TIMING.iter().chain(setting.masters) {
                    master.program.set(key, *value);
                }
            }
        }
        for executor in &mut self.executors {
            configure_executor(&mut executor.program, "", setting);
        }
        for (name, variable, value) in &setting.variables {
            for program in self.programs().filter(|program| program.name == *name) {
                program.set_variable(variable, value);
            }
        }
    }

    fn programs(&mut self) -> impl Iterator<Item = &mut Program> {
        let masters = self.masters.iter_mut().map(|master| &mut master.program);
        masters.chain(self.executors.iter_mut().map(|executor| &mut executor.program))
    }

    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    // The service manager.

    /// Notes what has ended, and starts what is down and not held.
    pub(crate) fn tend(&mut self) {
        let (now, held) = (clock::now(), self.held.clone());
        let (mut ends, mut down) = (Vec::new(), std::mem::take(&mut self.down_since));
        for program in self.programs() {
            if let Some(status) = program.try_ended() {
                ends.push(Ended { at: now, name: program.name.clone(), status });
                down.insert(program.name.clone(), now);
            }
            let since = down.get(&program.name).copied().unwrap_or(0);
            let is_due = now >= since + clock::micros(RESTART_DELAY);
            if !program.is_running() && is_due && !held.contains(&program.name) {
                program.start();
                down.remove(&program.name);
            }
        }
        self.ends.extend(ends);
        self.down_since = down;
    }

    /// Kills a program; it is started again after a moment unless held.
    pub(crate) fn kill(&mut self, name: &str) {
        let now = clock::now();
        for program in self.programs().filter(|program| program.name == name) {
            program.kill();
        }
        self.down_since.insert(name.to_owned(), now);
    }

    /// Keeps a program from being started again.
    pub(crate) fn hold(&mut self, name: &str) {
        self.held.insert(name.to_owned());
    }

    pub(crate) fn release(&mut self, name: &str) {
        self.held.remove(name);
    }

    pub(crate) fn program(&mut self, name: &str) -> anyhow::Result<&mut Program> {
        self.programs().find(|program| program.name == name).with_context(|| format!("there is no {name}"))
    }

    /// Waits until `look` gives something, at most `bound`, while it stands in for the service manager.
    pub(crate) fn wait<T>(
        &mut self,
        what: &str,
        bound: Duration,
        mut look: impl FnMut(&mut Self) -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        clock::wait_for(what, bound, || {
            self.tend();
            look(self)
        })
    }

    /// Lets time pass while it stands in for the service manager.
    pub(crate) fn pause(&mut self, duration: Duration) -> anyhow::Result<()> {
        let end = clock::now() + clock::micros(duration);
        self.wait("time to pass", duration + Duration::from_secs(60), |_| {
            Ok((clock::now() >= end).then_some(()))
        })
    }

    // What is the case.

    /// Returns who leads, by the row that only a leader can write.
    pub(crate) fn leader(&self) -> Option<Leader> {
        let row = self.database.sql("SELECT term, holder FROM leadership").ok()?;
        let (term, holder) = row.split_once(['|', '\t'])?;
        let index = self.masters.iter().position(|master| master.program.name == holder)?;
        Some(Leader { term: term.parse().ok().filter(|term| *term > 0)?, index })
    }

    /// Waits until somebody leads under a later term than this.
    pub(crate) fn next_leader(&mut self, after: u64, bound: Duration) -> anyhow::Result<Leader> {
        self.wait(&format!("a leader after term {after}"), bound, |cluster| {
            Ok(cluster.leader().filter(|leader| leader.term > after))
        })
    }

    pub(crate) fn expect_leader(&mut self) -> anyhow::Result<Leader> {
        self.wait("a leader", READY_WITHIN, |cluster| Ok(cluster.leader()))
    }

    /// Returns how many executors the leader has a session with.
    fn connected(&self) -> anyhow::Result<usize> {
        let Ok(listed) = self.ctl(&["executor", "list", "-o", "json"]) else { return Ok(0) };
        let listed: serde_json::Value = serde_json::from_str(&listed)?;
        let listed = listed.as_array().or_else(|| listed["executors"].as_array());
        let connected = |executor: &&serde_json::Value| executor["state"] == "connected";
        Ok(listed.map_or(0, |listed| listed.iter().filter(connected).count()))
    }

    /// Runs masterctl on the client's machine, against all masters.
    pub(crate) fn ctl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.ask(arguments)?;
        if !output.status.success() {
            bail!("masterctl {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs masterctl as [`ctl`](Self::ctl) does, whatever comes of it.
    pub(crate) fn ask(&self, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = self.network.command(network::CLIENT);
        let masters: Vec<String> = self.masters.iter().map(Master::url).collect();
        command
            .arg(millrace_servers::built("masterctl"))
            .args(arguments)
            .env("MILLRACE_MASTER", masters.join(","))
            .env("MILLRACE_TOKEN_FILE", self.masters[0].program.home().file("token"))
            .env("NO_COLOR", "1")
            .output()
            .context("cannot start masterctl")
    }

    /// Heals everything: links, frozen processes, what is down.
    pub(crate) fn heal(&mut self) -> anyhow::Result<()> {
        self.network.heal_all()?;
        for host in network::EXECUTORS.into_iter().chain(network::MASTERS).chain(network::ETCD) {
            self.network.signal_all(host, nix::sys::signal::Signal::SIGCONT)?;
        }
        self.database.thaw();
        self.database.resume();
        if self.etcd.count() > 0 {
            self.etcd.resume_all();
        }
        self.held.clear();
        self.tend();
        Ok(())
    }
}

/// What a cluster is made of.
struct Parts {
    etcd: Etcd,
    database: Database,
    masters: Vec<Master>,
    executors: Vec<Executor>,
}

/// Prepares masters and executors over a database that runs, and starts etcd.
fn several(network: &Network, folder: &Path, database: Database) -> Parts {
    let place = |host: Host| place(network, folder, host);
    let mut etcd = Etcd::prepare(&network::ETCD.map(place), etcd::Settings::default());
    etcd.resume_all();
    let url = database.url();
    let masters = network::MASTERS.map(|host| Master::with_etcd(host.name, &place(host), &url, &etcd));
    let urls: Vec<String> = masters.iter().map(Master::url).collect();
    let executors = network::EXECUTORS.map(|host| Executor::prepare(host.name, &place(host), &urls));
    Parts { etcd, database, masters: masters.into(), executors: executors.into() }
}

/// Prepares one process that is all of it, on the machine of the first master; what it keeps is in a folder of its own.
fn alone(network: &Network, folder: &Path) -> Parts {
    let ([host, ..], data) = (network::MASTERS, folder.join(ALONE));
    let master = Master::alone(host.name, &place(network, folder, host), &data);
    let database = Database::Sqlite(data.join("millrace.db"));
    let etcd = Etcd::prepare(&[], etcd::Settings::default());
    Parts { etcd, database, masters: vec![master], executors: Vec::new() }
}

/// Sets what executors of the rig have in common, where the names of their settings begin with `prefix`.
fn configure_executor(program: &mut Program, prefix: &str, setting: &Setting) {
    let common = [("heartbeat_interval", "1s"), ("answer_timeout", "3s"), ("min_free", "1MiB")];
    program.set(&format!("{prefix}slots"), i64::from(setting.slots));
    for (key, value) in common.iter().chain(setting.executors) {
        program.set(&format!("{prefix}{key}"), *value);
    }
}

/// Returns a machine as a place for servers.
fn place(network: &Network, folder: &Path, host: Host) -> Place {
    let net = format!("--net={}", network.file(host).display());
    let address: IpAddr = host.ip();
    Place::behind(&["nsenter", &net, "--"], address).below(folder.join(host.name))
}

/// A small disk of a machine's own.
#[derive(Debug)]
struct Disk(PathBuf);

impl Disk {
    fn mount(folder: &Path, size: &str) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let mut mount = std::process::Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size},mode=755"), "mrig"]).arg(folder);
        ensure!(mount.status().context("cannot start mount")?.success(), "cannot mount {}", folder.display());
        Ok(Self(folder.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a process that is on its way out may still have it.
        let _ = std::process::Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

//! The machines of the cluster: network namespaces of the rig's own, on one bridge that has a namespace too.
//!
//! Nothing is added to the machine's own network. The names hold this process's id, so that two rigs do not meet, and a
//! rig that was killed can be cleaned up after by the next one. Dropping a [`Network`] ends everything that runs in it.

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::clock;

/// Beginning of the names of all namespaces of rigs; the id of the process follows.
const PREFIX: &str = "mrig";
/// The namespace of the bridge.
const HUB: &str = "hub";
/// How long processes of a namespace may take to go after KILL.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// A machine of the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Host {
    /// Its name, and the end of the name of its namespace.
    pub(crate) name: &'static str,
    /// The last part of its address.
    last: u8,
}

impl Host {
    pub(crate) fn address(self) -> String {
        self.ip().to_string()
    }

    pub(crate) fn ip(self) -> IpAddr {
        Ipv4Addr::new(10, 77, 0, self.last).into()
    }
}

pub(crate) const ETCD: [Host; 3] =
    [Host { name: "e1", last: 11 }, Host { name: "e2", last: 12 }, Host { name: "e3", last: 13 }];
pub(crate) const DATABASE: Host = Host { name: "db", last: 21 };
pub(crate) const MASTERS: [Host; 3] =
    [Host { name: "m1", last: 31 }, Host { name: "m2", last: 32 }, Host { name: "m3", last: 33 }];
pub(crate) const EXECUTORS: [Host; 3] =
    [Host { name: "x1", last: 41 }, Host { name: "x2", last: 42 }, Host { name: "x3", last: 43 }];
pub(crate) const CLIENT: Host = Host { name: "cl", last: 51 };

fn hosts() -> impl Iterator<Item = Host> {
    ETCD.into_iter().chain([DATABASE]).chain(MASTERS).chain(EXECUTORS).chain([CLIENT])
}

/// The namespaces, while this lives.
#[derive(Debug)]
pub(crate) struct Network {
    prefix: String,
}

impl Network {
    /// Makes the namespaces, after removing those of rigs that are gone.
    pub(crate) fn make() -> anyhow::Result<Self> {
        remove_leftovers()?;
        let network = Self { prefix: format!("{PREFIX}{}-", std::process::id()) };
        let hub = network.namespace_of(HUB);
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "add", "br0", "type", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "br0", "up"])?;
        for host in hosts() {
            network.attach(host, &hub)?;
        }
        Ok(network)
    }

    fn attach(&self, host: Host, hub: &str) -> anyhow::Result<()> {
        let own = self.namespace(host);
        ip(&["netns", "add", &own])?;
        ip(&["-n", &own, "link", "set", "lo", "up"])?;
        ip(&["-n", hub, "link", "add", host.name, "type", "veth", "peer", "name", "eth0", "netns", &own])?;
        ip(&["-n", hub, "link", "set", host.name, "master", "br0", "up"])?;
        ip(&["-n", &own, "addr", "add", &format!("{}/24", host.address()), "dev", "eth0"])?;
        ip(&["-n", &own, "link", "set", "eth0", "up"])
    }

    fn namespace_of(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(crate) fn namespace(&self, host: Host) -> String {
        self.namespace_of(host.name)
    }

    /// Returns the file that stands for the network of a machine.
    pub(crate) fn file(&self, host: Host) -> PathBuf {
        PathBuf::from("/run/netns").join(self.namespace(host))
    }

    /// Begins a command on a machine. It ends with the rig, whatever becomes of that.
    pub(crate) fn command(&self, host: Host) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.file(host).display())).args([
            "setpriv",
            "--pdeathsig",
            "KILL",
            "--",
        ]);
        command
    }

    /// Returns the processes of a machine.
    pub(crate) fn processes(&self, host: Host) -> anyhow::Result<Vec<Pid>> {
        pids_in(&self.namespace(host))
    }

    /// Sends a signal to every process of a machine.
    pub(crate) fn signal_all(&self, host: Host, signal: Signal) -> anyhow::Result<()> {
        for pid in self.processes(host)? {
            // It may have ended since.
            let _ = kill(pid, signal);
        }
        Ok(())
    }

    /// Ends every process of a machine, and sees that they are gone.
    pub(crate) fn end_all(&self, host: Host) -> anyhow::Result<()> {
        end_all_in(&self.namespace(host))
    }

    /// Ends every process of every machine and heals all links.
    pub(crate) fn clear(&self) -> anyhow::Result<()> {
        for host in hosts() {
            self.heal(host)?;
            self.end_all(host)?;
        }
        Ok(())
    }

    // Harm.

    /// Lets nothing through between two machines.
    pub(crate) fn cut(&self, one: Host, other: Host) -> anyhow::Result<()> {
        self.deafen(one, other)?;
        self.deafen(other, one)
    }

    /// Lets nothing reach `to` that comes from `from`.
    pub(crate) fn deafen(&self, to: Host, from: Host) -> anyhow::Result<()> {
        self.rule(to, "input", &format!("ip saddr {} drop", from.address()))
    }

    /// Answers what comes from `from` to `to` with resets, and lets nothing else through.
    pub(crate) fn reset(&self, to: Host, from: Host) -> anyhow::Result<()> {
        self.rule(to, "input", &format!("ip saddr {} meta l4proto tcp reject with tcp reset", from.address()))
    }

    /// Loses so many of a hundred packets that reach or leave a machine.
    pub(crate) fn lose(&self, host: Host, percent: u8) -> anyhow::Result<()> {
        let drop = format!("numgen random mod 100 < {percent} drop");
        self.rule(host, "input", &drop)?;
        self.rule(host, "output", &drop)
    }

    /// Lets a machine send no more than so many bytes a second.
    pub(crate) fn throttle(&self, host: Host, bytes: u32) -> anyhow::Result<()> {
        let (own, rate) = (self.namespace(host), format!("{}bit", u64::from(bytes) * 8));
        run(
            "tc",
            &[
                "-n", &own, "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", &rate, "burst", "32kb",
                "latency", "400ms",
            ],
        )
    }

    /// Cuts a machine off from all others.
    pub(crate) fn isolate(&self, host: Host) -> anyhow::Result<()> {
        self.rule(host, "input", "iifname eth0 drop")?;
        self.rule(host, "output", "oifname eth0 drop")
    }

    /// Gives what comes to a port of a machine to another port of it; connections that are there already stay.
    pub(crate) fn divert(&self, host: Host, port: u16, to: u16) -> anyhow::Result<()> {
        let text = format!(
            "add table ip rig_divert\nadd chain ip rig_divert prerouting {{ type nat hook prerouting priority -100; }}\nadd rule ip rig_divert prerouting iifname eth0 tcp dport {port} redirect to :{to}\n"
        );
        nft(&self.namespace(host), &text)
    }

    fn rule(&self, host: Host, chain: &str, rule: &str) -> anyhow::Result<()> {
        let text = format!(
            "add table inet rig\nadd chain inet rig {chain} {{ type filter hook {chain} priority 0; }}\nadd rule inet rig {chain} {rule}\n"
        );
        nft(&self.namespace(host), &text)
    }

    /// Takes back all that was done to the links of a machine.
    pub(crate) fn heal(&self, host: Host) -> anyhow::Result<()> {
        let own = self.namespace(host);
        if is_on_path("nft") {
            nft(&own, "flush ruleset\n")?;
        }
        // There is none to remove as a rule.
        let _ = quiet("tc", &["-n", &own, "qdisc", "del", "dev", "eth0", "root"]).status();
        Ok(())
    }

    /// Takes back all that was done to all links.
    pub(crate) fn heal_all(&self) -> anyhow::Result<()> {
        hosts().try_for_each(|host| self.heal(host))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for name in namespaces().unwrap_or_default() {
            if name.starts_with(&self.prefix) {
                // The next rig tries again.
                let _ = remove(&name);
            }
        }
    }
}

/// Returns the folder of the rig whose process has this id.
pub(crate) fn folder_of(id: u32) -> PathBuf {
    std::env::temp_dir().join(format!("{PREFIX}{id}"))
}

/// Tells whether a rig with this process id is at work.
fn is_at_work(id: &str) -> bool {
    fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|comm| comm.trim() == "millrace-rig")
}

/// Removes the folders of rigs whose process is gone, and what is mounted in them.
fn remove_left_folders() {
    for entry in fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        if id.parse::<u32>().is_err() || is_at_work(id) {
            continue;
        }
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        for point in points.filter(|point| PathBuf::from(point).starts_with(entry.path())) {
            let _ = quiet("umount", &["--lazy", point]).status();
        }
        // What cannot be removed now is tried again by the next rig.
        let _ = fs::remove_dir_all(entry.path());
    }
}

/// Removes the namespaces of rigs whose process is gone.
fn remove_leftovers() -> anyhow::Result<()> {
    for name in namespaces()? {
        let Some((id, _)) = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('-')) else { continue };
        if id.parse::<u32>().is_ok() && !is_at_work(id) {
            remove(&name)?;
        }
    }
    remove_left_folders();
    Ok(())
}

fn remove(namespace: &str) -> anyhow::Result<()> {
    end_all_in(namespace)?;
    ip(&["netns", "del", namespace])
}

fn namespaces() -> anyhow::Result<BTreeSet<String>> {
    let output = Command::new("ip").args(["netns", "list"]).output().context("cannot start ip")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| line.split_whitespace().next()).map(ToOwned::to_owned).collect())
}

fn pids_in(namespace: &str) -> anyhow::Result<Vec<Pid>> {
    let output = Command::new("ip").args(["netns", "pids", namespace]).output().context("cannot start ip")?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(text.lines().filter_map(|line| line.trim().parse().ok()).map(Pid::from_raw).collect())
}

fn end_all_in(namespace: &str) -> anyhow::Result<()> {
    let end = clock::now() + clock::micros(GONE_WITHIN);
    loop {
        let pids = pids_in(namespace)?;
        if pids.is_empty() {
            return Ok(());
        }
        ensure!(clock::now() < end, "processes {pids:?} of {namespace} do not end after KILL");
        for pid in pids {
            let _ = kill(pid, Signal::SIGKILL);
        }
        thread::sleep(clock::LOOK);
    }
}

fn nft(namespace: &str, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut command = Command::new("nsenter");
    command.arg(format!("--net=/run/netns/{namespace}")).args(["nft", "-f", "-"]);
    let mut child =
        command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().context("cannot start nft")?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(text.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "nft refuses {text:?}: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    run("ip", arguments)
}

fn run(program: &str, arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("cannot start {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} {} failed: {}", arguments.join(" "), said.trim());
    }
    Ok(())
}

fn quiet(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Returns whether a program of this name can be found.
pub(crate) fn is_on_path(program: &str) -> bool {
    ["/usr/sbin", "/sbin", "/usr/bin", "/bin", "/usr/local/bin"]
        .iter()
        .any(|folder| PathBuf::from(folder).join(program).is_file())
}

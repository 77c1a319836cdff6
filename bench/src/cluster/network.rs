//! Network namespaces for masters, on a bridge of this benchmark's own; all of it is removed when dropped.
//!
//! A master is cut off by taking its end of the cable off the bridge: what it sends and what is sent to it is lost, and
//! nobody is told. Names carry the id of this process, so that two benchmarks do not meet.

use std::{
    net::{IpAddr, Ipv4Addr},
    process::{self, Command},
};

use anyhow::{Context, ensure};
use millrace_servers::Place;

/// A bridge with this machine as its first address, and a namespace for each master.
#[derive(Debug)]
pub(super) struct Network {
    count: usize,
}

impl Drop for Network {
    fn drop(&mut self) {
        // Whatever of it was made; an end of a cable goes with its namespace.
        for index in 0..self.count {
            let _ = ip(&["netns", "del", &name(index)]);
        }
        let _ = ip(&["link", "del", &bridge()]);
    }
}

impl Network {
    /// Makes one for so many masters.
    pub(super) fn make(count: usize) -> anyhow::Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "network namespaces need root: without them nobody is cut off without being told"
        );
        let network = Self { count };
        ip(&["link", "add", &bridge(), "type", "bridge"])?;
        ip(&["addr", "add", &format!("{}/24", address(0)), "dev", &bridge()])?;
        ip(&["link", "set", &bridge(), "up"])?;
        (0..count).try_for_each(attach)?;
        Ok(network)
    }

    /// Returns the place of everything that is not a master: this machine's own network.
    pub(super) fn hub(&self) -> Place {
        Place::behind(&[], address(0))
    }

    /// Returns the places of the masters.
    pub(super) fn places(&self) -> Vec<Place> {
        let place = |index| Place::behind(&["ip", "netns", "exec", &name(index)], address(index + 1));
        (0..self.count).map(place).collect()
    }

    /// Takes a master off the bridge.
    pub(super) fn cut(&self, index: usize) -> anyhow::Result<()> {
        ip(&["link", "set", &cable(index), "nomaster"])
    }

    /// Puts it back.
    pub(super) fn mend(&self, index: usize) -> anyhow::Result<()> {
        ip(&["link", "set", &cable(index), "master", &bridge()])
    }
}

fn attach(index: usize) -> anyhow::Result<()> {
    let (own, cable) = (name(index), cable(index));
    ip(&["netns", "add", &own])?;
    ip(&["-n", &own, "link", "set", "lo", "up"])?;
    ip(&["link", "add", &cable, "type", "veth", "peer", "name", "eth0", "netns", &own])?;
    ip(&["link", "set", &cable, "master", &bridge(), "up"])?;
    ip(&["-n", &own, "addr", "add", &format!("{}/24", address(index + 1)), "dev", "eth0"])?;
    ip(&["-n", &own, "link", "set", "eth0", "up"])
}

/// Returns an address of a network that this process alone uses, as far as a byte can tell processes apart.
fn address(index: usize) -> IpAddr {
    let own = u8::try_from(process::id() % 250).unwrap_or(0) + 1;
    Ipv4Addr::new(10, 94, own, u8::try_from(index + 1).unwrap_or(u8::MAX)).into()
}

// Names of network devices have 15 characters at most.

fn bridge() -> String {
    format!("mb{}", process::id())
}

fn cable(index: usize) -> String {
    format!("mb{}v{index}", process::id())
}

fn name(index: usize) -> String {
    format!("millrace-bench-{}-{index}", process::id())
}

fn ip(arguments: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(arguments).output().context("cannot start ip, of iproute2")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {} failed: {}", arguments.join(" "), said.trim());
    Ok(())
}

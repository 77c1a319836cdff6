//! Where a server runs: behind which command, on which address, below which folder.

use std::{
    ffi::OsStr,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    process::Command,
};

use crate::port::Port;

/// Where a server runs. [`Place::here`] is this machine's loopback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    prefix: Vec<String>,
    address: IpAddr,
    parent: Option<PathBuf>,
}

impl Default for Place {
    fn default() -> Self {
        Self::here()
    }
}

impl Place {
    /// Returns the loopback of this machine, with folders among its temporary ones.
    #[must_use]
    pub const fn here() -> Self {
        Self { prefix: Vec::new(), address: IpAddr::V4(Ipv4Addr::LOCALHOST), parent: None }
    }

    /// Returns a place that is reached by a command in front, such as `["ip", "netns", "exec", "m1"]`, and where servers
    /// listen on `address`. The command must become what it is given (exec), not stay beside it.
    #[must_use]
    pub fn behind(prefix: &[&str], address: IpAddr) -> Self {
        let prefix = prefix.iter().map(|word| (*word).to_owned()).collect();
        Self { prefix, address, parent: None }
    }

    /// Puts the folders of servers below `parent`, which stays.
    #[must_use]
    pub fn below(self, parent: impl Into<PathBuf>) -> Self {
        Self { parent: Some(parent.into()), ..self }
    }

    /// Returns the address that servers listen on.
    #[must_use]
    pub const fn address(&self) -> IpAddr {
        self.address
    }

    /// Returns where servers' folders are made, where that is not among the temporary ones.
    pub(crate) fn parent(&self) -> Option<&PathBuf> {
        self.parent.as_ref()
    }

    /// Begins a command that runs here.
    #[must_use]
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let Some((first, more)) = self.prefix.split_first() else { return Command::new(program) };
        let mut command = Command::new(first);
        command.args(more).arg(program);
        command
    }

    /// Returns a port of this place's address.
    pub(crate) const fn socket(&self, port: &Port) -> SocketAddr {
        SocketAddr::new(self.address, port.number())
    }
}

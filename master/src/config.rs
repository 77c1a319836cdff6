//! What an operator sets for a master.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::PathBuf,
};

use millrace_common::id::PoolName;
use serde::Deserialize;

/// Port of a master where none is set.
pub const PORT: u16 = 7070;

/// Static settings of a master; unknown keys are refused when they are read.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MasterConfig {
    /// Name of this master in logs and in the leadership row.
    pub name: String,
    /// Where it listens. Loopback unless set: whoever listens elsewhere decides to.
    pub listen: SocketAddr,
    /// File with the bearer token that every caller must present; made at the first start where absent.
    pub token_file: PathBuf,
    /// Folder of the embedded database and of the output of attempts.
    pub data_dir: PathBuf,
    /// Capacity of each pool.
    pub pools: BTreeMap<PoolName, u32>,
    /// Unfinished runs of one workflow.
    pub runs_per_workflow_max: usize,
}

impl Default for MasterConfig {
    fn default() -> Self {
        let data_dir = PathBuf::from("/var/lib/millrace");
        Self {
            name: "master-1".to_owned(),
            listen: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORT)),
            token_file: data_dir.join("token"),
            data_dir,
            pools: BTreeMap::new(),
            runs_per_workflow_max: 1_000,
        }
    }
}

impl MasterConfig {
    /// Returns the default settings with everything below one folder.
    #[must_use]
    pub fn in_folder(data_dir: PathBuf) -> Self {
        Self { token_file: data_dir.join("token"), data_dir, ..Self::default() }
    }
}

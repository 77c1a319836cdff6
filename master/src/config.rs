//! What an operator sets for a master.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::{Path, PathBuf},
    time::Duration,
};

use millrace_common::{
    id::PoolName, limits::NAME_CHARS_MAX, schedule::FIRES_MAX, secret::Secret, text::ShowDuration,
};
use millrace_runtime::config::duration_text;
use millrace_store::{AddressError, Retention, StoreConfig};
use serde::Deserialize;
use thiserror::Error;
use tonic::transport::Uri;

use crate::election::settings::{EtcdSettings, EtcdSettingsError};

/// Port of a master where none is set.
pub const PORT: u16 = 7070;
/// Where everything is kept unless set.
const DATA_DIR: &str = "/var/lib/millrace";
/// Name of the token file in the data folder.
const TOKEN_FILE: &str = "token";
/// Name of the embedded database in the data folder.
const DATABASE_FILE: &str = "millrace.db";
/// Ended runs are kept this long unless set: a month of nights.
const RETENTION: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// The shortest time that ended runs can be kept: a run that vanishes while somebody looks at it helps nobody.
const RETENTION_MIN: Duration = Duration::from_secs(60 * 60);
/// Ended runs of one workflow that are kept unless set: a week of one a minute.
const RETENTION_RUNS: u32 = 10_000;
/// Connections at once unless set: two for each of 2,000 executors. Each is a file descriptor.
const CONNECTIONS_MAX: usize = 4_096;

/// Static settings of a master; unknown keys are refused when they are read.
#[derive(Debug, Clone, Deserialize)]
#[serde(from = "Given")]
pub struct MasterConfig {
    /// Name of this master in logs and in the leadership row.
    pub name: String,
    /// Where it listens. Loopback unless set: whoever listens elsewhere decides to.
    pub listen: SocketAddr,
    /// Where other masters and executors reach it, such as `http://10.0.0.1:7070`. Where it listens, unless set.
    pub advertise: Option<String>,
    /// Address of the database, such as `postgres://user:password@host/database`. A file in the data folder unless set.
    pub database: Option<Secret>,
    /// How masters find each other; absent where this one is alone.
    pub etcd: Option<EtcdSettings>,
    /// File with the bearer token that every caller must present; made at the first start where absent. In the data
    /// folder unless set.
    pub token_file: PathBuf,
    /// Folder of the embedded database and of the output of attempts.
    pub data_dir: PathBuf,
    /// Capacity of each pool.
    pub pools: BTreeMap<PoolName, u32>,
    /// Unfinished runs of one workflow.
    pub runs_per_workflow_max: usize,
    /// How long ended runs and their output are kept.
    pub retention: Duration,
    /// How many ended runs of each workflow are kept, the newest; older ones go earlier than `retention` says.
    pub retention_runs: u32,
    /// Connections at once; further ones wait to be accepted.
    pub connections_max: usize,
}

/// The settings as they are written; what follows from others is absent.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Given {
    name: String,
    listen: SocketAddr,
    advertise: Option<String>,
    database: Option<Secret>,
    etcd: Option<EtcdSettings>,
    token_file: Option<PathBuf>,
    data_dir: PathBuf,
    pools: BTreeMap<PoolName, u32>,
    runs_per_workflow_max: usize,
    #[serde(with = "duration_text")]
    retention: Duration,
    retention_runs: u32,
    connections_max: usize,
}

impl Default for Given {
    fn default() -> Self {
        Self {
            name: "master-1".to_owned(),
            listen: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORT)),
            advertise: None,
            database: None,
            etcd: None,
            token_file: None,
            data_dir: PathBuf::from(DATA_DIR),
            pools: BTreeMap::new(),
            runs_per_workflow_max: 1_000,
            retention: RETENTION,
            retention_runs: RETENTION_RUNS,
            connections_max: CONNECTIONS_MAX,
        }
    }
}

impl From<Given> for MasterConfig {
    fn from(given: Given) -> Self {
        Self {
            name: given.name,
            listen: given.listen,
            advertise: given.advertise,
            database: given.database,
            etcd: given.etcd,
            token_file: given.token_file.unwrap_or_else(|| given.data_dir.join(TOKEN_FILE)),
            data_dir: given.data_dir,
            pools: given.pools,
            runs_per_workflow_max: given.runs_per_workflow_max,
            retention: given.retention,
            retention_runs: given.retention_runs,
            connections_max: given.connections_max,
        }
    }
}

impl Default for MasterConfig {
    fn default() -> Self {
        Given::default().into()
    }
}

/// A setting that a master cannot run with.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// The name cannot stand in a log line or a row.
    #[error("`name` is {0:?}; it must have 1 to {NAME_CHARS_MAX} visible characters")]
    Name(String),
    /// The folder depends on where the program was started.
    #[error("`{key}` is {}; it must be an absolute path", path.display())]
    Relative {
        /// The key.
        key: &'static str,
        /// Its value.
        path: PathBuf,
    },
    /// A schedule would not fit.
    #[error(
        "`runs_per_workflow_max` is {0}; it must be more than {FIRES_MAX}, which a schedule may start at once"
    )]
    RunsPerWorkflow(usize),
    /// Runs would vanish while they are looked at.
    #[error("`retention` is {}; it must be at least {}", ShowDuration(*.0), ShowDuration(RETENTION_MIN))]
    Retention(Duration),
    /// Nothing would be kept.
    #[error("`retention_runs` is 0; it must be at least 1")]
    RetentionRuns,
    /// Nobody could connect.
    #[error("`connections_max` is 0; it must be at least 1")]
    Connections,
    /// Nobody could use the address.
    #[error("`advertise` is {0:?}; write it as http://host:port")]
    Advertise(String),
    /// Other machines could not use the address.
    #[error(
        "`listen` is {0} and `etcd` is set; set `advertise` to the address at which other machines reach this one"
    )]
    NotAdvertised(SocketAddr),
    /// No address of a database.
    #[error("`database`: {0}")]
    Database(AddressError),
    /// Each master would have a database of its own.
    #[error(
        "`etcd` is set and `database` is a file, which masters cannot share; set `database` to a server, such as \
         postgres://user:password@host/database"
    )]
    NotShared,
    /// Something about etcd.
    #[error(transparent)]
    Etcd(EtcdSettingsError),
}

impl MasterConfig {
    /// Returns the default settings with everything below one folder.
    #[must_use]
    pub fn in_folder(data_dir: PathBuf) -> Self {
        Given { data_dir, ..Given::default() }.into()
    }

    /// Returns everything that is wrong with the settings.
    #[must_use]
    pub fn problems(&self) -> Vec<SettingsError> {
        let mut problems = Vec::new();
        let is_visible = |c: char| !c.is_control() && !c.is_whitespace();
        if !(1..=NAME_CHARS_MAX).contains(&self.name.chars().count()) || !self.name.chars().all(is_visible) {
            problems.push(SettingsError::Name(self.name.clone()));
        }
        for (key, path) in [("data_dir", &self.data_dir), ("token_file", &self.token_file)] {
            if !Path::is_absolute(path) {
                problems.push(SettingsError::Relative { key, path: path.clone() });
            }
        }
        if self.runs_per_workflow_max <= FIRES_MAX {
            problems.push(SettingsError::RunsPerWorkflow(self.runs_per_workflow_max));
        }
        if self.retention < RETENTION_MIN {
            problems.push(SettingsError::Retention(self.retention));
        }
        if self.retention_runs == 0 {
            problems.push(SettingsError::RetentionRuns);
        }
        if self.connections_max == 0 {
            problems.push(SettingsError::Connections);
        }
        problems.extend(self.place_problems());
        problems
    }

    /// Returns what is wrong with where the others are.
    fn place_problems(&self) -> Vec<SettingsError> {
        let mut problems = Vec::new();
        if let Some(advertise) = &self.advertise
            && !is_address(advertise)
        {
            problems.push(SettingsError::Advertise(advertise.clone()));
        }
        if let Err(error) = self.store() {
            problems.push(SettingsError::Database(error));
        }
        let Some(etcd) = &self.etcd else { return problems };
        if self.advertise.is_none() && self.listen.ip().is_unspecified() {
            problems.push(SettingsError::NotAdvertised(self.listen));
        }
        if self.database.as_ref().is_none_or(|address| address.expose().starts_with("sqlite:")) {
            problems.push(SettingsError::NotShared);
        }
        problems.extend(etcd.problems().into_iter().map(SettingsError::Etcd));
        problems
    }

    /// Returns where the store is.
    pub(crate) fn store(&self) -> Result<StoreConfig, AddressError> {
        match &self.database {
            Some(address) => address.expose().parse(),
            None => Ok(StoreConfig::sqlite(&self.data_dir.join(DATABASE_FILE))),
        }
    }

    /// Returns what to keep of what has ended.
    pub(crate) const fn keeps(&self) -> Retention {
        Retention { keep_for: Some(self.retention), keep_runs: Some(self.retention_runs) }
    }
}

fn is_address(text: &str) -> bool {
    let uri = text.parse::<Uri>().ok();
    uri.is_some_and(|uri| uri.scheme_str() == Some("http") && uri.port().is_some() && uri.path() == "/")
}

#[cfg(test)]
mod tests {
    use millrace_runtime::config;

    use super::*;

    fn loaded(toml: &str) -> Result<MasterConfig, config::ConfigError> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("master.toml");
        std::fs::write(&file, toml).unwrap();
        config::load(Some(&file), "MILLRACE_NOT_SET_", &[])
    }

    #[test]
    fn the_defaults_have_no_problem() {
        assert_eq!(MasterConfig::default().problems(), []);
        assert_eq!(MasterConfig::in_folder("/srv/m".into()).token_file, Path::new("/srv/m/token"));
    }

    #[test]
    fn the_token_is_in_the_data_folder_unless_set() {
        let config = loaded("data_dir = \"/srv/m\"\nretention = \"30d\"\n").unwrap();
        assert_eq!(config.token_file, Path::new("/srv/m/token"));
        assert_eq!(config.retention, Duration::from_secs(30 * 86_400));
        let config = loaded("data_dir = \"/srv/m\"\ntoken_file = \"/etc/millrace/token\"\n").unwrap();
        assert_eq!(config.token_file, Path::new("/etc/millrace/token"));
    }

    #[test]
    fn unknown_keys_and_wrong_values_are_refused_by_name() {
        for (toml, key) in
            [("retenton = \"3d\"", "retenton"), ("retention = \"3\"", "retention"), ("pools = 3", "pools")]
        {
            let problem = loaded(toml).unwrap_err().to_string();
            assert!(problem.contains(key), "{problem}");
        }
    }

    #[test]
    fn all_problems_are_told_at_once() {
        let config = MasterConfig {
            name: "a\nb".to_owned(),
            data_dir: "data".into(),
            token_file: "token".into(),
            runs_per_workflow_max: FIRES_MAX,
            retention: Duration::from_secs(1),
            retention_runs: 0,
            connections_max: 0,
            ..MasterConfig::default()
        };
        let problems: Vec<String> = config.problems().iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), 7, "{problems:#?}");
        assert!(problems[4].contains("`retention` is 1s; it must be at least 1h"), "{}", problems[4]);
    }

    #[test]
    fn masters_that_elect_a_leader_need_a_database_that_they_share() {
        let told = |toml: &str| -> Vec<String> {
            loaded(toml).unwrap().problems().iter().map(ToString::to_string).collect()
        };
        let etcd = "[etcd]\nendpoints = [\"http://10.0.0.1:2379\"]\n";
        let server = "database = \"postgres://m:secret@db.plant/millrace\"\n";
        assert_eq!(told(&format!("{server}{etcd}")), Vec::<String>::new());
        for database in ["", "database = \"sqlite:///srv/m.db\"\n"] {
            let problems = told(&format!("{database}{etcd}"));
            assert!(
                problems.len() == 1 && problems[0].contains("which masters cannot share"),
                "{problems:?}"
            );
        }
        let problems = told(&format!("{server}listen = \"0.0.0.0:7070\"\n{etcd}"));
        assert!(problems.len() == 1 && problems[0].contains("set `advertise`"), "{problems:?}");
        let problems = told(&format!("{server}advertise = \"10.0.0.1:7070\"\n{etcd}ttl = \"5s\"\n"));
        assert!(problems.len() == 2 && problems[1].contains("`etcd.authority` is 6s"), "{problems:?}");
    }

    #[test]
    fn the_password_of_the_database_is_not_shown() {
        let config = loaded("database = \"postgres://m:secret@db.plant/millrace\"\n").unwrap();
        assert!(!format!("{config:?}").contains("secret"));
        let wrong = loaded("database = \"oracle://m:secret@db.plant/millrace\"\n").unwrap().problems();
        assert!(wrong.len() == 1 && !wrong[0].to_string().contains("secret"), "{wrong:?}");
    }
}

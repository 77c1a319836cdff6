//! What an operator sets for a master.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::{Path, PathBuf},
    time::Duration,
};

use millrace_common::{id::PoolName, limits::NAME_CHARS_MAX, schedule::FIRES_MAX, text::ShowDuration};
use millrace_runtime::config::duration_text;
use millrace_store::Retention;
use serde::Deserialize;
use thiserror::Error;

/// Port of a master where none is set.
pub const PORT: u16 = 7070;
/// Where everything is kept unless set.
const DATA_DIR: &str = "/var/lib/millrace";
/// Name of the token file in the data folder.
const TOKEN_FILE: &str = "token";
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
        problems
    }

    /// Returns what to keep of what has ended.
    pub(crate) const fn keeps(&self) -> Retention {
        Retention { keep_for: Some(self.retention), keep_runs: Some(self.retention_runs) }
    }
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
}

//! What an operator sets for an executor.

use std::{collections::BTreeMap, num::NonZero, path::PathBuf, thread, time::Duration};

use millrace_common::{
    connection::Connections,
    id::{ExecutorName, KindName},
    text::ShowDuration,
};
use millrace_kinds::{datax::Installation, declared::Declaration};
use millrace_runtime::{
    config::{duration_text, size_text},
    telemetry::Format,
};
use serde::Deserialize;
use thiserror::Error;

use crate::ledger::OnStop;

/// The shortest time that a task may let its attempts run without contact to a leader.
pub const ORPHAN_TIMEOUT_MIN: Duration = Duration::from_secs(15);
/// Attempts at once for each core: the short ones hide the wait for the disk, the long ones mostly wait for a server.
const SLOTS_PER_CORE: u32 = 4;
/// Attempts at once on the smallest machine.
const SLOTS_MIN: u32 = 8;
/// More processes than this are more than a machine's process table should be asked for.
const SLOTS_MAX: u32 = 4_096;

/// Static settings of an executor; unknown keys are refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecutorConfig {
    /// Its name, unique in the cluster.
    pub name: ExecutorName,
    /// Addresses of the masters, such as `http://127.0.0.1:7070`.
    pub masters: Vec<String>,
    /// File with the bearer token; readable by this program's account alone.
    pub token_file: PathBuf,
    /// Folder for the spool, the output and the work of attempts.
    pub data_dir: PathBuf,
    /// Attempts that live at once; four for each core and at least eight where absent.
    #[serde(default = "slots")]
    pub slots: u32,
    /// What tasks may ask for, such as `site = "plant-1"`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// How often the leader is told everything that is held.
    #[serde(default = "heartbeat_interval", with = "duration_text")]
    pub heartbeat_interval: Duration,
    /// How long its answer may take to count; longer, and the session ends.
    #[serde(default = "answer_timeout", with = "duration_text")]
    pub answer_timeout: Duration,
    /// How long attempts and the last reports may take when the program is stopped.
    #[serde(default = "stop_timeout", with = "duration_text")]
    pub stop_timeout: Duration,
    /// Time between TERM and KILL when the program is stopped, at most.
    #[serde(default = "stop_grace", with = "duration_text")]
    pub stop_grace: Duration,
    /// What becomes of running attempts when the program is stopped: `keep` lets them go on under their supervisor, for the
    /// next start to take over, `end` ends them. Where absent `millrace-executor` keeps them and `millrace` ends them.
    #[serde(default)]
    pub on_stop: Option<OnStop>,
    /// Space that must be free in the data folder for an attempt to start.
    #[serde(default = "min_free", with = "size_text")]
    pub min_free: u64,
    /// Bytes of the history of what was done, which `masterctl verify` reads.
    #[serde(default = "history_size", with = "size_text")]
    pub history_size: u64,
    /// How long that history is kept at most.
    #[serde(default = "history_keep", with = "duration_text")]
    pub history_keep: Duration,
    /// Form of the log lines.
    #[serde(default)]
    pub log_format: Format,
    /// Credentials and addresses that definitions refer to by name.
    #[serde(default)]
    pub connections: Connections,
    /// An installed DataX, where transfers should go through it.
    #[serde(default)]
    pub datax: Option<Installation>,
    /// Where backups go that name no target, and the dump program.
    #[serde(default)]
    pub backup: millrace_kinds::backup::Settings,
    /// Kinds of task that this executor offers beside the built-in ones.
    #[serde(default)]
    pub kinds: BTreeMap<KindName, Declaration>,
}

fn slots() -> u32 {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    u32::try_from(cores).unwrap_or(SLOTS_MAX).saturating_mul(SLOTS_PER_CORE).clamp(SLOTS_MIN, SLOTS_MAX)
}

const fn heartbeat_interval() -> Duration {
    Duration::from_secs(3)
}

const fn answer_timeout() -> Duration {
    Duration::from_secs(5)
}

const fn stop_timeout() -> Duration {
    Duration::from_secs(60)
}

const fn stop_grace() -> Duration {
    Duration::from_secs(10)
}

const fn min_free() -> u64 {
    256 << 20
}

/// A hundred thousand attempts and more.
const fn history_size() -> u64 {
    64 << 20
}

const fn history_keep() -> Duration {
    Duration::from_secs(30 * 24 * 60 * 60)
}

/// What is wrong with the settings.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SettingsError {
    /// There is nobody to ask for work.
    #[error("`masters` is empty; give at least one address such as \"http://127.0.0.1:7070\"")]
    NoMasters,
    /// An address is none.
    #[error("`masters` holds {0:?}, which is not an address such as \"http://127.0.0.1:7070\"")]
    Master(String),
    /// The number of slots is out of bounds.
    #[error("`slots` is {0}; it must be from 1 to {SLOTS_MAX}")]
    Slots(u32),
    /// Two settings do not fit each other.
    #[error("{0}")]
    Inequality(String),
}

impl ExecutorConfig {
    /// Returns default settings, for programs that bring their own executor.
    #[must_use]
    pub fn new(name: ExecutorName, masters: Vec<String>, token_file: PathBuf, data_dir: PathBuf) -> Self {
        Self {
            name,
            masters,
            token_file,
            data_dir,
            slots: slots(),
            labels: BTreeMap::new(),
            heartbeat_interval: heartbeat_interval(),
            answer_timeout: answer_timeout(),
            stop_timeout: stop_timeout(),
            stop_grace: stop_grace(),
            on_stop: None,
            min_free: min_free(),
            history_size: history_size(),
            history_keep: history_keep(),
            log_format: Format::default(),
            connections: Connections::new(),
            datax: None,
            backup: millrace_kinds::backup::Settings::default(),
            kinds: BTreeMap::new(),
        }
    }

    /// Checks what the types cannot: all problems, not only the first.
    #[must_use]
    pub fn problems(&self) -> Vec<SettingsError> {
        let mut problems = Vec::new();
        if self.masters.is_empty() {
            problems.push(SettingsError::NoMasters);
        }
        let is_address = |text: &str| {
            let rest = text.strip_prefix("http://").unwrap_or_default();
            !rest.is_empty() && tonic::transport::Endpoint::from_shared(text.to_owned()).is_ok()
        };
        problems.extend(
            self.masters
                .iter()
                .filter(|text| !is_address(text))
                .map(|text| SettingsError::Master(text.clone())),
        );
        if !(1..=SLOTS_MAX).contains(&self.slots) {
            problems.push(SettingsError::Slots(self.slots));
        }
        problems.extend(self.inequalities().into_iter().flatten().map(SettingsError::Inequality));
        problems
    }

    fn inequalities(&self) -> [Option<String>; 3] {
        let show = ShowDuration;
        let (interval, answer) = (self.heartbeat_interval, self.answer_timeout);
        let needed = interval * 3 + answer;
        [
            (interval.is_zero() || answer < interval).then(|| {
                format!(
                    "`heartbeat_interval` ({}) must be above zero and not longer than `answer_timeout` ({})",
                    show(interval),
                    show(answer)
                )
            }),
            (needed > ORPHAN_TIMEOUT_MIN).then(|| {
                format!(
                    "three times `heartbeat_interval` ({}) and `answer_timeout` ({}) make {}; they must fit into {}, \
                     the shortest orphan time of a task",
                    show(interval),
                    show(answer),
                    show(needed),
                    show(ORPHAN_TIMEOUT_MIN)
                )
            }),
            (self.stop_grace >= self.stop_timeout).then(|| {
                format!(
                    "`stop_grace` ({}) must be shorter than `stop_timeout` ({})",
                    show(self.stop_grace),
                    show(self.stop_timeout)
                )
            }),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ExecutorConfig {
        let masters = vec!["http://127.0.0.1:7070".to_owned()];
        ExecutorConfig::new("exec-1".parse().unwrap(), masters, "/etc/token".into(), "/var/lib/x".into())
    }

    #[test]
    fn the_defaults_fit_each_other() {
        assert_eq!(config().problems(), []);
        assert!(config().slots >= SLOTS_MIN);
    }

    #[test]
    fn all_problems_are_told_and_name_both_keys() {
        let mut config = config();
        config.masters = vec!["127.0.0.1:7070".to_owned(), "http://".to_owned()];
        config.slots = 0;
        config.heartbeat_interval = Duration::from_secs(6);
        config.stop_grace = config.stop_timeout;
        let problems: Vec<String> = config.problems().iter().map(ToString::to_string).collect();
        assert_eq!(problems.len(), 6, "{problems:?}");
        for keys in [["heartbeat_interval", "answer_timeout"], ["stop_grace", "stop_timeout"]] {
            assert!(problems.iter().any(|text| keys.iter().all(|key| text.contains(key))), "{keys:?}");
        }
    }
}

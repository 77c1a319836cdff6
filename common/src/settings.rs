//! Live settings: what an operator changes while masters run.
//!
//! A setting is a text under a name. This module says which names there are, what their texts may be, and what they mean;
//! who keeps them and when they come into force is the masters' business. Names that also stand in a master's file mean
//! the same there, so that the text of one can be copied to the other.

use std::{fmt, sync::Arc, time::Duration};

use thiserror::Error;

use crate::{
    id::{ExecutorName, NameError, PoolName},
    nearest::nearest,
    schedule::FIRES_MAX,
    text::{ShowDuration, parse_duration},
};

/// Bytes of the text of a setting; the longest that makes sense is a filter of log lines.
pub const TEXT_BYTES_MAX: usize = 1_000;
/// Names of settings that are looked at; a cluster has a few for each pool and executor.
pub const SETTINGS_MAX: usize = 1_000;
/// Characters that are shown of a text or a name that is refused.
const SHOWN_CHARS_MAX: usize = 120;
/// Capacity of a pool at most: more than the slots of 10,000 executors.
const POOL_MAX: u32 = 1_000_000;
/// Slots of an executor at most, as its own settings allow.
const SLOTS_MAX: u32 = 4_096;
/// Unfinished runs of one workflow at most: more would not fit into the memory of a leader.
const RUNS_MAX: u32 = 1_000_000;
/// Losses and rejections of a task instance at most; each takes a minute and more.
const TRIES_MAX: u32 = 1_000;
/// The shortest and the longest first pause after a rejection.
const REJECTION_DELAYS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));
/// The shortest and the longest time that ended runs can be kept.
pub const RETENTIONS: (Duration, Duration) =
    (Duration::from_secs(60 * 60), Duration::from_secs(10 * 365 * 24 * 60 * 60));
/// Ended runs of one workflow that can be kept.
const RETENTION_RUNS_MAX: u32 = 1_000_000_000;

/// Levels of log lines, from none to all.
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// A live setting in its valid form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setting {
    /// Which log lines the masters write.
    Log(Arc<str>),
    /// Capacity of a pool.
    Pool(PoolName, u32),
    /// Attempts that an executor gets at once, below what it offers.
    ExecutorSlots(ExecutorName, u32),
    /// Unfinished runs of one workflow.
    RunsPerWorkflowMax(usize),
    /// Attempts of a task instance that are lost with their executors before it is quarantined.
    LossesMax(u32),
    /// Starts in a row that come to nothing before an executor is cordoned.
    FailedStartsMax(u32),
    /// Attempts of a task instance that may be rejected before it fails.
    RejectionsMax(u32),
    /// Pause after the first rejection of a task instance.
    RejectionDelay(Duration),
    /// How long ended runs are kept.
    Retention(Duration),
    /// How many ended runs of each workflow are kept.
    RetentionRuns(u32),
    /// Whether no schedule starts runs.
    SchedulesPaused(bool),
}

/// A name that a live setting can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The name; `<...>` stands for a part that is chosen.
    pub name: &'static str,
    /// What its text may be.
    pub allowed: &'static str,
    /// What it does.
    pub about: &'static str,
}

/// All names that live settings can have, in the order of the documents.
pub const KEYS: [Key; 11] = [
    Key { name: LOG, allowed: LOG_ALLOWED, about: "which log lines every master writes" },
    Key { name: "pools.<pool>", allowed: POOL_ALLOWED, about: "capacity of a pool; 0 closes it" },
    Key {
        name: "executors.<executor>.slots",
        allowed: SLOTS_ALLOWED,
        about: "attempts that an executor gets at once, never more than it offers",
    },
    Key { name: RUNS, allowed: RUNS_ALLOWED, about: "unfinished runs of one workflow" },
    Key {
        name: LOSSES,
        allowed: TRIES_ALLOWED,
        about: "attempts of a task that are lost with their executors before it is quarantined",
    },
    Key {
        name: FAILED_STARTS,
        allowed: STARTS_ALLOWED,
        about: "starts in a row that come to nothing before an executor is cordoned; 0 cordons none",
    },
    Key {
        name: REJECTIONS,
        allowed: TRIES_ALLOWED,
        about: "attempts of a task that may be rejected before it fails",
    },
    Key {
        name: REJECTION_DELAY,
        allowed: REJECTION_DELAY_ALLOWED,
        about: "pause after the first rejection; it doubles with each further one",
    },
    Key { name: RETENTION, allowed: RETENTION_ALLOWED, about: "how long ended runs are kept" },
    Key {
        name: RETENTION_RUNS,
        allowed: RETENTION_RUNS_ALLOWED,
        about: "how many ended runs of each workflow are kept",
    },
    Key { name: PAUSED, allowed: PAUSED_ALLOWED, about: "whether no schedule starts runs" },
];

const LOG: &str = "log";
const RUNS: &str = "runs_per_workflow_max";
const LOSSES: &str = "losses_max";
const FAILED_STARTS: &str = "failed_starts_max";
const REJECTIONS: &str = "rejections_max";
const REJECTION_DELAY: &str = "rejection_delay";
const RETENTION: &str = "retention";
const RETENTION_RUNS: &str = "retention_runs";
const PAUSED: &str = "schedules_paused";

const LOG_ALLOWED: &str = "off, error, warn, info, debug or trace, and with commas parts of the program such as millrace_store=debug";
const POOL_ALLOWED: &str = "a whole number from 0 to 1000000";
const SLOTS_ALLOWED: &str = "a whole number from 0 to 4096";
const RUNS_ALLOWED: &str = "a whole number from 101 to 1000000";
const TRIES_ALLOWED: &str = "a whole number from 1 to 1000";
const STARTS_ALLOWED: &str = "a whole number from 0 to 1000";
const REJECTION_DELAY_ALLOWED: &str = "a duration from 100ms to 1m";
const RETENTION_ALLOWED: &str = "a duration from 1h to 3650d";
const RETENTION_RUNS_ALLOWED: &str = "a whole number from 1 to 1000000000";
const PAUSED_ALLOWED: &str = "true or false";

/// Why a text is refused, in words that name the setting, what was found and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SettingError {
    /// There is no such name.
    #[error("there is no live setting `{name}`{}", .nearest.as_ref().map_or_else(
        || "; `masterctl config get` lists them".to_owned(),
        |nearest| format!("; did you mean `{nearest}`?")
    ))]
    Unknown {
        /// The name, as far as it can be shown.
        name: String,
        /// The known one that is most like it.
        nearest: Option<String>,
    },
    /// The part that is chosen is not a name.
    #[error("`{name}`: {part:?} cannot be the name of a pool or an executor: {source}")]
    Part {
        /// The name as a whole.
        name: String,
        /// The part.
        part: String,
        /// Why.
        #[source]
        source: NameError,
    },
    /// The text is not UTF-8.
    #[error("`{name}` is not text in UTF-8: {found:?}; it must be {allowed}")]
    NotText {
        /// The name.
        name: String,
        /// What of it can be shown.
        found: String,
        /// What it may be.
        allowed: &'static str,
    },
    /// The text says something that is not allowed.
    #[error("`{name}` is {found:?}; it must be {allowed}")]
    Value {
        /// The name.
        name: String,
        /// What was found.
        found: String,
        /// What it may be.
        allowed: &'static str,
    },
}

/// Reads a setting. White space around its text does not matter: people end a line.
///
/// # Errors
/// Where there is no such setting, or it may not be that.
pub fn read(name: &str, text: &[u8]) -> Result<Setting, SettingError> {
    let slot = Slot::of(name)?;
    let allowed = slot.allowed();
    let found = || shown_text(text);
    let Ok(utf8) = std::str::from_utf8(text) else {
        return Err(SettingError::NotText { name: shown(name), found: found(), allowed });
    };
    let is_short = utf8.len() <= TEXT_BYTES_MAX;
    let setting = Some(utf8.trim()).filter(|_| is_short).and_then(|text| slot.with(text));
    setting.ok_or_else(|| SettingError::Value { name: shown(name), found: found(), allowed })
}

/// Returns what the setting of this name may be.
///
/// # Errors
/// Where there is none.
pub fn allowed(name: &str) -> Result<&'static str, SettingError> {
    Slot::of(name).map(|slot| slot.allowed())
}

/// Returns a text as it can be shown and kept: in UTF-8, on one line, and not too long.
#[must_use]
pub fn shown_text(text: &[u8]) -> String {
    shown(&String::from_utf8_lossy(text))
}

fn shown(text: &str) -> String {
    let mut chars = text.trim().chars();
    let plain = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    let mut cut: String = chars.by_ref().take(SHOWN_CHARS_MAX).map(plain).collect();
    if chars.next().is_some() {
        cut.push('…');
    }
    cut
}

/// A name of a setting, understood.
enum Slot {
    Log,
    Pool(PoolName),
    ExecutorSlots(ExecutorName),
    RunsPerWorkflowMax,
    LossesMax,
    FailedStartsMax,
    RejectionsMax,
    RejectionDelay,
    Retention,
    RetentionRuns,
    SchedulesPaused,
}

impl Slot {
    fn of(name: &str) -> Result<Self, SettingError> {
        if let Some(pool) = name.strip_prefix("pools.") {
            return chosen(name, pool).map(Self::Pool);
        }
        if let Some(executor) = name.strip_prefix("executors.").and_then(|rest| rest.strip_suffix(".slots")) {
            return chosen(name, executor).map(Self::ExecutorSlots);
        }
        Ok(match name {
            LOG => Self::Log,
            RUNS => Self::RunsPerWorkflowMax,
            LOSSES => Self::LossesMax,
            FAILED_STARTS => Self::FailedStartsMax,
            REJECTIONS => Self::RejectionsMax,
            REJECTION_DELAY => Self::RejectionDelay,
            RETENTION => Self::Retention,
            RETENTION_RUNS => Self::RetentionRuns,
            PAUSED => Self::SchedulesPaused,
            _ => return Err(SettingError::Unknown { name: shown(name), nearest: nearest_name(name) }),
        })
    }

    const fn allowed(&self) -> &'static str {
        match self {
            Self::Log => LOG_ALLOWED,
            Self::Pool(_) => POOL_ALLOWED,
            Self::ExecutorSlots(_) => SLOTS_ALLOWED,
            Self::RunsPerWorkflowMax => RUNS_ALLOWED,
            Self::LossesMax | Self::RejectionsMax => TRIES_ALLOWED,
            Self::FailedStartsMax => STARTS_ALLOWED,
            Self::RejectionDelay => REJECTION_DELAY_ALLOWED,
            Self::Retention => RETENTION_ALLOWED,
            Self::RetentionRuns => RETENTION_RUNS_ALLOWED,
            Self::SchedulesPaused => PAUSED_ALLOWED,
        }
    }

    fn with(self, text: &str) -> Option<Setting> {
        let runs_min = u32::try_from(FIRES_MAX).ok()? + 1;
        Some(match self {
            Self::Log => Setting::Log(filter(text)?),
            Self::Pool(pool) => Setting::Pool(pool, number(text, 0, POOL_MAX)?),
            Self::ExecutorSlots(executor) => Setting::ExecutorSlots(executor, number(text, 0, SLOTS_MAX)?),
            Self::RunsPerWorkflowMax => {
                Setting::RunsPerWorkflowMax(number(text, runs_min, RUNS_MAX)? as usize)
            }
            Self::LossesMax => Setting::LossesMax(number(text, 1, TRIES_MAX)?),
            Self::FailedStartsMax => Setting::FailedStartsMax(number(text, 0, TRIES_MAX)?),
            Self::RejectionsMax => Setting::RejectionsMax(number(text, 1, TRIES_MAX)?),
            Self::RejectionDelay => Setting::RejectionDelay(duration(text, REJECTION_DELAYS)?),
            Self::Retention => Setting::Retention(duration(text, RETENTIONS)?),
            Self::RetentionRuns => Setting::RetentionRuns(number(text, 1, RETENTION_RUNS_MAX)?),
            Self::SchedulesPaused => Setting::SchedulesPaused(text.parse().ok()?),
        })
    }
}

fn chosen<N: std::str::FromStr<Err = NameError>>(name: &str, part: &str) -> Result<N, SettingError> {
    let wrong = |source| SettingError::Part { name: shown(name), part: shown(part), source };
    part.parse().map_err(wrong)
}

fn number(text: &str, least: u32, most: u32) -> Option<u32> {
    // A sign would be read, and say nothing.
    let number = Some(text).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?.parse().ok()?;
    (least..=most).contains(&number).then_some(number)
}

fn duration(text: &str, (least, most): (Duration, Duration)) -> Option<Duration> {
    parse_duration(text).ok().filter(|duration| (least..=most).contains(duration))
}

/// Reads a level, or several parts with commas of which each is a level or a part of the program with one.
fn filter(text: &str) -> Option<Arc<str>> {
    let is_target = |text: &str| {
        !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:".contains(&byte))
    };
    let part = |part: &str| match part.trim().split_once('=') {
        None => LEVELS.contains(&part.trim()),
        Some((target, level)) => is_target(target) && LEVELS.contains(&level),
    };
    let is_filter = text.split(',').all(part);
    is_filter.then(|| text.split(',').map(str::trim).collect::<Vec<_>>().join(",").into())
}

/// Finds the known name that is most like `name`, with its chosen part filled in.
fn nearest_name(name: &str) -> Option<String> {
    if let Some((first, rest)) = name.split_once('.') {
        let group = nearest(first, ["pools", "executors"])?;
        return match (group, rest.rsplit_once('.')) {
            ("executors", Some((executor, _))) => Some(format!("executors.{executor}.slots")),
            ("executors", None) => Some(format!("executors.{rest}.slots")),
            _ => Some(format!("pools.{rest}")),
        }
        .filter(|found| allowed(found).is_ok());
    }
    let plain = KEYS.iter().map(|key| key.name).filter(|name| !name.contains('<'));
    nearest(name, plain).map(str::to_owned)
}

impl Setting {
    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Log(_) => LOG.to_owned(),
            Self::Pool(pool, _) => format!("pools.{pool}"),
            Self::ExecutorSlots(executor, _) => format!("executors.{executor}.slots"),
            Self::RunsPerWorkflowMax(_) => RUNS.to_owned(),
            Self::LossesMax(_) => LOSSES.to_owned(),
            Self::FailedStartsMax(_) => FAILED_STARTS.to_owned(),
            Self::RejectionsMax(_) => REJECTIONS.to_owned(),
            Self::RejectionDelay(_) => REJECTION_DELAY.to_owned(),
            Self::Retention(_) => RETENTION.to_owned(),
            Self::RetentionRuns(_) => RETENTION_RUNS.to_owned(),
            Self::SchedulesPaused(_) => PAUSED.to_owned(),
        }
    }
}

/// Writes its text, as it is kept: one way for each meaning.
impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log(filter) => f.write_str(filter),
            Self::Pool(_, count) | Self::ExecutorSlots(_, count) => count.fmt(f),
            Self::LossesMax(count)
            | Self::FailedStartsMax(count)
            | Self::RejectionsMax(count)
            | Self::RetentionRuns(count) => count.fmt(f),
            Self::RunsPerWorkflowMax(count) => count.fmt(f),
            Self::RejectionDelay(time) | Self::Retention(time) => ShowDuration(*time).fmt(f),
            Self::SchedulesPaused(is_paused) => is_paused.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(name: &str, text: &str) -> Result<String, String> {
        read(name, text.as_bytes()).map(|setting| setting.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn every_setting_is_read_and_written_alike() {
        let rows = [
            ("log", " info, millrace_store=debug\n", "info,millrace_store=debug"),
            ("pools.mes_db", "4\n", "4"),
            ("pools.mes_db", "0", "0"),
            ("executors.x-1.slots", "16", "16"),
            ("runs_per_workflow_max", "101", "101"),
            ("losses_max", "1", "1"),
            ("failed_starts_max", "0", "0"),
            ("rejections_max", "1000", "1000"),
            ("rejection_delay", "1500ms", "1s500ms"),
            ("retention", "90d", "90d"),
            ("retention_runs", "12", "12"),
            ("schedules_paused", "true", "true"),
        ];
        for (name, given, kept) in rows {
            assert_eq!(text(name, given).as_deref(), Ok(kept), "{name}");
            let setting = read(name, given.as_bytes()).unwrap();
            assert_eq!(setting.name(), name);
            assert_eq!(read(name, setting.to_string().as_bytes()), Ok(setting), "{name}");
        }
        let fixed = KEYS.map(|key| key.name.replace("<pool>", "p").replace("<executor>", "x"));
        assert!(fixed.iter().zip(KEYS).all(|(name, key)| allowed(name) == Ok(key.allowed)), "{fixed:?}");
    }

    #[test]
    fn a_refusal_names_the_setting_what_was_found_and_what_is_allowed() {
        let rows = [
            (
                "pools.mes_db",
                "many",
                "`pools.mes_db` is \"many\"; it must be a whole number from 0 to 1000000",
            ),
            ("pools.mes_db", "+4", "`pools.mes_db` is \"+4\"; it must be a whole number from 0 to 1000000"),
            ("pools.mes_db", "", "`pools.mes_db` is \"\"; it must be a whole number from 0 to 1000000"),
            (
                "runs_per_workflow_max",
                "100",
                "`runs_per_workflow_max` is \"100\"; it must be a whole number from 101 to 1000000",
            ),
            ("retention", "5", "`retention` is \"5\"; it must be a duration from 1h to 3650d"),
            ("retention", "59m", "`retention` is \"59m\"; it must be a duration from 1h to 3650d"),
            ("schedules_paused", "yes", "`schedules_paused` is \"yes\"; it must be true or false"),
        ];
        for (name, given, problem) in rows {
            assert_eq!(text(name, given), Err(problem.to_owned()));
        }
        for given in ["loud", "info,", "a b=info", "=info", "x=y=info", "info,millrace[span]=debug"] {
            assert!(text("log", given).unwrap_err().contains("it must be off, error, warn"), "{given}");
        }
        assert!(text("log", &"info,".repeat(1_000)).unwrap_err().len() < 400);
    }

    #[test]
    fn rubbish_is_refused_in_words_that_can_be_shown() {
        let error = read("pools.p", &[b'4', 0xff, 0, b'\n']).unwrap_err();
        assert_eq!(
            error.to_string(),
            "`pools.p` is not text in UTF-8: \"4\u{fffd}\u{fffd}\"; it must be a whole number from 0 to 1000000"
        );
        assert!(read(&"x".repeat(10_000), b"1").unwrap_err().to_string().len() < 300);
    }

    #[test]
    fn an_unknown_name_is_told_with_the_nearest_known_one() {
        let rows = [
            ("retenton", Some("retention")),
            ("pool.mes_db", Some("pools.mes_db")),
            ("executor.x1.slots", Some("executors.x1.slots")),
            ("executors.x1.slot", Some("executors.x1.slots")),
            ("executors.x1", Some("executors.x1.slots")),
            ("schedule_paused", Some("schedules_paused")),
            ("colour", None),
            ("colours.red", None),
        ];
        for (name, nearest) in rows {
            let expected =
                SettingError::Unknown { name: name.to_owned(), nearest: nearest.map(str::to_owned) };
            assert_eq!(read(name, b"1"), Err(expected));
        }
        let problem = read("pools.Mes", b"1").unwrap_err().to_string();
        assert_eq!(
            problem,
            "`pools.Mes`: \"Mes\" cannot be the name of a pool or an executor: a name is made of a-z, 0-9, '_' and '-', not 'M'"
        );
    }
}

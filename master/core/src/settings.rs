//! Live settings: what is in force of what operators set while masters run.
//!
//! A name has a value in force, a value that was refused, or both: a refused value never takes the place of the last good
//! one. Where etcd keeps the settings the scheduler is given *all* of them, each time, and finds out by itself what is
//! different; accounts that come late are older by their revision, and ignored. Where this database keeps them, they are
//! set one by one.
//!
//! Settings change by [`Change::SettingChanged`] and in no other way, so a new leader begins with those that the last one
//! had committed. A pool or an executor that is made smaller than what is live on it keeps that, and gets nothing new.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use millrace_common::{
    id::{ExecutorName, PoolName},
    settings::{self, Setting, SettingError},
    time::Timestamp,
};

use crate::{
    batch::{Answer, Change},
    limits::Limits,
    refusal::Refusal,
    scheduler::Scheduler,
};

/// A name, and what operators gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingRow {
    /// The name; where nobody knows it, as far as it can be shown.
    pub name: Arc<str>,
    /// The value in force.
    pub value: Option<SettingValue>,
    /// The value that was given last, where it is refused.
    pub refused: Option<RefusedValue>,
    /// The change of etcd that gave it last; 0 where etcd does not keep it.
    pub revision: u64,
}

/// A value in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingValue {
    /// The value.
    pub text: Arc<str>,
    /// Who set it.
    pub by: Arc<str>,
    /// When that was found.
    pub at: Timestamp,
}

/// A value that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedValue {
    /// The value, as far as it can be shown.
    pub text: Arc<str>,
    /// Why.
    pub reason: Arc<str>,
    /// Who set it.
    pub by: Arc<str>,
    /// When that was found.
    pub at: Timestamp,
}

/// What became different about a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingChanged {
    /// Its name.
    pub name: Arc<str>,
    /// What there was.
    pub before: Option<SettingRow>,
    /// What there is.
    pub now: Option<SettingRow>,
    /// What it was given, as far as it can be shown; absent where it was unset.
    pub given: Option<Arc<str>>,
    /// Why that is refused, where it is.
    pub refusal: Option<Arc<str>>,
    /// Who gave it.
    pub by: Arc<str>,
    /// When that was found.
    pub at: Timestamp,
}

/// Everything that etcd keeps of settings, at one of its revisions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingsAccount {
    /// The revision.
    pub revision: u64,
    /// What there is, each name once.
    pub given: Vec<GivenSetting>,
    /// Who unset what is not there, with the change that did so.
    pub unset: BTreeMap<Arc<str>, (Arc<str>, u64)>,
    /// Who set or unset what nobody put a name to.
    pub anybody: Arc<str>,
}

/// A setting as etcd has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GivenSetting {
    /// The name.
    pub name: Arc<str>,
    /// The value; not even UTF-8 is certain.
    pub text: Arc<[u8]>,
    /// Who set it.
    pub by: Arc<str>,
    /// The change that did so.
    pub revision: u64,
}

/// A request to set or unset one.
#[derive(Debug, Clone)]
pub struct SetSetting {
    /// The name.
    pub name: Arc<str>,
    /// The value; absent where it is unset.
    pub text: Option<Arc<str>>,
    /// Who asks.
    pub by: Arc<str>,
}

/// The settings in force: what stands in the rows, and what it means.
#[derive(Debug, Default)]
pub struct Settings {
    rows: BTreeMap<Arc<str>, SettingRow>,
    log: Option<Arc<str>>,
    pools: BTreeMap<PoolName, u32>,
    slots: BTreeMap<ExecutorName, u32>,
    runs_per_workflow_max: Option<usize>,
    losses_max: Option<u32>,
    failed_starts_max: Option<u32>,
    rejections_max: Option<u32>,
    rejection_delay: Option<Duration>,
    retention: Option<Duration>,
    retention_runs: Option<u32>,
    paused_since: Option<Timestamp>,
}

impl Settings {
    pub(crate) fn of(rows: impl IntoIterator<Item = SettingRow>) -> Self {
        let mut all = Self {
            rows: rows.into_iter().map(|row| (Arc::clone(&row.name), row)).collect(),
            ..Self::default()
        };
        let understood: Vec<_> = all.rows.values().filter_map(understood).collect();
        for (setting, at) in understood {
            all.put(setting, at);
        }
        all
    }

    pub(crate) fn apply(&mut self, changed: &SettingChanged) {
        let mut rows = std::mem::take(&mut self.rows);
        let before = match &changed.now {
            Some(row) => rows.insert(Arc::clone(&changed.name), row.clone()),
            None => rows.remove(&changed.name),
        };
        assert!(before == changed.before, "a setting changes from what it is");
        *self = Self::of(rows.into_values());
    }

    fn put(&mut self, setting: Setting, at: Timestamp) {
        match setting {
            Setting::Log(filter) => self.log = Some(filter),
            Setting::Pool(pool, size) => drop(self.pools.insert(pool, size)),
            Setting::ExecutorSlots(executor, slots) => drop(self.slots.insert(executor, slots)),
            Setting::RunsPerWorkflowMax(count) => self.runs_per_workflow_max = Some(count),
            Setting::LossesMax(count) => self.losses_max = Some(count),
            Setting::FailedStartsMax(count) => self.failed_starts_max = Some(count),
            Setting::RejectionsMax(count) => self.rejections_max = Some(count),
            Setting::RejectionDelay(delay) => self.rejection_delay = Some(delay),
            Setting::Retention(time) => self.retention = Some(time),
            Setting::RetentionRuns(count) => self.retention_runs = Some(count),
            Setting::SchedulesPaused(is_paused) => self.paused_since = is_paused.then_some(at),
        }
    }

    /// Returns limits with the settings over them.
    pub(crate) fn over(&self, base: &Limits) -> Limits {
        let mut limits = base.clone();
        limits.pools.extend(self.pools.iter().map(|(pool, size)| (pool.clone(), *size)));
        limits.runs_per_workflow_max = self.runs_per_workflow_max.unwrap_or(base.runs_per_workflow_max);
        limits.losses_max = self.losses_max.unwrap_or(base.losses_max);
        limits.failed_starts_max = self.failed_starts_max.unwrap_or(base.failed_starts_max);
        limits.rejections_max = self.rejections_max.unwrap_or(base.rejections_max);
        limits.rejection_delay = self.rejection_delay.unwrap_or(base.rejection_delay);
        limits
    }

    /// Returns how many attempts an executor that offers `slots` gets at once.
    pub(crate) fn slots_of(&self, executor: &ExecutorName, slots: u32) -> u32 {
        self.slots.get(executor).map_or(slots, |most| slots.min(*most))
    }

    /// Returns which log lines are to be written, where that is set.
    #[must_use]
    pub const fn log(&self) -> Option<&Arc<str>> {
        self.log.as_ref()
    }

    /// Returns how long ended runs are to be kept, where that is set.
    #[must_use]
    pub const fn retention(&self) -> Option<Duration> {
        self.retention
    }

    /// Returns how many ended runs of a workflow are to be kept, where that is set.
    #[must_use]
    pub const fn retention_runs(&self) -> Option<u32> {
        self.retention_runs
    }

    /// Returns since when no schedule starts runs; absent where they do.
    #[must_use]
    pub const fn paused_since(&self) -> Option<Timestamp> {
        self.paused_since
    }
}

/// Reads the value in force. One that another build took and this one cannot read is not in force here; it stays.
fn understood(row: &SettingRow) -> Option<(Setting, Timestamp)> {
    let value = row.value.as_ref()?;
    settings::read(&row.name, value.text.as_bytes()).ok().map(|setting| (setting, value.at))
}

impl Scheduler {
    /// Returns the settings in force.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.state.settings
    }

    /// Takes an account of all settings: what is new is judged, what is gone is unset.
    pub(crate) fn take_settings(&mut self, account: &SettingsAccount) {
        if account.revision < self.settings_revision {
            return self.count_refusal("old_settings");
        }
        self.settings_revision = account.revision;
        let there: BTreeSet<&Arc<str>> = account.given.iter().map(|given| &given.name).collect();
        let is_gone = |name: &&Arc<str>| !there.contains(name);
        let gone: Vec<Arc<str>> = self.state.settings.rows.keys().filter(is_gone).cloned().collect();
        for name in gone {
            self.unset(&name, account);
        }
        for given in &account.given {
            let judged = settings::read(&given.name, &given.text);
            self.judge(given, judged);
        }
    }

    fn unset(&mut self, name: &Arc<str>, account: &SettingsAccount) {
        let revision = self.state.settings.rows.get(name).map_or(0, |row| row.revision);
        let by = account.unset.get(name).filter(|(_, at)| *at > revision).map(|(by, _)| by);
        let by = Arc::clone(by.unwrap_or(&account.anybody));
        self.change_setting(name, None, None, None, by);
    }

    /// Puts a value in force, or refuses it; says whether it is another one than before.
    fn judge(&mut self, given: &GivenSetting, judged: Result<Setting, SettingError>) -> bool {
        let before = self.state.settings.rows.get(&given.name);
        let value = before.and_then(|row| row.value.clone());
        let refused = before.and_then(|row| row.refused.clone());
        let (by, at) = (Arc::clone(&given.by), self.now.wall);
        let (name, revision) = (Arc::clone(&given.name), given.revision);
        match judged.map(|setting| Arc::<str>::from(setting.to_string())) {
            Ok(text) => {
                if refused.is_none() && value.is_some_and(|value| value.text == text) {
                    return false;
                }
                let value = Some(SettingValue { text: Arc::clone(&text), by: Arc::clone(&by), at });
                let now = SettingRow { name, value, refused: None, revision };
                self.change_setting(&given.name, Some(now), Some(text), None, by);
            }
            Err(error) => {
                let text: Arc<str> = settings::shown_text(&given.text).into();
                let reason: Arc<str> = error.to_string().into();
                if refused.is_some_and(|refused| refused.text == text && refused.reason == reason) {
                    return false;
                }
                let refused = RefusedValue {
                    text: Arc::clone(&text),
                    reason: Arc::clone(&reason),
                    by: Arc::clone(&by),
                    at,
                };
                let now = SettingRow { name, value, refused: Some(refused), revision };
                self.change_setting(&given.name, Some(now), Some(text), Some(reason), by);
            }
        }
        true
    }

    fn change_setting(
        &mut self,
        name: &Arc<str>,
        now: Option<SettingRow>,
        given: Option<Arc<str>>,
        refusal: Option<Arc<str>>,
        by: Arc<str>,
    ) {
        let (name, at) = (Arc::clone(name), self.now.wall);
        let before = self.state.settings.rows.get(&name).cloned();
        let was_paused = self.state.settings.paused_since().is_some();
        let runs_max = self.limits.runs_per_workflow_max;
        self.emit(Change::SettingChanged(Box::new(SettingChanged {
            name,
            before,
            now,
            given,
            refusal,
            by,
            at,
        })));
        self.limits = self.state.settings.over(&self.base_limits);
        #[cfg(feature = "testing")]
        self.ignore_settings();
        let is_paused = self.state.settings.paused_since().is_some();
        if (was_paused && !is_paused) || runs_max < self.limits.runs_per_workflow_max {
            self.arm_schedules();
        }
    }

    /// Lets all schedules look again: those that did not fire do now, as far as their policies say.
    fn arm_schedules(&mut self) {
        let workflows: Vec<_> = self.state.catalog.keys().cloned().collect();
        for name in workflows {
            self.arm_schedule(&name);
        }
    }

    /// Sets or unsets one setting, where this database keeps them.
    pub(crate) fn set_setting(&mut self, set: SetSetting) -> Result<Answer, Refusal> {
        let SetSetting { name, text, by } = set;
        let Some(text) = text else {
            let is_there = self.state.settings.rows.contains_key(&name);
            if is_there {
                self.change_setting(&name, None, None, None, by);
            } else {
                settings::allowed(&name)?;
            }
            return Ok(Answer::SettingTaken { is_changed: is_there });
        };
        let setting = settings::read(&name, text.as_bytes())?;
        let given = GivenSetting { name, text: text.as_bytes().into(), by, revision: 0 };
        let is_changed = self.judge(&given, Ok(setting));
        Ok(Answer::SettingTaken { is_changed })
    }
}

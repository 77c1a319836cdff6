//! What is in force where no live setting is: the master's own settings, under the same names.

use std::{collections::BTreeMap, sync::Arc};

use millrace_common::settings::Setting;
use millrace_core::Limits;
use millrace_runtime::telemetry;
use millrace_store::Retention;

/// Values by name. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Statics(Arc<BTreeMap<String, String>>);

impl Statics {
    pub(crate) fn of(limits: &Limits, keeps: Retention) -> Self {
        let mut all: Vec<Setting> =
            limits.pools.iter().map(|(pool, size)| Setting::Pool(pool.clone(), *size)).collect();
        all.extend([
            Setting::RunsPerWorkflowMax(limits.runs_per_workflow_max),
            Setting::LossesMax(limits.losses_max),
            Setting::FailedStartsMax(limits.failed_starts_max),
            Setting::RejectionsMax(limits.rejections_max),
            Setting::RejectionDelay(limits.rejection_delay),
            Setting::SchedulesPaused(false),
        ]);
        all.extend(keeps.keep_for.map(Setting::Retention));
        all.extend(keeps.keep_runs.map(Setting::RetentionRuns));
        all.extend(telemetry::first_filter().map(|filter| Setting::Log(filter.into())));
        Self(Arc::new(all.into_iter().map(|setting| (setting.name(), setting.to_string())).collect()))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

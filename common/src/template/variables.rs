//! What templates can refer to.

use std::collections::BTreeMap;

use chrono::SecondsFormat;
use chrono_tz::Tz;
use minijinja::{Value as Evaluated, value::Serde};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{
    id::{RunId, TaskName, WorkflowName},
    interval::DataInterval,
    time::Timestamp,
};

/// Every name that a template can begin with.
pub const NAMES: &[&str] = &[
    "run_id",
    "workflow",
    "task",
    "attempt",
    "logical_date",
    "ds",
    "ds_nodash",
    "ts",
    "ts_nodash",
    "data_interval_start",
    "data_interval_end",
    "params",
    "values",
];

/// What the templates of one attempt can refer to. The leader sends it to the executor as JSON.
///
/// `ds` and `ds_nodash` are dates in the workflow's time zone; `ts`, `logical_date` and the ends of the data interval
/// are RFC 3339 in UTC. The environment of the executor is deliberately absent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Variables {
    /// The run.
    pub run_id: RunId,
    /// The workflow.
    pub workflow: WorkflowName,
    /// The task.
    pub task: TaskName,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// The interval that the run is about; its start is the logical date.
    pub interval: DataInterval,
    /// Where `ds` is read.
    #[serde(with = "zone_name")]
    pub timezone: Tz,
    /// Parameters of the run.
    #[serde(default)]
    pub params: Map<String, Value>,
    /// What upstream tasks handed on, by task.
    #[serde(default)]
    pub values: BTreeMap<TaskName, Map<String, Value>>,
}

mod zone_name {
    use chrono_tz::Tz;
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(timezone: &Tz, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(timezone.name())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Tz, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Variables {
    /// Makes variables without parameters and values, in UTC.
    #[must_use]
    pub fn new(
        run_id: RunId,
        workflow: WorkflowName,
        task: TaskName,
        attempt: u32,
        interval: DataInterval,
    ) -> Self {
        Self {
            run_id,
            workflow,
            task,
            attempt,
            interval,
            timezone: Tz::UTC,
            params: Map::new(),
            values: BTreeMap::new(),
        }
    }

    /// Sets where `ds` is read.
    #[must_use]
    pub fn with_timezone(mut self, timezone: Tz) -> Self {
        self.timezone = timezone;
        self
    }

    /// Sets the parameters of the run.
    #[must_use]
    pub fn with_params(mut self, params: Map<String, Value>) -> Self {
        self.params = params;
        self
    }

    /// Adds what a task handed on.
    #[must_use]
    pub fn with_values(mut self, task: TaskName, values: Map<String, Value>) -> Self {
        self.values.insert(task, values);
        self
    }

    /// Returns the logical date as `YYYY-MM-DD` in the workflow's time zone.
    #[must_use]
    pub fn ds(&self) -> String {
        self.local("%Y-%m-%d")
    }

    fn local(&self, format: &str) -> String {
        self.interval.start.to_datetime().with_timezone(&self.timezone).format(format).to_string()
    }

    /// Returns all names with their values.
    pub(super) fn context(&self) -> Evaluated {
        let rfc3339 = |time: Timestamp| time.to_datetime().to_rfc3339_opts(SecondsFormat::AutoSi, true);
        let start = rfc3339(self.interval.start);
        Evaluated::from(Serde(json!({
            "run_id": self.run_id,
            "workflow": self.workflow,
            "task": self.task,
            "attempt": self.attempt,
            "logical_date": start,
            "ds": self.ds(),
            "ds_nodash": self.local("%Y%m%d"),
            "ts": start,
            "ts_nodash": self.interval.start.to_datetime().format("%Y%m%dT%H%M%S").to_string(),
            "data_interval_start": start,
            "data_interval_end": rfc3339(self.interval.end),
            "params": self.params,
            "values": self.values,
        })))
    }
}

//! What the stages came to, as values for later tasks.
//!
//! Counts are about the days, not about this attempt: a second attempt that finds everything done reports the same.
//! What this attempt did itself ends in `_now`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// Names in a list of the values; the log has them all.
const NAMES_MAX: usize = 50;

/// What the stages came to.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    /// Files to take at the origins.
    pub(crate) files: u64,
    pub(crate) bytes: u64,
    pub(crate) files_now: u64,
    pub(crate) bytes_now: u64,
    /// Files of earlier days that came since those were ingested.
    pub(crate) late: u64,
    pub(crate) unready: Vec<String>,
    pub(crate) refused: Vec<String>,
    pub(crate) quarantined: Vec<String>,
    pub(crate) archives: u64,
    pub(crate) unpacked_now: u64,
    pub(crate) rolls: u64,
    pub(crate) rolls_now: u64,
    pub(crate) superseded: u64,
    pub(crate) defects: u64,
    pub(crate) dirty: u64,
    pub(crate) by_class: BTreeMap<String, u64>,
    pub(crate) by_severity: BTreeMap<String, u64>,
}

impl Summary {
    /// Returns the values.
    pub(crate) fn values(&self, days: &[String]) -> Map<String, Value> {
        let names = |names: &[String]| names.iter().take(NAMES_MAX).cloned().collect::<Vec<_>>();
        let values = json!({
            "days": names(days),
            "files": self.files,
            "bytes": self.bytes,
            "files_now": self.files_now,
            "bytes_now": self.bytes_now,
            "late": self.late,
            "unready": self.unready.len(),
            "refused": self.refused.len(),
            "refused_files": names(&self.refused),
            "quarantined": self.quarantined.len(),
            "quarantined_files": names(&self.quarantined),
            "archives": self.archives,
            "unpacked_now": self.unpacked_now,
            "rolls": self.rolls,
            "rolls_now": self.rolls_now,
            "superseded": self.superseded,
            "defects": self.defects,
            "dirty": self.dirty,
            "by_class": self.by_class,
            "by_severity": self.by_severity,
        });
        match values {
            Value::Object(values) => values,
            _ => Map::new(),
        }
    }
}

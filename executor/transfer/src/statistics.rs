//! What a transfer did, as numbers.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Counts and times of one transfer. Records that failed count as read, not as written.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Statistics {
    /// Records taken from the source, good and dirty.
    pub read_records: u64,
    /// Records that arrived in the target.
    pub written_records: u64,
    /// Records refused by reader or writer.
    pub failed_records: u64,
    /// Records that a transformer took out.
    pub filtered_records: u64,
    /// Size of the read records as `DataX` counts it, in bytes.
    pub read_bytes: u64,
    /// Size of the refused records, in bytes.
    pub failed_bytes: u64,
    /// Whole seconds from start to end.
    pub seconds: u64,
    /// Mean speed in bytes per second.
    pub bytes_per_second: u64,
    /// Mean speed in records per second.
    pub records_per_second: u64,
    /// Start as wall clock of the definition's time zone, `2026-11-21 09:48:00`.
    pub started_at: String,
    /// End as wall clock of the definition's time zone.
    pub ended_at: String,
}

/// Running counts.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Tally {
    pub(crate) read_records: u64,
    pub(crate) read_bytes: u64,
    pub(crate) failed_records: u64,
    pub(crate) failed_bytes: u64,
    pub(crate) written_records: u64,
    /// Records that were read and not yet written.
    pub(crate) in_flight: u64,
    /// Time in which the writer had nothing to do, and in which the reader had to wait.
    pub(crate) wait_reader: Duration,
    pub(crate) wait_writer: Duration,
    pub(crate) tasks: usize,
    pub(crate) finished_tasks: usize,
}

impl Tally {
    /// The share of tasks that have ended, 0 to 1.
    pub(crate) fn progress(&self) -> f64 {
        crate::setting::part_of(
            u64::try_from(self.finished_tasks).unwrap_or(u64::MAX),
            u64::try_from(self.tasks).unwrap_or(u64::MAX),
        )
    }

    pub(crate) fn statistics(&self, elapsed: Duration) -> Statistics {
        // Less than a second counts as one, as in DataX, so that a short transfer has a speed.
        let seconds = elapsed.as_secs().max(1);
        Statistics {
            read_records: self.read_records,
            written_records: self.written_records,
            failed_records: self.failed_records,
            filtered_records: 0,
            read_bytes: self.read_bytes,
            failed_bytes: self.failed_bytes,
            seconds: elapsed.as_secs(),
            bytes_per_second: self.read_bytes / seconds,
            records_per_second: self.read_records / seconds,
            started_at: String::new(),
            ended_at: String::new(),
        }
    }
}

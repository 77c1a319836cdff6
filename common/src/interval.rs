//! The span of time that a run is about.

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// A half-open interval `[start, end)` of wall time. `start` is the logical date of its run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DataInterval {
    /// First instant that belongs to it.
    pub start: Timestamp,
    /// First instant that no longer does; equal to `start` for a run that is about a moment.
    pub end: Timestamp,
}

impl DataInterval {
    /// Makes the interval that is about one moment.
    #[must_use]
    pub const fn at(moment: Timestamp) -> Self {
        Self { start: moment, end: moment }
    }
}

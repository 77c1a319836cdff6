//! Keeps the mean speed of a transfer under the limits of its definition.

use std::time::Duration;

use crate::{plugin::BatchLimit, setting::SpeedLimit};

/// Returns how long to wait so that what was read in `elapsed` stays under the limits.
pub(crate) fn pause(limit: SpeedLimit, bytes: u64, records: u64, elapsed: Duration) -> Duration {
    let due = |count: u64, per_second: Option<u64>| {
        per_second.map_or(Duration::ZERO, |limit| {
            let millis = u128::from(count) * 1000 / u128::from(limit.max(1));
            Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
        })
    };
    due(bytes, limit.bytes).max(due(records, limit.records)).saturating_sub(elapsed)
}

/// Makes batches small enough that one of them is no more than a second's worth.
pub(crate) fn batch_limit(wanted: BatchLimit, limit: SpeedLimit) -> BatchLimit {
    let records = limit.records.and_then(|records| usize::try_from(records).ok()).unwrap_or(usize::MAX);
    BatchLimit {
        records: wanted.records.min(records).max(1),
        bytes: wanted.bytes.min(limit.bytes.unwrap_or(u64::MAX)).max(1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pause_makes_up_for_what_came_too_fast() {
        let limit = SpeedLimit { bytes: Some(1000), records: Some(10) };
        assert_eq!(pause(limit, 500, 20, Duration::from_millis(500)), Duration::from_millis(1500));
        assert_eq!(pause(limit, 5000, 20, Duration::from_secs(1)), Duration::from_secs(4));
        assert_eq!(pause(limit, 500, 5, Duration::from_secs(1)), Duration::ZERO);
        assert_eq!(pause(SpeedLimit::default(), 1 << 40, 1 << 40, Duration::ZERO), Duration::ZERO);
    }

    #[test]
    fn batches_are_at_most_a_second() {
        let wanted = BatchLimit { records: 2048, bytes: 1 << 20 };
        let limit = SpeedLimit { bytes: None, records: Some(100) };
        assert_eq!(batch_limit(wanted, limit), BatchLimit { records: 100, bytes: 1 << 20 });
    }
}

//! How long what was decided waits for more, so that one write to the disk serves many attempts.
//!
//! A write costs the same for one attempt as for fifty, and with many attempts under way nobody sees that theirs waited a
//! moment. With few under way nothing waits: a chain of tasks and a request by a person go straight through. Master and
//! executor follow the same rule.

use std::time::Duration;

/// With fewer live attempts nothing waits: there is not enough under way to hide it.
const ATTEMPTS_MIN: usize = 8;
/// What each live attempt adds: at 3,000 attempts a second, which two cores can start, a tenth of those under way end
/// within the wait, whatever their number.
const PER_ATTEMPT: Duration = Duration::from_micros(31);
/// The longest wait: beyond it the writes are no longer what costs.
const WAIT_MAX: Duration = Duration::from_millis(4);

/// Returns how long to wait for more with so many attempts live.
#[must_use]
pub fn gather_time(live_attempts: usize) -> Duration {
    if live_attempts < ATTEMPTS_MIN {
        return Duration::ZERO;
    }
    PER_ATTEMPT.saturating_mul(u32::try_from(live_attempts).unwrap_or(u32::MAX)).min(WAIT_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_attempts_do_not_wait_and_many_do_not_wait_long() {
        assert_eq!(gather_time(0), Duration::ZERO);
        assert_eq!(gather_time(ATTEMPTS_MIN - 1), Duration::ZERO);
        assert_eq!(gather_time(64), Duration::from_micros(64 * 31));
        assert_eq!(gather_time(usize::MAX), WAIT_MAX);
    }
}

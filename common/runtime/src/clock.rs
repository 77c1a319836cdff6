//! The one place where clocks are read.

use std::time::Duration;

use millrace_common::time::{Clock, Now, Timestamp, Uptime};
use nix::{
    sys::time::TimeSpec,
    time::{ClockId, clock_gettime},
};

/// The machine's clocks. Boot time (`CLOCK_BOOTTIME`) counts suspend, which `Instant` does not.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let wall = read(ClockId::CLOCK_REALTIME);
        let micros = i64::try_from(wall.as_micros()).unwrap_or(i64::MAX);
        Now { wall: Timestamp::from_micros(micros), uptime: Uptime::new(read(ClockId::CLOCK_BOOTTIME)) }
    }
}

/// Reads a clock; both kinds exist on every Linux that this program starts on, and no reading is negative.
fn read(clock: ClockId) -> Duration {
    let reading = clock_gettime(clock).unwrap_or(TimeSpec::new(0, 0));
    let seconds = u64::try_from(reading.tv_sec()).unwrap_or(0);
    Duration::new(seconds, u32::try_from(reading.tv_nsec()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_clocks_go_forward() {
        let first = SystemClock.now();
        let second = SystemClock.now();
        assert!(second.uptime >= first.uptime && first.uptime > Uptime::default());
        assert!(first.wall > Timestamp::parse("2020-01-01T00:00:00Z").unwrap_or_default());
    }
}

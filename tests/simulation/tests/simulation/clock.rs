//! The clocks of one machine. Virtual time is true; they are not.

use std::time::Duration;

use millrace_common::time::{Now, Timestamp, Uptime};

/// Where virtual time begins on a wall clock that is right.
const WALL_BEGIN: i64 = 1_767_225_600_000_000;
const MILLION: i64 = 1_000_000;

/// A boot-time clock whose rate is off by a little, and a wall clock that can be set.
#[derive(Debug, Clone)]
pub(crate) struct Clock {
    rate_ppm: i64,
    booted_at: u64,
    uptime_at_boot: u64,
    wall_offset: i64,
    /// How long the machine was suspended; a clock that is not to be used for deadlines leaves that out.
    suspended: u64,
}

impl Clock {
    pub(crate) const fn new(rate_ppm: i64, uptime_at_begin: u64) -> Self {
        Self { rate_ppm, booted_at: 0, uptime_at_boot: uptime_at_begin, wall_offset: 0, suspended: 0 }
    }

    pub(crate) const fn boot(&mut self, time: u64) {
        (self.booted_at, self.uptime_at_boot, self.suspended) = (time, 0, 0);
    }

    pub(crate) const fn set_wall(&mut self, by: i64) {
        self.wall_offset = by;
    }

    /// Returns how far the wall clock is off.
    pub(crate) const fn wall_error(&self) -> i64 {
        self.wall_offset
    }

    pub(crate) const fn suspend(&mut self, by: u64) {
        self.suspended += by;
    }

    /// Returns microseconds of boot-time at a true time.
    pub(crate) fn uptime(&self, time: u64) -> u64 {
        self.uptime_at_boot + scaled(time - self.booted_at, MILLION + self.rate_ppm, MILLION)
    }

    /// Returns what a clock shows that stops while the machine is suspended.
    pub(crate) fn running(&self, time: u64) -> u64 {
        self.uptime(time).saturating_sub(self.suspended)
    }

    /// Returns the true time at which the boot-time clock shows `uptime`, or a moment later.
    pub(crate) fn time_of(&self, uptime: u64) -> u64 {
        self.booted_at + self.time_for(uptime.saturating_sub(self.uptime_at_boot))
    }

    /// Returns how long it truly takes until the boot-time clock has gone on by `local`, or a moment more.
    pub(crate) fn time_for(&self, local: u64) -> u64 {
        scaled(local, MILLION, MILLION + self.rate_ppm) + 1
    }

    pub(crate) fn wall(&self, time: u64) -> Timestamp {
        Timestamp::from_micros(WALL_BEGIN + i64::try_from(time).unwrap() + self.wall_offset)
    }

    pub(crate) fn now(&self, time: u64) -> Now {
        Now { wall: self.wall(time), uptime: uptime(self.uptime(time)) }
    }
}

/// Makes a reading from microseconds.
pub(crate) const fn uptime(micros: u64) -> Uptime {
    Uptime::new(Duration::from_micros(micros))
}

/// Returns the microseconds of a reading or a span, rounded up: a deadline must have come when it is acted upon.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000)).unwrap()
}

fn scaled(value: u64, by: i64, of: i64) -> u64 {
    let scaled = i128::from(value) * i128::from(by) / i128::from(of);
    u64::try_from(scaled).unwrap()
}

//! Time as values: nothing here reads a clock.
//!
//! Two kinds are kept apart. [`Timestamp`] is wall time, for schedules and for deadlines that must survive a fail-over.
//! [`Uptime`] is a boot-time reading (`CLOCK_BOOTTIME`: it counts suspend, unlike `Instant`), for liveness. A decision
//! takes [`Now`], which carries both.

use std::{
    fmt,
    ops::{Add, Sub},
    time::Duration,
};

use chrono::{DateTime, NaiveDate, NaiveTime, SecondsFormat, TimeDelta, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A point of wall time, in UTC, to the microsecond.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Makes a timestamp from microseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Returns microseconds since 1970-01-01T00:00:00Z.
    #[must_use]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Returns the same point as a calendar value; out-of-range values become 1970.
    #[must_use]
    pub fn to_datetime(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0).unwrap_or_default()
    }

    /// Returns the time since `earlier`, zero where `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// Reads RFC 3339 text such as `2026-01-31T02:30:00Z`; `None` where it is not.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        DateTime::parse_from_rfc3339(text).ok().map(|t| Self(t.timestamp_micros()))
    }

    /// Returns the first moment of a day such as `2026-01-31` in a time zone; `None` where it is not one.
    #[must_use]
    pub fn start_of_day(day: &str, zone: Tz) -> Option<Self> {
        let day = NaiveDate::parse_from_str(day, "%Y-%m-%d").ok().filter(|_| day.len() == 10)?;
        // Where a time change skips midnight, the day begins after the gap, which is an hour or two long.
        let quarter = |at: i64| day.and_time(NaiveTime::MIN) + TimeDelta::minutes(15 * at);
        let first = (0..24 * 4).find_map(|at| quarter(at).and_local_timezone(zone).earliest());
        first.map(|first| first.to_utc().into())
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(time: DateTime<Utc>) -> Self {
        Self(time.timestamp_micros())
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_datetime().to_rfc3339_opts(SecondsFormat::AutoSi, true))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| de::Error::custom(format_args!("{text:?} is not an RFC 3339 time")))
    }
}

/// A reading of the boot-time clock of one machine. Readings of two machines must not be compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Uptime(Duration);

impl Uptime {
    /// Wraps a reading.
    #[must_use]
    pub const fn new(since_boot: Duration) -> Self {
        Self(since_boot)
    }

    /// Returns the time since boot.
    #[must_use]
    pub const fn since_boot(self) -> Duration {
        self.0
    }

    /// Returns the time since `earlier`, zero where `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Uptime {
    type Output = Self;
    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

/// What the clocks say while an input is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// Wall time.
    pub wall: Timestamp,
    /// Boot-time reading of this machine.
    pub uptime: Uptime,
}

/// A source of [`Now`]; the real one is in `millrace-runtime`, simulated ones in tests.
pub trait Clock: Send + Sync {
    /// Reads both clocks.
    fn now(&self) -> Now;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_begins_where_its_zone_says() {
        for (day, zone, start) in [
            ("2026-01-31", Tz::UTC, "2026-01-31T00:00:00Z"),
            ("2026-01-31", Tz::Asia__Shanghai, "2026-01-30T16:00:00Z"),
            ("2026-01-31", Tz::America__Chicago, "2026-01-31T06:00:00Z"),
            // Clocks went from midnight to one o'clock.
            ("2018-11-04", Tz::America__Sao_Paulo, "2018-11-04T03:00:00Z"),
        ] {
            assert_eq!(Timestamp::start_of_day(day, zone), Timestamp::parse(start), "{day} {zone}");
        }
        for wrong in ["2026-02-30", "2026-1-31", "today", ""] {
            assert_eq!(Timestamp::start_of_day(wrong, Tz::UTC), None);
        }
    }
}

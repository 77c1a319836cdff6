//! Points in time as databases hold them: a date, a time of day, or both, without a zone.
//!
//! `DataX` turns these into milliseconds of an epoch and back, in one zone; the wall clock that
//! arrives is the one that left. Keeping the wall clock itself keeps microseconds and the hours
//! that daylight saving skips. The zone is only needed where a number of milliseconds is asked for.

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime, TimeDelta, TimeZone, Utc};
use chrono_tz::Tz;

const MICROS_OF_DAY: i64 = 86_400_000_000;

/// A date, a time of day (or a span of time: `MySQL` knows 838 hours), or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moment {
    Date(NaiveDate),
    /// Microseconds since midnight.
    Time(i64),
    DateTime(NaiveDateTime),
}

impl Moment {
    pub(crate) fn from_unix_millis(millis: i64, zone: Zone) -> Option<Self> {
        let instant = DateTime::from_timestamp_millis(millis)?;
        Some(Self::DateTime(zone.local(instant.naive_utc())))
    }

    /// Milliseconds since 1970 in UTC, for the wall clock of `zone`.
    pub(crate) fn unix_millis(self, zone: Zone) -> Option<i64> {
        Some(zone.utc(self.date_time()?).and_utc().timestamp_millis())
    }

    pub(crate) fn date(self) -> Option<NaiveDate> {
        self.date_time().map(|at| at.date())
    }

    /// Microseconds since midnight.
    pub(crate) fn time(self) -> i64 {
        match self {
            Self::Date(_) => 0,
            Self::Time(micros) => micros,
            Self::DateTime(at) => (at.time() - NaiveTime::MIN).num_microseconds().unwrap_or(0),
        }
    }

    /// Both parts; a time alone is on the first day of 1970, as in Java.
    pub(crate) fn date_time(self) -> Option<NaiveDateTime> {
        match self {
            Self::Date(date) => Some(date.and_time(NaiveTime::MIN)),
            Self::Time(micros) => {
                DateTime::UNIX_EPOCH.naive_utc().checked_add_signed(TimeDelta::microseconds(micros))
            }
            Self::DateTime(at) => Some(at),
        }
    }

    /// The text that SQL reads, with all digits of the fraction that are not zero.
    pub(crate) fn sql_text(self) -> String {
        match self {
            Self::Date(date) => date.format("%Y-%m-%d").to_string(),
            Self::Time(micros) => time_text(micros),
            Self::DateTime(at) => {
                format!("{} {}", at.date().format("%Y-%m-%d"), time_text(self.time()))
            }
        }
    }
}

fn time_text(micros: i64) -> String {
    let sign = if micros < 0 { "-" } else { "" };
    let size = micros.unsigned_abs();
    let seconds = size / 1_000_000;
    let mut text = format!("{sign}{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if !size.is_multiple_of(1_000_000) {
        let fraction = format!(".{:06}", size % 1_000_000);
        text.push_str(fraction.trim_end_matches('0'));
    }
    text
}

/// Parses a time of day or a span, `[-]h:mm:ss[.ffffff]`, into microseconds.
pub(crate) fn parse_time(text: &str) -> Option<i64> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (clock, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let mut fields = clock.split(':').map(|field| field.parse::<u32>().ok());
    let (hours, minutes, seconds) = (fields.next()??, fields.next()??, fields.next()??);
    if fields.next().is_some() || minutes > 59 || seconds > 59 || hours > 838 {
        return None;
    }
    let micros = (i64::from(hours) * 3600 + i64::from(minutes) * 60 + i64::from(seconds)) * 1_000_000
        + fraction_micros(fraction)?;
    Some(if negative { -micros } else { micros })
}

/// Parses the digits after a decimal point of seconds; digits below a microsecond must be zero.
pub(crate) fn fraction_micros(digits: &str) -> Option<i64> {
    if digits.is_empty() || digits.len() > 9 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanos = format!("{digits:0<9}").parse::<i64>().ok()?;
    (nanos % 1000 == 0).then_some(nanos / 1000)
}

/// Says whether the span is a time of day.
pub(crate) fn is_time_of_day(micros: i64) -> bool {
    (0..MICROS_OF_DAY).contains(&micros)
}

/// The zone in which wall clocks become milliseconds: `common.column.timeZone`, by default GMT+8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Zone {
    Fixed(FixedOffset),
    Named(Tz),
}

impl Zone {
    /// The zone that `DataX` uses unless told otherwise.
    pub(crate) const DEFAULT: &'static str = "GMT+8";

    /// Reads `GMT+8`, `GMT+08:00`, `+08:00`, `UTC`, `Asia/Shanghai`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let offset = text.strip_prefix("GMT").or_else(|| text.strip_prefix("UTC")).unwrap_or(text);
        if offset.is_empty() || offset == "Z" {
            return FixedOffset::east_opt(0).filter(|_| !text.is_empty()).map(Self::Fixed);
        }
        if let Some(seconds) = offset_seconds(offset) {
            return FixedOffset::east_opt(seconds).map(Self::Fixed);
        }
        text.parse().ok().map(Self::Named)
    }

    fn local(self, utc: NaiveDateTime) -> NaiveDateTime {
        match self {
            Self::Fixed(offset) => offset.from_utc_datetime(&utc).naive_local(),
            Self::Named(zone) => zone.from_utc_datetime(&utc).naive_local(),
        }
    }

    /// The instant of a wall clock: the first where a clock shows it twice, and where a clock skips
    /// it, the instant that an un-skipped clock would have shown.
    fn utc(self, local: NaiveDateTime) -> NaiveDateTime {
        match self {
            Self::Fixed(offset) => local - offset,
            Self::Named(zone) => match zone.from_local_datetime(&local).earliest() {
                Some(at) => at.naive_utc(),
                None => {
                    let before = local - TimeDelta::days(1);
                    let shift =
                        zone.from_local_datetime(&before).earliest().map(|at| before - at.naive_utc());
                    local - shift.unwrap_or_default()
                }
            },
        }
    }

    /// Wall clock of an instant, as `2026-11-21 09:48:00.123`.
    pub(crate) fn text_with_millis(self, instant: DateTime<Utc>) -> String {
        self.local(instant.naive_utc()).format("%Y-%m-%d %H:%M:%S%.3f").to_string()
    }

    /// Wall clock of an instant, as `2026-11-21 09:48:00`.
    pub(crate) fn text(self, instant: DateTime<Utc>) -> String {
        self.local(instant.naive_utc()).format("%Y-%m-%d %H:%M:%S").to_string()
    }
}

/// The clock of this crate, for the log and the statistics.
pub(crate) fn now() -> DateTime<Utc> {
    #[expect(clippy::disallowed_methods, reason = "shown to people; nothing is decided by it")]
    Utc::now()
}

fn offset_seconds(text: &str) -> Option<i32> {
    let (sign, rest) = match text.as_bytes().first()? {
        b'+' => (1, &text[1..]),
        b'-' => (-1, &text[1..]),
        _ => return None,
    };
    let (hours, minutes) = match rest.split_once(':') {
        Some((hours, minutes)) => (hours, minutes),
        None if rest.len() == 4 => rest.split_at(2),
        None => (rest, "0"),
    };
    let (hours, minutes) = (hours.parse::<i32>().ok()?, minutes.parse::<i32>().ok()?);
    (hours <= 18 && (0..60).contains(&minutes)).then_some(sign * (hours * 3600 + minutes * 60))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]
    use super::*;

    fn at(text: &str) -> Moment {
        Moment::DateTime(NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f").unwrap())
    }

    #[test]
    fn milliseconds_are_those_of_the_recorded_logs() {
        let zone = Zone::parse(Zone::DEFAULT).unwrap();
        assert_eq!(at("2024-02-29 12:34:56.789").unix_millis(zone), Some(1_709_181_296_789));
        assert_eq!(Moment::Date("2024-02-29".parse().unwrap()).unix_millis(zone), Some(1_709_136_000_000));
        assert_eq!(Moment::Time(parse_time("12:34:56").unwrap()).unix_millis(zone), Some(16_496_000));
        assert_eq!(Moment::from_unix_millis(1_709_181_296_789, zone), Some(at("2024-02-29 12:34:56.789")));
    }

    #[test]
    fn zones_are_read_in_every_usual_spelling() {
        for text in ["GMT+8", "GMT+08:00", "+08:00", "UTC+8", "+0800", "Asia/Shanghai"] {
            let zone = Zone::parse(text).unwrap();
            assert_eq!(at("1999-12-31 08:00:00").unix_millis(zone), Some(946_598_400_000), "{text}");
        }
        assert!(
            Zone::parse("UTC").is_some() && Zone::parse("Mars/Base").is_none() && Zone::parse("").is_none()
        );
    }

    #[test]
    fn skipped_and_doubled_hours_have_an_instant() {
        let zone = Zone::parse("Europe/Berlin").unwrap();
        assert_eq!(at("2024-03-31 02:30:00").unix_millis(zone), at("2024-03-31 03:30:00").unix_millis(zone));
        assert_eq!(at("2024-10-27 02:30:00").unix_millis(zone), Some(1_729_989_000_000));
    }

    #[test]
    fn spans_beyond_a_day_keep_their_text() {
        for text in ["838:59:59", "-01:02:03.5", "00:00:00", "23:59:59.999999"] {
            assert_eq!(Moment::Time(parse_time(text).unwrap()).sql_text(), text);
        }
        assert_eq!(parse_time("24:60:00"), None);
        assert_eq!(parse_time("1:2"), None);
    }

    #[test]
    fn sql_text_keeps_microseconds() {
        assert_eq!(at("2024-02-29 12:34:56.000001").sql_text(), "2024-02-29 12:34:56.000001");
        assert_eq!(at("2024-02-29 12:34:56").sql_text(), "2024-02-29 12:34:56");
    }
}

//! Cron expressions: points of wall time in a time zone.
//!
//! The engine is croner. A fire in the gap of a time change happens once, after it; one in an overlap happens once.

use std::sync::Arc;

use chrono::DateTime;
use chrono_tz::Tz;
use croner::parser::{CronParser, Seconds, Year};

use super::{ScheduleError, floor_to_second};
use crate::time::Timestamp;

/// Characters of a cron expression; the longest list of minutes fits.
pub const CRON_CHARS_MAX: usize = 300;

/// A cron expression as it was written, and what it means.
#[derive(Debug, Clone, PartialEq)]
pub struct Cron {
    text: String,
    pattern: Arc<croner::Cron>,
}

impl Cron {
    /// Reads an expression of 5 fields (POSIX: Sunday is 0 and 7), of 6 fields with seconds first, or a nickname.
    ///
    /// # Errors
    /// Where a field does not read, or no date matches.
    pub fn parse(text: &str) -> Result<Self, ScheduleError> {
        let text = text.trim();
        if text.len() > CRON_CHARS_MAX {
            return Err(ScheduleError::TooLong);
        }
        let fields = if text.starts_with('@') { nickname(text)? } else { text };
        match fields.split_whitespace().count() {
            5 | 6 => {}
            7 => return Err(ScheduleError::YearField),
            other => return Err(ScheduleError::Fields(other)),
        }
        check_names(fields)?;
        let parser = CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build();
        let pattern =
            parser.parse(fields).map_err(|source| ScheduleError::Cron { text: text.to_owned(), source })?;
        // The Gregorian calendar repeats within 400 years; what does not match from here matches nowhere.
        if pattern.find_next_occurrence(&DateTime::UNIX_EPOCH, false).is_err() {
            return Err(ScheduleError::Never(text.to_owned()));
        }
        Ok(Self { text: text.to_owned(), pattern: Arc::new(pattern) })
    }

    /// Returns the expression as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn next(&self, timezone: Tz, after: Timestamp) -> Option<Timestamp> {
        let from = floor_to_second(after).to_datetime().with_timezone(&timezone);
        let next = self.pattern.find_next_occurrence(&from, false).ok()?;
        Some(next.to_utc().into()).filter(|next| *next > after)
    }

    pub(super) fn last(&self, timezone: Tz, until: Timestamp) -> Option<Timestamp> {
        let from = floor_to_second(until).to_datetime().with_timezone(&timezone);
        let last = self.pattern.find_previous_occurrence(&from, true).ok()?;
        Some(last.to_utc().into()).filter(|last| *last <= until)
    }
}

fn nickname(text: &str) -> Result<&'static str, ScheduleError> {
    match text {
        "@hourly" => Ok("0 * * * *"),
        "@daily" | "@midnight" => Ok("0 0 * * *"),
        "@weekly" => Ok("0 0 * * 0"),
        "@monthly" => Ok("0 0 1 * *"),
        "@yearly" | "@annually" => Ok("0 0 1 1 *"),
        other => Err(ScheduleError::Nickname(other.to_owned())),
    }
}

/// Refuses letters that are no name of a day or month: the parser replaces names inside words, so `1SUN` would be 10.
fn check_names(fields: &str) -> Result<(), ScheduleError> {
    const NAMES: &str = "SUN MON TUE WED THU FRI SAT JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC";
    for part in fields.split(|c: char| c.is_whitespace() || matches!(c, ',' | '-' | '/' | '#')) {
        let letters = part.trim_start_matches(|c: char| c.is_ascii_digit()).to_ascii_uppercase();
        let has_number = letters.len() < part.len();
        let is_modifier = matches!(letters.as_str(), "" | "*" | "?" | "L" | "W" | "LW");
        let name = letters.strip_suffix('L').filter(|name| name.len() == 3).unwrap_or(&letters);
        let is_name = !has_number && name.len() == 3 && NAMES.split(' ').any(|known| known == name);
        let is_both = part.starts_with('+') && part.len() > 1;
        if !(is_modifier || is_name || is_both) {
            return Err(ScheduleError::Part(part.to_owned()));
        }
    }
    Ok(())
}

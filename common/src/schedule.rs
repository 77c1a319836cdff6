//! When a workflow runs by itself: a schedule turns time into data intervals.
//!
//! All of it is pure: the time is an argument, and the only memory is the *cursor*, the end of the last interval that
//! fired or was skipped. Fires of a cron expression are points of wall time in its time zone; an interval reaches from one
//! fire to the next and is due at its end. Fires of `every` count from the cursor. Calendars (workdays, holidays) are
//! deliberately absent.

mod cron;

use std::{fmt, str::FromStr, time::Duration};

use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::cron::{CRON_CHARS_MAX, Cron};
use crate::{
    interval::DataInterval,
    text::{QuantityError, ShowDuration, parse_duration},
    time::Timestamp,
};

/// A fire this much later than its time counts as missed. Longer than a fail-over, shorter than people notice.
pub const MISFIRE_TOLERANCE: Duration = Duration::from_secs(60);
/// Intervals that one call of [`Schedule::due`] fires; the rest follows at the next call.
pub const FIRES_MAX: usize = 100;
/// Skipped intervals that are counted; where there are more the count says so.
pub const SKIPPED_COUNT_MAX: u64 = 1_000;
/// The shortest `every`.
pub const EVERY_MIN: Duration = Duration::from_secs(1);
/// The longest `every`: ten years; longer ones are mistakes.
pub const EVERY_MAX: Duration = Duration::from_secs(3_660 * 86_400);

/// When a workflow runs by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// What makes it fire.
    pub trigger: Trigger,
    /// Where its wall time is read.
    pub timezone: Tz,
    /// Whether every interval since the cursor runs, or only the latest.
    pub catchup: bool,
    /// What happens to intervals that are late.
    pub misfire: Misfire,
}

/// What makes a schedule fire.
#[derive(Debug, Clone, PartialEq)]
pub enum Trigger {
    /// Points of wall time.
    Cron(Cron),
    /// A fixed distance, counted from the cursor.
    Every(Duration),
}

/// What happens to a fire that is later than [`MISFIRE_TOLERANCE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Misfire {
    /// It is skipped.
    Skip,
    /// The latest missed one runs, earlier ones are skipped.
    #[default]
    Once,
    /// Every one runs.
    All,
}

impl Misfire {
    /// Returns the name that documents use.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Once => "once",
            Self::All => "all",
        }
    }
}

/// What [`Schedule::due`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Intervals to run now, in order, at most [`FIRES_MAX`].
    pub fire: Vec<DataInterval>,
    /// Intervals that will never run by themselves.
    pub skipped: Option<Skipped>,
    /// The cursor for the next call.
    pub cursor: Timestamp,
    /// When to call again; in the past where more than [`FIRES_MAX`] intervals are due, absent where it never fires again.
    pub next: Option<Timestamp>,
}

/// Intervals that were passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Skipped {
    /// How many, counted up to [`SKIPPED_COUNT_MAX`].
    pub count: u64,
    /// Whether `count` is all of them.
    pub is_exact: bool,
    /// The earliest.
    pub first: DataInterval,
    /// The latest.
    pub last: DataInterval,
}

/// Why a text is not a schedule.
#[derive(Debug, Error)]
pub enum ScheduleError {
    /// The number of fields is wrong.
    #[error("a cron expression has 5 fields, or 6 with seconds first, this one has {0}")]
    Fields(usize),
    /// The year field of Quartz.
    #[error("a cron expression has no year field, remove the seventh field")]
    YearField,
    /// A nickname that is not known.
    #[error("{0:?} is not one of @hourly, @daily, @weekly, @monthly, @yearly, @every <duration>")]
    Nickname(String),
    /// A part that is none of a number, a range, a list, a step or a name.
    #[error("{0:?} is not a part of a cron expression")]
    Part(String),
    /// The expression is too long to be meant.
    #[error("a cron expression has at most {CRON_CHARS_MAX} characters")]
    TooLong,
    /// A field does not read.
    #[error("the cron expression {text:?} does not read")]
    Cron {
        /// The expression.
        text: String,
        /// What the parser says.
        #[source]
        source: croner::errors::CronError,
    },
    /// No date matches, as on 30 February.
    #[error("the cron expression {0:?} never fires")]
    Never(String),
    /// The distance does not read.
    #[error("the distance between runs does not read")]
    Every(#[source] QuantityError),
    /// The distance is out of bounds.
    #[error("the distance between runs is between 1s and 3660d, not {}", ShowDuration(*.0))]
    EveryRange(Duration),
    /// The name is not in the time zone database.
    #[error("{0:?} is not a time zone of the IANA database, such as Asia/Shanghai")]
    Timezone(String),
    /// `catchup: false` runs the latest interval alone, `misfire: all` every one.
    #[error("misfire: all needs catchup: true")]
    Contradiction,
}

impl ScheduleError {
    /// Returns what to do about it, where that is not plain.
    #[must_use]
    pub const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Fields(_) => Some("minute hour day month weekday, as in `30 2 * * *`"),
            Self::YearField => Some("a workflow that runs once is started by hand"),
            _ => None,
        }
    }

    /// Returns the error with its cause, for places that show one line.
    #[must_use]
    pub fn chain(&self) -> String {
        match std::error::Error::source(self) {
            Some(source) => format!("{self}: {}", source.to_string().trim_end_matches('.')),
            None => self.to_string(),
        }
    }
}

/// Reads the name of a time zone.
///
/// # Errors
/// Where the IANA database has no such zone.
pub fn parse_timezone(name: &str) -> Result<Tz, ScheduleError> {
    Tz::from_str(name).map_err(|_| ScheduleError::Timezone(name.to_owned()))
}

fn floor_to_second(time: Timestamp) -> Timestamp {
    Timestamp::from_micros(time.as_micros().div_euclid(1_000_000).saturating_mul(1_000_000))
}

fn just_before(time: Timestamp) -> Timestamp {
    time - Duration::from_micros(1)
}

impl Trigger {
    /// Makes a trigger that fires at a fixed distance.
    ///
    /// # Errors
    /// Where the distance is outside [`EVERY_MIN`] to [`EVERY_MAX`].
    pub fn every(distance: Duration) -> Result<Self, ScheduleError> {
        if (EVERY_MIN..=EVERY_MAX).contains(&distance) {
            Ok(Self::Every(distance))
        } else {
            Err(ScheduleError::EveryRange(distance))
        }
    }
}

impl FromStr for Trigger {
    type Err = ScheduleError;

    /// Reads a cron expression, a nickname, or `@every` with a duration.
    fn from_str(text: &str) -> Result<Self, ScheduleError> {
        match text.trim().strip_prefix("@every ") {
            Some(distance) => Self::every(parse_duration(distance).map_err(ScheduleError::Every)?),
            None => Cron::parse(text).map(Self::Cron),
        }
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.trigger, self.timezone.name())
    }
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cron(cron) => f.write_str(cron.as_str()),
            Self::Every(distance) => write!(f, "@every {}", ShowDuration(*distance)),
        }
    }
}

impl Schedule {
    /// Reads a trigger and a time zone; missed intervals are not made up for, except that the latest runs.
    ///
    /// # Errors
    /// Where either does not read.
    pub fn parse(trigger: &str, timezone: &str) -> Result<Self, ScheduleError> {
        Ok(Self {
            trigger: trigger.parse()?,
            timezone: parse_timezone(timezone)?,
            catchup: false,
            misfire: Misfire::Once,
        })
    }

    /// Sets what happens to missed intervals. What is not given follows from the other: `misfire: all` catches up,
    /// and catching up misses nothing.
    ///
    /// # Errors
    /// Where the two contradict each other.
    pub fn missed(mut self, catchup: Option<bool>, misfire: Option<Misfire>) -> Result<Self, ScheduleError> {
        self.catchup = catchup.unwrap_or(misfire == Some(Misfire::All));
        self.misfire = misfire.unwrap_or(if self.catchup { Misfire::All } else { Misfire::Once });
        if self.misfire == Misfire::All && !self.catchup {
            return Err(ScheduleError::Contradiction);
        }
        Ok(self)
    }

    /// Returns the cursor of a schedule that begins now: the interval under way is the first to fire.
    #[must_use]
    pub fn first_cursor(now: Timestamp) -> Timestamp {
        floor_to_second(now)
    }

    /// Returns the first interval that ends after `cursor`; absent where there is no further fire.
    #[must_use]
    pub fn next_interval(&self, cursor: Timestamp) -> Option<DataInterval> {
        self.next_fire(cursor).map(|end| self.interval_until(end))
    }

    /// Decides which intervals run now and which never will.
    ///
    /// Without catch-up the latest due interval alone can run. Late ones then follow the misfire policy.
    #[must_use]
    pub fn due(&self, cursor: Timestamp, now: Timestamp) -> Due {
        let Some(latest) = self.last_fire(cursor, now).filter(|latest| *latest > cursor) else {
            return Due { fire: Vec::new(), skipped: None, cursor, next: self.next_fire(cursor) };
        };
        let first = self.first_to_run(cursor, latest, now);
        let skipped = self.skipped(cursor, first);
        // For `every` the distance is counted from the cursor, so the search must start at a fire.
        let mut at = self.last_fire(cursor, just_before(first)).map_or(cursor, |last| last.max(cursor));
        let mut fire = Vec::new();
        while fire.len() < FIRES_MAX
            && let Some(end) = self.next_fire(at).filter(|end| *end <= now)
        {
            fire.push(self.interval_until(end));
            at = end;
        }
        let cursor = if fire.len() < FIRES_MAX { latest.max(at) } else { at };
        Due { fire, skipped, cursor, next: self.next_fire(cursor) }
    }

    /// Returns a time so that intervals ending before it are skipped and the others run.
    fn first_to_run(&self, cursor: Timestamp, latest: Timestamp, now: Timestamp) -> Timestamp {
        let in_time = now - MISFIRE_TOLERANCE;
        match (self.catchup, self.misfire) {
            (false, Misfire::Skip) => latest.max(in_time),
            (false, Misfire::Once | Misfire::All) => latest,
            (true, Misfire::Skip) => in_time,
            (true, Misfire::Once) => self.last_fire(cursor, just_before(in_time)).unwrap_or(in_time),
            (true, Misfire::All) => cursor,
        }
    }

    fn skipped(&self, cursor: Timestamp, until: Timestamp) -> Option<Skipped> {
        let first = self.next_interval(cursor).filter(|first| first.end < until)?;
        let last_end = self.last_fire(cursor, just_before(until)).unwrap_or(first.end);
        let mut count = 1;
        let mut at = first.end;
        while count < SKIPPED_COUNT_MAX
            && let Some(end) = self.next_fire(at).filter(|end| *end < until)
        {
            count += 1;
            at = end;
        }
        Some(Skipped { count, is_exact: at == last_end, first, last: self.interval_until(last_end) })
    }

    fn next_fire(&self, after: Timestamp) -> Option<Timestamp> {
        match &self.trigger {
            Trigger::Cron(cron) => cron.next(self.timezone, after),
            Trigger::Every(distance) => Some(after + *distance).filter(|next| *next > after),
        }
    }

    /// Returns the last fire at or before `until`; those of `every` are counted from `cursor`, which is one of them.
    fn last_fire(&self, cursor: Timestamp, until: Timestamp) -> Option<Timestamp> {
        match &self.trigger {
            Trigger::Cron(cron) => cron.last(self.timezone, until),
            Trigger::Every(distance) => {
                let step = i64::try_from(distance.as_micros()).ok().filter(|step| *step > 0)?;
                let passed =
                    until.as_micros().checked_sub(cursor.as_micros()).filter(|passed| *passed >= 0)?;
                Some(Timestamp::from_micros(cursor.as_micros() + passed / step * step))
            }
        }
    }

    fn interval_until(&self, end: Timestamp) -> DataInterval {
        let start = match &self.trigger {
            Trigger::Cron(cron) => cron.last(self.timezone, just_before(end)).unwrap_or(end),
            Trigger::Every(distance) => end - *distance,
        };
        DataInterval { start, end }
    }
}

#[cfg(test)]
mod tests;

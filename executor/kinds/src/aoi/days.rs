//! Which days are ingested.
//!
//! A day is the date of a dated folder. An interval stands for the days from that of its start up to, not including,
//! that of its end; an interval within one day stands for this day. So a run at 02:30 for the span since yesterday 02:30
//! ingests yesterday, and a back-fill of a week ingests its seven days.

use std::collections::BTreeSet;

use chrono::{DateTime, Days as Offset, FixedOffset, NaiveDate, NaiveDateTime, NaiveTime};
use chrono_tz::Tz;
use millrace_common::kind::aoi::{AoiWith, Interval};

use crate::launch::Misfit;

/// Days of one attempt: a year, which is more than one attempt should take on.
const DAYS_MAX: usize = 366;

/// The days of an attempt.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Days {
    /// Those that the run is about, ascending.
    pub(crate) main: Vec<NaiveDate>,
    /// Earlier ones that are looked at again, ascending.
    pub(crate) earlier: Vec<NaiveDate>,
}

impl Days {
    /// Reads the days of the parameters.
    pub(crate) fn read(with: &AoiWith) -> Result<Self, Misfit> {
        let main = match (&with.days, &with.interval) {
            (Some(days), None) => read_list(days)?,
            (None, Some(interval)) => read_interval(interval, with.timezone.as_deref())?,
            (Some(_), Some(_)) => {
                return Err(Misfit::new("days", "stands beside `interval`; keep one of them"));
            }
            (None, None) => {
                let hint = "{ start: \"{{ data_interval_start }}\", end: \"{{ data_interval_end }}\" }";
                return Err(Misfit::new(
                    "interval",
                    format!("is missing; write `interval: {hint}` or a list of `days`"),
                ));
            }
        };
        let first = main.first().copied().unwrap_or_default();
        let lookback = (1..=u64::from(with.lookback_days)).rev();
        let earlier: Vec<NaiveDate> =
            lookback.filter_map(|back| first.checked_sub_days(Offset::new(back))).collect();
        let count = main.len() + earlier.len();
        if count > DAYS_MAX {
            return Err(Misfit::new(
                "interval",
                format!("covers {count} days with `lookback_days`, at most {DAYS_MAX} are taken"),
            ));
        }
        Ok(Self { main, earlier })
    }

    /// Returns all days, ascending.
    pub(crate) fn all(&self) -> impl Iterator<Item = NaiveDate> {
        self.earlier.iter().chain(&self.main).copied()
    }

    /// Tells whether a day is one that is only looked at again.
    pub(crate) fn is_earlier(&self, day: NaiveDate) -> bool {
        self.earlier.contains(&day)
    }
}

fn read_list(days: &[String]) -> Result<Vec<NaiveDate>, Misfit> {
    if days.is_empty() {
        return Err(Misfit::new("days", "is empty; name at least one day or use `interval`"));
    }
    let read = days.iter().enumerate().map(|(index, text)| {
        read_day(text).ok_or_else(|| {
            Misfit::new(
                format!("days[{index}]"),
                format!("{text:?} is not a day such as 2018-07-25 or 2018/07/25"),
            )
        })
    });
    Ok(read.collect::<Result<BTreeSet<_>, _>>()?.into_iter().collect())
}

fn read_day(text: &str) -> Option<NaiveDate> {
    ["%Y-%m-%d", "%Y/%m/%d", "%Y%m%d"]
        .iter()
        .find_map(|format| NaiveDate::parse_from_str(text.trim(), format).ok())
}

fn read_interval(interval: &Interval, timezone: Option<&str>) -> Result<Vec<NaiveDate>, Misfit> {
    let timezone = timezone.map(read_timezone).transpose()?;
    let start = read_instant("interval.start", &interval.start, timezone)?;
    let end = read_instant("interval.end", &interval.end, timezone)?;
    if end < start {
        return Err(Misfit::new("interval.end", format!("{end} lies before the start {start}")));
    }
    let days: Vec<NaiveDate> =
        start.date().iter_days().take_while(|day| *day < end.date()).take(DAYS_MAX + 1).collect();
    Ok(if days.is_empty() { vec![start.date()] } else { days })
}

fn read_timezone(name: &str) -> Result<Tz, Misfit> {
    name.parse()
        .map_err(|_| Misfit::new("timezone", format!("{name:?} is not a time zone such as Asia/Shanghai")))
}

fn read_instant(parameter: &str, text: &str, timezone: Option<Tz>) -> Result<NaiveDateTime, Misfit> {
    let text = text.trim();
    if let Some(day) = read_day(text) {
        return Ok(day.and_time(NaiveTime::MIN));
    }
    let instant: DateTime<FixedOffset> = DateTime::parse_from_rfc3339(text)
        .or_else(|_| DateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S%.f%:z"))
        .map_err(|_| {
            Misfit::new(parameter, format!("{text:?} is not an instant such as 2018-07-25T02:30:00+08:00"))
        })?;
    Ok(timezone.map_or_else(|| instant.naive_local(), |zone| instant.with_timezone(&zone).naive_local()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn days(mut with: Value) -> Result<Vec<String>, String> {
        with["sources"] = json!(["pva"]);
        let with: AoiWith = serde_json::from_value(with).unwrap();
        let days = Days::read(&with).map_err(|misfit| format!("with.{}: {}", misfit.path, misfit.problem))?;
        Ok(days.all().map(|day| format!("{}{day}", if days.is_earlier(day) { "-" } else { "" })).collect())
    }

    #[test]
    fn an_interval_stands_for_the_days_that_it_begins() {
        let interval =
            |start: &str, end: &str| days(json!({ "interval": { "start": start, "end": end } })).unwrap();
        assert_eq!(interval("2018-07-25T02:30:00+08:00", "2018-07-26T02:30:00+08:00"), ["2018-07-25"]);
        assert_eq!(interval("2018-07-25T00:00:00Z", "2018-07-26T00:00:00Z"), ["2018-07-25"]);
        assert_eq!(interval("2018-07-25T10:00:00Z", "2018-07-25T11:00:00Z"), ["2018-07-25"]);
        assert_eq!(interval("2018-07-30 02:30:00+00:00", "2018-08-01"), ["2018-07-30", "2018-07-31"]);
    }

    #[test]
    fn a_time_zone_decides_which_day_an_instant_lies_in() {
        let with = |zone: Option<&str>| {
            let interval = json!({ "start": "2018-07-24T18:30:00Z", "end": "2018-07-25T18:30:00Z" });
            days(json!({ "interval": interval, "timezone": zone }))
        };
        assert_eq!(with(None).unwrap(), ["2018-07-24"]);
        assert_eq!(with(Some("Asia/Shanghai")).unwrap(), ["2018-07-25"]);
        assert!(with(Some("Asia/Peking")).unwrap_err().contains("timezone"));
    }

    #[test]
    fn listed_days_are_ordered_and_looked_back_from() {
        let with = json!({ "days": ["2018/07/25", "20180723", "2018-07-25"], "lookback_days": 2 });
        assert_eq!(days(with).unwrap(), ["-2018-07-21", "-2018-07-22", "2018-07-23", "2018-07-25"]);
    }

    #[test]
    fn what_is_not_a_day_is_told_with_its_place() {
        assert!(days(json!({})).unwrap_err().contains("data_interval_start"));
        assert!(days(json!({ "days": [] })).unwrap_err().contains("empty"));
        assert!(days(json!({ "days": ["2018-07-25", "25.07."] })).unwrap_err().contains("with.days[1]"));
        assert!(
            days(json!({ "days": ["2018-07-25"], "lookback_days": 400 })).unwrap_err().contains("401 days")
        );
        let backwards = json!({ "interval": { "start": "2018-07-26", "end": "2018-07-25" } });
        assert!(days(backwards).unwrap_err().contains("before the start"));
        let endless = json!({ "interval": { "start": "0001-01-01", "end": "9999-01-01" } });
        assert!(days(endless).unwrap_err().contains("367 days"));
    }
}

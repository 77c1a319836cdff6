//! What holds for the whole definition: channels, speed, error limit, conversions.

use std::time::Duration;

use encoding_rs::{Encoding, UTF_16BE, UTF_16LE};

use crate::{convert::Conversion, moment::Zone, parameter::Section, pattern::Pattern};

/// `job.setting`, `common.column` and the part of `core` that is understood.
#[derive(Debug, Clone)]
pub(crate) struct Setting {
    pub(crate) channels: u64,
    pub(crate) speed: SpeedLimit,
    pub(crate) error_limit: ErrorLimit,
    pub(crate) conversion: Conversion,
    /// `core.container.job.reportInterval`.
    pub(crate) report_interval: Option<Duration>,
}

/// Limits of all channels together, per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct SpeedLimit {
    pub(crate) bytes: Option<u64>,
    pub(crate) records: Option<u64>,
}

/// How many dirty records are bearable. Without either part any number is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct ErrorLimit {
    /// More than this many fail, at once.
    pub(crate) records: Option<u64>,
    /// More than this part of all records fails, at the end. Not looked at where `records` is set.
    pub(crate) part: Option<f64>,
}

impl ErrorLimit {
    /// Says whether `failed` records are too many while records still come.
    pub(crate) fn is_passed(&self, failed: u64) -> bool {
        self.records.is_some_and(|limit| failed > limit)
    }

    /// Says whether `failed` of `total` records are too many at the end.
    pub(crate) fn is_passed_at_end(&self, failed: u64, total: u64) -> bool {
        match (self.records, self.part) {
            (Some(_), _) => self.is_passed(failed),
            (None, Some(limit)) => failed > 0 && part_of(failed, total) > limit,
            (None, None) => false,
        }
    }
}

/// The failed part of all records; 0 where there are none.
pub(crate) fn part_of(failed: u64, total: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a part needs no more than 52 bits")]
    if total == 0 { 0.0 } else { failed as f64 / total as f64 }
}

impl Setting {
    pub(crate) fn parse(root: &Section<'_>) -> Self {
        let setting = root.descend("job.setting");
        setting.note_unknown(&["speed", "errorLimit", "dryRun", "keyVersion"]);
        let findings = root.findings();
        if setting.flag("dryRun") == Some(true) {
            findings.foreign("job.setting.dryRun asks for a check without transfer");
        }
        if setting.get("keyVersion").is_some() {
            findings.foreign("job.setting.keyVersion asks for encrypted values");
        }
        let core = root.section("core");
        core.note_unknown(&["container", "transport", "statistics"]);
        let (channels, speed) = channels(&setting.section("speed"), &core.descend("transport.channel.speed"));
        Self {
            channels,
            speed,
            error_limit: error_limit(&setting.section("errorLimit")),
            conversion: conversion(&root.descend("common.column")),
            report_interval: core.descend("container.job").limit("reportInterval").map(Duration::from_millis),
        }
    }
}

/// Bytes or records per second decide the number of channels; only without both `channel` does.
fn channels(speed: &Section<'_>, core: &Section<'_>) -> (u64, SpeedLimit) {
    let by_bytes = channels_for(speed, core, "byte");
    let by_records = channels_for(speed, core, "record");
    let limited = by_bytes.into_iter().chain(by_records).min();
    let channels = limited.or_else(|| speed.limit("channel")).unwrap_or_else(|| {
        speed.problem("channel", "is required: set job.setting.speed.channel to 1 or more");
        1
    });
    // A limit of each channel alone counts for all channels together.
    let total = |key| speed.limit(key).or_else(|| core.limit(key)?.checked_mul(channels));
    (channels, SpeedLimit { bytes: total("byte"), records: total("record") })
}

fn channels_for(speed: &Section<'_>, core: &Section<'_>, key: &str) -> Option<u64> {
    let total = speed.limit(key)?;
    match core.limit(key) {
        Some(each) => Some((total / each).max(1)),
        None => {
            let needed = core.path(key);
            speed.problem(key, format!("needs a limit of each channel: set {needed} to more than 0"));
            None
        }
    }
}

fn error_limit(section: &Section<'_>) -> ErrorLimit {
    section.note_unknown(&["record", "percentage"]);
    let part = section.number("percentage");
    if part.is_some_and(|part| !(0.0..=1.0).contains(&part)) {
        section.problem("percentage", "must be between 0 and 1, where 0.02 means two percent");
    }
    ErrorLimit { records: section.count("record"), part }
}

fn conversion(section: &Section<'_>) -> Conversion {
    section.note_unknown(&[
        "datetimeFormat",
        "dateFormat",
        "timeFormat",
        "extraFormats",
        "timeZone",
        "encoding",
    ]);
    let default = Conversion::default();
    let extra = section.texts("extraFormats");
    Conversion {
        zone: zone(section).unwrap_or(default.zone),
        date_time: pattern(section, "datetimeFormat").unwrap_or(default.date_time),
        date: pattern(section, "dateFormat").unwrap_or(default.date),
        time: pattern(section, "timeFormat").unwrap_or(default.time),
        extra: if extra.is_empty() {
            default.extra
        } else {
            extra.iter().filter_map(|text| checked_pattern(section, "extraFormats", text)).collect()
        },
        encoding: encoding(section, "encoding").unwrap_or(default.encoding),
    }
}

fn zone(section: &Section<'_>) -> Option<Zone> {
    let text = section.text("timeZone")?;
    let zone = Zone::parse(&text);
    if zone.is_none() {
        section.problem("timeZone", format!("{text:?} is no time zone; write GMT+8 or Asia/Shanghai"));
    }
    zone
}

/// Reads a date pattern; one that only Java understands needs an external `DataX`.
pub(crate) fn pattern(section: &Section<'_>, key: &str) -> Option<Pattern> {
    let text = section.text(key).filter(|text| !text.is_empty())?;
    checked_pattern(section, key, &text)
}

fn checked_pattern(section: &Section<'_>, key: &str, text: &str) -> Option<Pattern> {
    let pattern = Pattern::parse(text);
    if pattern.is_none() {
        let path = section.path(key);
        section.findings().foreign(format!("{path} {text:?} has letters that are not supported"));
    }
    pattern
}

/// Reads the name of an encoding that can be read and written.
pub(crate) fn encoding(section: &Section<'_>, key: &str) -> Option<&'static Encoding> {
    let label = section.text(key).filter(|label| !label.trim().is_empty())?;
    let found = Encoding::for_label(label.trim().as_bytes());
    match found {
        None => section.problem(key, format!("{label:?} is no known encoding; write utf-8 or gbk")),
        Some(encoding) if encoding == UTF_16LE || encoding == UTF_16BE => {
            section.findings().foreign(format!("{} {label:?} is not supported", section.path(key)));
        }
        Some(_) => {}
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameter::{Findings, Found};
    use serde_json::{Value, json};

    fn parse(value: &Value) -> (Setting, Found) {
        let findings = Findings::default();
        let setting = Setting::parse(&Section::root(value, &findings));
        (setting, findings.finish())
    }

    fn speed(speed: &Value, core: &Value) -> (u64, SpeedLimit, usize) {
        let value = json!({
            "job": {"setting": {"speed": speed}},
            "core": {"transport": {"channel": {"speed": core}}},
        });
        let (setting, found) = parse(&value);
        (setting.channels, setting.speed, found.problems.len())
    }

    #[test]
    fn channel_count_follows_the_formula() {
        let limit = |bytes, records| SpeedLimit { bytes, records };
        assert_eq!(speed(&json!({"channel": 3}), &json!({})), (3, limit(None, None), 0));
        assert_eq!(
            speed(&json!({"channel": 9, "byte": 4000}), &json!({"byte": 1000})),
            (4, limit(Some(4000), None), 0)
        );
        assert_eq!(
            speed(&json!({"byte": 4000, "record": 20}), &json!({"byte": 1000, "record": 10})),
            (2, limit(Some(4000), Some(20)), 0)
        );
        assert_eq!(speed(&json!({"byte": 10}), &json!({"byte": 1000})).0, 1);
        assert_eq!(speed(&json!({"channel": 2}), &json!({"record": 10})).1, limit(None, Some(20)));
    }

    #[test]
    fn speed_must_be_set_and_limits_need_channel_limits() {
        assert_eq!(speed(&json!({}), &json!({})).2, 1);
        assert_eq!(speed(&json!({"channel": 0}), &json!({})).2, 1);
        assert_eq!(speed(&json!({"byte": 10, "channel": 1}), &json!({"byte": -1})).2, 1);
    }

    #[test]
    fn error_limit_is_strictly_more_and_percentage_is_for_the_end() {
        let records = ErrorLimit { records: Some(1), part: Some(0.0) };
        assert!(!records.is_passed(1) && records.is_passed(2) && !records.is_passed_at_end(1, 1));
        let part = ErrorLimit { records: None, part: Some(0.5) };
        assert!(!part.is_passed(99) && !part.is_passed_at_end(1, 2) && part.is_passed_at_end(2, 3));
        assert!(!ErrorLimit::default().is_passed_at_end(5, 5));
        let zero = ErrorLimit { records: None, part: Some(0.0) };
        assert!(!zero.is_passed_at_end(0, 5) && zero.is_passed_at_end(1, 5));
    }

    #[test]
    fn bad_settings_are_problems() {
        let (_, found) = parse(&json!({
            "job": {"setting": {"speed": {"channel": 1}, "errorLimit": {"percentage": 5}}},
            "common": {"column": {"timeZone": "Mars", "encoding": "klingon"}},
        }));
        let paths: Vec<_> = found.problems.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(
            paths,
            ["job.setting.errorLimit.percentage", "common.column.timeZone", "common.column.encoding"]
        );
    }
}

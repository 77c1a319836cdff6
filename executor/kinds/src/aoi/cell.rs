//! Cells of a report: texts, lengths and times as the cameras write them.
//!
//! `-` and nothing are absent. Lengths come out in millimetres, whatever unit stands behind the number. A comma is a decimal
//! comma, unless a full stop follows it: then it separates thousands.

use std::borrow::Cow;

use chrono::{NaiveDate, NaiveDateTime, NaiveTime, TimeDelta};
use encoding_rs::{Encoding, UTF_8};
use thiserror::Error;

/// Characters of a text that is written to a table.
const TEXT_CHARS_MAX: usize = 1_000;
/// Formats of times that are known.
const TIME_FORMATS: &[&str] = &[
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y/%m/%d %H:%M:%S%.f",
    "%d.%m.%Y %H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y/%m/%d %H:%M",
    "%d.%m.%Y %H:%M",
    "%m/%d/%Y %I:%M:%S %p",
    "%Y%m%d%H%M%S",
];

/// Why a cell is not what its column holds.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum CellError {
    /// Not a length.
    #[error("{0:?} is not a length such as \"1234.5 mm\"")]
    Length(String),
    /// Not a whole number.
    #[error("{0:?} is not a whole number")]
    Whole(String),
    /// Not a time.
    #[error("{0:?} is not a time of a known format; name its format in load.time_formats")]
    Time(String),
    /// Too long.
    #[error("the text has {0} characters, at most {TEXT_CHARS_MAX} are taken")]
    TooLong(usize),
    /// Nothing where something must be.
    #[error("there is nothing")]
    Absent,
    /// The row is shorter than the first line says.
    #[error("the row ends before it")]
    Cut,
}

/// Decodes a file: by its byte order mark, else as UTF-8, else in the encoding of the source. Nothing where none fits.
pub(crate) fn decode<'a>(bytes: &'a [u8], encoding: &'static Encoding) -> Option<Cow<'a, str>> {
    let (marked, length) = Encoding::for_bom(bytes).unwrap_or((UTF_8, 0));
    if let Some(text) = marked.decode_without_bom_handling_and_without_replacement(&bytes[length..]) {
        return Some(text);
    }
    encoding.decode_without_bom_handling_and_without_replacement(bytes)
}

/// Returns what a cell holds, if anything.
pub(crate) fn present(cell: &str) -> Option<&str> {
    let cell = cell.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
    (!matches!(cell, "" | "-" | "--" | "n/a" | "N/A")).then_some(cell)
}

/// Reads a text.
pub(crate) fn text(cell: &str) -> Result<Option<String>, CellError> {
    let Some(cell) = present(cell) else { return Ok(None) };
    let count = cell.chars().count();
    if count > TEXT_CHARS_MAX {
        return Err(CellError::TooLong(count));
    }
    Ok(Some(cell.replace('\0', "")))
}

/// Reads a whole number.
pub(crate) fn whole(cell: &str) -> Result<Option<i64>, CellError> {
    present(cell).map(|cell| cell.parse().map_err(|_| CellError::Whole(shown(cell)))).transpose()
}

/// Reads a length in millimetres.
pub(crate) fn length(cell: &str) -> Result<Option<f64>, CellError> {
    let Some(cell) = present(cell) else { return Ok(None) };
    let digits = cell.trim_end_matches(|c: char| c.is_alphabetic() || c == 'µ').trim_end();
    let number = number(digits).ok_or_else(|| CellError::Length(shown(cell)))?;
    let length = match cell[digits.len()..].trim() {
        "" | "mm" => number,
        "cm" => number * 10.0,
        "m" => number * 1_000.0,
        "µm" | "um" | "\u{3bc}m" => number / 1_000.0,
        _ => return Err(CellError::Length(shown(cell))),
    };
    Ok(Some(length))
}

fn number(text: &str) -> Option<f64> {
    let is_plain = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | ',' | 'e' | 'E');
    if !text.chars().all(is_plain) {
        return None;
    }
    let plain = match (text.rfind(','), text.rfind('.')) {
        (Some(comma), Some(stop)) if comma < stop => text.replace(',', ""),
        (Some(_), Some(_)) => text.replace('.', "").replace(',', "."),
        (Some(_), None) => text.replace(',', "."),
        (None, _) => text.to_owned(),
    };
    plain.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Reads a time. One without a date is the first such time after the start of its roll.
pub(crate) fn time(
    cell: &str,
    formats: &[String],
    start: Option<NaiveDateTime>,
) -> Result<Option<NaiveDateTime>, CellError> {
    let Some(cell) = present(cell) else { return Ok(None) };
    let known = formats.iter().map(String::as_str).chain(TIME_FORMATS.iter().copied());
    for format in known {
        if let Ok(time) = NaiveDateTime::parse_from_str(cell, format) {
            return Ok(Some(time));
        }
    }
    let of_day = NaiveTime::parse_from_str(cell, "%H:%M:%S%.f").ok().zip(start);
    of_day.map(|(time, start)| Some(after(start, time))).ok_or_else(|| CellError::Time(shown(cell)))
}

fn after(start: NaiveDateTime, time: NaiveTime) -> NaiveDateTime {
    let same_day: NaiveDateTime = NaiveDate::and_time(&start.date(), time);
    if same_day < start { same_day + TimeDelta::days(1) } else { same_day }
}

/// Writes a time as all three databases read it; milliseconds only where there are any.
pub(crate) fn time_text(time: NaiveDateTime) -> String {
    let has_fraction = time.and_utc().timestamp_subsec_millis() > 0;
    time.format(if has_fraction { "%Y-%m-%d %H:%M:%S%.3f" } else { "%Y-%m-%d %H:%M:%S" }).to_string()
}

fn shown(cell: &str) -> String {
    cell.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_either_decimal_mark_and_any_unit() {
        for (cell, expected) in [
            ("1234.5 mm", Some(1234.5)),
            ("1234,5 mm", Some(1234.5)),
            ("1.234,5mm", Some(1234.5)),
            ("1,234.5", Some(1234.5)),
            ("-0,75", Some(-0.75)),
            ("12 m", Some(12_000.0)),
            ("500 µm", Some(0.5)),
            ("1e3", Some(1000.0)),
            (" - ", None),
            ("", None),
        ] {
            assert_eq!(length(cell), Ok(expected), "{cell}");
        }
        for cell in ["twelve", "12 kg", "1.2.3", "NaN", "inf", "1 2", "0x10", "1e999"] {
            assert!(length(cell).is_err(), "{cell}");
        }
    }

    #[test]
    fn times_have_many_formats() {
        let expected = Ok(NaiveDate::from_ymd_opt(2018, 7, 25).unwrap().and_hms_opt(13, 2, 3));
        for cell in [
            "2018-07-25 13:02:03",
            "25.07.2018 13:02:03",
            "2018/07/25 13:02:03",
            "07/25/2018 01:02:03 PM",
            "20180725130203",
        ] {
            assert_eq!(time(cell, &[], None), expected, "{cell}");
        }
        let own = ["%d %b %Y, %H.%M.%S".to_owned()];
        assert_eq!(time("25 Jul 2018, 13.02.03", &own, None), expected);
        assert!(time("25 Jul 2018, 13.02.03", &[], None).is_err());
        assert_eq!(time("-", &[], None), Ok(None));
    }

    #[test]
    fn a_time_of_day_lies_after_the_start_of_its_roll() {
        let day = NaiveDate::from_ymd_opt(2018, 7, 25).unwrap();
        let start = day.and_hms_opt(23, 0, 0).unwrap();
        assert_eq!(time("23:10:00", &[], Some(start)), Ok(day.and_hms_opt(23, 10, 0)));
        assert_eq!(time("00:10:00", &[], Some(start)), Ok(day.succ_opt().unwrap().and_hms_opt(0, 10, 0)));
        assert!(time("00:10:00", &[], None).is_err());
    }

    #[test]
    fn files_are_decoded_by_mark_then_utf8_then_the_source() {
        assert_eq!(decode("\u{feff}气泡".as_bytes(), UTF_8).unwrap(), "气泡");
        assert_eq!(decode("气泡".as_bytes(), encoding_rs::GBK).unwrap(), "气泡");
        let gbk = encoding_rs::GBK.encode("气泡").0.into_owned();
        assert_eq!(decode(&gbk, encoding_rs::GBK).unwrap(), "气泡");
        assert_eq!(decode(&gbk, UTF_8), None);
        assert_eq!(decode(b"\xFF\xFEa\0b\0", UTF_8).unwrap(), "ab");
    }

    #[test]
    fn whole_numbers_and_texts_are_checked() {
        assert_eq!((whole("12"), whole("-")), (Ok(Some(12)), Ok(None)));
        assert!(whole("1.5").is_err());
        assert_eq!(text(" a\0b "), Ok(Some("ab".to_owned())));
        assert!(text(&"x".repeat(1_001)).is_err());
    }
}

//! Durations and sizes as people write them: a number with a unit.

use std::{fmt, time::Duration};

use thiserror::Error;

/// Why a text is not a duration or a size.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QuantityError {
    /// No unit, or one that is not known.
    #[error("{text:?} needs a unit: {units}")]
    Unit {
        /// The text.
        text: String,
        /// The units that are known.
        units: &'static str,
    },
    /// The number is missing or not a whole one.
    #[error("{0:?} is not a whole number with a unit")]
    Number(String),
    /// The value does not fit.
    #[error("{0:?} is too large")]
    TooLarge(String),
}

const DURATION_UNITS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000), ("w", 604_800_000)];

const SIZE_UNITS: &[(&str, u64)] = &[
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

/// Reads a duration such as `90s`, `5m`, `1h30m`, `250ms`.
///
/// # Errors
/// Where a part has no unit, no number, or the sum does not fit.
pub fn parse_duration(text: &str) -> Result<Duration, QuantityError> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(QuantityError::Number(text.to_owned()));
    }
    let mut millis = 0_u64;
    while !rest.is_empty() {
        let (part, tail) = next_part(text, rest, DURATION_UNITS, "ms, s, m, h, d, w")?;
        millis = millis.checked_add(part).ok_or_else(|| QuantityError::TooLarge(text.to_owned()))?;
        rest = tail;
    }
    Ok(Duration::from_millis(millis))
}

/// Reads a size in bytes such as `64KiB`, `1GB`, `512B`.
///
/// # Errors
/// Where it has no unit, no number, more than one part, or does not fit.
pub fn parse_size(text: &str) -> Result<u64, QuantityError> {
    let (bytes, tail) = next_part(text, text.trim(), SIZE_UNITS, "B, KiB, MiB, GiB, TiB, KB, MB, GB, TB")?;
    if tail.is_empty() { Ok(bytes) } else { Err(QuantityError::Number(text.to_owned())) }
}

fn next_part<'a>(
    whole: &str,
    rest: &'a str,
    units: &[(&str, u64)],
    names: &'static str,
) -> Result<(u64, &'a str), QuantityError> {
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let (number, tail) = rest.split_at(digits);
    let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
    let (unit, tail) = tail.split_at(letters);
    if number.is_empty() {
        return Err(QuantityError::Number(whole.to_owned()));
    }
    let number: u64 = number.parse().map_err(|_| QuantityError::TooLarge(whole.to_owned()))?;
    let (_, factor) = units
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(|| QuantityError::Unit { text: whole.to_owned(), units: names })?;
    let value = number.checked_mul(*factor).ok_or_else(|| QuantityError::TooLarge(whole.to_owned()))?;
    Ok((value, tail))
}

/// Shows a duration as [`parse_duration`] reads it, to the millisecond.
#[derive(Debug, Clone, Copy)]
pub struct ShowDuration(pub Duration);

impl fmt::Display for ShowDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut millis = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if millis == 0 {
            return f.write_str("0s");
        }
        for (unit, size) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
            if millis >= size {
                write!(f, "{}{unit}", millis / size)?;
                millis %= size;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_add_up_their_parts() {
        assert_eq!(parse_duration("1h30m"), Ok(Duration::from_secs(5_400)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(matches!(parse_duration("30"), Err(QuantityError::Unit { .. })));
        assert!(matches!(parse_duration("-5s"), Err(QuantityError::Number(_))));
        assert!(matches!(parse_duration(""), Err(QuantityError::Number(_))));
        assert!(matches!(parse_duration("99999999999999999999w"), Err(QuantityError::TooLarge(_))));
    }

    #[test]
    fn sizes_have_one_part() {
        assert_eq!(parse_size("64KiB"), Ok(65_536));
        assert!(parse_size("1GiB2MiB").is_err());
        assert!(parse_size("12").is_err());
    }

    #[test]
    fn shown_durations_read_back() {
        for millis in [1, 999, 1_000, 61_001, 90_061_000] {
            let duration = Duration::from_millis(millis);
            assert_eq!(parse_duration(&ShowDuration(duration).to_string()), Ok(duration));
        }
    }
}

//! Date patterns in Java's notation (`yyyy-MM-dd HH:mm:ss`), to print and to read.
//!
//! Numbers are read much as Java does: exactly as wide as written where a neighbour is a number too
//! (`yyyyMMdd`), else one or more digits. Unlike Java, a date that does not exist is refused and so
//! is text left over, except a fraction of a second after the last `ss`.

use std::fmt::Write as _;

use chrono::{Datelike, NaiveDate, NaiveDateTime, NaiveTime, Timelike};

use crate::moment::{Moment, fraction_micros};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Year,
    Month,
    Day,
    Hour,
    Minute,
    Second,
    Millisecond,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Number(Field, usize),
    Literal(char),
}

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<Piece>);

/// Numbers found while reading, by [`Field`].
type Found = [Option<u32>; 7];

impl Pattern {
    /// Parses a pattern; `None` where it has a letter that is not supported here.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut chars = text.chars().peekable();
        while let Some(letter) = chars.next() {
            if letter == '\'' {
                quoted(&mut chars, &mut pieces);
            } else if letter.is_ascii_alphabetic() {
                let mut width = 1;
                while chars.next_if_eq(&letter).is_some() {
                    width += 1;
                }
                pieces.push(Piece::Number(field(letter, width)?, width));
            } else {
                pieces.push(Piece::Literal(letter));
            }
        }
        (!pieces.is_empty()).then_some(Self(pieces))
    }

    pub(crate) fn format(&self, at: NaiveDateTime) -> String {
        let mut out = String::new();
        for piece in &self.0 {
            match *piece {
                Piece::Literal(letter) => out.push(letter),
                Piece::Number(field, width) => {
                    let number = number_of(field, width, at);
                    // Writing to a string cannot fail.
                    let _ = write!(out, "{number:0width$}");
                }
            }
        }
        out
    }

    /// Reads `text`; the kind of moment follows from what the pattern holds.
    pub(crate) fn read(&self, text: &str) -> Option<Moment> {
        let mut rest = text.trim();
        let mut found: Found = [None; 7];
        for (index, piece) in self.0.iter().enumerate() {
            match *piece {
                Piece::Literal(letter) => rest = skip_literal(rest, letter)?,
                Piece::Number(field, width) => {
                    let before = index.checked_sub(1).and_then(|before| self.0.get(before));
                    let neighbours = [before, self.0.get(index + 1)];
                    let abuts = neighbours.iter().any(|piece| matches!(piece, Some(Piece::Number(..))));
                    let digits = digits_of(rest, field, width, abuts)?;
                    found[field as usize] = Some(year_of(field, width, rest[..digits].parse().ok()?));
                    rest = &rest[digits..];
                }
            }
        }
        assemble(&found, fraction(&self.0, rest)?)
    }
}

fn quoted(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, pieces: &mut Vec<Piece>) {
    if chars.next_if_eq(&'\'').is_some() {
        return pieces.push(Piece::Literal('\''));
    }
    while let Some(letter) = chars.next() {
        if letter == '\'' && chars.next_if_eq(&'\'').is_none() {
            return;
        }
        pieces.push(Piece::Literal(letter));
    }
}

fn field(letter: char, width: usize) -> Option<Field> {
    Some(match letter {
        'y' | 'u' if width <= 4 => Field::Year,
        'M' if width <= 2 => Field::Month,
        'd' if width <= 2 => Field::Day,
        'H' if width <= 2 => Field::Hour,
        'm' if width <= 2 => Field::Minute,
        's' if width <= 2 => Field::Second,
        'S' if width <= 3 => Field::Millisecond,
        _ => return None,
    })
}

fn number_of(field: Field, width: usize, at: NaiveDateTime) -> i64 {
    match field {
        Field::Year if width == 2 => i64::from(at.year().rem_euclid(100)),
        Field::Year => i64::from(at.year()),
        Field::Month => i64::from(at.month()),
        Field::Day => i64::from(at.day()),
        Field::Hour => i64::from(at.hour()),
        Field::Minute => i64::from(at.minute()),
        Field::Second => i64::from(at.second()),
        Field::Millisecond => i64::from(at.nanosecond() / 1_000_000 % 1000),
    }
}

/// ISO's `T` stands for the blank between date and time.
fn skip_literal(text: &str, letter: char) -> Option<&str> {
    text.strip_prefix(letter).or_else(|| (letter == ' ').then(|| text.strip_prefix('T')).flatten())
}

fn digits_of(text: &str, field: Field, width: usize, abuts: bool) -> Option<usize> {
    let present = text.bytes().take_while(u8::is_ascii_digit).count();
    let widest = match field {
        Field::Year if width == 2 => 2,
        Field::Year => 4,
        Field::Millisecond => 3,
        _ => 2,
    };
    let taken = if abuts { width } else { present.min(widest) };
    (taken > 0 && taken <= present).then_some(taken)
}

/// Two digits of a year mean 1970 to 2069.
fn year_of(field: Field, width: usize, number: u32) -> u32 {
    match (field, width, number) {
        (Field::Year, 2, 0..70) => number + 2000,
        (Field::Year, 2, 70..100) => number + 1900,
        _ => number,
    }
}

/// Microseconds of what follows the pattern: nothing, or a fraction where the pattern ends in seconds.
fn fraction(pieces: &[Piece], rest: &str) -> Option<i64> {
    if rest.is_empty() {
        return Some(0);
    }
    match pieces.last() {
        Some(Piece::Number(Field::Second, _)) => fraction_micros(rest.strip_prefix('.')?),
        _ => None,
    }
}

fn assemble(found: &Found, fraction_micros: i64) -> Option<Moment> {
    let get = |field: Field| found[field as usize];
    let micros = u32::try_from(fraction_micros).ok()? + get(Field::Millisecond).unwrap_or(0) * 1000;
    let clock = [Field::Hour, Field::Minute, Field::Second].map(get);
    let time = NaiveTime::from_hms_micro_opt(
        clock[0].unwrap_or(0),
        clock[1].unwrap_or(0),
        clock[2].unwrap_or(0),
        micros,
    )?;
    let has_time = clock.iter().any(Option::is_some);
    let has_date = [Field::Year, Field::Month, Field::Day].into_iter().any(|field| get(field).is_some());
    let year = i32::try_from(get(Field::Year).unwrap_or(1970)).ok()?;
    let date = NaiveDate::from_ymd_opt(year, get(Field::Month).unwrap_or(1), get(Field::Day).unwrap_or(1))?;
    Some(match (has_date, has_time) {
        (false, true) => Moment::Time((time - NaiveTime::MIN).num_microseconds()?),
        (true, true) => Moment::DateTime(date.and_time(time)),
        (_, false) => Moment::Date(date),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]
    use super::*;

    fn read(pattern: &str, text: &str) -> Option<String> {
        Pattern::parse(pattern).unwrap().read(text).map(Moment::sql_text)
    }

    #[test]
    fn usual_patterns_read_usual_dates() {
        for (pattern, text, result) in [
            ("yyyy-MM-dd HH:mm:ss", "2024-02-29 12:34:56", "2024-02-29 12:34:56"),
            ("yyyy-MM-dd HH:mm:ss", "2024-02-29T12:34:56.25", "2024-02-29 12:34:56.25"),
            ("yyyy-MM-dd", "2024-2-9", "2024-02-09"),
            ("HH:mm:ss", "1:02:03", "01:02:03"),
            ("yyyyMMdd", "20240229", "2024-02-29"),
            ("yyyyMMddHHmmssSSS", "20240229123456789", "2024-02-29 12:34:56.789"),
            ("yyyy'年'MM'月'dd'日'", "2024年02月29日", "2024-02-29"),
            ("dd/MM/yy", "29/02/24", "2024-02-29"),
        ] {
            assert_eq!(read(pattern, text).as_deref(), Some(result), "{pattern} {text}");
        }
    }

    #[test]
    fn dates_that_do_not_exist_and_left_over_text_are_refused() {
        for (pattern, text) in [
            ("yyyy-MM-dd", "2024-02-30"),
            ("yyyy-MM-dd", "2024-02-29 10:00:00"),
            ("yyyy-MM-dd", "tomorrow"),
            ("yyyyMMdd", "2024022"),
            ("HH:mm:ss", "25:00:00"),
            ("yyyy-MM-dd HH:mm:ss", "2024-02-29 12:34:56 PM"),
        ] {
            assert_eq!(read(pattern, text), None, "{pattern} {text}");
        }
    }

    #[test]
    fn patterns_print() {
        let at = NaiveDate::from_ymd_opt(2024, 2, 9).unwrap().and_hms_milli_opt(1, 2, 3, 45).unwrap();
        let print = |pattern: &str| Pattern::parse(pattern).unwrap().format(at);
        assert_eq!(print("yyyy-MM-dd HH:mm:ss.SSS"), "2024-02-09 01:02:03.045");
        assert_eq!(print("yyMMdd'T'HHmm"), "240209T0102");
        assert_eq!(print("d/M/yyyy ''"), "9/2/2024 '");
    }

    #[test]
    fn letters_without_meaning_here_are_refused() {
        assert!(Pattern::parse("EEE, d MMM yyyy").is_none());
        assert!(Pattern::parse("hh:mm a").is_none());
        assert!(Pattern::parse("").is_none());
    }

    proptest::proptest! {
        #[test]
        fn printed_dates_are_read_back(seconds in 0_i64..4_000_000_000) {
            let at = chrono::DateTime::from_timestamp(seconds, 0).unwrap().naive_utc();
            let pattern = Pattern::parse("yyyyMMdd HHmmss").unwrap();
            proptest::prop_assert_eq!(pattern.read(&pattern.format(at)), Some(Moment::DateTime(at)));
        }
    }
}

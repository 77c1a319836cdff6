//! Decimal numbers as text, exact whatever their size.
//!
//! Values travel as the text the source gave, so nothing is rounded on the way; this module only
//! checks that a text is a number and cuts a number to its integer part.

use crate::limits::NUMBER_DIGITS;

/// A number taken apart: the value is `digits`, with the decimal point moved by `scale` from the right.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    fraction: &'a str,
    exponent: i64,
}

/// Says whether `text` is a decimal number (`-1.50`, `.5`, `1e3`), or one of the three words that
/// stand for no number in floating point.
pub(crate) fn is_number(text: &str) -> bool {
    is_special(text) || parts(text).is_some()
}

/// Says whether `text` is `NaN`, `Infinity` or `-Infinity`.
pub(crate) fn is_special(text: &str) -> bool {
    matches!(text, "NaN" | "Infinity" | "-Infinity")
}

/// Says whether `text` is an integer without exponent, as databases print it.
pub(crate) fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

/// Returns the integer part of `text` in its shortest form (`007.9` gives `7`), cutting towards
/// zero; `None` where it is no number or has too many digits.
pub(crate) fn integer_part(text: &str) -> Option<String> {
    let Parts { negative, whole, fraction, exponent } = parts(text)?;
    let point = i64::try_from(whole.len()).ok()?.checked_add(exponent)?;
    let mut digits = String::new();
    if point > 0 {
        let point = usize::try_from(point).ok().filter(|point| *point <= NUMBER_DIGITS)?;
        digits.extend(whole.chars().chain(fraction.chars()).take(point));
        digits.extend(std::iter::repeat_n('0', point - digits.len()));
    }
    let digits = digits.trim_start_matches('0');
    Some(match (digits.is_empty(), negative) {
        (true, _) => "0".to_owned(),
        (false, true) => format!("-{digits}"),
        (false, false) => digits.to_owned(),
    })
}

/// Says whether the number is zero, without leaving text.
pub(crate) fn is_zero(text: &str) -> bool {
    parts(text)
        .is_some_and(|parts| parts.whole.bytes().chain(parts.fraction.bytes()).all(|byte| byte == b'0'))
}

/// Returns the text of a double that reads back as the same double, in digits where that is short.
pub(crate) fn double_text(value: f64) -> String {
    let size = value.abs();
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned()
    } else if size == 0.0 || (1e-5..1e17).contains(&size) {
        format!("{value}")
    } else {
        format!("{value:e}")
    }
}

fn parts(text: &str) -> Option<Parts<'_>> {
    if text.len() > NUMBER_DIGITS {
        return None;
    }
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match rest.find(['e', 'E']) {
        Some(at) => (&rest[..at], rest[at + 1..].parse::<i32>().ok()?),
        None => (rest, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let good = digits(whole) && digits(fraction) && !(whole.is_empty() && fraction.is_empty());
    good.then_some(Parts { negative, whole, fraction, exponent: i64::from(exponent) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integer_parts_are_cut_towards_zero() {
        for (text, whole) in [
            ("7", "7"),
            ("-007.99", "-7"),
            ("+.5", "0"),
            ("-0.4", "0"),
            ("1e3", "1000"),
            ("1.2345e2", "123"),
            ("123e-2", "1"),
            ("5e-9", "0"),
            ("123456789012345678901234567890.5", "123456789012345678901234567890"),
        ] {
            assert_eq!(integer_part(text).as_deref(), Some(whole), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", " ", "abc", "1e", "1.2.3", "--1", "0x10", "1,000", ".", "-", "1e99999999999", "NaN"]
        {
            assert_eq!(integer_part(text), None, "{text:?}");
        }
        assert_eq!(integer_part("1e100000"), None, "an exponent must not ask for memory");
        assert!(is_number("NaN") && is_number("1.50") && !is_number("1.5x"));
    }

    #[test]
    fn doubles_print_so_that_they_read_back() {
        for (value, text) in
            [(1.5, "1.5"), (9.0, "9"), (1e300, "1e300"), (0.1, "0.1"), (-2.5e-10, "-2.5e-10")]
        {
            assert_eq!(double_text(value), text);
        }
    }

    #[test]
    fn zero_is_zero_in_every_spelling() {
        assert!(is_zero("0") && is_zero("-0.000") && is_zero("0e5") && !is_zero("0.001") && !is_zero("x"));
    }

    proptest::proptest! {
        #[test]
        fn integers_come_back_as_they_were(value: i64) {
            proptest::prop_assert_eq!(integer_part(&value.to_string()), Some(value.to_string()));
        }

        #[test]
        fn any_double_reads_back(value: f64) {
            let back: f64 = double_text(value).parse().unwrap_or(0.0);
            proptest::prop_assert!(back == value || value.is_nan());
        }
    }
}

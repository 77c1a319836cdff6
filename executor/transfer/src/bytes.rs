//! Sizes as `DataX` prints them.

const UNITS: [(&str, u32); 4] = [("TB", 40), ("GB", 30), ("MB", 20), ("KB", 10)];

/// Returns `bytes` as `760B`, `1.42KB`, `3.00MB`, `1.00GB` or `2.00TB`.
pub(crate) fn size_text(bytes: u64) -> String {
    for (unit, shift) in UNITS {
        let one = 1_u64 << shift;
        if bytes >= one {
            let hundredths = u128::from(bytes) * 100 / u128::from(one);
            // Rounded half up, which is how the two decimals of a double come out.
            let rest = u128::from(bytes) * 100 % u128::from(one) * 2 >= u128::from(one);
            let hundredths = hundredths + u128::from(rest);
            return format!("{}.{:02}{unit}", hundredths / 100, hundredths % 100);
        }
    }
    format!("{bytes}B")
}

/// Reads what [`size_text`] writes, with or without thousands separators and `/s`.
pub(crate) fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim().trim_end_matches("/s").replace(',', "");
    for (unit, shift) in UNITS {
        if let Some(number) = text.strip_suffix(unit) {
            return scaled(number.trim(), 1 << shift);
        }
    }
    text.strip_suffix('B')?.trim().parse().ok()
}

fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
    let whole: u64 = whole.parse().ok()?;
    let digits = u32::try_from(part.len()).ok()?;
    let part: u64 = part.parse().ok()?;
    let part = unit.checked_mul(part)? / 10_u64.checked_pow(digits)?;
    whole.checked_mul(unit)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_look_as_in_the_recorded_logs() {
        assert_eq!(size_text(760), "760B");
        assert_eq!(size_text(1457), "1.42KB");
        assert_eq!(size_text(1024 * 1024 * 3), "3.00MB");
        assert_eq!(size_text(0), "0B");
    }

    #[test]
    fn sizes_are_read_back() {
        assert_eq!(parse_size("760B/s"), Some(760));
        assert_eq!(parse_size("1.42KB/s"), Some(1454));
        assert_eq!(parse_size("1,024.00MB"), Some(1 << 30));
        assert_eq!(parse_size("fast"), None);
    }
}

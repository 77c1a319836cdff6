//! Hiding secrets in output.
//!
//! A match is overwritten with as many asterisks, so that offsets in what is shipped are offsets in the file and shipping
//! can go on anywhere after a break. Beside the text itself, its forms in base64, in URLs and in JSON are hidden.

use std::fmt::Write as _;

use millrace_common::secret::Secret;

/// Bytes of the shortest secret that is hidden: hiding every `a` would make output unreadable and reveal more.
const SECRET_BYTES_MIN: usize = 4;
/// Bytes of the shortest base64 form that is hidden, for the same reason.
const BASE64_BYTES_MIN: usize = 6;

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The texts to hide in the output of one attempt.
pub(super) struct Mask {
    patterns: Vec<Vec<u8>>,
    /// Whether any pattern begins with this byte.
    first: [bool; 256],
    longest: usize,
}

impl Mask {
    pub(super) fn new<'s>(secrets: impl IntoIterator<Item = &'s Secret>) -> Self {
        let mut patterns = Vec::new();
        for secret in secrets.into_iter().map(Secret::expose).filter(|text| text.len() >= SECRET_BYTES_MIN) {
            patterns.push(secret.as_bytes().to_vec());
            patterns.extend(base64_forms(secret.as_bytes()));
            patterns.extend(url_forms(secret));
            patterns.extend(json_form(secret));
        }
        patterns.sort();
        patterns.dedup();
        let mut first = [false; 256];
        for byte in patterns.iter().filter_map(|pattern| pattern.first()) {
            first[usize::from(*byte)] = true;
        }
        let longest = patterns.iter().map(Vec::len).max().unwrap_or(0);
        Self { patterns, first, longest }
    }

    /// Returns how many bytes before a place may belong to a match that reaches beyond it.
    pub(super) const fn lookback(&self) -> u64 {
        self.longest.saturating_sub(1) as u64
    }

    /// Overwrites every match.
    pub(super) fn apply(&self, bytes: &mut [u8]) {
        // Matches are found in what was there, because they may overlap.
        let mut matches: Vec<(usize, usize)> = Vec::new();
        for at in 0..bytes.len() {
            if !self.first[usize::from(bytes[at])] {
                continue;
            }
            let longest =
                self.patterns.iter().filter(|pattern| bytes[at..].starts_with(pattern)).map(Vec::len).max();
            matches.extend(longest.map(|length| (at, length)));
        }
        for (at, length) in matches {
            bytes[at..at + length].fill(b'*');
        }
    }

    /// Returns the length of the tail that may be the beginning of a match.
    pub(super) fn undecided(&self, bytes: &[u8]) -> usize {
        let from = bytes.len().saturating_sub(self.longest.saturating_sub(1));
        let begins = |tail: &[u8]| {
            self.patterns.iter().any(|pattern| pattern.len() > tail.len() && pattern.starts_with(tail))
        };
        (from..bytes.len())
            .find(|at| self.first[usize::from(bytes[*at])] && begins(&bytes[*at..]))
            .map_or(0, |at| bytes.len() - at)
    }
}

/// The forms of a secret within base64 text: it may stand at any of three places of a group, and what comes before and
/// after it changes the characters at its edges, which are left out.
fn base64_forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = Vec::new();
    for alphabet in [STANDARD, URL_SAFE] {
        for shift in 0..3 {
            let mut bytes = vec![0; shift];
            bytes.extend_from_slice(secret);
            let whole = base64(&bytes, alphabet);
            let (from, to) = ((shift * 8).div_ceil(6), bytes.len() * 8 / 6);
            if to >= from + BASE64_BYTES_MIN {
                forms.push(whole[from..to].to_vec());
            }
        }
    }
    forms
}

fn base64(bytes: &[u8], alphabet: &[u8; 64]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len() * 4 / 3 + 4);
    for group in bytes.chunks(3) {
        let byte = |at: usize| u32::from(group.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        text.extend([18, 12, 6, 0].map(|shift| alphabet[(bits >> shift & 63) as usize]));
    }
    text
}

fn url_forms(secret: &str) -> Vec<Vec<u8>> {
    let encode = |is_upper: bool, space: &str| {
        let mut text = String::new();
        for byte in secret.bytes() {
            match byte {
                b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    text.push(char::from(byte));
                }
                b' ' => text.push_str(space),
                // Writing to a text cannot fail.
                _ if is_upper => _ = write!(text, "%{byte:02X}"),
                _ => _ = write!(text, "%{byte:02x}"),
            }
        }
        text.into_bytes()
    };
    vec![encode(true, "%20"), encode(false, "%20"), encode(true, "+")]
}

fn json_form(secret: &str) -> Option<Vec<u8>> {
    let quoted = serde_json::to_string(secret).ok()?;
    Some(quoted.trim_start_matches('"').strip_suffix('"')?.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWORD: &str = "p@ss w0rd/\"1\"";

    fn mask() -> Mask {
        Mask::new(&[Secret::new(PASSWORD.to_owned()), Secret::new("abc".to_owned())])
    }

    fn masked(text: &[u8]) -> Vec<u8> {
        let mut bytes = text.to_vec();
        mask().apply(&mut bytes);
        bytes
    }

    #[test]
    fn a_secret_is_hidden_and_everything_else_stays() {
        let text = format!("user=etl password={PASSWORD} abc\n");
        let expected = format!("user=etl password={} abc\n", "*".repeat(PASSWORD.len()));
        assert_eq!(masked(text.as_bytes()), expected.as_bytes());
    }

    #[test]
    fn encoded_forms_are_hidden() {
        for text in [
            "p%40ss%20w0rd%2F%221%22",
            "p%40ss+w0rd%2F%221%22",
            "p%40ss%20w0rd%2f%221%22",
            "p@ss w0rd/\\\"1\\\"",
        ] {
            assert_eq!(masked(text.as_bytes()), vec![b'*'; text.len()], "{text}");
        }
        for prefix in ["", "u", "us", "user:"] {
            let text = base64(format!("{prefix}{PASSWORD}").as_bytes(), STANDARD);
            let hidden = masked(&text).iter().filter(|byte| **byte == b'*').count();
            assert!(hidden >= PASSWORD.len() * 4 / 3 - 2, "{prefix:?}: {hidden} of {}", text.len());
        }
    }

    #[test]
    fn cutting_anywhere_hides_the_same() {
        let text = format!("a{PASSWORD}{PASSWORD}p@s p@ss w0r\n");
        let whole = masked(text.as_bytes());
        let mask = mask();
        for cut in 0..text.len() {
            let (start, _) = text.as_bytes().split_at(cut);
            let sent = cut - mask.undecided(start);
            let mut first = start.to_vec();
            mask.apply(&mut first);
            let from = sent.saturating_sub(mask.lookback() as usize);
            let mut second = text.as_bytes()[from..].to_vec();
            mask.apply(&mut second);
            let shipped = [&first[..sent], &second[sent - from..]].concat();
            assert_eq!(shipped, whole, "cut at {cut}");
        }
    }

    #[test]
    fn without_secrets_nothing_is_held_back() {
        let mask = Mask::new(&[]);
        assert_eq!((mask.undecided(b"anything"), mask.lookback()), (0, 0));
    }
}

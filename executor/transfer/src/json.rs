//! JSON as it is found in job files: with comments and trailing commas.
//!
//! Both are overwritten with blanks, so that the line and column of a parser's error stay right.

/// Returns `text` as plain JSON of the same length and the same lines.
pub(crate) fn plain(text: &str) -> String {
    let mut out = text.strip_prefix('\u{feff}').unwrap_or(text).as_bytes().to_vec();
    blank_comments(&mut out);
    blank_trailing_commas(&mut out);
    // Only ASCII bytes were overwritten outside of strings, and comments as a whole.
    String::from_utf8(out).unwrap_or_else(|_| text.to_owned())
}

fn blank_comments(text: &mut [u8]) {
    let mut at = 0;
    while at < text.len() {
        match (text[at], text.get(at + 1)) {
            (b'"', _) => at = string_end(text, at),
            (b'/', Some(b'/')) => at = blank_until(text, at, b"\n"),
            (b'/', Some(b'*')) => at = blank_until(text, at, b"*/"),
            _ => at += 1,
        }
    }
}

/// Position after the string that starts at `at`.
fn string_end(text: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while at < text.len() {
        match text[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

fn blank_until(text: &mut [u8], start: usize, end: &[u8]) -> usize {
    let body = start + 2;
    let found = text[body..].windows(end.len()).position(|window| window == end);
    let stop = found.map_or(text.len(), |at| body + at + end.len());
    for byte in &mut text[start..stop] {
        if !matches!(*byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    stop
}

fn blank_trailing_commas(text: &mut [u8]) {
    let mut at = 0;
    let mut comma = None;
    while at < text.len() {
        match text[at] {
            b'"' => {
                comma = None;
                at = string_end(text, at);
                continue;
            }
            b',' => comma = Some(at),
            b'}' | b']' => {
                if let Some(comma) = comma.take() {
                    text[comma] = b' ';
                }
            }
            byte if byte.is_ascii_whitespace() => {}
            _ => comma = None,
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]
    use super::*;
    use serde_json::{Value, json};

    fn parse(text: &str) -> Value {
        serde_json::from_str(&plain(text)).unwrap()
    }

    #[test]
    fn comments_and_trailing_commas_are_ignored() {
        let text = "{ // 说明\n \"a\": [1, 2, /* no */ ], \"b\": {\"c\": 3,}, /* multi\nline */ }";
        assert_eq!(parse(text), json!({"a": [1, 2], "b": {"c": 3}}));
    }

    #[test]
    fn strings_are_left_alone() {
        let text = r#"{"url": "jdbc:mysql://h/d", "x": "/* ,] */", "q": "a\"//b", "c": ",}"}"#;
        assert_eq!(parse(text)["url"], "jdbc:mysql://h/d");
        assert_eq!(parse(text)["x"], "/* ,] */");
        assert_eq!(parse(text)["q"], "a\"//b");
        assert_eq!(parse(text)["c"], ",}");
    }

    #[test]
    fn positions_of_errors_stay_right() {
        let error =
            serde_json::from_str::<Value>(&plain("// one\n{\n  /* 注释 */ \"a\": oops\n}")).unwrap_err();
        assert_eq!(error.line(), 3);
    }

    #[test]
    fn byte_order_mark_and_open_comments_do_not_hurt() {
        assert_eq!(parse("\u{feff}{\"a\":1} // end"), json!({"a": 1}));
        assert_eq!(parse("{\"a\":1} /* never closed"), json!({"a": 1}));
    }

    proptest::proptest! {
        #[test]
        fn any_text_keeps_its_lines(text in "[\\PC\n\"/*,}\\]\\\\]{0,60}") {
            let plain = plain(&text);
            proptest::prop_assert_eq!(plain.lines().count(), text.lines().count());
        }
    }
}

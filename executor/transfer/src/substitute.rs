//! Textual substitution of `$name` and `${name}`, before the text is parsed as JSON.
//!
//! This is `DataX`'s rule: the value goes in as it is, even where that changes the structure of the
//! text, and a name without a value (or with a blank one) stays as it was written.

use std::collections::BTreeMap;

/// Returns `text` with every known parameter replaced.
pub(crate) fn substitute(text: &str, params: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let length = reference_length(&rest[at..]);
        let reference = &rest[at..at + length];
        let name = reference.trim_matches(['$', '{', '}']);
        match params.get(name).filter(|value| !value.trim().is_empty()) {
            Some(value) => out.push_str(value),
            None => out.push_str(reference),
        }
        rest = &rest[at + length..];
    }
    out.push_str(rest);
    out
}

/// Bytes of the reference at the start of `text`, which begins with a dollar sign. A dollar sign
/// without a name is a reference to nothing.
fn reference_length(text: &str) -> usize {
    let open = if text[1..].starts_with('{') { 2 } else { 1 };
    let name = text[open..].bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
    if name == 0 {
        return 1;
    }
    // The braces are optional one by one, so `${a` and `$a}` are references as well.
    let end = open + name;
    if text[end..].starts_with('}') { end + 1 } else { end }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str) -> String {
        let params = [("who", "Bob"), ("who2", "Eve"), ("blank", "  "), ("quoted", "a\"b")];
        let params = params.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        substitute(text, &params)
    }

    #[test]
    fn both_forms_are_replaced() {
        assert_eq!(with("${who} and $who2, $who"), "Bob and Eve, Bob");
    }

    #[test]
    fn longest_name_wins() {
        assert_eq!(with("$who2"), "Eve");
        assert_eq!(with("$who_2"), "$who_2");
    }

    #[test]
    fn unknown_and_blank_names_stay() {
        assert_eq!(with("${undef} $undef ${blank} $ 5$ ${} $"), "${undef} $undef ${blank} $ 5$ ${} $");
    }

    #[test]
    fn braces_are_optional_one_by_one() {
        assert_eq!(with("${who $who}"), "Bob Bob");
    }

    #[test]
    fn values_go_in_as_text_and_are_not_replaced_again() {
        assert_eq!(with("{\"a\":\"$quoted\"}"), "{\"a\":\"a\"b\"}");
        let params = [("a".to_owned(), "$b".to_owned()), ("b".to_owned(), "x".to_owned())].into();
        assert_eq!(substitute("$a", &params), "$b");
    }

    #[test]
    fn text_of_other_scripts_survives() {
        assert_eq!(with("表$who后 ￥$who"), "表Bob后 ￥Bob");
    }
}

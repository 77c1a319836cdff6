//! The place in a document up to which the parser has read.
//!
//! The parser gives each text in a buffer of its own, with room for a long line. Nearly all of them stand in the document
//! as they are, so the tree borrows them from there, and the buffer is free for the next one.

use std::{borrow::Cow, str::Chars};

/// Follows the parser, which counts characters and only goes forwards, through the bytes of a document.
#[derive(Debug)]
pub(super) struct Place<'t> {
    rest: Chars<'t>,
    /// Characters before `rest`.
    at: u32,
}

impl<'t> Place<'t> {
    pub(super) fn start(document: &'t str) -> Self {
        Self { rest: document.chars(), at: 0 }
    }

    /// Borrows a text that begins at a character of the document; one that escapes or folding changed stays as it is.
    pub(super) fn borrowed(&mut self, start: u32, text: Cow<'t, str>) -> Cow<'t, str> {
        if start > self.at {
            self.rest.nth((start - self.at - 1) as usize);
            self.at = start;
        }
        let rest = self.rest.as_str();
        let rest = rest.strip_prefix(['"', '\'']).unwrap_or(rest);
        match rest.get(..text.len()) {
            Some(found) if found == text => Cow::Borrowed(found),
            _ => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_stand_in_the_document_are_borrowed() {
        let document = "ключ: \"значение\", 'it''s', end";
        let mut place = Place::start(document);
        let mut is_borrowed = |start, text: &str| {
            let borrowed = place.borrowed(start, Cow::Owned(text.to_owned()));
            assert_eq!(borrowed, text);
            matches!(borrowed, Cow::Borrowed(_))
        };
        assert!(is_borrowed(0, "ключ"));
        assert!(is_borrowed(6, "значение"));
        assert!(is_borrowed(6, ""));
        assert!(!is_borrowed(18, "it's"));
        assert!(is_borrowed(27, "end"));
        assert!(!is_borrowed(27, "end of all"));
        assert!(!is_borrowed(u32::MAX, "beyond"));
    }
}

//! Text to records: fields, delimiters, quotes, and records that end in the middle of what was read.
//!
//! Quotes count only at the start of a field; inside, a doubled quote is one. Blanks around a field
//! without quotes are cut where the definition wants that. Lines end with `\n`, `\r` or both; empty
//! lines are no records.

use std::collections::VecDeque;

use crate::limits::{FIELD_CHARS, RECORD_CHARS};

/// How a file is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Syntax {
    pub(crate) delimiter: char,
    pub(crate) quote: Option<char>,
    pub(crate) trim: bool,
    /// Whether long fields are refused (`safetySwitch`).
    pub(crate) safe: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Nothing of the field was seen, or only blanks that are cut.
    Start,
    Plain,
    Quoted,
    /// A quote was seen inside of quotes: it ends the field, or is the first of two.
    QuoteInQuoted,
}

/// A field or a record that is longer than allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooLong;

/// Cuts text, given in pieces, into records.
#[derive(Debug)]
pub(crate) struct Tokens {
    syntax: Syntax,
    state: State,
    field: String,
    fields: Vec<String>,
    record_chars: usize,
    field_chars: usize,
    was_quoted: bool,
    after_return: bool,
}

impl Tokens {
    pub(crate) fn new(syntax: Syntax) -> Self {
        Self {
            syntax,
            state: State::Start,
            field: String::new(),
            fields: Vec::new(),
            record_chars: 0,
            field_chars: 0,
            was_quoted: false,
            after_return: false,
        }
    }

    pub(crate) fn push(&mut self, text: &str, out: &mut VecDeque<Vec<String>>) -> Result<(), TooLong> {
        for letter in text.chars() {
            let follows_return = std::mem::replace(&mut self.after_return, false);
            if !(follows_return && letter == '\n' && self.is_between_records()) {
                self.letter(letter, out)?;
            }
        }
        Ok(())
    }

    /// Takes the end of the text; a last line needs no line end.
    pub(crate) fn end(&mut self, out: &mut VecDeque<Vec<String>>) {
        self.end_record(out);
    }

    fn is_between_records(&self) -> bool {
        self.state == State::Start && self.fields.is_empty() && self.field.is_empty()
    }

    fn letter(&mut self, letter: char, out: &mut VecDeque<Vec<String>>) -> Result<(), TooLong> {
        let is_quote = self.syntax.quote == Some(letter);
        match self.state {
            State::Quoted if is_quote => self.state = State::QuoteInQuoted,
            State::Quoted => self.keep(letter)?,
            State::QuoteInQuoted if is_quote => {
                self.state = State::Quoted;
                self.keep(letter)?;
            }
            State::Start if is_quote => {
                self.state = State::Quoted;
                self.was_quoted = true;
                self.field.clear();
            }
            _ if letter == self.syntax.delimiter => self.end_field(),
            _ if letter == '\n' || letter == '\r' => {
                self.end_record(out);
                self.after_return = letter == '\r';
            }
            State::Start if self.syntax.trim && is_blank(letter) => {}
            _ => {
                self.state = State::Plain;
                self.keep(letter)?;
            }
        }
        Ok(())
    }

    fn keep(&mut self, letter: char) -> Result<(), TooLong> {
        self.field.push(letter);
        self.field_chars += 1;
        self.record_chars += 1;
        let long = self.syntax.safe && self.field_chars > FIELD_CHARS;
        if long || self.record_chars > RECORD_CHARS { Err(TooLong) } else { Ok(()) }
    }

    fn end_field(&mut self) {
        let mut field = std::mem::take(&mut self.field);
        if self.syntax.trim && !self.was_quoted {
            field.truncate(field.trim_end_matches(is_blank).len());
        }
        self.fields.push(field);
        self.state = State::Start;
        self.was_quoted = false;
        self.field_chars = 0;
    }

    fn end_record(&mut self, out: &mut VecDeque<Vec<String>>) {
        let empty = self.fields.is_empty() && self.field.is_empty() && !self.was_quoted;
        if !empty {
            self.end_field();
            out.push_back(std::mem::take(&mut self.fields));
        }
        self.state = State::Start;
        self.record_chars = 0;
    }
}

fn is_blank(letter: char) -> bool {
    letter == ' ' || letter == '\t'
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMA: Syntax = Syntax { delimiter: ',', quote: Some('"'), trim: true, safe: true };

    fn records(syntax: Syntax, pieces: &[&str]) -> Vec<Vec<String>> {
        let mut tokens = Tokens::new(syntax);
        let mut out = VecDeque::new();
        for piece in pieces {
            assert_eq!(tokens.push(piece, &mut out), Ok(()));
        }
        tokens.end(&mut out);
        out.into()
    }

    #[test]
    fn fields_quotes_and_line_ends_are_understood() {
        assert_eq!(
            records(COMMA, &["a, b ,\"c,\n\"\"d\"\" \"\r\n\r\n,x\r\"\"\n\n  y"]),
            [vec!["a", "b", "c,\n\"d\" "], vec!["", "x"], vec![""], vec!["y"]]
        );
    }

    #[test]
    fn quotes_inside_of_a_field_are_text() {
        assert_eq!(records(COMMA, &["5\" pipe,a\"b\""]), [["5\" pipe", "a\"b\""]]);
        let plain = Syntax { quote: None, trim: false, ..COMMA };
        assert_eq!(records(plain, &["\"a\", b \n"]), [["\"a\"", " b "]]);
    }

    #[test]
    fn tabs_can_be_delimiters() {
        assert_eq!(records(Syntax { delimiter: '\t', ..COMMA }, &["a\t\tb\t\n"]), [["a", "", "b", ""]]);
    }

    #[test]
    fn fields_that_never_end_are_refused() {
        let mut tokens = Tokens::new(COMMA);
        let mut out = VecDeque::new();
        let long = "x".repeat(FIELD_CHARS);
        assert_eq!(tokens.push(&long, &mut out), Ok(()));
        assert_eq!(tokens.push("x", &mut out), Err(TooLong));
        let mut tokens = Tokens::new(Syntax { safe: false, ..COMMA });
        assert_eq!(tokens.push(&long, &mut out).and_then(|()| tokens.push("x", &mut out)), Ok(()));
    }

    proptest::proptest! {
        #[test]
        fn it_does_not_matter_where_the_pieces_end(text in "[ab,\"\r\n 表]{0,40}", cut in 0_usize..40) {
            let cut = text.char_indices().map(|(at, _)| at).nth(cut).unwrap_or(text.len());
            let (one, two) = text.split_at(cut);
            proptest::prop_assert_eq!(records(COMMA, &[&text]), records(COMMA, &[one, two]));
        }
    }
}

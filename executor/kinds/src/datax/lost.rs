//! How many records may be lost before a transfer that DataX calls a success is a failure.
//!
//! DataX without an `errorLimit` succeeds even where every record failed. That default has cost people their data, so
//! here it is a failure unless somebody said that records may fail.

use millrace_common::kind::datax::AllowFailed;

/// How many records may fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tolerance {
    /// As many as the job's own `errorLimit` let through.
    Job,
    /// At most so many.
    AtMost(u64),
    /// At most none, because nobody said anything.
    Unsaid,
}

impl Tolerance {
    /// Returns what the parameters, and where they are silent the text of the job file, say.
    pub(super) fn new(allow: Option<AllowFailed>, job: &str) -> Self {
        match allow {
            Some(AllowFailed::Any(true)) => Self::AtMost(u64::MAX),
            Some(AllowFailed::Any(false)) => Self::AtMost(0),
            Some(AllowFailed::AtMost(records)) => Self::AtMost(records),
            None if has_error_limit(job) => Self::Job,
            None => Self::Unsaid,
        }
    }

    /// Returns how many may fail; absent where the job itself decided.
    pub(super) const fn records(self) -> Option<u64> {
        match self {
            Self::Job => None,
            Self::AtMost(records) => Some(records),
            Self::Unsaid => Some(0),
        }
    }

    /// Says whether the task asked for a number that must be checked, even where DataX did not count.
    pub(super) const fn needs_count(self) -> bool {
        matches!(self, Self::AtMost(records) if records < u64::MAX)
    }
}

/// A piece of a job file's text.
#[derive(Debug, PartialEq, Eq)]
enum Token<'a> {
    Text(&'a str),
    Mark(char),
    Word(&'a str),
}

/// Says whether a job file sets an `errorLimit`.
///
/// The text is read as tokens and not as JSON: before `$name` is replaced it often is none, and afterwards its values may
/// be secrets that have no business here.
fn has_error_limit(job: &str) -> bool {
    let tokens: Vec<_> = Tokens { rest: job }.collect();
    let starts = tokens.windows(3).enumerate().filter(|(_, window)| {
        matches!(window, [Token::Text("errorLimit"), Token::Mark(':'), Token::Mark('{')])
    });
    starts.into_iter().any(|(at, _)| limits(&tokens[at + 3..]))
}

/// Says whether an object, whose opening brace was read, holds a limit.
fn limits(tokens: &[Token<'_>]) -> bool {
    let inside = tokens.split(|token| *token == Token::Mark('}')).next().unwrap_or_default();
    inside.windows(3).any(|window| match window {
        [Token::Text("record" | "percentage"), Token::Mark(':'), value] => *value != Token::Word("null"),
        _ => false,
    })
}

/// Splits the text of a job file, comments left out.
struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Token<'a>;

    fn next(&mut self) -> Option<Token<'a>> {
        loop {
            self.rest = self.rest.trim_start();
            if let Some(comment) = self.rest.strip_prefix("//") {
                self.rest = comment.split_once('\n').map_or("", |(_, rest)| rest);
            } else if let Some(comment) = self.rest.strip_prefix("/*") {
                self.rest = comment.split_once("*/").map_or("", |(_, rest)| rest);
            } else {
                break;
            }
        }
        let first = self.rest.chars().next()?;
        let length = match first {
            '"' => text_length(self.rest),
            _ if is_word(first) => self.rest.find(|letter| !is_word(letter)).unwrap_or(self.rest.len()),
            mark => mark.len_utf8(),
        };
        let (token, rest) = self.rest.split_at(length);
        self.rest = rest;
        Some(match first {
            '"' => Token::Text(token.trim_matches('"')),
            _ if is_word(first) => Token::Word(token),
            mark => Token::Mark(mark),
        })
    }
}

const fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || matches!(letter, '_' | '.' | '-' | '+')
}

/// Bytes of the quoted text at the start of `text`, both quotes with it.
fn text_length(text: &str) -> usize {
    let mut is_escaped = false;
    for (at, letter) in text.char_indices().skip(1) {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_a_job_file_are_found() {
        for job in [
            r#"{"job":{"setting":{"errorLimit":{"record":0}}}}"#,
            r#"{"setting": {"errorLimit": { "percentage" : 0.02 }}}"#,
            "{ // comment\n\"errorLimit\": { /* here */ \"record\": $limit } }",
            r#"{"errorLimit": {"record": null, "percentage": 1}}"#,
        ] {
            assert!(has_error_limit(job), "{job}");
        }
    }

    #[test]
    fn what_only_looks_like_a_limit_is_none() {
        for job in [
            r#"{"job":{"setting":{"speed":{"channel":1}}}}"#,
            r#"{"errorLimit":{}}"#,
            r#"{"errorLimit":{"record":null}, "record": 1}"#,
            "{ // \"errorLimit\": {\"record\": 0}\n }",
            r#"{"where": "\"errorLimit\": {\"record\": 0}"}"#,
            r#"{"errorLimit": "record: 0"}"#,
            r#"{"errorLimit":{"#,
            "\"",
            "/*",
        ] {
            assert!(!has_error_limit(job), "{job}");
        }
    }

    #[test]
    fn the_task_outranks_the_job_file() {
        let job = r#"{"errorLimit":{"record":5}}"#;
        assert_eq!(Tolerance::new(None, job), Tolerance::Job);
        assert_eq!(Tolerance::new(None, "{}").records(), Some(0));
        assert_eq!(Tolerance::new(Some(AllowFailed::Any(false)), job).records(), Some(0));
        assert_eq!(Tolerance::new(Some(AllowFailed::AtMost(7)), job).records(), Some(7));
        assert_eq!(Tolerance::new(Some(AllowFailed::Any(true)), "{}").records(), Some(u64::MAX));
    }

    #[test]
    fn only_a_number_that_was_asked_for_must_be_counted() {
        assert!(Tolerance::new(Some(AllowFailed::Any(false)), "{}").needs_count());
        assert!(!Tolerance::new(Some(AllowFailed::Any(true)), "{}").needs_count());
        assert!(!Tolerance::new(None, "{}").needs_count());
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_survived(text in "(\"|errorLimit|record|:|\\{|\\}|//|/\\*|\\\\|\\n|\\PC){0,30}") {
            has_error_limit(&text);
        }
    }
}

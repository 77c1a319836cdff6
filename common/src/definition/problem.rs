//! What is wrong with a document, and where.

use std::{cell::OnceCell, fmt, ops::Range};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::limits::PROBLEMS_MAX;

/// Characters of the document that a problem repeats.
const FOUND_CHARS_MAX: usize = 80;

/// One thing that is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// Bytes of the document that are wrong.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// The text found there, its first line, shortened.
    pub found: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// A document that is no workflow, and all reasons.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
pub struct Rejected {
    /// All problems, by position, at most [`PROBLEMS_MAX`].
    pub problems: Vec<Problem>,
}

impl fmt::Display for Rejected {
    /// Writes one line for each problem.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.problems.iter().enumerate() {
            let end = if at == 0 { "" } else { "\n" };
            write!(f, "{end}{problem}")?;
        }
        if self.problems.len() >= PROBLEMS_MAX {
            write!(f, "\nthere may be more problems, only {PROBLEMS_MAX} are shown")?;
        }
        Ok(())
    }
}

/// A range of a document in characters, as the YAML parser counts. Only problems need bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

/// Collects problems; converts positions when there is something to report, so that a good document does not pay.
#[derive(Debug)]
pub(super) struct Problems<'t> {
    text: &'t str,
    found: Vec<Problem>,
    lines: OnceCell<Vec<usize>>,
    chars: OnceCell<Vec<usize>>,
}

impl<'t> Problems<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, found: Vec::new(), lines: OnceCell::new(), chars: OnceCell::new() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Tells whether further problems would be dropped, so that looking for them can stop.
    pub(super) fn is_full(&self) -> bool {
        self.found.len() >= PROBLEMS_MAX
    }

    pub(super) fn into_rejected(mut self) -> Rejected {
        self.found.sort_by(|a, b| (a.span.start, &a.message).cmp(&(b.span.start, &b.message)));
        self.found.dedup();
        Rejected { problems: self.found }
    }

    pub(super) fn add(&mut self, at: Span, message: impl Into<String>) {
        self.add_at(self.bytes(at), message.into(), None);
    }

    pub(super) fn add_with_hint(&mut self, at: Span, message: impl Into<String>, hint: impl Into<String>) {
        self.add_at(self.bytes(at), message.into(), Some(hint.into()));
    }

    /// Adds a problem of a part of a text that stands at `at`, such as a template; `part` is what the text holds there.
    pub(super) fn add_inside(&mut self, at: Span, part: &str, message: String, hint: Option<String>) {
        let whole = self.bytes(at);
        let range = match self.text[whole.clone()].find(part) {
            Some(start) if !part.is_empty() => whole.start + start..whole.start + start + part.len(),
            // Escapes or folding changed the text: the whole is the best place there is.
            _ => whole,
        };
        self.add_at(range, message, hint);
    }

    pub(super) fn line_of(&self, at: Span) -> usize {
        self.line_and_start(self.bytes(at).start).0
    }

    fn add_at(&mut self, span: Range<usize>, message: String, hint: Option<String>) {
        if self.is_full() {
            return;
        }
        let (line, line_start) = self.line_and_start(span.start);
        let column = self.text[line_start..span.start].chars().count() + 1;
        let first_line = self.text[span.clone()].lines().next().unwrap_or_default();
        let mut found: String = first_line.chars().take(FOUND_CHARS_MAX).collect();
        if found.len() < first_line.len() {
            found.push('…');
        }
        self.found.push(Problem { line, column, span, message, found, hint });
    }

    fn line_and_start(&self, byte: usize) -> (usize, usize) {
        let starts = self.lines.get_or_init(|| {
            let breaks = self.text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n');
            std::iter::once(0).chain(breaks.map(|(at, _)| at + 1)).collect()
        });
        let line = starts.partition_point(|start| *start <= byte);
        (line, starts.get(line - 1).copied().unwrap_or(0))
    }

    /// Converts to bytes, without the white space that the parser counts to a block.
    fn bytes(&self, at: Span) -> Range<usize> {
        let start = self.byte(at.start);
        let end = self.byte(at.end.max(at.start));
        start..start + self.text[start..end].trim_end().len()
    }

    fn byte(&self, char: u32) -> usize {
        /// Characters between two known positions.
        const STRIDE: usize = 64;
        let known = self
            .chars
            .get_or_init(|| self.text.char_indices().step_by(STRIDE).map(|(byte, _)| byte).collect());
        let char = char as usize;
        let Some(start) = known.get(char / STRIDE) else { return self.text.len() };
        let rest = &self.text[*start..];
        rest.char_indices().nth(char % STRIDE).map_or(self.text.len(), |(byte, _)| start + byte)
    }
}

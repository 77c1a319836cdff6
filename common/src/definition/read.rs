//! Reading values of known types, noting what is wrong.
//!
//! Every function gives `None` after it has added a problem, so that reading goes on and finds the next one. A value of
//! null counts as absent.

use std::{fmt::Display, ops::RangeInclusive, str::FromStr, time::Duration};

use super::{
    node::{Content, Entry, Node},
    problem::{Problems, Span},
};
use crate::{
    nearest::nearest,
    text::{QuantityError, ShowDuration, parse_duration},
};

/// Characters of an unknown word that a message repeats.
const WORD_CHARS_MAX: usize = 60;

/// The entries of a map whose keys are fixed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'n, 't> {
    entries: &'n [Entry<'t>],
    /// Where a problem of the map as a whole is shown.
    pub(super) at: Span,
}

impl<'n, 't> Fields<'n, 't> {
    /// Opens a map and reports keys that are not known. `at` is where the map is named.
    pub(super) fn open(
        node: &'n Node<'t>,
        at: Span,
        known: &[&str],
        problems: &mut Problems<'t>,
    ) -> Option<Self> {
        let Some(entries) = node.as_map() else {
            expected("a map", node, problems);
            return None;
        };
        for entry in entries.iter().filter(|entry| !known.contains(&entry.key.text.as_ref())) {
            if problems.is_full() {
                break;
            }
            let key = entry.key.text.as_ref();
            let message = format!("unknown key `{}`", short(key));
            problems.add_with_hint(entry.key.span, message, suggestion(key, known));
        }
        Some(Self { entries, at })
    }

    /// Finds a value that is not null.
    pub(super) fn get(&self, key: &str) -> Option<&'n Node<'t>> {
        self.entry(key).map(|entry| &entry.value).filter(|value| !value.is_null())
    }

    pub(super) fn entry(&self, key: &str) -> Option<&'n Entry<'t>> {
        self.entries.iter().find(|entry| entry.key.text == key)
    }

    /// Finds a value that must be there.
    pub(super) fn need(&self, key: &str, problems: &mut Problems<'t>) -> Option<&'n Node<'t>> {
        let found = self.get(key);
        if found.is_none() {
            problems.add(self.at, format!("the key `{key}` is missing"));
        }
        found
    }

    /// Reads a value where it is there.
    pub(super) fn read<T>(
        &self,
        key: &str,
        problems: &mut Problems<'t>,
        read: impl FnOnce(&'n Node<'t>, &mut Problems<'t>) -> Option<T>,
    ) -> Option<T> {
        self.get(key).and_then(|node| read(node, problems))
    }
}

/// Returns a word as messages show it.
pub(super) fn short(word: &str) -> String {
    if word.chars().nth(WORD_CHARS_MAX).is_none() {
        return word.to_owned();
    }
    word.chars().take(WORD_CHARS_MAX).chain(['…']).collect()
}

/// Returns what to do about a word that is not among the known ones.
pub(super) fn suggestion(word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known: {}", known.join(", ")),
    }
}

/// Reports that something else stands where `what` is needed.
pub(super) fn expected(what: &str, node: &Node<'_>, problems: &mut Problems<'_>) {
    problems.add(node.span, format!("{what} is expected here, not {}", node.kind()));
}

pub(super) fn text<'n>(node: &'n Node<'_>, problems: &mut Problems<'_>) -> Option<&'n str> {
    match &node.content {
        Content::Text(text) => Some(text),
        Content::Number(_) | Content::Bool(_) => {
            let message = format!("a text is expected here, not {}", node.kind());
            problems.add_with_hint(node.span, message, "put it in quotes");
            None
        }
        _ => {
            expected("a text", node, problems);
            None
        }
    }
}

/// Reads a text that is a name, a number or the like.
pub(super) fn parsed<T: FromStr<Err: Display>>(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<T> {
    let text = text(node, problems)?;
    match text.parse() {
        Ok(parsed) => Some(parsed),
        Err(error) => {
            problems.add(node.span, error.to_string());
            None
        }
    }
}

pub(super) fn boolean(node: &Node<'_>, problems: &mut Problems<'_>) -> Option<bool> {
    match &node.content {
        Content::Bool(truth) => Some(*truth),
        Content::Text(text) => {
            let message = "true or false is expected here, not a text";
            match text.to_ascii_lowercase().as_str() {
                "yes" | "on" | "y" | "true" => problems.add_with_hint(node.span, message, "write true"),
                "no" | "off" | "n" | "false" => problems.add_with_hint(node.span, message, "write false"),
                _ => problems.add(node.span, message),
            }
            None
        }
        _ => {
            expected("true or false", node, problems);
            None
        }
    }
}

/// Reads a whole number within bounds.
pub(super) fn whole<T: TryFrom<i64>>(
    node: &Node<'_>,
    bounds: RangeInclusive<i64>,
    problems: &mut Problems<'_>,
) -> Option<T> {
    let Content::Number(number) = &node.content else {
        expected("a whole number", node, problems);
        return None;
    };
    let within = number.as_i64().filter(|number| bounds.contains(number));
    let fitting = within.and_then(|number| T::try_from(number).ok());
    if fitting.is_none() {
        let message =
            format!("a whole number between {} and {} is expected here", bounds.start(), bounds.end());
        problems.add(node.span, message);
    }
    fitting
}

/// Reads a number within bounds.
pub(super) fn decimal(
    node: &Node<'_>,
    bounds: RangeInclusive<f64>,
    problems: &mut Problems<'_>,
) -> Option<f64> {
    let Content::Number(number) = &node.content else {
        expected("a number", node, problems);
        return None;
    };
    let within = number.as_f64().filter(|number| bounds.contains(number));
    if within.is_none() {
        let message = format!("a number between {} and {} is expected here", bounds.start(), bounds.end());
        problems.add(node.span, message);
    }
    within
}

/// Reads a duration within bounds.
pub(super) fn duration(
    node: &Node<'_>,
    bounds: RangeInclusive<Duration>,
    problems: &mut Problems<'_>,
) -> Option<Duration> {
    const UNITS: &str = "units: ms, s, m, h, d, w";
    let text = match &node.content {
        Content::Text(text) => text,
        Content::Number(number) => {
            let hint = format!("write {number}s, {number}m or {number}h");
            problems.add_with_hint(node.span, "a duration needs a unit", hint);
            return None;
        }
        _ => {
            expected("a duration such as 5m", node, problems);
            return None;
        }
    };
    match parse_duration(text) {
        Ok(duration) if bounds.contains(&duration) => Some(duration),
        Ok(_) => {
            let (from, to) = (ShowDuration(*bounds.start()), ShowDuration(*bounds.end()));
            problems.add(node.span, format!("a duration between {from} and {to} is expected here"));
            None
        }
        Err(error @ (QuantityError::Unit { .. } | QuantityError::TooLarge(_))) => {
            problems.add(node.span, error.to_string());
            None
        }
        Err(QuantityError::Number(_)) => {
            problems.add_with_hint(node.span, "a duration such as 5m or 1h30m is expected here", UNITS);
            None
        }
    }
}

/// Reads one of a few words.
pub(super) fn one_of<T: Copy>(
    node: &Node<'_>,
    words: &[(&str, T)],
    problems: &mut Problems<'_>,
) -> Option<T> {
    let text = text(node, problems)?;
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, meaning)| *meaning);
    if found.is_none() {
        let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
        let message = format!("`{}` is not one of {}", short(text), known.join(", "));
        match nearest(text, known) {
            Some(near) => problems.add_with_hint(node.span, message, format!("did you mean `{near}`?")),
            None => problems.add(node.span, message),
        }
    }
    found
}

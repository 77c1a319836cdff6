//! Reading the parts of a definition, leniently as `DataX` does and with all problems at once.
//!
//! A number may be written as text and a truth value too. A wrong value is a [`Problem`] with its
//! path; a legal value that only an external `DataX` supports is collected apart, and so is what is
//! ignored.

use std::{cell::RefCell, fmt};

use serde_json::{Map, Value};

use crate::secret::Secret;

/// One thing that is wrong with a definition.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// Where, as `job.content[0].reader.parameter.column`.
    pub path: String,
    /// What is wrong and what to do.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// What was found while a definition was read.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    problems: RefCell<Vec<Problem>>,
    foreign: RefCell<Vec<String>>,
    notes: RefCell<Vec<String>>,
}

/// What [`Findings`] collected, at the end.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) problems: Vec<Problem>,
    pub(crate) foreign: Vec<String>,
    pub(crate) notes: Vec<String>,
}

impl Findings {
    pub(crate) fn problem(&self, path: &str, message: impl Into<String>) {
        self.problems.borrow_mut().push(Problem { path: path.to_owned(), message: message.into() });
    }

    /// Records that something legal needs an external `DataX`.
    pub(crate) fn foreign(&self, why: impl Into<String>) {
        self.foreign.borrow_mut().push(why.into());
    }

    /// Records that something is ignored, and why that is harmless.
    pub(crate) fn note(&self, text: impl Into<String>) {
        self.notes.borrow_mut().push(text.into());
    }

    pub(crate) fn finish(self) -> Found {
        Found {
            problems: self.problems.into_inner(),
            foreign: self.foreign.into_inner(),
            notes: self.notes.into_inner(),
        }
    }
}

/// One object of a definition, with its path.
#[derive(Debug, Clone)]
pub(crate) struct Section<'a> {
    map: Option<&'a Map<String, Value>>,
    path: String,
    findings: &'a Findings,
}

impl<'a> Section<'a> {
    pub(crate) fn root(value: &'a Value, findings: &'a Findings) -> Self {
        Self::new(Some(value), String::new(), findings)
    }

    fn new(value: Option<&'a Value>, path: String, findings: &'a Findings) -> Self {
        let map = value.and_then(Value::as_object);
        if map.is_none() && value.is_some_and(|value| !value.is_null()) {
            findings.problem(&path, "must be an object");
        }
        Self { map, path, findings }
    }

    pub(crate) fn findings(&self) -> &'a Findings {
        self.findings
    }

    pub(crate) fn path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    pub(crate) fn problem(&self, key: &str, message: impl Into<String>) {
        self.findings.problem(&self.path(key), message);
    }

    /// The value at `key`; a null counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<&'a Value> {
        self.map?.get(key).filter(|value| !value.is_null())
    }

    /// The object at `key`; absent objects read as empty.
    pub(crate) fn section(&self, key: &str) -> Self {
        Self::new(self.get(key), self.path(key), self.findings)
    }

    /// The object at a dotted path.
    pub(crate) fn descend(&self, path: &str) -> Self {
        path.split('.').fold(self.clone(), |section, key| section.section(key))
    }

    /// The objects of a list; one object stands for a list of one.
    pub(crate) fn sections(&self, key: &str) -> Vec<Self> {
        match self.get(key) {
            None => Vec::new(),
            Some(Value::Array(items)) => items
                .iter()
                .enumerate()
                .map(|(index, item)| {
                    Self::new(Some(item), format!("{}[{index}]", self.path(key)), self.findings)
                })
                .collect(),
            Some(Value::Object(_)) => vec![self.section(key)],
            Some(_) => {
                self.problem(key, "must be a list of objects");
                Vec::new()
            }
        }
    }

    pub(crate) fn text(&self, key: &str) -> Option<String> {
        let value = self.get(key)?;
        let text = scalar_text(value);
        if text.is_none() {
            self.problem(key, "must be a text");
        }
        text
    }

    /// A text that is not blank, or a problem.
    pub(crate) fn required(&self, key: &str) -> Option<String> {
        let text = self.text(key).filter(|text| !text.trim().is_empty());
        if text.is_none() && !matches!(self.get(key), Some(Value::Array(_) | Value::Object(_))) {
            self.problem(key, "is required and must not be blank");
        }
        text
    }

    pub(crate) fn secret(&self, key: &str) -> Secret {
        Secret::new(self.text(key).unwrap_or_default())
    }

    /// A list of texts; one text stands for a list of one.
    pub(crate) fn texts(&self, key: &str) -> Vec<String> {
        let Some(value) = self.get(key) else { return Vec::new() };
        let texts = match value {
            Value::Array(items) => items.iter().map(scalar_text).collect::<Option<Vec<_>>>(),
            single => scalar_text(single).map(|text| vec![text]),
        };
        texts.unwrap_or_else(|| {
            self.problem(key, "must be a text or a list of texts");
            Vec::new()
        })
    }

    /// Says whether the value is `["*"]` or `"*"`.
    pub(crate) fn is_star(&self, key: &str) -> bool {
        match self.get(key) {
            Some(Value::Array(items)) => matches!(items.as_slice(), [Value::String(star)] if star == "*"),
            Some(Value::String(star)) => star == "*",
            _ => false,
        }
    }

    pub(crate) fn count(&self, key: &str) -> Option<u64> {
        let number = self.number(key)?;
        if number.fract() != 0.0 || !(0.0..=9e15).contains(&number) {
            self.problem(key, "must be a whole number, not negative");
            return None;
        }
        #[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "checked above")]
        Some(number as u64)
    }

    /// A count where a negative number means "not set", as `DataX` writes `-1`.
    pub(crate) fn limit(&self, key: &str) -> Option<u64> {
        match self.number(key) {
            Some(number) if number <= 0.0 => None,
            _ => self.count(key),
        }
    }

    pub(crate) fn number(&self, key: &str) -> Option<f64> {
        let number = match self.get(key)? {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => text.trim().parse().ok(),
            _ => None,
        };
        if number.is_none() {
            self.problem(key, "must be a number");
        }
        number.filter(|number| number.is_finite())
    }

    pub(crate) fn flag(&self, key: &str) -> Option<bool> {
        let text = self.get(key).and_then(scalar_text);
        match text.as_deref().map(str::to_ascii_lowercase).as_deref() {
            Some("true") => Some(true),
            Some("false") => Some(false),
            _ if self.get(key).is_none() => None,
            _ => {
                self.problem(key, "must be true or false");
                None
            }
        }
    }

    /// A single character, such as a delimiter.
    pub(crate) fn character(&self, key: &str, default: char) -> char {
        let Some(text) = self.text(key) else { return default };
        let mut chars = text.chars();
        match (chars.next(), chars.next()) {
            (Some(one), None) => one,
            // A tab is also written as the two characters `\t` in job files.
            (Some('\\'), Some('t')) if text.len() == 2 => '\t',
            _ => {
                self.problem(key, "must be a single character");
                default
            }
        }
    }

    /// Notes every key that is not in `known`, because `DataX` ignores it silently.
    pub(crate) fn note_unknown(&self, known: &[&str]) {
        for key in self.map.into_iter().flat_map(Map::keys) {
            if !known.contains(&key.as_str()) {
                self.findings.note(format!("{} is unknown and ignored", self.path(key)));
            }
        }
    }
}

fn scalar_text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_read_leniently() {
        let value = json!({"n": "12", "f": "TRUE", "t": 5, "one": "a", "many": ["a", 2], "tab": "\\t"});
        let findings = Findings::default();
        let section = Section::root(&value, &findings);
        assert_eq!(section.count("n"), Some(12));
        assert_eq!(section.flag("f"), Some(true));
        assert_eq!(section.text("t").as_deref(), Some("5"));
        assert_eq!(section.texts("one"), ["a"]);
        assert_eq!(section.texts("many"), ["a", "2"]);
        assert_eq!(section.character("tab", ','), '\t');
        assert!(findings.finish().problems.is_empty());
    }

    #[test]
    fn every_problem_is_found_with_its_path() {
        let value = json!({"a": {"n": -3, "f": "maybe", "t": [], "l": {"x": 1}, "c": "ab"}});
        let findings = Findings::default();
        let section = Section::root(&value, &findings).section("a");
        section.count("n");
        section.flag("f");
        section.required("t");
        section.required("u");
        section.texts("l");
        section.character("c", ',');
        let paths: Vec<_> = findings.finish().problems.into_iter().map(|problem| problem.path).collect();
        assert_eq!(paths, ["a.n", "a.f", "a.t", "a.u", "a.l", "a.c"]);
    }

    #[test]
    fn unknown_keys_are_noted() {
        let value = json!({"known": 1, "other": 2});
        let findings = Findings::default();
        Section::root(&value, &findings).note_unknown(&["known"]);
        assert_eq!(findings.finish().notes, ["other is unknown and ignored"]);
    }
}

//! In what two workflows differ.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::document::to_document;
use crate::workflow::Workflow;

/// Characters of a value that a difference shows.
const SHOWN_CHARS_MAX: usize = 200;

/// One thing in which two workflows differ, defaults resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Where, as in `tasks.orders.retries`.
    pub path: String,
    /// What it was, as JSON, shortened; absent where it was added.
    pub old: Option<String>,
    /// What it is, as JSON, shortened; absent where it was removed.
    pub new: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => write!(f, "{}: {old} -> {new}", self.path),
            (Some(old), None) => write!(f, "{}: {old} removed", self.path),
            (None, Some(new)) => write!(f, "{}: {new} added", self.path),
            (None, None) => f.write_str(&self.path),
        }
    }
}

/// Returns in what two workflows differ: what was removed or changed in the order of `old`, then what was added.
#[must_use]
pub fn diff(old: &Workflow, new: &Workflow) -> Vec<Difference> {
    let mut differences = Vec::new();
    compare("", Some(&to_document(old)), Some(&to_document(new)), &mut differences);
    differences
}

fn compare(path: &str, old: Option<&Value>, new: Option<&Value>, differences: &mut Vec<Difference>) {
    match (old, new) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => compare_maps(path, old, new, differences),
        (old, new) if old == new => {}
        (old, new) => {
            differences.push(Difference { path: path.to_owned(), old: old.map(shown), new: new.map(shown) });
        }
    }
}

fn compare_maps(
    path: &str,
    old: &Map<String, Value>,
    new: &Map<String, Value>,
    differences: &mut Vec<Difference>,
) {
    let inside = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    for (key, value) in old {
        compare(&inside(key), Some(value), new.get(key), differences);
    }
    for (key, value) in new.iter().filter(|(key, _)| !old.contains_key(*key)) {
        compare(&inside(key), None, Some(value), differences);
    }
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::parse;

    const OLD: &str = "
        workflow: w
        schedule: { cron: '30 2 * * *' }
        defaults: { retries: 1 }
        tasks:
          a: { kind: shell, with: { command: [x, y] } }
          b: { kind: shell, after: a, with: { script: x } }
    ";
    const NEW: &str = "
        workflow: w
        schedule: { cron: '30 3 * * *' }
        defaults: { retries: 1 }
        tasks:
          a: { kind: shell, retries: 2, with: { command: [x, z], env: { A: b } } }
          c: { kind: custom }
    ";

    fn lines(old: &str, new: &str) -> Vec<String> {
        let differences = diff(&parse(old).unwrap(), &parse(new).unwrap());
        let shown =
            |side: Option<String>| side.map_or("-".to_owned(), |text| text.chars().take(24).collect());
        differences.into_iter().map(|d| format!("{}: {} > {}", d.path, shown(d.old), shown(d.new))).collect()
    }

    #[test]
    fn differences_are_listed_by_path() {
        assert_eq!(
            lines(OLD, NEW),
            [
                r#"schedule.cron: "30 2 * * *" > "30 3 * * *""#,
                r#"tasks.a.with.command: ["x","y"] > ["x","z"]"#,
                r#"tasks.a.with.env: - > {"A":"b"}"#,
                "tasks.a.retries: 1 > 2",
                r#"tasks.b: {"kind":"shell","after": > -"#,
                r#"tasks.c: - > {"kind":"custom","with":"#,
            ]
        );
    }

    #[test]
    fn other_words_for_the_same_are_no_difference() {
        let same = OLD
            .replace("defaults: { retries: 1 }", "timeout:")
            .replace("kind: shell,", "retries: 1, kind: shell,");
        assert_eq!(lines(OLD, &same), Vec::<String>::new());
    }
}

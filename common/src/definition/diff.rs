//! In what two workflows differ.

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

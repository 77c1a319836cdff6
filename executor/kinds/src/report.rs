//! What a process hands back beside its exit code: values for later tasks.
//!
//! The file named by `MILLRACE_VALUES` holds lines, each either `key=value` (the value is text) or a JSON object whose
//! members are added. Later lines win. The same file is used by a user's script and by built-in kinds.

use std::path::Path;

use millrace_common::limits::VALUES_BYTES_MAX;
use serde_json::{Map, Value};
use thiserror::Error;

/// What a kind's work came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Something was done.
    Done,
    /// There was nothing to do and the parameters say that this skips the task.
    Skipped,
}

/// Outcome and values of a kind's work.
#[derive(Debug, Clone)]
pub struct Report {
    /// What it came to.
    pub outcome: Outcome,
    /// Values for later tasks.
    pub values: Map<String, Value>,
}

impl Report {
    /// Makes the report of work that was done.
    #[must_use]
    pub const fn done(values: Map<String, Value>) -> Self {
        Self { outcome: Outcome::Done, values }
    }
}

/// Why the values of an attempt could not be taken over. The attempt fails: later tasks would read wrong values.
#[derive(Debug, Error)]
pub enum ValuesError {
    /// The file could not be read.
    #[error("the values file cannot be read")]
    Read(#[from] std::io::Error),
    /// More than [`VALUES_BYTES_MAX`].
    #[error(
        "the values take {0} bytes, at most {VALUES_BYTES_MAX} are kept: write large results to a file and hand on its path"
    )]
    TooLarge(u64),
    /// A line is neither form.
    #[error("line {line} of the values file is neither `key=value` nor a JSON object: {text:?}")]
    Line {
        /// Line number, from 1.
        line: usize,
        /// The line, shortened.
        text: String,
    },
}

/// Reads the values file; an absent one holds no values.
///
/// # Errors
/// Where it cannot be read, is too large, or has a line that is neither form.
pub fn read_values(path: &Path) -> Result<Map<String, Value>, ValuesError> {
    let bytes = match std::fs::metadata(path) {
        Ok(metadata) if metadata.len() > VALUES_BYTES_MAX as u64 => {
            return Err(ValuesError::TooLarge(metadata.len()));
        }
        Ok(_) => std::fs::read(path)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Map::new()),
        Err(error) => return Err(error.into()),
    };
    let mut values = Map::new();
    for (line, text) in (1..).zip(String::from_utf8_lossy(&bytes).lines()) {
        let text = text.trim();
        if text.is_empty() {
            continue;
        }
        match parse_line(text) {
            Some(found) => values.extend(found),
            None => return Err(ValuesError::Line { line, text: text.chars().take(80).collect() }),
        }
    }
    Ok(values)
}

fn parse_line(text: &str) -> Option<Map<String, Value>> {
    if text.starts_with('{') {
        return serde_json::from_str(text).ok();
    }
    let (key, value) = text.split_once('=')?;
    let key = key.trim();
    let is_key =
        !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    is_key.then(|| Map::from_iter([(key.to_owned(), Value::String(value.trim().to_owned()))]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: impl AsRef<[u8]>) -> Result<Map<String, Value>, ValuesError> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("values");
        std::fs::write(&file, text)?;
        read_values(&file)
    }

    #[test]
    fn both_forms_are_read_and_later_lines_win() {
        let values = read("rows=1\n\n {\"rows\": 2, \"at\": {\"a\": [1]}}\r\nfile = /tmp/a=b \nempty=\n")
            .expect("values");
        assert_eq!(
            Value::Object(values),
            json!({ "rows": 2, "at": { "a": [1] }, "file": "/tmp/a=b", "empty": "" })
        );
    }

    #[test]
    fn an_absent_or_empty_file_holds_no_values() {
        assert!(read_values(Path::new("/nowhere/values")).expect("absent").is_empty());
        assert!(read("").expect("empty").is_empty());
    }

    #[test]
    fn a_line_of_neither_form_is_named() {
        for (text, line) in
            [("a=1\nb", 2), ("=1", 1), ("a b=1", 1), ("{\"a\": }", 1), ("[1]", 1), ("\n\n\0=1", 3)]
        {
            let error = read(text).expect_err(text);
            assert!(
                matches!(error, ValuesError::Line { line: found, .. } if found == line),
                "{text:?}: {error}"
            );
        }
        let error = read("x".repeat(10_000)).expect_err("long");
        assert!(error.to_string().len() < 200, "{error}");
    }

    #[test]
    fn what_is_no_unicode_does_not_lose_the_rest() {
        assert_eq!(read(b"a=\xff\nb=2").expect("values")["b"], "2");
    }

    #[test]
    fn more_than_the_limit_is_refused_as_a_whole() {
        assert!(read(format!("a={}", "x".repeat(VALUES_BYTES_MAX - 2))).is_ok());
        let error = read(format!("a={}", "x".repeat(VALUES_BYTES_MAX - 1))).expect_err("too large");
        assert!(matches!(error, ValuesError::TooLarge(_)), "{error}");
    }

    #[test]
    fn a_folder_in_its_place_is_an_error() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(matches!(read_values(folder.path()), Err(ValuesError::Read(_))));
    }

    proptest::proptest! {
        #[test]
        fn written_pairs_are_read_back(pairs in proptest::collection::btree_map("[A-Za-z0-9_.-]{1,8}", "[^\\s{][^\r\n]{0,20}[^\\s]", 0..5)) {
            let text: String = pairs.iter().map(|(key, value)| format!("{key}={value}\n")).collect();
            let values = read(text).expect("values");
            let found: std::collections::BTreeMap<_, _> =
                values.into_iter().map(|(key, value)| (key, value.as_str().unwrap_or_default().to_owned())).collect();
            proptest::prop_assert_eq!(found, pairs);
        }
    }
}

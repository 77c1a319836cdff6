//! Kinds that an executor's configuration declares: a program of the plant's own, with a JSON Schema of its parameters.
//!
//! The program receives the checked parameters as one JSON object on standard input and hands results on through the file
//! named by `MILLRACE_VALUES`. A schema is compiled when the configuration is read, so that a broken one stops the executor
//! and not a task at night. References to other documents are not followed: a schema stands in the configuration.

use std::{collections::BTreeMap, ffi::OsString, fmt, path::PathBuf};

use jsonschema::{ValidationError, Validator};
use millrace_common::{id::KindName, limits::PROBLEMS_MAX};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::{
    check,
    launch::{ExitCodes, Kind, Launch, LaunchError, Misfit, Misfits, Site, Work},
};

/// Characters of what a schema says about one parameter; it quotes the value, which may be long.
const PROBLEM_CHARS_MAX: usize = 300;

/// A kind as the configuration declares it, `[kinds.<name>]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Declaration {
    /// Program and arguments. Nothing is interpreted by a shell, nothing of a task is put into it.
    pub argv: Vec<String>,
    /// JSON Schema of the parameters; any object where absent.
    #[serde(default = "any_object")]
    pub parameters: Value,
    /// Environment beside the few variables that Millrace sets.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Folder to run in; a private folder of the attempt where absent.
    pub cwd: Option<PathBuf>,
    /// What the kind does, for people who look for it.
    #[serde(default)]
    pub description: String,
    /// Exit codes that mean "there was nothing to do": the task becomes `skipped`.
    #[serde(default)]
    pub skip_exit_codes: Vec<i32>,
}

fn any_object() -> Value {
    json!({ "type": "object" })
}

/// Why a declaration is not a kind.
#[derive(Debug, Error)]
pub enum DeclarationError {
    /// The name belongs to a kind that is built in.
    #[error("kind {0} is built in: declare [kinds.{0}] under another name")]
    BuiltIn(KindName),
    /// A key does not hold what it must.
    #[error("[kinds.{kind}] is not a declaration of a kind: {misfits}")]
    Misfits {
        /// The kind.
        kind: KindName,
        /// All that is wrong.
        misfits: Misfits,
    },
    /// The schema is not one.
    #[error("`parameters` of [kinds.{kind}] is not a JSON Schema: {problem}")]
    Schema {
        /// The kind.
        kind: KindName,
        /// What is wrong, and where in the schema.
        problem: String,
    },
}

/// A declared kind whose schema has been compiled.
#[derive(Clone)]
pub struct Declared {
    name: KindName,
    declaration: Declaration,
    validator: Validator,
}

impl fmt::Debug for Declared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Declared")
            .field("name", &self.name)
            .field("argv", &self.declaration.argv)
            .finish_non_exhaustive()
    }
}

impl Declared {
    /// Checks a declaration and compiles its schema.
    ///
    /// # Errors
    /// Where a key does not hold what it must, all of them at once, or the schema is not one.
    pub fn new(name: KindName, declaration: Declaration) -> Result<Self, DeclarationError> {
        let mut misfits = Vec::new();
        check::argv("argv", &declaration.argv, &mut misfits);
        check::env("env", &declaration.env, &mut misfits);
        check::exit_codes(&[0], &declaration.skip_exit_codes, &mut misfits);
        if let Some(cwd) = &declaration.cwd {
            check::folder("cwd", cwd, &mut misfits);
        }
        if !misfits.is_empty() {
            return Err(DeclarationError::Misfits { kind: name, misfits: Misfits(misfits) });
        }
        match jsonschema::validator_for(&declaration.parameters) {
            Ok(validator) => Ok(Self { name, declaration, validator }),
            Err(error) => Err(DeclarationError::Schema { kind: name, problem: schema_problem(&error) }),
        }
    }

    /// Returns what the configuration says.
    #[must_use]
    pub const fn declaration(&self) -> &Declaration {
        &self.declaration
    }

    fn misfits(&self, with: &Value) -> Vec<Misfit> {
        self.validator.iter_errors(with).take(PROBLEMS_MAX).map(|error| misfit(&error)).collect()
    }
}

impl Kind for Declared {
    fn launch(&self, work: &Work<'_>, _site: &Site) -> Result<Launch, LaunchError> {
        let empty = Value::Object(Map::new());
        let with = if work.with.is_null() { &empty } else { work.with };
        let misfits = self.misfits(with);
        if !misfits.is_empty() {
            return Err(LaunchError::Misfits { kind: self.name.to_string(), misfits: Misfits(misfits) });
        }
        Ok(Launch {
            argv: self.declaration.argv.iter().map(OsString::from).collect(),
            env: self.declaration.env.clone(),
            cwd: self.declaration.cwd.clone(),
            stdin: with.to_string().into_bytes(),
            exit: ExitCodes { skip: self.declaration.skip_exit_codes.clone(), ..ExitCodes::default() },
            secrets: Vec::new(),
        })
    }
}

fn misfit(error: &ValidationError<'_>) -> Misfit {
    Misfit::new(dotted(error.instance_path().as_str()), shortened(&error.to_string()))
}

fn schema_problem(error: &ValidationError<'_>) -> String {
    let path = dotted(error.instance_path().as_str());
    let problem = shortened(&error.to_string());
    if path.is_empty() { problem } else { format!("{path}: {problem}") }
}

fn shortened(text: &str) -> String {
    match text.char_indices().nth(PROBLEM_CHARS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// Turns a JSON pointer (`/a/0/b`) into the form in which paths are shown elsewhere (`a[0].b`).
fn dotted(pointer: &str) -> String {
    let mut path = String::new();
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()) {
            path.push_str(&format!("[{part}]"));
        } else {
            path.push_str(if path.is_empty() { "" } else { "." });
            path.push_str(&part);
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_shown_as_paths() {
        for (pointer, path) in
            [("", ""), ("/a", "a"), ("/a/0/b", "a[0].b"), ("/0", "[0]"), ("/a~1b/c~0", "a/b.c~")]
        {
            assert_eq!(dotted(pointer), path);
        }
    }

    #[test]
    fn long_values_do_not_fill_the_message() {
        assert_eq!(shortened(&"ä".repeat(1_000)).chars().count(), PROBLEM_CHARS_MAX + 3);
    }
}

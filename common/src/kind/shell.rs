//! Parameters of the `shell` kind.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

/// Runs a command, or a script with a named interpreter.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ShellWith {
    /// Program and arguments. Nothing is interpreted by a shell.
    pub command: Option<Vec<String>>,
    /// Text of a script; `interpreter` runs it.
    pub script: Option<String>,
    /// Program and arguments that run `script` from a file, `["/bin/sh", "-eu"]` where absent.
    pub interpreter: Option<Vec<String>>,
    /// Folder to run in; a private folder of the attempt where absent.
    pub cwd: Option<String>,
    /// Environment beside the few variables that Millrace sets.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Text on standard input; empty where absent.
    pub stdin: Option<String>,
    /// Exit codes that mean success, `[0]` where absent.
    pub success_exit_codes: Option<Vec<i32>>,
    /// Exit codes that mean "there was nothing to do": the task becomes `skipped`.
    #[serde(default)]
    pub skip_exit_codes: Vec<i32>,
}

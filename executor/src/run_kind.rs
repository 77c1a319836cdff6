//! The sub-command that runs a built-in kind in a process of its own.
//!
//! The executor starts its own binary with it; standalone offers the same, because there the executor's binary is that one.

use std::{env, ffi::OsStr, path::PathBuf, process::ExitCode};

use millrace_kinds::SUBCOMMAND;

use crate::procfs::VALUES_VARIABLE;

/// Tells whether this process was started to run a built-in kind; asked before arguments are parsed.
#[must_use]
pub fn is_run_kind() -> bool {
    env::args_os().nth(1).as_deref() == Some(OsStr::new(SUBCOMMAND))
}

/// Runs the kind that standard input names; the code says what it came to.
pub async fn run_kind_main() -> ExitCode {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is how an attempt is told where its values go, not a setting"
    )]
    let values_file = env::var_os(VALUES_VARIABLE).map(PathBuf::from);
    let code = millrace_kinds::run_kind(values_file).await;
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}

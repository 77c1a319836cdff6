//! How the end of a process is read.

use std::{os::unix::process::ExitStatusExt as _, process::ExitStatus};

use millrace_kinds::{launch::ExitCodes, report::read_values};
use millrace_runtime::Chain;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::{launcher::values_file, workspace::Workspace};
use crate::ledger::Ending;

/// Reads the outcome of an attempt. `was_ended` tells that a signal of this executor came before the exit.
pub(super) fn ending(
    status: ExitStatus,
    was_ended: bool,
    codes: &ExitCodes,
    workspace: &Workspace,
) -> Ending {
    if was_ended {
        return Ending::Ended { exit_code: status.code() };
    }
    let Some(code) = status.code() else {
        return Ending::Failed { exit_code: None, reason: signalled(status), is_permanent: false };
    };
    let is_skipped = codes.skip.contains(&code);
    if !is_skipped && !codes.success.contains(&code) {
        return Ending::Failed {
            exit_code: Some(code),
            reason: format!("exit code {code}"),
            is_permanent: false,
        };
    }
    match read_values(&values_file(workspace)) {
        Ok(values) if values.is_empty() => {
            Ending::Succeeded { exit_code: code, is_skipped, values: String::new() }
        }
        Ok(values) => {
            Ending::Succeeded { exit_code: code, is_skipped, values: Value::Object(values).to_string() }
        }
        // Later tasks would read wrong values.
        Err(error) => {
            Ending::Failed { exit_code: Some(code), reason: Chain(&error).to_string(), is_permanent: false }
        }
    }
}

fn signalled(status: ExitStatus) -> String {
    let number = status.signal().unwrap_or(0);
    match Signal::try_from(number) {
        Ok(Signal::SIGKILL) => "ended by SIGKILL from outside, perhaps for want of memory".to_owned(),
        Ok(signal) => format!("ended by {signal} from outside"),
        Err(_) => format!("ended by signal {number} from outside"),
    }
}

//! How the end of a process is read.

use std::{os::unix::process::ExitStatusExt as _, path::Path, process::ExitStatus};

use millrace_kinds::{launch::ExitCodes, report::read_values};
use millrace_runtime::Chain;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::launcher::values_file;
use crate::ledger::{EndedBy, Ending};

/// Reads the outcome of an attempt that ran in `dir`. `ended_by` tells that a signal of ours came before the exit.
pub(super) fn ending(status: ExitStatus, ended_by: Option<EndedBy>, codes: &ExitCodes, dir: &Path) -> Ending {
    if ended_by.is_some() {
        return Ending::Ended { exit_code: status.code(), by: ended_by };
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
    match read_values(&values_file(dir)) {
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

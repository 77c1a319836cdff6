//! How the end of a process is read.

use std::{fs::File, io::Read as _, os::unix::process::ExitStatusExt as _, path::Path, process::ExitStatus};

use millrace_common::secret::Secret;
use millrace_kinds::{launch::ExitCodes, report::read_values, run::REASON_FILE};
use millrace_runtime::Chain;
use nix::sys::signal::Signal;
use serde_json::Value;

use super::launcher::values_file;
use crate::{
    ledger::{EndedBy, Ending},
    output::masked,
};

/// Bytes that are read of a reason: what a kind says with all causes.
const REASON_BYTES_MAX: u64 = 16 << 10;
/// Characters of a reason: it stands on a line of a table.
const REASON_CHARS_MAX: usize = 500;

/// How a process ended and where it ran.
pub(super) struct Ended<'e> {
    pub(super) status: ExitStatus,
    /// Set where a signal of ours came before the exit.
    pub(super) by: Option<EndedBy>,
    pub(super) codes: &'e ExitCodes,
    pub(super) dir: &'e Path,
    /// What is hidden in what it says.
    pub(super) secrets: &'e [Secret],
}

/// Reads the outcome of an attempt.
pub(super) fn ending(ended: &Ended<'_>) -> Ending {
    let Ended { status, by, codes, dir, secrets } = *ended;
    if by.is_some() {
        return Ending::Ended { exit_code: status.code(), by };
    }
    let Some(code) = status.code() else {
        return Ending::Failed { exit_code: None, reason: signalled(status), is_permanent: false };
    };
    let is_skipped = codes.skip.contains(&code);
    if !is_skipped && !codes.success.contains(&code) {
        return Ending::Failed {
            exit_code: Some(code),
            reason: reason(dir, secrets).unwrap_or_else(|| format!("exit code {code}")),
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

/// Returns what a built-in kind left as the reason of its failure: one line, nothing secret in it, and not too long.
fn reason(dir: &Path, secrets: &[Secret]) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(dir.join(REASON_FILE)).ok()?.take(REASON_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    // Hidden first: what is cut or joined no longer looks like a secret.
    let text = masked(&bytes, secrets);
    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).collect();
    let line = words.into_iter().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    let cut = match line.char_indices().nth(REASON_CHARS_MAX) {
        Some((at, _)) => format!("{}...", &line[..at]),
        None => line,
    };
    Some(cut).filter(|line| !line.is_empty())
}

fn signalled(status: ExitStatus) -> String {
    let number = status.signal().unwrap_or(0);
    match Signal::try_from(number) {
        Ok(Signal::SIGKILL) => "ended by SIGKILL from outside, perhaps for want of memory".to_owned(),
        Ok(signal) => format!("ended by {signal} from outside"),
        Err(_) => format!("ended by signal {number} from outside"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(said: Option<&str>, secrets: &[&str]) -> String {
        let folder = tempfile::tempdir().unwrap();
        if let Some(said) = said {
            std::fs::write(folder.path().join(REASON_FILE), said).unwrap();
        }
        let secrets: Vec<Secret> = secrets.iter().map(|text| Secret::new((*text).to_owned())).collect();
        let codes = ExitCodes { success: vec![0], skip: Vec::new() };
        let ended = Ended {
            status: ExitStatus::from_raw(1 << 8),
            by: None,
            codes: &codes,
            dir: folder.path(),
            secrets: &secrets,
        };
        match ending(&ended) {
            Ending::Failed { exit_code: Some(1), reason, is_permanent: false } => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_a_kind_says_is_the_reason_and_else_its_exit_code() {
        assert_eq!(failed(None, &[]), "exit code 1");
        assert_eq!(failed(Some(" \n"), &[]), "exit code 1");
        assert_eq!(failed(Some("cannot dump mes: access denied"), &[]), "cannot dump mes: access denied");
    }

    #[test]
    fn a_reason_is_one_short_line_without_secrets() {
        let said = "cannot log in as etl with hunter22:\n\taccess\u{1b}[31m denied";
        assert_eq!(
            failed(Some(said), &["hunter22"]),
            "cannot log in as etl with ********: access [31m denied"
        );
        let long = failed(Some(&"\u{738b}".repeat(3_000)), &[]);
        assert_eq!(long.chars().count(), REASON_CHARS_MAX + 3);
        assert_eq!(failed(Some(&format!("{}secret99", "x".repeat(496))), &["secret99"])[496..], *"****...");
    }
}

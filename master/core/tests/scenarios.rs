//! Scenarios: each file in `scenarios/` is a script; its transcript stands beside it and is what a reviewer reads.
//!
//! `MILLRACE_BLESS=1` writes the transcripts anew; the diff of the commit then shows what changed. Each script is also run
//! with leaders that fail after one of its commands, and after all of them: everything must end as it does without.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(
    clippy::disallowed_methods,
    reason = "scripts are files, and blessing is asked for by the environment"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use millrace_core::{
    Limits,
    testing::{command_count, outcome, run_script},
};

/// Scripts whose outcome depends on when the leader began to wait say so in a comment that begins with this, and why.
const NO_FAIL_OVER: &str = "# no fail-over: ";

fn limits() -> Limits {
    let pools = [("small".parse().unwrap(), 1), ("wide".parse().unwrap(), 3)];
    Limits { pools: pools.into(), ..Limits::default() }
}

/// Returns each script with its text.
fn scripts() -> Vec<(PathBuf, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut scripts: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    scripts.sort();
    assert!(!scripts.is_empty(), "there are no scenarios in {}", folder.display());
    scripts.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn transcripts_are_as_committed() {
    let mut differing = Vec::new();
    for (script, text) in scripts() {
        let transcript = run_script(&text, limits())
            .unwrap_or_else(|problem| format!("{}: {problem}\n", script.display()));
        let expected = script.with_extension("transcript");
        if std::env::var_os("MILLRACE_BLESS").is_some() {
            fs::write(&expected, &transcript).expect("the transcript is written");
        } else if fs::read_to_string(&expected).unwrap_or_default() != transcript {
            differing.push(format!("{}:\n{transcript}", script.display()));
        }
    }
    assert!(differing.is_empty(), "transcripts differ:\n{}", differing.join("\n"));
}

#[test]
fn every_transcript_has_its_script() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        assert!(path.with_extension("txt").exists(), "{} has no script", path.display());
        assert!(path.with_extension("transcript").exists(), "{} has no transcript", path.display());
    }
}

#[test]
fn a_fail_over_after_any_command_changes_no_outcome() {
    for (script, text) in scripts() {
        if text.lines().any(|line| line.starts_with(NO_FAIL_OVER)) {
            continue;
        }
        let name = script.display();
        let expected = outcome(&text, limits(), |_| false).unwrap();
        for at in 0..command_count(&text) {
            let found = outcome(&text, limits(), |number| number == at);
            assert_eq!(found.as_ref(), Ok(&expected), "{name}: the leader fails after command {at}");
        }
        let found = outcome(&text, limits(), |_| true);
        assert_eq!(found.as_ref(), Ok(&expected), "{name}: the leader fails after every command");
    }
}

#[test]
fn what_is_no_command_is_said_with_its_line() {
    let problem = run_script("executor x1\n\nx1 sings\n", limits());
    assert_eq!(problem, Err("line 3: \"x1 sings\": no such report".to_owned()));
    assert!(run_script("start w\nexplain r1\n", limits()).is_err());
}

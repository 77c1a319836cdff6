//! Scenarios: each file in `scenarios/` is a script; its transcript stands beside it and is what a reviewer reads.
//!
//! `MILLRACE_BLESS=1` writes the transcripts anew; the diff of the commit then shows what changed.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::{fs, path::Path};

use millrace_core::{Limits, testing::run_script};

fn limits() -> Limits {
    let pools = [("small".parse().unwrap(), 1), ("wide".parse().unwrap(), 3)];
    Limits { pools: pools.into(), ..Limits::default() }
}

#[test]
fn transcripts_are_as_committed() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios");
    let mut scripts: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    scripts.sort();
    assert!(!scripts.is_empty(), "there are no scenarios in {}", folder.display());
    let mut differing = Vec::new();
    for script in &scripts {
        let text = fs::read_to_string(script).unwrap();
        let transcript = run_script(&text, limits()).unwrap_or_else(|problem| format!("{}: {problem}\n", script.display()));
        let expected = script.with_extension("transcript");
        if std::env::var_os("MILLRACE_BLESS").is_some() {
            fs::write(&expected, &transcript).expect("the transcript is written");
        } else if fs::read_to_string(&expected).unwrap_or_default() != transcript {
            differing.push(format!("{}:\n{transcript}", script.display()));
        }
    }
    assert!(differing.is_empty(), "transcripts differ:\n{}", differing.join("\n"));
}

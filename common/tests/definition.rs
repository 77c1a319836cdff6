//! Documents that are accepted and documents that are not.
//!
//! `rejected/*.yaml` stand beside the problems that are expected of them, `*.txt`; `UPDATE_EXPECTED=1` writes those anew, for a
//! person to read the difference.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::PathBuf};

use millrace_common::definition::{Rejected, parse};

fn documents(folder: &str) -> Vec<(PathBuf, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder);
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|end| end != "txt"));
    paths.sort();
    assert!(!paths.is_empty());
    paths.into_iter().map(|path| (path.clone(), fs::read_to_string(path).unwrap())).collect()
}

fn transcript(rejected: &Rejected) -> String {
    let mut lines = String::new();
    for problem in &rejected.problems {
        lines += &format!("{problem}\n    | {}\n", problem.found);
    }
    lines
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a switch for the person who runs the test, not a setting")]
fn problems_are_those_written_beside_the_document() {
    for (path, text) in documents("rejected") {
        let rejected = parse(&text).unwrap_err();
        for problem in &rejected.problems {
            assert!(text.get(problem.span.clone()).is_some(), "{}: {problem:?}", path.display());
        }
        let expected_path = path.with_extension("txt");
        if std::env::var_os("UPDATE_EXPECTED").is_some() {
            fs::write(&expected_path, transcript(&rejected)).unwrap();
        }
        let expected = fs::read_to_string(&expected_path).unwrap();
        assert_eq!(transcript(&rejected), expected, "{}", path.display());
    }
}

#[test]
fn good_documents_are_accepted() {
    for (path, text) in documents("accepted") {
        if let Err(rejected) = parse(&text) {
            panic!("{}:\n{rejected}", path.display());
        }
    }
}

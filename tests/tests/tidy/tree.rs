//! What does not stay in the tree, and what has to be there: leftovers, lint lists, manifests, migrations, changelog.

use std::{collections::BTreeSet, fs};

use crate::{
    finding::{Finding, expect_none},
    source::{all_files, identifiers, is_word_at, root, rust_files},
};

/// Marks of work that is not finished, in any text. Put together so that this file does not contain them.
const MARKS: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];

/// Code that is not merged, and why.
const LEFTOVERS: &[(&str, &str)] = &[
    ("dbg!(", "prints where nobody reads"),
    ("todo!(", "panics where a feature was promised"),
    ("unimplemented!(", "panics where a feature was promised"),
    ("#[ignore", "a test that does not run proves nothing: skip at run time and say why"),
    ("#[should_panic", "passes on the wrong panic: assert on the error"),
];

/// Files that are not ours to word.
const NOT_OURS: [&str; 2] = ["Cargo.lock", "LICENSE"];

/// The folders of the store's migrations, one for each engine.
const ENGINES: [&str; 3] = ["sqlite", "postgres", "mysql"];

#[test]
fn nothing_is_left_unfinished() {
    let mut findings = Vec::new();
    for path in all_files().iter().filter(|path| !NOT_OURS.contains(&path.as_str())) {
        // Pictures, archives and the like are not text.
        let Ok(text) = fs::read_to_string(root().join(path)) else { continue };
        for (number, line) in text.lines().enumerate() {
            for mark in MARKS.iter().filter(|mark| has_word(line, mark)) {
                findings.push(Finding::at(path, number + 1, format!("{mark} is left")));
            }
        }
    }
    expect_none(findings, "do it now, or file an issue and delete the mark");
}

#[test]
fn no_leftover_of_debugging_or_disabled_test_is_merged() {
    let mut findings = Vec::new();
    for source in rust_files() {
        for (leftover, reason) in LEFTOVERS {
            for position in source.code_positions(leftover) {
                if is_word_at(&source.lexed.code, position.wrapping_sub(1)) {
                    continue;
                }
                let what = format!("`{leftover}`: {reason}");
                findings.push(Finding::at(&source.path, source.line_of(position), what));
            }
        }
    }
    expect_none(findings, "finish it or delete it");
}

#[test]
fn the_core_repeats_the_bans_of_the_workspace() {
    let read = |path: &str| fs::read_to_string(root().join(path)).expect("the lists of bans are there");
    let core = read("master/core/clippy.toml");
    let core: BTreeSet<&str> = core.lines().map(str::trim).collect();
    let mut findings = Vec::new();
    for (number, line) in read("clippy.toml").lines().enumerate() {
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') && !core.contains(line) {
            findings.push(Finding::at(
                "clippy.toml",
                number + 1,
                format!("missing in master/core/clippy.toml: {line}"),
            ));
        }
    }
    expect_none(findings, "copy the line: clippy reads only the nearest clippy.toml");
}

#[test]
fn versions_and_lints_live_in_the_root_manifest() {
    let mut findings = Vec::new();
    for path in all_files().iter().filter(|path| path.ends_with("/Cargo.toml")) {
        let text = fs::read_to_string(root().join(path)).expect("a manifest is text");
        if !text.contains("[lints]\nworkspace = true") {
            findings.push(Finding::at(path, 0, "does not take the lints of the workspace"));
        }
        findings.extend(own_versions(path, &text));
    }
    expect_none(findings, "write `name.workspace = true`, and the version under [workspace.dependencies]");
}

#[test]
fn unsafe_code_is_in_one_crate() {
    let mut findings = Vec::new();
    for source in rust_files().iter().filter(|source| !source.path.starts_with("executor/spawn/")) {
        for (position, _) in identifiers(&source.lexed.code).filter(|(_, name)| *name == "unsafe_code") {
            findings.push(Finding::at(&source.path, source.line_of(position), "lets unsafe code in"));
        }
    }
    expect_none(findings, "what cannot be had safely belongs to millrace-spawn, if anywhere");
}

#[test]
fn migrations_have_the_same_names_for_all_engines() {
    let files = all_files();
    let migrations = |engine: &str| -> BTreeSet<&str> {
        let folder = format!("master/store/migrations/{engine}/");
        files.iter().filter_map(|path| path.strip_prefix(&folder)).collect()
    };
    let mut findings = Vec::new();
    for engine in ENGINES {
        // An engine without any is not supported, and says so when it is asked for.
        for other in ENGINES.into_iter().filter(|other| !migrations(other).is_empty()) {
            for missing in migrations(engine).difference(&migrations(other)) {
                let path = format!("master/store/migrations/{other}/{missing}");
                findings.push(Finding::at(&path, 0, format!("is missing, {engine} has it")));
            }
        }
    }
    expect_none(findings, "write the migration for each engine, under the same name");
}

#[test]
fn the_changelog_has_room_for_the_next_change() {
    let text = fs::read_to_string(root().join("CHANGELOG.md")).expect("CHANGELOG.md is there");
    let first = text.lines().enumerate().find(|(_, line)| line.starts_with("## "));
    let findings = match first {
        Some((_, "## Unreleased")) => Vec::new(),
        Some((number, line)) => {
            vec![Finding::at("CHANGELOG.md", number + 1, format!("first section is `{line}`"))]
        }
        None => vec![Finding::at("CHANGELOG.md", 0, "has no section")],
    };
    expect_none(findings, "begin the list with `## Unreleased`, and say there what changes for users");
}

/// Finds dependencies that state a version or a path of their own.
fn own_versions(path: &str, text: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut is_list = false;
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if let Some(section) = line.strip_prefix('[') {
            is_list = section.ends_with("dependencies]");
            if section.contains("dependencies.") {
                findings.push(Finding::at(path, number + 1, "a dependency with a section of its own"));
            }
        } else if is_list && line.contains('=') && !line.starts_with('#') {
            // A package that names itself asks for its own features in its tests.
            let inherits = line.contains(".workspace = true")
                || line.contains("{ workspace = true")
                || line.contains("path = \".\"");
            if !inherits {
                findings.push(Finding::at(path, number + 1, format!("a version of its own: {line}")));
            }
        }
    }
    findings
}

fn has_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(position, _)| {
        !is_word_at(line, position.wrapping_sub(1)) && !is_word_at(line, position + word.len())
    })
}

mod tests {
    use super::{MARKS, has_word, own_versions};

    #[test]
    fn marks_are_whole_words() {
        let mark = MARKS[0];
        assert!(has_word(&format!("# {mark}: later"), mark) && has_word(mark, mark));
        assert!(!has_word(&format!("{mark}S"), mark) && !has_word(&format!("A{mark}"), mark));
    }

    #[test]
    fn a_dependency_with_its_own_version_is_found() {
        let text = "[dependencies]\na.workspace = true\nb = { workspace = true, features = [\"x\"] }\n# c = \"1\"\nd = \"1\"\n\
                    a = { path = \".\" }\n\
                    [target.x.dev-dependencies]\ne = { path = \"../e\" }\n[package]\nf = \"1\"\n";
        let lines: Vec<usize> =
            own_versions("a/Cargo.toml", text).iter().map(|finding| finding.line).collect();
        assert_eq!(lines, [5, 8]);
    }
}

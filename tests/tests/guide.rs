//! Definitions in the documents are valid: people copy them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use millrace_common::definition;

fn documents(root: &Path) -> Vec<PathBuf> {
    let mut found = vec![root.join("README.md")];
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "md") {
                found.push(path);
            }
        }
    }
    found
}

/// Returns the blocks of a document that are definitions, fenced or between the marks of a here-document.
fn definitions(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut block: Option<String> = None;
    for line in text.lines() {
        let is_mark = line.starts_with("```") || line.trim_end_matches('\'').ends_with("YAML");
        match (&mut block, is_mark) {
            (_, true) => found.extend(block.replace(String::new())),
            (Some(text), false) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, false) => {}
        }
    }
    found.retain(|text| text.starts_with("workflow:"));
    found
}

#[test]
fn every_definition_in_the_documents_is_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut checked = 0;
    for path in documents(&root) {
        for text in definitions(&fs::read_to_string(&path).unwrap()) {
            definition::parse(&text)
                .unwrap_or_else(|rejected| panic!("{}:\n{text}\n{rejected}", path.display()));
            checked += 1;
        }
    }
    assert!(checked >= 2, "the documents hold {checked} definitions");
}

#[test]
fn the_example_is_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/nightly/workflow.yaml");
    definition::parse(&fs::read_to_string(root).unwrap()).unwrap();
}

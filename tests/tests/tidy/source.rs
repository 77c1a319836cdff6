//! The files of the repository, and which parts of its Rust files are production code.
//!
//! Production is what is outside folders called `tests` and outside modules that exist only under `cfg(test)`, in
//! the file or in a file of their own.

use std::{
    collections::BTreeSet,
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use crate::lexer::{Lexed, is_word, lex};

/// Folders that hold nothing of ours.
const FOREIGN: [&str; 3] = ["target", ".git", "node_modules"];

/// Returns the top of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository").to_path_buf()
}

/// Returns the paths of all files, from the top of the repository, sorted.
pub(crate) fn all_files() -> Vec<String> {
    let root = root();
    let mut files = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("the repository can be read") {
            let entry = entry.expect("the repository can be read");
            let path = entry.path();
            let kind = entry.file_type().expect("the repository can be read");
            if kind.is_file() {
                let inner = path.strip_prefix(&root).expect("the walk starts at the top");
                files.push(inner.to_string_lossy().into_owned());
            } else if kind.is_dir() && !FOREIGN.iter().any(|foreign| entry.file_name() == *foreign) {
                folders.push(path);
            }
        }
    }
    files.sort();
    files
}

/// A Rust file of the repository.
#[derive(Debug)]
pub(crate) struct Source {
    /// Its path from the top of the repository.
    pub(crate) path: String,
    /// Its text.
    pub(crate) text: String,
    /// Its text, taken apart.
    pub(crate) lexed: Lexed,
    /// Where its modules for tests are; the whole file, where it is one.
    tests: Vec<Range<usize>>,
}

impl Source {
    /// Takes a file apart.
    pub(crate) fn new(path: &str, text: &str) -> Self {
        let lexed = lex(text);
        let tests = test_modules(&lexed.code).into_iter().map(|module| module.range).collect();
        Self { path: path.to_string(), text: text.to_string(), lexed, tests }
    }

    /// Returns whether nothing of this file is in a production build.
    pub(crate) fn is_for_tests(&self) -> bool {
        self.tests.contains(&(0..self.text.len())) || is_test_path(&self.path)
    }

    /// Returns whether a position is in production code.
    pub(crate) fn is_production_at(&self, position: usize) -> bool {
        !self.is_for_tests() && !self.tests.iter().any(|range| range.contains(&position))
    }

    /// Returns the number of lines outside modules for tests.
    pub(crate) fn production_lines(&self) -> usize {
        let lines = |text: &str| text.lines().count();
        let tests: usize = self.tests.iter().map(|range| lines(&self.text[range.clone()])).sum();
        lines(&self.text) - tests
    }

    /// Returns the line of a position, from 1.
    pub(crate) fn line_of(&self, position: usize) -> usize {
        self.text[..position].matches('\n').count() + 1
    }

    /// Returns the positions of a piece of code.
    pub(crate) fn code_positions<'a>(&'a self, pattern: &'a str) -> impl Iterator<Item = usize> + 'a {
        self.lexed.code.match_indices(pattern).map(|(position, _)| position)
    }
}

/// Returns all Rust files.
pub(crate) fn rust_files() -> Vec<Source> {
    let root = root();
    let mut sources: Vec<Source> = all_files()
        .iter()
        .filter(|path| path.ends_with(".rs"))
        .map(|path| Source::new(path, &fs::read_to_string(root.join(path)).expect("a source file is text")))
        .collect();
    let test_files: BTreeSet<String> = sources.iter().flat_map(files_of_test_modules).collect();
    for source in &mut sources {
        if is_among(&source.path, &test_files) {
            source.tests = std::iter::once(0..source.text.len()).collect();
        }
    }
    sources
}

fn is_test_path(path: &str) -> bool {
    path.split('/').any(|part| part == "tests" || part == "tests.rs")
}

/// Returns whether a path is one of these modules or a module below one.
fn is_among(path: &str, modules: &BTreeSet<String>) -> bool {
    let stem = path.strip_suffix("/mod.rs").or_else(|| path.strip_suffix(".rs")).unwrap_or(path);
    modules.iter().any(|module| {
        stem == module || stem.strip_prefix(module.as_str()).is_some_and(|rest| rest.starts_with('/'))
    })
}

/// Returns, without `.rs`, the paths of the files that a source declares as modules for tests.
fn files_of_test_modules(source: &Source) -> Vec<String> {
    let (folder, file) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
    let below = match file {
        "lib.rs" | "main.rs" | "mod.rs" => folder.to_string(),
        _ => format!("{folder}/{}", file.trim_end_matches(".rs")),
    };
    test_modules(&source.lexed.code)
        .into_iter()
        .filter(|module| module.is_elsewhere)
        .map(|module| format!("{below}/{}", module.name))
        .collect()
}

#[derive(Debug, PartialEq, Eq)]
struct TestModule {
    name: String,
    /// From its attribute to its closing brace or semicolon.
    range: Range<usize>,
    /// Whether it has a file of its own.
    is_elsewhere: bool,
}

/// Finds modules under `#[cfg(test)]` or `#[cfg(all(test, ...))]`.
fn test_modules(code: &str) -> Vec<TestModule> {
    let mut modules: Vec<TestModule> = Vec::new();
    for (start, _) in code.match_indices("#[cfg(") {
        let condition = &code[start + "#[cfg(".len()..];
        let is_test = condition.starts_with("test)") || condition.starts_with("all(test,");
        let is_inside = modules.last().is_some_and(|module| module.range.contains(&start));
        if is_test
            && !is_inside
            && let Some(module) = module_at(code, start)
        {
            modules.push(module);
        }
    }
    modules
}

/// Reads attributes, visibility, `mod` and a name from a position on.
fn module_at(code: &str, start: usize) -> Option<TestModule> {
    let mut at = start;
    loop {
        at += code[at..].len() - code[at..].trim_start().len();
        if !code[at..].starts_with("#[") {
            break;
        }
        at = closing(code, at + 1)? + 1;
    }
    let head = code[at..].find(['{', ';'])?;
    let words: Vec<&str> = code[at..at + head].split_whitespace().collect();
    let (name, before) = words.split_last()?;
    if before.last() != Some(&"mod") {
        return None;
    }
    let is_elsewhere = code.as_bytes()[at + head] == b';';
    let end = if is_elsewhere { at + head } else { closing(code, at + head)? };
    Some(TestModule { name: (*name).to_string(), range: start..end + 1, is_elsewhere })
}

/// Returns the position of the bracket that closes the one at a position.
pub(crate) fn closing(code: &str, open: usize) -> Option<usize> {
    let mut depth = 0_usize;
    for (offset, byte) in code.as_bytes()[open..].iter().enumerate() {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(open + offset);
                }
            }
            _ => {}
        }
    }
    None
}

/// Returns the identifiers of code with their positions.
pub(crate) fn identifiers(code: &str) -> impl Iterator<Item = (usize, &str)> {
    let bytes = code.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while at < bytes.len() && !is_word(bytes[at]) {
            at += 1;
        }
        // The name of `r#match` is `match`.
        if code[at..].starts_with("r#") && is_word_at(code, at + 2) {
            at += 2;
        }
        let start = at;
        while at < bytes.len() && is_word(bytes[at]) {
            at += 1;
        }
        (start < at).then(|| (start, &code[start..at]))
    })
}

/// Returns whether an identifier covers a position.
pub(crate) fn is_word_at(code: &str, position: usize) -> bool {
    code.as_bytes().get(position).copied().is_some_and(is_word)
}

mod tests {
    use super::{Source, files_of_test_modules, identifiers, is_among};

    #[test]
    fn modules_for_tests_are_not_production() {
        let source = Source::new(
            "a/src/lib.rs",
            "fn a() {}\n#[cfg(test)]\n#[path = \"x.rs\"]\nmod tests {\n  fn b() { \"}\" }\n}\nfn c() {}\n",
        );
        assert_eq!(source.production_lines(), 2);
        let at = |pattern: &str| source.text.find(pattern).unwrap();
        assert!(source.is_production_at(at("fn a")));
        assert!(!source.is_production_at(at("fn b")));
        assert!(source.is_production_at(at("fn c")));
    }

    #[test]
    fn code_that_a_feature_enables_is_production() {
        let text = "#[cfg(any(test, feature = \"testing\"))]\nmod testing {\n}\n#[cfg(test)]\nfn a() {}\n";
        assert_eq!(Source::new("a/src/lib.rs", text).production_lines(), 5);
    }

    #[test]
    fn a_module_for_tests_in_its_own_file_is_found() {
        let text = "#[cfg(test)]\nmod checks;\n";
        assert_eq!(files_of_test_modules(&Source::new("a/src/lib.rs", text)), ["a/src/checks"]);
        assert_eq!(files_of_test_modules(&Source::new("a/src/b.rs", text)), ["a/src/b/checks"]);
        let modules = ["a/src/checks".to_string()].into();
        assert!(is_among("a/src/checks.rs", &modules));
        assert!(is_among("a/src/checks/mod.rs", &modules));
        assert!(is_among("a/src/checks/more.rs", &modules));
        assert!(!is_among("a/src/checks_too.rs", &modules));
    }

    #[test]
    fn identifiers_are_whole_words() {
        let found: Vec<&str> = identifiers("fn a_b(c1: &'d E) r#f").map(|(_, name)| name).collect();
        assert_eq!(found, ["fn", "a_b", "c1", "d", "E", "f"]);
    }
}

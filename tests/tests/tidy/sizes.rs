//! Sizes: nothing may newly cross a limit, and those that have crossed one are listed by name.

use crate::{
    finding::{Finding, expect_none},
    source::{Source, closing, identifiers, rust_files},
};

/// Longest function, in lines from `fn` to its closing brace.
const FUNCTION_LINES_MAX: usize = 70;

/// Longest file, in lines outside modules for tests.
const FILE_LINES_MAX: usize = 600;

/// Longest `scheduler.rs`, in lines outside modules for tests: it routes, and decides nothing.
const SCHEDULER_LINES_MAX: usize = 300;

/// The file at the centre, which may not grow whatever the reason.
const SCHEDULER: &str = "master/core/src/scheduler.rs";

/// Functions that are longer: path, name, reason.
const LONG_FUNCTIONS: &[(&str, &str, &str)] = &[];

/// Files that are longer: path, reason.
const LONG_FILES: &[(&str, &str)] = &[];

#[test]
fn functions_are_short() {
    let mut findings = Vec::new();
    let mut offenders = Vec::new();
    for source in production_files() {
        for function in functions(&source).into_iter().filter(|function| function.lines > FUNCTION_LINES_MAX)
        {
            let Function { name, line, lines } = function;
            offenders.push((source.path.clone(), name.clone()));
            if !LONG_FUNCTIONS.iter().any(|(path, listed, _)| *path == source.path && *listed == name) {
                let what = format!("`fn {name}` has {lines} lines, {FUNCTION_LINES_MAX} are the most");
                findings.push(Finding::at(&source.path, line, what));
            }
        }
    }
    for (path, name, _) in LONG_FUNCTIONS {
        if !offenders.contains(&((*path).to_string(), (*name).to_string())) {
            findings.push(Finding::at(
                path,
                0,
                format!("`fn {name}` is not longer any more: delete it from the list"),
            ));
        }
    }
    expect_none(
        findings,
        "split the function by what its parts are about, or list it with the reason in sizes.rs",
    );
}

#[test]
fn files_are_short() {
    let mut findings = Vec::new();
    let sources = production_files();
    for source in &sources {
        let lines = source.production_lines();
        if lines > FILE_LINES_MAX && !LONG_FILES.iter().any(|(path, _)| *path == source.path) {
            let what = format!("{lines} lines outside tests, {FILE_LINES_MAX} are the most");
            findings.push(Finding::at(&source.path, 0, what));
        }
    }
    for (path, _) in LONG_FILES {
        let is_long = |source: &Source| source.path == *path && source.production_lines() > FILE_LINES_MAX;
        if !sources.iter().any(is_long) {
            findings.push(Finding::at(path, 0, "is not longer any more: delete it from the list"));
        }
    }
    expect_none(
        findings,
        "split the file into modules that each own something, or list it with the reason in sizes.rs",
    );
}

#[test]
fn the_scheduler_only_routes() {
    let sources = production_files();
    let Some(scheduler) = sources.iter().find(|source| source.path == SCHEDULER) else {
        return expect_none(
            vec![Finding::at(SCHEDULER, 0, "is missing")],
            "say here where the routing moved",
        );
    };
    let lines = scheduler.production_lines();
    let what = format!("{lines} lines outside tests, {SCHEDULER_LINES_MAX} are the most");
    let findings = (lines > SCHEDULER_LINES_MAX).then(|| Finding::at(SCHEDULER, 0, what));
    expect_none(findings.into_iter().collect(), "move the decision into the module of the thing it is about");
}

fn production_files() -> Vec<Source> {
    rust_files().into_iter().filter(|source| !source.is_for_tests()).collect()
}

#[derive(Debug, PartialEq, Eq)]
struct Function {
    name: String,
    line: usize,
    lines: usize,
}

/// Finds the functions of a file that have a body, outside modules for tests.
fn functions(source: &Source) -> Vec<Function> {
    let code = &source.lexed.code;
    let words: Vec<(usize, &str)> = identifiers(code).collect();
    words
        .windows(2)
        .filter(|pair| pair[0].1 == "fn" && source.is_production_at(pair[0].0))
        // A type of a function, `fn(u8) -> u8`, has no name after the word.
        .filter(|pair| code[pair[0].0 + "fn".len()..pair[1].0].trim().trim_start_matches("r#").is_empty())
        .filter_map(|pair| {
            let end = closing(code, body(code, pair[1].0 + pair[1].1.len())?)?;
            let line = source.line_of(pair[0].0);
            Some(Function { name: pair[1].1.to_string(), line, lines: source.line_of(end) - line + 1 })
        })
        .collect()
}

/// Returns where the body of a function begins, whose name ends at a position; none for a declaration.
fn body(code: &str, from: usize) -> Option<usize> {
    let bytes = code.as_bytes();
    let mut at = from;
    while at < bytes.len() {
        match bytes[at] {
            b'{' => return Some(at),
            b';' => return None,
            // Parameters, arrays and default constants may hold braces and semicolons of their own.
            b'(' | b'[' => at = closing(code, at)?,
            _ => {}
        }
        at += 1;
    }
    None
}

mod tests {
    use super::{Function, functions};
    use crate::source::Source;

    fn found(text: &str) -> Vec<(String, usize, usize)> {
        let functions = functions(&Source::new("a/src/lib.rs", text)).into_iter();
        functions.map(|Function { name, line, lines }| (name, line, lines)).collect()
    }

    #[test]
    fn a_function_counts_from_its_word_to_its_brace() {
        let text = "/// fn not_this() {}\n#[inline]\npub const fn a(\n    x: [u8; { 1 + 1 }],\n) -> u8 {\n    \"}\";\n    x[0]\n}\n";
        assert_eq!(found(text), [("a".to_string(), 3, 6)]);
    }

    #[test]
    fn declarations_types_and_tests_have_no_body_to_count() {
        let text = "trait T { fn a(&self) -> [u8; 2]; fn b() { } }\ntype F = fn(u8) -> u8;\nfn r#c(f: fn()) {}\n\
                    #[cfg(test)] mod tests { fn d() {} }\n";
        let names: Vec<String> = found(text).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["b", "c"]);
    }

    #[test]
    fn inner_functions_count_for_themselves_and_for_the_outer() {
        let text = "fn a() {\n    fn b() {\n    }\n    || { 1 };\n}\n";
        assert_eq!(found(text), [("a".to_string(), 1, 5), ("b".to_string(), 2, 2)]);
    }
}

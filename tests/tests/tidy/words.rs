//! Names: the words of the glossary, and none of those that mean three things in this field.

use crate::{
    finding::{Finding, expect_none},
    source::{Source, identifiers, rust_files},
};

/// Words that no name contains, and what to say instead.
const NOT_USED: &[(&str, &str)] = &[
    ("job", "workflow, run, task, task instance or attempt"),
    ("worker", "executor, or what the thread does"),
    ("agent", "executor"),
    ("slave", "standby or replica"),
    ("epoch", "term, or the name of the instant"),
    ("manager", "what it owns or decides"),
    ("helper", "what it does"),
    ("util", "what it does"),
    ("utility", "what it does"),
];

/// Packages whose names people meet. Tests, benchmarks and examples play other people's parts.
const NAMED: [&str; 7] = ["common/", "proto/", "master/", "executor/", "masterctl/", "standalone/", "xtask/"];

/// Names from outside: the beginning of the path, the word or the whole identifier, and whose it is.
const FOREIGN: &[(&str, &str, &str)] = &[
    ("", "tokio_util", "a crate"),
    ("", "futures_util", "a crate"),
    ("common/runtime/src/telemetry.rs", "util", "a module of tracing_subscriber"),
    ("", "UNIX_EPOCH", "the standard library's and chrono's name of the instant"),
    ("executor/transfer/", "job", "DataX's word for what it runs, and for its files"),
    ("executor/kinds/src/datax", "job", "DataX's word for what it runs, and for its files"),
    ("common/src/kind/datax.rs", "job", "DataX's word for what it runs, and for its files"),
];

#[test]
fn names_are_words_of_the_glossary() {
    let mut findings = Vec::new();
    let mut used = vec![false; FOREIGN.len()];
    for source in
        rust_files().iter().filter(|source| NAMED.iter().any(|package| source.path.starts_with(package)))
    {
        for (line, name, word, instead) in names_not_used(source) {
            match FOREIGN.iter().position(|(path, foreign, _)| {
                source.path.starts_with(path) && (*foreign == name || *foreign == word)
            }) {
                Some(index) => used[index] = true,
                None => findings.push(Finding::at(
                    &source.path,
                    line,
                    format!("`{name}`: not {word} but {instead}"),
                )),
            }
        }
    }
    for ((path, foreign, _), _) in FOREIGN.iter().zip(used).filter(|(_, used)| !used) {
        findings.push(Finding::at(
            path,
            0,
            format!("does not use {foreign} any more: delete it from FOREIGN"),
        ));
    }
    expect_none(
        findings,
        "rename it by the glossary; a name that another program or crate gave goes to words.rs",
    );
}

/// Returns the names in production code that contain a word that is not used: line, name, word, what to say instead.
fn names_not_used(source: &Source) -> Vec<(usize, String, &'static str, &'static str)> {
    if source.is_for_tests() {
        return Vec::new();
    }
    let in_path = source.path.split(['/', '.']).map(|name| (0, name));
    let in_code = identifiers(&source.lexed.code)
        .filter(|(position, _)| source.is_production_at(*position))
        .map(|(position, name)| (source.line_of(position), name));
    in_path
        .chain(in_code)
        .filter_map(|(line, name)| {
            let (word, instead) = not_used(name)?;
            Some((line, name.to_string(), word, instead))
        })
        .collect()
}

fn not_used(name: &str) -> Option<(&'static str, &'static str)> {
    let parts = parts(name);
    let contains = |word: &str| parts.iter().any(|part| part == word || part.strip_suffix('s') == Some(word));
    NOT_USED.iter().copied().find(|(word, _)| contains(word))
}

/// Splits a name at underscores and capitals, in lower case: `JobId` and `JOB_ID` and `job_id` are `job`, `id`.
fn parts(name: &str) -> Vec<String> {
    let mut parts: Vec<String> = vec![String::new()];
    let characters: Vec<char> = name.chars().collect();
    for (index, character) in characters.iter().enumerate() {
        let before = index.checked_sub(1).map(|index| characters[index]);
        let after = characters.get(index + 1);
        let begins_word = character.is_uppercase()
            && (before.is_some_and(char::is_lowercase) || after.is_some_and(|after| after.is_lowercase()));
        if *character == '_' || begins_word {
            parts.push(String::new());
        }
        if *character != '_'
            && let Some(part) = parts.last_mut()
        {
            part.extend(character.to_lowercase());
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

mod tests {
    use super::{names_not_used, parts};
    use crate::source::Source;

    #[test]
    fn names_are_split_into_words() {
        assert_eq!(parts("JobId"), ["job", "id"]);
        assert_eq!(parts("MAX_JOBS"), ["max", "jobs"]);
        assert_eq!(parts("HTTPAgent2"), ["http", "agent2"]);
        assert_eq!(parts("_a__b"), ["a", "b"]);
        assert_eq!(parts("utilisation"), ["utilisation"]);
    }

    #[test]
    fn words_in_code_count_and_words_in_text_do_not() {
        let text = "// a worker\nfn start_workers(utilisation: u8) { \"job\" }\n#[cfg(test)]\nmod tests { fn job() {} }\n";
        let found = names_not_used(&Source::new("master/src/agent.rs", text));
        let found: Vec<(usize, &str)> = found.iter().map(|(line, name, ..)| (*line, name.as_str())).collect();
        assert_eq!(found, [(0, "agent"), (2, "start_workers")]);
    }
}

//! SQL and commits are in one place: no SQL text outside the store, and effects leave a batch only after its commit.

use crate::{
    finding::{Finding, expect_none},
    source::rust_files,
};

/// Where production code may speak SQL, and why.
const SPEAK_SQL: &[(&str, &str)] = &[
    ("master/store/", "the store"),
    ("executor/kinds/", "tasks that load other people's databases"),
    ("executor/transfer/", "transfers between other people's databases"),
    ("examples/", "fills the databases that the examples read"),
    ("bench/", "measures the raw limit of a database"),
    ("tests/", "plays the people whose databases are read"),
];

/// Who may take the effects out of a batch, and why.
const MAY_RELEASE: &[(&str, &str)] = &[
    ("master/store/src/commit", "does so after the commit"),
    ("executor/src/app", "does the actions of the ledger, whose records the spool has written"),
    ("master/core/src/testing", "stands in for a store in tests of other crates"),
];

#[test]
fn sql_is_spoken_only_in_the_store() {
    let mut findings = Vec::new();
    for source in
        rust_files().iter().filter(|source| !source.is_for_tests() && !is_under(&source.path, SPEAK_SQL))
    {
        for (line, text) in source.lexed.strings.iter().filter(|(_, text)| is_sql(text)) {
            let start: String = text.trim().chars().take(40).collect();
            findings.push(Finding::at(&source.path, *line, format!("SQL: \"{start}\"")));
        }
    }
    expect_none(findings, "give millrace-store a verb or a query for it");
}

#[test]
fn effects_are_released_only_by_a_commit() {
    let mut findings = Vec::new();
    for source in rust_files().iter().filter(|source| !is_under(&source.path, MAY_RELEASE)) {
        // Without arguments: what takes some is the release of something else.
        let calls = [".release()", "Batch::release", "ledger.release("]
            .into_iter()
            .flat_map(|call| source.code_positions(call));
        for position in calls.filter(|position| source.is_production_at(*position)) {
            let what = "calls `release`: effects would leave before they are durable";
            findings.push(Finding::at(&source.path, source.line_of(position), what));
        }
    }
    expect_none(findings, "commit the batch through `Store::commit`, which hands the effects back");
}

fn is_under(path: &str, places: &[(&str, &str)]) -> bool {
    places.iter().any(|(place, _)| path.starts_with(place))
}

/// Keywords are upper case in our SQL, so that sentences with "select" or "update" are not taken for it.
fn is_sql(literal: &str) -> bool {
    let text = format!(" {} ", literal.split_whitespace().collect::<Vec<_>>().join(" "));
    let both = |one: &str, other: &str| text.contains(one) && text.contains(other);
    let starts =
        ["INSERT INTO", "INSERT IGNORE", "REPLACE INTO", "DELETE FROM", "CREATE TABLE", "CREATE INDEX"];
    let changes =
        ["CREATE UNIQUE INDEX", "ALTER TABLE", "DROP TABLE", "BEGIN IMMEDIATE", "PRAGMA", "SELECT 1"];
    both(" SELECT ", " FROM ")
        || both(" UPDATE ", " SET ")
        || starts.iter().chain(&changes).any(|words| text.contains(&format!(" {words} ")))
}

mod tests {
    use super::is_sql;

    #[test]
    fn sql_is_told_from_sentences() {
        for sql in [
            "SELECT id\n  FROM run",
            "UPDATE run SET state = ?",
            "DELETE FROM run",
            "PRAGMA user_version",
            "SELECT 1",
        ] {
            assert!(is_sql(sql), "{sql}");
        }
        for sentence in ["select one from the list", "update the set", "RESET", "nothing to delete from here"]
        {
            assert!(!is_sql(sentence), "{sentence}");
        }
    }
}

//! `masterctl verify` against a real standalone Millrace: what is clean, what a forged row contradicts, and what could not
//! be looked at.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use millrace_tests::{Standalone, wait_for};
use serde_json::Value;
use sqlx::{Connection as _, Executor as _};

/// How long ago the range ends where nobody says, and a little more: what a test has just done is in it then.
const SETTLED: &str = "the range to include what was just done";

const TWO_TASKS: &str = "workflow: two
schedule: { every: 1s }
tasks:
  a: { kind: shell, retries: 1, retry_delay: 1ms, with: { script: 'test -e $MARK || { touch $MARK; exit 3; }', env: { MARK: \"{{ params.mark }}\" } } }
  b: { kind: shell, after: a, with: { command: [\"true\"] } }
params: { mark: { type: string, default: unset } }
";

/// Starts one that has run a workflow; returns the id of the run.
fn with_a_run(folder: &tempfile::TempDir, executor: &str) -> (Standalone, String) {
    let mut millrace = Standalone::prepare(folder.path(), "", &format!("slots = 4\n{executor}")).unwrap();
    millrace.start().unwrap();
    let text = TWO_TASKS.replace("default: unset", &format!("default: {}/mark", folder.path().display()));
    wait_for("somebody to lead", || Ok(millrace.apply("two", &text).ok())).unwrap();
    let run = millrace.run(&["two"]).unwrap();
    millrace.ended(&run).unwrap();
    (millrace, run)
}

/// Asks until the range holds the run that was just made; returns the exit code and the findings.
fn verified(millrace: &Standalone, is_there: impl Fn(&Value) -> bool) -> (i32, Value) {
    wait_for(SETTLED, || {
        let output = millrace.masterctl(&["verify", "--since", "1h", "-o", "json"])?;
        let code = output.status.code().unwrap_or(-1);
        assert!([0, 6, 7].contains(&code), "{code}: {}", String::from_utf8_lossy(&output.stderr));
        let found: Value = serde_json::from_slice(&output.stdout)?;
        Ok(is_there(&found).then_some((code, found)))
    })
    .unwrap()
}

/// Tells whether the range holds a whole run, and what was written down of it.
fn has_runs(found: &Value) -> bool {
    let is_told = |executor: &Value| executor["entries"].as_u64() >= Some(14);
    found["attempts"].as_u64() >= Some(3)
        && found["executors"].as_array().is_some_and(|all| all.iter().any(is_told))
}

fn rules(found: &Value) -> Vec<&str> {
    found["violations"].as_array().unwrap().iter().filter_map(|one| one["rule"].as_str()).collect()
}

/// Changes rows behind the back of the leader.
fn forge(millrace: &Standalone, sql: String) {
    let file = millrace.folder().join("millrace.db");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let url = format!("sqlite://{}", file.display());
        let mut connection = sqlx::SqliteConnection::connect(&url).await.unwrap();
        let done = connection.execute(sqlx::AssertSqlSafe(sql)).await.unwrap();
        assert!(done.rows_affected() > 0, "nothing was forged");
    });
}

#[test]
fn what_happened_is_clean_and_a_forged_row_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let (millrace, run) = with_a_run(&folder, "");
    let (code, found) = verified(&millrace, has_runs);
    assert_eq!((code, rules(&found)), (0, vec![]), "{found:#}");
    assert_eq!(found["claims"], 1);
    let executor = &found["executors"][0];
    assert!(executor["entries"].as_u64() >= Some(12) && executor["problem"].is_null(), "{found:#}");

    // The second attempt of `a` is given the transactions and the time of the first: they overlap.
    let id = run.replace('-', "");
    forge(
        &millrace,
        format!(
            "UPDATE attempt SET assigned_seq = (SELECT one.assigned_seq FROM attempt one WHERE one.run_id = attempt.run_id \
             AND one.instance_index = 0 AND one.attempt_number = 1), started_at = (SELECT one.started_at FROM attempt one \
             WHERE one.run_id = attempt.run_id AND one.instance_index = 0 AND one.attempt_number = 1) \
             WHERE run_id = x'{id}' AND instance_index = 0 AND attempt_number = 2"
        ),
    );
    let output = millrace.masterctl(&["verify", "--since", "1h"]).unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(6), "{text}");
    assert!(text.contains(&format!("I3: {run}.0.2 is assigned while an earlier attempt is live")), "{text}");
    assert!(text.contains(&format!("    attempt {run}.0.1: failed on")), "{text}");
    assert!(text.contains("recorded") && text.contains("violation"), "{text}");
}

#[test]
fn an_outcome_that_differs_from_the_executors_record_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let (millrace, run) = with_a_run(&folder, "");
    verified(&millrace, has_runs);
    let id = run.replace('-', "");
    forge(
        &millrace,
        format!(
            "UPDATE attempt SET state = 11, exit_code = 9 WHERE run_id = x'{id}' AND instance_index = 1 AND attempt_number = 1"
        ),
    );
    let (code, found) = verified(&millrace, has_runs);
    assert_eq!(code, 6, "{found:#}");
    assert!(rules(&found).contains(&"I10"), "{found:#}");
    // A claim that nobody can have made: a later term before an earlier one.
    forge(
        &millrace,
        "INSERT INTO claim (term, holder, claimed_at, after_term, after_seq) SELECT 0, 'nobody', 1, term, 9 FROM leadership"
            .to_owned(),
    );
    assert!(rules(&verified(&millrace, has_runs).1).contains(&"I1"));
}

#[test]
fn what_could_not_be_looked_at_has_an_exit_code_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    let (millrace, run) = with_a_run(&folder, "");
    verified(&millrace, has_runs);
    let id = run.replace('-', "");
    // It ran somewhere that has never been heard of.
    forge(
        &millrace,
        format!("UPDATE attempt SET executor = 'plant-9' WHERE run_id = x'{id}' AND instance_index = 1"),
    );
    let (code, found) = verified(&millrace, has_runs);
    // What the executor has written down of it contradicts that.
    assert_eq!((code, rules(&found)), (6, vec!["I4", "I5"]), "{found:#}");
    assert!(found["unjudged"].to_string().contains("plant-9 was not read: it is not connected"), "{found:#}");
    for file in fs::read_dir(folder.path().join("executor/history")).unwrap() {
        fs::write(file.unwrap().path(), "").unwrap();
    }
    let (code, found) =
        verified(&millrace, |found| found["violations"].as_array().is_some_and(Vec::is_empty));
    assert_eq!(code, 7, "{found:#}");
    let output = millrace.masterctl(&["verify", "--since", "1h"]).unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("as far as could be looked at"));
    let empty = millrace.masterctl(&["verify", "--since", "1s"]).unwrap();
    assert_eq!(empty.status.code(), Some(4), "{}", String::from_utf8_lossy(&empty.stderr));
}

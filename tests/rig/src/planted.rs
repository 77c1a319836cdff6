//! Wrongs that are planted into a history that is in order: a verdict that cannot fail proves nothing, so every history
//! that is found to be in order is spoiled in each of these ways, and the checker has to notice.

use millrace_checker::{Answer, Event, Rules};
use millrace_common::id::AttemptId;
use serde_json::json;

use crate::history::{self, Collected};

/// A way to spoil a history: its name, the rules of which one must be reported, and how it is done; false where the
/// history holds nothing that could be spoiled so.
type Planted = (&'static str, &'static [&'static str], fn(&mut Collected) -> bool);

const PLANTED: [Planted; 8] = [
    ("a killed attempt reported as success", &["I10"], kill_a_success),
    ("an attempt that nobody assigned", &["I4"], run_unassigned),
    ("two attempts of one task instance side by side", &["I6"], overlap),
    ("a lock that another process holds", &["I6"], hold_lock),
    ("an attempt spawned twice", &["I5"], spawn_twice),
    ("an acknowledged run that is not there", &["I8"], forget_run),
    ("a write of an older term", &["I1", "I2"], write_late),
    ("an attempt that ends twice", &["I9"], end_twice),
];

/// Returns how many wrongs could be planted, and which of them were not noticed.
pub(crate) fn unnoticed(collected: &Collected, rules: &Rules) -> (usize, Vec<String>) {
    let (mut planted, mut missed) = (0, Vec::new());
    for (name, expected, plant) in PLANTED {
        let mut spoiled = collected.clone();
        if !plant(&mut spoiled) {
            continue;
        }
        planted += 1;
        let found = history::judge(rules.clone(), &spoiled.history(), spoiled.read_at);
        if !found.iter().any(|violation| expected.contains(&violation.rule)) {
            missed.push(format!("the checker does not notice {name}"));
        }
    }
    (planted, missed)
}

/// Returns an attempt that succeeded, and the words of its last line in the witnesses' file.
fn success(collected: &Collected) -> Option<(AttemptId, String)> {
    let line = collected.witness.lines().find(|line| line.starts_with("E ") && line.contains(" 0 "))?;
    let attempt = line.split_whitespace().nth(1)?.parse().ok()?;
    let is_recorded = collected.history().ended_attempts().contains(&attempt);
    is_recorded.then(|| (attempt, line.to_owned()))
}

fn kill_a_success(collected: &mut Collected) -> bool {
    let Some((_, line)) = success(collected) else { return false };
    collected.witness = collected.witness.replace(&format!("{line}\n"), "");
    true
}

fn run_unassigned(collected: &mut Collected) -> bool {
    let Some((attempt, line)) = success(collected) else { return false };
    let other = attempt.instance.attempt(attempt.number + 7);
    let Some(at) = line.split_whitespace().last() else { return false };
    collected.witness.push_str(&format!("S {other} 1 {at}\nE {other} 0 {at}\n"));
    true
}

fn overlap(collected: &mut Collected) -> bool {
    let Some((attempt, line)) = success(collected) else { return false };
    // While it still lives, by its own account, another one of its task instance begins.
    let other = attempt.instance.attempt(attempt.number + 1);
    let Some(end) = line.split_whitespace().last().and_then(|at| at.parse::<u64>().ok()) else {
        return false;
    };
    collected.witness.push_str(&format!("S {other} 1 {}\nE {other} 0 {end}\n", end - 1));
    true
}

fn hold_lock(collected: &mut Collected) -> bool {
    let Some((attempt, line)) = success(collected) else { return false };
    let Some(at) = line.split_whitespace().last() else { return false };
    collected.witness.push_str(&format!("O {attempt} {attempt} {at}\n"));
    true
}

fn spawn_twice(collected: &mut Collected) -> bool {
    let Some((attempt, line)) = success(collected) else { return false };
    let Some(at) = line.split_whitespace().last() else { return false };
    collected.witness.push_str(&format!("S {attempt} 1 {at}\n"));
    true
}

fn forget_run(collected: &mut Collected) -> bool {
    let told = collected.noted.iter().find_map(|(_, event)| match event {
        Event::Answered { answer: Answer::RunStarted { run, .. }, .. } => {
            Some(run.to_string().replace('-', ""))
        }
        _ => None,
    });
    let Some(run) = told else { return false };
    let before = collected.rows.len();
    collected.rows.retain(|row| row.what != "run" || row.new.get("id") != Some(&json!(run)));
    collected.rows.len() < before
}

fn write_late(collected: &mut Collected) -> bool {
    let Some(fence) = collected.rows.iter().rev().find(|row| row.what == "leadership").cloned() else {
        return false;
    };
    let mut late = fence;
    let Some(term) = late.new.get("term").and_then(serde_json::Value::as_i64) else { return false };
    late.new.insert("term".to_owned(), json!(term - 1));
    late.old = Some(late.new.clone());
    collected.rows.push(late);
    true
}

fn end_twice(collected: &mut Collected) -> bool {
    let is_end = |row: &&history::Row| {
        row.what == "attempt"
            && row.new.get("state").and_then(serde_json::Value::as_i64).is_some_and(|state| state >= 10)
    };
    let Some(at) = collected.rows.iter().position(|row| is_end(&row)) else { return false };
    let again = collected.rows[at].clone();
    collected.rows.insert(at + 1, again);
    true
}

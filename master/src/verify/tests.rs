//! Forged rows and histories, and the invariants that they break.

use std::sync::Arc;

use millrace_common::{
    definition,
    id::{AttemptId, InstanceId, RunId, SpoolId, WorkflowName},
    state::{AttemptState, RunState, TaskState},
    term::Term,
};
use millrace_core::{Proof, Trigger};
use millrace_store::query::{AttemptRow, ClaimRow, RunRow, ScheduleRow, SkipRow, TaskRow};

use super::{
    ledger::{Entry, What},
    past::{Definition, Served},
    *,
};

const SOURCE: &str = "workflow: w
schedule: { every: 60s }
tasks:
  a: { kind: shell, with: { command: [make] } }
  b: { kind: shell, after: a, with: { command: [make] } }
";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(1_790_000_000_000_000 + seconds * 1_000_000)
}

fn range() -> Range {
    Range { since: at(0), until: at(1_000) }
}

fn run() -> RunId {
    RunId::new(at(1), 1)
}

fn workflow() -> WorkflowName {
    "w".parse().unwrap()
}

fn attempt(index: u32, number: u32) -> AttemptId {
    InstanceId { run: run(), index }.attempt(number)
}

fn spool() -> SpoolId {
    SpoolId("00000000-0000-7000-8000-000000000001".parse().unwrap())
}

fn executor() -> ExecutorName {
    "x1".parse().unwrap()
}

fn claim(term: u64, after: (u64, u64)) -> ClaimRow {
    ClaimRow { term: Term(term), holder: "m".into(), at: at(0), after: (Term(after.0), after.1) }
}

/// An attempt that was placed and ended in these transactions of term 1, and ran from one second after the first to one
/// before the second: the number of a transaction is its second.
fn ran(id: AttemptId, placed: u64, ended: u64) -> AttemptRow {
    let second = |seq: u64| at(i64::try_from(seq).unwrap());
    AttemptRow {
        attempt: id,
        state: AttemptState::Succeeded,
        executor: executor(),
        spool: spool(),
        assigned_at: second(placed),
        assigned_in: (Term(1), placed),
        moved_at: second(ended),
        started_at: Some(second(placed + 1)),
        ended_at: Some(second(ended - 1)),
        ended_in: Some((Term(1), ended)),
        exit_code: Some(0),
        is_skipped: false,
        proof: Some(Proof::Reported),
    }
}

/// A past, and what an executor has written down of it.
struct Told {
    past: Past,
    ledger: Ledger,
}

impl Told {
    /// A run of two tasks that went well.
    fn well() -> Self {
        let mut past = Past { claims: vec![claim(1, (0, 0))], ..Past::default() };
        past.runs.insert(
            run(),
            RunRow {
                run: run(),
                workflow: workflow(),
                version: 1,
                trigger: Trigger::Manual,
                interval_end: at(1),
                key: None,
                created_at: at(1),
                state: RunState::Success,
                ended_at: Some(at(60)),
                is_ending: false,
            },
        );
        past.until = range().until;
        let read =
            Definition { workflow: Arc::new(definition::parse(SOURCE).unwrap()), source: SOURCE.into() };
        past.definitions.insert((workflow(), 1), Some(read));
        let mut told = Self { past, ledger: Ledger::default() };
        told.opened(8);
        told.task(0, TaskState::Success);
        told.task(1, TaskState::Success);
        told.row(ran(attempt(0, 1), 10, 20));
        told.row(ran(attempt(1, 1), 20, 30));
        told
    }

    fn opened(&mut self, slots: u32) {
        self.entry(0, What::Opened { spool: spool(), slots, is_start: true });
    }

    fn task(&mut self, index: u32, state: TaskState) {
        let tasks = self.past.tasks.entry(run()).or_default();
        tasks.retain(|task| task.instance.index != index);
        tasks.push(TaskRow { instance: InstanceId { run: run(), index }, state });
    }

    fn row(&mut self, row: AttemptRow) {
        self.past.attempts.insert(row.attempt, row);
    }

    fn change(&mut self, id: AttemptId, change: impl FnOnce(&mut AttemptRow)) {
        change(self.past.attempts.get_mut(&id).unwrap());
    }

    fn entry(&mut self, seconds: i64, what: What) {
        self.ledger.entries.push(Entry { at: at(seconds), what });
    }

    /// The first task needed two attempts, because nobody heard of the first one any more.
    fn lost() -> Self {
        let mut told = Self::well();
        told.row(ran(attempt(0, 1), 5, 8));
        told.change(attempt(0, 1), |row| {
            row.state = AttemptState::Lost;
            row.exit_code = None;
            row.proof = Some(Proof::OrphanTimePassed);
            row.ended_at = Some(row.moved_at);
        });
        told.row(ran(attempt(0, 2), 10, 20));
        told
    }

    fn judged(self) -> Findings {
        let ledgers = Ledgers::from([(executor(), Ok(self.ledger))]);
        let timeline = Timeline::of(&self.past, &ledgers);
        findings::judged(range(), &self.past, &ledgers, timeline)
    }

    #[track_caller]
    fn breaks(self, rules: &[&str]) -> Findings {
        let findings = self.judged();
        let found: Vec<&str> = findings.found.iter().map(|found| found.rule).collect();
        assert_eq!(found, rules, "{:#?}", findings.found);
        assert!(findings.found.iter().all(|found| !found.rows.is_empty()), "{:#?}", findings.found);
        findings
    }

    #[track_caller]
    fn holds(self) {
        let findings = self.judged();
        assert!(findings.found.is_empty(), "{:#?}", findings.found);
        assert!(findings.unjudged.is_empty(), "{:?}", findings.unjudged);
    }
}

#[test]
fn a_run_that_went_well_breaks_nothing() {
    Told::well().holds();
    Told::lost().holds();
}

#[test]
fn i1_claims_that_do_not_grow_are_found() {
    let mut told = Told::well();
    told.past.claims = vec![claim(5, (1, 40)), claim(3, (5, 2)), claim(1, (0, 0))];
    let findings = told.breaks(&["I1"]);
    assert!(findings.found[0].rows.iter().any(|row| row.contains("term 3")), "{:?}", findings.found);
}

#[test]
fn i2_what_was_written_after_a_later_claim_is_found() {
    let mut told = Told::well();
    told.past.claims.push(claim(2, (1, 25)));
    // Transaction 30 of term 1 came after the claim of term 2, which has seen 25.
    let findings = told.judged();
    assert!(findings.found.iter().all(|found| found.rule == "I2"), "{:#?}", findings.found);
    assert!(!findings.found.is_empty());
    let mut told = Told::well();
    told.past.claims.push(claim(2, (1, 30)));
    told.holds();
}

#[test]
fn i3_two_live_attempts_and_a_gap_in_their_numbers_are_found() {
    let mut told = Told::well();
    told.row(ran(attempt(0, 2), 15, 18));
    let findings = told.breaks(&["I3", "I6", "I6"]);
    let rows = &findings.found[0].rows;
    assert_eq!(rows.iter().filter(|row| row.starts_with("attempt ")).count(), 2, "{rows:?}");
    let mut told = Told::well();
    let row = told.past.attempts.remove(&attempt(1, 1)).unwrap();
    told.row(AttemptRow { attempt: attempt(1, 2), ..row });
    told.breaks(&["I3"]);
}

#[test]
fn i4_a_start_that_nobody_has_committed_is_found() {
    let mut told = Told::well();
    told.entry(40, What::Accepted(attempt(1, 7)));
    told.past.nowhere.insert(attempt(1, 7));
    told.breaks(&["I4"]);
    let mut told = Told::well();
    told.entry(12, What::Accepted(attempt(0, 1)));
    told.change(attempt(0, 1), |row| row.executor = "x2".parse().unwrap());
    told.breaks(&["I4"]);
}

#[test]
fn i5_an_attempt_that_was_spawned_twice_is_found() {
    let mut told = Told::well();
    told.entry(12, What::Spawned(attempt(0, 1)));
    told.entry(13, What::Spawned(attempt(0, 1)));
    let findings = told.breaks(&["I5"]);
    assert!(findings.found[0].rows.iter().any(|row| row.contains("history of x1")), "{:?}", findings.found);
}

#[test]
fn i6_and_i13_an_attempt_that_ran_on_after_it_was_taken_for_lost_is_found() {
    let ran_until = |seconds: i64| {
        let mut told = Told::lost();
        told.entry(6, What::Spawned(attempt(0, 1)));
        let state = AttemptState::Lost;
        told.entry(seconds, What::Ended { attempt: attempt(0, 1), state, exit_code: None });
        told
    };
    ran_until(7).holds();
    ran_until(9).holds();
    // Beyond what clocks may be apart; the second attempt began in second 11.
    ran_until(15).breaks(&["I13", "I6", "I6"]);
}

#[test]
fn i13_an_attempt_that_is_alive_although_it_was_taken_for_lost_is_found() {
    let mut told = Told::lost();
    told.entry(6, What::Spawned(attempt(0, 1)));
    told.breaks(&["I13", "I6", "I6"]);
    // A start of the program since then: what was under way may have ended unseen.
    let mut told = Told::lost();
    told.entry(6, What::Spawned(attempt(0, 1)));
    told.entry(7, What::Opened { spool: spool(), slots: 8, is_start: true });
    told.holds();
}

#[test]
fn an_end_that_was_only_looked_for_after_a_restart_says_nothing_of_when_it_was() {
    let mut told = Told::lost();
    told.entry(6, What::Spawned(attempt(0, 1)));
    told.entry(14, What::Opened { spool: spool(), slots: 8, is_start: true });
    let state = AttemptState::Lost;
    told.entry(15, What::Ended { attempt: attempt(0, 1), state, exit_code: None });
    told.holds();
}

fn served(fired: &[i64], skipped: &[(i64, i64)]) -> Served {
    let workflow_read = definition::parse(SOURCE).unwrap();
    let schedule = workflow_read.schedule.as_ref().unwrap();
    Served {
        row: ScheduleRow {
            workflow: workflow(),
            version: 1,
            applied_at: at(0),
            cursor: Some(at(200)),
            pruned_to: None,
            source: SOURCE.into(),
        },
        since: past::anchor(schedule, at(0), at(200)),
        until: at(200),
        fired: fired.iter().map(|seconds| at(*seconds)).collect(),
        skipped: skipped.iter().map(|(first, last)| SkipRow { first: at(*first), last: at(*last) }).collect(),
    }
}

#[test]
fn i7_logical_times_that_are_missing_or_fired_twice_are_found() {
    // Every minute, counted from where the schedule was served up to, second 200.
    for (fired, skipped, is_broken) in [
        (vec![20, 80, 140, 200], vec![], false),
        (vec![80, 200], vec![(140, 140)], false),
        (vec![80, 200], vec![], true),
        (vec![80, 80, 140, 200], vec![], true),
        (vec![80, 140, 200], vec![(140, 140)], true),
    ] {
        let mut told = Told::well();
        told.past.served.push(served(&fired, &skipped));
        if is_broken { drop(told.breaks(&["I7"])) } else { told.holds() }
    }
}

#[test]
fn i8_a_result_that_was_forgotten_before_it_was_durable_is_found() {
    let mut told = Told::well();
    told.entry(31, What::Released(attempt(1, 1)));
    told.holds();
    let mut told = Told::well();
    told.past.runs.get_mut(&run()).unwrap().state = RunState::Running;
    told.task(1, TaskState::Active);
    told.change(attempt(1, 1), |row| {
        row.state = AttemptState::Running;
        (row.ended_at, row.ended_in, row.exit_code, row.proof) = (None, None, None, None);
    });
    told.entry(31, What::Released(attempt(1, 1)));
    told.breaks(&["I8"]);
}

#[test]
fn i9_a_run_that_ended_before_its_tasks_is_found() {
    let mut told = Told::well();
    told.task(1, TaskState::Active);
    told.breaks(&["I9"]);
    let mut told = Told::well();
    told.past.attempts.remove(&attempt(1, 1));
    told.past.tasks.get_mut(&run()).unwrap().pop();
    told.breaks(&["I9"]);
}

#[test]
fn i10_an_outcome_that_the_executor_has_not_recorded_is_found() {
    let mut told = Told::well();
    let (state, exit_code) = (AttemptState::Failed, Some(3));
    told.entry(19, What::Ended { attempt: attempt(0, 1), state, exit_code });
    told.breaks(&["I10"]);
    // A success without a process.
    let mut told = Told::well();
    told.change(attempt(0, 1), |row| row.started_at = None);
    told.breaks(&["I10"]);
}

#[test]
fn i11_a_task_that_started_before_its_upstream_ended_is_found() {
    let mut told = Told::well();
    told.row(ran(attempt(1, 1), 15, 30));
    told.breaks(&["I11"]);
    // What never ran has no business to be skipped after a success.
    let mut told = Told::well();
    told.past.attempts.remove(&attempt(1, 1));
    told.task(1, TaskState::Skipped);
    told.breaks(&["I11"]);
}

#[test]
fn i12_an_executor_that_obeys_a_lower_term_is_found() {
    let mut told = Told::well();
    told.entry(1, What::TermObeyed(Term(4)));
    told.entry(2, What::TermObeyed(Term(3)));
    told.breaks(&["I12"]);
    let mut told = Told::well();
    told.entry(1, What::TermObeyed(Term(4)));
    // Another spool remembers no term.
    let other = SpoolId("00000000-0000-7000-8000-000000000002".parse().unwrap());
    told.entry(2, What::Opened { spool: other, slots: 8, is_start: true });
    told.entry(3, What::TermObeyed(Term(3)));
    told.holds();
}

#[test]
fn i15_more_attempts_than_slots_are_found() {
    let mut told = Told::well();
    told.ledger.entries.clear();
    told.opened(1);
    told.row(ran(attempt(1, 1), 15, 30));
    let found = told.judged().found;
    assert!(found.iter().any(|found| found.rule == "I15"), "{found:#?}");
    let mut told = Told::well();
    told.ledger.entries.clear();
    told.opened(1);
    told.holds();
}

#[test]
fn what_could_not_be_looked_at_is_said() {
    let judge = |past: Past, ledgers: Ledgers| {
        let timeline = Timeline::of(&past, &ledgers);
        findings::judged(range(), &past, &ledgers, timeline)
    };
    let away = Ledgers::from([(executor(), Err(LedgerError::NotConnected))]);
    let findings = judge(Told::well().past, away);
    assert!(findings.found.is_empty());
    assert_eq!(findings.unjudged.len(), 1);
    assert!(findings.unjudged[0].rules.contains(&"I5") && findings.unjudged[0].why.contains("x1"));

    let mut told = Told::well();
    told.ledger.begins_at = Some(at(5));
    let shortened = judge(told.past, Ledgers::from([(executor(), Ok(told.ledger))]));
    assert_eq!(shortened.unjudged.len(), 1, "{:?}", shortened.unjudged);

    // Its disk was lost, and what it had written down with it.
    let other = SpoolId("00000000-0000-7000-8000-000000000002".parse().unwrap());
    let mut told = Told::well();
    told.ledger.entries =
        vec![Entry { at: at(50), what: What::Opened { spool: other, slots: 8, is_start: true } }];
    let lost = judge(told.past, Ledgers::from([(executor(), Ok(told.ledger))]));
    assert!(lost.unjudged[0].why.contains("nobody holds spool"), "{:?}", lost.unjudged);

    let mut told = Told::well();
    told.past.definitions.insert((workflow(), 1), None);
    let unread = judge(told.past, Ledgers::from([(executor(), Ok(told.ledger))]));
    assert!(unread.unjudged[0].why.contains("cannot be read"), "{:?}", unread.unjudged);
    assert!(unread.found.is_empty(), "{:?}", unread.found);

    let mut told = Told::well();
    told.past.claims.clear();
    let early = judge(told.past, Ledgers::from([(executor(), Ok(told.ledger))]));
    assert!(early.found.is_empty() && early.unjudged[0].rules == ["I1", "I2"], "{:?}", early.unjudged);
}

//! For each invariant a history that breaks it, told from one that does not.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use millrace_checker::{
    Answer, Checker, End, Event, Exit, Fact, Proof, Rules, Skipped, Waiver, check, events_of,
};
use millrace_common::{
    id::{AttemptId, ExecutorName, InstanceId, RunId, SpoolId, WorkflowName},
    state::{AttemptState, RunState, TaskState},
    term::Term,
    time::Timestamp,
};

const SECOND: u64 = 1_000_000;
const SOURCE: &str = "workflow: w
max_active_runs: 1
schedule: { every: 60s }
tasks:
  a: { kind: shell, with: { command: [make] }, on_lost: confirm, pool: shared }
  b: { kind: shell, after: [a], with: { command: [make] } }
";

fn run(number: u128) -> RunId {
    RunId::new(Timestamp::from_micros(1_000_000), number)
}

fn task(index: u32) -> InstanceId {
    InstanceId { run: run(1), index }
}

fn attempt(number: u32) -> AttemptId {
    task(0).attempt(number)
}

fn executor() -> ExecutorName {
    "x0".parse().unwrap()
}

fn workflow() -> WorkflowName {
    "w".parse().unwrap()
}

fn spool() -> SpoolId {
    SpoolId("00000000-0000-7000-8000-000000000001".parse().unwrap())
}

fn end(state: AttemptState, exit_code: Option<i32>, proof: Proof) -> End {
    End { state, exit_code, is_skipped: false, proof }
}

/// A history that grows.
struct Told {
    rules: Rules,
    events: Vec<(u64, Event)>,
    seq: u64,
}

impl Told {
    fn new() -> Self {
        let rules = Rules { pools: [("shared".parse().unwrap(), 1)].into(), ..Rules::default() };
        let mut told = Self { rules, events: Vec::new(), seq: 0 };
        told.then(Event::Claimed { term: Term(1), holder: "m0".to_owned() });
        told.then(Event::Offered { executor: executor(), spool: spool(), slots: 1 });
        told.fact(Fact::WorkflowApplied { version: 1, source: SOURCE.into() });
        told
    }

    /// One with a run whose first task has a live attempt.
    fn assigned() -> Self {
        let mut told = Self::new();
        told.created(1, Some("key"));
        told.fact(Fact::RunMoved { run: run(1), from: RunState::Queued, to: RunState::Running });
        told.task(0, TaskState::Waiting, TaskState::Ready);
        told.assign(1);
        told.task(0, TaskState::Ready, TaskState::Active);
        told
    }

    /// One in which that attempt runs.
    fn running() -> Self {
        let mut told = Self::assigned();
        told.then(Event::Received { executor: executor(), spool: spool(), attempt: attempt(1) });
        told.then(Event::Spawned { attempt: attempt(1) });
        told
    }

    fn then(&mut self, event: Event) {
        let at = self.events.last().map_or(0, |(at, _)| *at) + 1;
        self.events.push((at, event));
    }

    fn wait(&mut self, seconds: u64) {
        let at = self.events.last().map_or(0, |(at, _)| *at) + seconds * SECOND;
        self.events.push((at, Event::Asked { request: u64::MAX }));
        self.events.push((at, Event::Answered { request: u64::MAX, answer: Answer::Other }));
    }

    fn fact(&mut self, fact: Fact) {
        self.seq += 1;
        self.then(Event::Committed { term: Term(1), seq: self.seq, facts: vec![fact] });
    }

    fn created(&mut self, number: u128, key: Option<&str>) {
        let key = key.map(ToOwned::to_owned);
        self.fact(Fact::RunCreated {
            run: run(number),
            workflow: workflow(),
            version: 1,
            fired_for: None,
            key,
        });
    }

    fn task(&mut self, index: u32, from: TaskState, to: TaskState) {
        self.fact(Fact::TaskMoved { instance: task(index), from, to });
    }

    fn assign(&mut self, number: u32) {
        self.fact(Fact::AttemptAssigned { attempt: attempt(number), executor: executor(), spool: spool() });
    }

    fn ended(&mut self, state: AttemptState, exit_code: Option<i32>, proof: Proof) {
        self.fact(Fact::AttemptEnded { attempt: attempt(1), end: end(state, exit_code, proof) });
    }

    fn exited(&mut self, exit: Exit) {
        self.then(Event::Exited { attempt: attempt(1), exit });
    }

    /// The first attempt has ended and its task is ready again.
    fn again(&mut self) {
        self.task(0, TaskState::Active, TaskState::Ready);
    }

    fn rules_broken(&self) -> Vec<&'static str> {
        let found = check(self.rules.clone(), &self.events);
        found.iter().map(|violation| violation.rule).collect()
    }

    #[track_caller]
    fn breaks(&self, rule: &str) {
        assert_eq!(self.rules_broken(), [rule], "{:?}", check(self.rules.clone(), &self.events));
    }

    #[track_caller]
    fn holds(&self) {
        let found = check(self.rules.clone(), &self.events);
        assert!(found.is_empty(), "{found:?}");
    }
}

#[test]
fn a_run_that_goes_well_breaks_nothing() {
    let mut told = Told::running();
    told.then(Event::Obeyed { executor: executor(), spool: spool(), term: Term(1) });
    told.then(Event::Sent { term: Term(1), checked_at: 5, authority_until: 6 });
    told.exited(Exit::Code(0));
    told.ended(AttemptState::Succeeded, Some(0), Proof::Seen);
    told.task(0, TaskState::Active, TaskState::Success);
    told.task(1, TaskState::Waiting, TaskState::Ready);
    told.then(Event::Released { executor: executor(), attempt: attempt(1) });
    told.holds();
}

#[test]
fn i1_a_term_that_does_not_grow_is_found() {
    let mut told = Told::new();
    told.then(Event::Claimed { term: Term(1), holder: "m1".to_owned() });
    assert_eq!(told.rules_broken(), ["I1", "I1"], "it does not grow, and it has two holders");
}

#[test]
fn i2_a_write_after_a_later_claim_is_found() {
    let mut told = Told::new();
    told.then(Event::Claimed { term: Term(2), holder: "m1".to_owned() });
    told.created(1, None);
    told.breaks("I2");
}

#[test]
fn i2_a_gap_in_the_transactions_of_a_term_is_found() {
    let mut told = Told::new();
    told.seq += 1;
    told.created(1, None);
    told.breaks("I2");
}

#[test]
fn i3_a_second_live_attempt_is_found() {
    let mut told = Told::assigned();
    told.rules.pools.clear();
    told.then(Event::Offered { executor: executor(), spool: spool(), slots: 2 });
    told.again();
    told.assign(2);
    told.breaks("I3");
}

#[test]
fn i3_a_gap_in_the_numbers_of_attempts_is_found() {
    let mut told = Told::assigned();
    told.ended(AttemptState::Rejected, None, Proof::Seen);
    told.again();
    told.assign(3);
    told.breaks("I3");
}

#[test]
fn i4_a_start_that_is_not_committed_is_found() {
    let mut told = Told::new();
    told.then(Event::Received { executor: executor(), spool: spool(), attempt: attempt(1) });
    told.breaks("I4");
    let mut told = Told::assigned();
    told.then(Event::Received { executor: "x1".parse().unwrap(), spool: spool(), attempt: attempt(1) });
    told.breaks("I4");
}

#[test]
fn i5_a_second_spawn_is_found() {
    let mut told = Told::running();
    told.exited(Exit::Code(1));
    told.then(Event::Spawned { attempt: attempt(1) });
    told.breaks("I5");
}

#[test]
fn i6_an_overlap_of_two_attempts_is_found() {
    let mut told = Told::assigned();
    told.ended(AttemptState::Lost, None, Proof::TimePassed);
    told.again();
    told.assign(2);
    told.then(Event::Spawned { attempt: attempt(2) });
    told.holds();
    // The first one comes to life after all.
    told.then(Event::Spawned { attempt: attempt(1) });
    assert_eq!(told.rules_broken(), ["I6", "I13"]);
}

#[test]
fn i6_is_not_asked_of_a_machine_that_stood_still() {
    let mut told = Told::running();
    told.then(Event::Frozen { executor: executor() });
    told.ended(AttemptState::Lost, None, Proof::TimePassed);
    told.again();
    told.assign(2);
    told.holds();
}

#[test]
fn i6_and_i13_by_time_are_waived_where_leases_lie() {
    let mut told = Told::running();
    told.ended(AttemptState::Lost, None, Proof::TimePassed);
    told.again();
    told.assign(2);
    assert_eq!(told.rules_broken(), ["I13", "I6"]);
    told.rules.waived.insert(Waiver::LeasesLie);
    told.holds();
}

#[test]
fn i7_a_logical_time_that_fires_twice_is_found() {
    let (first, at) = (Timestamp::from_micros(0), Timestamp::from_micros(60_000_000));
    let cursor = |cursor| Fact::CursorMoved { workflow: workflow(), cursor, skipped: None };
    let fired = |number| Fact::RunCreated {
        run: run(number),
        workflow: workflow(),
        version: 1,
        fired_for: Some(at),
        key: None,
    };
    let mut told = Told::new();
    told.fact(cursor(first));
    told.fact(cursor(at));
    told.fact(fired(1));
    told.holds();
    told.fact(fired(2));
    told.breaks("I7");
}

#[test]
fn i7_a_logical_time_that_is_passed_over_in_silence_is_found() {
    let at = |minute: i64| Timestamp::from_micros(minute * 60_000_000);
    let cursor = |minute, skipped| Fact::CursorMoved { workflow: workflow(), cursor: at(minute), skipped };
    let mut told = Told::new();
    told.fact(cursor(0, None));
    told.fact(cursor(2, Some(Skipped { first: at(1), last: at(2) })));
    told.holds();
    told.fact(cursor(3, None));
    told.breaks("I7");
}

#[test]
fn i8_a_key_that_makes_two_runs_is_found() {
    let mut told = Told::new();
    told.created(1, Some("key"));
    told.created(2, Some("key"));
    told.breaks("I8");
}

#[test]
fn i8_an_acknowledged_run_that_is_not_there_is_found() {
    let mut told = Told::new();
    let answer = Answer::RunStarted { workflow: workflow(), key: None, run: run(1) };
    told.then(Event::Answered { request: 1, answer });
    told.breaks("I8");
}

#[test]
fn i8_a_result_that_is_given_up_before_it_is_durable_is_found() {
    let mut told = Told::running();
    told.then(Event::Released { executor: executor(), attempt: attempt(1) });
    told.breaks("I8");
}

#[test]
fn i9_a_final_state_that_changes_is_found() {
    let mut told = Told::running();
    told.exited(Exit::Code(0));
    told.ended(AttemptState::Succeeded, Some(0), Proof::Seen);
    told.ended(AttemptState::Killed, None, Proof::Seen);
    told.breaks("I9");
    let mut told = Told::new();
    told.created(1, None);
    told.fact(Fact::RunEnding { run: run(1) });
    told.task(0, TaskState::Waiting, TaskState::Cancelled);
    told.task(0, TaskState::Cancelled, TaskState::Success);
    told.breaks("I9");
}

#[test]
fn i10_an_outcome_that_is_not_what_the_process_did_is_found() {
    for (exit, state, code) in [
        (Exit::Code(3), AttemptState::Succeeded, Some(0)),
        (Exit::Code(3), AttemptState::Succeeded, Some(3)),
        (Exit::Code(3), AttemptState::Failed, Some(4)),
        (Exit::Killed, AttemptState::Succeeded, Some(0)),
        (Exit::Code(0), AttemptState::Rejected, None),
    ] {
        let mut told = Told::running();
        told.exited(exit);
        told.ended(state, code, Proof::Seen);
        told.breaks("I10");
    }
}

#[test]
fn i11_a_task_that_starts_before_its_rule_is_met_is_found() {
    let mut told = Told::assigned();
    told.task(1, TaskState::Waiting, TaskState::Ready);
    told.breaks("I11");
}

#[test]
fn i12_a_term_that_falls_at_an_executor_is_found() {
    let mut told = Told::new();
    let obeyed = |term| Event::Obeyed { executor: executor(), spool: spool(), term: Term(term) };
    told.then(obeyed(2));
    told.then(obeyed(2));
    told.holds();
    told.then(obeyed(1));
    told.breaks("I12");
}

#[test]
fn i13_a_final_attempt_that_lives_is_found() {
    let mut told = Told::running();
    told.ended(AttemptState::Killed, None, Proof::Seen);
    told.breaks("I13");
    let mut told = Told::assigned();
    told.ended(AttemptState::Rejected, None, Proof::Seen);
    told.then(Event::Spawned { attempt: attempt(1) });
    told.breaks("I13");
}

#[test]
fn i14_a_message_after_the_end_of_authority_is_found() {
    let mut told = Told::new();
    told.then(Event::Sent { term: Term(1), checked_at: 7, authority_until: 7 });
    told.breaks("I14");
}

#[test]
fn i15_a_full_executor_pool_or_workflow_that_gets_more_is_found() {
    let other = InstanceId { run: run(1), index: 1 };
    let mut told = Told::assigned();
    told.ended(AttemptState::Rejected, None, Proof::Seen);
    told.task(0, TaskState::Active, TaskState::Success);
    told.task(1, TaskState::Waiting, TaskState::Ready);
    told.then(Event::Offered { executor: executor(), spool: spool(), slots: 0 });
    told.fact(Fact::AttemptAssigned { attempt: other.attempt(1), executor: executor(), spool: spool() });
    told.breaks("I15");
    let mut told = Told::assigned();
    told.rules.pools.insert("shared".parse().unwrap(), 0);
    told.breaks("I15");
    let mut told = Told::assigned();
    told.created(2, None);
    told.fact(Fact::RunMoved { run: run(2), from: RunState::Queued, to: RunState::Running });
    told.breaks("I15");
}

#[test]
fn l1_a_run_that_does_not_end_is_found_unless_it_waits_for_an_operator() {
    let mut told = Told::running();
    told.then(Event::Healed);
    told.wait(5 * 3_600);
    told.breaks("L1");
    // Its executor never comes back, and its policy is to wait for a person.
    told.then(Event::Gone { executor: executor() });
    told.holds();
}

#[test]
fn l1_an_attempt_of_a_lost_disk_waits_for_an_operator() {
    let mut told = Told::running();
    let other = SpoolId("00000000-0000-7000-8000-000000000002".parse().unwrap());
    told.then(Event::Healed);
    told.then(Event::Offered { executor: executor(), spool: other, slots: 1 });
    told.wait(5 * 3_600);
    told.holds();
}

#[test]
fn l1_a_run_behind_one_that_waits_for_an_operator_waits_with_it() {
    let mut told = Told::running();
    told.created(2, None);
    told.then(Event::Healed);
    told.then(Event::Gone { executor: executor() });
    told.wait(5 * 3_600);
    told.holds();
}

#[test]
fn l2_a_request_that_a_healthy_cluster_does_not_answer_is_found() {
    let mut told = Told::new();
    told.then(Event::Asked { request: 1 });
    told.wait(3_600);
    told.then(Event::Healed);
    told.wait(29);
    told.then(Event::Answered { request: 1, answer: Answer::Other });
    told.holds();
    told.then(Event::Asked { request: 2 });
    told.wait(31);
    told.breaks("L2");
}

#[test]
fn a_witness_log_tells_of_spawns_and_ends() {
    let id = attempt(1);
    let log = format!("S {id} 4711 100\nB {id} 200\nB {id} 300\nS {id} 4712 4");
    let events = events_of(&log).unwrap();
    let killed = Event::Exited { attempt: id, exit: Exit::Killed };
    assert_eq!(events, [(100, Event::Spawned { attempt: id }), (300, killed)], "the last line is torn");
    let ended = events_of(&format!("S {id} 4711 100\nE {id} 3 250\n")).unwrap();
    assert_eq!(ended[1], (250, Event::Exited { attempt: id, exit: Exit::Code(3) }));
    for (log, what) in [("X\n", "line 1 is none"), ("B nothing 1\n", "names no attempt"), ("S 1\n", "line 1")]
    {
        assert!(events_of(log).unwrap_err().to_string().contains(what), "{log:?}");
    }
}

#[test]
fn a_history_can_be_written_and_read_again() {
    let told = Told::running();
    let mut checker = Checker::new(told.rules.clone());
    for (at, event) in &told.events {
        let line = serde_json::to_string(event).unwrap();
        let again: Event = serde_json::from_str(&line).unwrap();
        assert_eq!(&again, event);
        checker.record(*at, &again);
    }
    assert!(checker.violations().is_empty());
}

/// What rows and ledgers keep: not every transaction, and of a process only that it is gone.
fn sparse() -> Told {
    let mut told = Told::running();
    told.rules.is_sparse = true;
    told
}

#[test]
fn a_sparse_history_may_leave_transactions_out_and_no_more() {
    let mut told = sparse();
    told.seq += 5;
    told.exited(Exit::Unseen);
    told.ended(AttemptState::Succeeded, Some(0), Proof::Seen);
    told.holds();
    told.seq -= 3;
    told.created(2, None);
    told.breaks("I2");
}

#[test]
fn i7_is_asked_of_logical_times_without_their_runs() {
    let at = |minute: i64| Timestamp::from_micros(minute * 60_000_000);
    let cursor = |minute| Fact::CursorMoved { workflow: workflow(), cursor: at(minute), skipped: None };
    let fired = |minute| Fact::Fired { workflow: workflow(), at: at(minute) };
    let mut told = Told::new();
    told.fact(cursor(0));
    told.fact(cursor(2));
    told.fact(fired(1));
    told.breaks("I7");
    told.fact(fired(2));
    told.holds();
    told.fact(fired(2));
    told.breaks("I7");
}

#[test]
fn i9_an_executor_that_records_two_ends_is_found() {
    let recorded =
        |state, exit_code| Event::EndRecorded { executor: executor(), attempt: attempt(1), state, exit_code };
    let mut told = sparse();
    told.then(recorded(AttemptState::Failed, Some(3)));
    told.then(recorded(AttemptState::Failed, Some(3)));
    told.holds();
    told.then(recorded(AttemptState::Succeeded, Some(0)));
    told.breaks("I9");
}

#[test]
fn i10_an_outcome_that_its_executor_has_not_recorded_is_found() {
    for (state, exit_code, is_faithful) in [
        (AttemptState::Failed, Some(3), true),
        (AttemptState::Failed, Some(4), false),
        (AttemptState::Succeeded, Some(0), false),
        (AttemptState::Lost, None, true),
    ] {
        let mut told = sparse();
        told.then(Event::EndRecorded {
            executor: executor(),
            attempt: attempt(1),
            state: AttemptState::Failed,
            exit_code: Some(3),
        });
        told.exited(Exit::Unseen);
        told.ended(state, exit_code, Proof::Seen);
        if is_faithful { told.holds() } else { told.breaks("I10") }
    }
}

#[test]
fn i10_a_process_that_was_ended_from_outside_has_failed_without_a_code() {
    let mut told = Told::running();
    told.exited(Exit::Killed);
    told.ended(AttemptState::Failed, None, Proof::Seen);
    told.holds();
}

fn set(name: &str, value: Option<&str>) -> Fact {
    Fact::SettingChanged { name: name.to_owned(), value: value.map(ToOwned::to_owned) }
}

#[test]
fn i15_what_a_live_setting_made_smaller_keeps_what_it_has_and_gets_nothing() {
    for (name, size) in [("pools.shared", "0"), ("executors.x0.slots", "0")] {
        let mut told = Told::assigned();
        told.fact(set(name, Some(size)));
        told.holds();
        told.ended(AttemptState::Rejected, None, Proof::Seen);
        told.again();
        told.assign(2);
        told.breaks("I15");
        let mut told = Told::assigned();
        told.fact(set(name, Some(size)));
        told.ended(AttemptState::Rejected, None, Proof::Seen);
        told.again();
        told.fact(set(name, None));
        told.assign(2);
        told.holds();
    }
}

#[test]
fn a_schedule_that_fires_while_all_are_paused_is_found() {
    let mut told = Told::new();
    told.fact(Fact::CursorMoved { workflow: workflow(), cursor: Timestamp::from_micros(0), skipped: None });
    told.fact(set("schedules_paused", Some("true")));
    let at = Timestamp::from_micros(60_000_000);
    told.fact(Fact::CursorMoved { workflow: workflow(), cursor: at, skipped: None });
    told.fact(Fact::RunCreated {
        run: run(1),
        workflow: workflow(),
        version: 1,
        fired_for: Some(at),
        key: None,
    });
    told.breaks("paused");
}

#[test]
fn a_live_setting_that_may_not_be_is_found() {
    let mut told = Told::new();
    told.fact(set("pools.shared", Some("many")));
    told.breaks("setting");
}

#[test]
fn an_executor_that_is_closed_and_is_given_something_is_found() {
    let mut told = Told::new();
    told.created(1, Some("key"));
    told.fact(Fact::RunMoved { run: run(1), from: RunState::Queued, to: RunState::Running });
    told.task(0, TaskState::Waiting, TaskState::Ready);
    told.fact(Fact::ExecutorClosed { executor: executor() });
    let mut opened = Told { rules: told.rules.clone(), events: told.events.clone(), seq: told.seq };
    told.assign(1);
    told.breaks("closed");
    opened.fact(Fact::ExecutorOpened { executor: executor() });
    opened.assign(1);
    opened.holds();
}

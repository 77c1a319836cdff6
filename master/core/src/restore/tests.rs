//! Rows that no leader can have written, rows that only look so, and what becomes of what a new leader leaves out.

use super::*;
use crate::{
    Effect, Held, Hello, Input, Limits, Message, Report, Verdict,
    input::{Request, RequestId, StartRun},
    testing::Harness,
};
use millrace_common::{
    definition,
    id::{AttemptId, SessionId, SpoolId},
    state::AttemptState,
    term::Term,
};

const DEFINITION: &str = "\
workflow: w
timeout: 1h
max_active_runs: 2
tasks:
  a: { kind: shell, retries: 1, pool: wide, with: { command: [make] } }
  b: { kind: shell, after: a, with: { command: [make] } }
";

fn pools(wide: u32) -> Limits {
    Limits { pools: [("wide".parse().unwrap(), wide)].into(), ..Limits::default() }
}

fn hello(held: Vec<Held>) -> Box<Hello> {
    Box::new(Hello {
        executor: "x1".parse().unwrap(),
        slots: 4,
        labels: BTreeMap::new(),
        kinds: vec!["shell".to_owned()],
        spool: SpoolId("00000000-0000-7000-8000-000000000001".parse().unwrap()),
        machine: Some("machine".into()),
        boot: "boot".into(),
        is_clean: false,
        is_space_low: false,
        version: "test".into(),
        process: None,
        spool_facts: 0,
        held,
    })
}

/// A leader with two runs of which the first task is active.
fn two_runs() -> Harness {
    let mut harness = Harness::new(pools(2));
    let workflow = Arc::new(definition::parse(DEFINITION).unwrap());
    harness.input(Input::Requested(
        RequestId(1),
        Request::ApplyWorkflow { workflow, source: DEFINITION.into() },
    ));
    harness.input(Input::ExecutorConnected(SessionId(1), hello(Vec::new())));
    for request in 2..4 {
        let start = StartRun {
            workflow: "w".parse().unwrap(),
            params: "{}".into(),
            logical_date: None,
            idempotency_key: None,
        };
        harness.input(Input::Requested(RequestId(request), Request::StartRun(start)));
    }
    harness
}

fn restored(harness: &Harness, snapshot: Snapshot, limits: Limits) -> Restored {
    Scheduler::restore(Term(9), snapshot, limits, harness.now).unwrap()
}

/// Spoils the first of the two runs and returns why it is left out.
fn problem_of(spoil: impl FnOnce(&mut RunRow)) -> String {
    let harness = two_runs();
    let mut snapshot = harness.store.load();
    let spoiled = snapshot.runs[0].created.run;
    spoil(&mut snapshot.runs[0]);
    let Restored { mut scheduler, quarantined } = restored(&harness, snapshot, pools(2));
    assert_eq!(scheduler.state.runs.len(), 1, "the other run goes on");
    while let Some(batch) = scheduler.take_batch() {
        assert!(batch.changes().is_empty(), "nothing of it is touched: {batch:?}");
    }
    assert!(check::violations(&scheduler).is_empty() && check::orphans(&scheduler).is_empty());
    let [(run, problem)] = quarantined.as_slice() else { panic!("one run is left out: {quarantined:?}") };
    assert_eq!(*run, spoiled);
    problem.clone()
}

fn first_task(row: &mut RunRow) -> &mut TaskRow {
    row.tasks.get_mut(&0).unwrap()
}

fn live(row: &mut RunRow) -> &mut LiveRow {
    first_task(row).live.as_mut().unwrap()
}

#[test]
fn a_run_whose_rows_contradict_each_other_is_left_out_and_the_others_go_on() {
    type Spoil = fn(&mut RunRow);
    let rows: [(&str, Spoil); 14] = [
        ("version 7 of workflow w is not there", |run| run.created.version = 7),
        ("it is success and yet live", |run| run.state = RunState::Success),
        ("it is running and has no start", |run| run.started_at = None),
        ("it is queued and has a start", |run| run.state = RunState::Queued),
        ("it is to end in a state that is not final", |run| {
            run.ending = Some((RunState::Paused, "why".into()))
        }),
        ("instance 2 of 2 does not exist", |run| {
            let task = run.tasks[&0].clone();
            run.tasks.insert(2, task);
        }),
        ("a task instance is active without a live attempt", |run| first_task(run).live = None),
        ("a task instance is ready with a live attempt", |run| first_task(run).state = TaskState::Ready),
        ("live attempt 1 of a task instance is lost", |run| live(run).state = AttemptState::Lost),
        ("live attempt 0 of a task instance is assigned", |run| first_task(run).attempts = 0),
        ("a task instance is up_for_retry at no time", |run| {
            let task = first_task(run);
            (task.state, task.live) = (TaskState::UpForRetry, None);
        }),
        ("it is running and being ended while a task instance is waiting", |run| {
            run.ending = Some((RunState::Cancelled, "why".into()));
        }),
        ("it is queued while a task instance is active", |run| {
            (run.state, run.started_at) = (RunState::Queued, None);
        }),
        ("it is running while every task instance has ended", |run| {
            let task = first_task(run);
            (task.state, task.live) = (TaskState::Success, None);
            let task = task.clone();
            run.tasks.insert(1, task);
        }),
    ];
    for (expected, spoil) in rows {
        assert_eq!(problem_of(spoil), expected);
    }
}

#[test]
fn executors_keep_what_they_run_of_a_run_that_is_left_out() {
    let harness = two_runs();
    let mut snapshot = harness.store.load();
    snapshot.runs[0].started_at = None;
    let attempt = InstanceId { run: snapshot.runs[0].created.run, index: 0 }.attempt(1);
    let mut scheduler = restored(&harness, snapshot, pools(2)).scheduler;
    let session = SessionId(2);
    let held = vec![Held { attempt, report: Report::Accepted }];
    let inputs = [
        Input::ExecutorConnected(session, hello(held)),
        Input::HeartbeatReceived {
            session,
            number: 1,
            held: vec![(attempt, AttemptState::Accepted)],
            is_space_low: false,
            spool_facts: 0,
        },
        Input::AttemptReported { session, attempt, report: Report::Accepted },
        Input::HeartbeatReceived {
            session,
            number: 2,
            held: vec![(attempt, AttemptState::Succeeded)],
            is_space_low: false,
            spool_facts: 0,
        },
    ];
    for input in inputs {
        scheduler.handle(harness.now, input);
    }
    let (_, effects) = scheduler.take_batch().unwrap().release();
    let touches = |effect: &Effect| match effect {
        Effect::Send(_, Message::Welcome(verdicts)) => verdicts != &[(attempt, Verdict::Adopt)],
        Effect::Send(_, Message::Ack(id) | Message::Kill { attempt: id, .. }) => *id == attempt,
        _ => false,
    };
    assert!(!effects.iter().any(touches), "{effects:?}");
    assert_eq!(scheduler.refusals().get("report_of_quarantined_run"), Some(&1));
}

#[test]
fn a_pool_that_was_made_smaller_does_not_keep_a_leader_from_starting() {
    let harness = two_runs();
    let Restored { scheduler, quarantined } = restored(&harness, harness.store.load(), pools(1));
    assert_eq!(quarantined, []);
    assert_eq!(check::over_limit(&scheduler).len(), 1, "two are active in a pool of one");
}

#[test]
fn a_workflow_without_a_version_in_force_is_refused_as_a_whole() {
    let harness = two_runs();
    let mut snapshot = harness.store.load();
    snapshot.workflows[0].is_latest = false;
    let refused = Scheduler::restore(Term(9), snapshot, pools(2), harness.now).map(|_| ());
    assert_eq!(refused, Err(RestoreError::VersionsInForce("w".parse().unwrap(), 0)));
}

#[test]
fn what_is_restored_is_what_was_there() {
    let mut harness = two_runs();
    let attempt = AttemptId {
        instance: InstanceId { run: harness.store.load().runs[0].created.run, index: 0 },
        number: 1,
    };
    let report = Report::Started { at: harness.now.wall };
    harness.input(Input::AttemptReported { session: SessionId(1), attempt, report });
    let before = format!("{:?}", harness.scheduler.state.runs);
    let Restored { scheduler, .. } = restored(&harness, harness.store.load(), pools(2));
    assert_eq!(format!("{:?}", scheduler.state.runs), before);
    assert_eq!(scheduler.state.pool_used(&"wide".parse().unwrap()), 2);
    assert_eq!(scheduler.state.live_attempts(), 2);
}

//! Changes to try things with.

use std::sync::Arc;

use millrace_common::{
    definition,
    id::{AttemptId, InstanceId, RunId, SpoolId, WorkflowName},
    interval::DataInterval,
    state::{AttemptState, RunState, TaskState},
    term::Term,
    time::Timestamp,
};
use millrace_core::{AttemptEnd, Change, Proof, RejectReason, RunCreated, Trigger};
use millrace_store::{Store, Writer};

/// Midnight of some day, in microseconds.
const START_MICROS: i64 = 1_790_000_000_000_000;

/// Returns the point `seconds` after the beginning of the test's time.
pub(crate) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(START_MICROS + seconds * 1_000_000)
}

pub(crate) fn name(text: &str) -> WorkflowName {
    text.parse().expect("a name")
}

pub(crate) fn run_id(number: u8) -> RunId {
    RunId::new(at(i64::from(number)), number.into())
}

pub(crate) fn instance(run: u8, index: u32) -> InstanceId {
    InstanceId { run: run_id(run), index }
}

pub(crate) fn attempt(run: u8, index: u32, number: u32) -> AttemptId {
    instance(run, index).attempt(number)
}

pub(crate) fn json(text: &str) -> Arc<str> {
    text.into()
}

/// Returns the text of a workflow of `tasks` shell tasks that follow each other.
pub(crate) fn source(workflow: &str, tasks: usize) -> String {
    let mut text = format!("workflow: {workflow}\ntasks:\n");
    for task in 0..tasks {
        text.push_str(&format!("  t{task}:\n    kind: shell\n    with: {{ command: [\"true\"] }}\n"));
        if task > 0 {
            text.push_str(&format!("    after: [t{}]\n", task - 1));
        }
    }
    text
}

pub(crate) fn applied(workflow: &str, version: u32) -> Change {
    let source = source(workflow, 2 + version as usize);
    let workflow = definition::parse(&source).expect("the sample is a workflow");
    Change::WorkflowApplied {
        version,
        workflow: Arc::new(workflow),
        source: source.into(),
        at: at(version.into()),
    }
}

pub(crate) fn created(run: u8, workflow: &str) -> RunCreated {
    RunCreated {
        run: run_id(run),
        workflow: name(workflow),
        version: 1,
        trigger: Trigger::Manual,
        interval: DataInterval::at(at(run.into())),
        params: json(r#"{"region":"north"}"#),
        idempotency_key: None,
        at: at(run.into()),
    }
}

pub(crate) fn new_run(run: u8, workflow: &str) -> Change {
    Change::RunCreated(Box::new(created(run, workflow)))
}

pub(crate) fn run_moved(run: u8, from: RunState, to: RunState, seconds: i64) -> Change {
    Change::RunMoved { run: run_id(run), from, to, at: at(seconds), reason: None }
}

pub(crate) fn task_moved(instance: InstanceId, from: TaskState, to: TaskState, seconds: i64) -> Change {
    Change::TaskMoved { instance, from, to, at: at(seconds), retry_at: None, values: None }
}

pub(crate) fn spool() -> SpoolId {
    SpoolId(uuid::Uuid::from_bytes([9; 16]))
}

pub(crate) fn machine() -> Option<Arc<str>> {
    Some("4c4c4544004d3510".into())
}

pub(crate) fn assigned(attempt: AttemptId, seconds: i64) -> Change {
    Change::AttemptAssigned {
        attempt,
        executor: "plant-1".parse().expect("a name"),
        spool: spool(),
        machine: machine(),
        at: at(seconds),
    }
}

pub(crate) fn attempt_moved(
    attempt: AttemptId,
    from: AttemptState,
    to: AttemptState,
    seconds: i64,
) -> Change {
    Change::AttemptMoved { attempt, from, to, at: at(seconds) }
}

pub(crate) fn end(state: AttemptState, seconds: i64) -> AttemptEnd {
    AttemptEnd {
        state,
        exit_code: Some(i32::from(state != AttemptState::Succeeded)),
        reason: if state == AttemptState::Succeeded { "".into() } else { "it broke".into() },
        values: None,
        is_skipped: false,
        is_permanent: false,
        started_at: Some(at(seconds - 1)),
        ended_at: at(seconds),
        log_bytes: 17,
        reject_reason: RejectReason::Other,
        is_planned: false,
        proof: Proof::Reported,
    }
}

pub(crate) fn ended(attempt: AttemptId, from: AttemptState, end: AttemptEnd) -> Change {
    let at = end.ended_at;
    Change::AttemptEnded { attempt, from, end, at }
}

/// Claims the term after the stored one.
pub(crate) async fn lead(store: &Store, holder: &str) -> Writer {
    let term = store.stored_term().await.expect("the store answers").next();
    store.claim(term, holder).await.expect("the term is free")
}

/// A store with workflow `flow` and running run 1, instance 0 of which is ready.
pub(crate) async fn ready(store: &Store) -> Writer {
    let mut writer = lead(store, "first").await;
    let changes = [
        applied("flow", 1),
        new_run(1, "flow"),
        run_moved(1, RunState::Queued, RunState::Running, 1),
        task_moved(instance(1, 0), TaskState::Waiting, TaskState::Ready, 1),
    ];
    writer.commit_changes(&changes).await.expect("the sample is legal");
    writer
}

/// Takes the first attempt of an instance from ready to running, in one batch.
pub(crate) fn started(run: u8, index: u32, seconds: i64) -> [Change; 4] {
    let id = attempt(run, index, 1);
    [
        task_moved(id.instance, TaskState::Ready, TaskState::Active, seconds),
        assigned(id, seconds),
        attempt_moved(id, AttemptState::Assigned, AttemptState::Accepted, seconds + 1),
        attempt_moved(id, AttemptState::Accepted, AttemptState::Running, seconds + 2),
    ]
}

/// Term 1 is the first that [`lead`] takes.
pub(crate) const FIRST: Term = Term(1);

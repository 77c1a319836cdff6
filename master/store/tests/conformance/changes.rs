//! What a batch does, and what it must not.

use std::sync::Arc;

use millrace_common::{
    interval::DataInterval,
    schedule::Skipped,
    state::{AttemptState, RunState, TaskState},
    term::Term,
    time::Now,
};
use millrace_core::{
    Answer, AttemptEnd, Change, Closed, Effect, ExecutorStanding, Input, Limits, Proof, Request, RequestId,
    Scheduler, Snapshot, StartRun, Trigger,
};
use millrace_store::{CommitError, Writer};

use crate::{
    place::Place,
    sample::{
        FIRST, applied, assigned, at, attempt, attempt_moved, created, end, ended, instance, json, lead,
        name, new_run, ready, run_id, run_moved, source, spool, started, task_moved,
    },
};

async fn refused(writer: &mut Writer, changes: &[Change]) -> CommitError {
    let refusal = writer.commit_changes(changes).await.unwrap_err();
    assert!(refusal.ends_term());
    refusal
}

async fn guarded(writer: &mut Writer, changes: &[Change]) -> String {
    match refused(writer, changes).await {
        CommitError::Guard { what } => what,
        other => panic!("{other}"),
    }
}

async fn duplicated(writer: &mut Writer, changes: &[Change]) -> String {
    match refused(writer, changes).await {
        CommitError::Duplicate { what, .. } => what,
        other => panic!("{other}"),
    }
}

pub(crate) async fn every_kind_of_change_is_read_back(place: Place) {
    let store = place.open().await;
    let mut writer = ready(&store).await;
    let id = attempt(1, 0, 1);
    let skipped = Skipped {
        count: 3,
        is_exact: true,
        first: DataInterval { start: at(10), end: at(20) },
        last: DataInterval { start: at(30), end: at(40) },
    };
    let batches: [Vec<Change>; 5] = [
        vec![Change::CursorMoved { workflow: name("flow"), cursor: at(40), skipped: Some(skipped) }],
        started(1, 0, 50).to_vec(),
        vec![
            attempt_moved(id, AttemptState::Running, AttemptState::Killing, 60),
            Change::RunEnding { run: run_id(1), to: RunState::Cancelled, reason: "by hand".into() },
        ],
        vec![
            ended(id, AttemptState::Killing, end(AttemptState::Killed, 70)),
            task_moved(instance(1, 0), TaskState::Active, TaskState::Cancelled, 70),
        ],
        vec![task_moved(instance(1, 1), TaskState::Waiting, TaskState::Cancelled, 70)],
    ];
    for batch in &batches {
        writer.commit_changes(batch).await.unwrap();
    }
    let loaded = store.load().await.unwrap();
    assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
    assert_eq!(loaded.snapshot.workflows[0].cursor, Some(at(40)));
    let run = &loaded.snapshot.runs[0];
    assert_eq!(run.created, created(1, "flow"));
    assert_eq!((run.state, run.started_at), (RunState::Running, Some(at(1))));
    assert_eq!(run.ending, Some((RunState::Cancelled, "by hand".into())));
    assert_eq!(run.tasks[&0].state, TaskState::Cancelled);
    assert_eq!((run.tasks[&0].attempts, run.tasks[&0].failures), (1, 0));
    assert!(run.tasks[&0].live.is_none());

    let detail = store.attempts(instance(1, 0)).await.unwrap().remove(0);
    assert_eq!((detail.attempt, detail.state, detail.spool), (id, AttemptState::Killed, spool()));
    assert_eq!((detail.assigned_in, detail.proof), ((FIRST, 3), Some(Proof::Reported)));
    assert_eq!(
        (detail.exit_code, detail.reason.as_deref(), detail.log_bytes),
        (Some(1), Some("it broke"), 17)
    );
    assert_eq!(
        (detail.started_at, detail.ended_at),
        (Some(at(69)), Some(at(70))),
        "the executor's clock counts"
    );
    assert_eq!(store.firing_skips(&name("flow"), 10).await.unwrap(), [skipped]);
}

pub(crate) async fn moves_of_one_batch_become_one_row(place: Place) {
    let store = place.open().await;
    let mut writer = lead(&store, "first").await;
    let first = attempt(1, 0, 1);
    let second = attempt(1, 0, 2);
    let mut changes = vec![applied("flow", 1), new_run(1, "flow")];
    changes.push(run_moved(1, RunState::Queued, RunState::Running, 1));
    changes.push(task_moved(instance(1, 0), TaskState::Waiting, TaskState::Ready, 1));
    changes.extend(started(1, 0, 2));
    changes.push(ended(first, AttemptState::Running, end(AttemptState::Failed, 5)));
    changes.push(Change::TaskMoved {
        instance: instance(1, 0),
        from: TaskState::Active,
        to: TaskState::UpForRetry,
        at: at(5),
        retry_at: Some(at(9)),
        values: None,
    });
    changes.push(task_moved(instance(1, 0), TaskState::UpForRetry, TaskState::Active, 9));
    changes.push(assigned(second, 9));
    changes.push(ended(second, AttemptState::Assigned, end(AttemptState::Lost, 12)));
    changes.push(task_moved(instance(1, 0), TaskState::Active, TaskState::Ready, 12));
    writer.commit_changes(&changes).await.unwrap();

    let detail = store.run(run_id(1)).await.unwrap().unwrap();
    assert_eq!((detail.state, detail.started_at), (RunState::Running, Some(at(1))));
    let task = detail.tasks[0];
    assert_eq!((task.state, task.moved_at, task.started_at), (TaskState::Ready, at(12), Some(at(2))));
    assert_eq!(task.retry_at, None, "the last move has none");
    let states: Vec<AttemptState> = detail.attempts.iter().map(|attempt| attempt.state).collect();
    assert_eq!(states, [AttemptState::Failed, AttemptState::Lost]);
    let row = &store.load().await.unwrap().snapshot.runs[0].tasks[&0];
    assert_eq!((row.attempts, row.failures, row.losses, row.rejections), (2, 1, 1, 0));
}

pub(crate) async fn a_batch_of_many_rows_is_one_transaction(place: Place) {
    const RUNS: u8 = 40;
    const TASKS: u32 = 60;
    let store = place.open().await;
    let mut writer = lead(&store, "first").await;
    let mut changes = vec![applied("flow", 1)];
    for run in 1..=RUNS {
        changes.push(new_run(run, "flow"));
        for index in 0..TASKS {
            changes.push(task_moved(instance(run, index), TaskState::Waiting, TaskState::Ready, 1));
        }
    }
    assert_eq!(writer.commit_changes(&changes).await.unwrap(), 1);
    let mut changes = Vec::new();
    for run in 1..=RUNS {
        for index in 0..TASKS {
            changes.extend(started(run, index, 2));
        }
    }
    assert_eq!(writer.commit_changes(&changes).await.unwrap(), 2);
    let snapshot = store.load().await.unwrap().snapshot;
    let live: usize =
        snapshot.runs.iter().flat_map(|run| run.tasks.values()).filter(|task| task.live.is_some()).count();
    assert_eq!(live, usize::from(RUNS) * TASKS as usize);

    // One row in the middle that does not fit is found and named, and nothing of the batch stays.
    let mut changes: Vec<Change> = (0..TASKS)
        .map(|index| attempt_moved(attempt(7, index, 1), AttemptState::Running, AttemptState::Killing, 9))
        .collect();
    changes[41] = attempt_moved(attempt(7, 41, 1), AttemptState::Accepted, AttemptState::Killing, 9);
    let what = guarded(&mut writer, &changes).await;
    assert_eq!(what, format!("attempt {} is missing or in another state", attempt(7, 41, 1)));
    let states = store.run(run_id(7)).await.unwrap().unwrap().attempts;
    assert!(states.iter().all(|attempt| attempt.state == AttemptState::Running));
}

pub(crate) async fn a_guard_that_does_not_hold_stops_the_whole_batch(place: Place) {
    let store = place.open().await;
    let id = attempt(1, 0, 1);
    let _: Writer = ready(&store).await;
    let wrong: [(Change, String); 5] = [
        (run_moved(1, RunState::Paused, RunState::Running, 9), format!("run {} is missing", run_id(1))),
        (run_moved(8, RunState::Queued, RunState::Running, 9), format!("run {} is missing", run_id(8))),
        (
            task_moved(instance(1, 0), TaskState::Active, TaskState::Failed, 9),
            format!("task instance {} is missing", instance(1, 0)),
        ),
        (
            task_moved(instance(1, 1), TaskState::Ready, TaskState::Active, 9),
            format!("task instance {} is missing", instance(1, 1)),
        ),
        (
            attempt_moved(id, AttemptState::Assigned, AttemptState::Accepted, 9),
            format!("attempt {id} is missing"),
        ),
    ];
    for (change, expected) in wrong {
        let mut writer = lead(&store, "next").await;
        let what = guarded(&mut writer, &[new_run(2, "flow"), change]).await;
        assert!(what.starts_with(&expected), "{what}");
        assert_eq!(store.load().await.unwrap().snapshot.runs.len(), 1, "the new run went with the rest");
        assert_eq!(writer.seq(), 0);
    }
    // A move that two leaders would both make: the second finds a row.
    let mut writer = lead(&store, "next").await;
    let what =
        duplicated(&mut writer, &[task_moved(instance(1, 0), TaskState::Waiting, TaskState::Ready, 9)]).await;
    assert_eq!(what, format!("task instance {}", instance(1, 0)));
}

pub(crate) async fn versions_grow_and_cursors_never_fall(place: Place) {
    let store = place.open().await;
    let cursor = |seconds| Change::CursorMoved { workflow: name("flow"), cursor: at(seconds), skipped: None };
    let mut writer = ready(&store).await;
    writer.commit_changes(&[cursor(20), applied("flow", 2), applied("flow", 3)]).await.unwrap();
    writer.commit_changes(&[cursor(20)]).await.unwrap();
    let what = guarded(&mut writer, &[cursor(19)]).await;
    assert!(what.starts_with("workflow flow"), "{what}");
    let mut writer = lead(&store, "next").await;
    duplicated(&mut writer, &[applied("flow", 3)]).await;
    let mut writer = lead(&store, "next").await;
    let unknown = Change::CursorMoved { workflow: name("other"), cursor: at(1), skipped: None };
    guarded(&mut writer, &[unknown]).await;
    let row = store.workflow(&name("flow"), None).await.unwrap().unwrap();
    assert_eq!((row.version, row.latest), (3, 3));
    assert_eq!(store.load().await.unwrap().snapshot.workflows.last().unwrap().cursor, Some(at(20)));
}

pub(crate) async fn final_states_never_change(place: Place) {
    let store = place.open().await;
    let mut writer = ready(&store).await;
    let id = attempt(1, 0, 1);
    writer.commit_changes(&started(1, 0, 2)).await.unwrap();
    let ends = [
        ended(id, AttemptState::Running, end(AttemptState::Succeeded, 5)),
        task_moved(instance(1, 0), TaskState::Active, TaskState::Success, 5),
        run_moved(1, RunState::Running, RunState::Success, 5),
    ];
    writer.commit_changes(&ends).await.unwrap();
    let wrong = [
        ended(id, AttemptState::Succeeded, end(AttemptState::Failed, 6)),
        attempt_moved(id, AttemptState::Succeeded, AttemptState::Running, 6),
        task_moved(instance(1, 0), TaskState::Success, TaskState::Ready, 6),
        run_moved(1, RunState::Success, RunState::Running, 6),
        Change::RunEnding { run: run_id(1), to: RunState::Failed, reason: "late".into() },
    ];
    for change in wrong {
        let mut writer = lead(&store, "next").await;
        guarded(&mut writer, &[change]).await;
    }
    let detail = store.run(run_id(1)).await.unwrap().unwrap();
    assert_eq!((detail.state, detail.ended_at, detail.ending), (RunState::Success, Some(at(5)), None));
    assert_eq!(detail.attempts[0].state, AttemptState::Succeeded);
}

pub(crate) async fn an_instance_has_one_live_attempt(place: Place) {
    let store = place.open().await;
    let mut writer = ready(&store).await;
    writer.commit_changes(&started(1, 0, 2)).await.unwrap();
    let what = duplicated(&mut writer, &[assigned(attempt(1, 0, 2), 3)]).await;
    assert_eq!(what, format!("attempt {}", attempt(1, 0, 2)));
    assert_eq!(store.attempts(instance(1, 0)).await.unwrap().len(), 1);
}

pub(crate) async fn an_ended_attempt_makes_room_in_the_same_batch(place: Place) {
    let store = place.open().await;
    let mut writer = ready(&store).await;
    writer.commit_changes(&started(1, 0, 2)).await.unwrap();
    let changes = [
        ended(attempt(1, 0, 1), AttemptState::Running, end(AttemptState::Failed, 5)),
        task_moved(instance(1, 0), TaskState::Active, TaskState::Ready, 5),
        task_moved(instance(1, 0), TaskState::Ready, TaskState::Active, 5),
        assigned(attempt(1, 0, 2), 5),
    ];
    writer.commit_changes(&changes).await.unwrap();
    let snapshot = store.load().await.unwrap().snapshot;
    let task = &snapshot.runs[0].tasks[&0];
    assert_eq!((task.attempts, task.failures), (2, 1));
    let live = task.live.as_ref().unwrap();
    assert_eq!((live.state, live.assigned_at, live.spool), (AttemptState::Assigned, at(5), spool()));
}

pub(crate) async fn an_interval_is_fired_once(place: Place) {
    let fired = |run: u8, start: i64, end: i64, trigger: Trigger| {
        let interval = DataInterval { start: at(start), end: at(end) };
        Change::RunCreated(Box::new(millrace_core::RunCreated { trigger, interval, ..created(run, "flow") }))
    };
    let store = place.open().await;
    let mut writer = ready(&store).await;
    let manual = fired(2, 0, 60, Trigger::Manual);
    writer.commit_changes(&[fired(3, 0, 60, Trigger::Schedule), manual]).await.unwrap();
    // The same start is no repeat: the schedule may have become another one.
    writer.commit_changes(&[fired(4, 0, 90, Trigger::Schedule)]).await.unwrap();
    let what = duplicated(&mut writer, &[fired(5, 0, 60, Trigger::Schedule)]).await;
    assert_eq!(what, format!("run {}", run_id(5)));
}

pub(crate) async fn an_idempotency_key_makes_one_run(place: Place) {
    let keyed = |run: u8, workflow: &str| {
        let idempotency_key = Some("order-17".into());
        Change::RunCreated(Box::new(millrace_core::RunCreated { idempotency_key, ..created(run, workflow) }))
    };
    let store = place.open().await;
    let mut writer = ready(&store).await;
    writer.commit_changes(&[applied("other", 1), keyed(2, "flow"), keyed(3, "other")]).await.unwrap();
    assert_eq!(store.run_by_key(&name("flow"), "order-17").await.unwrap(), Some(run_id(2)));
    assert_eq!(store.run_by_key(&name("other"), "order-17").await.unwrap(), Some(run_id(3)));
    assert_eq!(store.run_by_key(&name("flow"), "order-18").await.unwrap(), None);
    duplicated(&mut writer, &[keyed(4, "flow")]).await;
    assert_eq!(store.run(run_id(4)).await.unwrap(), None);
}

pub(crate) async fn decisions_of_a_core_are_committed_and_restored(place: Place) {
    let store = place.open().await;
    let mut writer = store.claim(Term(1), "first").await.unwrap();
    let now = Now { wall: at(0), ..Now::default() };
    let restore = |snapshot| Scheduler::restore(Term(1), snapshot, Limits::default(), now).unwrap().scheduler;
    let mut core = restore(Snapshot::default());
    let text = source("flow", 3);
    let workflow = Arc::new(millrace_common::definition::parse(&text).unwrap());
    let apply = Request::ApplyWorkflow { workflow, source: text.into() };
    core.handle(now, Input::Requested(RequestId(1), apply));
    let start = StartRun {
        workflow: name("flow"),
        params: json("{}"),
        logical_date: None,
        idempotency_key: Some("once".into()),
    };
    core.handle(now, Input::Requested(RequestId(2), Request::StartRun(start)));
    let mut answers = Vec::new();
    while let Some(batch) = core.take_batch() {
        let committed = writer.commit(batch).await.unwrap();
        answers.extend(committed.effects);
    }
    assert!(matches!(
        answers.as_slice(),
        [
            Effect::Answer(RequestId(1), Answer::WorkflowApplied { version: 1, is_changed: true }),
            Effect::Answer(RequestId(2), Answer::RunStarted { is_repeat: false, .. }),
        ]
    ));
    let loaded = store.load().await.unwrap();
    assert!(loaded.problems.is_empty());
    let run = &loaded.snapshot.runs[0];
    assert_eq!((run.state, run.tasks[&0].state), (RunState::Running, TaskState::Ready));
    let restored = Scheduler::restore(Term(2), loaded.snapshot, Limits::default(), now).unwrap();
    assert!(restored.quarantined.is_empty(), "{:?}", restored.quarantined);
}

pub(crate) async fn executors_stay_closed_until_they_are_opened_or_forgotten(place: Place) {
    let store = place.open().await;
    let mut writer = lead(&store, "first").await;
    let executor = |text: &str| text.parse().unwrap();
    let standing = |closed, reason: &str, seconds| ExecutorStanding {
        closed,
        reason: reason.into(),
        by: "ann@plant".into(),
        since: at(seconds),
    };
    let close = |name, closed, reason, seconds| Change::ExecutorClosed {
        executor: executor(name),
        standing: standing(closed, reason, seconds),
    };
    let open = |name| Change::ExecutorOpened { executor: executor(name), by: "ann@plant".into(), at: at(9) };
    let forget =
        |name| Change::ExecutorForgotten { executor: executor(name), by: "ann@plant".into(), at: at(9) };
    let closed = async || -> Vec<(String, ExecutorStanding)> {
        let rows = store.load().await.unwrap().snapshot.standings;
        rows.into_iter().map(|row| (row.executor.to_string(), row.standing)).collect()
    };
    let batch = [
        close("plant-2", Closed::Drained, "", 1),
        close("plant-1", Closed::Cordoned, "5 starts in a row \u{738b} 'came' to nothing", 2),
        close("plant-3", Closed::Drained, "new disks", 3),
    ];
    writer.commit_changes(&batch).await.unwrap();
    assert_eq!(
        closed().await,
        [
            (
                "plant-1".to_owned(),
                standing(Closed::Cordoned, "5 starts in a row \u{738b} 'came' to nothing", 2)
            ),
            ("plant-2".to_owned(), standing(Closed::Drained, "", 1)),
            ("plant-3".to_owned(), standing(Closed::Drained, "new disks", 3)),
        ]
    );
    // What follows in one batch is folded to its end, and a later decision replaces an earlier one.
    let batch = [
        open("plant-2"),
        close("plant-1", Closed::Drained, "mended", 4),
        forget("plant-3"),
        forget("plant-4"),
        close("plant-5", Closed::Drained, "", 5),
        open("plant-5"),
    ];
    writer.commit_changes(&batch).await.unwrap();
    let mended = ("plant-1".to_owned(), standing(Closed::Drained, "mended", 4));
    assert_eq!(closed().await, std::slice::from_ref(&mended));
    let mut writer = lead(&store, "second").await;
    assert_eq!(closed().await, [mended], "another leader finds it so");
    writer.commit_changes(&[open("plant-1")]).await.unwrap();
    assert_eq!(closed().await, []);
}

pub(crate) async fn a_persons_word_is_kept_as_proof(place: Place) {
    let store = place.open().await;
    let mut writer = ready(&store).await;
    writer.commit_changes(&started(1, 0, 2)).await.unwrap();
    let reason = "confirmed by ann: it burnt down";
    let lost = AttemptEnd { proof: Proof::Operator, reason: reason.into(), ..end(AttemptState::Lost, 70) };
    let changes = [
        ended(attempt(1, 0, 1), AttemptState::Running, lost),
        task_moved(instance(1, 0), TaskState::Active, TaskState::Ready, 70),
    ];
    writer.commit_changes(&changes).await.unwrap();
    let detail = store.attempts(instance(1, 0)).await.unwrap().remove(0);
    assert_eq!((detail.state, detail.proof), (AttemptState::Lost, Some(Proof::Operator)));
    assert_eq!(detail.reason.as_deref(), Some(reason));
    let losses = store.load().await.unwrap().snapshot.runs[0].tasks[&0].losses;
    assert_eq!(losses, 0, "a person has looked at it");
}

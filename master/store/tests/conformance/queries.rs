//! The read side.

use millrace_common::{
    id::{RunId, TaskName},
    interval::DataInterval,
    schedule::Skipped,
    state::{AttemptState, RunState, TaskState},
};
use millrace_core::{Change, RunCreated, Trigger};
use millrace_store::query::{PAGE_ROWS_MAX, RunFilter};

use crate::{
    place::Place,
    sample::{
        applied, at, attempt, created, end, ended, instance, json, lead, name, new_run, ready, run_id,
        run_moved, started, task_moved,
    },
};

pub(crate) async fn lists_are_paged_by_key(place: Place) {
    let store = place.open().await;
    let mut writer = lead(&store, "first").await;
    let mut changes: Vec<Change> = ["c", "a", "b"].iter().map(|name| applied(name, 1)).collect();
    changes.extend((1..=5).map(|run| new_run(run, "a")));
    writer.commit_changes(&changes).await.unwrap();

    let first = store.workflows(None, 2).await.unwrap();
    let names = |page: &millrace_store::query::Page<millrace_store::query::WorkflowSummary, _>| {
        page.rows.iter().map(|row| row.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!((names(&first), first.next.clone()), (vec!["a".to_owned(), "b".to_owned()], Some(name("b"))));
    let second = store.workflows(first.next.as_ref(), 2).await.unwrap();
    assert_eq!((names(&second), second.next), (vec!["c".to_owned()], None));

    let mut seen: Vec<RunId> = Vec::new();
    let mut after = None;
    loop {
        let page = store.runs(&RunFilter::default(), after, 2).await.unwrap();
        assert!(page.rows.len() <= 2);
        seen.extend(page.rows.iter().map(|row| row.run));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let newest_first: Vec<RunId> = (1..=5).rev().map(run_id).collect();
    assert_eq!(seen, newest_first);
    let all = store.runs(&RunFilter::default(), None, u32::MAX).await.unwrap();
    assert_eq!((all.rows.len(), all.next), (5, None), "a limit beyond {PAGE_ROWS_MAX} is lowered to it");
}

pub(crate) async fn runs_are_filtered_by_workflow_and_state(place: Place) {
    let store = place.open().await;
    let mut writer = lead(&store, "first").await;
    let mut changes = vec![applied("a", 1), applied("b", 1)];
    for run in 1..=6 {
        changes.push(new_run(run, if run % 2 == 0 { "a" } else { "b" }));
    }
    changes.push(run_moved(2, RunState::Queued, RunState::Running, 2));
    changes.push(run_moved(3, RunState::Queued, RunState::Running, 2));
    writer.commit_changes(&changes).await.unwrap();
    for (workflow, state, expected) in [
        (Some("a"), None, vec![6, 4, 2]),
        (None, Some(RunState::Running), vec![3, 2]),
        (Some("b"), Some(RunState::Running), vec![3]),
        (Some("b"), Some(RunState::Failed), vec![]),
        (Some("none"), None, vec![]),
    ] {
        let filter = RunFilter { workflow: workflow.map(name), state };
        let page = store.runs(&filter, None, 10).await.unwrap();
        let runs: Vec<RunId> = page.rows.iter().map(|row| row.run).collect();
        let expected: Vec<RunId> = expected.into_iter().map(run_id).collect();
        assert_eq!(runs, expected, "{filter:?}");
        assert!(page.rows.iter().all(|row| row.interval == DataInterval::at(row.created_at)));
    }
}

pub(crate) async fn a_run_is_shown_with_its_tasks_and_attempts(place: Place) {
    let store = place.open().await;
    let mut writer = ready(&store).await;
    writer.commit_changes(&started(1, 0, 2)).await.unwrap();
    let detail = store.run(run_id(1)).await.unwrap().unwrap();
    assert_eq!(detail.created, created(1, "flow"));
    let names: Vec<TaskName> = ["t0", "t1", "t2"].iter().map(|name| name.parse().unwrap()).collect();
    assert_eq!(detail.task_names, names);
    let [task] = detail.tasks.as_slice() else { panic!("those that wait have no row") };
    assert_eq!((task.index, task.state, task.attempts, task.has_values), (0, TaskState::Active, 1, false));
    let [first] = detail.attempts.as_slice() else { panic!("there is one attempt") };
    assert_eq!((first.attempt, first.state), (attempt(1, 0, 1), AttemptState::Running));
    assert_eq!((first.assigned_at, first.started_at, first.moved_at), (at(2), Some(at(4)), at(4)));
    assert_eq!((first.exit_code, first.proof, first.log_bytes), (None, None, 0));
    assert_eq!(store.run(run_id(9)).await.unwrap(), None);
}

pub(crate) async fn an_ended_run_can_be_retried(place: Place) {
    let store = place.open().await;
    let mut writer = ready(&store).await;
    writer.commit_changes(&started(1, 0, 2)).await.unwrap();
    assert!(store.ended_run(run_id(1)).await.unwrap().is_none(), "a live run is not retried");
    let values = Some(json(r#"{"records":7}"#));
    let changes = [
        ended(attempt(1, 0, 1), AttemptState::Running, end(AttemptState::Succeeded, 5)),
        Change::TaskMoved {
            instance: instance(1, 0),
            from: TaskState::Active,
            to: TaskState::Success,
            at: at(5),
            retry_at: None,
            values: values.clone(),
        },
        task_moved(instance(1, 1), TaskState::Waiting, TaskState::Failed, 6),
        Change::RunMoved {
            run: run_id(1),
            from: RunState::Running,
            to: RunState::Failed,
            at: at(6),
            reason: Some("t1 failed".into()),
        },
    ];
    writer.commit_changes(&changes).await.unwrap();
    let retried = store.ended_run(run_id(1)).await.unwrap().unwrap();
    assert_eq!((retried.created, retried.state), (created(1, "flow"), RunState::Failed));
    assert_eq!(retried.workflow.tasks.len(), 3);
    assert_eq!(retried.tasks[&0], (TaskState::Success, values.clone()));
    assert_eq!(retried.tasks[&1], (TaskState::Failed, None));
    assert_eq!(retried.tasks.len(), 2);
    assert_eq!(store.values(instance(1, 0)).await.unwrap(), values);
    assert_eq!(store.values(instance(1, 1)).await.unwrap(), None);
    assert_eq!(store.values(instance(1, 2)).await.unwrap(), None);
    assert!(store.ended_run(run_id(9)).await.unwrap().is_none());
    let row = store.runs(&RunFilter::default(), None, 1).await.unwrap().rows.remove(0);
    assert_eq!((row.ended_at, row.reason.as_deref()), (Some(at(6)), Some("t1 failed")));

    let retry = RunCreated { trigger: Trigger::Retry(run_id(1)), ..created(2, "flow") };
    writer.commit_changes(&[Change::RunCreated(Box::new(retry.clone()))]).await.unwrap();
    assert_eq!(store.run(run_id(2)).await.unwrap().unwrap().created, retry);
}

pub(crate) async fn workflows_are_shown_with_their_versions_and_last_run(place: Place) {
    let store = place.open().await;
    let mut writer = ready(&store).await;
    writer.commit_changes(&[applied("flow", 2), applied("idle", 1), new_run(2, "flow")]).await.unwrap();
    let page = store.workflows(None, 10).await.unwrap();
    let [flow, idle] = page.rows.as_slice() else { panic!("there are two workflows") };
    assert_eq!((flow.version, flow.applied_at, flow.cursor), (2, at(2), None));
    let last = flow.last_run.as_ref().unwrap();
    assert_eq!((last.run, last.state, last.created_at), (run_id(2), RunState::Queued, at(2)));
    assert_eq!(idle.last_run, None);

    let latest = store.workflow(&name("flow"), None).await.unwrap().unwrap();
    assert_eq!((latest.version, latest.latest, latest.task_names.len()), (2, 2, 4));
    let first = store.workflow(&name("flow"), Some(1)).await.unwrap().unwrap();
    assert_eq!((first.version, first.latest, first.task_names.len()), (1, 2, 3));
    assert!(first.source.starts_with("workflow: flow"));
    assert_eq!(store.workflow(&name("flow"), Some(3)).await.unwrap(), None);
    assert_eq!(store.workflow(&name("none"), None).await.unwrap(), None);
}

pub(crate) async fn skipped_intervals_are_shown_newest_first(place: Place) {
    let skipped = |seconds: i64| Skipped {
        count: 1,
        is_exact: true,
        first: DataInterval { start: at(seconds - 10), end: at(seconds) },
        last: DataInterval { start: at(seconds - 10), end: at(seconds) },
    };
    let moved = |seconds: i64| Change::CursorMoved {
        workflow: name("flow"),
        cursor: at(seconds),
        skipped: Some(skipped(seconds)),
    };
    let store = place.open().await;
    let mut writer = ready(&store).await;
    writer.commit_changes(&[moved(10), moved(20)]).await.unwrap();
    writer.commit_changes(&[moved(30)]).await.unwrap();
    assert_eq!(store.firing_skips(&name("flow"), 10).await.unwrap(), [skipped(30), skipped(20), skipped(10)]);
    assert_eq!(store.firing_skips(&name("flow"), 2).await.unwrap(), [skipped(30), skipped(20)]);
}

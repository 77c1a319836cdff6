//! What rows tell of the past.

use std::time::Duration;

use millrace_common::{
    interval::DataInterval,
    schedule::Skipped,
    state::{AttemptState, RunState, TaskState},
    term::Term,
};
use millrace_core::{Change, Proof, RunCreated, Trigger};
use millrace_store::Retention;

use crate::{
    place::Place,
    sample::{
        applied, at, attempt, created, end, ended, instance, lead, name, new_run, ready, run_id, run_moved,
        started,
    },
};

pub(crate) async fn claims_are_noted_with_what_they_followed(place: Place) {
    let store = place.open().await;
    let mut first = lead(&store, "first").await;
    first.commit_changes(&[applied("flow", 1)]).await.unwrap();
    first.commit_changes(&[new_run(1, "flow")]).await.unwrap();
    store.claim(Term(7), "second").await.unwrap();
    assert!(store.claim(Term(7), "third").await.is_err(), "a claim that fails is not noted");
    let claims = store.claims(10).await.unwrap();
    let told: Vec<_> = claims.iter().map(|row| (row.term, &*row.holder, row.after)).collect();
    assert_eq!(told, [(Term(7), "second", (Term(1), 2)), (Term(1), "first", (Term(0), 0))]);
    // Between 2020 and 2100.
    let is_now = |row: &millrace_store::query::ClaimRow| {
        (1_577_836_800_000_000..4_102_444_800_000_000).contains(&row.at.as_micros())
    };
    assert!(claims.iter().all(is_now), "by the clock of the database: {claims:?}");
    assert!(claims[0].at >= claims[1].at);
    assert_eq!(store.claims(1).await.unwrap().len(), 1);
}

pub(crate) async fn what_was_there_in_a_range_is_found(place: Place) {
    let store = place.open().await;
    let mut writer = ready(&store).await;
    let mut changes = started(1, 0, 2).to_vec();
    changes.extend([new_run(2, "flow"), new_run(3, "flow")]);
    writer.commit_changes(&changes).await.unwrap();
    let id = attempt(1, 0, 1);
    writer
        .commit_changes(&[
            ended(id, AttemptState::Running, end(AttemptState::Failed, 9)),
            run_moved(2, RunState::Queued, RunState::Cancelled, 20),
        ])
        .await
        .unwrap();

    let runs = |since, until| {
        let store = store.clone();
        async move {
            let page = store.runs_within(at(since), at(until), None, 10).await.unwrap();
            page.rows.into_iter().map(|row| row.run).collect::<Vec<_>>()
        }
    };
    assert_eq!(runs(0, 100).await, [run_id(1), run_id(2), run_id(3)], "oldest first");
    assert_eq!(runs(21, 100).await, [run_id(1), run_id(3)], "2 had ended");
    assert_eq!(runs(0, 2).await, [run_id(1)], "the others came later");
    let page = store.runs_within(at(0), at(100), None, 2).await.unwrap();
    assert_eq!(page.next, Some(run_id(2)));
    let rest = store.runs_within(at(0), at(100), page.next, 2).await.unwrap();
    assert_eq!((rest.rows[0].run, rest.next), (run_id(3), None));

    let attempts = store.attempts_of(run_id(1), run_id(3), 10).await.unwrap();
    let row = &attempts[0];
    assert_eq!((attempts.len(), row.attempt, row.state), (1, id, AttemptState::Failed));
    assert_eq!((row.assigned_in, row.ended_in), ((Term(1), 2), Some((Term(1), 3))));
    assert_eq!((row.started_at, row.ended_at), (Some(at(8)), Some(at(9))));
    assert_eq!((row.exit_code, row.proof), (Some(1), Some(Proof::Reported)));
    let tasks = store.tasks_of(run_id(1), run_id(1), 10).await.unwrap();
    assert_eq!(
        tasks.iter().map(|row| (row.instance, row.state)).collect::<Vec<_>>(),
        [(instance(1, 0), TaskState::Active)]
    );
    assert!(store.attempts_of(run_id(2), run_id(3), 10).await.unwrap().is_empty());
}

pub(crate) async fn what_was_deleted_leaves_a_mark(place: Place) {
    let store = place.open().await;
    let mut writer = lead(&store, "first").await;
    let fired = |run: u8| {
        let interval = DataInterval { start: at(0), end: at(run.into()) };
        Change::RunCreated(Box::new(RunCreated {
            trigger: Trigger::Schedule,
            interval,
            ..created(run, "flow")
        }))
    };
    let skipped =
        Skipped { count: 1, is_exact: true, first: DataInterval::at(at(5)), last: DataInterval::at(at(5)) };
    writer
        .commit_changes(&[
            applied("flow", 1),
            applied("other", 1),
            Change::CursorMoved { workflow: name("flow"), cursor: at(30), skipped: Some(skipped) },
            fired(10),
            fired(20),
            run_moved(10, RunState::Queued, RunState::Cancelled, 11),
        ])
        .await
        .unwrap();
    let flow = name("flow");
    assert_eq!(store.fired(&flow, at(0), at(30), 10).await.unwrap(), [at(10), at(20)]);
    assert_eq!(store.fired(&flow, at(10), at(19), 10).await.unwrap(), []);
    let skips = store.skipped(&flow, at(0), 10).await.unwrap();
    assert_eq!((skips[0].first, skips[0].last), (at(5), at(5)));
    let marks = |store: millrace_store::Store| async move {
        let page = store.schedules(None, 10).await.unwrap();
        page.rows
            .into_iter()
            .map(|row| (row.workflow.to_string(), row.cursor, row.pruned_to))
            .collect::<Vec<_>>()
    };
    let other = ("other".to_owned(), None, None);
    assert_eq!(marks(store.clone()).await, [("flow".to_owned(), Some(at(30)), None), other.clone()]);

    let old = Retention { keep_for: Some(Duration::from_secs(100)), keep_runs: None };
    writer.prune(old, at(107)).await.unwrap();
    let after_skips = [("flow".to_owned(), Some(at(30)), Some(at(5))), other.clone()];
    assert_eq!(marks(store.clone()).await, after_skips, "the skipped interval is gone");
    writer.prune(old, at(1_000)).await.unwrap();
    let after_runs = [("flow".to_owned(), Some(at(30)), Some(at(10))), other];
    assert_eq!(marks(store.clone()).await, after_runs, "and the run that had ended");
    assert_eq!(store.fired(&flow, at(0), at(30), 10).await.unwrap(), [at(20)]);
}

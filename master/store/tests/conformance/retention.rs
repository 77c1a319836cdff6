//! What is deleted, and what is kept.

use std::time::Duration;

use millrace_common::{
    id::RunId,
    interval::DataInterval,
    schedule::Skipped,
    state::{RunState, TaskState},
};
use millrace_core::Change;
use millrace_store::{CommitError, PruneError, Pruned, Retention, Store, query::RunFilter};

use crate::{
    place::Place,
    sample::{applied, at, instance, lead, name, new_run, ready, run_id, run_moved, started, task_moved},
};

async fn runs(store: &Store) -> Vec<RunId> {
    let page = store.runs(&RunFilter::default(), None, 1_000).await.unwrap();
    page.rows.iter().map(|row| row.run).collect()
}

const fn keep_for(seconds: u64) -> Retention {
    Retention { keep_for: Some(Duration::from_secs(seconds)), keep_runs: None }
}

pub(crate) async fn old_runs_are_deleted_with_all_that_is_theirs(place: Place) {
    let store = place.open().await;
    let mut writer = ready(&store).await;
    let skipped = |seconds: i64| Change::CursorMoved {
        workflow: name("flow"),
        cursor: at(seconds),
        skipped: Some(Skipped {
            count: 1,
            is_exact: true,
            first: DataInterval::at(at(seconds)),
            last: DataInterval::at(at(seconds)),
        }),
    };
    let mut changes = started(1, 0, 2).to_vec();
    changes.extend([new_run(2, "flow"), new_run(3, "flow"), skipped(40), skipped(200)]);
    writer.commit_changes(&changes).await.unwrap();
    let ends = [
        run_moved(1, RunState::Running, RunState::Failed, 50),
        run_moved(2, RunState::Queued, RunState::Cancelled, 150),
    ];
    writer.commit_changes(&ends).await.unwrap();

    assert_eq!(
        writer.prune(keep_for(100), at(149)).await.unwrap(),
        Pruned::default(),
        "nothing is old enough"
    );
    let seq = writer.seq();
    let pruned = writer.prune(keep_for(100), at(240)).await.unwrap();
    assert_eq!(pruned, Pruned { runs: 1, is_more: false });
    assert_eq!(runs(&store).await, [run_id(3), run_id(2)], "3 is live, 2 ended later");
    assert_eq!(store.run(run_id(1)).await.unwrap(), None);
    assert_eq!(store.attempts(instance(1, 0)).await.unwrap(), []);
    assert_eq!(store.firing_skips(&name("flow"), 10).await.unwrap().len(), 1);
    assert_eq!(writer.seq(), seq + 1, "deletion is a fenced transaction like any other");
    assert_eq!(writer.prune(Retention::default(), at(9_999)).await.unwrap(), Pruned::default());

    lead(&store, "second").await;
    let refusal = writer.prune(keep_for(100), at(9_999)).await.unwrap_err();
    assert!(matches!(refusal, PruneError::Commit(CommitError::Fenced { .. })), "{refusal}");
}

pub(crate) async fn the_newest_runs_of_each_workflow_are_kept(place: Place) {
    let store = place.open().await;
    let mut writer = lead(&store, "first").await;
    let mut changes = vec![applied("a", 1), applied("b", 1)];
    for run in 1..=8 {
        changes.push(new_run(run, if run <= 5 { "a" } else { "b" }));
        if run != 1 {
            changes.push(run_moved(run, RunState::Queued, RunState::Cancelled, 20));
        }
    }
    writer.commit_changes(&changes).await.unwrap();
    let retention = Retention { keep_for: None, keep_runs: Some(2) };
    let mut deleted = 0;
    for _ in 0..10 {
        let pruned = writer.prune(retention, at(0)).await.unwrap();
        deleted += pruned.runs;
        if !pruned.is_more {
            break;
        }
    }
    assert_eq!(deleted, 3);
    let kept: Vec<RunId> = [8, 7, 5, 4, 1].into_iter().map(run_id).collect();
    assert_eq!(runs(&store).await, kept, "1 is live and does not count");
}

pub(crate) async fn deletion_is_bounded_and_goes_on(place: Place) {
    const INSTANCES: u32 = 1_500;
    let store = place.open().await;
    let mut writer = lead(&store, "first").await;
    let mut changes = vec![applied("a", 1)];
    for run in 1..=4 {
        changes.push(new_run(run, "a"));
        for index in 0..INSTANCES {
            changes.push(task_moved(instance(run, index), TaskState::Waiting, TaskState::Skipped, 5));
        }
        changes.push(run_moved(run, RunState::Queued, RunState::Success, 5));
    }
    writer.commit_changes(&changes).await.unwrap();
    let pruned = writer.prune(keep_for(1), at(100)).await.unwrap();
    assert_eq!(pruned, Pruned { runs: 2, is_more: true }, "two runs have more than enough instances");
    assert_eq!(writer.prune(keep_for(1), at(100)).await.unwrap(), Pruned { runs: 2, is_more: false });
    assert!(runs(&store).await.is_empty());
}

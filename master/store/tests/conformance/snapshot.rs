//! What a new leader starts from, and when it does not start.

use millrace_common::state::{RunState, TaskState};
use millrace_store::{LoadProblem, OpenError, Store};

use crate::{
    place::Place,
    sample::{
        applied, instance, lead, machine, name, new_run, ready, run_id, run_moved, started, task_moved,
    },
    upgrade::newest,
};

pub(crate) async fn opening_again_changes_nothing(place: Place) {
    let store = place.open().await;
    let mut writer = ready(&store).await;
    writer.commit_changes(&started(1, 0, 2)).await.unwrap();
    let before = format!("{:?}", store.load().await.unwrap());
    let leadership = store.leadership().await.unwrap();
    store.close().await;
    drop((store, writer));

    for _ in 0..3 {
        let again = place.open().await;
        assert_eq!(format!("{:?}", again.load().await.unwrap()), before);
        assert_eq!(again.leadership().await.unwrap(), leadership);
        again.close().await;
    }
    let store = place.open().await;
    lead(&store, "next").await.commit_changes(&[new_run(2, "flow")]).await.unwrap();
}

pub(crate) async fn older_versions_are_loaded_while_runs_are_pinned_to_them(place: Place) {
    let store = place.open().await;
    let mut writer = ready(&store).await;
    writer.commit_changes(&[applied("flow", 2), applied("flow", 3)]).await.unwrap();
    let versions = async || -> Vec<(u32, bool)> {
        let snapshot = store.load().await.unwrap().snapshot;
        snapshot.workflows.iter().map(|row| (row.version, row.is_latest)).collect()
    };
    assert_eq!(versions().await, [(1, false), (3, true)], "nothing is pinned to version 2");
    let ends = [
        task_moved(instance(1, 0), TaskState::Ready, TaskState::Cancelled, 5),
        run_moved(1, RunState::Running, RunState::Cancelled, 5),
    ];
    writer.commit_changes(&ends).await.unwrap();
    assert_eq!(versions().await, [(3, true)]);
    assert!(store.load().await.unwrap().snapshot.runs.is_empty());
}

pub(crate) async fn a_definition_that_cannot_be_read_quarantines_its_runs(place: Place) {
    let store = place.open().await;
    let mut writer = ready(&store).await;
    writer.commit_changes(&[applied("other", 1), new_run(2, "other")]).await.unwrap();
    place
        .tamper("UPDATE workflow_version SET source = 'nonsense: 1' WHERE workflow = 'flow'".to_owned())
        .await;
    let loaded = store.load().await.unwrap();
    let runs: Vec<_> = loaded.snapshot.runs.iter().map(|row| row.created.run).collect();
    assert_eq!(runs, [run_id(2)], "the others go on");
    let [problem] = loaded.problems.as_slice() else { panic!("{:?}", loaded.problems) };
    let LoadProblem::Definition { workflow, version: 1, is_latest: true, runs, source } = problem else {
        panic!("{problem}")
    };
    assert_eq!((workflow, runs.as_slice()), (&name("flow"), [run_id(1)].as_slice()));
    assert!(!source.problems.is_empty());
    assert!(problem.to_string().starts_with("version 1 of workflow flow cannot be read by this program"));
    let [unreadable] = loaded.snapshot.unreadable.as_slice() else {
        panic!("{:?}", loaded.snapshot.unreadable)
    };
    assert_eq!(
        (&unreadable.workflow, unreadable.version),
        (&name("flow"), 1),
        "the next version has a higher number"
    );
    assert_eq!(loaded.snapshot.quarantined, [run_id(1)]);
}

pub(crate) async fn a_row_that_cannot_be_read_quarantines_its_run(place: Place) {
    let store = place.open().await;
    let mut writer = ready(&store).await;
    let mut changes = vec![new_run(2, "flow"), new_run(3, "flow")];
    changes.extend((2..=3).map(|run| task_moved(instance(run, 0), TaskState::Waiting, TaskState::Ready, 5)));
    writer.commit_changes(&changes).await.unwrap();
    writer.commit_changes(&started(3, 0, 6)).await.unwrap();
    place
        .tamper(
            "UPDATE task_instance SET state = 9 WHERE run_id = (SELECT id FROM run ORDER BY id LIMIT 1)"
                .to_owned(),
        )
        .await;
    place.tamper("UPDATE attempt SET executor = 'No Name'".to_owned()).await;
    let loaded = store.load().await.unwrap();
    let runs: Vec<_> = loaded.snapshot.runs.iter().map(|row| row.created.run).collect();
    assert_eq!(runs, [run_id(2)]);
    let problems: Vec<String> = loaded.problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        problems,
        [
            format!("run {} is quarantined: a row of task_instance cannot be read", run_id(1)),
            format!("run {} is quarantined: a row of attempt cannot be read", run_id(3)),
        ]
    );
    // A live attempt that belongs to nothing is reported as well.
    let nobody = place.bytes("00000000000000000000000000000001");
    place.tamper(format!("UPDATE attempt SET executor = 'plant-1', run_id = {nobody}")).await;
    let loaded = store.load().await.unwrap();
    assert!(matches!(loaded.problems.as_slice(), [LoadProblem::Run { .. }, LoadProblem::Stray { .. }]));
}

pub(crate) async fn a_schema_of_a_newer_program_is_refused(place: Place) {
    place.open().await.close().await;
    let newer = format!(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (9999, 'from the future', TRUE, {}, 1)",
        place.bytes("00")
    );
    place.tamper(newer).await;
    let refusal = Store::open(place.config()).await.unwrap_err();
    let OpenError::NewerSchema { found: 9_999, known } = refusal else { panic!("{refusal}") };
    assert_eq!(known, newest(place.engine));
    assert!(refusal.to_string().contains("run the newer program"));

    place.tamper("DELETE FROM _sqlx_migrations WHERE version = 9999".to_owned()).await;
    place.tamper(format!("UPDATE _sqlx_migrations SET checksum = {}", place.bytes("00"))).await;
    let refusal = Store::open(place.config()).await.unwrap_err();
    assert!(matches!(refusal, OpenError::ForeignSchema { version: 1 }), "{refusal}");
}

pub(crate) async fn live_attempts_of_an_older_schema_are_loaded_without_their_machine(place: Place) {
    let store = place.open().await;
    let mut writer = ready(&store).await;
    writer.commit_changes(&started(1, 0, 2)).await.unwrap();
    let machine_of = async |store: &Store| {
        let snapshot = store.load().await.unwrap().snapshot;
        let live = snapshot.runs[0].tasks[&0].live.as_ref().unwrap();
        live.machine.clone()
    };
    assert_eq!(machine_of(&store).await, machine());
    store.close().await;
    drop((store, writer));

    place.tamper("ALTER TABLE attempt DROP COLUMN machine_id".to_owned()).await;
    place.tamper("DELETE FROM _sqlx_migrations WHERE version = 2".to_owned()).await;
    let store = place.open().await;
    assert_eq!(machine_of(&store).await, None);
}

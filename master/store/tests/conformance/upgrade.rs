//! From one schema to the next, with rows present.

use std::{ffi::OsStr, fs, path::Path};

use millrace_common::state::{AttemptState, RunState, TaskState};
use millrace_store::{OpenError, Store};
use sqlx::migrate::Migrator;

use crate::{
    place::{Engine, Place, Session},
    sample::{attempt, instance, name, new_run, ready, run_id, source, started},
};

fn migrations(engine: Engine) -> &'static Path {
    Path::new(match engine {
        Engine::Sqlite => concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/sqlite"),
        Engine::Postgres => concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/postgres"),
        Engine::MariaDb => concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/mysql"),
    })
}

/// Returns the version of the newest migration.
pub(crate) fn newest(engine: Engine) -> i64 {
    let numbers = fs::read_dir(migrations(engine)).unwrap().map(|file| number_of(&file.unwrap().file_name()));
    numbers.max().unwrap()
}

fn number_of(name: &OsStr) -> i64 {
    name.to_str().unwrap().split('_').next().unwrap().parse().unwrap()
}

/// Makes a folder with the migrations up to a version.
fn up_to(engine: Engine, version: i64) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in fs::read_dir(migrations(engine)).unwrap() {
        let file = file.unwrap();
        if number_of(&file.file_name()) <= version {
            fs::copy(file.path(), folder.path().join(file.file_name())).unwrap();
        }
    }
    folder
}

async fn migrate(place: &Place, folder: &Path) {
    if let millrace_store::Address::Sqlite(file) = &place.config().address {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::File::options().create(true).append(true).open(file).unwrap();
    }
    let migrator = Migrator::new(folder).await.unwrap();
    match place.admin_here().connect().await.unwrap() {
        Session::Sqlite(mut session) => migrator.run(&mut session).await.unwrap(),
        Session::Postgres(mut session) => {
            // As the account of the store, whose tables they are.
            sqlx::query("SET ROLE etl").execute(&mut session).await.unwrap();
            migrator.run(&mut session).await.unwrap();
        }
        Session::MySql(mut session) => migrator.run(&mut session).await.unwrap(),
    }
}

/// The first schema as the first release left it, with a row in every table.
pub(crate) async fn a_populated_database_is_upgraded(place: Place) {
    migrate(&place, up_to(place.engine, 1).path()).await;
    let id =
        |number: u8| place.bytes(&uuid::Uuid::from_bytes(*run_id(number).as_bytes()).simple().to_string());
    let source = source("flow", 2);
    let rows = [
        "UPDATE leadership SET term = 7, seq = 9, holder = 'old'".to_owned(),
        "INSERT INTO workflow (name, version, cursor_at) VALUES ('flow', 1, 5)".to_owned(),
        format!(
            "INSERT INTO workflow_version (workflow, version, applied_at, task_names, source) \
             VALUES ('flow', 1, 1, '[\"t0\",\"t1\"]', '{source}')"
        ),
        "INSERT INTO firing_skip (workflow, term, seq, position, skipped, is_exact, first_start, first_end, last_start, \
         last_end) VALUES ('flow', 7, 1, 0, 2, 1, 1, 2, 3, 4)"
            .to_owned(),
        format!(
            "INSERT INTO run (id, workflow, version, trigger_code, interval_start, interval_end, params, \
             idempotency_key, created_at, state) VALUES ({}, 'flow', 1, 1, 1, 2, '{{}}', 'key', 1, {})",
            id(1),
            RunState::Running.code()
        ),
        format!(
            "INSERT INTO task_instance (run_id, instance_index, state, moved_at, attempts, failures, losses, rejections) \
             VALUES ({}, 0, {}, 3, 1, 0, 0, 0)",
            id(1),
            TaskState::Active.code()
        ),
        format!(
            "INSERT INTO attempt (run_id, instance_index, attempt_number, state, executor, spool_id, assigned_at, \
             assigned_term, assigned_seq, moved_at) VALUES ({}, 0, 1, {}, 'plant-1', {}, 3, 7, 8, 3)",
            id(1),
            AttemptState::Running.code(),
            id(9)
        ),
    ];
    for row in rows {
        place.tamper(row).await;
    }

    let store = place.open().await;
    let leadership = store.leadership().await.unwrap();
    assert_eq!((leadership.term.0, leadership.seq, &*leadership.holder), (7, 9, "old"));
    let loaded = store.load().await.unwrap();
    assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
    let task = &loaded.snapshot.runs[0].tasks[&0];
    assert_eq!(task.live.as_ref().map(|live| live.state), Some(AttemptState::Running));
    assert_eq!(store.firing_skips(&name("flow"), 10).await.unwrap().len(), 1);
    assert_eq!(store.run_by_key(&name("flow"), "key").await.unwrap(), Some(run_id(1)));
    assert_eq!(store.attempts(instance(1, 0)).await.unwrap()[0].attempt, attempt(1, 0, 1));
    let generation = store.generation().await.unwrap();
    assert_eq!((generation.number, generation.service), (0, None), "what the second schema brought is there");
    assert_eq!(store.settings().await.unwrap(), [], "and the fourth");
    let mut writer = store.claim(millrace_common::term::Term(8), "new").await.unwrap();
    writer.commit_changes(&[new_run(2, "flow")]).await.unwrap();
}

/// Today's schema, with rows in it, is brought to one that this program does not know: the rows stay, the program does not
/// start.
pub(crate) async fn a_database_of_a_newer_schema_keeps_its_rows_and_is_refused(place: Place) {
    let store = place.open().await;
    let mut writer = ready(&store).await;
    writer.commit_changes(&started(1, 0, 2)).await.unwrap();
    store.close().await;
    drop((store, writer));
    let folder = up_to(place.engine, i64::MAX);
    fs::write(
        folder.path().join("9000_more.sql"),
        "ALTER TABLE run ADD COLUMN priority BIGINT NOT NULL DEFAULT 5;\n\
         ALTER TABLE attempt ADD COLUMN note VARCHAR(191);\n",
    )
    .unwrap();
    migrate(&place, folder.path()).await;
    assert_eq!(place.number("SELECT priority FROM run").await, 5);
    assert_eq!(place.number("SELECT COUNT(*) FROM attempt WHERE note IS NULL").await, 1);
    let refusal = Store::open(place.config()).await.unwrap_err();
    assert!(matches!(refusal, OpenError::NewerSchema { found: 9_000, .. }), "{refusal}");
}

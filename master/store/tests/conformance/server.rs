//! What belongs to databases on a server alone.

use millrace_common::{
    interval::DataInterval,
    state::{AttemptState, TaskState},
    term::Term,
};
use millrace_core::{Change, RunCreated};
use millrace_store::{Address, OpenError, Store};

use crate::{
    place::{Engine, Place, on_server},
    sample::{
        assigned, at, attempt, attempt_moved, created, end, ended, instance, new_run, ready, run_id,
        task_moved,
    },
};

/// The servers of these cases sync nothing to the disk, and say so.
pub(crate) async fn settings_that_can_lose_commits_are_named(place: Place) {
    let store = place.open().await;
    let warnings: Vec<String> = store.warnings().iter().map(ToString::to_string).collect();
    let (named, safe): (&str, &[&str]) = match place.engine {
        Engine::MariaDb => (
            "innodb_flush_log_at_trx_commit is 2: a crash of its machine loses the last transactions although they were \
             acknowledged; set innodb_flush_log_at_trx_commit = 1 in the configuration of MariaDB",
            &[
                "--innodb-flush-log-at-trx-commit=1",
                "--log-bin=log",
                "--binlog-format=ROW",
                "--sync-binlog=0",
            ],
        ),
        Engine::Sqlite | Engine::Postgres => (
            "fsync is off: a crash of its machine can damage the database or lose what was committed; set fsync = on in \
             the configuration of PostgreSQL",
            &["-c", "fsync=on", "-c", "synchronous_commit=local"],
        ),
    };
    assert_eq!(warnings, [named]);

    let Some(place) = on_server(place.engine, safe) else { return };
    let store = place.open().await;
    let settings: Vec<&str> = store.warnings().iter().map(|warning| warning.setting).collect();
    let expected = if place.engine == Engine::MariaDb { "sync_binlog" } else { "synchronous_commit" };
    assert_eq!(settings, [expected], "the other one is as it should be");
    // A binary log by rows does not get in the way.
    ready(&store).await;
}

pub(crate) async fn a_server_that_is_not_there_is_named(place: Place) {
    place.tamper("SELECT 1".to_owned()).await;
    (place.vanish())();
    let refusal = Store::open(place.config()).await.unwrap_err();
    assert!(matches!(refusal, OpenError::Server { .. }), "{refusal:?}");
    let (Address::Postgres(server) | Address::MySql(server)) = &place.config().address else {
        panic!("a server")
    };
    let socket = server.socket.as_ref().unwrap().display();
    assert_eq!(refusal.to_string(), format!("database millrace at {socket} cannot be opened"));
    assert!(!format!("{refusal:?}").contains(server.password.expose()));
}

/// Quotes, line breaks, characters beyond 16 bits, and the one character that PostgreSQL cannot store.
pub(crate) async fn text_of_any_kind_is_kept_as_it_is(place: Place) {
    let store = place.open().await;
    let mut writer = ready(&store).await;
    let text = "'\"\\`\t\r\n\u{1}\u{7f}\u{2028} ä 漢 😀 \\u0000 ${x} ?";
    let params: std::sync::Arc<str> =
        serde_json::to_string(&serde_json::json!({ "text": text })).unwrap().into();
    let run = RunCreated {
        run: run_id(2),
        params: params.clone(),
        // Keys that differ by a space at their end, or by case, are different keys.
        idempotency_key: Some(text.into()),
        interval: DataInterval::at(at(2)),
        ..created(2, "flow")
    };
    let keys = ["k", "k ", "K"];
    let mut changes = vec![Change::RunCreated(Box::new(run))];
    changes.extend((3..).zip(keys).map(|(number, key)| {
        Change::RunCreated(Box::new(RunCreated {
            idempotency_key: Some(key.into()),
            ..created(number, "flow")
        }))
    }));
    let reason: std::sync::Arc<str> = "before\0after".into();
    changes.push(Change::RunEnding {
        run: run_id(2),
        to: millrace_common::state::RunState::Cancelled,
        reason,
    });
    writer.commit_changes(&changes).await.unwrap();
    let detail = store.run(run_id(2)).await.unwrap().unwrap();
    assert_eq!((detail.created.params, detail.created.idempotency_key.as_deref()), (params, Some(text)));
    let reason = detail.ending.unwrap().1;
    match place.engine {
        Engine::Postgres => assert_eq!(&*reason, "before\u{fffd}after"),
        Engine::Sqlite | Engine::MariaDb => assert_eq!(&*reason, "before\0after"),
    }
    let flow = crate::sample::name("flow");
    for (number, key) in (3..).zip(keys) {
        assert_eq!(store.run_by_key(&flow, key).await.unwrap(), Some(run_id(number)), "{key:?}");
    }
    assert_eq!(store.run_by_key(&flow, text).await.unwrap(), Some(run_id(2)));
}

/// A statement that reads a whole table works in every case here and stops the cluster at a million rows. The rows that
/// the server had to read to change one of many tell.
pub(crate) async fn no_statement_reads_a_whole_table(place: Place) {
    const TASKS: u32 = 2_000;
    let store = place.open().await;
    let mut writer = ready(&store).await;
    let mut changes = vec![new_run(2, "flow")];
    changes.extend(
        (0..TASKS).map(|index| task_moved(instance(2, index), TaskState::Waiting, TaskState::Ready, 2)),
    );
    writer.commit_changes(&changes).await.unwrap();
    let placed = (0..TASKS).map(|index| assigned(attempt(2, index, 1), 3));
    writer.commit_changes(&placed.collect::<Vec<_>>()).await.unwrap();
    let reads = match place.engine {
        // Rows that were read by going through tables.
        Engine::Postgres => {
            "SELECT SUM(seq_tup_read)::bigint FROM pg_stat_user_tables WHERE relname <> 'leadership'"
        }
        Engine::Sqlite | Engine::MariaDb => {
            place.tamper("SET GLOBAL userstat = 1".to_owned()).await;
            "SELECT CAST(COALESCE(SUM(ROWS_READ), 0) AS SIGNED) FROM information_schema.TABLE_STATISTICS \
             WHERE TABLE_SCHEMA = DATABASE()"
        }
    };
    drop((store, writer));
    let before = settled(&place, reads).await;
    let store = place.open().await;
    let mut writer = store.claim(Term(2), "second").await.unwrap();
    for index in 0..20 {
        let id = attempt(2, index, 1);
        let moved = attempt_moved(id, AttemptState::Assigned, AttemptState::Running, 4);
        writer.commit_changes(&[moved]).await.unwrap();
        let end = ended(id, AttemptState::Running, end(AttemptState::Succeeded, 5));
        let moved = task_moved(id.instance, TaskState::Ready, TaskState::Success, 5);
        writer.commit_changes(&[end, moved]).await.unwrap();
    }
    drop((store, writer));
    let read = settled(&place, reads).await - before;
    assert!(read < i64::from(TASKS), "{read} rows were read to change 60");
}

/// PostgreSQL counts what a session has done when that ends.
async fn settled(place: &Place, sql: &str) -> i64 {
    const LEADERS: &str = "SELECT COUNT(*) FROM pg_stat_activity WHERE application_name LIKE 'millrace-%'";
    if place.engine == Engine::Postgres {
        for _ in 0..1_000 {
            if place.number(LEADERS).await == 0 {
                return place.number(sql).await;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("the sessions of the store do not end");
    }
    place.number(sql).await
}

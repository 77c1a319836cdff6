//! What can happen between a leader and its server: other leaders, other transactions, breaks at the worst moment.

use std::{
    sync::{Arc, Mutex, mpsc::sync_channel},
    thread,
};

use millrace_common::{
    state::{RunState, TaskState},
    term::Term,
};
use millrace_store::{CommitError, Store, StoreConfig, Writer};

use crate::{
    place::{Engine, Place, apart},
    proxy::{Break, Proxy},
    sample::{FIRST, applied, instance, new_run, ready, run_moved, task_moved},
};

/// Another master, with a runtime of its own, claims a term. Its writer is gone at once.
fn claim_elsewhere(config: StoreConfig, term: u64) {
    apart(move || async move {
        let other = Store::open(&config).await.unwrap();
        other.claim(Term(term), "second").await.unwrap();
    });
}

/// Goes on with a batch until it is durable, as a leader does while its authority lasts.
async fn until_durable(writer: &mut Writer, first: Result<u64, CommitError>) -> u64 {
    let mut result = first;
    for _ in 0..100 {
        match result {
            Ok(seq) => return seq,
            Err(error) => assert!(!error.ends_term(), "{error:?}"),
        }
        result = writer.retry().await.map(|committed| committed.seq);
    }
    panic!("the database does not come back")
}

/// A claim commits between the fence of an old leader and its changes: nothing of these may come after it. With a fence
/// that only looks, the claim would not wait, and both would commit.
pub(crate) async fn a_deposed_leader_writes_nothing_between_its_statements(place: Place) {
    let store = place.open().await;
    let mut writer = ready(&store).await;
    let config = place.config().clone();
    writer.pause_after_fence(move || claim_elsewhere(config, 2));
    let refusal = writer.commit_changes(&[new_run(2, "flow")]).await.unwrap_err();
    assert!(
        matches!(refusal, CommitError::Fenced { mine: FIRST, found: Term(2), found_seq: 0 }),
        "{refusal:?}"
    );
    assert_eq!(store.load().await.unwrap().snapshot.runs.len(), 1, "nothing came after the claim");
}

/// The form that is not used, to show that the case above can fail.
pub(crate) async fn a_plain_look_at_the_term_would_let_a_deposed_leader_write(place: Place) {
    let store = place.open().await;
    drop(ready(&store).await);
    let mut old = place.admin_here().connect().await.unwrap();
    old.run("START TRANSACTION").await.unwrap();
    let term = old.run("SELECT term FROM leadership WHERE id = 1 AND term = 1").await.unwrap();
    assert_eq!(term, Some(1), "the old leader believes that it leads");
    claim_elsewhere(place.config().clone(), 2);
    old.run("INSERT INTO workflow (name, version) VALUES ('late', 1)").await.unwrap();
    old.run("COMMIT").await.unwrap();
    assert_eq!(place.number("SELECT COUNT(*) FROM workflow WHERE name = 'late'").await, 1);
    assert_eq!(store.stored_term().await.unwrap(), Term(2), "and it wrote after the claim");
}

/// The old leader is frozen in the middle of its transaction: the claim waits for a lock as long as the server does, ends
/// the old connection, and goes on.
pub(crate) async fn a_transaction_that_holds_the_fence_is_ended_by_the_claim(place: Place) {
    let store = place.open().await;
    let (go_on, may_go_on) = sync_channel::<()>(1);
    let (held, is_held) = sync_channel(1);
    let (config, may_go_on) = (place.config().clone(), Mutex::new(may_go_on));
    let old = thread::spawn(move || {
        apart(move || async move {
            let mut frozen = ready(&Store::open(&config).await.unwrap()).await;
            frozen.pause_after_fence(move || {
                held.send(()).unwrap();
                // Sent, or dropped by a case that has failed.
                let _ = may_go_on.lock().unwrap().recv();
            });
            frozen.commit_changes(&[new_run(2, "flow")]).await.unwrap_err()
        })
    });
    is_held.recv().unwrap();
    let _second = store.claim(Term(2), "second").await.unwrap();
    assert_eq!(store.load().await.unwrap().snapshot.runs.len(), 1);
    go_on.send(()).unwrap();
    let refusal = old.join().unwrap();
    assert!(matches!(refusal, CommitError::Fenced { mine: FIRST, found: Term(2), .. }), "{refusal:?}");
    assert_eq!(store.load().await.unwrap().snapshot.runs.len(), 1, "nothing came after the claim");
}

async fn broken(place: &Place, how: Break) -> (Proxy, Store, Writer) {
    let proxy = Proxy::start(place.socket());
    let store = Store::open(&place.through(proxy.port)).await.unwrap();
    let writer = ready(&store).await;
    proxy.break_next(how);
    (proxy, store, writer)
}

/// A change that fails when it is made twice: the instance is not ready any more.
fn once() -> millrace_core::Change {
    task_moved(instance(1, 0), TaskState::Ready, TaskState::Success, 5)
}

pub(crate) async fn a_commit_that_never_arrived_is_sent_again(place: Place) {
    let (proxy, store, mut writer) = broken(&place, Break::Before).await;
    assert_eq!(writer.commit_changes(&[once()]).await.unwrap(), 2);
    assert!(proxy.has_broken());
    assert_eq!(store.leadership().await.unwrap().seq, 2);
    assert_eq!(writer.commit_changes(&[new_run(3, "flow")]).await.unwrap(), 3, "the writer goes on");
}

pub(crate) async fn a_commit_whose_answer_was_cut_off_is_not_sent_again(place: Place) {
    let (proxy, store, mut writer) = broken(&place, Break::After).await;
    assert_eq!(writer.commit_changes(&[once()]).await.unwrap(), 2);
    assert!(proxy.has_broken());
    assert_eq!(store.leadership().await.unwrap().seq, 2);
    assert_eq!(writer.commit_changes(&[new_run(3, "flow")]).await.unwrap(), 3, "the writer goes on");
}

/// COMMIT disappears, nothing answers, and the server believes that the connection is well: the writer gives it up, and
/// the transaction that still holds the fence is ended by the one that comes after it.
pub(crate) async fn a_server_that_falls_silent_is_given_up(place: Place) {
    let (proxy, store, mut writer) = broken(&place, Break::Silence).await;
    let first = writer.commit_changes(&[once()]).await;
    assert_eq!(until_durable(&mut writer, first).await, 2);
    assert!(proxy.has_broken());
    assert_eq!(store.leadership().await.unwrap().seq, 2);
}

/// Another session locks a row that the leader is about to change, then waits for the fence that the leader holds.
pub(crate) async fn a_deadlock_is_tried_again(place: Place) {
    if place.engine == Engine::Postgres {
        // Before the wait for a lock ends by itself.
        place.tamper("ALTER ROLE etl SET deadlock_timeout = '100ms'".to_owned()).await;
    }
    let store = place.open().await;
    let mut writer = ready(&store).await;
    let mut more: Vec<_> = (2..200).map(|run| new_run(run, "flow")).collect();
    more.push(applied("heavy", 1));
    writer.commit_changes(&more).await.unwrap();
    let (admin, engine) = (place.admin_here(), place.engine);
    let (ready, is_ready) = sync_channel(1);
    let (sent, is_sent) = sync_channel(1);
    let (advance, may_advance) = sync_channel::<()>(1);
    let is_sent = Mutex::new(is_sent);
    let session = thread::spawn(move || {
        apart(move || async move {
            let mut other = admin.connect().await.unwrap();
            if engine == Engine::Postgres {
                // Whoever looks first finds the deadlock and is its victim: the leader, who looks soon.
                other.run("SET deadlock_timeout = '60s'").await.unwrap();
            }
            other.run("START TRANSACTION").await.unwrap();
            // On MariaDB the victim is who has changed less.
            other.run("UPDATE run SET reason = 'heavy'").await.unwrap();
            ready.send(()).unwrap();
            may_advance.recv().unwrap();
            sent.send(()).unwrap();
            let waited = other.run("UPDATE leadership SET holder = holder WHERE id = 1").await;
            waited.expect("the leader was the victim, not this");
            other.run("ROLLBACK").await.unwrap();
        });
    });
    is_ready.recv().unwrap();
    writer.pause_after_fence(move || {
        advance.send(()).unwrap();
        is_sent.lock().unwrap().recv().unwrap();
    });
    let seq = writer.commit_changes(&[run_moved(1, RunState::Running, RunState::Paused, 9)]).await.unwrap();
    assert_eq!(seq, 3);
    session.join().unwrap();
    assert_eq!(store.leadership().await.unwrap().seq, 3, "what was undone left no number behind");
}

/// The server is killed in the middle of commits and starts again: all that was answered is there, each once, and the
/// numbers have no gap.
pub(crate) async fn a_killed_server_loses_nothing_that_was_acknowledged(place: Place) {
    const RUNS: u8 = 60;
    const KILLS: u8 = 3;
    let place = Arc::new(place);
    let store = place.open().await;
    let mut writer = ready(&store).await;
    let (kill, kills) = sync_channel::<()>(1);
    let (killed, is_killed) = sync_channel::<()>(KILLS.into());
    let around = Arc::clone(&place);
    // It lives as long as the case: a server ends with the thread that started it.
    let killer = thread::spawn(move || {
        while let Ok(()) = kills.recv() {
            (around.vanish())();
            around.reappear();
            killed.send(()).unwrap();
        }
    });
    for number in 2..RUNS + 2 {
        if number % (RUNS / KILLS) == 5 {
            // From here on the two race.
            kill.send(()).unwrap();
        }
        let first = writer.commit_changes(&[new_run(number, "flow")]).await;
        assert_eq!(until_durable(&mut writer, first).await, u64::from(number));
    }
    (0..KILLS).for_each(|_| is_killed.recv().unwrap());
    let first = writer.commit_changes(&[new_run(RUNS + 2, "flow")]).await;
    assert_eq!(until_durable(&mut writer, first).await, u64::from(RUNS) + 2);
    assert_eq!(store.load().await.unwrap().snapshot.runs.len(), usize::from(RUNS) + 2);
    assert_eq!(place.number("SELECT seq FROM leadership WHERE id = 1").await, i64::from(RUNS) + 2);
    drop(kill);
    killer.join().unwrap();
}

/// A batch that was decided during an outage is kept, and committed when the server is back.
pub(crate) async fn a_batch_survives_an_outage(place: Place) {
    let store = place.open().await;
    let mut writer = ready(&store).await;
    (place.vanish())();
    let refusal = writer.commit_changes(&[new_run(2, "flow")]).await.unwrap_err();
    assert!(matches!(refusal, CommitError::Unavailable { term: FIRST, seq: 2, .. }), "{refusal:?}");
    assert!(!refusal.ends_term() && !refusal.is_fenced());
    let refusal = writer.retry().await.unwrap_err();
    assert!(!refusal.ends_term(), "{refusal:?}");
    assert!(store.load().await.is_err(), "nobody can read meanwhile");
    place.reappear();
    assert_eq!(writer.retry().await.unwrap().seq, 2);
    assert_eq!(writer.retry().await.unwrap().seq, 2, "nothing is left to go on with");
    assert_eq!(store.load().await.unwrap().snapshot.runs.len(), 2, "pages are read again as well");
    assert_eq!(store.leadership().await.unwrap().seq, 2);
}

/// The server says that its disk is full, as it does when a table cannot grow: the batch is kept until there is room.
pub(crate) async fn a_batch_survives_a_full_disk(place: Place) {
    let store = place.open().await;
    let mut writer = ready(&store).await;
    let (fill, make_room): (&[&str], &str) = match place.engine {
        Engine::Postgres => (
            &[
                "CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS \
                 $$ BEGIN RAISE EXCEPTION 'no space left on device' USING ERRCODE = '53100'; END $$",
                "CREATE TRIGGER full_disk BEFORE INSERT ON run EXECUTE FUNCTION fill()",
            ],
            "DROP TRIGGER full_disk ON run",
        ),
        Engine::Sqlite | Engine::MariaDb => (
            &["CREATE TRIGGER full_disk BEFORE INSERT ON run FOR EACH ROW \
               SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1114, MESSAGE_TEXT = 'The table is full'"],
            "DROP TRIGGER full_disk",
        ),
    };
    for sql in fill {
        place.tamper((*sql).to_owned()).await;
    }
    let refusal = writer.commit_changes(&[new_run(2, "flow")]).await.unwrap_err();
    assert!(matches!(refusal, CommitError::DiskFull(_)), "{refusal:?}");
    assert!(!refusal.ends_term() && !refusal.is_fenced());
    let refusal = writer.retry().await.unwrap_err();
    assert!(matches!(refusal, CommitError::DiskFull(_)), "{refusal:?}");
    assert_eq!(store.leadership().await.unwrap().seq, 1, "nothing was written");
    place.tamper(make_room.to_owned()).await;
    assert_eq!(writer.retry().await.unwrap().seq, 2);
    assert_eq!(store.load().await.unwrap().snapshot.runs.len(), 2);
    assert_eq!(writer.commit_changes(&[new_run(3, "flow")]).await.unwrap(), 3, "the writer goes on");
}

/// After a fail-over of the database what was committed last may be missing: the next leader loads what is there.
pub(crate) async fn another_system_in_the_place_of_the_first_ends_the_term(place: Place) {
    let store = place.open().await;
    let mut writer = ready(&store).await;
    place.replace();
    let mut result = writer.commit_changes(&[new_run(2, "flow")]).await;
    for _ in 0..100 {
        // What was a standby may take a moment to take writes.
        if !result.as_ref().is_err_and(|error| !error.ends_term()) {
            break;
        }
        result = writer.retry().await.map(|committed| committed.seq);
    }
    let refusal = result.unwrap_err();
    assert!(matches!(refusal, CommitError::Moved { term: FIRST, .. }), "{refusal:?}");
    let mut next = store.claim(Term(2), "second").await.unwrap();
    assert_eq!(store.load().await.unwrap().snapshot.runs.len(), 1);
    assert_eq!(next.commit_changes(&[new_run(2, "flow")]).await.unwrap(), 1);
}

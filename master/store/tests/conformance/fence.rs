//! Who may write, and what became of a write whose answer was lost.

use std::sync::Arc;

use futures_util::poll;
use millrace_common::{
    state::{RunState, TaskState},
    term::Term,
    time::Now,
};
use millrace_core::{Input, Limits, Request, RequestId, Scheduler, Snapshot};
use millrace_store::{ClaimError, CommitError, Store, testing::Fault};

use crate::{
    place::Place,
    sample::{FIRST, at, instance, lead, new_run, ready, run_moved, task_moved},
};

pub(crate) async fn claims_have_rising_terms(place: Place) {
    let store = place.open().await;
    assert_eq!(store.stored_term().await.unwrap(), Term(0));
    store.claim(Term(7), "first").await.unwrap();
    for stale in [Term(7), Term(3)] {
        let refusal = store.claim(stale, "second").await.unwrap_err();
        let ClaimError::Superseded { asked, stored, holder } = refusal else { panic!("{refusal}") };
        assert_eq!((asked, stored, &*holder), (stale, Term(7), "first"));
    }
    store.claim(Term(8), "second").await.unwrap();
    let row = store.leadership().await.unwrap();
    assert_eq!((row.term, row.seq, &*row.holder), (Term(8), 0, "second"));
    assert!(matches!(store.claim(Term(0), "third").await, Err(ClaimError::OutOfRange(Term(0)))));
    assert!(matches!(store.claim(Term(u64::MAX), "third").await, Err(ClaimError::OutOfRange(_))));
    assert!(matches!(store.claim(Term(9), &"x".repeat(192)).await, Err(ClaimError::Holder(192))));
}

pub(crate) async fn an_old_leader_cannot_write_after_a_claim(place: Place) {
    let (old_store, new_store) = (place.open().await, place.open().await);
    let mut old = ready(&old_store).await;
    let mut new = lead(&new_store, "second").await;

    let refusal = old.commit_changes(&[new_run(2, "flow")]).await.unwrap_err();
    assert!(refusal.is_fenced() && refusal.ends_term(), "{refusal}");
    let CommitError::Fenced { mine, found, .. } = refusal else { panic!("{refusal}") };
    assert_eq!((mine, found), (FIRST, Term(2)));
    assert!(matches!(old.commit_changes(&[new_run(2, "flow")]).await, Err(CommitError::Closed(FIRST))));

    assert_eq!(new.commit_changes(&[new_run(3, "flow")]).await.unwrap(), 1);
    let loaded = new_store.load().await.unwrap();
    assert_eq!(loaded.snapshot.runs.len(), 2, "the run of the old leader is not there");
}

pub(crate) async fn a_batch_of_another_term_is_refused(place: Place) {
    let store = place.open().await;
    let mut writer = store.claim(Term(5), "first").await.unwrap();
    let now = Now { wall: at(0), ..Now::default() };
    let mut core =
        Scheduler::restore(Term(4), Snapshot::default(), Limits::default(), now).unwrap().scheduler;
    let definition = crate::sample::source("flow", 1);
    let workflow = Arc::new(millrace_common::definition::parse(&definition).unwrap());
    let request = Request::ApplyWorkflow { workflow, source: definition.into() };
    core.handle(now, Input::Requested(RequestId(1), request));
    let refusal = writer.commit(core.take_batch().unwrap()).await.unwrap_err();
    assert!(matches!(refusal, CommitError::WrongTerm { batch: Term(4), writer: Term(5) }), "{refusal}");
}

pub(crate) async fn a_commit_that_was_lost_is_sent_again(place: Place) {
    let store = place.open().await;
    let mut writer = ready(&store).await;
    writer.inject(Fault::before_commit());
    assert_eq!(writer.commit_changes(&[new_run(2, "flow")]).await.unwrap(), 2);
    assert_eq!(store.leadership().await.unwrap().seq, 2);
    assert_eq!(store.load().await.unwrap().snapshot.runs.len(), 2);
    assert_eq!(writer.commit_changes(&[new_run(3, "flow")]).await.unwrap(), 3, "the writer goes on");
}

pub(crate) async fn a_commit_whose_answer_was_lost_is_not_sent_again(place: Place) {
    let store = place.open().await;
    let mut writer = ready(&store).await;
    writer.inject(Fault::after_commit());
    // Sent twice, this would fail: the instance is not ready any more.
    let change = task_moved(instance(1, 0), TaskState::Ready, TaskState::Success, 5);
    assert_eq!(writer.commit_changes(&[change]).await.unwrap(), 2);
    assert_eq!(store.leadership().await.unwrap().seq, 2);
    assert_eq!(writer.commit_changes(&[new_run(3, "flow")]).await.unwrap(), 3, "the writer goes on");
}

pub(crate) async fn a_commit_that_cannot_be_settled_is_unknown(place: Place) {
    let store = place.open().await;
    let mut writer = ready(&store).await;
    writer.inject(Fault::after_commit().with(place.vanish()));
    let refusal = writer.commit_changes(&[new_run(2, "flow")]).await.unwrap_err();
    assert!(matches!(refusal, CommitError::Unknown { term: FIRST, seq: 2, .. }), "{refusal}");
    assert!(!refusal.ends_term(), "the database may come back");
    let refusal = writer.commit_changes(&[new_run(3, "flow")]).await.unwrap_err();
    assert!(matches!(refusal, CommitError::Unsettled(FIRST)), "{refusal}");
    place.reappear();
    assert_eq!(writer.retry().await.unwrap().seq, 2, "it was committed, and is not sent again");
    assert_eq!(writer.commit_changes(&[new_run(3, "flow")]).await.unwrap(), 3);
    assert_eq!(store.load().await.unwrap().snapshot.runs.len(), 3);
}

pub(crate) async fn a_leader_deposed_during_commit_learns_it(place: Place) {
    let store = place.open().await;
    let mut writer = ready(&store).await;
    let config = place.config().clone();
    writer.inject(Fault::before_commit().with(move || {
        // Another master, with a runtime of its own.
        let claim = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let other = Store::open(&config).await.unwrap();
                other.claim(Term(2), "second").await.unwrap();
            });
        });
        claim.join().unwrap();
    }));
    let refusal = writer.commit_changes(&[new_run(2, "flow")]).await.unwrap_err();
    assert!(
        matches!(refusal, CommitError::Fenced { mine: FIRST, found: Term(2), found_seq: 0 }),
        "{refusal}"
    );
    assert_eq!(store.load().await.unwrap().snapshot.runs.len(), 1, "nothing was written");
}

pub(crate) async fn a_lost_answer_to_a_claim_is_settled(place: Place) {
    let store = place.open().await;
    store.inject(Fault::after_commit()).await;
    let mut writer = store.claim(Term(1), "first").await.unwrap();
    assert_eq!(writer.commit_changes(&[crate::sample::applied("flow", 1)]).await.unwrap(), 1);

    store.inject(Fault::before_commit()).await;
    let refusal = store.claim(Term(2), "second").await.unwrap_err();
    assert!(matches!(refusal, ClaimError::Database { term: Term(2), .. }), "{refusal}");
    assert_eq!(store.stored_term().await.unwrap(), Term(1));

    store.inject(Fault::after_commit().with(place.vanish())).await;
    let refusal = store.claim(Term(2), "second").await.unwrap_err();
    assert!(matches!(refusal, ClaimError::Unknown { term: Term(2), .. }), "{refusal}");
}

pub(crate) async fn a_dropped_commit_closes_the_writer(place: Place) {
    let store = place.open().await;
    let mut writer = ready(&store).await;
    let changes = [new_run(2, "flow")];
    // Somebody holds the fence, so that the commit is certain to be on its way when it is dropped.
    let mut other = place.admin_here().connect().await.unwrap();
    other.run("BEGIN").await.unwrap();
    other.run("UPDATE leadership SET holder = holder WHERE id = 1").await.unwrap();
    {
        let mut commit = Box::pin(writer.commit_changes(&changes));
        assert!(poll!(&mut commit).is_pending(), "a commit waits for the fence");
    }
    other.run("ROLLBACK").await.unwrap();
    other.close().await.unwrap();
    let refusal = writer.commit_changes(&[new_run(3, "flow")]).await.unwrap_err();
    assert!(matches!(refusal, CommitError::Closed(FIRST)), "{refusal}");
    // The next leader finds a store that can be written to.
    let mut next = lead(&store, "second").await;
    next.commit_changes(&[new_run(4, "flow")]).await.unwrap();
}

pub(crate) async fn transactions_are_numbered_without_gaps(place: Place) {
    let store = place.open().await;
    let mut writer = ready(&store).await;
    for seq in 2..6_u8 {
        assert_eq!(
            writer.commit_changes(&[]).await.unwrap(),
            u64::from(seq) - 1,
            "no changes, no transaction"
        );
        assert_eq!(writer.commit_changes(&[new_run(seq, "flow")]).await.unwrap(), u64::from(seq));
        assert_eq!(writer.seq(), u64::from(seq));
    }
    writer.commit_changes(&[run_moved(1, RunState::Paused, RunState::Running, 9)]).await.unwrap_err();
    assert_eq!(store.leadership().await.unwrap().seq, 5, "a batch that fails leaves no number behind");
}

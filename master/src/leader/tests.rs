use std::sync::atomic::{AtomicU32, Ordering};

use millrace_common::time::{Now, Timestamp, Uptime};
use millrace_core::{Answer, Limits, Request, Restored, lease::Lease};
use millrace_store::{Retention, Store, StoreConfig};

use super::*;

/// A clock that breaks after so many readings, as a broken invariant would break the term.
struct Breaking(AtomicU32);

impl Clock for Breaking {
    fn now(&self) -> Now {
        let left = self.0.load(Ordering::Relaxed);
        assert!(left > 0, "the clock of this test has stopped");
        self.0.store(left - 1, Ordering::Relaxed);
        Now {
            wall: Timestamp::from_micros(1_700_000_000_000_000),
            uptime: Uptime::new(Duration::from_secs(9)),
        }
    }
}

async fn parts(folder: &tempfile::TempDir, readings: u32) -> (TermParts, Handle) {
    let store = Store::open(&StoreConfig::sqlite(&folder.path().join("m.db"))).await.unwrap();
    let term = store.stored_term().await.unwrap().next();
    let writer = store.claim(term, "test").await.unwrap();
    let clock = Breaking(readings.into());
    let now = Now::default();
    let snapshot = store.load().await.unwrap().snapshot;
    let Restored { scheduler, .. } = Scheduler::restore(term, snapshot, Limits::default(), now).unwrap();
    let (handle, inbox) = inbox::open();
    let feed = Feed::new();
    let pruner = Pruner::new(Retention::default(), now);
    let authority = Authority::unlimited();
    let (condition, (_, fleet)) = (Condition::default(), crate::fleet::open("test"));
    let clock = Arc::new(clock);
    (TermParts { scheduler, writer, authority, inbox, feed, clock, pruner, condition, fleet }, handle)
}

/// A clock that is one second later at each reading.
#[derive(Default)]
struct Running(AtomicU32);

impl Clock for Running {
    fn now(&self) -> Now {
        let seconds = self.0.fetch_add(1, Ordering::Relaxed);
        Now {
            wall: Timestamp::from_micros(1_700_000_000_000_000),
            uptime: Uptime::new(Duration::from_secs(seconds.into())),
        }
    }
}

/// Readings of the clock in one round of a term, of which the last is compared right before the answer.
const READINGS: u64 = 4;

/// Whatever the moment at which authority ends, nothing is said after it, though it may have been done.
#[tokio::test]
async fn nothing_is_answered_after_the_authority_is_over() {
    let mut answered_at_all = 0;
    for bound in 1..12 {
        let folder = tempfile::tempdir().unwrap();
        let (parts, handle) = parts(&folder, u32::MAX).await;
        let authority = Authority::leased(Lease::granted(Uptime::default(), Duration::from_secs(bound)));
        let clock = Arc::new(Running::default());
        let parts = TermParts { clock, authority: authority.clone(), ..parts };
        let asked = async {
            let mut answered = 0;
            while handle.request(Request::CountWork).await.is_ok() {
                answered += 1;
            }
            answered
        };
        let (end, answered) = tokio::join!(run_term(parts, CancellationToken::new()), asked);
        assert!(matches!(end, TermEnd::AuthorityOver(AuthorityEnd::Expired)), "{end:?}");
        assert!(authority.over().now_or_never().is_some(), "everybody is told");
        assert!(answered <= bound / READINGS, "{answered} answers in {bound} readings");
        answered_at_all += answered;
    }
    assert!(answered_at_all > 0, "it answers while it has authority");
}

#[tokio::test]
async fn a_term_answers_until_it_is_told_to_stop() {
    let folder = tempfile::tempdir().unwrap();
    let (parts, handle) = parts(&folder, u32::MAX).await;
    let stop = CancellationToken::new();
    let ask = async {
        let answer = handle.request(Request::CountWork).await.unwrap();
        stop.cancel();
        answer
    };
    let (end, answer) = tokio::join!(run_term(parts, stop.clone()), ask);
    assert!(matches!(answer, Answer::Work(_)));
    assert!(matches!(end, TermEnd::Stopped));
    assert_eq!(handle.request(Request::CountWork).await.unwrap_err(), AskError::Gone(LeaderGone));
}

#[tokio::test]
async fn a_panic_ends_the_term_with_what_it_said() {
    let folder = tempfile::tempdir().unwrap();
    let (parts, handle) = parts(&folder, 2).await;
    let (end, answer) =
        tokio::join!(run_term(parts, CancellationToken::new()), handle.request(Request::CountWork));
    assert!(
        matches!(&end, TermEnd::Broken(problem) if problem == "the clock of this test has stopped"),
        "{end:?}"
    );
    // The first request was answered, or the term broke before it was; it is never left waiting.
    assert!(matches!(answer, Ok(Answer::Work(_)) | Err(AskError::Gone(LeaderGone))), "{answer:?}");
    assert_eq!(handle.request(Request::CountWork).await.unwrap_err(), AskError::Gone(LeaderGone));
}

//! A claim in SQL with a deadline. It must run to its end whether or not anybody still waits, so it runs by itself.

use std::time::Duration;

use millrace_common::term::Term;
use millrace_store::{ClaimError, Store, Writer};
use tokio::{sync::oneshot, task::JoinHandle};
use tokio_util::task::TaskTracker;

use super::ElectionError;

/// How long a claim may take; then another master shall try.
pub(super) const TIME_MAX: Duration = Duration::from_secs(10);

/// Bits of a term that count leaderships within one generation.
const REVISION_BITS: u32 = 48;
/// Bits of the generation, so that a term is a positive number in every database.
const GENERATION_BITS: u32 = 15;

/// Returns the term of a leadership: etcd's count of changes when it began, in the generation of that etcd.
pub(super) fn term(generation: u32, created_at: i64) -> Result<Term, ElectionError> {
    let revision =
        u64::try_from(created_at).ok().filter(|revision| *revision > 0 && revision >> REVISION_BITS == 0);
    let is_small = generation >> GENERATION_BITS == 0;
    let revision = revision.filter(|_| is_small).ok_or(ElectionError::Term(generation, created_at))?;
    Ok(Term(u64::from(generation) << REVISION_BITS | revision))
}

/// A claim that is under way.
#[derive(Debug)]
pub(super) struct Claim {
    term: Term,
    task: JoinHandle<()>,
    result: oneshot::Receiver<Result<Writer, ClaimError>>,
}

impl Claim {
    pub(super) fn begin(store: &Store, tasks: &TaskTracker, term: Term, holder: &str) -> Self {
        let (sender, result) = oneshot::channel();
        let (store, holder) = (store.clone(), holder.to_owned());
        let task = tasks.spawn(async move {
            let claimed = store.claim(term, &holder).await;
            // Given up: the writer is dropped, and the term has nobody.
            let _ = sender.send(claimed);
        });
        Self { term, task, result }
    }

    /// Waits for the claim, but not for too long: `None` where it is not done by then.
    pub(super) async fn wait(&mut self) -> Option<Result<Writer, ElectionError>> {
        let claimed = tokio::time::timeout(TIME_MAX, &mut self.result).await.ok()?;
        // The task ends without an answer only where it panicked.
        let claimed = claimed.ok()?;
        Some(claimed.map_err(|error| match error {
            ClaimError::Superseded { stored, .. } if stored >= self.term => {
                ElectionError::Behind(stored, error)
            }
            error => ElectionError::Claim(error),
        }))
    }

    /// Tells whether the database has made up its mind.
    pub(super) fn has_ended(&self) -> bool {
        self.task.is_finished()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terms_grow_with_the_revision_and_with_every_generation() {
        let terms = [term(1, 5), term(1, 6), term(1, 1 << 40), term(2, 1), term(32_767, (1 << 48) - 1)];
        let terms: Vec<Term> = terms.into_iter().map(Result::unwrap).collect();
        assert!(terms.is_sorted_by(|one, next| one < next), "{terms:?}");
        assert!(terms.iter().all(|term| i64::try_from(term.0).is_ok()));
        assert_eq!(terms[0], Term((1 << 48) + 5));
        for (generation, revision) in [(1, 0), (1, -1), (1, 1 << 48), (1 << 15, 1)] {
            assert!(
                matches!(term(generation, revision), Err(ElectionError::Term(..))),
                "{generation} {revision}"
            );
        }
    }
}

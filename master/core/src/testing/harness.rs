//! A scheduler over a store in memory, driven step by step; every step is checked against [`check`](crate::check).

use millrace_common::time::{Now, Timestamp, Uptime};
use std::time::Duration;

use super::MemoryStore;
use crate::{
    batch::{Change, Effect},
    check,
    input::Input,
    limits::Limits,
    scheduler::Scheduler,
};

/// A leader in a test: scheduler, store and clocks.
#[derive(Debug)]
pub struct Harness {
    /// The scheduler of the present term.
    pub scheduler: Scheduler,
    /// What is durable.
    pub store: MemoryStore,
    /// What the clocks say.
    pub now: Now,
    limits: Limits,
}

impl Harness {
    /// Starts a first term on an empty store at 2026-01-01T00:00:00Z.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self::at(limits, Timestamp::from_micros(1_767_225_600_000_000))
    }

    /// Starts a first term on an empty store at `wall`.
    ///
    /// # Panics
    /// Where the empty store cannot be restored from.
    #[must_use]
    pub fn at(limits: Limits, wall: Timestamp) -> Self {
        let now = Now { wall, uptime: Uptime::new(Duration::from_secs(1_000)) };
        let mut store = MemoryStore::default();
        let term = store.claim();
        let scheduler = restore(term, &store, &limits, now);
        Self { scheduler, store, now, limits }
    }

    /// Feeds one input, lets pass what is due, as a term loop does, and commits what follows.
    pub fn input(&mut self, input: Input) -> Vec<(Vec<Change>, Vec<Effect>)> {
        self.scheduler.handle(self.now, input);
        self.wake()
    }

    /// Lets time pass in the steps that the scheduler asks for.
    pub fn advance(&mut self, by: Duration) -> Vec<(Vec<Change>, Vec<Effect>)> {
        let end = self.now.uptime + by;
        let mut done = Vec::new();
        while let Some(deadline) = self.scheduler.poll_timeout().filter(|deadline| *deadline <= end) {
            self.pass(deadline.since(self.now.uptime));
            self.scheduler.handle_timeout(self.now);
            done.extend(self.settle());
        }
        self.pass(end.since(self.now.uptime));
        done
    }

    /// Wakes the scheduler up without a deadline, as a term loop does at least once a minute.
    pub fn wake(&mut self) -> Vec<(Vec<Change>, Vec<Effect>)> {
        self.scheduler.handle_timeout(self.now);
        self.settle()
    }

    fn pass(&mut self, by: Duration) {
        // Wall time has whole microseconds, and both clocks go on by the same.
        let by = Duration::from_micros(u64::try_from(by.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX));
        self.now = Now { wall: self.now.wall + by, uptime: self.now.uptime + by };
    }

    /// Ends the leader without a trace and lets the next one restore from what is durable.
    pub fn fail_over(&mut self) -> Vec<(Vec<Change>, Vec<Effect>)> {
        let term = self.store.claim();
        self.scheduler = restore(term, &self.store, &self.limits, self.now);
        self.settle()
    }

    /// Makes the leader that would come next, on a copy of what is durable, while this one goes on.
    #[must_use]
    pub fn successor(&self) -> Self {
        let mut store = self.store.clone();
        let term = store.claim();
        let (limits, now) = (self.limits.clone(), self.now);
        let mut next = Self { scheduler: restore(term, &store, &limits, now), store, now, limits };
        let _ = next.settle();
        next
    }

    /// Commits everything that is pending.
    ///
    /// # Panics
    /// Where the store refuses, or an invariant is broken afterwards.
    pub fn settle(&mut self) -> Vec<(Vec<Change>, Vec<Effect>)> {
        let (mut done, mut overfilled) = (Vec::new(), Vec::new());
        while let Some(batch) = self.scheduler.take_batch() {
            match self.store.commit(batch) {
                Ok(committed) => {
                    overfilled.extend(check::overfilled(&self.scheduler, &committed.0));
                    done.push(committed);
                }
                Err(problem) => panic!("the store refuses a batch: {problem}"),
            }
        }
        let mut violations = check::violations(&self.scheduler);
        violations.extend(check::orphans(&self.scheduler));
        violations.extend(overfilled);
        assert!(violations.is_empty(), "broken invariants: {violations:#?}");
        done
    }
}

fn restore(term: millrace_common::term::Term, store: &MemoryStore, limits: &Limits, now: Now) -> Scheduler {
    match Scheduler::restore(term, store.load(), limits.clone(), now) {
        Ok(restored) => {
            assert!(restored.quarantined.is_empty(), "quarantined: {:?}", restored.quarantined);
            restored.scheduler
        }
        Err(error) => panic!("cannot restore: {error}"),
    }
}

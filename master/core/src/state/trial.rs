//! What the starts of an executor have shown of it in this term. Pure, and never durable: each leader learns it anew.
//!
//! An executor on which no process was seen to start is given few starts at a time, so that one on which nothing starts is
//! known as such after a handful of attempts and not after one for each of its slots. One that refuses starts for want of
//! space again and again, and says in between that it has some, is asked less and less often.

use std::time::Duration;

use millrace_common::time::Uptime;

use crate::limits::Limits;

/// What the starts of an executor have shown.
#[derive(Debug, Clone, Default)]
pub(crate) struct Trial {
    /// Whether the last start that showed anything came to a process.
    has_started: bool,
    /// Starts in a row that came to nothing for reasons of the executor.
    failed: u32,
    /// How often in a row it refused a start for want of space right after it had said that it had some.
    space_refusals: u32,
    /// Until when its word about space does not count.
    waits_until: Option<Uptime>,
}

impl Trial {
    /// Notes that a process of an attempt was started.
    pub(crate) fn note_process(&mut self) {
        *self = Self { has_started: true, waits_until: self.waits_until, ..Self::default() };
    }

    /// Notes a start that came to nothing for a reason of the executor; returns how many there were in a row.
    pub(crate) const fn note_failed_start(&mut self) -> u32 {
        self.has_started = false;
        self.failed = self.failed.saturating_add(1);
        self.failed
    }

    /// Notes that it had no space although it had said otherwise; returns when it is to be tried again, where it waits.
    pub(crate) fn note_space_refusal(&mut self, now: Uptime, limits: &Limits) -> Option<Uptime> {
        self.space_refusals = self.space_refusals.saturating_add(1);
        let wait = limits.space_wait_after(self.space_refusals);
        self.waits_until = (wait > Duration::ZERO).then(|| now + wait);
        self.waits_until
    }

    /// Notes that time has passed.
    pub(crate) fn note_time(&mut self, now: Uptime) {
        if self.waits_until.is_some_and(|until| until <= now) {
            self.waits_until = None;
        }
    }

    /// Tells whether its word about space does not count for now.
    pub(crate) const fn waits(&self) -> bool {
        self.waits_until.is_some()
    }

    /// Returns how many attempts may be on their way to a process there at once; as many as it has slots where absent.
    pub(crate) const fn starting_max(&self, limits: &Limits) -> Option<u32> {
        if self.has_started || limits.failed_starts_max == 0 {
            return None;
        }
        // Never none: the last of them decides.
        let left = limits.failed_starts_max.saturating_sub(self.failed);
        Some(if left == 0 { 1 } else { left })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Uptime {
        Uptime::new(Duration::from_secs(seconds))
    }

    #[test]
    fn an_executor_is_trusted_once_something_started_on_it() {
        let limits = Limits::default();
        let mut trial = Trial::default();
        assert_eq!(trial.starting_max(&limits), Some(5));
        assert_eq!(trial.note_failed_start(), 1);
        assert_eq!(trial.starting_max(&limits), Some(4), "so that five are the most that come to nothing");
        trial.note_process();
        assert_eq!(trial.starting_max(&limits), None);
        assert_eq!(trial.note_failed_start(), 1, "failures in a row are counted anew");
        assert_eq!(trial.starting_max(&limits), Some(4));
        let limits = Limits { failed_starts_max: 0, ..limits };
        assert_eq!(trial.starting_max(&limits), None, "nothing is limited where nothing is cordoned");
    }

    #[test]
    fn an_executor_whose_space_comes_and_goes_is_asked_less_and_less_often() {
        let limits = Limits::default();
        let mut trial = Trial::default();
        assert_eq!(trial.note_space_refusal(at(100), &limits), None, "a word and a start may cross once");
        assert_eq!(trial.note_space_refusal(at(100), &limits), Some(at(110)));
        assert_eq!(trial.note_space_refusal(at(200), &limits), Some(at(220)));
        trial.note_time(at(219));
        assert!(trial.waits());
        trial.note_time(at(220));
        assert!(!trial.waits());
        for _ in 0..20 {
            trial.note_space_refusal(at(1_000), &limits);
        }
        assert_eq!(trial.note_space_refusal(at(1_000), &limits), Some(at(1_000 + 3_600)));
        trial.note_process();
        assert_eq!(trial.note_space_refusal(at(5_000), &limits), None, "something started in between");
    }
}

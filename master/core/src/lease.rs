//! What a master believes about its lease: sends, answers, and when its authority ends. Pure, like all of the core.
//!
//! The lease itself is elsewhere and runs by another clock. It ends no earlier than its time to live after the moment
//! when a renewal that was answered was *sent*: that moment is the only one that this machine knows and that is before
//! the renewal. So authority ends a bound after it, the bound being shorter than the time to live by what the clocks may
//! differ, and by what the election service may cut off.
//!
//! | belief | what happens | belief after |
//! |---|---|---|
//! | held until `t` | answer with time left, to a renewal sent at `s` | held until the later of `t` and `s` + bound |
//! | held until `t` | answer without time left: the lease is gone | ended: lost |
//! | held until `t` | a reading of the clock at or after `t`, whatever else | ended: expired |
//! | ended | anything | ended, for the same reason |
//!
//! An end is final even where an answer shows later that the lease was renewed in time: whoever looked in between was
//! told that it is over, and may have acted on that. Answers to renewals that are not awaited count for nothing.

use std::{collections::BTreeMap, time::Duration};

use millrace_common::time::Uptime;
use thiserror::Error;

/// Renewals whose answers are awaited at once; the oldest gives way, as if its answer had been lost.
const AWAITED_MAX: usize = 8;

/// Names a renewal that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Renewal(u64);

/// Why authority ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AuthorityEnd {
    /// No renewal was answered in time.
    #[error("no renewal of the lease was answered in time")]
    Expired,
    /// The election service says that there is no such lease.
    #[error("the lease is gone")]
    Lost,
}

/// The belief in one lease. Times are readings of this machine's boot-time clock, which counts suspend.
#[derive(Debug, Clone)]
pub struct Lease {
    bound: Duration,
    until: Uptime,
    end: Option<AuthorityEnd>,
    awaited: BTreeMap<Renewal, Uptime>,
    sent: u64,
}

impl Lease {
    /// Begins to believe in a lease that was asked for at `sent` and granted; its authority ends `bound` after that.
    #[must_use]
    pub const fn granted(sent: Uptime, bound: Duration) -> Self {
        Self {
            bound,
            until: Uptime::new(sent.since_boot().saturating_add(bound)),
            end: None,
            awaited: BTreeMap::new(),
            sent: 0,
        }
    }

    /// Notes that a renewal is about to be sent; `now` must be read before it is.
    pub fn on_renewal_sent(&mut self, now: Uptime) -> Renewal {
        self.sent += 1;
        let renewal = Renewal(self.sent);
        self.awaited.insert(renewal, now);
        if self.awaited.len() > AWAITED_MAX {
            self.awaited.pop_first();
        }
        renewal
    }

    /// Notes an answer: `left` is how long the lease is valid by the election service's word, zero where it is gone.
    pub fn on_renewal_answered(&mut self, now: Uptime, renewal: Renewal, left: Duration) {
        let Some(sent) = self.awaited.remove(&renewal) else { return };
        if self.check(now).is_err() {
            return;
        }
        if left.is_zero() {
            self.end = Some(AuthorityEnd::Lost);
        } else {
            self.until = self.until.max(sent + self.bound);
        }
    }

    /// Notes that no answer to a renewal will come.
    pub fn on_renewal_failed(&mut self, renewal: Renewal) {
        self.awaited.remove(&renewal);
    }

    /// Tells whether there is authority at `now`; once there is none there never is again.
    ///
    /// # Errors
    /// Why there is none.
    pub fn check(&mut self, now: Uptime) -> Result<(), AuthorityEnd> {
        if self.end.is_none() && now >= self.until {
            self.end = Some(AuthorityEnd::Expired);
        }
        self.end.map_or(Ok(()), Err)
    }

    /// Tells whether authority was found to be over.
    #[must_use]
    pub const fn has_ended(&self) -> bool {
        self.end.is_some()
    }

    /// Returns when authority ends unless a further renewal is answered; a time in the past where it has ended.
    #[must_use]
    pub const fn until(&self) -> Uptime {
        self.until
    }
}

#[cfg(test)]
mod tests;

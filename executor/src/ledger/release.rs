//! The last look before anything is done: a process is started only while its right to run lasts.
//!
//! Between the decision to start a process and the moment when that is durable the disk, or the whole machine, may have
//! stood still for minutes. By then the leader may count the attempt as ended by itself and have started the next one
//! elsewhere; so the deadline is looked at once more, and what was to be ended meanwhile is not started either.

use millrace_common::{id::AttemptId, time::Now};

use super::{
    Ledger,
    batch::{Action, Batch},
    entry::{Cause, Entry, State},
    input::{Ending, Exit},
};

impl Ledger {
    /// Hands out what a batch asks to be done. Only a spool that has made its facts durable may call this.
    ///
    /// A start that may no longer be made is left out, and the end of its attempt is decided instead.
    #[must_use]
    pub fn release(&mut self, now: Now, batch: Batch) -> Vec<Action> {
        let mut actions = batch.actions;
        actions.retain(|action| match action {
            Action::Spawn(start) => self.ensure_may_start(now, start.attempt),
            // Nothing of it is left, or it was never started.
            Action::Kill { attempt, .. } => self.attempts.get(attempt).is_some_and(Entry::is_live),
            _ => true,
        });
        actions
    }

    /// Tells whether an attempt may be started now; one that may not ends here, and nothing of it ever ran.
    fn ensure_may_start(&mut self, now: Now, attempt: AttemptId) -> bool {
        let contact = self.contact();
        let Some(entry) = self.attempts.get_mut(&attempt).filter(|entry| entry.is_live()) else {
            return false;
        };
        if entry.state == State::Starting {
            match entry.orphan_timeout.filter(|limit| contact + *limit <= now.uptime) {
                None => return true,
                Some(limit) => entry.state = State::Killing(Cause::Orphaned(limit)),
            }
        }
        let how = Ending::Ended { exit_code: None, by: None };
        self.on_exited(attempt, Exit { how, log_bytes: 0, at: now.wall });
        false
    }
}

//! The ledger from a spool, and a spool from the ledger.

use millrace_common::{
    id::SpoolId,
    time::{Timestamp, Uptime},
};

use std::time::Duration;

use super::{
    Ledger, Limits,
    batch::{Action, Record, Remains, Spawned},
    entry::{Cause, Entry, State},
};

impl Ledger {
    /// Makes the ledger that the records of a spool tell of.
    ///
    /// An attempt with an intent and no end is being ended: its first batch asks for whatever of it lives to be ended, and
    /// it is reported as lost afterwards. It is never started again: nobody knows what it did.
    #[must_use]
    pub fn restore(spool: SpoolId, limits: Limits, records: impl IntoIterator<Item = Record>) -> Self {
        let mut ledger = Self::new(spool, limits);
        for record in records {
            ledger.replay(record);
        }
        let mut remains = Vec::new();
        for (attempt, entry) in &mut ledger.attempts {
            if entry.is_live() {
                entry.state = State::Killing(Cause::Restarted);
                remains.push(Remains { attempt: *attempt, process: entry.process });
                ledger.live.insert(attempt.instance, *attempt);
            }
        }
        // Also with nothing to look for: a crash may have come between the fork and the first record that is left.
        ledger.act(Action::Purge(remains));
        ledger
    }

    fn replay(&mut self, record: Record) {
        match record {
            Record::TermSeen(term) => self.term = self.term.max(term),
            // A journal that was written anew may already tell the end of what follows in it.
            Record::Intended { attempt, .. } if self.released_set.contains(&attempt) => {}
            Record::Intended { attempt, .. } => {
                self.attempts.entry(attempt).or_insert_with(Entry::starting);
            }
            Record::Spawned { attempt, pid, uptime_ms, workspace, at } => {
                if let Some(entry) = self.attempts.get_mut(&attempt).filter(|entry| entry.is_live()) {
                    let uptime = Uptime::new(Duration::from_millis(uptime_ms));
                    entry.process = Some(Spawned { pid, uptime, workspace });
                    entry.started_at = Some(at);
                }
            }
            Record::Ended { attempt, end } => {
                let entry = self.attempts.entry(attempt).or_insert_with(Entry::starting);
                // The first end stands, whatever follows.
                if entry.is_live() {
                    entry.state = State::Ended(end);
                }
            }
            Record::Released(attempt) => {
                self.attempts.remove(&attempt);
                self.remember(attempt);
            }
            Record::Attested => self.is_attested = true,
        }
    }

    /// Returns the fewest records that tell the same, for a spool that is written anew.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Record> {
        let mut records = vec![Record::TermSeen(self.term)];
        records.extend(self.is_attested.then_some(Record::Attested));
        records.extend(self.released.iter().map(|attempt| Record::Released(*attempt)));
        for (attempt, entry) in &self.attempts {
            if let State::Ended(end) = &entry.state {
                records.push(Record::Ended { attempt: *attempt, end: end.clone() });
                continue;
            }
            let at = entry.started_at.unwrap_or(Timestamp::from_micros(0));
            records.push(Record::Intended { attempt: *attempt, at });
            if let Some(Spawned { pid, uptime, workspace }) = entry.process {
                let uptime_ms = u64::try_from(uptime.since_boot().as_millis()).unwrap_or(u64::MAX);
                records.push(Record::Spawned { attempt: *attempt, pid, uptime_ms, workspace, at });
            }
        }
        records
    }
}

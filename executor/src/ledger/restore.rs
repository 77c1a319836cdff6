//! The ledger from a spool, and a spool from the ledger.

use millrace_common::{
    id::{AttemptId, SpoolId},
    time::{Timestamp, Uptime},
};

use std::time::Duration;

use super::{
    Ledger, Limits,
    batch::{Action, Record, Remains, Spawned},
    entry::{Cause, Entry, State},
    input::EndedBy,
};

/// What the supervisor, which outlived the last life of the executor, has kept.
#[derive(Debug, Clone, Default)]
pub struct Kept {
    /// When the newest message to a leader left that was answered in time.
    pub contact: Option<Uptime>,
    /// The attempts that it supervises, or whose exit nobody has heard of yet.
    pub attempts: Vec<Survivor>,
}

/// An attempt that a supervisor has kept.
#[derive(Debug, Clone)]
pub struct Survivor {
    /// Which.
    pub attempt: AttemptId,
    /// Its process.
    pub process: Spawned,
    /// When it was started.
    pub started_at: Timestamp,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// How long it may run without contact to a leader.
    pub orphan_timeout: Option<Duration>,
    /// Time between TERM and KILL.
    pub kill_grace: Duration,
    /// Why it is being ended, if it is.
    pub ended_by: Option<EndedBy>,
}

impl Ledger {
    /// Makes the ledger that the records of a spool tell of.
    ///
    /// An attempt with an intent and no end goes on if its supervisor has kept it. Else it is being ended: the first batch
    /// asks for whatever of it lives to be ended, and it is reported as lost afterwards. It is never started again: nobody
    /// knows what it did.
    #[must_use]
    pub fn restore(
        spool: SpoolId,
        limits: Limits,
        records: impl IntoIterator<Item = Record>,
        kept: &Kept,
    ) -> Self {
        let mut ledger = Self::new(spool, limits);
        // A restart never gives more time: the right to run without contact counts from the contact of the earlier life.
        ledger.session.contact = kept.contact;
        for record in records {
            ledger.replay(record);
        }
        let live: Vec<_> = ledger
            .attempts
            .iter()
            .filter(|(_, entry)| entry.is_live())
            .map(|(attempt, _)| *attempt)
            .collect();
        for attempt in &live {
            ledger.live.insert(attempt.instance, *attempt);
        }
        for survivor in &kept.attempts {
            ledger.adopt(survivor);
        }
        // Also with nothing to look for: a crash may have come between the fork and the first record that is left.
        let remains = ledger.remains(live, &Cause::Restarted, |entry| entry.state == State::Starting);
        ledger.act(Action::Purge(remains));
        ledger
    }

    /// Goes on with an attempt that outlived the program.
    fn adopt(&mut self, survivor: &Survivor) {
        let Survivor { attempt, process, timeout, orphan_timeout, .. } = *survivor;
        let Some(entry) = self.attempts.get_mut(&attempt).filter(|entry| entry.is_live()) else { return };
        entry.kill_grace = survivor.kill_grace;
        entry.timeout = timeout;
        entry.orphan_timeout = orphan_timeout;
        entry.started_at = Some(survivor.started_at);
        entry.process = Some(process);
        entry.state = match survivor.ended_by.map(|by| entry.cause(by)) {
            Some(cause) => State::Killing(cause),
            None => State::Running,
        };
        if survivor.ended_by.is_none() {
            self.timeouts.extend(timeout.map(|timeout| (process.uptime + timeout, attempt)));
            self.orphans.extend(orphan_timeout.map(|limit| (limit, attempt)));
        }
    }

    /// Gives up attempts that nobody supervises: they are to be ended, and what is known of their processes is returned.
    pub(super) fn remains(
        &mut self,
        attempts: Vec<AttemptId>,
        cause: &Cause,
        is_meant: impl Fn(&Entry) -> bool,
    ) -> Vec<Remains> {
        let mut remains = Vec::new();
        for attempt in attempts {
            let Some(entry) = self.attempts.get_mut(&attempt).filter(|entry| is_meant(entry)) else {
                continue;
            };
            remains.push(Remains { attempt, process: entry.process });
            if !matches!(entry.state, State::Killing(_)) {
                entry.state = State::Killing(cause.clone());
            }
            self.disarm(attempt);
        }
        remains
    }

    fn replay(&mut self, record: Record) {
        self.spool_facts += u64::from(record.must_be_durable());
        match record {
            Record::Counted(facts) => self.spool_facts = facts,
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
        // Last: what stands before it was counted when it was new.
        records.push(Record::Counted(self.spool_facts));
        records
    }
}

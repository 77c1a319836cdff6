//! What a leader says to the ledger.

use std::time::Duration;

use millrace_common::{
    id::AttemptId,
    state::AttemptState,
    term::Term,
    time::{Now, Uptime},
};

use super::{
    Ledger,
    batch::{Action, End, Record, Rejection, Report},
    entry::{Cause, Entry, State},
    input::{FromLeader, Refusal, Start, Verdict},
};

impl Ledger {
    /// The door: terms are compared here and nowhere else. A higher one is noted before anything is done for it.
    pub(super) fn on_leader_said(
        &mut self,
        now: Now,
        term: Term,
        message: FromLeader,
    ) -> Result<(), Refusal> {
        if term < self.term {
            return Err(Refusal::LowerTerm { given: term, seen: self.term });
        }
        if term > self.term {
            self.term = term;
            self.record(Record::TermSeen(term));
        }
        match message {
            FromLeader::Welcome(verdicts) => self.on_welcomed(now, verdicts),
            FromLeader::HeartbeatAnswer(number) => self.on_heartbeat_answered(now, number),
            FromLeader::Starts(starts) => starts.into_iter().for_each(|start| self.on_start(now, start)),
            FromLeader::Kill { attempt, grace, reason } => self.on_kill(now, attempt, grace, reason),
            FromLeader::HistoryAsked(question) => self.act(Action::TellHistory(question)),
            FromLeader::SpoolOld(reason) => self.act(Action::SetAside(reason)),
            FromLeader::Acks(attempts) => attempts.into_iter().for_each(|attempt| self.forget(attempt)),
        }
        Ok(())
    }

    fn on_welcomed(&mut self, now: Now, verdicts: Vec<(AttemptId, Verdict)>) {
        self.session.is_open = true;
        // A greeting is a full account as a heartbeat is, and the leader counts it as one.
        if let Some(sent) = self.session.greeted_at.take() {
            self.extend_contact(now, sent);
        }
        for (attempt, verdict) in verdicts {
            self.on_verdict(attempt, verdict);
        }
        // A new leader believes in the contact, and in what a greeting attests, only with the first heartbeat.
        self.on_heartbeat_due(now);
    }

    fn on_verdict(&mut self, attempt: AttemptId, verdict: Verdict) {
        let Some(entry) = self.attempts.get_mut(&attempt) else { return };
        match verdict {
            Verdict::Adopt => {
                // It may have gone on since the greeting.
                let report = entry.report();
                self.act(Action::Report(attempt, report));
            }
            Verdict::Kill if !entry.is_live() => {
                // It ended since the greeting, and what was told of that may have left with the earlier session.
                let report = entry.report();
                self.act(Action::Report(attempt, report));
            }
            Verdict::Kill => {
                let reason = "ended at the leader's request".to_owned();
                self.begin_kill(attempt, Cause::Requested(reason), None);
            }
            Verdict::Discard if entry.is_live() => {
                // A kill that is under way goes on; only what follows from its end changes.
                if let State::Killing(cause) = &mut entry.state {
                    *cause = Cause::Discarded;
                }
                self.begin_kill(attempt, Cause::Discarded, None);
            }
            Verdict::Discard => self.forget(attempt),
        }
    }

    fn on_heartbeat_answered(&mut self, now: Now, number: u64) {
        while let Some((sent_number, sent)) = self.session.in_flight.front().copied() {
            if sent_number > number {
                break;
            }
            self.session.in_flight.pop_front();
            if sent_number == number {
                self.extend_contact(now, sent);
                self.note_attested();
            }
        }
    }

    /// Notes that a leader has taken in what this session's greeting attested.
    fn note_attested(&mut self) {
        if self.session.is_clean && !self.is_attested {
            self.is_attested = true;
            self.record(Record::Attested);
        }
    }

    /// Counts from when the message left, and only if its answer came in time: the leader heard it after it left.
    fn extend_contact(&mut self, now: Now, sent: Uptime) {
        if now.uptime.since(sent) <= self.limits.answer_timeout && Some(sent) > self.session.contact {
            self.session.contact = Some(sent);
            self.act(Action::Extend(sent));
        }
    }

    fn on_start(&mut self, now: Now, start: Start) {
        let attempt = start.attempt;
        if let Some(entry) = self.attempts.get(&attempt) {
            let report = entry.report();
            self.act(Action::Report(attempt, report));
            return;
        }
        if let Some((reason, rejection)) = self.objection(now, &start) {
            let end = End::without_exit(AttemptState::Rejected, reason, now.wall);
            // Kept, so that a repetition does not run either.
            self.end(attempt, End { rejection, ..end });
            return;
        }
        self.accept(now, start);
    }

    /// Says why an attempt is not run here; `None` where it is.
    fn objection(&self, now: Now, start: &Start) -> Option<(String, Option<Rejection>)> {
        let attempt = start.attempt;
        let refuse = |reason: String| Some((reason, None));
        if start.spool != self.spool {
            return refuse(format!("assigned to spool {}, which this executor no longer has", start.spool));
        }
        if self.released_set.contains(&attempt) {
            return refuse("it ended here before, which the leader has acknowledged".to_owned());
        }
        if let Some(other) = self.live.get(&attempt.instance) {
            let number = other.number;
            return refuse(format!("attempt {number} of the same task is still alive on this executor"));
        }
        if self.is_stopping {
            return Some(("the executor is stopping".to_owned(), Some(Rejection::Draining)));
        }
        if self.live.len() >= self.limits.slots as usize {
            return refuse(format!("all {} slots of this executor are taken", self.limits.slots));
        }
        if self.is_space_low(now) {
            let reason = "the executor's disk is nearly full; see `min_free` in its configuration";
            return Some((reason.to_owned(), Some(Rejection::SpaceLow)));
        }
        if start.orphan_timeout.is_some_and(|limit| self.contact() + limit <= now.uptime) {
            return refuse("no heartbeat of this executor has been answered for too long".to_owned());
        }
        None
    }

    fn accept(&mut self, now: Now, start: Start) {
        let attempt = start.attempt;
        let entry = Entry {
            kill_grace: start.kill_grace,
            timeout: start.timeout,
            orphan_timeout: start.orphan_timeout,
            ..Entry::starting()
        };
        self.attempts.insert(attempt, entry);
        self.live.insert(attempt.instance, attempt);
        if let Some(limit) = start.orphan_timeout {
            self.orphans.insert((limit, attempt));
        }
        self.record(Record::Intended { attempt, at: now.wall });
        self.act(Action::Spawn(Box::new(start)));
        self.act(Action::Report(attempt, Report::Accepted));
    }

    /// Ends an attempt on request. One that never came here gets its end now, so that a late start does not run.
    fn on_kill(&mut self, now: Now, attempt: AttemptId, grace: Duration, reason: String) {
        let Some(entry) = self.attempts.get_mut(&attempt) else {
            if !self.released_set.contains(&attempt) {
                let reason = "ended before it was started here";
                // Kept, so that a start that comes late does not run.
                self.end(attempt, End::without_exit(AttemptState::Killed, reason, now.wall));
            }
            return;
        };
        if let State::Ended(end) = &entry.state {
            let report = Report::Ended(end.clone());
            self.act(Action::Report(attempt, report));
            return;
        }
        entry.kill_grace = grace;
        self.begin_kill(attempt, Cause::Requested(reason), None);
    }
}

//! A model of an executor: its spool, what its program remembers, and what it says. It does nothing by itself: inputs go
//! in, things to do come out.
//!
//! What the program records reaches the disk a little later; everything it does in consequence waits for that. A crash
//! keeps a part of what was not there yet. The processes themselves belong to the machine, see `machine.rs`.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use millrace_common::{
    id::{AttemptId, ExecutorName, SpoolId},
    state::AttemptState,
    term::Term,
    time::Timestamp,
};
use millrace_core::{AttemptEnd, Held, Hello, Message, Proof, RejectReason, Report, Start, Verdict};

use crate::{
    network::{ConnectionId, ToLeader},
    plan::{Outcome, Random, SECOND},
};

/// How long the answer to a heartbeat may take to count.
pub(crate) const ANSWER_MAX: u64 = 5 * SECOND;
pub(crate) const HEARTBEAT: u64 = 3 * SECOND;
/// Heartbeats in which a leader may be shown an end before it has taken it: more than are ever under way.
const SHOWN_MAX: u32 = 30;

/// Something to do, once what caused it is on the disk.
#[derive(Debug, Clone)]
pub(crate) enum Deed {
    Send(ConnectionId, ToLeader),
    Close(ConnectionId),
    Spawn(Box<Start>),
    /// End a process, within its grace.
    Kill(AttemptId, u64),
    /// A leader of this term is obeyed.
    Obey(Term),
}

/// A fact for the disk.
#[derive(Debug, Clone)]
enum Record {
    TermSeen(Term),
    Intended(AttemptId),
    Ended(AttemptId, AttemptEnd),
    Released(AttemptId),
}

impl Record {
    const fn must_be_durable(&self) -> bool {
        !matches!(self, Self::Released(_))
    }
}

/// What is on the disk.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) spool: SpoolId,
    /// Whether nothing of an older spool can be alive on the machine.
    pub(crate) is_clean: bool,
    pub(crate) term: Term,
    /// Attempts that were accepted, with their end once there is one.
    pub(crate) attempts: BTreeMap<AttemptId, Option<AttemptEnd>>,
    pub(crate) released: BTreeSet<AttemptId>,
}

impl Disk {
    pub(crate) const fn new(spool: SpoolId, is_clean: bool) -> Self {
        Self { spool, is_clean, term: Term(0), attempts: BTreeMap::new(), released: BTreeSet::new() }
    }

    fn write(&mut self, record: Record) {
        match record {
            Record::TermSeen(term) => self.term = term,
            Record::Intended(attempt) => drop(self.attempts.insert(attempt, None)),
            Record::Ended(attempt, end) => drop(self.attempts.insert(attempt, Some(end))),
            Record::Released(attempt) => {
                self.attempts.remove(&attempt);
                self.released.insert(attempt);
            }
        }
    }
}

/// Why an attempt is being ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    Requested,
    TimedOut,
    Orphaned,
    Restarted,
    Discarded,
}

/// Where an attempt stands for the program.
#[derive(Debug, Clone)]
pub(crate) enum Entry {
    Starting,
    Running(Timestamp),
    Killing(Cause),
    Ended(AttemptEnd),
}

/// How the life of a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    ByItself(Outcome),
    Killed,
}

/// What the program of an executor remembers; nothing while it does not run.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) entries: BTreeMap<AttemptId, Entry>,
    released: BTreeSet<AttemptId>,
    graces: BTreeMap<AttemptId, u64>,
    term: Term,
    /// When the newest message left whose answer came back in time, on this machine's clock.
    pub(crate) contact: u64,
    pub(crate) connection: Option<ConnectionId>,
    is_welcomed: bool,
    greeted_at: u64,
    beats: u64,
    in_flight: VecDeque<(u64, u64)>,
    /// Heartbeats over this connection that were answered while an attempt had ended.
    shown: BTreeMap<AttemptId, u32>,
    unsynced: VecDeque<(Vec<Record>, Vec<Deed>)>,
    records: Vec<Record>,
    deeds: Vec<Deed>,
}

/// An executor.
#[derive(Debug)]
pub(crate) struct Executor {
    pub(crate) name: ExecutorName,
    pub(crate) slots: u32,
    /// The machine that has its name now.
    pub(crate) machine: Arc<str>,
    pub(crate) boot: u32,
    pub(crate) disk: Disk,
    pub(crate) program: Option<Program>,
    /// Counts the starts of the program, so that what was meant for an earlier one is known.
    pub(crate) starts: u32,
    /// Whether it says what happened between greeting and welcome only if it is asked.
    pub(crate) is_terse: bool,
    /// A planted fault: terms are not remembered.
    pub(crate) forgets_terms: bool,
}

fn ended(state: AttemptState, reason: &str, at: Timestamp) -> AttemptEnd {
    AttemptEnd {
        state,
        exit_code: None,
        reason: reason.into(),
        values: None,
        is_skipped: false,
        is_permanent: false,
        started_at: None,
        ended_at: at,
        log_bytes: 0,
        reject_reason: RejectReason::Other,
        proof: if state == AttemptState::Rejected { Proof::Refused } else { Proof::Reported },
    }
}

impl Executor {
    /// Starts the program. What was accepted and has not ended goes on where its process does; `exits` has those that
    /// ended meanwhile and `alive` those that have not.
    pub(crate) fn start(
        &mut self,
        uptime: u64,
        contact: u64,
        at: Timestamp,
        alive: &BTreeSet<AttemptId>,
        exits: &BTreeMap<AttemptId, Exit>,
    ) {
        self.starts += 1;
        let mut program = Program {
            entries: BTreeMap::new(),
            released: self.disk.released.clone(),
            graces: BTreeMap::new(),
            term: if self.forgets_terms { Term(0) } else { self.disk.term },
            contact: contact.min(uptime),
            connection: None,
            is_welcomed: false,
            greeted_at: 0,
            beats: 0,
            in_flight: VecDeque::new(),
            shown: BTreeMap::new(),
            unsynced: VecDeque::new(),
            records: Vec::new(),
            deeds: Vec::new(),
        };
        for (attempt, end) in &self.disk.attempts {
            let entry = end.clone().map_or(Entry::Running(at), Entry::Ended);
            program.entries.insert(*attempt, entry);
            if end.is_some() || alive.contains(attempt) {
                continue;
            }
            match exits.get(attempt) {
                Some(exit) => program.on_exited(*attempt, *exit, at),
                None => {
                    program.entries.insert(*attempt, Entry::Killing(Cause::Restarted));
                    program.on_exited(*attempt, Exit::Killed, at);
                }
            }
        }
        self.program = Some(program);
    }

    /// Ends the program without a trace; a part of what it had not synced is on the disk nevertheless.
    pub(crate) fn crash(&mut self, random: &mut Random) {
        let Some(program) = self.program.take() else { return };
        let unsynced: Vec<Record> = program.unsynced.into_iter().flat_map(|(records, _)| records).collect();
        let kept = usize::try_from(random.below(unsynced.len() as u64 + 1)).unwrap();
        unsynced.into_iter().take(kept).for_each(|record| self.disk.write(record));
    }

    /// Puts the oldest group of records onto the disk; returns what waited for it.
    pub(crate) fn synced(&mut self) -> Vec<Deed> {
        let Some((records, deeds)) = self.program.as_mut().and_then(|program| program.unsynced.pop_front())
        else {
            return Vec::new();
        };
        records.into_iter().for_each(|record| self.disk.write(record));
        deeds
    }

    /// Takes what the program has to record and to do: things to do at once, and whether a sync is to follow.
    pub(crate) fn take(&mut self) -> (Vec<Deed>, bool) {
        let Some(program) = self.program.as_mut() else { return (Vec::new(), false) };
        let records = std::mem::take(&mut program.records);
        let deeds = std::mem::take(&mut program.deeds);
        if records.is_empty() && deeds.is_empty() {
            return (Vec::new(), false);
        }
        let must_wait = records.iter().any(Record::must_be_durable) || !program.unsynced.is_empty();
        if records.is_empty() && !must_wait {
            return (deeds, false);
        }
        program.unsynced.push_back((records, if must_wait { deeds.clone() } else { Vec::new() }));
        (if must_wait { Vec::new() } else { deeds }, true)
    }

    pub(crate) fn dial(&mut self, connection: ConnectionId, uptime: u64) {
        let Some(program) = self.program.as_mut() else { return };
        program.connection = Some(connection);
        program.greeted_at = uptime;
        let held = program
            .entries
            .iter()
            .map(|(attempt, entry)| Held { attempt: *attempt, report: report_of(entry) });
        let hello = Hello {
            executor: self.name.clone(),
            slots: self.slots,
            labels: BTreeMap::new(),
            kinds: vec!["shell".to_owned()],
            spool: self.disk.spool,
            machine: Some(Arc::clone(&self.machine)),
            boot: format!("boot-{}", self.boot).into(),
            is_clean: self.disk.is_clean,
            is_space_low: false,
            version: "model".into(),
            held: held.collect(),
        };
        program.deeds.push(Deed::Send(connection, ToLeader::Hello(Box::new(hello))));
    }

    pub(crate) fn on_message(&mut self, uptime: u64, at: Timestamp, term: Term, message: Message) {
        let (spool, slots, is_terse) = (self.disk.spool, self.slots as usize, self.is_terse);
        let Some(program) = self.program.as_mut() else { return };
        let Some(connection) = program.connection else { return };
        if term < program.term && !self.forgets_terms {
            program.hang_up();
            return;
        }
        if term > program.term {
            program.term = term;
            program.records.push(Record::TermSeen(term));
        }
        program.deeds.push(Deed::Obey(term));
        match message {
            Message::Welcome(verdicts) => program.on_welcomed(connection, uptime, verdicts, is_terse),
            Message::Refused(_) => program.hang_up(),
            Message::HeartbeatAnswer(number) => program.on_answered(number, uptime),
            Message::Start(start) => {
                if let Some(problem) = program.objection(&start, spool, slots, uptime) {
                    program.end(start.attempt, ended(AttemptState::Rejected, problem, at));
                } else {
                    program.accept(start);
                }
            }
            Message::Kill { attempt, grace, .. } => {
                program.on_kill(attempt, u64::try_from(grace.as_micros()).unwrap(), at);
            }
            Message::Ack(attempt) => program.forget(attempt),
        }
    }
}

impl Program {
    /// Tells whether its connection is good for nothing: an answer is overdue.
    pub(crate) fn is_unanswered(&self, uptime: u64) -> bool {
        let sent = if self.is_welcomed {
            self.in_flight.front().map(|(_, sent)| *sent)
        } else {
            Some(self.greeted_at)
        };
        self.connection.is_some() && sent.is_some_and(|sent| uptime > sent + ANSWER_MAX)
    }

    pub(crate) fn hang_up(&mut self) {
        if let Some(connection) = self.connection.take() {
            self.deeds.push(Deed::Close(connection));
        }
        self.is_welcomed = false;
        self.in_flight.clear();
        self.shown.clear();
    }

    pub(crate) fn beat(&mut self, uptime: u64) {
        let Some(connection) = self.connection.filter(|_| self.is_welcomed) else { return };
        self.beats += 1;
        self.in_flight.push_back((self.beats, uptime));
        let held = self.entries.iter().map(|(attempt, entry)| (*attempt, state_of(entry))).collect();
        self.deeds.push(Deed::Send(connection, ToLeader::Heartbeat { number: self.beats, held }));
    }

    fn on_welcomed(
        &mut self,
        connection: ConnectionId,
        uptime: u64,
        verdicts: Vec<(AttemptId, Verdict)>,
        is_terse: bool,
    ) {
        debug_assert_eq!(self.connection, Some(connection), "an executor has one connection");
        self.is_welcomed = true;
        self.extend_contact(self.greeted_at, uptime);
        for (attempt, verdict) in verdicts {
            let Some(entry) = self.entries.get(&attempt).cloned() else { continue };
            match verdict {
                Verdict::Adopt if is_terse => {}
                Verdict::Adopt => self.report(attempt, report_of(&entry)),
                Verdict::Kill => self.begin_kill(attempt, Cause::Requested),
                Verdict::Discard if matches!(entry, Entry::Ended(_)) => self.forget(attempt),
                Verdict::Discard => {
                    self.begin_kill(attempt, Cause::Discarded);
                    self.entries.insert(attempt, Entry::Killing(Cause::Discarded));
                }
            }
        }
    }

    fn on_answered(&mut self, number: u64, uptime: u64) {
        while let Some((beat, sent)) = self.in_flight.front().copied().filter(|(beat, _)| *beat <= number) {
            self.in_flight.pop_front();
            if beat == number {
                self.extend_contact(sent, uptime);
            }
        }
        for (attempt, entry) in &self.entries {
            if matches!(entry, Entry::Ended(_)) {
                *self.shown.entry(*attempt).or_default() += 1;
            }
        }
    }

    /// Returns an attempt whose end a leader was shown again and again and does not take.
    pub(crate) fn neglected(&self) -> Option<AttemptId> {
        self.shown.iter().find(|(_, count)| **count > SHOWN_MAX).map(|(attempt, _)| *attempt)
    }

    fn extend_contact(&mut self, sent: u64, uptime: u64) {
        if uptime <= sent + ANSWER_MAX {
            self.contact = self.contact.max(sent);
        }
    }

    fn objection(
        &mut self,
        start: &Start,
        spool: SpoolId,
        slots: usize,
        uptime: u64,
    ) -> Option<&'static str> {
        let attempt = start.attempt;
        let is_live = |entry: &Entry| !matches!(entry, Entry::Ended(_));
        let live = self.entries.iter().filter(|(_, entry)| is_live(entry));
        if start.spool != spool {
            return Some("assigned to another spool");
        }
        if self.released.contains(&attempt) {
            return Some("it ended here before");
        }
        if self.entries.contains_key(&attempt) {
            return None;
        }
        if live.clone().any(|(other, _)| other.instance == attempt.instance) {
            return Some("another attempt of the task is alive here");
        }
        if live.count() >= slots {
            return Some("all slots are taken");
        }
        let orphan = start.orphan_timeout.map(|limit| u64::try_from(limit.as_micros()).unwrap());
        orphan.is_some_and(|limit| self.contact + limit <= uptime).then_some("no contact for too long")
    }

    fn accept(&mut self, start: Box<Start>) {
        let attempt = start.attempt;
        if let Some(entry) = self.entries.get(&attempt) {
            let report = report_of(entry);
            return self.report(attempt, report);
        }
        self.entries.insert(attempt, Entry::Starting);
        self.graces.insert(attempt, u64::try_from(start.kill_grace.as_micros()).unwrap());
        self.records.push(Record::Intended(attempt));
        self.deeds.push(Deed::Spawn(start));
        self.report(attempt, Report::Accepted);
    }

    fn on_kill(&mut self, attempt: AttemptId, grace: u64, at: Timestamp) {
        match self.entries.get(&attempt) {
            None if self.released.contains(&attempt) => {}
            None => self.end(attempt, ended(AttemptState::Killed, "ended before it was started here", at)),
            Some(Entry::Ended(end)) => {
                let report = Report::Ended(end.clone());
                self.report(attempt, report);
            }
            Some(_) => {
                self.graces.insert(attempt, grace);
                self.begin_kill(attempt, Cause::Requested);
            }
        }
    }

    pub(crate) fn begin_kill(&mut self, attempt: AttemptId, cause: Cause) {
        let Some(entry) = self.entries.get_mut(&attempt) else { return };
        if matches!(entry, Entry::Starting | Entry::Running(_)) {
            *entry = Entry::Killing(cause);
            let grace = self.graces.get(&attempt).copied().unwrap_or(0);
            self.deeds.push(Deed::Kill(attempt, grace));
            self.report(attempt, Report::Killing);
        }
    }

    /// Tells whether a process that was asked for is still to be started; it is also where it is to be ended at once.
    pub(crate) fn wants(&self, attempt: AttemptId) -> bool {
        matches!(self.entries.get(&attempt), Some(Entry::Starting | Entry::Killing(_)))
    }

    pub(crate) fn on_spawned(&mut self, attempt: AttemptId, at: Timestamp) {
        if let Some(entry) = self.entries.get_mut(&attempt).filter(|entry| matches!(entry, Entry::Starting)) {
            *entry = Entry::Running(at);
            self.report(attempt, Report::Started { at });
        }
    }

    pub(crate) fn on_exited(&mut self, attempt: AttemptId, exit: Exit, at: Timestamp) {
        let Some(entry) = self.entries.get(&attempt).cloned() else { return };
        if matches!(entry, Entry::Ended(_)) {
            return;
        }
        let end = outcome(&entry, exit, at);
        self.end(attempt, end);
        if matches!(entry, Entry::Killing(Cause::Discarded)) {
            self.forget(attempt);
        }
    }

    fn end(&mut self, attempt: AttemptId, end: AttemptEnd) {
        self.entries.insert(attempt, Entry::Ended(end.clone()));
        self.records.push(Record::Ended(attempt, end.clone()));
        self.report(attempt, Report::Ended(end));
    }

    fn forget(&mut self, attempt: AttemptId) {
        if matches!(self.entries.get(&attempt), Some(Entry::Ended(_))) {
            self.shown.remove(&attempt);
            self.entries.remove(&attempt);
            self.released.insert(attempt);
            self.records.push(Record::Released(attempt));
        }
    }

    fn report(&mut self, attempt: AttemptId, report: Report) {
        if let Some(connection) = self.connection.filter(|_| self.is_welcomed) {
            self.deeds.push(Deed::Send(connection, ToLeader::Report(attempt, report)));
        }
    }
}

fn outcome(entry: &Entry, exit: Exit, at: Timestamp) -> AttemptEnd {
    match (exit, entry) {
        (Exit::ByItself(Outcome::Succeeds), _) => {
            AttemptEnd { exit_code: Some(0), ..ended(AttemptState::Succeeded, "", at) }
        }
        (Exit::ByItself(Outcome::Skips), _) => {
            AttemptEnd { exit_code: Some(0), is_skipped: true, ..ended(AttemptState::Succeeded, "", at) }
        }
        (Exit::ByItself(Outcome::Fails(code)), _) => {
            AttemptEnd { exit_code: Some(code), ..ended(AttemptState::Failed, "failed", at) }
        }
        (Exit::ByItself(Outcome::FailsForGood), _) => {
            AttemptEnd { is_permanent: true, ..ended(AttemptState::Failed, "failed for good", at) }
        }
        (Exit::Killed, Entry::Killing(Cause::Requested)) => ended(AttemptState::Killed, "killed", at),
        (Exit::Killed, Entry::Killing(Cause::TimedOut)) => ended(AttemptState::TimedOut, "took too long", at),
        (Exit::Killed, _) => ended(AttemptState::Lost, "ended from outside", at),
    }
}

fn report_of(entry: &Entry) -> Report {
    match entry {
        Entry::Starting => Report::Accepted,
        Entry::Running(at) => Report::Started { at: *at },
        Entry::Killing(_) => Report::Killing,
        Entry::Ended(end) => Report::Ended(end.clone()),
    }
}

const fn state_of(entry: &Entry) -> AttemptState {
    match entry {
        Entry::Starting => AttemptState::Accepted,
        Entry::Running(_) => AttemptState::Running,
        Entry::Killing(_) => AttemptState::Killing,
        Entry::Ended(end) => end.state,
    }
}

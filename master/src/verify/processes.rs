//! What executors did, put between the commits.
//!
//! An executor's own record counts for more than what the leader has taken over from it. Where it says nothing, an attempt
//! began and ended as its row says, and ended in time: silence contradicts nobody.

use std::collections::BTreeMap;

use millrace_checker::{Event, Exit};
use millrace_common::{
    id::{AttemptId, ExecutorName, SpoolId},
    state::AttemptState,
    time::Timestamp,
};
use millrace_core::Proof;
use millrace_store::query::AttemptRow;

use super::{
    CLOCK_TOLERANCE, Ledger, Ledgers,
    ledger::What,
    past::Past,
    timeline::{Bounds, Commits, Item, Place, Side, Subject},
};

/// Returns what executors did.
pub(super) fn items(
    past: &Past,
    ledgers: &Ledgers,
    commits: &Commits,
    bounds: &BTreeMap<AttemptId, Bounds>,
) -> Vec<Item> {
    let told: BTreeMap<&ExecutorName, Told> = ledgers
        .iter()
        .filter_map(|(executor, read)| Some((executor, Told::of(read.as_ref().ok()?))))
        .collect();
    let mut items = Vec::new();
    for (executor, told) in &told {
        tell_executor(&mut items, executor, told);
        tell_strangers(&mut items, past, executor, told, commits, bounds);
    }
    let judged = past.attempts.values().filter(|row| past.is_judged(row.attempt.instance.run));
    for row in judged {
        let Some(bounds) = bounds.get(&row.attempt) else { continue };
        // Whoever holds another spool now says nothing of this attempt: two machines may have had one name.
        let deeds = told.get(&row.executor).and_then(|told| told.deeds.get(&row.attempt));
        let mut process = Process { row, commits, bounds: *bounds, items: &mut items };
        process.tell(deeds.unwrap_or(&Deeds::default()));
    }
    items
}

/// What a ledger says, by what it is about.
#[derive(Debug, Default)]
struct Told {
    opened: Vec<(Timestamp, SpoolId, u32)>,
    obeyed: Vec<(Timestamp, SpoolId, millrace_common::term::Term)>,
    deeds: BTreeMap<AttemptId, Deeds>,
}

/// What an executor says that it did with an attempt.
#[derive(Debug, Default)]
struct Deeds {
    /// While it held this spool.
    accepted: Vec<(Timestamp, SpoolId)>,
    spawned: Vec<Timestamp>,
    ended: Vec<Ended>,
    /// Whether it is alive, as far as was written down: no end of it, and no start of the program since it began.
    is_alive: bool,
    released: Option<Timestamp>,
}

#[derive(Debug)]
struct Ended {
    at: Timestamp,
    state: AttemptState,
    exit_code: Option<i32>,
    /// Whether that was the moment when nothing was left, or only the one when somebody looked: a program that was started
    /// again ends what nobody supervises any more.
    is_exact: bool,
}

impl Told {
    fn of(ledger: &Ledger) -> Self {
        let mut told = Self::default();
        let mut spool = None;
        let mut started_at = None;
        for entry in &ledger.entries {
            let at = entry.at;
            match entry.what {
                What::Opened { spool: id, slots, is_start } => {
                    spool = Some(id);
                    if is_start {
                        started_at = Some(at);
                    }
                    told.opened.push((at, id, slots));
                }
                What::TermObeyed(term) => told.obeyed.extend(spool.map(|spool| (at, spool, term))),
                What::Accepted(attempt) => {
                    told.deed(attempt).accepted.extend(spool.map(|spool| (at, spool)));
                }
                What::Spawned(attempt) => told.deed(attempt).spawned.push(at),
                What::Ended { attempt, state, exit_code } => {
                    let deeds = told.deed(attempt);
                    let has_restarted =
                        deeds.spawned.last().is_none_or(|spawned| Some(*spawned) < started_at);
                    let is_exact = state != AttemptState::Lost || !has_restarted;
                    deeds.ended.push(Ended { at, state, exit_code, is_exact });
                }
                What::Released(attempt) => told.deed(attempt).released = Some(at),
            }
        }
        for deeds in told.deeds.values_mut() {
            let spawned = deeds.spawned.last().copied();
            deeds.is_alive = deeds.ended.is_empty() && spawned.is_some() && spawned >= started_at;
        }
        told
    }

    fn deed(&mut self, attempt: AttemptId) -> &mut Deeds {
        self.deeds.entry(attempt).or_default()
    }
}

/// Tells what an executor offered and whom it obeyed: apart from all commits, in its own order.
fn tell_executor(items: &mut Vec<Item>, executor: &ExecutorName, told: &Told) {
    let place = Place { commit: 0, side: Side::Commit, at: Timestamp::default() };
    let subject = Subject::Executor(executor.clone());
    // Slots change with a restart, and it is not told between which commits that was.
    let most = told.opened.iter().map(|(_, _, slots)| *slots).max();
    if let (Some((_, spool, _)), Some(slots)) = (told.opened.last(), most) {
        let event = Event::Offered { executor: executor.clone(), spool: *spool, slots };
        items.push(Item { place, event, subject: subject.clone() });
    }
    for (_, spool, term) in &told.obeyed {
        let event = Event::Obeyed { executor: executor.clone(), spool: *spool, term: *term };
        items.push(Item { place, event, subject: subject.clone() });
    }
}

/// Tells of attempts that an executor took and nobody has committed, or not for it.
fn tell_strangers(
    items: &mut Vec<Item>,
    past: &Past,
    executor: &ExecutorName,
    told: &Told,
    commits: &Commits,
    bounds: &BTreeMap<AttemptId, Bounds>,
) {
    let is_anothers = |attempt: &AttemptId| {
        let row = past.attempts.get(attempt).filter(|_| past.is_judged(attempt.instance.run));
        row.is_some_and(|row| row.executor != *executor)
    };
    let strangers = |attempt: &AttemptId| past.nowhere.contains(attempt) || is_anothers(attempt);
    for (attempt, deeds) in told.deeds.iter().filter(|(attempt, _)| strangers(attempt)) {
        let placed = bounds.get(attempt).map_or(0, |bounds| bounds.placed);
        let mut tell = |at: Timestamp, event: Event| {
            let place = Place { commit: commits.at(at).max(placed), side: Side::After, at };
            items.push(Item { place, event, subject: Subject::Instance(attempt.instance) });
        };
        for (at, spool) in &deeds.accepted {
            tell(*at, Event::Received { executor: executor.clone(), spool: *spool, attempt: *attempt });
        }
        for at in &deeds.spawned {
            tell(*at, Event::Spawned { attempt: *attempt });
        }
    }
}

/// An attempt, and where what happened to it is put.
struct Process<'p> {
    row: &'p AttemptRow,
    commits: &'p Commits,
    bounds: Bounds,
    items: &'p mut Vec<Item>,
}

impl Process<'_> {
    fn tell(&mut self, deeds: &Deeds) {
        let (attempt, executor) = (self.row.attempt, self.row.executor.clone());
        for (at, spool) in &deeds.accepted {
            let place = self.between(*at);
            self.push(place, Event::Received { executor: executor.clone(), spool: *spool, attempt });
        }
        let from_row = self.row.started_at.filter(|_| deeds.spawned.is_empty());
        for spawned in deeds.spawned.iter().copied().chain(from_row) {
            let place = self.with_its_word(spawned, true);
            self.push(place, Event::Spawned { attempt });
        }
        if !deeds.spawned.is_empty() || from_row.is_some() {
            self.tell_exit(deeds);
        }
        for Ended { at, state, exit_code, .. } in &deeds.ended {
            let (executor, state, exit_code) = (executor.clone(), *state, *exit_code);
            let place = self.between(*at);
            self.push(place, Event::EndRecorded { executor, attempt, state, exit_code });
        }
        if let Some(at) = deeds.released {
            // It was told so after the commit.
            let commit = self.bounds.ended.unwrap_or(self.bounds.placed).max(self.commits.at(at));
            let place = Place { commit, side: Side::After, at };
            self.push(place, Event::Released { executor, attempt });
        }
    }

    /// Tells that nothing is left of it; not where it is live and nobody has said so.
    fn tell_exit(&mut self, deeds: &Deeds) {
        let exit = Event::Exited { attempt: self.row.attempt, exit: Exit::Unseen };
        let place = match deeds.ended.first() {
            Some(ended) => Some(self.with_its_word(ended.at, ended.is_exact)),
            // Whoever took silence for its end was wrong.
            None if deeds.is_alive && self.is_guessed() => None,
            None => self.bounds.ended.map(|_| {
                let at = self.row.ended_at.unwrap_or(self.row.moved_at);
                self.between(at)
            }),
        };
        if let Some(place) = place {
            self.push(place, exit);
        }
    }

    /// Puts what an executor says between placing and end; after the end where the executor's clock contradicts a leader
    /// who has taken silence, or a person's word, for the end.
    fn with_its_word(&self, at: Timestamp, is_exact: bool) -> Place {
        let is_later = self
            .bounds
            .ended
            .is_some_and(|ended| at > self.commits.time(ended).max(self.row.moved_at) + CLOCK_TOLERANCE);
        if self.is_guessed() && is_exact && is_later {
            return Place { commit: self.commits.at(at), side: Side::After, at };
        }
        self.between(at)
    }

    /// Tells whether it is not the executor's own word that nothing of it runs.
    const fn is_guessed(&self) -> bool {
        match self.row.proof {
            Some(Proof::OrphanTimePassed | Proof::CleanSlate | Proof::Operator) => true,
            Some(Proof::Reported | Proof::Refused | Proof::Rebooted) | None => false,
        }
    }

    fn between(&self, at: Timestamp) -> Place {
        let Bounds { placed, ended } = self.bounds;
        let last = ended.map_or(usize::MAX, |ended| ended.saturating_sub(1)).max(placed);
        let commit = self.commits.at(at).clamp(placed, last);
        Place { commit, side: Side::After, at }
    }

    fn push(&mut self, place: Place, event: Event) {
        self.items.push(Item { place, event, subject: Subject::Instance(self.row.attempt.instance) });
    }
}

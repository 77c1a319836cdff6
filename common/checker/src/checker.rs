//! The checker: takes events in the order in which they happened and notes what may not be.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use millrace_common::{
    id::{AttemptId, ExecutorName, PoolName, RunId, SpoolId, WorkflowName},
    settings::Setting,
    state::AttemptState,
    term::Term,
};

use crate::{
    attempts::{Attempt, Process},
    history::Event,
    leaders::Leading,
    runs::{Definition, Run},
};

/// What is known of the cluster beside its history.
#[derive(Debug, Clone)]
pub struct Rules {
    /// Capacity of each pool.
    pub pools: BTreeMap<PoolName, u32>,
    /// How long, in microseconds, a healthy cluster may take to answer a request: bound of L2.
    pub answers_within: u64,
    /// How long, in microseconds, after the last fault everything accepted may take to end: bound of L1.
    pub ends_within: u64,
    /// What is not complained about.
    pub waived: BTreeSet<Waiver>,
    /// Whether the history holds only what rows and ledgers keep of it: not every transaction leaves a row, and of runs
    /// it is not known how many were active at each moment.
    pub is_sparse: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            pools: BTreeMap::new(),
            answers_within: 30_000_000,
            ends_within: 4 * 3_600_000_000,
            waived: BTreeSet::new(),
            is_sparse: false,
        }
    }
}

/// An assumption of the protocol that a history breaks on purpose, and what may go wrong because of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Waiver {
    /// Leases of the election service do not hold: what rests on time alone (I6, I13 by [`Proof::TimePassed`]) may break,
    /// and a leader may send after its authority (I14).
    ///
    /// [`Proof::TimePassed`]: crate::Proof::TimePassed
    LeasesLie,
}

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// When it was noticed, in microseconds of the history's clock.
    pub at: u64,
    /// Its number in `ARCHITECTURE.md`; `closed` where an executor was given what a person keeps from it, `paused` and `setting` where a live setting does not count, `history` where the history contradicts itself.
    pub rule: &'static str,
    /// What is wrong, with ids.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// Everything that a history has told so far.
#[derive(Debug, Default)]
pub struct Checker {
    pub(crate) rules: Rules,
    pub(crate) at: u64,
    pub(crate) leading: Leading,
    pub(crate) definitions: BTreeMap<WorkflowName, Definition>,
    pub(crate) runs: BTreeMap<RunId, Run>,
    pub(crate) keys: BTreeMap<(WorkflowName, String), RunId>,
    pub(crate) attempts: BTreeMap<AttemptId, Attempt>,
    /// Attempts without an end, by executor.
    pub(crate) live: BTreeMap<ExecutorName, BTreeSet<AttemptId>>,
    /// The spool and the slots of each executor.
    pub(crate) offers: BTreeMap<ExecutorName, (SpoolId, u32)>,
    pub(crate) processes: BTreeMap<AttemptId, Process>,
    /// How attempts ended by their executors' own records.
    pub(crate) recorded: BTreeMap<AttemptId, (AttemptState, Option<i32>)>,
    pub(crate) obeyed: BTreeMap<SpoolId, Term>,
    pub(crate) gone: BTreeSet<ExecutorName>,
    /// Executors that are closed to starts.
    pub(crate) closed: BTreeSet<ExecutorName>,
    /// Live settings in force, by name.
    pub(crate) settings: BTreeMap<String, Setting>,
    /// What clients were told, by workflow and key.
    pub(crate) acknowledged: BTreeMap<(WorkflowName, String), RunId>,
    pub(crate) pending: BTreeMap<u64, u64>,
    pub(crate) healed_at: Option<u64>,
    pub(crate) violations: Vec<Violation>,
}

impl Checker {
    /// Makes a checker of a cluster of which nothing has happened.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// Takes in what happened next, at `at` microseconds of one clock for the whole history.
    pub fn record(&mut self, at: u64, event: &Event) {
        self.at = at;
        match event {
            Event::Claimed { term, holder } => self.on_claimed(*term, holder),
            Event::Committed { term, seq, facts } => {
                self.on_committed(*term, *seq);
                for fact in facts {
                    self.on_fact(fact);
                }
            }
            Event::Sent { term, checked_at, authority_until } => {
                self.on_sent(*term, *checked_at, *authority_until);
            }
            Event::Offered { executor, spool, slots } => {
                self.offers.insert(executor.clone(), (*spool, *slots));
            }
            Event::Received { executor, spool, attempt } => self.on_received(executor, *spool, *attempt),
            Event::Released { executor, attempt } => self.on_released(executor, *attempt),
            Event::Obeyed { executor, spool, term } => self.on_obeyed(executor, *spool, *term),
            Event::Spawned { attempt } => self.on_spawned(*attempt),
            Event::Exited { attempt, exit } => self.on_exited(*attempt, *exit),
            Event::EndRecorded { executor, attempt, state, exit_code } => {
                self.on_end_recorded(executor, *attempt, *state, *exit_code);
            }
            Event::Frozen { executor } => self.on_frozen(executor),
            Event::Asked { request } => {
                self.pending.insert(*request, at);
            }
            Event::Answered { request, answer } => self.on_answered(*request, answer),
            Event::Healed => self.healed_at = Some(at),
            Event::Gone { executor } => {
                self.gone.insert(executor.clone());
            }
        }
    }

    /// Returns what was wrong so far.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.violations
    }

    /// Returns the runs that the history has told of.
    #[must_use]
    pub const fn runs(&self) -> &BTreeMap<RunId, Run> {
        &self.runs
    }

    /// Tells whether every one of these runs has ended, or waits for an operator.
    #[must_use]
    pub fn have_ended(&self, runs: &[RunId]) -> bool {
        let is_done = |run: &RunId| self.runs.get(run).is_some_and(|run| run.state.is_final());
        runs.iter().all(is_done) || {
            let waiting = self.waiting_for_an_operator();
            runs.iter().all(|run| is_done(run) || waiting.contains(run))
        }
    }

    /// Takes the history as complete, at `at`: notes what should have happened by now.
    pub fn finish(&mut self, at: u64) -> &[Violation] {
        self.at = at;
        self.check_answers();
        self.check_acknowledged();
        self.check_schedules();
        self.check_ended();
        &self.violations
    }

    pub(crate) fn fail(&mut self, rule: &'static str, what: String) {
        self.violations.push(Violation { at: self.at, rule, what });
    }

    pub(crate) fn ensure(&mut self, holds: bool, rule: &'static str, what: impl FnOnce() -> String) {
        if !holds {
            self.fail(rule, what());
        }
    }

    pub(crate) fn is_waived(&self, waiver: Waiver) -> bool {
        self.rules.waived.contains(&waiver)
    }

    /// Returns another attempt of the same task instance of which something is alive, one after a freeze aside.
    pub(crate) fn living_beside(&self, attempt: AttemptId) -> Option<AttemptId> {
        let instance = attempt.instance;
        let processes = self.processes.range(instance.attempt(0)..=instance.attempt(u32::MAX));
        processes.filter(|(id, process)| **id != attempt && process.counts()).map(|(id, _)| *id).next()
    }
}

/// Checks a whole history; its events are ordered by when they happened.
#[must_use]
pub fn check(rules: Rules, history: &[(u64, Event)]) -> Vec<Violation> {
    let mut checker = Checker::new(rules);
    for (at, event) in history {
        checker.record(*at, event);
    }
    checker.finish(history.last().map_or(0, |(at, _)| *at));
    checker.violations
}

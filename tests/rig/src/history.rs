//! What is left behind of a scenario, from those who cannot err together: the database's own notes of every committed
//! write, the witnesses' file, and what clients were told. Merged by time it is what the checker reads.

pub(crate) mod audit;
mod translate;
pub(crate) mod witness;

use std::collections::{BTreeMap, BTreeSet};

use millrace_checker::{Answer, Checker, End, Event, Fact, Rules, Violation};
use millrace_common::{
    id::{AttemptId, ExecutorName, InstanceId, RunId, WorkflowName},
    state::AttemptState,
    term::Term,
};

pub(crate) use self::{
    audit::Row,
    witness::{Life, Overlap},
};

/// Everything that is known of what happened.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    /// Ordered by time.
    pub(crate) events: Vec<(u64, Event)>,
    /// How long each attempt lived, by its witness.
    pub(crate) lives: BTreeMap<AttemptId, Life>,
    /// Second holders of a lock.
    pub(crate) overlaps: Vec<Overlap>,
    /// What no event can say: writes outside the fence, lines that cannot be read.
    pub(crate) problems: Vec<String>,
}

impl History {
    /// Returns the attempts that have ended, as the database has it.
    pub(crate) fn ended_attempts(&self) -> BTreeSet<AttemptId> {
        let committed = self.events.iter().filter_map(|(_, event)| match event {
            Event::Committed { facts, .. } => Some(facts),
            _ => None,
        });
        let ended = committed.flatten().filter_map(|fact| match fact {
            Fact::AttemptEnded { attempt, .. } => Some(*attempt),
            _ => None,
        });
        ended.collect()
    }
}

/// What a history is made of, as it was collected.
#[derive(Debug, Clone, Default)]
pub(crate) struct Collected {
    /// The database's notes, in the order in which they were committed.
    pub(crate) rows: Vec<Row>,
    /// The witnesses' file, read after the notes.
    pub(crate) witness: String,
    /// What the clients and the scenario noted, ordered by time.
    pub(crate) noted: Vec<(u64, Event)>,
    /// How many slots each executor has.
    pub(crate) slots: u32,
    /// What to add to the database's times.
    pub(crate) wall_to_boot: i64,
    /// When the reading began.
    pub(crate) read_at: u64,
}

impl Collected {
    /// Forgets transactions that were committed while it was collected: of what followed from them too little is known.
    pub(crate) fn settle(&mut self) {
        let (offset, read_at) = (self.wall_to_boot, self.read_at);
        let is_later =
            |row: &Row| row.what == "leadership" && u64::try_from(row.at + offset).unwrap_or(0) >= read_at;
        if let Some(end) = self.rows.iter().position(is_later) {
            self.rows.truncate(end);
        }
    }

    /// Puts it together.
    pub(crate) fn history(&self) -> History {
        let mut history = History::default();
        let (committed, problems) = translate::events(&self.rows, self.slots, self.wall_to_boot);
        history.problems.extend(problems);
        match witness::read(&self.witness) {
            Ok(read) => {
                history.lives = read.lives;
                history.overlaps = read.overlaps;
                history.events = merge(committed, read.events, self);
            }
            Err(error) => history.problems.push(format!("the witnesses' file: {error}")),
        }
        history
    }
}

/// Merges what happened before the reading began, by time; what the database says of a moment comes first, since it noted
/// it before it was durable. What happened later is only partly known.
fn merge(committed: Vec<(u64, Event)>, witnessed: Vec<(u64, Event)>, from: &Collected) -> Vec<(u64, Event)> {
    let mut events = committed;
    events.extend(witnessed);
    events.extend(from.noted.iter().cloned());
    events.retain(|(at, _)| *at < from.read_at);
    events.sort_by_key(|(at, _)| *at);
    events
}

/// Counts and times that a history gives.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures {
    pub(crate) runs: usize,
    pub(crate) attempts: usize,
    pub(crate) ended: BTreeMap<AttemptState, usize>,
    /// Attempts that failed without an exit code of their own: something ended them.
    pub(crate) broken_off: usize,
    /// Attempts beyond the first of their task instance.
    pub(crate) repeated: usize,
    /// Those of them that follow something else than a failure of the task itself.
    pub(crate) disturbed: Vec<(u64, AttemptId)>,
    /// How each attempt ended.
    pub(crate) ends: BTreeMap<AttemptId, (u64, End)>,
    /// When each run was committed, and when a client was first told of it.
    pub(crate) created: BTreeMap<RunId, u64>,
    pub(crate) acknowledged: BTreeMap<RunId, u64>,
    /// The workflow of each run.
    pub(crate) workflows: BTreeMap<RunId, WorkflowName>,
    pub(crate) executors: BTreeMap<AttemptId, ExecutorName>,
    pub(crate) lives: BTreeMap<AttemptId, Life>,
    pub(crate) claims: Vec<(u64, Term)>,
    /// When each attempt was committed as assigned, in order.
    pub(crate) assigned: Vec<(u64, AttemptId)>,
    /// The first transaction of each term.
    pub(crate) first_commits: BTreeMap<Term, u64>,
    /// How many transactions the busiest term had.
    pub(crate) longest_term: u64,
    /// The longest time that two attempts of an instance lived side by side, in microseconds.
    pub(crate) overlap: u64,
    /// The shortest time between the last sign of an attempt and the first of the next one.
    pub(crate) gap: Option<u64>,
}

impl Figures {
    pub(crate) fn of(history: &History) -> Self {
        let mut figures = Self::default();
        for (at, event) in &history.events {
            match event {
                Event::Claimed { term, .. } => figures.claims.push((*at, *term)),
                Event::Committed { term, seq, facts } => {
                    figures.longest_term = figures.longest_term.max(*seq);
                    figures.first_commits.entry(*term).or_insert(*at);
                    facts.iter().for_each(|fact| figures.add(*at, fact));
                }
                Event::Answered { answer: Answer::RunStarted { run, .. }, .. } => {
                    figures.acknowledged.entry(*run).or_insert(*at);
                }
                _ => {}
            }
        }
        figures.measure_lives(&history.lives);
        figures.lives.clone_from(&history.lives);
        figures
    }

    fn add(&mut self, at: u64, fact: &Fact) {
        match fact {
            Fact::RunCreated { run, workflow, .. } => {
                self.runs += 1;
                self.created.insert(*run, at);
                self.workflows.insert(*run, workflow.clone());
            }
            Fact::AttemptAssigned { attempt, executor, .. } => {
                self.attempts += 1;
                self.executors.insert(*attempt, executor.clone());
                self.assigned.push((at, *attempt));
                if attempt.number > 1 {
                    self.repeated += 1;
                    let before = self.ends.get(&attempt.instance.attempt(attempt.number - 1));
                    if before.is_some_and(|(_, end)| !is_own_failure(end)) {
                        self.disturbed.push((at, *attempt));
                    }
                }
            }
            Fact::AttemptEnded { attempt, end } => {
                self.ends.insert(*attempt, (at, *end));
                *self.ended.entry(end.state).or_default() += 1;
                self.broken_off += usize::from(end.state == AttemptState::Failed && end.exit_code.is_none());
            }
            _ => {}
        }
    }

    fn measure_lives(&mut self, lives: &BTreeMap<AttemptId, Life>) {
        let mut last: Option<(InstanceId, Life)> = None;
        for (attempt, life) in lives {
            if let Some((_, before)) = last.filter(|(instance, _)| *instance == attempt.instance) {
                self.overlap = self.overlap.max(before.last.min(life.last).saturating_sub(life.first));
                let gap = life.first.saturating_sub(before.last);
                self.gap = Some(self.gap.map_or(gap, |least| least.min(gap)));
            }
            last = Some((attempt.instance, *life));
        }
    }

    /// Returns the attempts of a workflow's runs.
    pub(crate) fn attempts_of<'f>(&'f self, workflow: &'f str) -> impl Iterator<Item = AttemptId> + 'f {
        let is_of = move |attempt: &AttemptId| {
            self.workflows.get(&attempt.instance.run).is_some_and(|name| name.as_str() == workflow)
        };
        self.assigned.iter().map(|(_, attempt)| *attempt).filter(is_of)
    }

    /// Returns how many runs were committed before `at` and acknowledged after it.
    pub(crate) fn unacknowledged_at(&self, at: u64) -> usize {
        let told = |run: &RunId| self.acknowledged.get(run).is_some_and(|told| *told > at);
        self.created.iter().filter(|(run, created)| **created <= at && told(run)).count()
    }

    /// Returns how many attempts were committed as assigned before `at` and began after it.
    pub(crate) fn unstarted_at(&self, at: u64) -> usize {
        let begins = |attempt: &AttemptId| self.lives.get(attempt).is_some_and(|life| life.first > at);
        self.assigned.iter().filter(|(assigned, attempt)| *assigned <= at && begins(attempt)).count()
    }

    /// Returns how many attempts had ended before `at` by their own account, and by the database's after it.
    pub(crate) fn unreported_at(&self, at: u64) -> usize {
        let recorded =
            |attempt: &AttemptId| self.ends.get(attempt).is_some_and(|(recorded, _)| *recorded > at);
        self.lives
            .iter()
            .filter(|(attempt, life)| life.is_ended && life.last <= at && recorded(attempt))
            .count()
    }

    /// Returns how many attempts ended in a state.
    pub(crate) fn count(&self, state: AttemptState) -> usize {
        self.ended.get(&state).copied().unwrap_or(0)
    }

    /// Returns how long after `at` a later term's first claim was committed.
    pub(crate) fn claimed_after(&self, at: u64) -> Option<u64> {
        self.claims
            .iter()
            .map(|(claimed, _)| *claimed)
            .find(|claimed| *claimed > at)
            .map(|claimed| claimed - at)
    }

    /// Returns how long after `at` the next attempt was dispatched by a term that was claimed after `at`.
    pub(crate) fn dispatched_after(&self, at: u64) -> Option<u64> {
        let claimed = at + self.claimed_after(at)?;
        let next = self.assigned.iter().map(|(assigned, _)| *assigned).find(|assigned| *assigned >= claimed);
        next.map(|assigned| assigned - at)
    }
}

/// Tells whether a task failed by itself, so that trying again is what its definition asks for.
fn is_own_failure(end: &End) -> bool {
    let by_itself = end.state == AttemptState::Failed && end.exit_code.is_some();
    by_itself || end.state == AttemptState::TimedOut
}

/// Lets the checker judge a history that was read at `at`.
pub(crate) fn judge(rules: Rules, history: &History, at: u64) -> Vec<Violation> {
    let mut checker = Checker::new(rules);
    for (at, event) in &history.events {
        checker.record(*at, event);
    }
    let mut found = checker.finish(at).to_vec();
    for overlap in &history.overlaps {
        let what =
            format!("{} finds the lock of its task instance held by {}", overlap.attempt, overlap.holder);
        found.push(Violation { at: overlap.at, rule: "I6", what });
    }
    let problems = history.problems.iter().map(|what| Violation { at, rule: "history", what: what.clone() });
    found.extend(problems);
    found
}

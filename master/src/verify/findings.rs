//! What the checker says of a history, with the rows that contradict each other, and what could not be looked at.

use std::collections::{BTreeMap, BTreeSet};

use millrace_checker::{Checker, Event, Fact, Rules, Skipped, Violation};
use millrace_common::{
    id::{ExecutorName, InstanceId, RunId, SpoolId, WorkflowName},
    term::Term,
    time::Timestamp,
};
use millrace_store::query::{AttemptRow, ClaimRow};

use super::{
    Ledger, Ledgers, Range,
    ledger::What,
    past::{Past, Served},
    timeline::{Subject, Timeline},
};

/// Findings that are handed out.
const FOUND_MAX: usize = 500;
/// Rows that one finding shows.
const ROWS_MAX: usize = 24;
/// Invariants that only an executor's own history tells of.
const BY_LEDGER: [&str; 7] = ["I4", "I5", "I6", "I10", "I12", "I13", "I15"];

/// What was found.
#[derive(Debug)]
pub(crate) struct Findings {
    pub(crate) found: Vec<Found>,
    pub(crate) is_truncated: bool,
    pub(crate) unjudged: Vec<Unjudged>,
    pub(crate) runs: usize,
    pub(crate) attempts: usize,
    pub(crate) claims: usize,
    /// Each executor: why its history was not read, or since when it is kept and how much there was.
    pub(crate) executors: Vec<(ExecutorName, Result<Extent, String>)>,
}

/// Since when a history is kept, where something of it was deleted, and how many entries were read.
pub(crate) type Extent = (Option<Timestamp>, usize);

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) rule: &'static str,
    pub(crate) what: String,
    /// The rows that contradict each other.
    pub(crate) rows: Vec<String>,
}

/// Invariants that were not judged, or not for everything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unjudged {
    pub(crate) rules: Vec<&'static str>,
    pub(crate) why: String,
}

/// Judges a history.
pub(super) fn judged(range: Range, past: &Past, ledgers: &Ledgers, timeline: Timeline) -> Findings {
    let unjudged = unjudged(range, past, ledgers, &timeline);
    let evidence = Evidence::new(past, ledgers);
    let mut found: Vec<Found> = Vec::new();
    let mut told = BTreeSet::new();
    let mut note = |violation: &Violation, subject: &Subject| {
        // One contradiction may show at several events.
        if told.insert((violation.rule, violation.what.clone())) && found.len() <= FOUND_MAX {
            let rows = evidence.rows(subject);
            found.push(Found { rule: violation.rule, what: violation.what.clone(), rows });
        }
    };
    let mut checker = Checker::new(sparse());
    for item in timeline.items {
        let known = checker.violations().len();
        let at = u64::try_from(item.place.at.as_micros()).unwrap_or(0);
        checker.record(at, &item.event);
        for violation in checker.violations().iter().skip(known) {
            note(violation, &item.subject);
        }
    }
    for served in &past.served {
        for violation in check_served(served) {
            note(&violation, &Subject::Workflow(served.row.workflow.clone()));
        }
    }
    let is_truncated = found.len() > FOUND_MAX;
    found.truncate(FOUND_MAX);
    Findings {
        found,
        is_truncated,
        unjudged,
        runs: past.runs.len(),
        attempts: past.attempts.len(),
        claims: past.claims.len(),
        executors: ledgers.iter().map(|(name, read)| (name.clone(), told_of(read))).collect(),
    }
}

fn told_of<E: ToString>(read: &Result<Ledger, E>) -> Result<Extent, String> {
    match read {
        Ok(ledger) => Ok((ledger.begins_at, ledger.entries.len())),
        Err(error) => Err(error.to_string()),
    }
}

fn sparse() -> Rules {
    Rules { is_sparse: true, ..Rules::default() }
}

/// Judges what a schedule fired and passed over.
fn check_served(served: &Served) -> Vec<Violation> {
    let mut checker = Checker::new(sparse());
    let workflow = &served.row.workflow;
    let mut tell = |fact: Fact| {
        checker.record(0, &Event::Committed { term: Term(0), seq: 0, facts: vec![fact] });
    };
    tell(Fact::WorkflowApplied { version: served.row.version, source: served.row.source.clone() });
    let cursor = |cursor, skipped| Fact::CursorMoved { workflow: workflow.clone(), cursor, skipped };
    tell(cursor(served.since, None));
    for skip in &served.skipped {
        tell(cursor(served.since, Some(Skipped { first: skip.first, last: skip.last })));
    }
    tell(cursor(served.until, None));
    for at in &served.fired {
        tell(Fact::Fired { workflow: workflow.clone(), at: *at });
    }
    checker.finish(0).to_vec()
}

/// Says what could not be looked at.
fn unjudged(range: Range, past: &Past, ledgers: &Ledgers, timeline: &Timeline) -> Vec<Unjudged> {
    let mut unjudged = Vec::new();
    let mut note =
        |rules: &[&'static str], why: String| unjudged.push(Unjudged { rules: rules.to_vec(), why });
    for (executor, read) in ledgers {
        match read {
            Err(error) => {
                note(&BY_LEDGER, format!("the history of executor {executor} was not read: {error}"))
            }
            Ok(ledger) => {
                if let Some(begins_at) = ledger.begins_at.filter(|at| *at > range.since) {
                    let why = format!("executor {executor} keeps its history from {begins_at} on only");
                    note(&BY_LEDGER, why);
                }
            }
        }
    }
    for (executor, spool) in lost_spools(past, ledgers) {
        let why = format!(
            "nobody holds spool {spool} of executor {executor} any more, nor what it has written down"
        );
        note(&BY_LEDGER, why);
    }
    for (workflow, version) in &timeline.unread {
        let why = format!(
            "version {version} of the definition of workflow {workflow} cannot be read by this master"
        );
        note(&["I3", "I6", "I9", "I10", "I11", "I13"], why);
    }
    for workflow in &past.unreadable {
        note(&["I7"], format!("the definition of workflow {workflow} cannot be read by this master"));
    }
    for workflow in &past.too_busy {
        note(&["I7"], format!("workflow {workflow} fired too often in this range: ask for a shorter one"));
    }
    if past.has_more_strangers {
        let why = "executors tell of more unknown attempts than were looked up: ask for a shorter range";
        note(&["I4"], why.to_owned());
    }
    if timeline.has_unrecorded_claims {
        let why = "some claims are not recorded: they were made before claims were, or by an older program";
        note(&["I1", "I2"], why.to_owned());
    }
    unjudged
}

/// Returns spools that attempts of the range were assigned to and that no history tells of.
fn lost_spools(past: &Past, ledgers: &Ledgers) -> BTreeSet<(ExecutorName, SpoolId)> {
    let is_told = |row: &AttemptRow| match ledgers.get(&row.executor) {
        Some(Ok(ledger)) => ledger
            .entries
            .iter()
            .any(|entry| matches!(entry.what, What::Opened { spool, .. } if spool == row.spool)),
        // That its history was not read is said already.
        Some(Err(_)) | None => true,
    };
    let mut known: BTreeMap<(&ExecutorName, SpoolId), bool> = BTreeMap::new();
    for row in past.attempts.values() {
        known.entry((&row.executor, row.spool)).or_insert_with(|| is_told(row));
    }
    let lost = known.into_iter().filter(|(_, is_told)| !is_told);
    lost.map(|((executor, spool), _)| (executor.clone(), spool)).collect()
}

/// Finds the rows that a violation rests on.
struct Evidence<'p> {
    past: &'p Past,
    ledgers: &'p Ledgers,
}

impl<'p> Evidence<'p> {
    const fn new(past: &'p Past, ledgers: &'p Ledgers) -> Self {
        Self { past, ledgers }
    }

    fn rows(&self, subject: &Subject) -> Vec<String> {
        let mut rows = match subject {
            Subject::Claim(term) => self.of_claim(*term),
            Subject::Run(run) => self.of_run(*run),
            Subject::Instance(instance) => self.of_instance(*instance),
            Subject::Workflow(workflow) => self.of_schedule(workflow),
            Subject::Executor(executor) => self.of_executor(executor),
        };
        if rows.len() > ROWS_MAX {
            let more = rows.len() - ROWS_MAX;
            rows.truncate(ROWS_MAX);
            rows.push(format!("and {more} more"));
        }
        rows
    }

    /// The claim, the one that it followed, and those that followed it.
    fn of_claim(&self, term: Term) -> Vec<String> {
        let claims = &self.past.claims;
        let before = claims.iter().find(|row| row.term == term).map(|row| row.after.0);
        let is_near = |row: &&ClaimRow| row.term == term || Some(row.term) == before || row.after.0 == term;
        let shown = |row: &ClaimRow| {
            let (after, seq) = row.after;
            format!(
                "claim: term {} by {} at {}, after transaction {seq} of term {after}",
                row.term, row.holder, row.at
            )
        };
        claims.iter().filter(is_near).map(shown).collect()
    }

    fn of_run(&self, run: RunId) -> Vec<String> {
        let Some(row) = self.past.runs.get(&run) else { return Vec::new() };
        let ended = row.ended_at.map_or_else(String::new, |at| format!(", ended at {at}"));
        let mut rows = vec![format!(
            "run {run}: {} of {} version {}, created at {}{ended}",
            row.state, row.workflow, row.version, row.created_at
        )];
        for task in self.past.tasks.get(&run).into_iter().flatten() {
            rows.push(format!("task instance {}: {}", task.instance, task.state));
        }
        rows
    }

    /// Its own row, those of its upstream tasks, its attempts, and what executors have written down of these.
    fn of_instance(&self, instance: InstanceId) -> Vec<String> {
        let mut rows = Vec::new();
        for index in self.upstream(instance).into_iter().chain([instance.index]) {
            let tasks = self.past.tasks.get(&instance.run).into_iter().flatten();
            for task in tasks.filter(|task| task.instance.index == index) {
                rows.push(format!("task instance {}: {}", task.instance, task.state));
            }
        }
        let attempts = self.past.attempts.range(instance.attempt(0)..=instance.attempt(u32::MAX));
        rows.extend(attempts.map(|(_, row)| shown(row)));
        for (executor, ledger) in
            self.ledgers.iter().filter_map(|(name, read)| Some((name, read.as_ref().ok()?)))
        {
            let is_of_it = |what: &What| what.attempt().is_some_and(|attempt| attempt.instance == instance);
            let entries = ledger.entries.iter().filter(|entry| is_of_it(&entry.what));
            rows.extend(
                entries.map(|entry| format!("history of {executor}: {} {}", entry.at, entry.what.shown())),
            );
        }
        rows
    }

    fn upstream(&self, instance: InstanceId) -> Vec<u32> {
        let Some(run) = self.past.runs.get(&instance.run) else { return Vec::new() };
        let read = self.past.definitions.get(&(run.workflow.clone(), run.version));
        let graph = read.and_then(Option::as_ref).map(|read| &read.workflow.graph);
        graph
            .filter(|graph| (instance.index as usize) < graph.len())
            .map_or_else(Vec::new, |graph| graph.upstream(instance.index).to_vec())
    }

    fn of_schedule(&self, workflow: &WorkflowName) -> Vec<String> {
        let served = self.past.served.iter().filter(|served| served.row.workflow == *workflow);
        let shown = |served: &Served| {
            format!(
                "workflow {workflow}: version {} since {}, looked at from {} to {}: {} intervals fired, {} records of skipped ones",
                served.row.version,
                served.row.applied_at,
                served.since,
                served.until,
                served.fired.len(),
                served.skipped.len()
            )
        };
        served.map(shown).collect()
    }

    fn of_executor(&self, executor: &ExecutorName) -> Vec<String> {
        let Some(Ok(ledger)) = self.ledgers.get(executor) else { return Vec::new() };
        let is_of_it = |what: &What| what.attempt().is_none();
        let entries = ledger.entries.iter().filter(|entry| is_of_it(&entry.what));
        entries.map(|entry| format!("history of {executor}: {} {}", entry.at, entry.what.shown())).collect()
    }
}

fn shown(row: &AttemptRow) -> String {
    let (term, seq) = row.assigned_in;
    let mut text = format!(
        "attempt {}: {} on {}, placed at {} in transaction {seq} of term {term}",
        row.attempt, row.state, row.executor, row.assigned_at
    );
    if let Some(at) = row.started_at {
        text.push_str(&format!(", started at {at}"));
    }
    if let Some(at) = row.ended_at {
        text.push_str(&format!(", gone at {at}"));
    }
    if let Some((term, seq)) = row.ended_in {
        text.push_str(&format!(", ended in transaction {seq} of term {term}"));
    }
    if let Some(code) = row.exit_code {
        text.push_str(&format!(", exit code {code}"));
    }
    if let Some(proof) = row.proof {
        text.push_str(&format!(", proof {proof:?}"));
    }
    text
}

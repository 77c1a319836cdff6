//! One history from rows and ledgers, in the order of commits.
//!
//! Rows tell when an attempt was placed and how it ended, and of a task or a run only where it stands. The moves between
//! are put back in at the commits that must have made them: a task became ready right before its first attempt was placed,
//! it moved on with the end of an attempt, and what never had an attempt moved as soon as its upstream tasks said so.
//! Whether that was right is for the checker to say.

use std::collections::{BTreeMap, BTreeSet};

use millrace_checker::{End, Event, Fact, Proof as Shown, Says, says};
use millrace_common::{
    id::{AttemptId, ExecutorName, InstanceId, RunId, WorkflowName},
    state::{RunState, TaskState},
    term::Term,
    time::Timestamp,
    workflow::Workflow,
};
use millrace_core::{Proof, Trigger};
use millrace_store::query::{AttemptRow, RunRow};

use super::{
    Ledgers,
    order::{Order, Position},
    past::Past,
    processes,
};

/// A number that no transaction reaches: what is told last.
const LAST: u64 = u64::MAX - 1;

/// What an event is about: its rows are shown with a violation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    Claim(Term),
    Run(RunId),
    Instance(InstanceId),
    Workflow(WorkflowName),
    Executor(ExecutorName),
}

/// Where an event stands: between which commits, and when among what happened there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) commit: usize,
    pub(super) side: Side,
    pub(super) at: Timestamp,
}

/// Events of a commit come first, then what happened before the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Commit,
    After,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) place: Place,
    pub(super) event: Event,
    pub(super) subject: Subject,
}

/// A history, in its order.
#[derive(Debug)]
pub(super) struct Timeline {
    pub(super) items: Vec<Item>,
    /// Runs whose definition cannot be read: nothing of them was judged.
    pub(super) unread: BTreeSet<(WorkflowName, u32)>,
    /// Whether a claim is not recorded.
    pub(super) has_unrecorded_claims: bool,
}

/// The commits that rows tell of, in their order, with the time of each by the clocks of leaders; times never fall.
#[derive(Debug)]
pub(super) struct Commits {
    times: Vec<Timestamp>,
    index: BTreeMap<Position, usize>,
}

impl Commits {
    /// Returns the last commit at or before a time.
    pub(super) fn at(&self, time: Timestamp) -> usize {
        self.times.partition_point(|commit| *commit <= time).saturating_sub(1)
    }

    pub(super) fn time(&self, commit: usize) -> Timestamp {
        self.times.get(commit).copied().unwrap_or_default()
    }

    fn of(&self, position: Position) -> usize {
        self.index.get(&position).copied().unwrap_or_default()
    }
}

/// The commits that placed and ended an attempt.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) placed: usize,
    pub(super) ended: Option<usize>,
}

/// What a transaction did to an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    // Ends come first: they make room for the next attempt in the same transaction.
    Ended(AttemptId),
    Placed(AttemptId),
}

impl Timeline {
    pub(super) fn of(past: &Past, ledgers: &Ledgers) -> Self {
        let written = past.attempts.values().flat_map(|row| [Some(row.assigned_in), row.ended_in]).flatten();
        let order = Order::of(&past.claims, &written.map(|(term, _)| term).collect());
        let (commits, steps) = commits(past, &order);
        let mut rows = Rows::new(past);
        rows.tell_definitions();
        for (index, (term, row)) in order.claims.iter().enumerate() {
            rows.tell_claim(commits.of(Order::of_claim(index)), *term, row.as_ref().map(|row| &*row.holder));
        }
        for (position, (transaction, steps)) in &steps {
            rows.begin(commits.of(*position), commits.time(commits.of(*position)), *transaction);
            for step in steps {
                rows.take(*step);
            }
        }
        let last = order.claims.last().map_or(Term(0), |(term, _)| *term);
        rows.begin(commits.times.len(), Timestamp::default(), (last, LAST));
        rows.close();
        let bounds = past.attempts.values().map(|row| {
            let at = |transaction| commits.of(order.position(transaction));
            (row.attempt, Bounds { placed: at(row.assigned_in), ended: row.ended_in.map(at) })
        });
        let mut items = rows.items;
        items.extend(processes::items(past, ledgers, &commits, &bounds.collect()));
        // Stable: what is told in one place keeps its order.
        items.sort_by_key(|item| item.place);
        let has_unrecorded_claims = order.claims.iter().any(|(_, row)| row.is_none());
        Self { items, unread: rows.unread, has_unrecorded_claims }
    }
}

/// Steps by position, each with the transaction that took them.
type Steps = BTreeMap<Position, ((Term, u64), BTreeSet<Step>)>;

/// Returns all commits in their order: claims and what attempts tell of.
fn commits(past: &Past, order: &Order) -> (Commits, Steps) {
    let mut steps = Steps::new();
    let mut times: BTreeMap<Position, Timestamp> = BTreeMap::new();
    let mut note = |transaction: (Term, u64), at: Timestamp, step: Step| {
        let position = order.position(transaction);
        steps.entry(position).or_insert_with(|| (transaction, BTreeSet::new())).1.insert(step);
        let noted = times.entry(position).or_insert(at);
        *noted = at.max(*noted);
    };
    for row in past.attempts.values().filter(|row| past.runs.contains_key(&row.attempt.instance.run)) {
        note(row.assigned_in, row.assigned_at, Step::Placed(row.attempt));
        if let Some(ended_in) = row.ended_in {
            note(ended_in, row.moved_at, Step::Ended(row.attempt));
        }
    }
    for index in 0..order.claims.len() {
        times.entry(Order::of_claim(index)).or_default();
    }
    let mut latest = Timestamp::default();
    let index = times.keys().enumerate().map(|(at, position)| (*position, at)).collect();
    let times = times.into_values().map(|at| {
        latest = latest.max(at);
        latest
    });
    (Commits { times: times.collect(), index }, steps)
}

/// Tells what rows know, commit by commit.
struct Rows<'p> {
    past: &'p Past,
    runs: BTreeMap<RunId, Model<'p>>,
    items: Vec<Item>,
    unread: BTreeSet<(WorkflowName, u32)>,
    commit: usize,
    at: Timestamp,
    transaction: (Term, u64),
}

/// A run on its way to what its rows say.
struct Model<'p> {
    row: &'p RunRow,
    workflow: &'p Workflow,
    has_begun: bool,
    /// Where its tasks stand now.
    tasks: Vec<TaskState>,
    /// Where their rows say that they stand in the end.
    rows: Vec<TaskState>,
}

impl<'p> Rows<'p> {
    fn new(past: &'p Past) -> Self {
        Self {
            past,
            runs: BTreeMap::new(),
            items: Vec::new(),
            unread: BTreeSet::new(),
            commit: 0,
            at: Timestamp::default(),
            transaction: (Term(0), 0),
        }
    }

    /// Tells all definitions and runs before anything else: nothing rests on when they came.
    fn tell_definitions(&mut self) {
        for ((name, version), definition) in &self.past.definitions {
            match definition {
                Some(read) => {
                    let fact = Fact::WorkflowApplied { version: *version, source: read.source.clone() };
                    self.tell(Subject::Workflow(name.clone()), fact);
                }
                None => {
                    self.unread.insert((name.clone(), *version));
                }
            }
        }
        for row in self.past.runs.values() {
            let key = (row.workflow.clone(), row.version);
            let Some(Some(read)) = self.past.definitions.get(&key) else { continue };
            let model = Model::new(row, &read.workflow, self.past);
            self.tell(
                Subject::Run(row.run),
                Fact::RunCreated {
                    run: row.run,
                    workflow: row.workflow.clone(),
                    version: row.version,
                    fired_for: None,
                    key: row.key.as_ref().map(ToString::to_string),
                },
            );
            self.runs.insert(row.run, model);
        }
    }

    fn tell_claim(&mut self, commit: usize, term: Term, holder: Option<&str>) {
        let holder = holder.unwrap_or("somebody who is not recorded").to_owned();
        let place = Place { commit, side: Side::Commit, at: self.at };
        self.items.push(Item {
            place,
            event: Event::Claimed { term, holder },
            subject: Subject::Claim(term),
        });
    }

    fn begin(&mut self, commit: usize, at: Timestamp, transaction: (Term, u64)) {
        (self.commit, self.at, self.transaction) = (commit, at, transaction);
    }

    fn tell(&mut self, subject: Subject, fact: Fact) {
        let (term, seq) = self.transaction;
        // By the order in which it is told.
        let place = Place { commit: self.commit, side: Side::Commit, at: self.at };
        self.items.push(Item { place, event: Event::Committed { term, seq, facts: vec![fact] }, subject });
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Placed(attempt) => self.on_placed(attempt),
            Step::Ended(attempt) => self.on_ended(attempt),
        }
    }

    fn on_placed(&mut self, attempt: AttemptId) {
        let past = self.past;
        let Some(row) = past.attempts.get(&attempt) else { return };
        let instance = attempt.instance;
        self.ensure_begun(instance.run);
        let Some(model) = self.runs.get(&instance.run) else { return };
        // A task that its definition does not have: the checker says so.
        let from = model.tasks.get(instance.index as usize).copied().unwrap_or(TaskState::Waiting);
        if from != TaskState::Ready {
            self.move_task(instance, from, TaskState::Ready);
        }
        let (executor, spool) = (row.executor.clone(), row.spool);
        self.tell(Subject::Instance(instance), Fact::AttemptAssigned { attempt, executor, spool });
        self.move_task(instance, TaskState::Ready, TaskState::Active);
    }

    fn on_ended(&mut self, attempt: AttemptId) {
        let past = self.past;
        let Some(row) = past.attempts.get(&attempt) else { return };
        if !self.runs.contains_key(&attempt.instance.run) {
            return;
        }
        self.tell(Subject::Instance(attempt.instance), Fact::AttemptEnded { attempt, end: end(row) });
        let instance = attempt.instance;
        let Some(model) = self.runs.get(&instance.run) else { return };
        let (Some(now), Some(last)) =
            (model.tasks.get(instance.index as usize), model.rows.get(instance.index as usize))
        else {
            return;
        };
        let (now, last) = (*now, *last);
        let is_last = !past.attempts.contains_key(&instance.attempt(attempt.number + 1));
        match now {
            // It moves on with its next attempt, or with that one's placing.
            TaskState::Active if !is_last => self.move_task(instance, now, TaskState::Ready),
            TaskState::Active if last != TaskState::Active => self.move_task(instance, now, last),
            _ => {}
        }
        self.settle(instance.run, instance.index);
    }

    /// Tells that a run began, right before its first attempt.
    fn ensure_begun(&mut self, run: RunId) {
        let Some(model) = self.runs.get_mut(&run).filter(|model| !model.has_begun) else { return };
        model.has_begun = true;
        // A retried run takes over what succeeded.
        let taken: Vec<u32> = match model.row.trigger {
            Trigger::Retry(_) => model.without_attempts(self.past, TaskState::Success),
            Trigger::Schedule | Trigger::Manual => Vec::new(),
        };
        let roots: Vec<u32> = (0..).zip(&model.tasks).map(|(index, _)| index).collect();
        for index in taken {
            self.move_task(InstanceId { run, index }, TaskState::Waiting, TaskState::Success);
        }
        self.tell(Subject::Run(run), Fact::RunMoved { run, from: RunState::Queued, to: RunState::Running });
        for index in roots {
            self.settle(run, index);
        }
    }

    /// Moves what never had an attempt as soon as its upstream tasks say what becomes of it.
    fn settle(&mut self, run: RunId, from: u32) {
        let mut look_at = vec![from];
        while let Some(index) = look_at.pop() {
            let Some(model) = self.runs.get(&run) else { return };
            for next in model.workflow.graph.downstream(index).to_vec() {
                let Some(state) = self.runs.get(&run).and_then(|model| model.settled(next)) else { continue };
                self.move_task(InstanceId { run, index: next }, TaskState::Waiting, state);
                look_at.push(next);
            }
        }
    }

    fn move_task(&mut self, instance: InstanceId, from: TaskState, to: TaskState) {
        if let Some(model) = self.runs.get_mut(&instance.run)
            && let Some(state) = model.tasks.get_mut(instance.index as usize)
        {
            *state = to;
        }
        self.tell(Subject::Instance(instance), Fact::TaskMoved { instance, from, to });
    }

    /// Tells how closed runs ended, after the last commit: what has not moved until now had to move then.
    fn close(&mut self) {
        let closed: Vec<RunId> =
            self.runs.values().filter(|model| self.past.is_closed(model.row)).map(|m| m.row.run).collect();
        for run in closed {
            let Some(model) = self.runs.get(&run) else { continue };
            let (row, has_begun) = (model.row, model.has_begun);
            if !has_begun && !row.is_ending && row.state != RunState::Cancelled {
                self.ensure_begun(run);
            }
            if row.is_ending || (row.state == RunState::Cancelled && !has_begun) {
                self.tell(Subject::Run(run), Fact::RunEnding { run });
            }
            self.close_tasks(run);
            let Some(model) = self.runs.get(&run) else { continue };
            let from = if model.has_begun { RunState::Running } else { RunState::Queued };
            self.tell(Subject::Run(run), Fact::RunMoved { run, from, to: row.state });
        }
    }

    fn close_tasks(&mut self, run: RunId) {
        let Some(model) = self.runs.get(&run) else { return };
        // Upstream first, so that each finds what it rests on.
        let left: Vec<(u32, TaskState, TaskState)> = model
            .workflow
            .graph
            .order()
            .iter()
            .filter_map(|index| {
                let (now, row) = (*model.tasks.get(*index as usize)?, *model.rows.get(*index as usize)?);
                (now != row && row.is_final()).then_some((*index, now, row))
            })
            .collect();
        for (index, now, row) in left {
            self.move_task(InstanceId { run, index }, now, row);
        }
    }
}

impl<'p> Model<'p> {
    fn new(row: &'p RunRow, workflow: &'p Workflow, past: &Past) -> Self {
        let mut rows = vec![TaskState::Waiting; workflow.tasks.len()];
        for task in past.tasks.get(&row.run).into_iter().flatten() {
            if let Some(state) = rows.get_mut(task.instance.index as usize) {
                *state = task.state;
            }
        }
        Self { row, workflow, has_begun: false, tasks: vec![TaskState::Waiting; rows.len()], rows }
    }

    /// Returns what a task without attempts becomes now; absent where it is not that far, or stands elsewhere.
    fn settled(&self, index: u32) -> Option<TaskState> {
        let (now, row) = (*self.tasks.get(index as usize)?, *self.rows.get(index as usize)?);
        if now != TaskState::Waiting || !row.is_final() {
            return None;
        }
        let upstream = self.workflow.graph.upstream(index);
        let upstream: Vec<TaskState> =
            upstream.iter().filter_map(|up| self.tasks.get(*up as usize).copied()).collect();
        let rule = self.workflow.tasks.get(index as usize)?.trigger_rule;
        (says(rule, &upstream) == Says::Become(row)).then_some(row)
    }

    fn without_attempts(&self, past: &Past, state: TaskState) -> Vec<u32> {
        let run = self.row.run;
        let has_none = |index: u32| !past.attempts.contains_key(&InstanceId { run, index }.attempt(1));
        (0..)
            .zip(&self.rows)
            .filter(|(index, row)| **row == state && has_none(*index))
            .map(|(i, _)| i)
            .collect()
    }
}

/// Returns how an attempt ended, as it was committed.
fn end(row: &AttemptRow) -> End {
    let proof = match row.proof {
        Some(Proof::OrphanTimePassed) => Shown::TimePassed,
        Some(Proof::Reported | Proof::Refused | Proof::Rebooted | Proof::CleanSlate | Proof::Operator)
        | None => Shown::Seen,
    };
    End { state: row.state, exit_code: row.exit_code, is_skipped: row.is_skipped, proof }
}

//! The invariants of the design over the recorded history: committed changes, what executors received, what processes
//! did, what clients were told. Knows nothing of the core but its vocabulary.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millrace_common::{
    id::{AttemptId, ExecutorName, InstanceId, RunId, SpoolId, WorkflowName},
    schedule::Skipped,
    state::{AttemptState, RunState, TaskState},
    term::Term,
    time::Timestamp,
    workflow::{OnLost, Workflow},
};
use millrace_core::{AttemptEnd, Change, RunCreated, Start, Trigger};

use crate::{
    executor::Exit,
    plan::{Outcome, POOL},
    reference::{Says, says},
};

/// A run as the committed changes tell it.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) created: RunCreated,
    pub(crate) workflow: Arc<Workflow>,
    pub(crate) state: RunState,
    is_ending: bool,
    pub(crate) tasks: Vec<TaskState>,
}

/// An attempt as the committed changes tell it.
#[derive(Debug)]
struct Attempt {
    executor: ExecutorName,
    spool: SpoolId,
    machine: Option<Arc<str>>,
    end: Option<AttemptEnd>,
}

/// A workflow as the committed changes tell it.
#[derive(Debug, Default)]
struct Definition {
    versions: BTreeMap<u32, Arc<Workflow>>,
    first_cursor: Option<Timestamp>,
    cursor: Option<Timestamp>,
    fired: BTreeSet<Timestamp>,
    skipped: Vec<Skipped>,
}

#[derive(Debug, Default)]
pub(crate) struct Checker {
    term: Term,
    pub(crate) runs: BTreeMap<RunId, Run>,
    attempts: BTreeMap<AttemptId, Attempt>,
    definitions: BTreeMap<WorkflowName, Definition>,
    keys: BTreeMap<(WorkflowName, String), RunId>,
    slots: BTreeMap<ExecutorName, u32>,
    /// Every process that there ever was, with how it ended.
    processes: BTreeMap<AttemptId, Option<Exit>>,
    obeyed: BTreeMap<SpoolId, Term>,
    /// What clients were told.
    acknowledged: BTreeMap<(WorkflowName, String), RunId>,
    /// What happened at all: a check of what never happens proves nothing.
    pub(crate) seen: BTreeSet<String>,
    /// The first thing that is wrong.
    pub(crate) violation: Option<String>,
}

impl Checker {
    pub(crate) fn new(slots: BTreeMap<ExecutorName, u32>) -> Self {
        Self { slots, ..Self::default() }
    }

    pub(crate) fn fail(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    fn ensure(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.fail(what());
        }
    }

    // What was committed.

    pub(crate) fn claimed(&mut self, term: Term) {
        let last = self.term;
        self.ensure(term > last, || format!("I1: term {term} is claimed after {last}"));
        self.term = term;
    }

    pub(crate) fn committed(&mut self, term: Term, changes: &[Change]) {
        let last = self.term;
        self.ensure(term == last, || format!("I2: term {term} writes after the claim of {last}"));
        for change in changes {
            self.on_change(change);
            self.seen.extend(label(change));
        }
    }

    fn on_change(&mut self, change: &Change) {
        match change {
            Change::WorkflowApplied { version, workflow, .. } => {
                let definition = self.definitions.entry(workflow.name.clone()).or_default();
                definition.versions.insert(*version, Arc::clone(workflow));
            }
            Change::CursorMoved { workflow, cursor, skipped } => self.on_cursor(workflow, *cursor, *skipped),
            Change::RunCreated(created) => self.on_run_created(created),
            Change::RunMoved { run, from, to, .. } => self.on_run_moved(*run, *from, *to),
            Change::RunEnding { run, .. } => match self.runs.get_mut(run) {
                Some(run) if !run.is_ending && !run.state.is_final() => run.is_ending = true,
                _ => self.fail(format!("I9: run {run} is to end again")),
            },
            Change::TaskMoved { instance, from, to, .. } => self.on_task_moved(*instance, *from, *to),
            Change::AttemptAssigned { attempt, executor, spool, machine, .. } => {
                let (executor, machine) = (executor.clone(), machine.clone());
                self.on_assigned(*attempt, Attempt { executor, spool: *spool, machine, end: None });
            }
            Change::AttemptMoved { attempt, .. } => {
                let is_live = self.attempts.get(attempt).is_some_and(|attempt| attempt.end.is_none());
                self.ensure(is_live, || format!("I9: {attempt} moves and is not live"));
            }
            Change::AttemptEnded { attempt, end, .. } => self.on_attempt_ended(*attempt, end),
        }
    }

    fn on_cursor(&mut self, workflow: &WorkflowName, cursor: Timestamp, skipped: Option<Skipped>) {
        let definition = self.definitions.entry(workflow.clone()).or_default();
        let before = definition.cursor.replace(cursor);
        definition.first_cursor.get_or_insert(cursor);
        definition.skipped.extend(skipped);
        self.ensure(before.is_none_or(|before| before <= cursor), || {
            format!("I7: the cursor of {workflow} falls")
        });
    }

    fn on_run_created(&mut self, created: &RunCreated) {
        let RunCreated { run, workflow, version, trigger, interval, idempotency_key, .. } = created;
        let definition = self.definitions.entry(workflow.clone()).or_default();
        let Some(pinned) = definition.versions.get(version).cloned() else {
            return self.fail(format!("run {run} is pinned to version {version}, which there is not"));
        };
        if *trigger == Trigger::Schedule {
            let is_served = definition.cursor.is_some_and(|cursor| cursor >= interval.end);
            let is_first = definition.fired.insert(interval.end);
            self.ensure(is_first, || format!("I7: {workflow} fires for {} twice", interval.end));
            self.ensure(is_served, || {
                format!("I7: {workflow} fires for {} ahead of its cursor", interval.end)
            });
        }
        if let Some(key) = idempotency_key {
            let earlier = self.keys.insert((workflow.clone(), key.to_string()), *run);
            self.ensure(earlier.is_none(), || format!("I8: key {key} of {workflow} makes a second run"));
        }
        let tasks = vec![TaskState::Waiting; pinned.tasks.len()];
        let state = RunState::Queued;
        let new = Run { created: created.clone(), workflow: pinned, state, is_ending: false, tasks };
        let earlier = self.runs.insert(*run, new);
        self.ensure(earlier.is_none(), || format!("run {run} is created twice"));
    }

    fn on_run_moved(&mut self, id: RunId, from: RunState, to: RunState) {
        let Some(run) = self.runs.get_mut(&id) else {
            return self.fail(format!("run {id} moves and is not there"));
        };
        let before = std::mem::replace(&mut run.state, to);
        let has_ended = run.tasks.iter().all(|task| task.is_final());
        let name = run.created.workflow.clone();
        self.ensure(!before.is_final(), || format!("I9: run {id} was {before} and is {to}"));
        self.ensure(before == from, || format!("run {id} is {before}, moves from {from}"));
        self.ensure(!to.is_final() || has_ended, || format!("run {id} is {to} before its last task"));
        if from == RunState::Queued && to == RunState::Running {
            let newest = self.definitions[&name].versions.values().next_back();
            let limit = newest.map_or(0, |workflow| workflow.max_active_runs as usize);
            let is_active = |run: &&Run| matches!(run.state, RunState::Running | RunState::Paused);
            let active =
                self.runs.values().filter(is_active).filter(|run| run.created.workflow == name).count();
            self.ensure(active <= limit, || {
                format!("I15: {active} runs of {name} are active, {limit} may be")
            });
        }
    }

    fn on_task_moved(&mut self, id: InstanceId, from: TaskState, to: TaskState) {
        let Some(run) = self.runs.get_mut(&id.run) else {
            return self.fail(format!("{id} moves and is not there"));
        };
        let Some(task) = run.tasks.get_mut(id.index as usize) else {
            return self.fail(format!("there is no {id}"));
        };
        let before = std::mem::replace(task, to);
        let upstream = run.workflow.graph.upstream(id.index);
        let upstream: Vec<TaskState> = upstream.iter().map(|up| run.tasks[*up as usize]).collect();
        let rule = run.workflow.tasks[id.index as usize].trigger_rule;
        let (is_ending, is_queued) = (run.is_ending, run.state == RunState::Queued);
        self.ensure(!before.is_final(), || format!("I9: {id} was {before} and is {to}"));
        self.ensure(before == from, || format!("{id} is {before}, moves from {from}"));
        let says = says(rule, &upstream);
        let is_allowed = match (from, to) {
            (TaskState::Waiting, TaskState::Ready) => says == Says::Run && !is_ending,
            // A retried run takes over what succeeded, before it begins.
            (TaskState::Waiting, TaskState::Success) => is_queued,
            (TaskState::Waiting, TaskState::Cancelled) => is_ending,
            (TaskState::Waiting, state) => says == Says::Become(state) && !is_ending,
            _ => true,
        };
        self.ensure(is_allowed, || {
            format!("I11: {id} goes from {from} to {to}, {rule:?} after {upstream:?} says {says:?}")
        });
    }

    fn on_assigned(&mut self, id: AttemptId, assigned: Attempt) {
        let earlier: Vec<_> =
            self.attempts.range(id.instance.attempt(0)..id.instance.attempt(u32::MAX)).collect();
        let is_next = earlier.len() + 1 == id.number as usize;
        let is_alone = earlier.iter().all(|(_, attempt)| attempt.end.is_some());
        self.ensure(is_alone, || format!("I3: {id} is assigned while an earlier attempt is live"));
        self.ensure(is_next, || format!("I3: {id} leaves a gap"));
        let living = self.living(id.instance);
        self.ensure(living.is_none(), || format!("I6: {id} is assigned while {living:?} is alive"));
        let may_start = self.runs.get(&id.instance.run).is_some_and(|run| {
            run.state == RunState::Running
                && !run.is_ending
                && run.tasks[id.instance.index as usize] == TaskState::Ready
        });
        self.ensure(may_start, || format!("I11: {id} is assigned and its task is not ready"));
        let executor = assigned.executor.clone();
        self.attempts.insert(id, assigned);
        self.check_limits(&executor);
    }

    fn check_limits(&mut self, executor: &ExecutorName) {
        let live = || self.attempts.iter().filter(|(_, attempt)| attempt.end.is_none());
        let used = live().filter(|(_, attempt)| attempt.executor == *executor).count();
        let share = |(id, _): (&AttemptId, &Attempt)| {
            let run = self.runs.get(&id.instance.run)?;
            let task = run.workflow.tasks.get(id.instance.index as usize)?;
            task.pool.as_ref().map(|_| task.pool_slots)
        };
        let pooled: u32 = live().filter_map(share).sum();
        let slots = self.slots[executor];
        self.ensure(used <= slots as usize, || {
            format!("I15: {used} attempts on {executor}, which has {slots} slots")
        });
        self.ensure(pooled <= POOL, || format!("I15: {pooled} of {POOL} places of the pool are taken"));
    }

    fn on_attempt_ended(&mut self, id: AttemptId, end: &AttemptEnd) {
        let is_alive = self.processes.get(&id) == Some(&None);
        self.ensure(!is_alive, || {
            format!("I13: {id} is {} by {:?} while its process is alive", end.state, end.proof)
        });
        let process = self.processes.get(&id).copied().flatten();
        let is_faithful = match (end.state, process) {
            (AttemptState::Succeeded, Some(Exit::ByItself(Outcome::Succeeds))) => !end.is_skipped,
            (AttemptState::Succeeded, Some(Exit::ByItself(Outcome::Skips))) => end.is_skipped,
            (AttemptState::Failed, Some(Exit::ByItself(Outcome::Fails(code)))) => end.exit_code == Some(code),
            (AttemptState::Failed, Some(Exit::ByItself(Outcome::FailsForGood))) => end.is_permanent,
            (AttemptState::Rejected, process) => process.is_none(),
            (AttemptState::TimedOut, process) => process == Some(Exit::Killed),
            // Nobody saw how it ended, or it never began.
            (AttemptState::Killed | AttemptState::Lost, _) => true,
            _ => false,
        };
        self.ensure(is_faithful, || format!("I10: {id} is {} and its process {process:?}", end.state));
        match self.attempts.get_mut(&id) {
            Some(attempt) if attempt.end.is_none() => attempt.end = Some(end.clone()),
            _ => self.fail(format!("I9: {id} ends and is not live")),
        }
    }

    // What executors and processes did.

    /// An executor received a start, whether it obeys it or not.
    pub(crate) fn received(&mut self, executor: &ExecutorName, start: &Start) {
        let id = start.attempt;
        let is_assigned = self
            .attempts
            .get(&id)
            .is_some_and(|attempt| attempt.executor == *executor && attempt.spool == start.spool);
        self.ensure(is_assigned, || {
            format!("I4: {executor} receives {id}, which is not committed as assigned to it")
        });
    }

    /// An executor was told that the end of an attempt is durable.
    pub(crate) fn released(&mut self, executor: &ExecutorName, id: AttemptId) {
        let is_durable = self
            .attempts
            .get(&id)
            .is_some_and(|attempt| attempt.end.is_some() || attempt.executor != *executor);
        self.ensure(is_durable, || format!("L3: {executor} is to forget {id}, whose end is not committed"));
    }

    pub(crate) fn obeyed(&mut self, executor: &ExecutorName, spool: SpoolId, term: Term) {
        let before = self.obeyed.insert(spool, term).unwrap_or_default();
        self.ensure(before <= term, || format!("I12: {executor} obeys term {term} after {before}"));
    }

    pub(crate) fn spawned(&mut self, executor: &ExecutorName, spool: SpoolId, id: AttemptId) {
        let living = self.living(id.instance);
        self.ensure(living.is_none(), || format!("I6: {id} begins while {living:?} is alive"));
        let attempt = self.attempts.get(&id);
        let is_assigned = attempt.is_some_and(|at| at.executor == *executor && at.spool == spool);
        let is_live = attempt.is_some_and(|attempt| attempt.end.is_none());
        let earlier = self.processes.insert(id, None);
        self.ensure(earlier.is_none(), || format!("I5: {id} is spawned a second time"));
        self.ensure(is_assigned, || format!("I4: {id} is spawned at {executor} and not assigned to it"));
        self.ensure(is_live, || format!("I13: {id} is spawned after its end"));
    }

    pub(crate) fn exited(&mut self, id: AttemptId, exit: Exit) {
        self.processes.insert(id, Some(exit));
    }

    fn living(&self, instance: InstanceId) -> Option<AttemptId> {
        let processes = self.processes.range(instance.attempt(0)..=instance.attempt(u32::MAX));
        processes.filter(|(_, exit)| exit.is_none()).map(|(id, _)| *id).next()
    }

    // What clients were told.

    pub(crate) fn acknowledged(&mut self, workflow: &WorkflowName, key: &str, run: RunId, has_key: bool) {
        if has_key {
            let earlier = self.acknowledged.insert((workflow.clone(), key.to_owned()), run);
            self.ensure(earlier.is_none_or(|earlier| earlier == run), || {
                format!("I8: key {key} gives {run} and {earlier:?}")
            });
        }
        self.ensure(self.runs.contains_key(&run), || {
            format!("I8: run {run} was acknowledged and is not there")
        });
    }

    pub(crate) fn told(&mut self, run: RunId, state: RunState) {
        let Some(known) = self.runs.get(&run) else {
            return self.fail(format!("I8: run {run} is {state} and not there"));
        };
        let (found, is_ending) = (known.state, known.is_ending);
        // It may have gone on since.
        let is_so = found == state || found.is_final() || is_ending || !state.is_final();
        self.ensure(is_so, || format!("I8: a client was told that run {run} is {state}, it is {found}"));
    }

    // The end.

    /// Returns the machine of a live attempt that no passing of time ends and whose executor has another spool now.
    pub(crate) fn needs_proof(&self, executor: &ExecutorName, spool: SpoolId) -> Option<Arc<str>> {
        self.attempts.iter().find_map(|(id, attempt)| {
            let is_there = attempt.end.is_none() && attempt.executor == *executor && attempt.spool != spool;
            let task = self
                .runs
                .get(&id.instance.run)
                .and_then(|run| run.workflow.tasks.get(id.instance.index as usize));
            let is_asked = is_there && task.is_some_and(|task| task.on_lost == OnLost::Confirm);
            attempt.machine.clone().filter(|_| is_asked)
        })
    }

    pub(crate) fn have_ended(&self, runs: &[RunId]) -> bool {
        runs.iter().all(|run| self.runs.get(run).is_some_and(|run| run.state.is_final()))
    }

    /// Returns what has not ended, for a person.
    pub(crate) fn unsettled(&self) -> String {
        let open = self.runs.iter().filter(|(_, run)| !run.state.is_final());
        let lines = open.take(5).map(|(id, run)| {
            let live: Vec<String> = self
                .attempts
                .iter()
                .filter(|(attempt, at)| attempt.instance.run == *id && at.end.is_none())
                .map(|(attempt, at)| format!("{attempt} on {}", at.executor))
                .collect();
            format!("{id} {} {:?} {live:?}", run.state, run.tasks)
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Checks what must be so once everything has settled.
    pub(crate) fn settled(&mut self) {
        for ((workflow, key), run) in std::mem::take(&mut self.acknowledged) {
            let found = self.keys.get(&(workflow.clone(), key.clone())).copied();
            self.ensure(found == Some(run), || {
                format!("I8: key {key} of {workflow} gave {run}, there is {found:?}")
            });
        }
        let missed: Vec<String> =
            self.definitions.iter().filter_map(|(name, definition)| missed(name, definition)).collect();
        if let Some(first) = missed.into_iter().next() {
            self.fail(first);
        }
    }
}

/// Names what a change shows to have happened.
fn label(change: &Change) -> Option<String> {
    match change {
        Change::CursorMoved { skipped: Some(_), .. } => Some("intervals passed over".to_owned()),
        Change::RunCreated(created) => match created.trigger {
            Trigger::Schedule => Some("run by schedule".to_owned()),
            Trigger::Manual => Some("run by hand".to_owned()),
            Trigger::Retry(_) => Some("run of a retry".to_owned()),
        },
        Change::RunMoved { from, to, .. } => Some(format!("run {from} -> {to}")),
        Change::RunEnding { reason, .. } => Some(format!("run ending: {reason}")),
        Change::TaskMoved { from, to, .. } => Some(format!("task {from} -> {to}")),
        Change::AttemptEnded { from, end, .. } => {
            Some(format!("attempt {from} -> {} by {:?}", end.state, end.proof))
        }
        Change::WorkflowApplied { .. }
        | Change::CursorMoved { .. }
        | Change::AttemptAssigned { .. }
        | Change::AttemptMoved { .. } => None,
    }
}

/// Finds a logical time that was neither fired nor skipped.
fn missed(name: &WorkflowName, definition: &Definition) -> Option<String> {
    let schedule = definition.versions.values().next_back()?.schedule.as_ref()?;
    let (mut at, end) = definition.first_cursor.zip(definition.cursor)?;
    while let Some(interval) = schedule.next_interval(at).filter(|interval| interval.end <= end) {
        at = interval.end;
        let is_skipped = definition.skipped.iter().any(|over| over.first.end <= at && at <= over.last.end);
        if definition.fired.contains(&at) == is_skipped {
            let what = if is_skipped { "both fired and skipped" } else { "neither fired nor skipped" };
            return Some(format!("I7: {name} {what} {at}"));
        }
    }
    None
}

//! Definitions, runs and task instances, and what clients were told of them: I7, I8, I9, I11, I15, L1.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millrace_common::{
    definition,
    id::{AttemptId, ExecutorName, InstanceId, PoolName, RunId, WorkflowName},
    settings::{self, Setting},
    state::{RunState, TaskState},
    time::Timestamp,
    workflow::{OnLost, Task, Workflow},
};

use crate::{
    checker::Checker,
    history::{Fact, Skipped},
    rules::{Says, says},
};

/// A workflow as the committed facts tell it.
#[derive(Debug, Default)]
pub(crate) struct Definition {
    pub(crate) versions: BTreeMap<u32, Arc<Workflow>>,
    first_cursor: Option<Timestamp>,
    cursor: Option<Timestamp>,
    fired: BTreeSet<Timestamp>,
    skipped: Vec<Skipped>,
}

/// A run as the committed facts tell it.
#[derive(Debug)]
pub struct Run {
    /// The definition that it is pinned to.
    pub workflow: Arc<Workflow>,
    /// Where it stands.
    pub state: RunState,
    /// Whether it is to end once nothing of it is active.
    pub is_ending: bool,
    /// Where its task instances stand.
    pub tasks: Vec<TaskState>,
}

impl Checker {
    pub(crate) fn on_fact(&mut self, fact: &Fact) {
        match fact {
            Fact::WorkflowApplied { version, source } => self.on_applied(*version, source),
            Fact::CursorMoved { workflow, cursor, skipped } => self.on_cursor(workflow, *cursor, *skipped),
            Fact::RunCreated { run, workflow, version, fired_for, key } => {
                self.on_run_created(*run, workflow, *version);
                if let Some(at) = fired_for {
                    let is_paused =
                        self.settings.get("schedules_paused") == Some(&Setting::SchedulesPaused(true));
                    self.ensure(!is_paused, "paused", || {
                        format!("{workflow} is fired for {at} while all schedules are paused")
                    });
                    self.on_fired(workflow, *at);
                }
                if let Some(key) = key {
                    let earlier = self.keys.insert((workflow.clone(), key.clone()), *run);
                    self.ensure(earlier.is_none(), "I8", || {
                        format!("key {key} of {workflow} makes a second run")
                    });
                }
            }
            Fact::Fired { workflow, at } => self.on_fired(workflow, *at),
            Fact::RunMoved { run, from, to } => self.on_run_moved(*run, *from, *to),
            Fact::RunEnding { run } => match self.runs.get_mut(run) {
                Some(run) if !run.is_ending && !run.state.is_final() => run.is_ending = true,
                _ => self.fail("I9", format!("run {run} is to end again")),
            },
            Fact::TaskMoved { instance, from, to } => self.on_task_moved(*instance, *from, *to),
            Fact::AttemptAssigned { attempt, executor, spool } => {
                self.on_assigned(*attempt, executor, *spool);
            }
            Fact::AttemptMoved { attempt } => self.on_attempt_moved(*attempt),
            Fact::AttemptEnded { attempt, end } => self.on_attempt_ended(*attempt, *end),
            Fact::SettingChanged { name, value } => self.on_setting(name, value.as_deref()),
            Fact::ExecutorClosed { executor } => {
                self.closed.insert(executor.clone());
            }
            Fact::ExecutorOpened { executor } => {
                self.closed.remove(executor);
            }
        }
    }

    fn on_setting(&mut self, name: &str, value: Option<&str>) {
        match value.map(|value| settings::read(name, value.as_bytes())) {
            None => drop(self.settings.remove(name)),
            Some(Ok(setting)) => drop(self.settings.insert(name.to_owned(), setting)),
            Some(Err(problem)) => self.fail("setting", format!("what may not be is in force: {problem}")),
        }
    }

    fn on_applied(&mut self, version: u32, source: &str) {
        match definition::parse(source) {
            Ok(workflow) => {
                let definition = self.definitions.entry(workflow.name.clone()).or_default();
                definition.versions.insert(version, Arc::new(workflow));
            }
            Err(problem) => self.fail("history", format!("a definition is none: {problem}")),
        }
    }

    fn on_cursor(&mut self, workflow: &WorkflowName, cursor: Timestamp, skipped: Option<Skipped>) {
        let definition = self.definitions.entry(workflow.clone()).or_default();
        let before = definition.cursor.replace(cursor);
        definition.first_cursor.get_or_insert(cursor);
        definition.skipped.extend(skipped);
        let is_later = before.is_none_or(|before| before <= cursor);
        self.ensure(is_later, "I7", || format!("the cursor of {workflow} falls"));
    }

    fn on_fired(&mut self, workflow: &WorkflowName, at: Timestamp) {
        let definition = self.definitions.entry(workflow.clone()).or_default();
        let is_served = definition.cursor.is_some_and(|cursor| cursor >= at);
        let is_first = definition.fired.insert(at);
        self.ensure(is_first, "I7", || format!("{workflow} fires for {at} twice"));
        self.ensure(is_served, "I7", || format!("{workflow} fires for {at} ahead of its cursor"));
    }

    fn on_run_created(&mut self, run: RunId, workflow: &WorkflowName, version: u32) {
        let pinned = self.definitions.get(workflow).and_then(|at| at.versions.get(&version)).cloned();
        let Some(pinned) = pinned else {
            return self.fail(
                "history",
                format!("run {run} is pinned to version {version} of {workflow}, which there is not"),
            );
        };
        let tasks = vec![TaskState::Waiting; pinned.tasks.len()];
        let new = Run { workflow: pinned, state: RunState::Queued, is_ending: false, tasks };
        let earlier = self.runs.insert(run, new);
        self.ensure(earlier.is_none(), "I8", || format!("run {run} is created twice"));
    }

    fn on_run_moved(&mut self, id: RunId, from: RunState, to: RunState) {
        let Some(run) = self.runs.get_mut(&id) else {
            return self.fail("history", format!("run {id} moves and is not there"));
        };
        let before = std::mem::replace(&mut run.state, to);
        let has_ended = run.tasks.iter().all(|task| task.is_final());
        let name = run.workflow.name.clone();
        self.ensure(!before.is_final(), "I9", || format!("run {id} was {before} and is {to}"));
        self.ensure(before == from, "history", || format!("run {id} is {before}, moves from {from}"));
        let is_early = to.is_final() && !has_ended;
        self.ensure(!is_early, "I9", || format!("run {id} is {to} before its last task"));
        if from == RunState::Queued && to == RunState::Running && !self.rules.is_sparse {
            self.check_active_runs(&name);
        }
    }

    fn check_active_runs(&mut self, name: &WorkflowName) {
        let newest =
            self.definitions.get(name).and_then(|definition| definition.versions.values().next_back());
        let limit = newest.map_or(0, |workflow| workflow.max_active_runs as usize);
        let is_active = |run: &&Run| matches!(run.state, RunState::Running | RunState::Paused);
        let active = self.runs.values().filter(is_active).filter(|run| run.workflow.name == *name).count();
        self.ensure(active <= limit, "I15", || format!("{active} runs of {name} are active, {limit} may be"));
    }

    fn on_task_moved(&mut self, id: InstanceId, from: TaskState, to: TaskState) {
        let Some(run) = self.runs.get_mut(&id.run).filter(|run| run.tasks.len() > id.index as usize) else {
            return self.fail("history", format!("{id} moves and is not there"));
        };
        let before = std::mem::replace(&mut run.tasks[id.index as usize], to);
        let upstream = run.workflow.graph.upstream(id.index);
        let upstream: Vec<TaskState> = upstream.iter().map(|up| run.tasks[*up as usize]).collect();
        let rule = run.workflow.tasks[id.index as usize].trigger_rule;
        let (is_ending, is_queued) = (run.is_ending, run.state == RunState::Queued);
        self.ensure(!before.is_final(), "I9", || format!("{id} was {before} and is {to}"));
        self.ensure(before == from, "history", || format!("{id} is {before}, moves from {from}"));
        let said = says(rule, &upstream);
        let is_allowed = match (from, to) {
            (TaskState::Waiting, TaskState::Ready) => said == Says::Run && !is_ending,
            // A retried run takes over what succeeded, before it begins.
            (TaskState::Waiting, TaskState::Success) => is_queued,
            (TaskState::Waiting, TaskState::Cancelled) => is_ending,
            (TaskState::Waiting, state) => said == Says::Become(state) && !is_ending,
            _ => true,
        };
        self.ensure(is_allowed, "I11", || {
            format!("{id} goes from {from} to {to}, {rule:?} after {upstream:?} says {said:?}")
        });
    }

    // What clients were told.

    pub(crate) fn on_acknowledged(&mut self, workflow: &WorkflowName, key: Option<&str>, run: RunId) {
        if let Some(key) = key {
            let earlier = self.acknowledged.insert((workflow.clone(), key.to_owned()), run);
            let is_same = earlier.is_none_or(|earlier| earlier == run);
            self.ensure(is_same, "I8", || format!("key {key} gives {run} and {earlier:?}"));
        }
        let is_there = self.runs.contains_key(&run);
        self.ensure(is_there, "I8", || format!("run {run} was acknowledged and is not there"));
    }

    pub(crate) fn on_told(&mut self, id: RunId, state: RunState) {
        let Some(run) = self.runs.get(&id) else {
            return self.fail("I8", format!("run {id} is {state} and not there"));
        };
        let found = run.state;
        // It may have gone on since.
        let is_so = found == state || found.is_final() || run.is_ending || !state.is_final();
        self.ensure(is_so, "I8", || format!("a client was told that run {id} is {state}, it is {found}"));
    }

    pub(crate) fn check_acknowledged(&mut self) {
        for ((workflow, key), run) in self.acknowledged.clone() {
            let found = self.keys.get(&(workflow.clone(), key.clone())).copied();
            self.ensure(found == Some(run), "I8", || {
                format!("key {key} of {workflow} gave {run}, there is {found:?}")
            });
        }
    }

    // The end.

    /// Finds logical times that were neither fired nor skipped.
    pub(crate) fn check_schedules(&mut self) {
        let wrong: Vec<String> = self.definitions.iter().filter_map(|(name, at)| at.missed(name)).collect();
        wrong.into_iter().for_each(|what| self.fail("I7", what));
    }

    pub(crate) fn check_ended(&mut self) {
        let Some(healed_at) = self.healed_at else { return };
        if self.at < healed_at + self.rules.ends_within {
            return;
        }
        let waiting = self.waiting_for_an_operator();
        let open: Vec<String> = self
            .runs
            .iter()
            .filter(|(id, run)| !run.state.is_final() && !waiting.contains(id))
            .map(|(id, run)| format!("run {id} is {} with {:?}", run.state, run.tasks))
            .collect();
        let seconds = self.rules.ends_within / 1_000_000;
        for what in open {
            self.fail("L1", format!("{what}, {seconds} s after the last fault"));
        }
    }

    pub(crate) fn task(&self, instance: InstanceId) -> Option<&Task> {
        self.runs.get(&instance.run)?.workflow.tasks.get(instance.index as usize)
    }

    /// Tells whether an executor has a live attempt of a spool that it does not hold any more, and no passing of time ends
    /// that: somebody has to prove that nothing of it runs.
    #[must_use]
    pub fn needs_proof(&self, executor: &ExecutorName) -> bool {
        let live = self.live.get(executor).into_iter().flatten();
        let mut elsewhere = live.filter(|id| self.is_out_of_reach(executor, **id));
        elsewhere.any(|id| self.task(id.instance).is_some_and(|task| task.on_lost == OnLost::Confirm))
    }

    /// Tells whether no executor will ever speak for an attempt.
    fn is_out_of_reach(&self, executor: &ExecutorName, id: AttemptId) -> bool {
        let spool = self.attempts.get(&id).map(|attempt| attempt.spool);
        self.gone.contains(executor) || self.offers.get(executor).map(|(spool, _)| *spool) != spool
    }

    /// Returns the runs that nothing but an operator can move, and those that wait for what they hold.
    #[must_use]
    pub fn waiting_for_an_operator(&self) -> BTreeSet<RunId> {
        let (mut waiting, mut pools) = (BTreeSet::<RunId>::new(), BTreeSet::<&PoolName>::new());
        let paused = self.runs.iter().filter(|(_, run)| run.state == RunState::Paused);
        waiting.extend(paused.map(|(id, _)| *id));
        for (executor, attempts) in &self.live {
            for attempt in attempts.iter().filter(|id| self.is_out_of_reach(executor, **id)) {
                let Some(task) = self.task(attempt.instance) else { continue };
                if task.on_lost == OnLost::Confirm {
                    waiting.insert(attempt.instance.run);
                    pools.extend(task.pool.as_ref());
                }
            }
        }
        let ready = |run: &Run| {
            let tasks = run.tasks.iter().zip(&run.workflow.tasks);
            tasks.filter(|(state, _)| **state == TaskState::Ready).any(|(_, task)| {
                // A task that needs what a stuck one holds waits with it.
                task.pool.as_ref().is_some_and(|pool| pools.contains(pool))
            })
        };
        let held: Vec<RunId> = self
            .runs
            .iter()
            .filter(|(_, run)| !run.state.is_final() && ready(run))
            .map(|(id, _)| *id)
            .collect();
        waiting.extend(held);
        let behind = |run: &Run| {
            let is_stuck = |other: &RunId| {
                self.runs.get(other).is_some_and(|other| other.workflow.name == run.workflow.name)
            };
            run.state == RunState::Queued && waiting.iter().any(is_stuck)
        };
        let behind: Vec<RunId> = self.runs.iter().filter(|(_, run)| behind(run)).map(|(id, _)| *id).collect();
        waiting.extend(behind);
        waiting
    }
}

impl Definition {
    fn missed(&self, name: &WorkflowName) -> Option<String> {
        let schedule = self.versions.values().next_back()?.schedule.as_ref()?;
        let (mut at, end) = self.first_cursor.zip(self.cursor)?;
        while let Some(interval) = schedule.next_interval(at).filter(|interval| interval.end <= end) {
            at = interval.end;
            let is_skipped = self.skipped.iter().any(|over| over.first <= at && at <= over.last);
            if self.fired.contains(&at) == is_skipped {
                let what = if is_skipped { "both fired and skipped" } else { "neither fired nor skipped" };
                return Some(format!("{name} {what} {at}"));
            }
        }
        None
    }
}

//! A store in memory with the contract of the real one: facts are guarded, the indexes hold, effects come out after.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millrace_common::{
    id::{AttemptId, ExecutorName, InstanceIndex, RunId, WorkflowName},
    state::{AttemptState, RunState, TaskState},
    term::Term,
    time::Timestamp,
    workflow::Workflow,
};

use crate::{
    batch::{AttemptEnd, Batch, Change, Effect, RunCreated, Trigger},
    settings::{SettingChanged, SettingRow},
    snapshot::{LiveRow, RunRow, Snapshot, StandingRow, TaskRow, UnreadableRow, WorkflowRow},
    standing::ExecutorStanding,
};

/// An attempt as it stands in the store.
#[derive(Debug, Clone)]
pub struct StoredAttempt {
    /// Where it was placed.
    pub live: LiveRow,
    /// How it ended, once it has.
    pub end: Option<AttemptEnd>,
}

/// Rows of everything that was ever committed.
#[derive(Debug, Clone, Default)]
pub struct MemoryStore {
    /// The highest claimed term.
    pub term: Term,
    /// All versions of all workflows.
    pub workflows: Vec<WorkflowRow>,
    /// Versions that whoever loads is not to be able to read.
    pub unreadable: BTreeSet<(WorkflowName, u32)>,
    /// All runs.
    pub runs: BTreeMap<RunId, RunRow>,
    /// All attempts.
    pub attempts: BTreeMap<AttemptId, StoredAttempt>,
    /// Executors that are closed to starts.
    pub standings: BTreeMap<ExecutorName, ExecutorStanding>,
    /// What operators gave the live settings.
    pub settings: BTreeMap<Arc<str>, SettingRow>,
    keys: BTreeMap<(WorkflowName, String), RunId>,
    fired: BTreeSet<(WorkflowName, Timestamp)>,
}

impl MemoryStore {
    /// Takes the term after the last one.
    pub fn claim(&mut self) -> Term {
        self.term = self.term.next();
        self.term
    }

    /// Makes the facts of `batch` true and hands out its effects.
    ///
    /// # Errors
    /// Says what a real store would refuse: a deposed term, a broken guard, a second row where one may be.
    pub fn commit(&mut self, batch: Batch) -> Result<(Vec<Change>, Vec<Effect>), String> {
        if batch.changes().is_empty() {
            return Ok(batch.release());
        }
        if batch.term() != self.term {
            return Err(format!("fenced: term {} was deposed by {}", batch.term(), self.term));
        }
        for change in batch.changes() {
            self.write(change)?;
        }
        Ok(batch.release())
    }

    /// Finds the run that an idempotency key made, as a master does before it asks the scheduler.
    #[must_use]
    pub fn run_by_key(&self, workflow: &WorkflowName, key: &str) -> Option<RunId> {
        self.keys.get(&(workflow.clone(), key.to_owned())).copied()
    }

    /// Makes facts true that another store has made true before: the replay of a history.
    ///
    /// # Errors
    /// Says what does not fit.
    pub fn replay(&mut self, changes: &[Change]) -> Result<(), String> {
        changes.iter().try_for_each(|change| self.write(change))
    }

    /// Returns the rows that a new term is restored from.
    #[must_use]
    pub fn load(&self) -> Snapshot {
        let runs: Vec<RunRow> = self.runs.values().filter(|run| !run.state.is_final()).cloned().collect();
        let pinned: BTreeSet<(WorkflowName, u32)> =
            runs.iter().map(|run| (run.created.workflow.clone(), run.created.version)).collect();
        let is_needed =
            |row: &&WorkflowRow| row.is_latest || pinned.contains(&(row.workflow.name.clone(), row.version));
        let is_unreadable =
            |row: &WorkflowRow| self.unreadable.contains(&(row.workflow.name.clone(), row.version));
        let (unreadable, workflows): (Vec<WorkflowRow>, _) =
            self.workflows.iter().filter(is_needed).cloned().partition(is_unreadable);
        let of_unreadable =
            |run: &RunRow| self.unreadable.contains(&(run.created.workflow.clone(), run.created.version));
        let (quarantined, runs): (Vec<RunRow>, _) = runs.into_iter().partition(of_unreadable);
        Snapshot {
            workflows,
            unreadable: unreadable
                .into_iter()
                .filter(|row| row.is_latest)
                .map(|row| UnreadableRow {
                    workflow: row.workflow.name.clone(),
                    version: row.version,
                    cursor: row.cursor,
                })
                .collect(),
            runs,
            quarantined: quarantined.into_iter().map(|run| run.created.run).collect(),
            settings: self.settings.values().cloned().collect(),
            standings: self.standings.iter().map(standing_row).collect(),
        }
    }

    fn write(&mut self, change: &Change) -> Result<(), String> {
        match change {
            Change::WorkflowApplied { version, workflow, source, .. } => {
                self.write_workflow(*version, workflow, source)
            }
            Change::CursorMoved { workflow, cursor, .. } => {
                for row in
                    self.workflows.iter_mut().filter(|row| row.workflow.name == *workflow && row.is_latest)
                {
                    row.cursor = Some(*cursor);
                }
                Ok(())
            }
            Change::SettingChanged(changed) => self.write_setting(changed),
            Change::RunCreated(created) => self.write_run(created),
            Change::RunMoved { run, from, to, at, .. } => {
                let row = self.run(*run)?;
                guard(row.state == *from, || format!("run {run} is {}, not {from}", row.state))?;
                row.state = *to;
                if *to == RunState::Running && row.started_at.is_none() {
                    row.started_at = Some(*at);
                }
                Ok(())
            }
            Change::RunEnding { run, to, reason } => {
                self.run(*run)?.ending = Some((*to, reason.clone()));
                Ok(())
            }
            Change::TaskMoved { instance, from, to, retry_at, values, .. } => {
                let row = self.task(instance.run, instance.index)?;
                guard(row.state == *from, || format!("task {instance} is {}, not {from}", row.state))?;
                row.state = *to;
                row.retry_at = *retry_at;
                if values.is_some() {
                    row.values.clone_from(values);
                }
                Ok(())
            }
            Change::AttemptAssigned { attempt, executor, spool, machine, at } => {
                let live = LiveRow {
                    executor: executor.clone(),
                    spool: *spool,
                    machine: machine.clone(),
                    state: AttemptState::Assigned,
                    assigned_at: *at,
                };
                let row = self.task(attempt.instance.run, attempt.instance.index)?;
                guard(row.live.is_none(), || format!("{attempt} is a second live attempt"))?;
                guard(row.attempts + 1 == attempt.number, || format!("{attempt} leaves a gap"))?;
                row.attempts = attempt.number;
                row.live = Some(live.clone());
                self.attempts.insert(*attempt, StoredAttempt { live, end: None });
                Ok(())
            }
            Change::AttemptMoved { attempt, from, to, .. } => self.write_attempt_moved(*attempt, *from, *to),
            Change::AttemptEnded { attempt, from, end, .. } => self.write_attempt_ended(*attempt, *from, end),
            Change::ExecutorClosed { executor, standing } => {
                self.standings.insert(executor.clone(), standing.clone());
                Ok(())
            }
            Change::ExecutorOpened { executor, .. } | Change::ExecutorForgotten { executor, .. } => {
                self.standings.remove(executor);
                Ok(())
            }
        }
    }

    fn write_workflow(
        &mut self,
        version: u32,
        workflow: &Arc<Workflow>,
        source: &Arc<str>,
    ) -> Result<(), String> {
        let cursor = self.workflows.iter().rev().find(|row| row.workflow.name == workflow.name);
        let cursor = cursor.and_then(|row| row.cursor);
        let is_there = |row: &WorkflowRow| row.workflow.name == workflow.name && row.version >= version;
        guard(!self.workflows.iter().any(is_there), || {
            format!("version {version} of workflow {} or a later one exists", workflow.name)
        })?;
        for row in self.workflows.iter_mut().filter(|row| row.workflow.name == workflow.name) {
            row.is_latest = false;
        }
        let (workflow, source) = (workflow.clone(), source.clone());
        self.workflows.push(WorkflowRow { version, is_latest: true, workflow, source, cursor });
        Ok(())
    }

    fn write_setting(&mut self, changed: &SettingChanged) -> Result<(), String> {
        let before = match &changed.now {
            Some(row) => self.settings.insert(Arc::clone(&changed.name), row.clone()),
            None => self.settings.remove(&changed.name),
        };
        guard(before == changed.before, || format!("setting {} is another one: {before:?}", changed.name))
    }

    fn write_run(&mut self, created: &RunCreated) -> Result<(), String> {
        if let Some(key) = &created.idempotency_key {
            let earlier = self.keys.insert((created.workflow.clone(), key.to_string()), created.run);
            guard(earlier.is_none(), || format!("key {key} of {} made a run already", created.workflow))?;
        }
        if created.trigger == Trigger::Schedule {
            let is_new = self.fired.insert((created.workflow.clone(), created.interval.end));
            guard(is_new, || format!("{} was fired for {} already", created.workflow, created.interval.end))?;
        }
        let row = RunRow {
            created: created.clone(),
            state: RunState::Queued,
            started_at: None,
            ending: None,
            tasks: BTreeMap::new(),
        };
        guard(self.runs.insert(created.run, row).is_none(), || format!("run {} exists", created.run))
    }

    fn write_attempt_moved(
        &mut self,
        id: AttemptId,
        from: AttemptState,
        to: AttemptState,
    ) -> Result<(), String> {
        let row = self.task(id.instance.run, id.instance.index)?;
        let live = row.live.as_mut().ok_or_else(|| format!("{id} is not live"))?;
        guard(live.state == from, || format!("{id} is {}, not {from}", live.state))?;
        live.state = to;
        if let Some(stored) = self.attempts.get_mut(&id) {
            stored.live.state = to;
        }
        Ok(())
    }

    fn write_attempt_ended(
        &mut self,
        id: AttemptId,
        from: AttemptState,
        end: &AttemptEnd,
    ) -> Result<(), String> {
        let row = self.task(id.instance.run, id.instance.index)?;
        let live = row.live.take().ok_or_else(|| format!("{id} is not live"))?;
        guard(live.state == from && row.attempts == id.number, || {
            format!("{id} is {}, not {from}", live.state)
        })?;
        match end.state {
            AttemptState::Failed | AttemptState::TimedOut => row.failures += 1,
            AttemptState::Lost if end.counts_as_loss() => row.losses += 1,
            AttemptState::Rejected if end.counts_as_rejection() => row.rejections += 1,
            AttemptState::Rejected
            | AttemptState::Lost
            | AttemptState::Succeeded
            | AttemptState::Killed
            | AttemptState::Assigned
            | AttemptState::Accepted
            | AttemptState::Running
            | AttemptState::Killing => {}
        }
        if let Some(stored) = self.attempts.get_mut(&id) {
            stored.end = Some(end.clone());
        }
        Ok(())
    }

    fn run(&mut self, id: RunId) -> Result<&mut RunRow, String> {
        let row = self.runs.get_mut(&id).ok_or_else(|| format!("there is no run {id}"))?;
        guard(!row.state.is_final(), || format!("run {id} has ended"))?;
        Ok(row)
    }

    fn task(&mut self, run: RunId, index: InstanceIndex) -> Result<&mut TaskRow, String> {
        let row = self.run(run)?.tasks.entry(index).or_insert_with(|| TaskRow {
            state: TaskState::Waiting,
            retry_at: None,
            values: None,
            attempts: 0,
            failures: 0,
            losses: 0,
            rejections: 0,
            live: None,
        });
        guard(!row.state.is_final(), || format!("task {index} of run {run} has ended"))?;
        Ok(row)
    }
}

fn standing_row((executor, standing): (&ExecutorName, &ExecutorStanding)) -> StandingRow {
    StandingRow { executor: executor.clone(), standing: standing.clone() }
}

fn guard(holds: bool, problem: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(problem()) }
}

//! What rows tell of the past, for those who look whether it was as it must be.
//!
//! Nothing is judged here. Lists are bounded by what the caller asks for, and pages of runs go from old to new.

use std::sync::Arc;

use millrace_common::{
    id::{AttemptId, ExecutorName, InstanceId, RunId, SpoolId, WorkflowName},
    state::{AttemptState, RunState, TaskState},
    term::Term,
    time::Timestamp,
};
use millrace_core::{Proof, Trigger};

use super::{Page, QueryError, fetched, page, read_all};
use crate::{
    Store,
    row::{Cells, RowError},
};

/// A claim of the leadership.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimRow {
    /// The term that it took.
    pub term: Term,
    /// Who took it.
    pub holder: Arc<str>,
    /// When, by the clock of the database.
    pub at: Timestamp,
    /// The last transaction before it: its term and its number.
    pub after: (Term, u64),
}

/// A run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRow {
    /// Which.
    pub run: RunId,
    /// Of which workflow.
    pub workflow: WorkflowName,
    /// Pinned to this version.
    pub version: u32,
    /// What caused it.
    pub trigger: Trigger,
    /// End of the interval that it is about: its logical time, where a schedule fired it.
    pub interval_end: Timestamp,
    /// The key that its request carried.
    pub key: Option<Arc<str>>,
    /// When it was created.
    pub created_at: Timestamp,
    /// Its state.
    pub state: RunState,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Whether it was given an end before all of it had ended.
    pub is_ending: bool,
}

/// A task instance that left `waiting`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskRow {
    /// Which.
    pub instance: InstanceId,
    /// Its state.
    pub state: TaskState,
}

/// An attempt, with the transactions that placed and ended it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptRow {
    /// Which.
    pub attempt: AttemptId,
    /// Its state.
    pub state: AttemptState,
    /// Where it was placed.
    pub executor: ExecutorName,
    /// The spool that it was assigned to.
    pub spool: SpoolId,
    /// When it was placed, by a leader's clock.
    pub assigned_at: Timestamp,
    /// The transaction that placed it.
    pub assigned_in: (Term, u64),
    /// Since when it is in its state, by a leader's clock.
    pub moved_at: Timestamp,
    /// When its process started, by the executor's clock.
    pub started_at: Option<Timestamp>,
    /// When nothing of it was left, by the executor's clock where that has told.
    pub ended_at: Option<Timestamp>,
    /// The transaction that ended it.
    pub ended_in: Option<(Term, u64)>,
    /// Its exit code.
    pub exit_code: Option<i32>,
    /// Whether it found nothing to do.
    pub is_skipped: bool,
    /// How it is known that nothing of it runs.
    pub proof: Option<Proof>,
}

/// How far the schedule of a workflow was served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScheduleRow {
    /// Which workflow.
    pub workflow: WorkflowName,
    /// The version in force.
    pub version: u32,
    /// When that came into force.
    pub applied_at: Timestamp,
    /// Every interval that ends at or before this was fired or skipped.
    pub cursor: Option<Timestamp>,
    /// Intervals that end at or before this may be gone, with their runs.
    pub pruned_to: Option<Timestamp>,
    /// Its text.
    pub source: Arc<str>,
}

/// Intervals that a schedule passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SkipRow {
    /// End of the earliest.
    pub first: Timestamp,
    /// End of the latest.
    pub last: Timestamp,
}

const CLAIMS: &str =
    "SELECT term, holder, claimed_at, after_term, after_seq FROM claim ORDER BY term DESC LIMIT ?";
const RUNS: &str = "SELECT id, workflow, version, trigger_code, retry_of, interval_end, idempotency_key, created_at, \
     state, ended_at, ending FROM run WHERE id > ? AND id < ? AND (ended_at IS NULL OR ended_at >= ?) \
     ORDER BY id LIMIT ?";
const TASKS: &str = "SELECT run_id, instance_index, state FROM task_instance WHERE run_id >= ? AND run_id <= ? \
     ORDER BY run_id, instance_index LIMIT ?";
const ATTEMPTS: &str = "SELECT run_id, instance_index, attempt_number, state, executor, spool_id, assigned_at, \
     assigned_term, assigned_seq, moved_at, started_at, ended_at, ended_term, ended_seq, exit_code, is_skipped, proof \
     FROM attempt WHERE run_id >= ? AND run_id <= ? ORDER BY run_id, instance_index, attempt_number LIMIT ?";
const SCHEDULES: &str = "SELECT w.name, w.version, v.applied_at, w.cursor_at, w.pruned_to, v.source \
     FROM workflow w JOIN workflow_version v ON v.workflow = w.name AND v.version = w.version \
     WHERE w.name > ? ORDER BY w.name LIMIT ?";
const FIRED: &str = "SELECT interval_end FROM run WHERE workflow = ? AND trigger_code = 1 AND interval_end > ? \
     AND interval_end <= ? ORDER BY interval_end LIMIT ?";
const SKIPPED: &str = "SELECT first_end, last_end FROM firing_skip WHERE workflow = ? AND last_end > ? \
     ORDER BY term, seq, position LIMIT ?";

impl Store {
    /// Returns the newest claims, newest first.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn claims(&self, limit: u32) -> Result<Vec<ClaimRow>, QueryError> {
        let rows = self.inner.database.read(CLAIMS, &[limit.into()]).await?;
        read_all("claim", &rows, claim)
    }

    /// Returns runs that were there at some time from `since` to `until`, oldest first, those created after `after`.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn runs_within(
        &self,
        since: Timestamp,
        until: Timestamp,
        after: Option<RunId>,
        limit: u32,
    ) -> Result<Page<RunRow, RunId>, QueryError> {
        let after = after.unwrap_or(RunId::from_bytes([0; 16]));
        let cells = [after.into(), RunId::new(until, 0).into(), since.into(), fetched(limit).into()];
        let rows = self.inner.database.read(RUNS, &cells).await?;
        Ok(page(read_all("run", &rows, run)?, limit, |row| row.run))
    }

    /// Returns the task instances of runs from `first` to `last`, at most `limit` of them.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn tasks_of(&self, first: RunId, last: RunId, limit: u32) -> Result<Vec<TaskRow>, QueryError> {
        let rows = self.inner.database.read(TASKS, &[first.into(), last.into(), limit.into()]).await?;
        read_all("task_instance", &rows, task)
    }

    /// Returns the attempts of runs from `first` to `last`, at most `limit` of them.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn attempts_of(
        &self,
        first: RunId,
        last: RunId,
        limit: u32,
    ) -> Result<Vec<AttemptRow>, QueryError> {
        let rows = self.inner.database.read(ATTEMPTS, &[first.into(), last.into(), limit.into()]).await?;
        read_all("attempt", &rows, attempt)
    }

    /// Returns how far schedules were served, by workflow, those after `after`.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn schedules(
        &self,
        after: Option<&WorkflowName>,
        limit: u32,
    ) -> Result<Page<ScheduleRow, WorkflowName>, QueryError> {
        let after = after.map_or("", WorkflowName::as_str);
        let rows = self.inner.database.read(SCHEDULES, &[after.into(), fetched(limit).into()]).await?;
        Ok(page(read_all("workflow", &rows, schedule)?, limit, |row| row.workflow.clone()))
    }

    /// Returns the logical times after `since` and up to `until` that a schedule has fired for, at most `limit` of them.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn fired(
        &self,
        workflow: &WorkflowName,
        since: Timestamp,
        until: Timestamp,
        limit: u32,
    ) -> Result<Vec<Timestamp>, QueryError> {
        let cells = [workflow.into(), since.into(), until.into(), limit.into()];
        let rows = self.inner.database.read(FIRED, &cells).await?;
        read_all("run", &rows, time)
    }

    /// Returns what a schedule has passed over after `since`, at most `limit` records.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn skipped(
        &self,
        workflow: &WorkflowName,
        since: Timestamp,
        limit: u32,
    ) -> Result<Vec<SkipRow>, QueryError> {
        let rows = self.inner.database.read(SKIPPED, &[workflow.into(), since.into(), limit.into()]).await?;
        read_all("firing_skip", &rows, |cells| Ok(SkipRow { first: cells.time()?, last: cells.time()? }))
    }
}

fn claim(cells: &mut Cells<'_>) -> Result<ClaimRow, RowError> {
    Ok(ClaimRow {
        term: cells.term()?,
        holder: cells.text()?,
        at: cells.time()?,
        after: (cells.term()?, cells.long()?),
    })
}

fn run(cells: &mut Cells<'_>) -> Result<RunRow, RowError> {
    Ok(RunRow {
        run: cells.run()?,
        workflow: cells.workflow()?,
        version: cells.count()?,
        trigger: cells.trigger()?,
        interval_end: cells.time()?,
        key: cells.opt_text()?,
        created_at: cells.time()?,
        state: cells.run_state()?,
        ended_at: cells.opt_time()?,
        is_ending: cells.opt_int()?.is_some(),
    })
}

fn task(cells: &mut Cells<'_>) -> Result<TaskRow, RowError> {
    Ok(TaskRow { instance: cells.instance()?, state: cells.task_state()? })
}

fn attempt(cells: &mut Cells<'_>) -> Result<AttemptRow, RowError> {
    Ok(AttemptRow {
        attempt: cells.instance()?.attempt(cells.count()?),
        state: cells.attempt_state()?,
        executor: cells.executor()?,
        spool: cells.spool()?,
        assigned_at: cells.time()?,
        assigned_in: (cells.term()?, cells.long()?),
        moved_at: cells.time()?,
        started_at: cells.opt_time()?,
        ended_at: cells.opt_time()?,
        ended_in: ended_in(cells)?,
        exit_code: cells.opt_int()?.and_then(|code| i32::try_from(code).ok()),
        is_skipped: cells.flag()?,
        proof: cells.proof()?,
    })
}

/// Reads the transaction that ended an attempt: a term and a number, or neither.
fn ended_in(cells: &mut Cells<'_>) -> Result<Option<(Term, u64)>, RowError> {
    let natural = |value: i64| {
        u64::try_from(value).map_err(|_| RowError::Number { value, meaning: "sequence number or size" })
    };
    let (term, seq) = (cells.opt_int()?, cells.opt_int()?);
    term.zip(seq).map(|(term, seq)| Ok((Term(natural(term)?), natural(seq)?))).transpose()
}

fn time(cells: &mut Cells<'_>) -> Result<Timestamp, RowError> {
    cells.time()
}

fn schedule(cells: &mut Cells<'_>) -> Result<ScheduleRow, RowError> {
    Ok(ScheduleRow {
        workflow: cells.workflow()?,
        version: cells.count()?,
        applied_at: cells.time()?,
        cursor: cells.opt_time()?,
        pruned_to: cells.opt_time()?,
        source: cells.text()?,
    })
}

//! Runs, their task instances and their attempts.

use std::{collections::BTreeMap, sync::Arc};

use millrace_common::{
    definition,
    id::{AttemptId, ExecutorName, InstanceId, InstanceIndex, RunId, SpoolId, TaskName, WorkflowName},
    interval::DataInterval,
    state::{AttemptState, RunState, TaskState},
    term::Term,
    time::Timestamp,
};
use millrace_core::{EndedRun, Proof, RunCreated, Trigger};

use super::{Page, QueryError, fetched, page, read_all, read_one};
use crate::{
    Store,
    dialect::Cell,
    row::{Cells, RowError},
};

/// Attempts that [`RunDetail`] holds at most; [`Store::attempts`] gives those of one instance.
const RUN_ATTEMPTS_MAX: u32 = 20_000;
/// Attempts of one instance that are shown: retries, losses and rejections are bounded far below.
const INSTANCE_ATTEMPTS_MAX: u32 = 1_000;

/// Which runs to list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunFilter {
    /// Only of this workflow.
    pub workflow: Option<WorkflowName>,
    /// Only in this state.
    pub state: Option<RunState>,
}

/// A run on a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunSummary {
    /// Which.
    pub run: RunId,
    /// Of which workflow.
    pub workflow: WorkflowName,
    /// Pinned to this version.
    pub version: u32,
    /// What caused it.
    pub trigger: Trigger,
    /// What it is about.
    pub interval: DataInterval,
    /// Its state.
    pub state: RunState,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its tasks were first allowed to start.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Why it is in its state, where that is not plain.
    pub reason: Option<Arc<str>>,
}

/// A run with all that belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub struct RunDetail {
    /// How it came to be.
    pub created: RunCreated,
    /// Its state.
    pub state: RunState,
    /// When its tasks were first allowed to start.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Why it is in its state, where that is not plain.
    pub reason: Option<Arc<str>>,
    /// The final state that it is to have once nothing of it is active, and why.
    pub ending: Option<(RunState, Arc<str>)>,
    /// Names of its tasks, by position.
    pub task_names: Vec<TaskName>,
    /// Its task instances that left `waiting`, by position; the others wait.
    pub tasks: Vec<TaskDetail>,
    /// Its attempts, by task instance and number; of many, the first.
    pub attempts: Vec<AttemptDetail>,
}

/// A task instance that left `waiting`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskDetail {
    /// Its position.
    pub index: InstanceIndex,
    /// Its state.
    pub state: TaskState,
    /// Since when.
    pub moved_at: Timestamp,
    /// When it first became active.
    pub started_at: Option<Timestamp>,
    /// When it may start again, in `up_for_retry`.
    pub retry_at: Option<Timestamp>,
    /// Number of its last attempt, 0 before the first.
    pub attempts: u32,
    /// Whether it handed values on.
    pub has_values: bool,
}

/// An attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttemptDetail {
    /// Which.
    pub attempt: AttemptId,
    /// Its state.
    pub state: AttemptState,
    /// Where it was placed.
    pub executor: ExecutorName,
    /// The spool that it was assigned to.
    pub spool: SpoolId,
    /// When it was placed.
    pub assigned_at: Timestamp,
    /// The transaction that placed it: term and number.
    pub assigned_in: (Term, u64),
    /// Since when it is in its state.
    pub moved_at: Timestamp,
    /// When its process started.
    pub started_at: Option<Timestamp>,
    /// When its process ended.
    pub ended_at: Option<Timestamp>,
    /// The exit code, where a process ended by itself.
    pub exit_code: Option<i32>,
    /// One line for people.
    pub reason: Option<Arc<str>>,
    /// Whether it found nothing to do.
    pub is_skipped: bool,
    /// Whether trying again would fail the same way.
    pub is_permanent: bool,
    /// Bytes of its output.
    pub log_bytes: u64,
    /// How it is known that nothing of it runs; absent while it is live.
    pub proof: Option<Proof>,
}

macro_rules! runs {
    ($($filter:literal)?) => {
        concat!(
            "SELECT id, workflow, version, trigger_code, retry_of, interval_start, interval_end, state, created_at, \
             started_at, ended_at, reason FROM run WHERE ",
            $($filter,)?
            "id < ? ORDER BY id DESC LIMIT ?"
        )
    };
}

const RUN: &str = "SELECT r.id, r.workflow, r.version, r.trigger_code, r.retry_of, r.interval_start, r.interval_end, \
     r.params, r.idempotency_key, r.created_at, r.state, r.started_at, r.ended_at, r.reason, r.ending, \
     r.ending_reason, v.task_names, v.source \
     FROM run r JOIN workflow_version v ON v.workflow = r.workflow AND v.version = r.version WHERE r.id = ?";
const BY_KEY: &str = "SELECT id FROM run WHERE workflow = ? AND idempotency_key = ?";
const TASKS: &str = "SELECT instance_index, state, moved_at, started_at, retry_at, attempts, \
     CASE WHEN output_values IS NULL THEN 0 ELSE 1 END FROM task_instance WHERE run_id = ? ORDER BY instance_index";
const OUTCOMES: &str = "SELECT instance_index, state, output_values FROM task_instance WHERE run_id = ?";
const VALUES: &str = "SELECT output_values FROM task_instance WHERE run_id = ? AND instance_index = ?";

macro_rules! attempts {
    ($filter:literal) => {
        concat!(
            "SELECT run_id, instance_index, attempt_number, state, executor, spool_id, assigned_at, assigned_term, \
             assigned_seq, moved_at, started_at, ended_at, exit_code, reason, is_skipped, is_permanent, log_bytes, \
             proof FROM attempt WHERE ",
            $filter,
            " ORDER BY run_id, instance_index, attempt_number LIMIT ?"
        )
    };
}

impl Store {
    /// Returns runs, newest first, those created before `after`.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn runs(
        &self,
        filter: &RunFilter,
        after: Option<RunId>,
        limit: u32,
    ) -> Result<Page<RunSummary, RunId>, QueryError> {
        let after = after.unwrap_or(RunId::from_bytes([0xff; 16]));
        let (sql, mut cells): (&'static str, Vec<Cell>) = match (&filter.workflow, filter.state) {
            (None, None) => (runs!(), vec![]),
            (Some(name), None) => (runs!("workflow = ? AND "), vec![name.into()]),
            (None, Some(state)) => (runs!("state = ? AND "), vec![state.code().into()]),
            (Some(name), Some(state)) => {
                (runs!("workflow = ? AND state = ? AND "), vec![name.into(), state.code().into()])
            }
        };
        cells.extend([after.into(), fetched(limit).into()]);
        let rows = self.inner.database.read(sql, &cells).await?;
        Ok(page(read_all("run", &rows, summary)?, limit, |row| row.run))
    }

    /// Returns a run with its task instances and attempts.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn run(&self, run: RunId) -> Result<Option<RunDetail>, QueryError> {
        let database = &self.inner.database;
        let rows = database.read(RUN, &[run.into()]).await?;
        let Some((mut detail, _)) = read_one("run", &rows, detail)? else { return Ok(None) };
        let rows = database.read(TASKS, &[run.into()]).await?;
        detail.tasks = read_all("task_instance", &rows, task)?;
        let rows = database.read(attempts!("run_id = ?"), &[run.into(), RUN_ATTEMPTS_MAX.into()]).await?;
        detail.attempts = read_all("attempt", &rows, attempt)?;
        Ok(Some(detail))
    }

    /// Returns the attempts of a task instance, first one first.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn attempts(&self, instance: InstanceId) -> Result<Vec<AttemptDetail>, QueryError> {
        let cells = [instance.run.into(), instance.index.into(), INSTANCE_ATTEMPTS_MAX.into()];
        let sql = attempts!("run_id = ? AND instance_index = ?");
        let rows = self.inner.database.read(sql, &cells).await?;
        read_all("attempt", &rows, attempt)
    }

    /// Returns the run that a request with this key has made.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn run_by_key(&self, workflow: &WorkflowName, key: &str) -> Result<Option<RunId>, QueryError> {
        let rows = self.inner.database.read(BY_KEY, &[workflow.into(), key.into()]).await?;
        read_one("run", &rows, id)
    }

    /// Returns what a task instance hands on: a JSON object.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn values(&self, instance: InstanceId) -> Result<Option<Arc<str>>, QueryError> {
        let rows = self.inner.database.read(VALUES, &[instance.run.into(), instance.index.into()]).await?;
        Ok(read_one("task_instance", &rows, values)?.flatten())
    }

    /// Returns a run that has ended, in the form in which the core retries it; `None` where it is unknown or live.
    ///
    /// # Errors
    /// Where the database does not answer, or the definition that the run is pinned to cannot be read.
    pub async fn ended_run(&self, run: RunId) -> Result<Option<EndedRun>, QueryError> {
        let rows = self.inner.database.read(RUN, &[run.into()]).await?;
        let Some((detail, source)) = read_one("run", &rows, detail)? else { return Ok(None) };
        if !detail.state.is_final() {
            return Ok(None);
        }
        let created = detail.created;
        let workflow = definition::parse(&source).map_err(|source| QueryError::Definition {
            workflow: created.workflow.clone(),
            version: created.version,
            source,
        })?;
        let rows = self.inner.database.read(OUTCOMES, &[run.into()]).await?;
        let tasks: BTreeMap<_, _> = read_all("task_instance", &rows, |cells| {
            Ok((cells.count()?, (cells.task_state()?, cells.opt_text()?)))
        })?
        .into_iter()
        .collect();
        Ok(Some(EndedRun { created, workflow: Arc::new(workflow), state: detail.state, tasks }))
    }
}

fn id(cells: &mut Cells<'_>) -> Result<RunId, RowError> {
    cells.run()
}

fn values(cells: &mut Cells<'_>) -> Result<Option<Arc<str>>, RowError> {
    cells.opt_text()
}

fn summary(cells: &mut Cells<'_>) -> Result<RunSummary, RowError> {
    Ok(RunSummary {
        run: cells.run()?,
        workflow: cells.workflow()?,
        version: cells.count()?,
        trigger: cells.trigger()?,
        interval: cells.interval()?,
        state: cells.run_state()?,
        created_at: cells.time()?,
        started_at: cells.opt_time()?,
        ended_at: cells.opt_time()?,
        reason: cells.opt_text()?,
    })
}

/// Reads a run without what other tables hold, and its definition.
fn detail(cells: &mut Cells<'_>) -> Result<(RunDetail, Arc<str>), RowError> {
    let detail = RunDetail {
        created: cells.created()?,
        state: cells.run_state()?,
        started_at: cells.opt_time()?,
        ended_at: cells.opt_time()?,
        reason: cells.opt_text()?,
        ending: cells.ending()?,
        task_names: serde_json::from_str(cells.str()?).map_err(RowError::TaskNames)?,
        tasks: Vec::new(),
        attempts: Vec::new(),
    };
    Ok((detail, cells.text()?))
}

fn task(cells: &mut Cells<'_>) -> Result<TaskDetail, RowError> {
    Ok(TaskDetail {
        index: cells.count()?,
        state: cells.task_state()?,
        moved_at: cells.time()?,
        started_at: cells.opt_time()?,
        retry_at: cells.opt_time()?,
        attempts: cells.count()?,
        has_values: cells.flag()?,
    })
}

fn attempt(cells: &mut Cells<'_>) -> Result<AttemptDetail, RowError> {
    Ok(AttemptDetail {
        attempt: cells.instance()?.attempt(cells.count()?),
        state: cells.attempt_state()?,
        executor: cells.executor()?,
        spool: cells.spool()?,
        assigned_at: cells.time()?,
        assigned_in: (cells.term()?, cells.long()?),
        moved_at: cells.time()?,
        started_at: cells.opt_time()?,
        ended_at: cells.opt_time()?,
        exit_code: cells.opt_int()?.and_then(|code| i32::try_from(code).ok()),
        reason: cells.opt_text()?,
        is_skipped: cells.flag()?,
        is_permanent: cells.flag()?,
        log_bytes: cells.opt_int()?.and_then(|bytes| u64::try_from(bytes).ok()).unwrap_or(0),
        proof: cells.proof()?,
    })
}

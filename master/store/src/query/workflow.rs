//! Workflows and their versions.

use std::sync::Arc;

use millrace_common::{
    id::{RunId, TaskName, WorkflowName},
    schedule::Skipped,
    state::RunState,
    time::Timestamp,
};

use super::{Page, QueryError, fetched, page, read_all, read_one};
use crate::{
    Store,
    row::{Cells, RowError},
};

/// A workflow on a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkflowSummary {
    /// Its name.
    pub name: WorkflowName,
    /// The version in force.
    pub version: u32,
    /// When that came into force.
    pub applied_at: Timestamp,
    /// Up to where its schedule was served.
    pub cursor: Option<Timestamp>,
    /// Its newest run.
    pub last_run: Option<LastRun>,
}

/// The newest run of a workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastRun {
    /// Which.
    pub run: RunId,
    /// Its state.
    pub state: RunState,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its tasks were first allowed to start.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// A version of a workflow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionSource {
    /// Which workflow.
    pub workflow: WorkflowName,
    /// Which version.
    pub version: u32,
    /// The version in force.
    pub latest: u32,
    /// When it came into force.
    pub applied_at: Timestamp,
    /// Names of its tasks, by position.
    pub task_names: Vec<TaskName>,
    /// Its text.
    pub source: Arc<str>,
}

const WORKFLOWS: &str = "SELECT w.name, w.version, v.applied_at, w.cursor_at, \
     r.id, r.state, r.created_at, r.started_at, r.ended_at \
     FROM workflow w \
     JOIN workflow_version v ON v.workflow = w.name AND v.version = w.version \
     LEFT JOIN run r ON r.id = (SELECT n.id FROM run n WHERE n.workflow = w.name ORDER BY n.id DESC LIMIT 1) \
     WHERE w.name > ? ORDER BY w.name LIMIT ?";
const LATEST: &str = "SELECT v.workflow, v.version, w.version, v.applied_at, v.task_names, v.source \
     FROM workflow w JOIN workflow_version v ON v.workflow = w.name AND v.version = w.version WHERE w.name = ?";
const VERSION: &str = "SELECT v.workflow, v.version, w.version, v.applied_at, v.task_names, v.source \
     FROM workflow w JOIN workflow_version v ON v.workflow = w.name WHERE w.name = ? AND v.version = ?";
const SKIPS: &str = "SELECT skipped, is_exact, first_start, first_end, last_start, last_end FROM firing_skip WHERE workflow = ? \
     ORDER BY term DESC, seq DESC, position DESC LIMIT ?";

impl Store {
    /// Returns workflows by name, those after `after`, each with its newest run.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn workflows(
        &self,
        after: Option<&WorkflowName>,
        limit: u32,
    ) -> Result<Page<WorkflowSummary, WorkflowName>, QueryError> {
        let after = after.map_or("", WorkflowName::as_str);
        let rows = self.inner.database.read(WORKFLOWS, &[after.into(), fetched(limit).into()]).await?;
        Ok(page(read_all("workflow", &rows, summary)?, limit, |row| row.name.clone()))
    }

    /// Returns a version of a workflow, the one in force where `version` is absent.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn workflow(
        &self,
        name: &WorkflowName,
        version: Option<u32>,
    ) -> Result<Option<VersionSource>, QueryError> {
        let database = &self.inner.database;
        let rows = match version {
            Some(version) => database.read(VERSION, &[name.into(), version.into()]).await?,
            None => database.read(LATEST, &[name.into()]).await?,
        };
        read_one("workflow_version", &rows, source)
    }

    /// Returns the intervals that a workflow's schedule passed over, by its own rules, newest first.
    ///
    /// # Errors
    /// Where the database does not answer.
    pub async fn firing_skips(&self, name: &WorkflowName, limit: u32) -> Result<Vec<Skipped>, QueryError> {
        let limit = fetched(limit) - 1;
        let rows = self.inner.database.read(SKIPS, &[name.into(), limit.into()]).await?;
        read_all("firing_skip", &rows, |cells| {
            Ok(Skipped {
                count: cells.long()?,
                is_exact: cells.flag()?,
                first: cells.interval()?,
                last: cells.interval()?,
            })
        })
    }
}

fn summary(cells: &mut Cells<'_>) -> Result<WorkflowSummary, RowError> {
    Ok(WorkflowSummary {
        name: cells.workflow()?,
        version: cells.count()?,
        applied_at: cells.time()?,
        cursor: cells.opt_time()?,
        last_run: match cells.opt_run()? {
            None => None,
            Some(run) => Some(LastRun {
                run,
                state: cells.run_state()?,
                created_at: cells.time()?,
                started_at: cells.opt_time()?,
                ended_at: cells.opt_time()?,
            }),
        },
    })
}

fn source(cells: &mut Cells<'_>) -> Result<VersionSource, RowError> {
    Ok(VersionSource {
        workflow: cells.workflow()?,
        version: cells.count()?,
        latest: cells.count()?,
        applied_at: cells.time()?,
        task_names: serde_json::from_str(cells.str()?).map_err(RowError::TaskNames)?,
        source: cells.text()?,
    })
}

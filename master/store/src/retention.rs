//! Bounded deletion of runs that have ended.
//!
//! A call deletes a bounded number of rows in one fenced transaction of the writer, so that it never holds up a batch
//! for long; the caller calls again while there is more. Live runs are never touched. What is to go is found by the
//! read-only connections first: what has ended does not change any more.

use std::{collections::BTreeMap, time::Duration};

use millrace_common::{
    id::{RunId, WorkflowName},
    time::Timestamp,
};
use thiserror::Error;

use crate::{
    CommitError, RowError, Writer,
    bulk::{Form, Rows, Shape, Statement},
    commit::Pending,
    dialect::Row,
};

/// Runs that one call deletes at most.
const RUNS_MAX: u32 = 256;
/// Task instances of the runs that one call deletes; it stops after the run that passes this number.
const INSTANCES_MAX: u64 = 2_000;
/// Records of skipped intervals that one call deletes at most.
const SKIPS_MAX: u32 = 256;

/// Changes of live settings that are kept, whatever else is: years of what people do, and a bound for what programs do.
const SETTING_CHANGES_KEPT: u32 = 10_000;
/// Changes of live settings that one call deletes.
const SETTING_CHANGES_MAX: u32 = 1_000;

/// Claims that are kept: months of a leader that fails every few minutes.
const CLAIMS_KEPT: u32 = 10_000;

/// What to keep. Without a bound nothing is deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    /// How long an ended run is kept after its end.
    pub keep_for: Option<Duration>,
    /// How many ended runs of each workflow are kept, the newest.
    pub keep_runs: Option<u32>,
}

/// What a call has deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Runs, with all that belonged to them.
    pub runs: u32,
    /// Whether a further call may find more.
    pub is_more: bool,
}

/// Why nothing could be deleted.
#[derive(Debug, Error)]
pub enum PruneError {
    /// It cannot be found out what to delete; nothing has happened.
    #[error("old runs cannot be listed")]
    Database(#[from] sqlx::Error),
    /// A row cannot be read; nothing has happened.
    #[error("a row of an old run cannot be read")]
    Row(#[from] RowError),
    /// The transaction failed, as any other may: it ends the term, or [`Writer::retry`] goes on with it.
    #[error(transparent)]
    Commit(#[from] CommitError),
}

const OLD: &str = "SELECT id, (SELECT COUNT(*) FROM task_instance t WHERE t.run_id = run.id), workflow, created_at \
     FROM run WHERE id < ? AND state >= 10 AND ended_at < ? ORDER BY id LIMIT ?";
const CROWDED: &str =
    "SELECT workflow FROM run WHERE state >= 10 GROUP BY workflow HAVING COUNT(*) > ? LIMIT 1";
const LAST_TOO_MANY: &str =
    "SELECT id FROM run WHERE workflow = ? AND state >= 10 ORDER BY id DESC LIMIT 1 OFFSET ?";
const TOO_MANY: &str = "SELECT id, (SELECT COUNT(*) FROM task_instance t WHERE t.run_id = run.id), workflow, \
     created_at FROM run WHERE workflow = ? AND id <= ? AND state >= 10 ORDER BY id LIMIT ?";
const OLD_SKIPS: &str = "SELECT last_end FROM firing_skip WHERE last_end < ? ORDER BY last_end LIMIT ?";

const SKIPS_UP_TO: &str =
    "SELECT workflow, MAX(last_end) FROM firing_skip WHERE last_end <= ? GROUP BY workflow";
/// The newest claim that is one too many.
const CLAIM_TOO_MANY: &str = "SELECT term FROM claim ORDER BY term DESC LIMIT 1 OFFSET ?";

/// The newest changes of settings that is one too many, and those before it, oldest first.
const CHANGES_TOO_MANY: &str = "SELECT changed_at FROM setting_change WHERE changed_at <= \
     (SELECT changed_at FROM setting_change ORDER BY changed_at DESC LIMIT 1 OFFSET ?) ORDER BY changed_at LIMIT ?";

static ATTEMPTS_GONE: Shape = Shape {
    name: "delete attempt",
    subject: "attempts of run",
    table: "attempt",
    columns: &["run_id"],
    keys: 1,
    form: Form::Delete { guard: "" },
    is_exact: false,
};

static TASKS_GONE: Shape = Shape {
    name: "delete task_instance",
    subject: "task instances of run",
    table: "task_instance",
    columns: &["run_id"],
    keys: 1,
    form: Form::Delete { guard: "" },
    is_exact: false,
};

static RUNS_GONE: Shape = Shape {
    name: "delete run",
    subject: "run",
    table: "run",
    columns: &["id"],
    keys: 1,
    form: Form::Delete { guard: " AND state >= 10" },
    is_exact: true,
};

static SKIPS_GONE: Shape = Shape {
    name: "delete firing_skip",
    subject: "skipped intervals up to",
    table: "firing_skip",
    columns: &["last_end"],
    keys: 1,
    form: Form::DeleteUpTo,
    is_exact: false,
};

static CLAIMS_GONE: Shape = Shape {
    name: "delete claim",
    subject: "claims up to",
    table: "claim",
    columns: &["term"],
    keys: 1,
    form: Form::DeleteUpTo,
    is_exact: false,
};

/// Whoever looks whether everything was fired must know what may be gone.
static PRUNED: Shape = Shape {
    name: "update workflow pruned_to",
    subject: "workflow",
    table: "workflow",
    columns: &["name", "pruned_to"],
    keys: 1,
    form: Form::Update {
        set: &[("pruned_to", "v.pruned_to")],
        guard: "workflow.name = v.name AND (workflow.pruned_to IS NULL OR workflow.pruned_to < v.pruned_to)",
    },
    is_exact: false,
};

static SETTING_CHANGES_GONE: Shape = Shape {
    name: "delete setting_change",
    subject: "changes of settings up to",
    table: "setting_change",
    columns: &["changed_at"],
    keys: 1,
    form: Form::DeleteUpTo,
    is_exact: false,
};

impl Writer {
    /// Deletes a bounded part of what `retention` does not keep at `now`.
    ///
    /// The future must run to its end.
    ///
    /// # Errors
    /// Where the database does not answer, or the fence is lost.
    pub async fn prune(&mut self, retention: Retention, now: Timestamp) -> Result<Pruned, PruneError> {
        let mut victims = Victims::default();
        let mut skips = Rows::new(&SKIPS_GONE);
        if let Some(keep_for) = retention.keep_for {
            let cutoff = now - keep_for;
            // An id starts with the time of creation, and a run ends after that: older ids are the only candidates.
            let cells = [RunId::new(cutoff, u128::MAX).into(), cutoff.into(), (RUNS_MAX + 1).into()];
            victims.take(&self.inner.database.read(OLD, &cells).await?)?;
            if let Some(last) = self.last_old_skip(cutoff).await? {
                skips.push([last.into()]);
                victims.note_skips(&self.inner.database.read(SKIPS_UP_TO, &[last.into()]).await?)?;
            }
        }
        if let (Some(keep), true) = (retention.keep_runs, victims.runs.is_empty()) {
            self.find_crowded(keep, &mut victims).await?;
        }
        let runs = u32::try_from(victims.runs.len()).unwrap_or(u32::MAX);
        let mut statements = victims.statements();
        statements.extend(skips.into_statements());
        statements.extend(self.old_setting_changes().await?.into_statements());
        statements.extend(self.old_claims().await?.into_statements());
        if !statements.is_empty() {
            self.settle(Pending::of(statements)).await.map(drop)?;
        }
        Ok(Pruned { runs, is_more: victims.is_more })
    }

    /// Finds runs beyond the number to keep, of one workflow that has too many.
    async fn find_crowded(&self, keep: u32, victims: &mut Victims) -> Result<(), PruneError> {
        let database = &self.inner.database;
        let crowded = database.read(CROWDED, &[keep.into()]).await?;
        let Some(row) = crowded.first() else { return Ok(()) };
        let workflow: WorkflowName = row.cells().workflow()?;
        let last = database.read(LAST_TOO_MANY, &[(&workflow).into(), keep.into()]).await?;
        let Some(row) = last.first() else { return Ok(()) };
        let last = row.cells().run()?;
        let cells = [(&workflow).into(), last.into(), (RUNS_MAX + 1).into()];
        victims.take(&database.read(TOO_MANY, &cells).await?)?;
        // Other workflows may have too many as well.
        victims.is_more = true;
        Ok(())
    }

    async fn old_setting_changes(&self) -> Result<Rows, PruneError> {
        let cells = [SETTING_CHANGES_KEPT.into(), SETTING_CHANGES_MAX.into()];
        let rows = self.inner.database.read(CHANGES_TOO_MANY, &cells).await?;
        let mut gone = Rows::new(&SETTING_CHANGES_GONE);
        if let Some(last) = rows.last() {
            gone.push([last.cells().time()?.into()]);
        }
        Ok(gone)
    }

    async fn old_claims(&self) -> Result<Rows, PruneError> {
        let rows = self.inner.database.read(CLAIM_TOO_MANY, &[CLAIMS_KEPT.into()]).await?;
        let mut gone = Rows::new(&CLAIMS_GONE);
        if let Some(last) = rows.first() {
            gone.push([last.cells().term()?.0.into()]);
        }
        Ok(gone)
    }

    /// Returns the end of the last record of skipped intervals that is to go, so that not too many go at once.
    async fn last_old_skip(&self, cutoff: Timestamp) -> Result<Option<Timestamp>, PruneError> {
        let rows = self.inner.database.read(OLD_SKIPS, &[cutoff.into(), SKIPS_MAX.into()]).await?;
        Ok(rows.last().map(|row| row.cells().time()).transpose()?)
    }
}

#[derive(Default)]
struct Victims {
    runs: Vec<RunId>,
    is_more: bool,
    /// Up to when something of a workflow is gone afterwards: creation of a run, or end of an interval.
    pruned_to: BTreeMap<WorkflowName, Timestamp>,
}

impl Victims {
    /// Takes runs while they are not too large together.
    fn take(&mut self, rows: &[Row]) -> Result<(), RowError> {
        let mut instances = 0;
        for row in rows {
            if self.runs.len() >= RUNS_MAX as usize || instances > INSTANCES_MAX {
                self.is_more = true;
                break;
            }
            let mut cells = row.cells();
            self.runs.push(cells.run()?);
            instances += cells.long()?;
            self.note(cells.workflow()?, cells.time()?);
        }
        Ok(())
    }

    fn note_skips(&mut self, rows: &[Row]) -> Result<(), RowError> {
        for row in rows {
            let mut cells = row.cells();
            self.note(cells.workflow()?, cells.time()?);
        }
        Ok(())
    }

    fn note(&mut self, workflow: WorkflowName, at: Timestamp) {
        let noted = self.pruned_to.entry(workflow).or_insert(at);
        *noted = at.max(*noted);
    }

    fn statements(&self) -> Vec<Statement> {
        let mut marks = Rows::new(&PRUNED);
        for (workflow, at) in &self.pruned_to {
            marks.push([workflow.into(), (*at).into()]);
        }
        let gone = [&ATTEMPTS_GONE, &TASKS_GONE, &RUNS_GONE].into_iter().flat_map(|shape| {
            let mut rows = Rows::new(shape);
            for run in &self.runs {
                rows.push([(*run).into()]);
            }
            rows.into_statements()
        });
        marks.into_statements().chain(gone).collect()
    }
}

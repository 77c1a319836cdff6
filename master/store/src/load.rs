//! What a new leader starts from: everything that is not final, read in one state of the database.
//!
//! A handful of queries for any number of runs. Task instances and attempts come as one text for each run, a line for
//! each of them: a row of the driver costs more than what it carries. What cannot be read is quarantined: its runs are
//! left out of the snapshot and reported, so that one bad definition does not stop all others.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use millrace_common::{
    definition::{self, Rejected},
    id::{ExecutorName, InstanceIndex, RunId, SpoolId, WorkflowName},
    state::{AttemptState, TaskState},
    time::Timestamp,
};
use millrace_core::{LiveRow, RunRow, Snapshot, StandingRow, TaskRow, UnreadableRow, WorkflowRow};
use thiserror::Error;

use crate::{
    Store,
    dialect::{Purpose, Row},
    row::{Cells, Fields, RowError},
};

/// Versions in force, and older ones that live runs are pinned to.
const VERSIONS: &str = "SELECT w.name, v.version, CASE WHEN v.version = w.version THEN 1 ELSE 0 END, w.cursor_at, v.source \
     FROM workflow w JOIN workflow_version v ON v.workflow = w.name \
     WHERE v.version = w.version \
        OR EXISTS (SELECT 1 FROM run r WHERE r.workflow = w.name AND r.version = v.version AND r.state < 10) \
     ORDER BY w.name, v.version";
const RUNS: &str = "SELECT id, workflow, version, trigger_code, retry_of, interval_start, interval_end, params, \
     idempotency_key, created_at, state, started_at, ending, ending_reason \
     FROM run WHERE state < 10 ORDER BY id";
pub(crate) const SETTINGS: &str = "SELECT name, value_text, value_by, value_at, refused_text, refused_reason, refused_by, refused_at, \
     revision FROM setting ORDER BY name";
/// Values may be large, and few instances have any: they come as rows.
const VALUES: &str = "SELECT t.run_id, t.instance_index, t.output_values \
     FROM run r JOIN task_instance t ON t.run_id = r.id WHERE r.state < 10 AND t.output_values IS NOT NULL";

const STANDINGS: &str =
    "SELECT executor, closed, reason, closed_by, closed_at FROM executor_standing ORDER BY executor";

/// Why the durable state cannot be read at all.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The database does not answer.
    #[error("the durable state cannot be read")]
    Database(#[from] sqlx::Error),
    /// A row of a table without which nothing can go on.
    #[error("the identity of a row of {table} cannot be read")]
    Row {
        /// Which table.
        table: &'static str,
        /// Why.
        #[source]
        source: RowError,
    },
}

/// Something that could not be read and was left out.
#[derive(Debug, Error)]
pub enum LoadProblem {
    /// A definition that this program does not understand, although the one that stored it did.
    #[error(
        "version {version} of workflow {workflow} cannot be read by this program; {} of its runs are quarantined",
        runs.len()
    )]
    Definition {
        /// Which workflow.
        workflow: WorkflowName,
        /// Which version.
        version: u32,
        /// Whether it is the one in force. The next version must have a higher number all the same.
        is_latest: bool,
        /// Runs that were left out.
        runs: Vec<RunId>,
        /// What is wrong with it.
        #[source]
        source: Rejected,
    },
    /// A run with a row that cannot be read.
    #[error("run {run} is quarantined: a row of {table} cannot be read")]
    Run {
        /// Which run.
        run: RunId,
        /// In which table.
        table: &'static str,
        /// Why.
        #[source]
        source: RowError,
    },
    /// A live attempt whose run has ended, or whose task instance has none.
    #[error("run {run} has a live attempt without a live task instance")]
    Stray {
        /// Which run.
        run: RunId,
    },
}

/// The durable state, and what of it could not be read.
#[derive(Debug)]
pub struct Loaded {
    /// What a term is restored from.
    pub snapshot: Snapshot,
    /// What was left out.
    pub problems: Vec<LoadProblem>,
}

impl Store {
    /// Reads everything that is not final.
    ///
    /// # Errors
    /// Where the database does not answer. What can be left out is reported in [`Loaded::problems`] instead.
    pub async fn load(&self) -> Result<Loaded, LoadError> {
        // A connection of its own: one of the pool's would go back there in the middle of a transaction if this future
        // were dropped.
        let mut connection = self.inner.database.connect(Purpose::Load).await?;
        connection.begin_read().await?;
        let mut load = Load::default();
        connection.each(VERSIONS, |row| load.version(row).map_err(broken("workflow_version"))).await?;
        connection.each(RUNS, |row| load.run(row)).await?;
        connection.each(SETTINGS, |row| load.setting(row).map_err(broken("setting"))).await?;
        connection.each(self.inner.database.live_tasks(), |row| load.tasks(row)).await?;
        connection.each(VALUES, |row| load.values(row)).await?;
        connection.each(self.inner.database.live_attempts(), |row| load.attempts(row)).await?;
        connection.each(STANDINGS, |row| load.standing(row).map_err(broken("executor_standing"))).await?;
        connection.commit().await?;
        connection.close_hard().await;
        Ok(load.finish())
    }
}

#[derive(Default)]
struct Load {
    snapshot: Snapshot,
    problems: Vec<LoadProblem>,
    /// Versions that cannot be read, with the runs that were left out for it.
    unreadable: BTreeMap<(WorkflowName, u32), Unreadable>,
    /// Where each run stands in the snapshot.
    positions: HashMap<RunId, usize>,
    /// Runs to be left out.
    quarantined: BTreeSet<RunId>,
    places: Places,
}

struct Unreadable {
    is_latest: bool,
    cursor: Option<Timestamp>,
    runs: Vec<RunId>,
    source: Rejected,
}

impl Load {
    fn version(&mut self, row: &Row) -> Result<(), RowError> {
        let mut cells = row.cells();
        let (name, version, is_latest) = (cells.workflow()?, cells.count()?, cells.flag()?);
        let (cursor, source) = (cells.opt_time()?, cells.text()?);
        match definition::parse(&source) {
            Ok(workflow) => {
                let workflow = Arc::new(workflow);
                self.snapshot.workflows.push(WorkflowRow { version, is_latest, workflow, source, cursor });
            }
            Err(source) => {
                let unreadable = Unreadable { is_latest, cursor, runs: Vec::new(), source };
                self.unreadable.insert((name, version), unreadable);
            }
        }
        Ok(())
    }

    fn setting(&mut self, row: &Row) -> Result<(), RowError> {
        self.snapshot.settings.push(row.cells().setting()?);
        Ok(())
    }

    fn run(&mut self, row: &Row) -> Result<(), LoadError> {
        let run = row.cells().run().map_err(broken("run"))?;
        match run_row(&mut row.cells()) {
            Ok(found) => {
                let key = (found.created.workflow.clone(), found.created.version);
                if let Some(unreadable) = self.unreadable.get_mut(&key) {
                    unreadable.runs.push(run);
                    self.quarantined.insert(run);
                } else {
                    self.positions.insert(run, self.snapshot.runs.len());
                    self.snapshot.runs.push(found);
                }
            }
            Err(source) => self.quarantine(run, "run", source),
        }
        Ok(())
    }

    /// Takes task instances of one run, of which a large one has several texts.
    fn tasks(&mut self, row: &Row) -> Result<(), LoadError> {
        let mut cells = row.cells();
        let run = cells.run().map_err(broken("task_instance"))?;
        let Some(found) = self.positions.get(&run).and_then(|at| self.snapshot.runs.get_mut(*at)) else {
            return Ok(());
        };
        match cells.lines(task_row) {
            Ok(tasks) => found.tasks.extend(tasks),
            Err(source) => self.quarantine(run, "task_instance", source),
        }
        Ok(())
    }

    fn values(&mut self, row: &Row) -> Result<(), LoadError> {
        let mut cells = row.cells();
        let run = cells.run().map_err(broken("task_instance"))?;
        let found = self.positions.get(&run).and_then(|at| self.snapshot.runs.get_mut(*at));
        match cells.count().and_then(|index| Ok((index, cells.opt_text()?))) {
            Ok((index, values)) => {
                if let Some(task) = found.and_then(|found| found.tasks.get_mut(&index)) {
                    task.values = values;
                }
            }
            Err(source) => self.quarantine(run, "task_instance", source),
        }
        Ok(())
    }

    /// Takes live attempts of one run.
    fn attempts(&mut self, row: &Row) -> Result<(), LoadError> {
        let mut cells = row.cells();
        let run = cells.run().map_err(broken("attempt"))?;
        if self.quarantined.contains(&run) {
            return Ok(());
        }
        let lives = match cells.lines(|fields| live_row(&mut self.places, fields)) {
            Ok(lives) => lives,
            Err(source) => {
                self.quarantine(run, "attempt", source);
                return Ok(());
            }
        };
        let mut found = self.positions.get(&run).and_then(|at| self.snapshot.runs.get_mut(*at));
        for (index, number, live) in lives {
            match found.as_mut().and_then(|found| found.tasks.get_mut(&index)) {
                Some(task) if task.attempts == number => task.live = Some(live),
                _ => self.problems.push(LoadProblem::Stray { run }),
            }
        }
        Ok(())
    }

    /// Takes an executor that is closed. One that cannot be read ends the start: it must not be taken for open.
    fn standing(&mut self, row: &Row) -> Result<(), RowError> {
        let mut cells = row.cells();
        let (executor, standing) = (cells.executor()?, cells.standing()?);
        self.snapshot.standings.push(StandingRow { executor, standing });
        Ok(())
    }

    fn quarantine(&mut self, run: RunId, table: &'static str, source: RowError) {
        if self.quarantined.insert(run) {
            self.problems.push(LoadProblem::Run { run, table, source });
        }
    }

    fn finish(mut self) -> Loaded {
        let quarantined = self.quarantined;
        self.snapshot.runs.retain(|run| !quarantined.contains(&run.created.run));
        self.snapshot.quarantined = quarantined.into_iter().collect();
        for ((workflow, version), Unreadable { is_latest, cursor, runs, source }) in self.unreadable {
            if is_latest {
                let workflow = workflow.clone();
                self.snapshot.unreadable.push(UnreadableRow { workflow, version, cursor });
            }
            self.problems.push(LoadProblem::Definition { workflow, version, is_latest, runs, source });
        }
        Loaded { snapshot: self.snapshot, problems: self.problems }
    }
}

fn broken(table: &'static str) -> impl Fn(RowError) -> LoadError {
    move |source| LoadError::Row { table, source }
}

fn run_row(cells: &mut Cells<'_>) -> Result<RunRow, RowError> {
    Ok(RunRow {
        created: cells.created()?,
        state: cells.run_state()?,
        started_at: cells.opt_time()?,
        ending: cells.ending()?,
        tasks: BTreeMap::new(),
    })
}

/// Reads a line of [`live_tasks`](crate::dialect::Database::live_tasks).
fn task_row(fields: &mut Fields<'_>) -> Result<(InstanceIndex, TaskRow), RowError> {
    let index = fields.number()?;
    let task = TaskRow {
        state: TaskState::from_code(fields.number()?)?,
        attempts: fields.number()?,
        failures: fields.number()?,
        losses: fields.number()?,
        rejections: fields.number()?,
        retry_at: fields.opt_number()?.map(Timestamp::from_micros),
        values: None,
        live: None,
    };
    Ok((index, task))
}

/// Reads a line of [`live_attempts`](crate::dialect::Database::live_attempts).
fn live_row(places: &mut Places, fields: &mut Fields<'_>) -> Result<(InstanceIndex, u32, LiveRow), RowError> {
    let (index, number) = (fields.number()?, fields.number()?);
    let state = AttemptState::from_code(fields.number()?)?;
    let assigned_at = Timestamp::from_micros(fields.number()?);
    let Place { executor, spool, machine } = places.find(fields.rest())?;
    Ok((index, number, LiveRow { executor, spool, machine, state, assigned_at }))
}

/// Executors with their spools and machines, read once: a hundred thousand attempts share a few.
#[derive(Default)]
struct Places(HashMap<String, Place>);

#[derive(Clone)]
struct Place {
    executor: ExecutorName,
    spool: SpoolId,
    machine: Option<Arc<str>>,
}

impl Places {
    fn find(&mut self, text: &str) -> Result<Place, RowError> {
        if let Some(known) = self.0.get(text) {
            return Ok(known.clone());
        }
        let mut fields = Fields::new(text);
        let executor: ExecutorName = fields.next()?.parse()?;
        let spool = SpoolId(fields.number()?);
        let machine = Some(fields.next()?).filter(|machine| !machine.is_empty()).map(Into::into);
        fields.end()?;
        let place = Place { executor, spool, machine };
        self.0.insert(text.to_owned(), place.clone());
        Ok(place)
    }
}

//! What the database keeps of a range.
//!
//! Rows are read while the leader goes on writing. Of a run that is live, attempts are read before its tasks and after the
//! run itself, so that what is read later only ever knows more than what was read before; a run counts as closed only
//! where it had ended within the range, when nothing of it changes any more.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millrace_common::{
    definition,
    id::{AttemptId, ExecutorName, RunId, WorkflowName},
    schedule::{Schedule, Trigger},
    time::Timestamp,
    workflow::Workflow,
};
use millrace_store::{
    Store,
    query::{AttemptRow, ClaimRow, QueryError, RunRow, ScheduleRow, SkipRow, TaskRow},
};
use tokio::task::spawn_blocking;

use super::{ATTEMPTS_MAX, Ledgers, Range, VerifyError};

/// Runs of one page.
const RUNS_PER_PAGE: u32 = 200;
/// Claims that are read: as many as are kept.
const CLAIMS_MAX: u32 = 10_000;
/// Workflows of one page.
const SCHEDULES_PER_PAGE: u32 = 200;
/// Logical times of one schedule that are looked at.
const FIRINGS_MAX: u32 = 10_000;
/// Runs of which executors tell and that are not in the range, that are looked up one by one.
const LOOK_UPS_MAX: usize = 1_000;

/// A definition and its text.
#[derive(Debug, Clone)]
pub(super) struct Definition {
    pub(super) workflow: Arc<Workflow>,
    pub(super) source: Arc<str>,
}

/// A schedule, and what it did in the part of the range for which that can be told.
#[derive(Debug)]
pub(super) struct Served {
    pub(super) row: ScheduleRow,
    pub(super) since: Timestamp,
    pub(super) until: Timestamp,
    pub(super) fired: Vec<Timestamp>,
    pub(super) skipped: Vec<SkipRow>,
}

/// What the database keeps.
#[derive(Debug, Default)]
pub(crate) struct Past {
    pub(super) claims: Vec<ClaimRow>,
    pub(super) runs: BTreeMap<RunId, RunRow>,
    pub(super) tasks: BTreeMap<RunId, Vec<TaskRow>>,
    pub(super) attempts: BTreeMap<AttemptId, AttemptRow>,
    /// Absent where the text of that version cannot be read.
    pub(super) definitions: BTreeMap<(WorkflowName, u32), Option<Definition>>,
    pub(super) served: Vec<Served>,
    /// Schedules whose definition cannot be read.
    pub(super) unreadable: Vec<WorkflowName>,
    /// Schedules of which there was more than is looked at.
    pub(super) too_busy: Vec<WorkflowName>,
    /// Runs that were created up to then may have been deleted.
    pub(super) pruned_to: Option<Timestamp>,
    /// Attempts of which executors tell, and that were looked up and are nowhere.
    pub(super) nowhere: BTreeSet<AttemptId>,
    /// Whether there were too many of them to look all up.
    pub(super) has_more_strangers: bool,
    /// The end of the range.
    pub(super) until: Timestamp,
}

impl Past {
    pub(super) async fn read(store: &Store, range: Range) -> Result<Self, VerifyError> {
        let mut past =
            Self { claims: store.claims(CLAIMS_MAX).await?, until: range.until, ..Self::default() };
        past.read_runs(store, range).await?;
        past.read_definitions(store).await?;
        past.read_schedules(store, range).await?;
        Ok(past)
    }

    /// Tells whether a run had ended by the end of the range: nothing of it changes any more.
    pub(super) fn is_closed(&self, run: &RunRow) -> bool {
        run.state.is_final() && run.ended_at.is_some_and(|at| at <= self.until)
    }

    /// Returns the executors that attempts were placed on.
    pub(crate) fn executors(&self) -> BTreeSet<ExecutorName> {
        self.attempts.values().map(|row| row.executor.clone()).collect()
    }

    /// Tells whether a run is in the range and its definition can be read.
    pub(super) fn is_judged(&self, run: RunId) -> bool {
        let row = self.runs.get(&run);
        let read = row.and_then(|row| self.definitions.get(&(row.workflow.clone(), row.version)));
        read.is_some_and(Option::is_some)
    }

    /// Tells whether a run that is not there may have been deleted.
    pub(super) fn may_be_pruned(&self, run: RunId) -> bool {
        self.pruned_to.is_some_and(|at| run <= RunId::new(at, u128::MAX))
    }

    async fn read_runs(&mut self, store: &Store, range: Range) -> Result<(), VerifyError> {
        let mut after = None;
        loop {
            let page = store.runs_within(range.since, range.until, after, RUNS_PER_PAGE).await?;
            if let (Some(first), Some(last)) = (page.rows.first(), page.rows.last()) {
                let (first, last) = (first.run, last.run);
                self.runs.extend(page.rows.into_iter().map(|row| (row.run, row)));
                self.read_parts(store, first, last).await?;
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Reads attempts, then tasks, of the runs from `first` to `last` that are in the range.
    async fn read_parts(&mut self, store: &Store, first: RunId, last: RunId) -> Result<(), VerifyError> {
        let attempts = store.attempts_of(first, last, ATTEMPTS_MAX + 1).await?;
        // Counted with those of runs outside of the range, which lie between: what was cut off is not known to be theirs.
        let read = attempts.len();
        let found = attempts.into_iter().filter(|row| self.runs.contains_key(&row.attempt.instance.run));
        self.attempts.extend(found.map(|row| (row.attempt, row)));
        // A task that has a row and no attempt costs little.
        let tasks = store.tasks_of(first, last, 4 * ATTEMPTS_MAX).await?;
        let known = tasks.len();
        for row in tasks.into_iter().filter(|row| self.runs.contains_key(&row.instance.run)) {
            self.tasks.entry(row.instance.run).or_default().push(row);
        }
        let most = ATTEMPTS_MAX as usize;
        if read > most || self.attempts.len() > most || known == 4 * most {
            return Err(VerifyError::TooMany);
        }
        Ok(())
    }

    async fn read_definitions(&mut self, store: &Store) -> Result<(), QueryError> {
        let needed: BTreeSet<_> = self.runs.values().map(|run| (run.workflow.clone(), run.version)).collect();
        for (name, version) in needed {
            let row = store.workflow(&name, Some(version)).await?;
            let source = row.map(|row| row.source);
            // Beside the tasks that serve calls: a large one takes a tenth of a second. A panic in it is a text that
            // cannot be read.
            let read = spawn_blocking(move || source.as_ref().and_then(definition_of)).await.ok().flatten();
            self.definitions.insert((name, version), read);
        }
        Ok(())
    }

    async fn read_schedules(&mut self, store: &Store, range: Range) -> Result<(), QueryError> {
        let mut after = None;
        loop {
            let page = store.schedules(after.as_ref(), SCHEDULES_PER_PAGE).await?;
            for row in page.rows {
                self.pruned_to = self.pruned_to.max(row.pruned_to);
                self.read_served(store, range, row).await?;
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    async fn read_served(&mut self, store: &Store, range: Range, row: ScheduleRow) -> Result<(), QueryError> {
        let Some(cursor) = row.cursor else { return Ok(()) };
        // Earlier versions had other schedules, and what was deleted cannot be missed.
        let since = range.since.max(row.applied_at).max(row.pruned_to.unwrap_or(range.since));
        let until = cursor.min(range.until);
        let source = Arc::clone(&row.source);
        let read = spawn_blocking(move || definition_of(&source)).await.ok().flatten();
        let Some(read) = read else {
            self.unreadable.push(row.workflow);
            return Ok(());
        };
        let Some(schedule) = &read.workflow.schedule else { return Ok(()) };
        let since = anchor(schedule, since, cursor);
        if since >= until {
            return Ok(());
        }
        let fired = store.fired(&row.workflow, since, until, FIRINGS_MAX).await?;
        let skipped = store.skipped(&row.workflow, since, FIRINGS_MAX).await?;
        if fired.len() == FIRINGS_MAX as usize || skipped.len() == FIRINGS_MAX as usize {
            self.too_busy.push(row.workflow);
        } else {
            self.served.push(Served { row, since, until, fired, skipped });
        }
        Ok(())
    }

    /// Looks up what executors tell of and the rows do not have: it may have been committed since they were read.
    pub(super) async fn catch_up(&mut self, store: &Store, ledgers: &Ledgers) -> Result<(), QueryError> {
        let told = ledgers.values().flatten().flat_map(|ledger| &ledger.entries);
        let strangers: BTreeSet<AttemptId> = told
            .filter_map(|entry| entry.what.attempt())
            .filter(|attempt| self.needs_look_up(*attempt))
            .collect();
        let runs: BTreeSet<RunId> = strangers.iter().map(|attempt| attempt.instance.run).collect();
        self.has_more_strangers = runs.len() > LOOK_UPS_MAX;
        for run in runs.into_iter().take(LOOK_UPS_MAX) {
            let rows = store.attempts_of(run, run, ATTEMPTS_MAX).await?;
            let found: BTreeSet<AttemptId> = rows.iter().map(|row| row.attempt).collect();
            let missing = strangers.iter().filter(|attempt| attempt.instance.run == run);
            self.nowhere.extend(missing.filter(|attempt| !found.contains(attempt)));
            if self.runs.contains_key(&run) {
                self.attempts.extend(rows.into_iter().map(|row| (row.attempt, row)));
            }
        }
        Ok(())
    }

    fn needs_look_up(&self, attempt: AttemptId) -> bool {
        let is_known = match self.attempts.get(&attempt) {
            Some(row) => row.state.is_final(),
            None => false,
        };
        !is_known && !self.may_be_pruned(attempt.instance.run)
    }
}

/// Returns a point, not before `since`, from which the fires of a schedule can be counted: those of a fixed distance are
/// counted from the cursor, which is one of them.
pub(super) fn anchor(schedule: &Schedule, since: Timestamp, cursor: Timestamp) -> Timestamp {
    match &schedule.trigger {
        Trigger::Cron(_) => since,
        Trigger::Every(distance) => {
            let step = i64::try_from(distance.as_micros()).unwrap_or(i64::MAX).max(1);
            let passed = cursor.as_micros().saturating_sub(since.as_micros()).max(0);
            Timestamp::from_micros(cursor.as_micros() - passed / step * step)
        }
    }
}

fn definition_of(source: &Arc<str>) -> Option<Definition> {
    let workflow = definition::parse(source).ok()?;
    Some(Definition { workflow: Arc::new(workflow), source: Arc::clone(source) })
}

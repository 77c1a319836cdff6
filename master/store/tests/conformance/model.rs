//! Any legal sequence of batches against a model in memory: what is loaded equals what was written.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millrace_common::{
    id::{ExecutorName, InstanceId, RunId, WorkflowName},
    state::{AttemptState, RunState, TaskState},
    time::Timestamp,
};
use millrace_core::{
    Change, Closed, ExecutorStanding, LiveRow, RunRow, Snapshot, StandingRow, TaskRow, WorkflowRow,
};
use proptest::{
    prelude::{Strategy, any, prop},
    test_runner::{Config, TestRunner},
};

use crate::{
    place::{Engine, Place},
    sample::{applied, at, created, end, json, lead, machine, name, spool},
};

const TASKS: u32 = 3;
const WORKFLOWS: [&str; 3] = ["alpha", "beta", "gamma"];

/// What to try next, and where: taken by remainder, so that any numbers mean something.
pub(crate) type Step = (u8, u16);

pub(crate) fn steps() -> impl Strategy<Value = Vec<Vec<Step>>> {
    prop::collection::vec(prop::collection::vec((any::<u8>(), any::<u16>()), 0..24), 1..10)
}

pub(crate) fn any_sequence_of_batches_is_loaded_back(start: fn() -> Option<Place>) {
    let Some(place) = start() else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cases = if place.engine == Engine::Sqlite { 48 } else { 12 };
    let mut runner = TestRunner::new(Config { cases, ..Config::default() });
    let number = Cell::new(0);
    runner
        .run(&steps(), |batches| {
            number.set(number.get() + 1);
            runtime.block_on(replay(place.fresh(number.get()), batches));
            Ok(())
        })
        .unwrap();
}

/// Returns changes that are legal one batch after the other.
pub(crate) fn changes(batches: Vec<Vec<Step>>) -> Vec<Vec<Change>> {
    let mut model = Model::default();
    batches.into_iter().map(|steps| steps.into_iter().filter_map(|step| model.next(step)).collect()).collect()
}

async fn replay(place: Place, batches: Vec<Vec<Step>>) {
    let store = place.open().await;
    let mut writer = lead(&store, "first").await;
    let mut model = Model::default();
    let mut written = 0;
    for steps in batches {
        let changes: Vec<Change> = steps.into_iter().filter_map(|step| model.next(step)).collect();
        writer.commit_changes(&changes).await.unwrap();
        written += u64::from(!changes.is_empty());
        let loaded = store.load().await.unwrap();
        assert!(loaded.problems.is_empty(), "{:?}", loaded.problems);
        assert_eq!(format!("{:#?}", loaded.snapshot), format!("{:#?}", model.snapshot()), "{changes:#?}");
    }
    assert_eq!(store.leadership().await.unwrap().seq, written);
}

/// Everything that was written, as the rows that a term is restored from.
#[derive(Debug, Default)]
struct Model {
    workflows: BTreeMap<(WorkflowName, u32), WorkflowRow>,
    runs: BTreeMap<RunId, RunRow>,
    standings: BTreeMap<ExecutorName, ExecutorStanding>,
    seconds: i64,
}

impl Model {
    fn snapshot(&self) -> Snapshot {
        let runs: Vec<RunRow> = self.runs.values().filter(|run| !run.state.is_final()).cloned().collect();
        let pinned: BTreeSet<_> =
            runs.iter().map(|run| (run.created.workflow.clone(), run.created.version)).collect();
        let workflows = self
            .workflows
            .iter()
            .filter(|(key, row)| row.is_latest || pinned.contains(key))
            .map(|(_, row)| row.clone())
            .collect();
        let row = |(executor, standing): (&ExecutorName, &ExecutorStanding)| StandingRow {
            executor: executor.clone(),
            standing: standing.clone(),
        };
        let standings = self.standings.iter().map(row).collect();
        Snapshot { workflows, runs, standings, ..Snapshot::default() }
    }

    /// Returns a change that is legal now, and makes it true.
    fn next(&mut self, (kind, pick): Step) -> Option<Change> {
        self.seconds += 1;
        let now = at(1_000 + self.seconds);
        let pick = usize::from(pick);
        match kind % 12 {
            0 => self.apply(pick),
            1 => self.move_cursor(pick, now),
            2 => self.create(pick),
            3 => self.move_run(pick, now),
            4 => self.give_end(pick),
            5 | 6 => self.move_task(pick, now),
            7 => self.assign(pick, now),
            8 => self.move_attempt(pick, now),
            9 | 10 => self.end_attempt(pick, now),
            _ => self.close_or_open(pick, now),
        }
    }

    fn latest(&self, workflow: &WorkflowName) -> Option<u32> {
        self.workflows.keys().filter(|(name, _)| name == workflow).map(|(_, version)| *version).max()
    }

    fn apply(&mut self, pick: usize) -> Option<Change> {
        let text = WORKFLOWS[pick % WORKFLOWS.len()];
        let before = self.latest(&name(text));
        let change = applied(text, before.unwrap_or(0) + 1);
        let Change::WorkflowApplied { version, workflow, source, .. } = &change else { return None };
        let older = before.and_then(|version| self.workflows.get_mut(&(name(text), version)));
        // A cursor belongs to the workflow: every version that is loaded shows it.
        let cursor = older.and_then(|row| {
            row.is_latest = false;
            row.cursor
        });
        let (workflow, source) = (Arc::clone(workflow), Arc::clone(source));
        let row = WorkflowRow { version: *version, is_latest: true, workflow, source, cursor };
        self.workflows.insert((name(text), *version), row);
        Some(change)
    }

    fn move_cursor(&mut self, pick: usize, now: Timestamp) -> Option<Change> {
        let workflow = name(WORKFLOWS[pick % WORKFLOWS.len()]);
        self.latest(&workflow)?;
        for ((name, _), row) in &mut self.workflows {
            if *name == workflow {
                row.cursor = Some(now);
            }
        }
        Some(Change::CursorMoved { workflow, cursor: now, skipped: None })
    }

    fn create(&mut self, pick: usize) -> Option<Change> {
        let text = WORKFLOWS[pick % WORKFLOWS.len()];
        let version = self.latest(&name(text))?;
        let number = u8::try_from(self.runs.len() + 1).ok()?;
        let created = millrace_core::RunCreated { version, ..created(number, text) };
        let row = RunRow {
            created: created.clone(),
            state: RunState::Queued,
            started_at: None,
            ending: None,
            tasks: BTreeMap::new(),
        };
        self.runs.insert(created.run, row);
        Some(Change::RunCreated(Box::new(created)))
    }

    fn live_run(&mut self, pick: usize) -> Option<&mut RunRow> {
        let live = self.runs.values_mut().filter(|run| !run.state.is_final());
        let mut live: Vec<&mut RunRow> = live.collect();
        if live.is_empty() { None } else { Some(live.swap_remove(pick % live.len())) }
    }

    fn move_run(&mut self, pick: usize, now: Timestamp) -> Option<Change> {
        let run = self.live_run(pick)?;
        let from = run.state;
        let to = RunState::ALL[(pick / 7) % RunState::ALL.len()];
        if to == RunState::Queued || (to.is_final() && run.tasks.values().any(|task| task.live.is_some())) {
            return None;
        }
        run.state = to;
        if to == RunState::Running && run.started_at.is_none() {
            run.started_at = Some(now);
        }
        Some(Change::RunMoved { run: run.created.run, from, to, at: now, reason: None })
    }

    fn give_end(&mut self, pick: usize) -> Option<Change> {
        let run = self.live_run(pick)?;
        if run.ending.is_some() {
            return None;
        }
        let (to, reason): (RunState, Arc<str>) = (RunState::Cancelled, "by hand".into());
        run.ending = Some((to, Arc::clone(&reason)));
        Some(Change::RunEnding { run: run.created.run, to, reason })
    }

    fn task(&mut self, pick: usize) -> Option<(InstanceId, &mut TaskRow)> {
        let run = self.live_run(pick)?;
        let index = u32::try_from(pick / 11).ok()? % TASKS;
        let id = InstanceId { run: run.created.run, index };
        Some((id, run.tasks.get_mut(&index)?))
    }

    fn move_task(&mut self, pick: usize, now: Timestamp) -> Option<Change> {
        let run = self.live_run(pick)?;
        let index = u32::try_from(pick / 11).ok()? % TASKS;
        let instance = InstanceId { run: run.created.run, index };
        let (from, has_live) = run
            .tasks
            .get(&index)
            .map_or((TaskState::Waiting, false), |task| (task.state, task.live.is_some()));
        let to = TaskState::ALL[(pick / 5) % TaskState::ALL.len()];
        if from.is_final() || to == TaskState::Waiting || (to.is_final() && has_live) {
            return None;
        }
        let task = run.tasks.entry(index).or_insert_with(|| TaskRow {
            state: to,
            retry_at: None,
            values: None,
            attempts: 0,
            failures: 0,
            losses: 0,
            rejections: 0,
            live: None,
        });
        let retry_at = (to == TaskState::UpForRetry).then_some(now);
        let values = (to == TaskState::Success).then(|| json(r#"{"rows":1}"#));
        task.state = to;
        task.retry_at = retry_at;
        if values.is_some() {
            task.values.clone_from(&values);
        }
        Some(Change::TaskMoved { instance, from, to, at: now, retry_at, values })
    }

    fn assign(&mut self, pick: usize, now: Timestamp) -> Option<Change> {
        let (id, task) = self.task(pick)?;
        if task.live.is_some() || task.state.is_final() {
            return None;
        }
        task.attempts += 1;
        let executor: ExecutorName =
            if pick.is_multiple_of(2) { "plant-1" } else { "plant-2" }.parse().unwrap();
        let state = AttemptState::Assigned;
        let machine = machine().filter(|_| pick.is_multiple_of(2));
        task.live = Some(LiveRow {
            executor: executor.clone(),
            spool: spool(),
            machine: machine.clone(),
            state,
            assigned_at: now,
        });
        Some(Change::AttemptAssigned {
            attempt: id.attempt(task.attempts),
            executor,
            spool: spool(),
            machine,
            at: now,
        })
    }

    fn move_attempt(&mut self, pick: usize, now: Timestamp) -> Option<Change> {
        let (id, task) = self.task(pick)?;
        let attempt = id.attempt(task.attempts);
        let live = task.live.as_mut()?;
        let to = [AttemptState::Accepted, AttemptState::Running, AttemptState::Killing][(pick / 3) % 3];
        let from = std::mem::replace(&mut live.state, to);
        Some(Change::AttemptMoved { attempt, from, to, at: now })
    }

    fn close_or_open(&mut self, pick: usize, now: Timestamp) -> Option<Change> {
        let executor: ExecutorName = format!("plant-{}", pick % 3).parse().unwrap();
        let by: Arc<str> = "ann".into();
        if pick.is_multiple_of(2) && self.standings.remove(&executor).is_some() {
            return Some(Change::ExecutorOpened { executor, by, at: now });
        }
        let closed = Closed::ALL[(pick / 3) % Closed::ALL.len()];
        let standing = ExecutorStanding { closed, reason: "by hand".into(), by, since: now };
        self.standings.insert(executor.clone(), standing.clone());
        Some(Change::ExecutorClosed { executor, standing })
    }

    fn end_attempt(&mut self, pick: usize, now: Timestamp) -> Option<Change> {
        let (id, task) = self.task(pick)?;
        let live = task.live.take()?;
        let finals: Vec<AttemptState> =
            AttemptState::ALL.iter().copied().filter(|state| state.is_final()).collect();
        let state = finals[(pick / 3) % finals.len()];
        match state {
            AttemptState::Failed | AttemptState::TimedOut => task.failures += 1,
            AttemptState::Lost => task.losses += 1,
            AttemptState::Rejected => task.rejections += 1,
            _ => {}
        }
        let attempt = id.attempt(task.attempts);
        Some(Change::AttemptEnded { attempt, from: live.state, end: end(state, 5), at: now })
    }
}

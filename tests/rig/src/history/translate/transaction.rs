//! One transaction of a leader: what it made different, and in which order that can have become true.

use std::collections::BTreeMap;

use anyhow::Context as _;
use millrace_checker::{End, Event, Fact, Proof, Skipped};
use millrace_common::{
    id::{AttemptId, ExecutorName, InstanceId, RunId, SpoolId, WorkflowName},
    state::{AttemptState, RunState, TaskState},
    term::Term,
    workflow::Workflow,
};

use super::{super::audit::Row, Known, applied, cell::Cells, cursor_moved};

/// The number of runs that a schedule started.
const BY_SCHEDULE: i64 = 1;
/// The number that says that an attempt ended by the passing of time.
const TIME_PASSED: i64 = 5;

#[derive(Debug)]
pub(super) struct Transaction {
    pub(super) tx: i64,
    pub(super) at: u64,
    /// Absent for a claim.
    number: Option<(Term, u64)>,
    applied: Vec<Fact>,
    workflows: Vec<Row>,
    skips: BTreeMap<WorkflowName, Vec<Skipped>>,
    created: Vec<Fact>,
    ended: Vec<Fact>,
    runs: BTreeMap<RunId, RunNet>,
}

/// What is different about a run.
#[derive(Debug, Default)]
struct RunNet {
    moves: Option<(RunState, RunState)>,
    is_new: bool,
    is_ending: bool,
    tasks: BTreeMap<u32, TaskNet>,
}

/// What is different about a task instance.
#[derive(Debug, Default)]
struct TaskNet {
    moves: Option<(TaskState, TaskState)>,
    assigned: Vec<Assigned>,
}

#[derive(Debug)]
struct Assigned {
    attempt: AttemptId,
    executor: ExecutorName,
    spool: SpoolId,
    end: Option<End>,
}

impl Transaction {
    pub(super) fn new(tx: i64, at: u64, term: Term, seq: u64) -> Self {
        Self { number: Some((term, seq)), ..Self::claim(tx, at) }
    }

    pub(super) const fn claim(tx: i64, at: u64) -> Self {
        Self {
            tx,
            at,
            number: None,
            applied: Vec::new(),
            workflows: Vec::new(),
            skips: BTreeMap::new(),
            created: Vec::new(),
            ended: Vec::new(),
            runs: BTreeMap::new(),
        }
    }

    pub(super) fn take(&mut self, row: &Row, known: &mut Known) -> anyhow::Result<()> {
        match row.what.as_str() {
            "workflow_version" => self.applied.push(applied(row, known)?),
            "workflow" => self.workflows.push(row.clone()),
            "firing_skip" => self.on_skip(row)?,
            "run" => self.on_run(row, known)?,
            "task_instance" => self.on_task(row)?,
            "attempt" => self.on_attempt(row)?,
            other => anyhow::bail!("nothing is known of a table {other}"),
        }
        Ok(())
    }

    fn on_skip(&mut self, row: &Row) -> anyhow::Result<()> {
        let cells = Cells(&row.new);
        let time = |column| cells.opt_time(column)?.context("a time is missing");
        let skipped = Skipped { first: time("first_end")?, last: time("last_end")? };
        self.skips.entry(cells.parsed("workflow")?).or_default().push(skipped);
        Ok(())
    }

    fn on_run(&mut self, row: &Row, known: &mut Known) -> anyhow::Result<()> {
        let cells = Cells(&row.new);
        let (run, to) = (cells.run("id")?, cells.state(RunState::from_code)?);
        let is_ending = cells.opt_int("ending").is_some();
        let net = self.runs.entry(run).or_default();
        let Some(old) = &row.old else {
            let (workflow, version): (WorkflowName, u32) =
                (cells.parsed("workflow")?, cells.number("version")?);
            known.runs.insert(run, (workflow.clone(), version));
            let by_schedule = cells.int("trigger_code")? == BY_SCHEDULE;
            let fired_for = cells.opt_time("interval_end")?.filter(|_| by_schedule);
            let key = cells.opt_text("idempotency_key").map(ToOwned::to_owned);
            self.created.push(Fact::RunCreated { run, workflow, version, fired_for, key });
            (net.moves, net.is_new, net.is_ending) = (Some((RunState::Queued, to)), true, is_ending);
            return Ok(());
        };
        let old = Cells(old);
        net.moves = Some((old.state(RunState::from_code)?, to));
        net.is_ending = is_ending && old.opt_int("ending").is_none();
        Ok(())
    }

    fn task(&mut self, cells: Cells<'_>) -> anyhow::Result<(InstanceId, &mut TaskNet)> {
        let instance = InstanceId { run: cells.run("run_id")?, index: cells.number("instance_index")? };
        Ok((instance, self.runs.entry(instance.run).or_default().tasks.entry(instance.index).or_default()))
    }

    fn on_task(&mut self, row: &Row) -> anyhow::Result<()> {
        let cells = Cells(&row.new);
        let from = match &row.old {
            Some(old) => Cells(old).state(TaskState::from_code)?,
            None => TaskState::Waiting,
        };
        let to = cells.state(TaskState::from_code)?;
        let (_, net) = self.task(cells)?;
        net.moves = Some((net.moves.map_or(from, |(first, _)| first), to));
        Ok(())
    }

    fn on_attempt(&mut self, row: &Row) -> anyhow::Result<()> {
        let cells = Cells(&row.new);
        let state = cells.state(AttemptState::from_code)?;
        let number = cells.number("attempt_number")?;
        let end = if state.is_final() { Some(end_of(cells, state)?) } else { None };
        let (executor, spool) = (cells.parsed("executor")?, SpoolId(cells.parsed("spool_id")?));
        let (instance, net) = self.task(cells)?;
        let attempt = instance.attempt(number);
        if row.old.is_none() {
            net.assigned.push(Assigned { attempt, executor, spool, end });
            return Ok(());
        }
        self.ended.push(match end {
            Some(end) => Fact::AttemptEnded { attempt, end },
            None => Fact::AttemptMoved { attempt },
        });
        Ok(())
    }

    /// Returns the spools that attempts were assigned to.
    pub(super) fn spools(&self) -> Vec<(ExecutorName, SpoolId)> {
        let tasks = self.runs.values().flat_map(|run| run.tasks.values());
        let assigned = tasks.flat_map(|task| &task.assigned);
        assigned.map(|assigned| (assigned.executor.clone(), assigned.spool)).collect()
    }

    /// Returns what happened; nothing for a claim.
    pub(super) fn event(self, known: &Known) -> anyhow::Result<Option<Event>> {
        let Some((term, seq)) = self.number else {
            anyhow::ensure!(self.runs.is_empty(), "a claim changes runs");
            return Ok(None);
        };
        let mut facts = self.applied;
        for row in &self.workflows {
            facts.extend(cursor_moved(row, &self.skips)?);
        }
        facts.extend(self.created);
        facts.extend(self.ended);
        // What runs already comes first: its end may be what lets the next begin.
        let (running, others): (Vec<_>, Vec<_>) = self
            .runs
            .into_iter()
            .partition(|(_, net)| net.moves.is_none_or(|(from, _)| from != RunState::Queued));
        for (run, net) in running.into_iter().chain(others) {
            net.tell(run, known, &mut facts)?;
        }
        Ok(Some(Event::Committed { term, seq, facts }))
    }
}

fn end_of(cells: Cells<'_>, state: AttemptState) -> anyhow::Result<End> {
    let exit_code = cells.opt_int("exit_code").map(i32::try_from).transpose()?;
    let by_time = cells.int("proof")? == TIME_PASSED;
    Ok(End {
        state,
        exit_code,
        is_skipped: cells.opt_int("is_skipped").is_some_and(|flag| flag != 0),
        proof: if by_time { Proof::TimePassed } else { Proof::Seen },
    })
}

impl RunNet {
    fn tell(mut self, run: RunId, known: &Known, facts: &mut Vec<Fact>) -> anyhow::Result<()> {
        let mut moves = self.moves;
        if self.is_new {
            self.take_over(run, facts);
        }
        let begins = self.tasks.values().any(|task| !task.is_cancelled());
        if let Some((RunState::Queued, to)) = moves
            && to != RunState::Queued
            && (to != RunState::Cancelled || begins)
        {
            facts.push(Fact::RunMoved { run, from: RunState::Queued, to: RunState::Running });
            moves = Some((RunState::Running, to));
        }
        let order = if self.tasks.is_empty() { Vec::new() } else { self.order(known.workflow_of(run)?) };
        for index in order.iter().filter(|index| !self.tasks[index].is_cancelled()) {
            self.tasks[index].tell(InstanceId { run, index: *index }, facts);
        }
        if self.is_ending {
            facts.push(Fact::RunEnding { run });
        }
        for index in order.iter().filter(|index| self.tasks[index].is_cancelled()) {
            self.tasks[index].tell(InstanceId { run, index: *index }, facts);
        }
        if let Some((from, to)) = moves.filter(|(from, to)| from != to) {
            facts.push(Fact::RunMoved { run, from, to });
        }
        Ok(())
    }

    /// A retried run takes over what succeeded while it is still queued.
    fn take_over(&mut self, run: RunId, facts: &mut Vec<Fact>) {
        let (from, to) = (TaskState::Waiting, TaskState::Success);
        self.tasks.retain(|index, task| {
            let is_taken = task.moves == Some((from, to)) && task.assigned.is_empty();
            if is_taken {
                facts.push(Fact::TaskMoved { instance: InstanceId { run, index: *index }, from, to });
            }
            !is_taken
        });
    }

    /// Returns the tasks that moved, upstream before downstream.
    fn order(&self, workflow: &Workflow) -> Vec<u32> {
        let mut order = Vec::new();
        let mut left: Vec<u32> = self.tasks.keys().copied().collect();
        while !left.is_empty() {
            let is_free = |index: u32| !workflow.graph.upstream(index).iter().any(|up| left.contains(up));
            let (free, rest): (Vec<u32>, Vec<u32>) = left.iter().partition(|index| is_free(**index));
            if free.is_empty() {
                // Not possible in a graph without cycles.
                order.extend(rest);
                return order;
            }
            order.extend(free);
            left = rest;
        }
        order
    }
}

impl TaskNet {
    fn is_cancelled(&self) -> bool {
        self.moves.is_some_and(|(_, to)| to == TaskState::Cancelled)
    }

    /// Tells of all states on the way: an attempt is assigned to a task that is ready, and makes it active.
    fn tell(&self, instance: InstanceId, facts: &mut Vec<Fact>) {
        let Some((mut state, last)) = self.moves else { return };
        let mut go = |facts: &mut Vec<Fact>, to: TaskState| {
            if state != to {
                facts.push(Fact::TaskMoved { instance, from: state, to });
                state = to;
            }
        };
        for Assigned { attempt, executor, spool, end } in &self.assigned {
            go(facts, TaskState::Ready);
            facts.push(Fact::AttemptAssigned {
                attempt: *attempt,
                executor: executor.clone(),
                spool: *spool,
            });
            go(facts, TaskState::Active);
            if let Some(end) = end {
                facts.push(Fact::AttemptEnded { attempt: *attempt, end: *end });
            }
        }
        go(facts, last);
    }
}

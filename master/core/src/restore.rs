//! From durable rows to a scheduler that goes on where the last one stopped.
//!
//! Only facts are restored; everything that follows from them (queue, counts, slots, timers) is derived again by the same
//! functions that live operation uses. A run whose rows contradict each other is left out and named, so that it cannot
//! bring down leader after leader; executors that still run something of it are left alone. So is a run that the store
//! could not read. A workflow whose version in force this program cannot read starts nothing until it is applied anew.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use millrace_common::{
    id::{InstanceId, RunId, WorkflowName},
    state::{RunState, TaskState},
    time::Timestamp,
    workflow::Workflow,
};
use thiserror::Error;

use crate::{
    check,
    scheduler::Scheduler,
    settings::Settings,
    snapshot::{LiveRow, RunRow, Snapshot, StandingRow, TaskRow, UnreadableRow},
    state::{Entry, Executor, Instance, LiveAttempt, Run},
    timers::UptimeTimer,
};

/// Why a snapshot cannot be scheduled from.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// A workflow has more or less than one version in force.
    #[error("workflow {0} has {1} versions in force, not one")]
    VersionsInForce(WorkflowName, usize),
    /// The restored state as a whole breaks an invariant.
    #[error("the restored state breaks an invariant: {0}")]
    Invariant(String),
}

/// A scheduler that goes on, and what it had to leave out.
#[derive(Debug)]
pub struct Restored {
    /// Ready for inputs.
    pub scheduler: Scheduler,
    /// Runs that are taken out of scheduling because their rows contradict each other, and how.
    pub quarantined: Vec<(RunId, String)>,
}

pub(crate) fn restore(mut scheduler: Scheduler, snapshot: Snapshot) -> Result<Restored, RestoreError> {
    let versions = restore_catalog(&mut scheduler, &snapshot)?;
    scheduler.state.settings = Settings::of(snapshot.settings);
    scheduler.limits = scheduler.state.settings.over(&scheduler.base_limits);
    scheduler.state.quarantined.extend(snapshot.quarantined);
    restore_standings(&mut scheduler, snapshot.standings);
    let mut quarantined = Vec::new();
    for row in snapshot.runs {
        let id = row.created.run;
        if let Err(problem) = restore_run(&mut scheduler, row, &versions) {
            scheduler.state.quarantined.insert(id);
            quarantined.push((id, problem));
        }
    }
    let violations = check::violations(&scheduler);
    if let Some(first) = violations.first() {
        return Err(RestoreError::Invariant(first.to_string()));
    }
    resume(&mut scheduler);
    Ok(Restored { scheduler, quarantined })
}

/// Executors that are closed stay so, and are known before they connect.
fn restore_standings(scheduler: &mut Scheduler, rows: Vec<StandingRow>) {
    let heard_before = scheduler.now.uptime + scheduler.limits.authority;
    for StandingRow { executor, standing } in rows {
        let closed = Executor { standing: Some(standing), ..Executor::unseen(heard_before) };
        scheduler.state.executors.insert(executor, closed);
    }
}

type Versions = BTreeMap<(WorkflowName, u32), Arc<Workflow>>;

fn restore_catalog(scheduler: &mut Scheduler, snapshot: &Snapshot) -> Result<Versions, RestoreError> {
    let mut versions = Versions::new();
    let mut in_force: BTreeMap<&WorkflowName, usize> = BTreeMap::new();
    for UnreadableRow { workflow, version, cursor } in &snapshot.unreadable {
        *in_force.entry(workflow).or_default() += 1;
        scheduler.state.catalog.insert(workflow.clone(), entry(*version, None, *cursor));
    }
    for row in &snapshot.workflows {
        let name = &row.workflow.name;
        *in_force.entry(name).or_default() += usize::from(row.is_latest);
        versions.insert((name.clone(), row.version), Arc::clone(&row.workflow));
        if row.is_latest {
            let entry = entry(row.version, Some(Arc::clone(&row.workflow)), row.cursor);
            scheduler.state.catalog.insert(name.clone(), entry);
        }
    }
    match in_force.into_iter().find(|(_, count)| *count != 1) {
        Some((name, count)) => Err(RestoreError::VersionsInForce(name.clone(), count)),
        None => Ok(versions),
    }
}

fn entry(version: u32, workflow: Option<Arc<Workflow>>, cursor: Option<Timestamp>) -> Entry {
    Entry { version, workflow, cursor, active: 0, queued: BTreeSet::new() }
}

fn restore_run(scheduler: &mut Scheduler, row: RunRow, versions: &Versions) -> Result<(), String> {
    let created = &row.created;
    let id = created.run;
    let workflow = versions.get(&(created.workflow.clone(), created.version)).ok_or_else(|| {
        format!("version {} of workflow {} is not there", created.version, created.workflow)
    })?;
    let mut run = Run::new(row.created, Arc::clone(workflow));
    run.state = row.state;
    run.started_at = row.started_at;
    run.ending = row.ending;
    let mut live = Vec::new();
    for (index, task) in row.tasks {
        let len = run.instances.len();
        let instance = run
            .instances
            .get_mut(index as usize)
            .ok_or_else(|| format!("instance {index} of {len} does not exist"))?;
        live.extend(
            restore_instance(instance, task)?.map(|attempt| (InstanceId { run: id, index }, attempt)),
        );
    }
    check_run(&run)?;
    insert_run(scheduler, run);
    for (instance, attempt) in live {
        // The last leader may go on extending the lease of what runs there until its authority ends.
        let heard_before = scheduler.now.uptime + scheduler.limits.authority;
        scheduler.state.insert_live(instance.attempt(attempt.number), attempt, heard_before);
    }
    Ok(())
}

/// Finds what no leader can have written: scheduling from it would be wrong, or get stuck.
fn check_run(run: &Run) -> Result<(), String> {
    let has_begun = run.state != RunState::Queued;
    if run.state.is_final() {
        return Err(format!("it is {} and yet live", run.state));
    }
    if has_begun != run.started_at.is_some() {
        return Err(format!("it is {} and has {} start", run.state, if has_begun { "no" } else { "a" }));
    }
    if run.ending.as_ref().is_some_and(|(to, _)| !to.is_final()) {
        return Err("it is to end in a state that is not final".to_owned());
    }
    let is_ending = run.ending.is_some();
    let is_early = |state: TaskState| !has_begun && !matches!(state, TaskState::Waiting | TaskState::Success);
    let is_left = |state: TaskState| is_ending && !state.is_final() && state != TaskState::Active;
    let wrong =
        run.instances.iter().map(|instance| instance.state).find(|state| is_early(*state) || is_left(*state));
    if let Some(state) = wrong {
        let ending = if is_ending { " and being ended" } else { "" };
        return Err(format!("it is {}{ending} while a task instance is {state}", run.state));
    }
    if has_begun && run.instances.iter().all(|instance| instance.state.is_final()) {
        return Err(format!("it is {} while every task instance has ended", run.state));
    }
    Ok(())
}

fn restore_instance(instance: &mut Instance, row: TaskRow) -> Result<Option<LiveAttempt>, String> {
    let short = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
    instance.state = row.state;
    instance.attempts = row.attempts;
    instance.failures = short(row.failures);
    instance.losses = short(row.losses);
    instance.rejections = short(row.rejections);
    instance.retry_at = row.retry_at;
    instance.values = row.values;
    let is_active = row.state == TaskState::Active;
    if is_active != row.live.is_some() {
        return Err(format!(
            "a task instance is {} with{} a live attempt",
            row.state,
            if is_active { "out" } else { "" }
        ));
    }
    if row.state == TaskState::UpForRetry && row.retry_at.is_none() {
        return Err("a task instance is up_for_retry at no time".to_owned());
    }
    let Some(live) = row.live else { return Ok(None) };
    if live.state.is_final() || row.attempts == 0 {
        return Err(format!("live attempt {} of a task instance is {}", row.attempts, live.state));
    }
    let (number, state) = (row.attempts, live.state);
    let LiveRow { executor, spool, machine, assigned_at, .. } = live;
    Ok(Some(LiveAttempt { number, state, executor, spool, machine, assigned_at }))
}

/// Puts a run into the state and derives what follows from its instances.
fn insert_run(scheduler: &mut Scheduler, run: Run) {
    let id = run.created.run;
    let ended: Vec<_> = (0..)
        .zip(&run.instances)
        .filter(|(_, instance)| instance.state.is_final())
        .map(|(index, instance)| (run.instance_id(index), instance.state))
        .collect();
    if let Some(entry) = scheduler.state.catalog.get_mut(&run.created.workflow) {
        if run.state == RunState::Queued {
            entry.queued.insert(id);
        } else {
            entry.active += 1;
        }
    }
    scheduler.state.insert_run(run);
    for (instance, state) in ended {
        scheduler.state.count_end(instance, state);
    }
    scheduler.state.requeue(id);
}

/// Arms all timers and lets begin what may.
fn resume(scheduler: &mut Scheduler) {
    let runs: Vec<_> = scheduler.state.runs.keys().copied().collect();
    for id in runs {
        arm_run(scheduler, id);
    }
    let executors: Vec<_> = scheduler.state.executors.keys().cloned().collect();
    for name in executors {
        scheduler.arm_loss(&name);
    }
    let workflows: Vec<_> = scheduler.state.catalog.keys().cloned().collect();
    for name in workflows {
        scheduler.ensure_cursor(&name);
        scheduler.arm_schedule(&name);
        scheduler.start_queued_runs(&name);
    }
}

fn arm_run(scheduler: &mut Scheduler, id: RunId) {
    let now = scheduler.now;
    // What is left of a delay by the wall clock; never more than the delay, whatever the clocks said and say.
    let left = |until: Timestamp, most: Duration| now.uptime + until.since(now.wall).min(most);
    let Some(run) = scheduler.state.runs.get(&id) else { return };
    if let Some((timeout, started)) = run.workflow.run_timeout.zip(run.started_at) {
        scheduler.timers.at_uptime(left(started + timeout, timeout), UptimeTimer::RunTimeout(id));
    }
    for (index, instance) in (0..).zip(&run.instances) {
        let due = instance.retry_at.filter(|_| instance.state == TaskState::UpForRetry);
        if let Some((at, task)) = due.zip(run.task(index)) {
            let rejected = scheduler.limits.rejection_delay_after(instance.rejections.into());
            let most = task.retry.delay_after(instance.failures.into()).max(rejected);
            scheduler.timers.at_uptime(left(at, most), UptimeTimer::RetryDue(run.instance_id(index)));
        }
    }
}

#[cfg(test)]
mod tests;

//! Invariants over the whole state, apart from the code that keeps them.
//!
//! Run after every step in tests and simulation, and after each restore in production.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use millrace_common::{
    id::{InstanceIndex, PoolName, RunId},
    schedule::FIRES_MAX,
    state::{RunState, TaskState},
    workflow::OnLost,
};

use crate::{
    batch::Change,
    scheduler::Scheduler,
    state::{Instance, Run, State},
    timers::{UptimeTimer, WallTimer},
    trigger::{self, Counts, Verdict},
};

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its number in design and ARCHITECTURE.md, or the name of a derived fact that is wrong.
    pub rule: &'static str,
    /// What is wrong, with ids.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.what)
    }
}

/// Returns everything that is wrong with the state of `scheduler`; empty where nothing is.
#[must_use]
pub fn violations(scheduler: &Scheduler) -> Vec<Violation> {
    let mut found = Vec::new();
    let state = &scheduler.state;
    for run in state.runs.values() {
        check_run(state, run, &mut found);
    }
    check_places(scheduler, &mut found);
    check_catalog(state, &mut found);
    found
}

/// Returns the pools of which more is taken than there is.
///
/// Apart from [`violations`] because it is no contradiction after a restore: an operator may have made a pool smaller.
#[must_use]
pub fn over_limit(scheduler: &Scheduler) -> Vec<Violation> {
    let over = |(pool, limit): (&PoolName, &u32)| {
        let used = scheduler.state.pool_used(pool);
        (used > *limit)
            .then(|| violation("I15", format!("{used} of {limit} places of pool {pool} are taken")))
    };
    scheduler.limits.pools.iter().filter_map(over).collect()
}

/// Returns the pools and executors that were given something in `changes`, the whole of a batch that was just taken, and
/// of which more is taken than there is: what was made smaller keeps what it has and gets nothing new.
#[must_use]
pub fn overfilled(scheduler: &Scheduler, changes: &[Change]) -> Vec<Violation> {
    let state = &scheduler.state;
    let mut found = BTreeSet::new();
    for change in changes {
        let Change::AttemptAssigned { attempt, executor, .. } = change else { continue };
        if let Some(place) = state.executors.get(executor).filter(|place| place.used() > place.slots) {
            found.insert(format!(
                "{} of {} slots of executor {executor} are taken",
                place.used(),
                place.slots
            ));
        }
        let pool = state.instance(attempt.instance).and_then(|(_, task, _)| task.pool.as_ref());
        let limit = pool.and_then(|pool| Some((pool, scheduler.limits.pools.get(pool)?)));
        if let Some((pool, limit)) = limit.filter(|(pool, limit)| state.pool_used(pool) > **limit) {
            found.insert(format!("{} of {limit} places of pool {pool} are taken", state.pool_used(pool)));
        }
    }
    found.into_iter().map(|what| violation("I15", what)).collect()
}

/// Returns what nothing will ever move: no timer, no executor that speaks for it, no upstream, no place in the queue.
///
/// Apart from [`violations`] because it is only true between batches: timers are armed after a restore.
#[must_use]
pub fn orphans(scheduler: &Scheduler) -> Vec<Violation> {
    let mut found = Vec::new();
    for run in scheduler.state.runs.values() {
        if run.unfinished == 0 && run.state != RunState::Queued {
            found.push(violation(
                "L1",
                format!("run {} has no live instance and has not ended", run.created.run),
            ));
        }
        let timer = UptimeTimer::RunTimeout(run.created.run);
        if run.started_at.is_some()
            && run.workflow.run_timeout.is_some()
            && run.ending.is_none()
            && !scheduler.timers.has_uptime(&timer)
        {
            found.push(violation(
                "L1",
                format!("nothing will end run {} when its time is over", run.created.run),
            ));
        }
        for (index, instance) in (0..).zip(&run.instances) {
            if is_orphan(scheduler, run, index, instance) {
                let id = run.instance_id(index);
                found.push(violation("L1", format!("{id} is {} and nothing will move it", instance.state)));
            }
        }
    }
    check_schedules(scheduler, &mut found);
    found
}

fn is_orphan(scheduler: &Scheduler, run: &Run, index: InstanceIndex, instance: &Instance) -> bool {
    let has_begun = run.started_at.is_some();
    match instance.state {
        TaskState::Waiting => {
            has_begun
                && (run.ending.is_some() || !matches!(rule_verdict(run, index, instance), Verdict::Wait))
        }
        TaskState::UpForRetry => !scheduler.timers.has_uptime(&UptimeTimer::RetryDue(run.instance_id(index))),
        TaskState::Ready => run.ending.is_some(),
        TaskState::Active => is_orphaned_attempt(scheduler, run, index, instance),
        TaskState::Deferred
        | TaskState::Success
        | TaskState::Failed
        | TaskState::Skipped
        | TaskState::UpstreamFailed
        | TaskState::Cancelled => false,
    }
}

/// An attempt whose executor does not speak for it ends by the passing of time, unless its policy forbids.
fn is_orphaned_attempt(scheduler: &Scheduler, run: &Run, index: InstanceIndex, instance: &Instance) -> bool {
    let Some((task, live)) = run.task(index).zip(instance.live.as_deref()) else { return true };
    let executor = scheduler.state.executors.get(&live.executor);
    let is_spoken_for = executor.is_some_and(|executor| executor.speaks_for(live.spool));
    let timer = UptimeTimer::LossDue(live.executor.clone());
    !is_spoken_for && task.on_lost != OnLost::Confirm && !scheduler.timers.has_uptime(&timer)
}

fn rule_verdict(run: &Run, index: InstanceIndex, instance: &Instance) -> Verdict {
    let total = u32::try_from(run.workflow.graph.upstream(index).len()).unwrap_or(u32::MAX);
    run.task(index)
        .map_or(Verdict::Wait, |task| trigger::evaluate(task.trigger_rule, &instance.upstream, total))
}

fn violation(rule: &'static str, what: String) -> Violation {
    Violation { rule, what }
}

fn check_run(state: &State, run: &Run, found: &mut Vec<Violation>) {
    let id = run.created.run;
    let live = run.instances.iter().filter(|instance| !instance.state.is_final()).count();
    if live != run.unfinished as usize {
        found.push(violation(
            "unfinished",
            format!("run {id} counts {} live instances, {live} are", run.unfinished),
        ));
    }
    for (index, instance) in (0..).zip(&run.instances) {
        check_attempt(run, index, instance, found);
        check_counts(run, index, instance, found);
        check_queued(state, run, index, instance, found);
    }
}

fn check_attempt(run: &Run, index: InstanceIndex, instance: &Instance, found: &mut Vec<Violation>) {
    let id = run.instance_id(index);
    let is_active = instance.state == TaskState::Active;
    if is_active != instance.live.is_some() {
        let has = if is_active { "no" } else { "a" };
        found.push(violation("I3", format!("{id} is {} and has {has} live attempt", instance.state)));
    }
    if instance.live.as_deref().is_some_and(|live| live.number != instance.attempts || live.state.is_final())
    {
        found.push(violation("I3", format!("{id} has a live attempt that is not its last, or is final")));
    }
}

fn check_counts(run: &Run, index: InstanceIndex, instance: &Instance, found: &mut Vec<Violation>) {
    let mut counts = Counts::default();
    for up in run.workflow.graph.upstream(index) {
        if let Some(upstream) = run.instances.get(*up as usize) {
            counts.add(upstream.state);
        }
    }
    if counts != instance.upstream {
        let id = run.instance_id(index);
        found.push(violation(
            "I11",
            format!("{id} counts its upstream as {:?}, they are {counts:?}", instance.upstream),
        ));
    }
}

fn check_queued(
    state: &State,
    run: &Run,
    index: InstanceIndex,
    instance: &Instance,
    found: &mut Vec<Violation>,
) {
    let Some(task) = run.task(index) else { return };
    let belongs = instance.state == TaskState::Ready && run.may_place();
    if belongs != state.queue.contains(task, run.instance_id(index)) {
        let id = run.instance_id(index);
        found.push(violation("queue", format!("{id} is {} and queued: {}", instance.state, !belongs)));
    }
}

fn check_places(scheduler: &Scheduler, found: &mut Vec<Violation>) {
    let state = &scheduler.state;
    let mut pools = BTreeMap::new();
    let mut live = 0;
    for run in state.runs.values() {
        for (index, instance) in (0..).zip(&run.instances) {
            let Some(attempt) = instance.live.as_deref() else { continue };
            live += 1;
            let id = run.instance_id(index).attempt(attempt.number);
            if !state.executors.get(&attempt.executor).is_some_and(|executor| executor.live.contains(&id)) {
                found.push(violation("I15", format!("{id} takes no slot of {}", attempt.executor)));
            }
            if let Some((pool, slots)) =
                run.task(index).and_then(|task| Some((task.pool.as_ref()?, task.pool_slots)))
            {
                *pools.entry(pool.clone()).or_insert(0) += slots;
            }
        }
    }
    if live != state.live_attempts() {
        found.push(violation(
            "I15",
            format!("executors count {} live attempts, {live} are", state.live_attempts()),
        ));
    }
    for (pool, used) in pools {
        let counted = state.pool_used(&pool);
        if used != counted {
            found.push(violation("I15", format!("pool {pool} counts {counted}, {used} are used")));
        }
    }
}

fn check_catalog(state: &State, found: &mut Vec<Violation>) {
    for (name, entry) in &state.catalog {
        let of = |run: &&Run| run.created.workflow == *name;
        let is_queued = |run: &&Run| run.state == RunState::Queued;
        let queued: Vec<RunId> =
            state.runs.values().filter(of).filter(is_queued).map(|run| run.created.run).collect();
        let active = state.runs.values().filter(of).count() - queued.len();
        if active != entry.active as usize || !entry.queued.iter().eq(&queued) {
            found.push(violation(
                "I15",
                format!("workflow {name} counts {} active runs, {active} are", entry.active),
            ));
        }
    }
}

fn check_schedules(scheduler: &Scheduler, found: &mut Vec<Violation>) {
    if scheduler.settings().paused_since().is_some() {
        return;
    }
    for (name, entry) in &scheduler.state.catalog {
        let Some((schedule, cursor)) = entry.schedule().zip(entry.cursor) else { continue };
        let is_full = entry.unfinished() + FIRES_MAX > scheduler.limits.runs_per_workflow_max;
        let is_armed = scheduler.timers.has_wall(&WallTimer::ScheduleDue(name.clone()));
        if schedule.next_interval(cursor).is_some() && !is_full && !is_armed {
            found.push(violation("L1", format!("nothing will serve the schedule of workflow {name}")));
        }
    }
}

#[cfg(test)]
mod tests;

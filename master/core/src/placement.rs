//! The plan of what goes where, and why the rest does not. Pure: it reads the state and returns values.
//!
//! An attempt goes to the connected executor that carries its labels, can run its kind and has the most free slots; ties go
//! to the first by name. Higher priority is placed first, then the older run, then the definition's order. A class that
//! cannot be placed does not hold up the others.

use std::{
    collections::{BTreeMap, btree_set},
    iter::Peekable,
    sync::Arc,
};

use millrace_common::{
    id::{AttemptId, ExecutorName, InstanceId, PoolName},
    state::AttemptState,
};

use crate::{
    explain::Reason,
    limits::Limits,
    queue::{Class, Rank},
    state::{Executor, State},
};

/// The answer of [`place`].
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Plan {
    /// What goes where, in order.
    pub(crate) placements: Vec<(InstanceId, ExecutorName)>,
    /// Why the first one of each other class was not placed, nor those behind it.
    pub(crate) blocked: BTreeMap<Class, Reason>,
}

/// Decides what goes where at this moment.
pub(crate) fn place(state: &State, limits: &Limits) -> Plan {
    let mut plan = Plan::default();
    let mut heads: Vec<(&Class, Peekable<btree_set::Iter<'_, Rank>>)> =
        state.queue.classes().map(|(class, ranks)| (class, ranks.iter().peekable())).collect();
    // Where nothing waits, which is so at most heartbeats, no executor is looked at.
    if heads.is_empty() {
        return plan;
    }
    let mut room = Room::of(state, limits);
    while let Some(best) = first_head(&mut heads) {
        let (class, ranks) = &mut heads[best];
        match room.take(class) {
            Ok(executor) => {
                if let Some((_, instance)) = ranks.next() {
                    plan.placements.push((*instance, executor));
                }
            }
            Err(reason) => {
                plan.blocked.insert((*class).clone(), reason);
                drop(heads.swap_remove(best));
            }
        }
    }
    plan
}

fn first_head(heads: &mut [(&Class, Peekable<btree_set::Iter<'_, Rank>>)]) -> Option<usize> {
    heads
        .iter_mut()
        .enumerate()
        .filter_map(|(at, (_, ranks))| ranks.peek().map(|rank| (**rank, at)))
        .min()
        .map(|(_, at)| at)
}

/// What is free, as the plan takes it.
struct Room<'a> {
    state: &'a State,
    limits: &'a Limits,
    used: BTreeMap<&'a ExecutorName, Taken>,
    pools: BTreeMap<&'a PoolName, u32>,
}

/// What of an executor is taken.
#[derive(Clone, Copy)]
struct Taken {
    slots: u32,
    /// Attempts that are on their way to a process; counted where that matters.
    starting: u32,
}

impl<'a> Room<'a> {
    fn of(state: &'a State, limits: &'a Limits) -> Self {
        let connected = || state.executors.iter().filter(|(_, executor)| executor.takes_starts());
        Self {
            state,
            limits,
            used: connected().map(|(name, executor)| (name, Taken::of(state, limits, executor))).collect(),
            pools: limits.pools.keys().map(|pool| (pool, state.pool_used(pool))).collect(),
        }
    }

    fn take(&mut self, class: &Class) -> Result<ExecutorName, Reason> {
        if let Some(pool) = &class.pool {
            self.check_pool(pool, class.pool_slots)?;
        }
        let executor = self.choose(class)?;
        if let Some(taken) = self.used.get_mut(&executor) {
            taken.slots += 1;
            taken.starting += 1;
        }
        if let Some(used) = class.pool.as_ref().and_then(|pool| self.pools.get_mut(pool)) {
            *used += class.pool_slots;
        }
        Ok(executor)
    }

    fn check_pool(&self, pool: &PoolName, needed: u32) -> Result<(), Reason> {
        let Some(limit) = self.limits.pools.get(pool).copied() else {
            return Err(Reason::UnknownPool(pool.clone()));
        };
        let used = self.pools.get(pool).copied().unwrap_or(0);
        if needed > limit {
            return Err(Reason::PoolTooSmall { pool: pool.clone(), needed, limit });
        }
        if used.saturating_add(needed) > limit {
            return Err(Reason::PoolFull { pool: pool.clone(), used, limit });
        }
        Ok(())
    }

    fn choose(&self, class: &Class) -> Result<ExecutorName, Reason> {
        let mut fitting = Fitting::default();
        for (name, taken) in &self.used {
            let Some(executor) = self.state.executors.get(*name) else { continue };
            fitting.connected += 1;
            if !class.labels.iter().all(|(key, value)| executor.labels.get(key) == Some(value)) {
                continue;
            }
            fitting.labelled += 1;
            if !executor.kinds.iter().any(|kind| kind == class.kind.as_str()) {
                continue;
            }
            if let Some(obstacle) = self.obstacle(executor, *taken) {
                fitting.note(name, executor, obstacle);
                continue;
            }
            fitting.able += 1;
            fitting.slots = fitting.slots.saturating_add(executor.slots);
            let starting_max = executor.trial.starting_max(self.limits).unwrap_or(u32::MAX);
            let free = executor.slots.saturating_sub(taken.slots);
            fitting.offer(name, free.min(starting_max.saturating_sub(taken.starting)));
        }
        fitting.decide(class)
    }

    /// Says what keeps an executor that could run something from being given it, its slots apart.
    fn obstacle(&self, executor: &Executor, taken: Taken) -> Option<Obstacle> {
        let is_on_trial = || {
            let starting_max = executor.trial.starting_max(self.limits);
            taken.slots < executor.slots && starting_max.is_some_and(|most| taken.starting >= most)
        };
        if executor.standing.is_some() {
            Some(Obstacle::Closed)
        } else if executor.is_space_low {
            Some(Obstacle::Short)
        } else if executor.trial.waits() {
            Some(Obstacle::Unsteady)
        } else {
            is_on_trial().then_some(Obstacle::OnTrial)
        }
    }
}

impl Taken {
    fn of(state: &State, limits: &Limits, executor: &Executor) -> Self {
        let is_starting = |attempt: &&AttemptId| {
            let live = state.live(attempt.instance);
            live.is_some_and(|live| matches!(live.state, AttemptState::Assigned | AttemptState::Accepted))
        };
        let is_on_trial = executor.trial.starting_max(limits).is_some();
        let starting = if is_on_trial { executor.live.iter().filter(is_starting).count() } else { 0 };
        Self { slots: executor.used(), starting: u32::try_from(starting).unwrap_or(u32::MAX) }
    }
}

/// What keeps an executor from being given what it could run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Obstacle {
    /// It is closed to starts.
    Closed,
    /// It is short of disk space.
    Short,
    /// It says that it has space, and was wrong about that before.
    Unsteady,
    /// It has to show first that it can start anything.
    OnTrial,
}

/// How far the executors came that were looked at for a class.
#[derive(Default)]
struct Fitting<'a> {
    connected: usize,
    labelled: usize,
    able: usize,
    /// The first of those that could run it but for something, and how many more there are.
    hindered: Option<(&'a ExecutorName, &'a Executor, Obstacle, usize)>,
    slots: u32,
    best: Option<(u32, &'a ExecutorName)>,
}

impl<'a> Fitting<'a> {
    fn offer(&mut self, name: &'a ExecutorName, free: u32) {
        if free > self.best.map_or(0, |(most, _)| most) {
            self.best = Some((free, name));
        }
    }

    /// Notes an executor that could run it but for something; what a person can do most about is told.
    fn note(&mut self, name: &'a ExecutorName, executor: &'a Executor, obstacle: Obstacle) {
        self.hindered = Some(match self.hindered {
            Some((first, standing, before, more)) if before <= obstacle => {
                (first, standing, before, more + 1)
            }
            Some((.., more)) => (name, executor, obstacle, more + 1),
            None => (name, executor, obstacle, 0),
        });
    }

    fn decide(&self, class: &Class) -> Result<ExecutorName, Reason> {
        match self.best {
            Some((_, name)) => Ok(name.clone()),
            None if self.connected == 0 => Err(Reason::NoExecutor),
            None if self.labelled == 0 => Err(Reason::NoExecutorWithLabels(Arc::clone(&class.labels))),
            None if self.able == 0 => Err(self.without_one_able(class)),
            None => Err(Reason::SlotsFull { executors: self.able, slots: self.slots }),
        }
    }

    fn without_one_able(&self, class: &Class) -> Reason {
        let Some((name, executor, obstacle, more)) = self.hindered else {
            return Reason::NoExecutorWithKind(class.kind.as_str().into());
        };
        let name = name.clone();
        match (obstacle, &executor.standing) {
            (Obstacle::Closed, Some(standing)) => {
                Reason::ExecutorClosed { executor: name, standing: standing.clone(), more }
            }
            (Obstacle::Closed | Obstacle::Short, _) => Reason::SpaceLow { executor: name, more },
            (Obstacle::Unsteady, _) => Reason::SpaceUnsteady { executor: name, more },
            (Obstacle::OnTrial, _) => Reason::OnTrial { executor: name, more },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::run_script;

    const WORKFLOW: &str = "workflow
  workflow: w
  max_active_runs: 9
  tasks:
    one: { kind: shell, pool: p, with: { command: [make] } }
    two: { kind: shell, pool: p, pool_slots: 2, with: { command: [make] } }
    free: { kind: shell, priority: -1, with: { command: [make] } }
";

    /// Returns where things were placed, in order.
    fn placed(commands: &str) -> Vec<String> {
        let limits = Limits { pools: [("p".parse().unwrap(), 3)].into(), ..Limits::default() };
        let transcript = run_script(&format!("{WORKFLOW}{commands}"), limits).unwrap();
        let lines = transcript.lines().filter_map(|line| line.trim().strip_prefix("attempt "));
        lines
            .filter(|line| line.contains(" assigned to "))
            .map(|line| line.replace(" assigned to ", " "))
            .collect()
    }

    #[test]
    fn the_emptiest_executor_is_taken_and_the_first_by_name_of_several() {
        let placed = placed("executor b slots 2\nexecutor a slots 2\nexecutor c slots 3\nstart w\n");
        assert_eq!(placed, ["r1/one#1 c", "r1/two#1 a", "r1/free#1 b"]);
    }

    #[test]
    fn pools_are_filled_and_not_over_filled() {
        let placed = placed("executor a slots 9\nstart w\nstart w\n");
        assert_eq!(placed, ["r1/one#1 a", "r1/two#1 a", "r1/free#1 a", "r2/free#1 a"]);
    }

    #[test]
    fn what_does_not_fit_does_not_hold_up_what_does() {
        // Three of the pool are one and two; the second run's two has to wait, its one goes when the first one has ended.
        let placed = placed("executor a slots 9\nstart w\nstart w\na ends r1/one#1 succeeded\n");
        assert_eq!(placed.last().unwrap(), "r2/one#1 a");
    }

    #[test]
    fn executors_may_say_any_number_of_slots() {
        let most = u32::MAX;
        let placed = placed(&format!(
            "executor a slots {most}\nexecutor b slots {most}\nexecutor c slots 0\nstart w\nexplain r1\nstart w\nexplain r2\n"
        ));
        assert_eq!(placed, ["r1/one#1 a", "r1/two#1 b", "r1/free#1 a", "r2/free#1 b"]);
    }
}

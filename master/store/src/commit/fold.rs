//! A batch's changes, folded to what is different in the end.
//!
//! Several moves of one thing become one net write, guarded by the state that the first of them left. Moves that do not
//! fit each other are refused here, before anything is written.

use std::{collections::BTreeMap, fmt, sync::Arc};

use millrace_common::{
    id::{AttemptId, ExecutorName, InstanceId, RunId, SpoolId, WorkflowName},
    schedule::Skipped,
    state::{AttemptState, RunState, TaskState},
    time::Timestamp,
    workflow::Workflow,
};
use millrace_core::{AttemptEnd, Change, ExecutorStanding, RunCreated, SettingChanged, SettingRow};

/// Changes that do not fit each other, or that the store has no form for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Contradiction(pub(crate) String);

/// What a batch comes to, in the order of keys.
#[derive(Debug, Default)]
pub(crate) struct Fold<'a> {
    pub(crate) versions: Vec<Version<'a>>,
    pub(crate) workflows: BTreeMap<&'a WorkflowName, WorkflowNet>,
    /// Intervals that schedules passed over.
    pub(crate) skips: Vec<(&'a WorkflowName, &'a Skipped)>,
    pub(crate) settings: BTreeMap<&'a Arc<str>, SettingNet<'a>>,
    /// What was done to settings, one by one.
    pub(crate) setting_changes: Vec<&'a SettingChanged>,
    pub(crate) runs: BTreeMap<RunId, RunNet<'a>>,
    pub(crate) tasks: BTreeMap<InstanceId, TaskNet<'a>>,
    pub(crate) attempts: BTreeMap<AttemptId, AttemptNet<'a>>,
    /// How executors are closed now, where that changed; open where absent.
    pub(crate) standings: BTreeMap<&'a ExecutorName, Option<&'a ExecutorStanding>>,
}

/// A definition that came into force.
#[derive(Debug)]
pub(crate) struct Version<'a> {
    pub(crate) version: u32,
    pub(crate) workflow: &'a Workflow,
    pub(crate) source: &'a Arc<str>,
    pub(crate) at: Timestamp,
}

/// What is different about a workflow.
#[derive(Debug, Default)]
pub(crate) struct WorkflowNet {
    /// The first and the last of the versions that came into force.
    pub(crate) versions: Option<(u32, u32)>,
    pub(crate) cursor: Option<Timestamp>,
}

/// What a setting was before a batch, and is after it.
#[derive(Debug)]
pub(crate) struct SettingNet<'a> {
    pub(crate) before: Option<&'a SettingRow>,
    pub(crate) now: Option<&'a SettingRow>,
}

/// From the state that the first move left to the state that the last one gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moves<S> {
    pub(crate) from: S,
    pub(crate) to: S,
}

/// What is different about a run.
#[derive(Debug, Default)]
pub(crate) struct RunNet<'a> {
    pub(crate) created: Option<&'a RunCreated>,
    pub(crate) moves: Option<Moves<RunState>>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) ended_at: Option<Timestamp>,
    pub(crate) reason: Option<&'a Arc<str>>,
    pub(crate) ending: Option<(RunState, &'a Arc<str>)>,
}

/// What is different about a task instance.
#[derive(Debug, Default)]
pub(crate) struct TaskNet<'a> {
    pub(crate) moves: Option<Moves<TaskState>>,
    pub(crate) moved_at: Option<Timestamp>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) retry_at: Option<Timestamp>,
    pub(crate) values: Option<&'a Arc<str>>,
    /// Number of its last attempt, where it got one.
    pub(crate) attempts: Option<u32>,
    pub(crate) failures: u32,
    pub(crate) losses: u32,
    pub(crate) rejections: u32,
}

/// What is different about an attempt.
#[derive(Debug, Default)]
pub(crate) struct AttemptNet<'a> {
    pub(crate) assigned: Option<Assigned<'a>>,
    pub(crate) moves: Option<Moves<AttemptState>>,
    pub(crate) moved_at: Timestamp,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) end: Option<&'a AttemptEnd>,
}

/// Where an attempt was placed.
#[derive(Debug)]
pub(crate) struct Assigned<'a> {
    pub(crate) executor: &'a ExecutorName,
    pub(crate) spool: SpoolId,
    pub(crate) machine: Option<&'a Arc<str>>,
    pub(crate) at: Timestamp,
}

impl<'a> Fold<'a> {
    pub(crate) fn of(changes: &'a [Change]) -> Result<Self, Contradiction> {
        let mut fold = Self::default();
        for change in changes {
            fold.add(change)?;
        }
        Ok(fold)
    }

    fn add(&mut self, change: &'a Change) -> Result<(), Contradiction> {
        match change {
            Change::WorkflowApplied { version, workflow, source, at } => {
                let net = self.workflows.entry(&workflow.name).or_default();
                net.versions = Some((net.versions.map_or(*version, |(first, _)| first), *version));
                self.versions.push(Version { version: *version, workflow, source, at: *at });
            }
            Change::CursorMoved { workflow, cursor, skipped } => {
                self.workflows.entry(workflow).or_default().cursor = Some(*cursor);
                self.skips.extend(skipped.iter().map(|skipped| (workflow, skipped)));
            }
            Change::SettingChanged(changed) => self.setting_changed(changed)?,
            Change::RunCreated(created) => self.run_created(created)?,
            Change::RunMoved { run, from, to, at, reason } => {
                let net = self.runs.entry(*run).or_default();
                step(&mut net.moves, *from, *to, "run", run)?;
                net.reason = reason.as_ref();
                if *to == RunState::Running && net.started_at.is_none() {
                    net.started_at = Some(*at);
                }
                if to.is_final() {
                    net.ended_at = Some(*at);
                }
            }
            Change::RunEnding { run, to, reason } => {
                let before = self.runs.entry(*run).or_default().ending.replace((*to, reason));
                if before.is_some() {
                    return Err(Contradiction(format!("run {run} is given two ends")));
                }
            }
            Change::TaskMoved { instance, from, to, at, retry_at, values } => {
                self.task_moved(*instance, Moves { from: *from, to: *to }, *at)?;
                let net = self.tasks.entry(*instance).or_default();
                net.retry_at = *retry_at;
                net.values = values.as_ref().or(net.values);
            }
            Change::AttemptAssigned { attempt, executor, spool, machine, at } => {
                let assigned = Assigned { executor, spool: *spool, machine: machine.as_ref(), at: *at };
                self.attempt_assigned(*attempt, assigned)?;
            }
            Change::AttemptMoved { attempt, from, to, at } => {
                let net = self.attempts.entry(*attempt).or_default();
                step(&mut net.moves, *from, *to, "attempt", attempt)?;
                net.moved_at = *at;
                if *to == AttemptState::Running {
                    net.started_at = Some(*at);
                }
            }
            Change::AttemptEnded { attempt, from, end, at } => {
                self.attempt_ended(*attempt, *from, end, *at)?;
            }
            Change::ExecutorClosed { executor, standing } => {
                self.standings.insert(executor, Some(standing));
            }
            Change::ExecutorOpened { executor, .. } | Change::ExecutorForgotten { executor, .. } => {
                self.standings.insert(executor, None);
            }
        }
        Ok(())
    }

    fn setting_changed(&mut self, changed: &'a SettingChanged) -> Result<(), Contradiction> {
        let (before, now) = (changed.before.as_ref(), changed.now.as_ref());
        let net = self.settings.entry(&changed.name).or_insert(SettingNet { before, now: before });
        if net.now != before {
            return Err(Contradiction(format!("setting {} changes from what it is not", changed.name)));
        }
        net.now = now;
        self.setting_changes.push(changed);
        Ok(())
    }

    fn run_created(&mut self, created: &'a RunCreated) -> Result<(), Contradiction> {
        let net = RunNet {
            created: Some(created),
            moves: Some(Moves { from: RunState::Queued, to: RunState::Queued }),
            ..RunNet::default()
        };
        match self.runs.insert(created.run, net) {
            None => Ok(()),
            Some(_) => Err(Contradiction(format!("run {} is created after it was changed", created.run))),
        }
    }

    fn task_moved(
        &mut self,
        id: InstanceId,
        moves: Moves<TaskState>,
        at: Timestamp,
    ) -> Result<(), Contradiction> {
        if moves.to == TaskState::Waiting {
            return Err(Contradiction(format!("task instance {id} goes back to waiting, which has no row")));
        }
        let net = self.tasks.entry(id).or_default();
        step(&mut net.moves, moves.from, moves.to, "task instance", &id)?;
        net.moved_at = Some(at);
        if moves.to == TaskState::Active && net.started_at.is_none() {
            net.started_at = Some(at);
        }
        Ok(())
    }

    fn attempt_assigned(&mut self, id: AttemptId, assigned: Assigned<'a>) -> Result<(), Contradiction> {
        let net = AttemptNet {
            moved_at: assigned.at,
            assigned: Some(assigned),
            moves: Some(Moves { from: AttemptState::Assigned, to: AttemptState::Assigned }),
            ..AttemptNet::default()
        };
        if self.attempts.insert(id, net).is_some() {
            return Err(Contradiction(format!("attempt {id} is assigned after it was changed")));
        }
        self.tasks.entry(id.instance).or_default().attempts = Some(id.number);
        Ok(())
    }

    fn attempt_ended(
        &mut self,
        id: AttemptId,
        from: AttemptState,
        end: &'a AttemptEnd,
        at: Timestamp,
    ) -> Result<(), Contradiction> {
        if !end.state.is_final() {
            return Err(Contradiction(format!("attempt {id} ends as {}, which is not final", end.state)));
        }
        let net = self.attempts.entry(id).or_default();
        step(&mut net.moves, from, end.state, "attempt", &id)?;
        net.moved_at = at;
        net.end = Some(end);
        let task = self.tasks.entry(id.instance).or_default();
        match end.state {
            AttemptState::Failed | AttemptState::TimedOut => task.failures += 1,
            AttemptState::Lost if end.counts_as_loss() => task.losses += 1,
            AttemptState::Rejected if end.counts_as_rejection() => task.rejections += 1,
            AttemptState::Rejected
            | AttemptState::Lost
            | AttemptState::Assigned
            | AttemptState::Accepted
            | AttemptState::Running
            | AttemptState::Killing
            | AttemptState::Succeeded
            | AttemptState::Killed => {}
        }
        Ok(())
    }
}

/// Adds a move to those before it, which it must continue.
fn step<S: Copy + PartialEq + fmt::Display>(
    moves: &mut Option<Moves<S>>,
    from: S,
    to: S,
    subject: &'static str,
    id: &impl fmt::Display,
) -> Result<(), Contradiction> {
    match moves {
        None => *moves = Some(Moves { from, to }),
        Some(moves) if moves.to == from => moves.to = to,
        Some(moves) => {
            let reached = moves.to;
            return Err(Contradiction(format!("{subject} {id} leaves {from} while it is {reached}")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance() -> InstanceId {
        InstanceId { run: RunId::from_bytes([1; 16]), index: 4 }
    }

    fn moved(from: TaskState, to: TaskState, micros: i64) -> Change {
        let at = Timestamp::from_micros(micros);
        Change::TaskMoved { instance: instance(), from, to, at, retry_at: None, values: None }
    }

    #[test]
    fn moves_of_one_instance_become_one() {
        let changes = [
            moved(TaskState::Waiting, TaskState::Ready, 1),
            moved(TaskState::Ready, TaskState::Active, 2),
            moved(TaskState::Active, TaskState::UpForRetry, 3),
            moved(TaskState::UpForRetry, TaskState::Active, 4),
        ];
        let fold = Fold::of(&changes).unwrap();
        let net = &fold.tasks[&instance()];
        assert_eq!(net.moves, Some(Moves { from: TaskState::Waiting, to: TaskState::Active }));
        assert_eq!(net.started_at, Some(Timestamp::from_micros(2)), "the first start counts");
        assert_eq!(net.moved_at, Some(Timestamp::from_micros(4)));
    }

    #[test]
    fn moves_that_do_not_meet_are_refused() {
        let changes =
            [moved(TaskState::Waiting, TaskState::Ready, 1), moved(TaskState::Active, TaskState::Success, 2)];
        let Contradiction(what) = Fold::of(&changes).unwrap_err();
        assert!(what.ends_with("leaves active while it is ready"), "{what}");
    }

    #[test]
    fn nothing_goes_back_to_waiting() {
        assert!(Fold::of(&[moved(TaskState::Ready, TaskState::Waiting, 1)]).is_err());
    }
}

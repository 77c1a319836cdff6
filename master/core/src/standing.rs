//! Whether an executor gets starts: what a person or the leader decided about it, and what follows for requests.
//!
//! | it is | set by | lifted by |
//! |---|---|---|
//! | open | – | – |
//! | drained | a person | a person |
//! | cordoned | a person, or the leader after so many starts in a row that came to nothing there | a person |
//!
//! Both keep new starts away and leave alone what was placed before, also where that is sent once more after a reconnect.
//! They are durable: neither a restart of the executor nor another leader lifts them. A drain is a wish; a cordon says that
//! something is wrong with the machine. A person's decision replaces whatever was there; the leader's replaces nothing.

use std::{fmt, sync::Arc};

use millrace_common::{
    id::{AttemptId, ExecutorName, TaskName, WorkflowName},
    state::AttemptState,
    time::Timestamp,
};

use crate::{
    batch::{Answer, AttemptEnd, Change, Proof},
    explain::ExecutorSummary,
    refusal::Refusal,
    scheduler::Scheduler,
    state::Trial,
};

/// Who cordons where no person does.
const LEADER: &str = "the leader";
/// Attempts that a refusal names; more would not be read.
const ATTEMPTS_NAMED_MAX: usize = 5;
/// Attempts that are shown with an executor: as many as one may have slots.
const ATTEMPTS_SHOWN_MAX: usize = 4_096;

/// How an executor is closed to starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Closed {
    /// By a person's wish.
    Drained,
    /// Because something is wrong with it.
    Cordoned,
}

impl Closed {
    /// Every one of them.
    pub const ALL: [Self; 2] = [Self::Drained, Self::Cordoned];

    /// Returns the word that people and programs read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Drained => "drained",
            Self::Cordoned => "cordoned",
        }
    }

    /// Returns the number that the store keeps.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Drained => 1,
            Self::Cordoned => 2,
        }
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Why an executor is closed to starts until a person opens it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecutorStanding {
    /// How.
    pub closed: Closed,
    /// One line for people; empty where nobody gave one.
    pub reason: Arc<str>,
    /// Who.
    pub by: Arc<str>,
    /// Since when.
    pub since: Timestamp,
}

impl fmt::Display for ExecutorStanding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} by {} since {}", self.closed, self.by, self.since)?;
        if self.reason.is_empty() { Ok(()) } else { write!(f, ": {}", self.reason) }
    }
}

/// A request to close an executor to starts.
#[derive(Debug, Clone)]
pub struct CloseExecutor {
    /// Which.
    pub executor: ExecutorName,
    /// How.
    pub closed: Closed,
    /// Why; may be empty.
    pub reason: Arc<str>,
    /// Who asks.
    pub by: Arc<str>,
}

/// A person's word that nothing of an attempt runs any more.
#[derive(Debug, Clone)]
pub struct ConfirmLost {
    /// Which attempt.
    pub attempt: AttemptId,
    /// How that is known.
    pub reason: Arc<str>,
    /// Who says so.
    pub by: Arc<str>,
}

/// An executor with what was placed on it.
#[derive(Debug, Clone, PartialEq)]
pub struct ExecutorDetail {
    /// The executor.
    pub summary: ExecutorSummary,
    /// Its live attempts.
    pub attempts: Vec<PlacedAttempt>,
}

/// A live attempt, as its executor is asked about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlacedAttempt {
    /// Which.
    pub attempt: AttemptId,
    /// Of which workflow.
    pub workflow: WorkflowName,
    /// Of which task.
    pub task: TaskName,
    /// Where it stands.
    pub state: AttemptState,
    /// When it was placed.
    pub assigned_at: Timestamp,
}

impl Scheduler {
    pub(crate) fn show_executor(&self, name: &ExecutorName) -> Result<Answer, Refusal> {
        let executor =
            self.state.executors.get(name).ok_or_else(|| Refusal::UnknownExecutor(name.clone()))?;
        let placed = |attempt: &AttemptId| {
            let (run, task, instance) = self.state.instance(attempt.instance)?;
            let live = instance.live.as_deref()?;
            Some(PlacedAttempt {
                attempt: *attempt,
                workflow: run.workflow.name.clone(),
                task: task.name.clone(),
                state: live.state,
                assigned_at: live.assigned_at,
            })
        };
        let attempts = executor.live.iter().take(ATTEMPTS_SHOWN_MAX).filter_map(placed).collect();
        let summary = self.executor_summary(name, executor);
        Ok(Answer::Executor(Box::new(ExecutorDetail { summary, attempts })))
    }

    pub(crate) fn close_executor(&mut self, request: CloseExecutor) -> Result<Answer, Refusal> {
        let CloseExecutor { executor: name, closed, reason, by } = request;
        let executor =
            self.state.executors.get(&name).ok_or_else(|| Refusal::UnknownExecutor(name.clone()))?;
        let is_so = |standing: &ExecutorStanding| standing.closed == closed && standing.reason == reason;
        if !executor.standing.as_ref().is_some_and(is_so) {
            let standing = ExecutorStanding { closed, reason, by, since: self.now.wall };
            self.emit(Change::ExecutorClosed { executor: name.clone(), standing });
        }
        #[cfg(feature = "testing")]
        self.ignore_closed(&name);
        self.show_executor(&name)
    }

    pub(crate) fn open_executor(&mut self, name: &ExecutorName, by: Arc<str>) -> Result<Answer, Refusal> {
        let executor =
            self.state.executors.get_mut(name).ok_or_else(|| Refusal::UnknownExecutor(name.clone()))?;
        // Whoever opens it has mended it: what its starts showed before does not count any more.
        executor.trial = Trial::default();
        if executor.standing.is_some() {
            self.emit(Change::ExecutorOpened { executor: name.clone(), by, at: self.now.wall });
        }
        self.show_executor(name)
    }

    pub(crate) fn forget_executor(&mut self, name: &ExecutorName, by: Arc<str>) -> Result<Answer, Refusal> {
        let executor =
            self.state.executors.get(name).ok_or_else(|| Refusal::UnknownExecutor(name.clone()))?;
        if executor.is_connected() {
            return Err(Refusal::ExecutorConnected(name.clone()));
        }
        if !executor.live.is_empty() {
            let named: Vec<_> = executor.live.iter().take(ATTEMPTS_NAMED_MAX).copied().collect();
            let more = executor.live.len() - named.len();
            return Err(Refusal::ExecutorHolds { executor: name.clone(), attempts: named, more });
        }
        self.emit(Change::ExecutorForgotten { executor: name.clone(), by, at: self.now.wall });
        Ok(Answer::ExecutorForgotten)
    }

    /// Ends a live attempt by a person's word; refused where its executor is there to be asked.
    pub(crate) fn confirm_lost(&mut self, request: ConfirmLost) -> Result<Answer, Refusal> {
        let ConfirmLost { attempt, reason, by } = request;
        let live = self.state.live(attempt.instance).filter(|live| live.number == attempt.number);
        let live = live.ok_or(Refusal::AttemptNotLive(attempt))?;
        let executor = self.state.executors.get(&live.executor);
        if executor.is_some_and(|executor| executor.speaks_for(live.spool)) {
            return Err(Refusal::ExecutorSpeaks { attempt, executor: live.executor.clone() });
        }
        let is_ending = self.state.runs.get(&attempt.instance.run).is_some_and(|run| run.ending.is_some());
        // What was to be ended anyway is not a loss.
        let state = if is_ending { AttemptState::Killed } else { AttemptState::Lost };
        let end = AttemptEnd {
            reason: format!("confirmed by {by}: {reason}").into(),
            ..self.proven_end(state, "", Proof::Operator)
        };
        self.end_attempt(attempt, end);
        Ok(Answer::AttemptEnded(state))
    }

    /// Notes what the end of an attempt shows of its executor, and cordons one on which nothing starts.
    pub(crate) fn judge_start(&mut self, name: &ExecutorName, end: &AttemptEnd) {
        let most = self.limits.failed_starts_max;
        let Some(executor) = self.state.executors.get_mut(name) else { return };
        if end.shows_process() {
            return executor.trial.note_process();
        }
        if !end.shows_failed_start() {
            return;
        }
        let failed = executor.trial.note_failed_start();
        if most == 0 || failed < most || executor.standing.is_some() {
            return;
        }
        let last =
            if end.reason.is_empty() { String::new() } else { format!("; the last one: {}", end.reason) };
        let standing = ExecutorStanding {
            closed: Closed::Cordoned,
            reason: format!("{failed} starts in a row came to nothing{last}").into(),
            by: LEADER.into(),
            since: self.now.wall,
        };
        self.emit(Change::ExecutorClosed { executor: name.clone(), standing });
    }
}

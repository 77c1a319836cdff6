//! The entry points of the core: routing only. What each input means stands in the module of its noun.

use std::collections::BTreeMap;

use millrace_common::{
    id::RunId,
    term::Term,
    time::{Now, Uptime},
};

#[cfg(feature = "testing")]
use crate::testing::Mutation;
use crate::{
    batch::{Answer, Batch, Change, Effect},
    explain::Reason,
    ids::Ids,
    input::{Input, Request, RequestId},
    limits::Limits,
    queue::Class,
    refusal::Refusal,
    restore::{self, RestoreError, Restored},
    snapshot::Snapshot,
    state::State,
    timers::{Timers, UptimeTimer, WallTimer},
};

/// The scheduler of one term.
#[derive(Debug)]
pub struct Scheduler {
    pub(crate) term: Term,
    /// In force: what the program was started with, and the live settings over it.
    pub(crate) limits: Limits,
    pub(crate) base_limits: Limits,
    /// The revision of the last account of settings that was taken in this term.
    pub(crate) settings_revision: u64,
    pub(crate) state: State,
    pub(crate) timers: Timers,
    pub(crate) ids: Ids,
    /// What the clocks said with the last input.
    pub(crate) now: Now,
    /// Why classes of instances were not placed when that was last tried.
    pub(crate) blocked: BTreeMap<Class, Reason>,
    /// Inputs that were refused, by reason: a metric.
    pub(crate) refusals: BTreeMap<&'static str, u64>,
    pub(crate) changes: Vec<Change>,
    effects: Vec<Effect>,
    #[cfg(feature = "testing")]
    pub(crate) planted: Option<Mutation>,
}

impl Scheduler {
    /// Rebuilds the scheduler from what is durable: the one path that every start uses, fail-over or not.
    ///
    /// # Errors
    /// Where the snapshot contradicts itself as a whole. A single run that does is left out and named in
    /// [`Restored::quarantined`].
    pub fn restore(
        term: Term,
        snapshot: Snapshot,
        limits: Limits,
        now: Now,
    ) -> Result<Restored, RestoreError> {
        let scheduler = Self {
            term,
            base_limits: limits.clone(),
            limits,
            settings_revision: 0,
            state: State::default(),
            timers: Timers::default(),
            ids: Ids::new(term, now),
            now,
            blocked: BTreeMap::new(),
            refusals: BTreeMap::new(),
            changes: Vec::new(),
            effects: Vec::new(),
            #[cfg(feature = "testing")]
            planted: None,
        };
        restore::restore(scheduler, snapshot)
    }

    /// Takes in that something happened.
    pub fn handle(&mut self, now: Now, input: Input) {
        self.now = now;
        match input {
            Input::Requested(id, request) => self.on_requested(id, request),
            Input::SettingsRead(account) => self.take_settings(&account),
            Input::ExecutorConnected(session, hello) => self.on_executor_connected(session, *hello),
            Input::ExecutorDraining(session) => self.on_executor_draining(session),
            Input::ExecutorDisconnected(session) => self.on_executor_disconnected(session),
            Input::HeartbeatReceived { session, number, held, is_space_low, spool_facts } => {
                self.on_heartbeat_received(session, number, &held, is_space_low, spool_facts)
            }
            Input::AttemptReported { session, attempt, report } => {
                self.on_attempt_reported(session, attempt, report)
            }
        }
    }

    /// Takes in that time has passed.
    pub fn handle_timeout(&mut self, now: Now) {
        self.now = now;
        while let Some(timer) = self.timers.pop_wall(now.wall) {
            match timer {
                WallTimer::ScheduleDue(workflow) => self.on_schedule_due(&workflow),
            }
        }
        while let Some(timer) = self.timers.pop_uptime(now.uptime) {
            match timer {
                UptimeTimer::LossDue(executor) => self.on_loss_due(&executor),
                UptimeTimer::SpaceWaitOver(executor) => self.on_space_wait_over(&executor),
                UptimeTimer::RetryDue(instance) => self.on_retry_due(instance),
                UptimeTimer::RunTimeout(run) => self.on_run_timed_out(run),
            }
        }
    }

    /// Returns when [`handle_timeout`](Self::handle_timeout) is to be called next, on this machine's boot-time clock.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Uptime> {
        self.timers.next(self.now)
    }

    /// Places what can be placed and returns what is to be made durable and then done; `None` where there is nothing.
    pub fn take_batch(&mut self) -> Option<Batch> {
        self.place_ready();
        if self.changes.is_empty() && self.effects.is_empty() {
            return None;
        }
        #[cfg(feature = "testing")]
        if let Some(cursors) = self.cursors_apart() {
            return Some(Batch::new(self.term, cursors, Vec::new()));
        }
        let changes = std::mem::take(&mut self.changes);
        Some(Batch::new(self.term, changes, std::mem::take(&mut self.effects)))
    }

    /// Returns how many inputs were refused, by reason, since the term began.
    #[must_use]
    pub const fn refusals(&self) -> &BTreeMap<&'static str, u64> {
        &self.refusals
    }

    /// Returns how many attempts are live.
    #[must_use]
    pub fn live_attempts(&self) -> usize {
        self.state.live_attempts()
    }

    /// Returns the term that this scheduler decides for.
    #[must_use]
    pub const fn term(&self) -> Term {
        self.term
    }

    fn on_requested(&mut self, id: RequestId, request: Request) {
        let answer = match request {
            Request::ApplyWorkflow { workflow, source } => self.apply_workflow(workflow, source),
            Request::StartRun(start) => self.start_run(start),
            Request::CancelRun(run) => self.cancel_run(run),
            Request::PauseRun(run) => self.pause_run(run),
            Request::ResumeRun(run) => self.resume_run(run),
            Request::RetryRun(ended) => self.retry_run(&ended),
            Request::ExplainRun { run, task } => self.explain_run(run, task.as_ref()),
            Request::ShowExecutor(name) => self.show_executor(&name),
            Request::CloseExecutor(close) => self.close_executor(close),
            Request::OpenExecutor { executor, by } => self.open_executor(&executor, by),
            Request::ForgetExecutor { executor, by } => self.forget_executor(&executor, by),
            Request::ConfirmLost(confirmed) => self.confirm_lost(confirmed),
            Request::ListExecutors => Ok(Answer::Executors(self.executor_summaries())),
            Request::SetSetting(set) => self.set_setting(set),
            Request::TakeSettings(account) => {
                self.take_settings(&account);
                Ok(Answer::SettingsTaken)
            }
            Request::CountWork => Ok(Answer::Work(self.work_count())),
        };
        let answer = answer.unwrap_or_else(|refusal| {
            self.count_refusal("request");
            Answer::Refused(refusal)
        });
        self.push_effect(Effect::Answer(id, answer));
    }

    /// Makes a fact true and part of the next batch.
    pub(crate) fn emit(&mut self, change: Change) {
        self.state.apply(&change);
        self.changes.push(change);
    }

    pub(crate) fn push_effect(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    pub(crate) fn count_refusal(&mut self, reason: &'static str) {
        *self.refusals.entry(reason).or_default() += 1;
    }

    pub(crate) fn unknown_run(&self, run: RunId) -> Refusal {
        debug_assert!(!self.state.runs.contains_key(&run), "only asked for runs that are not there");
        Refusal::UnknownRun(run)
    }
}

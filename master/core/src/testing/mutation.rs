//! Faults that tests plant, to see that they would be found. None of this is compiled into a program.
//!
//! Those of the scheduler stand at one place each behind the feature `testing`; those of whoever drives it (what leaves
//! before it is durable, a fence or a term that is not compared) are planted by the simulation.

use std::time::Duration;

use millrace_common::{
    id::{AttemptId, ExecutorName},
    state::AttemptState,
    time::Uptime,
    workflow::Task,
};

use crate::{
    batch::{Change, Proof},
    input::Report,
    scheduler::Scheduler,
    state::Executor,
};

/// A fault that a test plants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mutation {
    /// Starts leave before their assignment is durable.
    StartsBeforeCommit,
    /// Executors are told to forget a result before it is durable.
    AcksBeforeCommit,
    /// Clients are answered before their run is durable.
    AnswersBeforeCommit,
    /// The store takes what a deposed leader decided.
    FenceForgotten,
    /// An executor obeys a leader of a lower term than it has seen.
    TermsForgotten,
    /// An attempt counts as lost as soon as its executor is disconnected.
    LossWaitIgnored,
    /// The wait for a silent executor leaves out what clocks err, and the margin.
    ClockErrorIgnored,
    /// A new leader does not reckon with one that answers heartbeats after it was deposed.
    AuthorityIgnored,
    /// A new leader takes everything for lost that was live.
    TakeoverLoses,
    /// A result that comes after the end of its attempt is taken.
    LateResultCounts,
    /// Any new spool proves that nothing of the old one is alive.
    NewSpoolProves,
    /// A new spool speaks for whatever machine had the name of its executor before.
    MachineIgnored,
    /// A greeting proves what it does not name, though a later one may have overtaken it.
    GreetingProves,
    /// An executor speaks for attempts that were assigned to another spool of its name.
    SpoolIgnored,
    /// A schedule's cursor is committed apart from the runs that it made.
    CursorApart,
    /// An attempt that did not arrive is sent to another executor.
    ResentElsewhere,
    /// An attempt that did not arrive is not sent again.
    NotResent,
    /// An end whose report did not arrive is not asked for.
    EndNotAskedFor,
    /// Whatever is heard of an executor puts off the end of what its old spool held.
    AnySpoolIsHeard,
    /// Attempts are placed on executors that are closed to starts.
    ClosedIgnored,
    /// A pool or an executor that was made smaller by a live setting is filled as before.
    SettingsIgnored,
}

impl Mutation {
    /// Every one of them.
    pub const ALL: [Self; 21] = [
        Self::StartsBeforeCommit,
        Self::AcksBeforeCommit,
        Self::AnswersBeforeCommit,
        Self::FenceForgotten,
        Self::TermsForgotten,
        Self::LossWaitIgnored,
        Self::ClockErrorIgnored,
        Self::AuthorityIgnored,
        Self::TakeoverLoses,
        Self::LateResultCounts,
        Self::NewSpoolProves,
        Self::MachineIgnored,
        Self::GreetingProves,
        Self::SpoolIgnored,
        Self::CursorApart,
        Self::ResentElsewhere,
        Self::NotResent,
        Self::EndNotAskedFor,
        Self::AnySpoolIsHeard,
        Self::ClosedIgnored,
        Self::SettingsIgnored,
    ];
}

impl Scheduler {
    /// Plants a fault, for a test that is to find it.
    pub fn plant(&mut self, mutation: Option<Mutation>) {
        self.planted = mutation;
        if self.is_planted(Mutation::TakeoverLoses) {
            let live: Vec<_> =
                self.state.executors.values().flat_map(|executor| executor.live.clone()).collect();
            for attempt in live {
                let end =
                    self.proven_end(AttemptState::Lost, "another leader took over", Proof::OrphanTimePassed);
                self.end_attempt(attempt, end);
            }
        }
        let executors: Vec<_> = self.state.executors.keys().cloned().collect();
        executors.iter().for_each(|executor| self.arm_loss(executor));
    }

    pub(crate) fn is_planted(&self, mutation: Mutation) -> bool {
        self.planted == Some(mutation)
    }

    /// Overwrites the end of an attempt with one that came later.
    pub(crate) fn take_late_result(&mut self, attempt: AttemptId, report: &Report) {
        if let (true, Report::Ended(end)) = (self.is_planted(Mutation::LateResultCounts), report) {
            let (from, at, end) = (AttemptState::Running, self.now.wall, end.clone());
            self.changes.push(Change::AttemptEnded { attempt, from, end, at });
        }
    }

    /// Returns how long a silent executor is waited for, right or wrong.
    pub(crate) fn wait_wrongly(&self, task: &Task, right: Duration) -> Duration {
        match self.planted {
            Some(Mutation::LossWaitIgnored) => Duration::ZERO,
            Some(Mutation::ClockErrorIgnored) => {
                task.orphan_timeout + task.kill_grace + self.limits.kill_verify
            }
            _ => right,
        }
    }

    /// Returns since when an executor is silent, right or wrong.
    pub(crate) fn heard_wrongly(&self, executor: &Executor, right: Uptime) -> Uptime {
        match self.planted {
            Some(Mutation::AuthorityIgnored) if right == executor.heard_before => {
                Uptime::new(right.since_boot().saturating_sub(self.limits.authority))
            }
            Some(Mutation::AnySpoolIsHeard) => right.max(executor.heard_at(executor.spool)),
            _ => right,
        }
    }

    /// Forgets what live settings say about capacity, right after they were set.
    pub(crate) fn ignore_settings(&mut self) {
        if self.is_planted(Mutation::SettingsIgnored) {
            self.limits = self.base_limits.clone();
            self.state.executors.values_mut().for_each(|executor| executor.slots = executor.slots_offered);
        }
    }

    /// Forgets that an executor is closed, right after that became true.
    pub(crate) fn ignore_closed(&mut self, executor: &ExecutorName) {
        if let (true, Some(executor)) =
            (self.is_planted(Mutation::ClosedIgnored), self.state.executors.get_mut(executor))
        {
            executor.standing = None;
        }
    }

    /// Takes out the movements of cursors, where they are to be committed apart from what they made.
    pub(crate) fn cursors_apart(&mut self) -> Option<Vec<Change>> {
        let is_cursor = |change: &Change| matches!(change, Change::CursorMoved { .. });
        let is_mixed = self.changes.iter().any(is_cursor) && !self.changes.iter().all(is_cursor);
        if !is_mixed || !self.is_planted(Mutation::CursorApart) {
            return None;
        }
        let (cursors, rest) = std::mem::take(&mut self.changes).into_iter().partition(is_cursor);
        self.changes = rest;
        Some(cursors)
    }
}

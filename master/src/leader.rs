//! A term: everything that a leader owns is made here and dropped here.

mod desk;
pub(crate) mod inbox;
mod outbox;
mod prune;
pub(crate) mod sessions;

use std::{any::Any, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use millrace_common::{
    gather::gather_time,
    state::AttemptState,
    time::{Clock, Now, Uptime},
};
use millrace_core::{Change, Closed, Proof, Scheduler, SettingChanged, Settings, lease::AuthorityEnd};
use millrace_runtime::chain::Chain;
use millrace_store::{CommitError, Writer};
use thiserror::Error;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use self::{
    desk::{Desk, DeskParts},
    inbox::Inbox,
    outbox::Outbox,
};
pub(crate) use self::{
    inbox::{AskError, Handle, LeaderGone},
    prune::Pruner,
};
use crate::{database::Condition, election::Authority, feed::Feed, fleet::Fleet, settings};

/// Inputs that one wake-up takes in; they share a commit.
const INPUTS_PER_WAKE_MAX: usize = 4_096;
/// How long to sleep where nothing is due: a wall clock that was set is noticed after this long at the latest.
const SLEEP_MAX: Duration = Duration::from_secs(60);
/// How long a leader goes without a write before it looks whether it still could: until then a database that it alone
/// does not reach would keep the others from leading.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// Why a term ended.
#[derive(Debug)]
pub(crate) enum TermEnd {
    /// The program is to stop. Everything decided is durable.
    Stopped,
    /// A commit failed or its outcome is not known.
    CommitFailed(CommitError),
    /// Another master may lead from now on.
    AuthorityOver(AuthorityEnd),
    /// The scheduler broke one of its own invariants: what it would decide next cannot be trusted.
    Broken(String),
}

/// The parts of a term.
pub(crate) struct TermParts {
    pub(crate) scheduler: Scheduler,
    pub(crate) writer: Writer,
    pub(crate) authority: Authority,
    pub(crate) inbox: Inbox,
    pub(crate) feed: Feed,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) pruner: Pruner,
    pub(crate) condition: Condition,
    pub(crate) fleet: Fleet,
}

/// What ends a term that is not broken.
#[derive(Debug, Error)]
enum LeadError {
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error(transparent)]
    Authority(#[from] AuthorityEnd),
}

/// Leads until told to stop, unable to commit, without authority, or broken.
///
/// A panic ends the term like a failed commit does: nothing of the batch that it interrupted becomes visible.
pub(crate) async fn run_term(parts: TermParts, shutdown: CancellationToken) -> TermEnd {
    let span = tracing::info_span!("term", term = parts.scheduler.term().0);
    // Everything that the panic may have left half-done is dropped with it.
    let led = AssertUnwindSafe(Box::pin(lead(parts, shutdown))).catch_unwind().instrument(span).await;
    match led {
        Ok(Ok(())) => TermEnd::Stopped,
        Ok(Err(LeadError::Commit(error))) => {
            tracing::error!(error = %Chain(&error), "commit failed, the term ends");
            TermEnd::CommitFailed(error)
        }
        Ok(Err(LeadError::Authority(end))) => {
            tracing::error!(error = %end, "another master may lead, the term ends");
            TermEnd::AuthorityOver(end)
        }
        Err(panic) => {
            let problem = text_of(panic.as_ref());
            tracing::error!(error = problem, "an invariant is broken, the term ends");
            TermEnd::Broken(problem)
        }
    }
}

async fn lead(parts: TermParts, shutdown: CancellationToken) -> Result<(), LeadError> {
    let TermParts { mut scheduler, mut writer, authority, inbox, feed, clock, pruner, condition, fleet } =
        parts;
    let outbox = Outbox::new(scheduler.term(), feed);
    let mut desk = Desk::new(DeskParts {
        inbox,
        outbox,
        authority: authority.clone(),
        clock: Arc::clone(&clock),
        condition,
        fleet,
        shutdown: shutdown.clone(),
    });
    let mut inbound = Vec::with_capacity(INPUTS_PER_WAKE_MAX);
    let mut gather_until = Uptime::default();
    let mut upkeep = Upkeep { pruner, idle: Idle::since(&authority, clock.now().uptime) };
    go_by(scheduler.settings(), &mut upkeep.pruner);
    loop {
        let now = clock.now();
        let next =
            scheduler.poll_timeout().map_or_else(|| upkeep.due(), |deadline| deadline.min(upkeep.due()));
        // Biased: a stop comes before new work. The arms hold no logic, so that none of it depends on which one wins.
        tokio::select! {
            biased;
            () = shutdown.cancelled() => return Ok(()),
            () = authority.over() => {}
            () = desk.wait(INPUTS_PER_WAKE_MAX) => {}
            () = tokio::time::sleep(next.since(now.uptime).min(SLEEP_MAX)) => {}
        }
        authority.check(clock.as_ref())?;
        // Whoever is about to hand something in may do so: it then shares the commit. After a quiet time nothing waits.
        match gather_until.since(clock.now().uptime) {
            Duration::ZERO => tokio::task::yield_now().await,
            wait => tokio::time::sleep(wait).await,
        }
        desk.take(&mut inbound, INPUTS_PER_WAKE_MAX);
        // Questions to executors leave as they are taken in.
        authority.check(clock.as_ref())?;
        let now = clock.now();
        for item in inbound.drain(..) {
            if let Some(input) = desk.outbox().admit(item) {
                scheduler.handle(now, input);
            }
        }
        // After the inputs: a heartbeat that was answered during a write has not been heard before.
        scheduler.handle_timeout(now);
        let seq = writer.seq();
        while let Some(batch) = scheduler.take_batch() {
            let committed =
                desk.write(&mut writer, async |writer: &mut Writer| writer.commit(batch).await).await?;
            note(&committed.changes, scheduler.settings(), &mut upkeep.pruner);
            // After the receipt of what is answered and right before the answers: whatever was said to an executor was
            // asked for while this master had authority, however long it was frozen in between.
            authority.check(clock.as_ref())?;
            desk.outbox().release(&committed.changes, committed.effects);
            for input in desk.outbox().take_inputs(now.wall) {
                scheduler.handle(now, input);
            }
            gather_until = clock.now().uptime + gather_time(scheduler.live_attempts());
        }
        upkeep.run(&mut desk, &mut writer, now, seq).await?;
    }
}

/// What a leader writes of itself.
struct Upkeep {
    pruner: Pruner,
    idle: Idle,
}

impl Upkeep {
    fn due(&self) -> Uptime {
        self.pruner.due().min(self.idle.due())
    }

    /// Deletes what is old, and looks whether the database still takes writes where it has taken none since `seq`.
    async fn run(
        &mut self,
        desk: &mut Desk,
        writer: &mut Writer,
        now: Now,
        seq: u64,
    ) -> Result<(), CommitError> {
        let Self { pruner, idle } = self;
        // Neither has effects: nobody asked for them.
        if now.uptime >= pruner.due() {
            drop(desk.write(writer, async |writer: &mut Writer| pruner.prune(writer, now).await).await?);
        }
        if now.uptime >= idle.due() && writer.seq() == seq {
            drop(desk.write(writer, async |writer: &mut Writer| writer.probe().await).await?);
        }
        if writer.seq() != seq {
            idle.begin(now.uptime);
        }
        Ok(())
    }
}

/// Knows when to look whether the database still takes writes. Whoever is alone has nobody to make way for, and leaves
/// its disk asleep.
struct Idle {
    is_watched: bool,
    since: Uptime,
}

impl Idle {
    const fn since(authority: &Authority, now: Uptime) -> Self {
        Self { is_watched: authority.is_leased(), since: now }
    }

    const fn begin(&mut self, now: Uptime) {
        self.since = now;
    }

    fn due(&self) -> Uptime {
        if self.is_watched { self.since + IDLE_MAX } else { Uptime::new(Duration::MAX) }
    }
}

/// Says what was committed, and lets those who go by live settings do so.
fn note(changes: &[Change], settings: &Settings, pruner: &mut Pruner) {
    log_changes(changes);
    if changes.iter().any(|change| matches!(change, Change::SettingChanged(_))) {
        go_by(settings, pruner);
    }
}

/// Tells those who go by live settings, the scheduler apart, what is in force.
fn go_by(settings: &Settings, pruner: &mut Pruner) {
    settings::filter_log(settings);
    pruner.keep(settings);
}

/// Returns what a panic said.
fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without words".to_owned())
}

/// State changes are logged from what was committed, in this one place, so that log and database agree.
fn log_changes(changes: &[Change]) {
    for change in changes {
        match change {
            Change::WorkflowApplied { version, workflow, .. } => {
                tracing::info!(workflow = %workflow.name, version, "workflow applied");
            }
            Change::CursorMoved { workflow, skipped: Some(skipped), .. } => {
                tracing::warn!(%workflow, count = skipped.count, "scheduled intervals passed over");
            }
            Change::CursorMoved { .. } => {}
            Change::SettingChanged(changed) => log_setting(changed),
            Change::RunCreated(created) => {
                tracing::info!(run_id = %created.run, workflow = %created.workflow, "run created");
            }
            Change::RunMoved { run, from, to, .. } => {
                tracing::info!(run_id = %run, state_from = %from, state_to = %to, "run moved");
            }
            Change::RunEnding { run, reason, .. } => {
                tracing::info!(run_id = %run, %reason, "run is being ended")
            }
            Change::TaskMoved { instance, from, to, .. } => {
                tracing::debug!(run_id = %instance.run, task = instance.index, state_from = %from, state_to = %to, "task moved");
            }
            Change::AttemptAssigned { attempt, executor, .. } => {
                tracing::debug!(%attempt, executor_id = %executor, "attempt assigned");
            }
            Change::AttemptMoved { attempt, from, to, .. } => {
                tracing::debug!(%attempt, state_from = %from, state_to = %to, "attempt moved");
            }
            Change::AttemptEnded { attempt, end, .. } if end.proof == Proof::Operator => {
                tracing::warn!(%attempt, state_to = %end.state, reason = %end.reason, "attempt ended by a person's word");
            }
            Change::AttemptEnded { attempt, end, .. } if end.state == AttemptState::Lost => {
                tracing::warn!(%attempt, reason = %end.reason, "attempt lost");
            }
            Change::AttemptEnded { attempt, end, .. } => {
                tracing::debug!(%attempt, state_to = %end.state, reason = %end.reason, "attempt ended");
            }
            Change::ExecutorClosed { executor, standing } => match standing.closed {
                Closed::Drained => {
                    tracing::info!(executor_id = %executor, by = %standing.by, reason = %standing.reason, "executor drained");
                }
                Closed::Cordoned => {
                    tracing::error!(executor_id = %executor, by = %standing.by, reason = %standing.reason, "executor cordoned");
                }
            },
            Change::ExecutorOpened { executor, by, .. } => {
                tracing::info!(executor_id = %executor, %by, "executor takes starts again");
            }
            Change::ExecutorForgotten { executor, by, .. } => {
                tracing::info!(executor_id = %executor, %by, "executor forgotten");
            }
        }
    }
}

fn log_setting(changed: &SettingChanged) {
    let SettingChanged { name, before, given, refusal, by, .. } = changed;
    let old = before.as_ref().and_then(|row| row.value.as_ref()).map_or("", |value| &value.text);
    let given = given.as_deref().unwrap_or("");
    match refusal {
        None => tracing::info!(setting = %name, old, new = given, %by, "live setting changed"),
        Some(reason) => {
            tracing::error!(setting = %name, kept = old, %reason, %by, "live setting refused, the last good one stays");
        }
    }
}

impl std::fmt::Debug for TermParts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TermParts").field("term", &self.scheduler.term()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

//! Where a term meets everybody else, and goes on doing so while a write takes long.
//!
//! A database that restarts, or whose disk is full, keeps the leader from deciding anything, and must not cost executors
//! what they run. So while a write is under way for longer than [`PATIENCE`]:
//!
//! | what comes in | what happens to it |
//! |---|---|
//! | a heartbeat of a session that was answered before | answered at once, and kept for the scheduler |
//! | a request | kept for a while; refused once the write has failed or takes longer than [`REFUSE_AFTER`] |
//! | anything else | kept, in its order |
//!
//! An answered heartbeat renews an executor's contact and decides nothing. The scheduler learns of it before it looks at
//! the time again, so that it never counts an executor as silent for longer than the executor counts itself. The first
//! heartbeat of a session proves something beside, so its answer waits for the commit like everything else.
//!
//! What is kept is bounded: where it is full nothing more is taken, and callers wait.

mod backlog;
#[cfg(test)]
mod tests;

use std::{pin::pin, sync::Arc, time::Duration};

use millrace_common::time::{Clock, Uptime};
use millrace_core::Input;
use millrace_runtime::{Chain, jitter};
use millrace_store::{CommitError, Committed, Writer};
use tokio_util::sync::CancellationToken;

use self::backlog::Backlog;
use super::{
    inbox::{AskError, Inbound, Inbox},
    outbox::Outbox,
};
use crate::{database::Condition, election::Authority, fleet::Fleet};

/// How long a write may take before heartbeats are answered beside it: far more than a slow disk needs, far less than an
/// executor waits for an answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a write may take before requests are refused instead of kept.
const REFUSE_AFTER: Duration = Duration::from_secs(3);
/// Pause between two tries to go on with a write; it doubles from the first to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// How long the database may be away for this master while it works for another one. Long enough for a restart, short
/// enough that somebody commits again within half a minute.
const MAKE_WAY_AFTER: Duration = Duration::from_secs(20);
/// How often the log says that the database is still away.
const REMINDER: Duration = Duration::from_secs(30);

/// What a desk is made of.
pub(super) struct DeskParts {
    pub(super) inbox: Inbox,
    pub(super) outbox: Outbox,
    pub(super) authority: Authority,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) condition: Condition,
    pub(super) fleet: Fleet,
    pub(super) shutdown: CancellationToken,
}

/// The term's ends of all channels, and what came in and waits.
pub(super) struct Desk {
    parts: DeskParts,
    backlog: Backlog,
    /// What was just taken from the inbox.
    arrived: Vec<Inbound>,
    is_refusing: bool,
}

impl Desk {
    pub(super) fn new(parts: DeskParts) -> Self {
        Self { parts, backlog: Backlog::default(), arrived: Vec::new(), is_refusing: false }
    }

    pub(super) const fn outbox(&mut self) -> &mut Outbox {
        &mut self.parts.outbox
    }

    /// Waits until something is there to be taken.
    ///
    /// Cancellation-safe: what came in stays.
    pub(super) async fn wait(&mut self, max: usize) {
        if self.backlog.is_empty() && self.arrived.is_empty() {
            self.parts.inbox.take(&mut self.arrived, max).await;
        }
    }

    /// Takes all that was kept during a write, and what is there beside, up to `max`.
    pub(super) fn take(&mut self, into: &mut Vec<Inbound>, max: usize) {
        self.backlog.drain(into);
        into.append(&mut self.arrived);
        self.parts.inbox.take_ready(into, max);
    }

    /// Begins a write and sees it through an outage, for as long as this master is to lead.
    ///
    /// # Errors
    /// Where the term ends.
    pub(super) async fn write(
        &mut self,
        writer: &mut Writer,
        begin: impl AsyncFnOnce(&mut Writer) -> Result<Committed, CommitError>,
    ) -> Result<Committed, CommitError> {
        let (seq, began) = (writer.seq(), self.parts.clock.now().uptime);
        let committed = match self.attended(begin(writer)).await {
            Ok(committed) => committed,
            Err(error) => self.until_back(writer, error, began).await?,
        };
        self.is_refusing = false;
        if committed.seq > seq {
            let now = self.parts.clock.now();
            self.parts.condition.on_committed(now, now.uptime.since(began));
        }
        Ok(committed)
    }

    /// Goes on with a write that the database is away for, and says what is going on.
    async fn until_back(
        &mut self,
        writer: &mut Writer,
        first: CommitError,
        began: Uptime,
    ) -> Result<Committed, CommitError> {
        let mut error = first;
        let (mut pause, pause_max) = PAUSES;
        let mut remind_at = began;
        while !error.ends_term() {
            self.refuse();
            let now = self.parts.clock.now();
            self.parts.condition.on_trouble(now, &error);
            let away = now.uptime.since(began);
            if now.uptime >= remind_at {
                remind_at = now.uptime + REMINDER;
                tracing::error!(
                    error = %Chain(&error),
                    away_s = away.as_secs(),
                    "the database is away: nothing is acknowledged or dispatched until it is back"
                );
            }
            if self.is_to_make_way(away, &error) {
                break;
            }
            self.beside(tokio::time::sleep(jitter::from_half(pause))).await;
            pause = (pause * 2).min(pause_max);
            error = match self.beside(writer.retry()).await {
                Ok(committed) => {
                    let away_s = self.parts.clock.now().uptime.since(began).as_secs();
                    tracing::info!(away_s, "the database is back");
                    return Ok(committed);
                }
                Err(error) => error,
            };
        }
        Err(error)
    }

    /// Tells whether to go on with a database that is away serves nobody: whoever can take over is to do so.
    ///
    /// The others only read, which a full disk lets them do: nobody could write in the place of this one.
    fn is_to_make_way(&self, away: Duration, error: &CommitError) -> bool {
        if self.parts.shutdown.is_cancelled() {
            return true;
        }
        let is_full = matches!(error, CommitError::DiskFull(_));
        let is_needless = !is_full && away >= MAKE_WAY_AFTER && self.parts.fleet.has_database_elsewhere();
        if is_needless {
            tracing::error!("the database works for another master: this one makes way");
        }
        is_needless
    }

    /// Waits for a write, at first for nothing else, as it should take a moment.
    async fn attended<T>(&mut self, write: impl Future<Output = T>) -> T {
        let mut write = pin!(write);
        // Biased: a write that is done needs no timer.
        tokio::select! {
            biased;
            done = &mut write => return done,
            () = tokio::time::sleep(PATIENCE) => {}
        }
        tracing::warn!("the database takes long over a transaction");
        let soon = async {
            tokio::select! {
                biased;
                done = &mut write => Some(done),
                () = tokio::time::sleep(REFUSE_AFTER - PATIENCE) => None,
            }
        };
        if let Some(done) = self.beside(soon).await {
            return done;
        }
        self.refuse();
        self.beside(write).await
    }

    /// Waits for something, and attends to what comes in meanwhile.
    async fn beside<T>(&mut self, waited_for: impl Future<Output = T>) -> T {
        let mut waited_for = pin!(waited_for);
        loop {
            // Biased: what comes in can wait for the next turn of the term. Dropping `arrive` loses nothing.
            tokio::select! {
                biased;
                done = &mut waited_for => return done,
                () = self.arrive() => self.attend(),
            }
        }
    }

    async fn arrive(&mut self) {
        if !self.backlog.has_room() {
            std::future::pending::<()>().await;
        }
        if self.arrived.is_empty() {
            self.parts.inbox.take(&mut self.arrived, super::INPUTS_PER_WAKE_MAX).await;
        }
    }

    /// Answers what may be answered before the write is durable, and keeps the rest.
    fn attend(&mut self) {
        let may_answer = self.parts.authority.check(self.parts.clock.as_ref()).is_ok();
        for item in std::mem::take(&mut self.arrived) {
            match item {
                Inbound::Request(_, caller) if self.is_refusing => {
                    // A caller that has gone needs no answer.
                    let _ = caller.send(Err(AskError::DatabaseAway));
                }
                Inbound::Input(Input::HeartbeatReceived { session, number, .. }) if may_answer => {
                    self.parts.outbox.renew_contact(session, number);
                    self.backlog.push(item);
                }
                Inbound::Request(..)
                | Inbound::Connected { .. }
                | Inbound::Question(..)
                | Inbound::Input(_) => self.backlog.push(item),
            }
        }
    }

    /// Refuses requests from now on, and those that were kept. The scheduler has seen none of them: nothing was done.
    fn refuse(&mut self) {
        self.is_refusing = true;
        for item in self.backlog.take_if(|item| matches!(item, Inbound::Request(..))) {
            if let Inbound::Request(_, caller) = item {
                // A caller that has gone needs no answer.
                let _ = caller.send(Err(AskError::DatabaseAway));
            }
        }
    }
}

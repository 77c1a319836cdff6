//! Asks executors for what they have written down: the questions that are under way, and who can be asked.
//!
//! A question goes out over the executor's session, through the term, so that nothing is said without authority; the
//! answer comes back over the same session and goes to whoever waits for it, not to the scheduler. A history is taken page
//! by page, and no more of it than [`ENTRIES_MAX`].

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use millrace_common::{
    id::{ExecutorName, SessionId},
    time::Timestamp,
};
use millrace_proto::{convert, v1};
use tokio::sync::oneshot;

use crate::{
    leader::Handle,
    verify::{Ledger, LedgerError},
};

/// How long an executor may take over a page.
const PAGE_TIME_MAX: Duration = Duration::from_secs(5);
/// How long all pages of one executor may take: who asks for everything waits no longer than for any other answer.
const READ_TIME_MAX: Duration = Duration::from_secs(15);
/// Entries that are taken of one executor: four for each attempt, as a rule.
const ENTRIES_MAX: usize = 400_000;

/// The executors that can be asked. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Histories {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Debug, Default)]
struct Inner {
    /// By session: of two with one name the leader ends one.
    sessions: BTreeMap<SessionId, Asked>,
    waiting: BTreeMap<(SessionId, u64), oneshot::Sender<v1::HistoryPage>>,
    number: u64,
}

#[derive(Debug)]
struct Asked {
    executor: ExecutorName,
    has_history: bool,
}

impl Histories {
    /// Notes that an executor has a session, and whether it answers.
    pub(crate) fn join(&self, executor: ExecutorName, session: SessionId, has_history: bool) {
        self.inner().sessions.insert(session, Asked { executor, has_history });
    }

    /// Notes that a session ended.
    pub(crate) fn leave(&self, session: SessionId) {
        let mut inner = self.inner();
        inner.sessions.remove(&session);
        // Dropping the sender tells who waits.
        inner.waiting.retain(|(of, _), _| *of != session);
    }

    /// Returns the executors that have a session.
    pub(crate) fn connected(&self) -> Vec<ExecutorName> {
        self.inner().sessions.values().map(|asked| asked.executor.clone()).collect()
    }

    /// Takes in an answer; one that nobody waits for is dropped.
    pub(crate) fn answer(&self, session: SessionId, page: v1::HistoryPage) {
        if let Some(waiting) = self.inner().waiting.remove(&(session, page.number)) {
            // Who asked may have gone.
            let _ = waiting.send(page);
        }
    }

    /// Reads the history of an executor from `since` to `until`.
    ///
    /// # Errors
    /// Where it cannot be asked, does not answer in time, or has too much to tell.
    pub(crate) async fn read(
        &self,
        leader: &Handle,
        executor: &ExecutorName,
        since: Timestamp,
        until: Timestamp,
    ) -> Result<Ledger, LedgerError> {
        // Dropped in the middle it leaves nothing but an answer that nobody waits for.
        let read = tokio::time::timeout(READ_TIME_MAX, self.pages(leader, executor, (since, until))).await;
        read.unwrap_or(Err(LedgerError::Silent(READ_TIME_MAX.as_secs())))
    }

    async fn pages(
        &self,
        leader: &Handle,
        executor: &ExecutorName,
        range: (Timestamp, Timestamp),
    ) -> Result<Ledger, LedgerError> {
        let mut ledger = Ledger::default();
        let mut page_token = String::new();
        loop {
            let page = self.page(leader, executor, range, page_token).await?;
            if !page.problem.is_empty() {
                return Err(LedgerError::Unreadable(page.problem));
            }
            ledger.begins_at = (!page.is_whole).then(|| convert::timestamp(page.begins_at));
            for entry in page.entries {
                ledger.entries.push(entry.try_into()?);
            }
            if ledger.entries.len() > ENTRIES_MAX {
                return Err(LedgerError::TooMany(ENTRIES_MAX));
            }
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(ledger);
            }
        }
    }

    async fn page(
        &self,
        leader: &Handle,
        executor: &ExecutorName,
        (since, until): (Timestamp, Timestamp),
        page_token: String,
    ) -> Result<v1::HistoryPage, LedgerError> {
        let (session, number, answer) = self.open(executor)?;
        let request =
            v1::HistoryRequest { number, since: since.as_micros(), until: until.as_micros(), page_token };
        leader.ask_executor(session, request).await.map_err(|_| LedgerError::NoLeader)?;
        match tokio::time::timeout(PAGE_TIME_MAX, answer).await {
            Ok(page) => page.map_err(|_| LedgerError::Gone),
            Err(_) => {
                self.inner().waiting.remove(&(session, number));
                Err(LedgerError::Silent(PAGE_TIME_MAX.as_secs()))
            }
        }
    }

    fn open(
        &self,
        executor: &ExecutorName,
    ) -> Result<(SessionId, u64, oneshot::Receiver<v1::HistoryPage>), LedgerError> {
        let mut inner = self.inner();
        let newest = inner.sessions.iter().rev().find(|(_, asked)| asked.executor == *executor);
        let (session, has_history) =
            newest.map(|(session, asked)| (*session, asked.has_history)).ok_or(LedgerError::NotConnected)?;
        if !has_history {
            return Err(LedgerError::TooOld);
        }
        inner.number += 1;
        let number = inner.number;
        let (sender, receiver) = oneshot::channel();
        inner.waiting.insert((session, number), sender);
        Ok((session, number, receiver))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

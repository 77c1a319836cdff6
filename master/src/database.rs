//! How the database is, as this master sees it: noted by who writes or asks, read by who tells people.
//!
//! A leader's own writes show how it is. Who does not lead looks from time to time, since it is to know before an election
//! whether it could lead; a master that found no database when it started gets ready for it here.

use std::{error::Error, io, sync::Arc, time::Duration};

use millrace_common::time::{Clock, Now, Timestamp};
use millrace_runtime::{Chain, jitter};
use millrace_store::{OpenError, Store, query::QueryError};
use thiserror::Error;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::role::Roles;

/// How often a master that does not lead looks, at most; half of it is random.
const LOOK_INTERVAL: Duration = Duration::from_secs(4);
/// How often it looks while there is something wrong.
const TROUBLE_INTERVAL: Duration = Duration::from_secs(1);
/// How long an answer may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

/// The condition of the database. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Condition {
    seen: watch::Sender<Seen>,
}

/// What was seen last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// What keeps it from being used, and since when.
    pub(crate) problem: Option<(Timestamp, String)>,
    /// When this master last wrote, and how long that took.
    pub(crate) committed: Option<(Timestamp, Duration)>,
    /// When it was last seen to work, and how long its answer took.
    pub(crate) answered: Option<(Timestamp, Duration)>,
}

impl Seen {
    /// Notes that it works; tells whether that is news.
    fn note_answer(&mut self, at: Timestamp, took: Duration) -> bool {
        let is_first = self.answered.replace((at, took)).is_none();
        self.problem.take().is_some() || is_first
    }
}

impl Default for Condition {
    fn default() -> Self {
        Self { seen: watch::Sender::new(Seen::default()) }
    }
}

impl Condition {
    /// Notes that a transaction of this master is durable.
    pub(crate) fn on_committed(&self, now: Now, took: Duration) {
        self.seen.send_if_modified(|seen| {
            seen.committed = Some((now.wall, took));
            seen.note_answer(now.wall, took)
        });
    }

    /// Notes that the database answered a question.
    pub(crate) fn on_answered(&self, now: Now, took: Duration) {
        self.seen.send_if_modified(|seen| seen.note_answer(now.wall, took));
    }

    /// Notes that it does not work; tells whether that is news.
    pub(crate) fn on_trouble(&self, now: Now, error: &(dyn Error + 'static)) -> bool {
        let text = Chain(error).to_string();
        self.seen.send_if_modified(|seen| {
            let (since, before) = seen.problem.take().unwrap_or_else(|| (now.wall, String::new()));
            let is_news = before != text;
            seen.problem = Some((since, text));
            is_news
        })
    }

    /// Returns what was seen last.
    pub(crate) fn now(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Follows what is seen: told where trouble begins, changes or ends.
    pub(crate) fn follow(&self) -> watch::Receiver<Seen> {
        self.seen.subscribe()
    }

    /// Waits until the database has answered once.
    pub(crate) async fn until_answered(&self) {
        // It fails only where nobody could say any more, and this does.
        let _ = self.follow().wait_for(|seen| seen.answered.is_some()).await;
    }
}

/// What keeps a database from being used.
#[derive(Debug, Error)]
enum LookError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("the database keeps silent")]
    Silent(#[source] io::Error),
}

/// Looks how the database is, for as long as this master does not lead, and makes the store ready for it where it is not.
/// A file is where it is, and is not looked at.
pub(crate) async fn watch(
    (store, condition, roles): (Store, Condition, Roles),
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
) {
    while store.has_server() {
        let interval = if condition.now().problem.is_some() { TROUBLE_INTERVAL } else { LOOK_INTERVAL };
        let pause = tokio::time::sleep(jitter::from_half(interval));
        if stop.run_until_cancelled(pause).await.is_none() {
            return;
        }
        if roles.seat().is_some() {
            continue;
        }
        let asked = clock.now().uptime;
        // Not given up by a stop: a change of the schema that has begun runs to its end.
        let looked = look(&store).await;
        let now = clock.now();
        match looked {
            Ok(()) => condition.on_answered(now, now.uptime.since(asked)),
            Err(error) => {
                if condition.on_trouble(now, &error) {
                    tracing::warn!(error = %Chain(&error), "the database cannot be used now");
                }
            }
        }
    }
}

async fn look(store: &Store) -> Result<(), LookError> {
    if !store.is_ready() {
        store.prepare().await?;
    }
    // Dropping the future of a query is safe.
    match tokio::time::timeout(ANSWER_TIME_MAX, store.leadership()).await {
        Ok(answer) => Ok(answer.map(drop)?),
        Err(late) => Err(LookError::Silent(late.into())),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use millrace_common::time::Uptime;

    use super::*;

    fn at(seconds: i64) -> Now {
        Now { wall: Timestamp::from_micros(seconds * 1_000_000), uptime: Uptime::default() }
    }

    #[test]
    fn trouble_lasts_from_its_beginning_until_an_answer() {
        let condition = Condition::default();
        let error = |text: &'static str| io::Error::other(text);
        assert!(condition.until_answered().now_or_never().is_none());
        assert!(condition.on_trouble(at(1), &error("away")));
        assert!(condition.on_trouble(at(2), &error("coming up")));
        assert!(!condition.on_trouble(at(2), &error("coming up")), "no news");
        assert_eq!(condition.now().problem, Some((at(1).wall, "coming up".to_owned())));
        let mut followed = condition.follow();
        condition.on_committed(at(3), Duration::from_millis(4));
        assert!(followed.has_changed().unwrap());
        followed.mark_unchanged();
        let seen = condition.now();
        assert_eq!((seen.problem, seen.committed), (None, Some((at(3).wall, Duration::from_millis(4)))));
        condition.on_answered(at(5), Duration::from_millis(1));
        assert_eq!(condition.now().committed, seen.committed);
        assert!(!followed.has_changed().unwrap(), "who follows is woken by trouble alone");
        assert!(condition.until_answered().now_or_never().is_some());
    }
}

//! Durable state, in SQL, behind the leadership fence.
//!
//! A few coarse verbs: [`open`](Store::open) (which migrates), [`claim`](Store::claim), [`load`](Store::load),
//! [`commit`](Writer::commit), the queries of [`query`], and [`prune`](Writer::prune). Each verb's error lives with it.
//! No other crate holds SQL, and no type of the database driver leaves this one but as the source of an error.
//!
//! Invariants
//! - Every write of a leader is one transaction whose first statement advances the fence row of its term. So no write
//!   of a term commits after the claim of a later one, and `seq` has no gap.
//! - A batch's effects are handed out only after its changes are durable.
//! - The database itself holds one live attempt of a task instance, one run for each logical time of a schedule, and
//!   one run for each idempotency key.
//!
//! - A server that has taken the place of the one in which a term was claimed ends that term.
//!
//! Absent on purpose: decisions, clocks, retries of what a caller could retry.

mod bulk;
mod config;
mod dialect;
mod folder;
mod row;

mod open;

mod claim;
mod generation;
mod load;

mod commit;
mod retention;

pub mod query;

#[cfg(feature = "testing")]
pub mod testing;

use std::sync::{Arc, OnceLock};

use tokio::sync::Mutex;

use crate::dialect::{Connection, Database};
pub use crate::{
    claim::{ClaimError, TermError},
    commit::{CommitError, Committed, Writer},
    config::{Address, AddressError, ServerConfig, StoreConfig, Tls},
    dialect::{SettingWarning, TooOld},
    generation::{Generation, GenerationError},
    load::{LoadError, LoadProblem, Loaded},
    open::OpenError,
    retention::{PruneError, Pruned, Retention},
    row::RowError,
};

/// An open store: a handle that is cheap to clone.
///
/// The data folder stays locked until the last handle and the last [`Writer`] are gone.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    database: Database,
    /// The connection that opened a file, kept for the first who leads: opening another costs a millisecond.
    spare: Mutex<Option<Connection>>,
    /// Where the database is, for messages.
    name: String,
    /// What is to be said about the server's settings; absent until it was asked and its schema is up to date.
    warnings: OnceLock<Vec<SettingWarning>>,
    #[cfg(feature = "testing")]
    claim_fault: Mutex<Option<testing::Fault>>,
    _lock: Option<folder::Lock>,
}

impl Store {
    /// Returns the settings of the server with which it can lose what it has acknowledged.
    #[must_use]
    pub fn warnings(&self) -> &[SettingWarning] {
        self.inner.warnings.get().map_or(&[], Vec::as_slice)
    }

    /// Ends the connections that read. Queries fail afterwards.
    pub async fn close(&self) {
        self.inner.database.close().await;
        if let Some(connection) = self.inner.spare.lock().await.take() {
            connection.close_hard().await;
        }
    }
}

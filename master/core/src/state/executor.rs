//! An executor as the leader knows it. Nothing of this is durable: it is rebuilt from sessions and live attempts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millrace_common::{
    id::{AttemptId, SessionId, SpoolId},
    time::Uptime,
};

/// An executor: connected, or known from attempts that were placed on it.
#[derive(Debug, Clone)]
pub(crate) struct Executor {
    pub(crate) session: Option<SessionId>,
    /// Its spool and its machine's boot, as it said when it was last connected.
    pub(crate) spool: Option<SpoolId>,
    pub(crate) boot: Option<Arc<str>>,
    pub(crate) slots: u32,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) kinds: Vec<String>,
    pub(crate) version: Arc<str>,
    /// The last moment at which a leader can have extended the lease of what runs there.
    pub(crate) heard_at: Uptime,
    /// Live attempts that were placed there.
    pub(crate) live: BTreeSet<AttemptId>,
}

impl Executor {
    /// Makes one that is not connected and counts its silence from `heard_at`.
    pub(crate) fn unseen(heard_at: Uptime) -> Self {
        Self {
            session: None,
            spool: None,
            boot: None,
            slots: 0,
            labels: BTreeMap::new(),
            kinds: Vec::new(),
            version: "".into(),
            heard_at,
            live: BTreeSet::new(),
        }
    }

    pub(crate) const fn is_connected(&self) -> bool {
        self.session.is_some()
    }

    pub(crate) fn used(&self) -> u32 {
        u32::try_from(self.live.len()).unwrap_or(u32::MAX)
    }
}

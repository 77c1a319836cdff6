//! An executor as the leader knows it. Nothing of this is durable: it is rebuilt from sessions and live attempts.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use millrace_common::{
    id::{AttemptId, SessionId, SpoolId},
    time::Uptime,
};

use super::Trial;
use crate::{batch::Proof, standing::ExecutorStanding};

/// An executor: connected, or known from attempts that were placed on it.
#[derive(Debug, Clone)]
pub(crate) struct Executor {
    pub(crate) session: Option<SessionId>,
    /// Why it is closed to starts; absent where it is open.
    pub(crate) standing: Option<ExecutorStanding>,
    /// What its starts have shown.
    pub(crate) trial: Trial,
    /// Whether it said that it takes no more starts.
    pub(crate) is_draining: bool,
    /// Whether it would refuse starts for want of disk space, as it said last.
    pub(crate) is_space_low: bool,
    /// Its spool, as it said when it was last connected.
    pub(crate) spool: Option<SpoolId>,
    /// Its machine, as it said when it was last connected; absent where it does not know it.
    pub(crate) machine: Option<Arc<str>>,
    /// Attempts that it offers to run at once.
    pub(crate) slots_offered: u32,
    /// Attempts that it gets at once: fewer where a live setting says so.
    pub(crate) slots: u32,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) kinds: Vec<String>,
    pub(crate) version: Arc<str>,
    /// Names the start of its program that has the session, or had the last one; absent where it does not say.
    pub(crate) process: Option<Arc<str>>,
    /// When its session was last heard.
    pub(crate) spoke_at: Uptime,
    /// Its spool, and the most durable facts that this has told of.
    pub(crate) spool_facts: Option<(SpoolId, u64)>,
    /// The process that was last told that it has another one's name.
    pub(crate) rival: Option<Arc<str>>,
    /// Spools that were heard in this term and may hold a live attempt.
    pub(crate) heard: BTreeMap<SpoolId, Heard>,
    /// The last moment at which an earlier leader can have extended the lease of what runs there.
    pub(crate) heard_before: Uptime,
    /// Live attempts that its greeting did not name.
    pub(crate) missing: Vec<Missing>,
    /// Attempts that its greeting named as alive although their end is recorded.
    pub(crate) alive_after_end: Vec<AttemptId>,
    /// Live attempts that were placed there.
    pub(crate) live: BTreeSet<AttemptId>,
}

/// What is known of a spool from its own words.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    /// The last moment at which this leader can have extended the lease of what it holds.
    pub(crate) at: Uptime,
    /// Boots in which it spoke, and of which machine each was.
    pub(crate) boots: BTreeSet<(Option<Arc<str>>, Arc<str>)>,
}

/// A live attempt that a greeting did not name, and what it is ended by if the greeting was the newest one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Missing {
    pub(crate) attempt: AttemptId,
    pub(crate) proof: Proof,
    pub(crate) reason: &'static str,
}

impl Executor {
    /// Makes one that is not connected and counts its silence from `heard_before`.
    pub(crate) fn unseen(heard_before: Uptime) -> Self {
        Self {
            session: None,
            standing: None,
            trial: Trial::default(),
            is_draining: false,
            is_space_low: false,
            spool: None,
            machine: None,
            slots_offered: 0,
            slots: 0,
            labels: BTreeMap::new(),
            kinds: Vec::new(),
            version: "".into(),
            process: None,
            spoke_at: heard_before,
            spool_facts: None,
            rival: None,
            heard: BTreeMap::new(),
            heard_before,
            missing: Vec::new(),
            alive_after_end: Vec::new(),
            live: BTreeSet::new(),
        }
    }

    /// Tells whether it is there to be given attempts, as far as it says itself: nobody may want that, and it may be short of
    /// disk space.
    pub(crate) const fn takes_starts(&self) -> bool {
        self.is_connected() && !self.is_draining
    }

    pub(crate) const fn is_connected(&self) -> bool {
        self.session.is_some()
    }

    /// Tells whether it is connected and holds `spool`: then it speaks for what was assigned to that.
    pub(crate) fn speaks_for(&self, spool: SpoolId) -> bool {
        self.is_connected() && self.spool == Some(spool)
    }

    /// Notes that its present spool spoke.
    pub(crate) fn hear(&mut self, at: Uptime) {
        if let Some(heard) = self.spool.and_then(|spool| self.heard.get_mut(&spool)) {
            heard.at = at;
        }
    }

    /// Notes that its session spoke, and how many facts its present spool has; 0 where it does not say.
    pub(crate) fn speak(&mut self, at: Uptime, facts: u64) {
        self.spoke_at = at;
        let Some(spool) = self.spool.filter(|_| facts > 0) else { return };
        let known = self.spool_facts.filter(|(of, _)| *of == spool).map_or(0, |(_, known)| known);
        self.spool_facts = Some((spool, known.max(facts)));
    }

    /// Returns the last moment at which a leader can have extended the lease of what `spool` holds.
    pub(crate) fn heard_at(&self, spool: Option<SpoolId>) -> Uptime {
        spool.and_then(|spool| self.heard.get(&spool)).map_or(self.heard_before, |heard| heard.at)
    }

    /// Tells whether `machine` is the only one on which `spool` spoke in this term, as far as it did.
    pub(crate) fn was_nowhere_else(&self, spool: SpoolId, machine: &Arc<str>) -> bool {
        let is_there = |(on, _): &(Option<Arc<str>>, Arc<str>)| on.as_ref() == Some(machine);
        self.heard.get(&spool).is_none_or(|heard| heard.boots.iter().all(is_there))
    }

    /// Tells whether the machine of `spool` has booted since that last spoke; not where that is not known.
    pub(crate) fn has_booted_since(&self, spool: SpoolId, boot: &Arc<str>) -> bool {
        self.heard.get(&spool).is_some_and(|heard| heard.boots.iter().all(|(_, known)| known != boot))
    }

    pub(crate) fn used(&self) -> u32 {
        u32::try_from(self.live.len()).unwrap_or(u32::MAX)
    }
}

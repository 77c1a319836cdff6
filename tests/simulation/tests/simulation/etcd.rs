//! The election service: one key that is linearizable, leases, and watches that may lag, lose or never tell.
//!
//! Renewals do not go through its log, a change of its own leader extends every lease, and without a quorum no lease ends.
//! Where leases lie, renewals of a revoked lease are answered well, as old versions do.

use std::collections::BTreeMap;

use crate::{network::ProcessId, plan::SECOND};

pub(crate) type LeaseId = u64;

/// Time to live that leases are asked for with.
pub(crate) const TTL: u64 = 10 * SECOND;
/// How long the service takes to elect its own leader.
pub(crate) const ELECTION: u64 = SECOND;

/// What a master asks of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EtcdCall {
    Grant,
    Renew(LeaseId),
    /// If the key is not there, put it with this lease.
    Campaign(LeaseId),
    Read,
    /// If the key was made at this revision, delete it.
    Resign(u64),
    /// Somebody else's lease is to end: its holder's process is known to be dead, or so it seems.
    Revoke(LeaseId),
}

/// The key of the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LeaderKey {
    pub(crate) lease: LeaseId,
    /// The revision at which it was made: the term.
    pub(crate) revision: u64,
    pub(crate) holder: ProcessId,
    pub(crate) master: usize,
}

/// What it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EtcdReply {
    Granted(LeaseId),
    /// How long the lease is valid; zero where it is gone.
    Renewed(u64),
    Won(u64),
    Taken(LeaderKey),
    Key(Option<LeaderKey>),
    Done,
}

/// The election service.
#[derive(Debug)]
pub(crate) struct Etcd {
    revision: u64,
    pub(crate) key: Option<LeaderKey>,
    /// When each lease ends, in true time.
    leases: BTreeMap<LeaseId, u64>,
    granted: u64,
    pub(crate) quorum_lost_until: u64,
    lies: bool,
}

impl Etcd {
    pub(crate) const fn new(lies: bool) -> Self {
        Self { revision: 1, key: None, leases: BTreeMap::new(), granted: 0, quorum_lost_until: 0, lies }
    }

    /// Does what was asked at the moment of the call; `None` where there is no answer without a quorum.
    pub(crate) fn serve(
        &mut self,
        time: u64,
        caller: (usize, ProcessId),
        call: EtcdCall,
    ) -> Option<EtcdReply> {
        self.end_leases(time);
        // A leader of the service that was cut off from the others answers renewals until it steps down.
        let is_renewal = matches!(call, EtcdCall::Renew(_));
        if time < self.quorum_lost_until && !(is_renewal && self.lies) {
            return None;
        }
        Some(match call {
            EtcdCall::Grant => {
                self.granted += 1;
                self.leases.insert(self.granted, time + TTL);
                EtcdReply::Granted(self.granted)
            }
            EtcdCall::Renew(lease) => self.renew(time, lease),
            EtcdCall::Campaign(lease) => self.campaign(lease, caller),
            EtcdCall::Read => EtcdReply::Key(self.key),
            EtcdCall::Resign(revision) => {
                if self.key.is_some_and(|key| key.revision == revision) {
                    self.delete();
                }
                EtcdReply::Done
            }
            EtcdCall::Revoke(lease) => {
                self.revoke(lease);
                EtcdReply::Done
            }
        })
    }

    fn renew(&mut self, time: u64, lease: LeaseId) -> EtcdReply {
        match self.leases.get_mut(&lease) {
            Some(until) => {
                *until = (*until).max(time + TTL);
                EtcdReply::Renewed(TTL)
            }
            None if self.lies => EtcdReply::Renewed(TTL),
            None => EtcdReply::Renewed(0),
        }
    }

    fn campaign(&mut self, lease: LeaseId, (master, holder): (usize, ProcessId)) -> EtcdReply {
        if let Some(key) = self.key {
            return EtcdReply::Taken(key);
        }
        if !self.leases.contains_key(&lease) {
            // The put is refused: there is no such lease.
            return EtcdReply::Key(None);
        }
        self.revision += 1;
        self.key = Some(LeaderKey { lease, revision: self.revision, holder, master });
        EtcdReply::Won(self.revision)
    }

    fn delete(&mut self) {
        self.key = None;
        self.revision += 1;
    }

    pub(crate) fn revoke(&mut self, lease: LeaseId) {
        self.leases.remove(&lease);
        if self.key.is_some_and(|key| key.lease == lease) {
            self.delete();
        }
    }

    /// Ends what has run out.
    pub(crate) fn end_leases(&mut self, time: u64) {
        if time < self.quorum_lost_until {
            return;
        }
        let ended: Vec<LeaseId> =
            self.leases.iter().filter(|(_, until)| **until <= time).map(|(lease, _)| *lease).collect();
        ended.into_iter().for_each(|lease| self.revoke(lease));
    }

    /// Returns when the next lease runs out.
    pub(crate) fn next_end(&self) -> Option<u64> {
        self.leases.values().min().map(|until| (*until).max(self.quorum_lost_until))
    }

    /// Its own leader changes: every lease lives on in full and longer.
    pub(crate) fn elect(&mut self, time: u64) {
        self.end_leases(time);
        for until in self.leases.values_mut() {
            *until = time + TTL + ELECTION;
        }
    }

    /// Nothing is decided until then; after that its leader is a new one.
    pub(crate) fn lose_quorum(&mut self, time: u64, until: u64) {
        self.end_leases(time);
        self.quorum_lost_until = until;
        for end in self.leases.values_mut() {
            *end = until + TTL + ELECTION;
        }
    }
}

//! How a master comes to lead and ceases to: a state machine without IO and clock. The belief in the lease is the
//! product's own, [`millrace_core::lease`]; the campaign around it follows design and operations word by word, because the
//! product's is a loop over asynchronous calls.
//!
//! | state | what happens | next |
//! |---|---|---|
//! | watching | the key is not there, and the database has just answered | granting |
//! | granting | a lease is granted | campaigning |
//! | campaigning | won, or the outcome is unknown | reading back |
//! | campaigning | taken by another | watching |
//! | reading back | the key is mine / it is not | claiming / watching |
//! | claiming | claimed | loading |
//! | claiming | locked out / unknown / not within its time | end the others / read the fence / resign |
//! | loading | loaded | leading |
//! | leading | no authority, a failed commit, told to hand over | the process ends |

use std::time::Duration;

use millrace_common::{term::Term, time::Uptime};
use millrace_core::{
    Limits, Snapshot,
    lease::{Lease, Renewal},
};

use crate::{
    database::{DatabaseCall, DatabaseReply},
    etcd::{EtcdCall, EtcdReply, LeaderKey, LeaseId},
    network::ProcessId,
    planted::Planted,
};

/// Between two looks at the key: a watch is a hint.
const LOOK: Duration = Duration::from_secs(5);
/// Between two probes of the database, and how old an answer may be that a campaign begins on.
const PROBE: Duration = Duration::from_secs(2);
const PROBE_AGE_MAX: Duration = Duration::from_secs(3);
/// Between two renewals.
const RENEW: Duration = Duration::from_secs(2);
/// How long a claim may take.
const CLAIM_MAX: Duration = Duration::from_secs(10);
/// How long a master does not campaign whose claim did not come through.
const BACK_OFF: Duration = Duration::from_secs(8);
/// How often a question is asked again whose answer did not come.
const READS_MAX: u32 = 3;

/// What a call was about, so that its answer, or that there is none, can be told from others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Topic {
    Probe,
    Look,
    Grant(Uptime),
    Renewal(Renewal),
    Campaign,
    ReadBack,
    Claim,
    EndOthers,
    ReadFence,
    Load,
    Resign,
}

/// What the shell is to do.
#[derive(Debug)]
pub(crate) enum Doing {
    Etcd(Topic, EtcdCall),
    Database(Topic, DatabaseCall),
    Lead(Term, Box<Snapshot>),
    /// The process ends.
    Exit(&'static str),
}

/// What was answered; nothing where the call failed or took too long.
#[derive(Debug)]
pub(crate) enum Told {
    Etcd(EtcdReply),
    Database(DatabaseReply),
    Nothing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Watching,
    Granting,
    Campaigning,
    ReadingBack(u32),
    Claiming { since: Uptime },
    Loading,
    Leading,
}

/// A master that may come to lead.
#[derive(Debug)]
pub(crate) struct Candidate {
    me: ProcessId,
    planted: Option<Planted>,
    state: State,
    lease: Option<(LeaseId, Lease)>,
    term: Term,
    /// The key as it was last seen.
    pub(crate) seen: Option<LeaderKey>,
    looks_at: Uptime,
    probes_at: Uptime,
    renews_at: Uptime,
    probed_at: Option<Uptime>,
    backs_off_until: Uptime,
    doing: Vec<Doing>,
}

impl Candidate {
    pub(crate) const fn new(me: ProcessId, now: Uptime, planted: Option<Planted>) -> Self {
        Self {
            me,
            planted,
            state: State::Watching,
            lease: None,
            term: Term(0),
            seen: None,
            looks_at: now,
            probes_at: now,
            renews_at: now,
            probed_at: None,
            backs_off_until: now,
            doing: Vec::new(),
        }
    }

    pub(crate) fn take(&mut self) -> Vec<Doing> {
        std::mem::take(&mut self.doing)
    }

    /// Returns until when it has authority, by what it knows now.
    pub(crate) fn authority_until(&self) -> Uptime {
        self.lease.as_ref().map_or(Uptime::default(), |(_, lease)| lease.until())
    }

    /// Tells whether it may act as the leader now; ends the process where it may not.
    pub(crate) fn check(&mut self, now: Uptime) -> bool {
        let has_ended = self.lease.as_mut().is_some_and(|(_, lease)| lease.check(now).is_err())
            && self.planted != Some(Planted::AuthorityNotChecked);
        if has_ended {
            if matches!(self.state, State::Leading | State::Claiming { .. } | State::Loading) {
                self.exit("its authority is over");
                return false;
            }
            self.give_up();
        }
        !has_ended
    }

    fn exit(&mut self, why: &'static str) {
        self.doing.push(Doing::Exit(why));
    }

    /// Goes back to watching; the lease runs out by itself.
    fn give_up(&mut self) {
        self.state = State::Watching;
        self.lease = None;
    }

    fn ask(&mut self, topic: Topic, call: EtcdCall) {
        self.doing.push(Doing::Etcd(topic, call));
    }

    fn query(&mut self, topic: Topic, call: DatabaseCall) {
        self.doing.push(Doing::Database(topic, call));
    }

    pub(crate) fn poll_timeout(&self) -> Uptime {
        let mut at = self.authority_until();
        if self.lease.is_none() || self.planted == Some(Planted::AuthorityNotChecked) {
            at = Uptime::new(Duration::MAX);
        }
        if self.lease.is_some() {
            at = at.min(self.renews_at);
        }
        if self.state == State::Watching {
            at = at.min(self.probes_at);
            if self.planted != Some(Planted::WatchTrusted) || self.seen.is_none() {
                at = at.min(self.looks_at);
            }
        }
        if let State::Claiming { since } = self.state {
            at = at.min(since + CLAIM_MAX);
        }
        at
    }

    pub(crate) fn on_time(&mut self, now: Uptime) {
        if !self.check(now) {
            return;
        }
        if self.renews_at <= now
            && let Some((id, lease)) = self.lease.as_mut()
        {
            self.renews_at = now + RENEW;
            let (id, renewal) = (*id, lease.on_renewal_sent(now));
            self.ask(Topic::Renewal(renewal), EtcdCall::Renew(id));
        }
        match self.state {
            State::Watching => self.watch(now),
            State::Claiming { since } if since + CLAIM_MAX <= now => self.resign(now),
            _ => {}
        }
    }

    fn watch(&mut self, now: Uptime) {
        if self.probes_at <= now {
            self.probes_at = now + PROBE;
            self.query(Topic::Probe, DatabaseCall::Probe);
        }
        let is_trusting = self.planted == Some(Planted::WatchTrusted) && self.seen.is_some();
        if self.looks_at <= now && !is_trusting {
            self.looks_at = now + LOOK;
            self.ask(Topic::Look, EtcdCall::Read);
        }
    }

    /// The watch tells that the key has changed; looks after a little while, so that not everybody does at once.
    pub(crate) fn on_watched(&mut self, now: Uptime, wait: Duration) {
        self.looks_at = self.looks_at.min(now + wait);
        self.seen = None;
    }

    /// Whoever leads is to let go.
    pub(crate) fn hand_over(&mut self) {
        self.ask(Topic::Resign, EtcdCall::Resign(self.term.0));
        self.exit("it hands over");
    }

    /// A commit failed: lets go, so that another can lead at once.
    pub(crate) fn on_commit_failed(&mut self) {
        self.ask(Topic::Resign, EtcdCall::Resign(self.term.0));
        self.exit("a commit failed");
    }

    fn resign(&mut self, now: Uptime) {
        self.ask(Topic::Resign, EtcdCall::Resign(self.term.0));
        if self.planted != Some(Planted::CampaignsBlind) {
            self.backs_off_until = now + BACK_OFF;
        }
        self.give_up();
        self.looks_at = now + Duration::from_millis(1);
        self.seen = None;
    }

    pub(crate) fn on_told(&mut self, now: Uptime, topic: Topic, told: Told) {
        match topic {
            Topic::Renewal(renewal) => self.on_renewed(now, renewal, &told),
            Topic::Probe => {
                if matches!(told, Told::Database(_)) {
                    self.probed_at = Some(now);
                }
            }
            Topic::Resign | Topic::EndOthers => {}
            Topic::Look => self.on_looked(now, &told),
            Topic::Grant(sent) => self.on_granted(now, sent, &told),
            Topic::Campaign => self.on_campaigned(&told),
            Topic::ReadBack => self.on_read_back(now, &told),
            Topic::Claim => self.on_claimed(&told),
            Topic::ReadFence => self.on_fence_read(&told),
            Topic::Load => self.on_loaded(told),
        }
        self.check(now);
    }

    fn on_renewed(&mut self, now: Uptime, renewal: Renewal, told: &Told) {
        let Some((_, lease)) = self.lease.as_mut() else { return };
        match told {
            Told::Etcd(EtcdReply::Renewed(left)) => {
                if self.planted == Some(Planted::LeaseAgeFromAnswer) {
                    // As if the renewal had been sent when its answer came.
                    lease.on_renewal_failed(renewal);
                    let renewal = lease.on_renewal_sent(now);
                    return lease.on_renewal_answered(now, renewal, Duration::from_micros(*left));
                }
                lease.on_renewal_answered(now, renewal, Duration::from_micros(*left));
            }
            _ => lease.on_renewal_failed(renewal),
        }
    }

    fn on_looked(&mut self, now: Uptime, told: &Told) {
        let Told::Etcd(EtcdReply::Key(key)) = told else { return };
        self.seen = *key;
        let is_fresh = self.probed_at.is_some_and(|at| now.since(at) <= PROBE_AGE_MAX)
            || self.planted == Some(Planted::CampaignsBlind);
        if key.is_none() && self.state == State::Watching && is_fresh && now >= self.backs_off_until {
            self.state = State::Granting;
            self.ask(Topic::Grant(now), EtcdCall::Grant);
        } else if key.is_none() {
            self.looks_at = self.looks_at.min(now + Duration::from_millis(500)).max(self.backs_off_until);
        }
    }

    fn on_granted(&mut self, now: Uptime, sent: Uptime, told: &Told) {
        if self.state != State::Granting {
            return;
        }
        let Told::Etcd(EtcdReply::Granted(id)) = told else { return self.give_up() };
        let sent = if self.planted == Some(Planted::LeaseAgeFromAnswer) { now } else { sent };
        self.lease = Some((*id, Lease::granted(sent, Limits::default().authority)));
        self.renews_at = now;
        self.state = State::Campaigning;
        self.ask(Topic::Campaign, EtcdCall::Campaign(*id));
    }

    fn on_campaigned(&mut self, told: &Told) {
        if self.state != State::Campaigning {
            return;
        }
        match told {
            Told::Etcd(EtcdReply::Taken(key)) => {
                self.seen = Some(*key);
                self.give_up();
            }
            Told::Etcd(EtcdReply::Key(_)) => self.give_up(),
            // Won or unknown: what counts is what is there.
            _ => {
                self.state = State::ReadingBack(0);
                self.ask(Topic::ReadBack, EtcdCall::Read);
            }
        }
    }

    fn on_read_back(&mut self, now: Uptime, told: &Told) {
        let State::ReadingBack(tries) = self.state else { return };
        let mine = self.lease.as_ref().map(|(id, _)| *id);
        match told {
            Told::Etcd(EtcdReply::Key(Some(key))) if Some(key.lease) == mine && key.holder == self.me => {
                self.term = Term(key.revision);
                self.seen = Some(*key);
                self.state = State::Claiming { since: now };
                self.query(Topic::Claim, DatabaseCall::Claim(self.term));
            }
            Told::Etcd(EtcdReply::Key(key)) => {
                self.seen = *key;
                self.give_up();
            }
            _ if tries < READS_MAX => {
                self.state = State::ReadingBack(tries + 1);
                self.ask(Topic::ReadBack, EtcdCall::Read);
            }
            _ => self.give_up(),
        }
    }

    fn on_claimed(&mut self, told: &Told) {
        if !matches!(self.state, State::Claiming { .. }) {
            return;
        }
        match told {
            Told::Database(DatabaseReply::Claimed) => self.load(),
            Told::Database(DatabaseReply::Superseded) => self.exit("its claim comes too late"),
            Told::Database(DatabaseReply::LockedOut) => {
                if self.planted != Some(Planted::StuckTransactionLeft) {
                    self.query(Topic::EndOthers, DatabaseCall::EndOthers);
                }
                self.query(Topic::Claim, DatabaseCall::Claim(self.term));
            }
            _ => self.query(Topic::ReadFence, DatabaseCall::Fence),
        }
    }

    fn on_fence_read(&mut self, told: &Told) {
        if !matches!(self.state, State::Claiming { .. }) {
            return;
        }
        match told {
            Told::Database(DatabaseReply::Fence { term, holder, .. })
                if *term == self.term && *holder == self.me =>
            {
                self.load();
            }
            Told::Database(DatabaseReply::Fence { term, .. }) if *term >= self.term => {
                self.exit("its claim comes too late");
            }
            _ => self.query(Topic::Claim, DatabaseCall::Claim(self.term)),
        }
    }

    fn load(&mut self) {
        self.state = State::Loading;
        self.query(Topic::Load, DatabaseCall::Load);
    }

    fn on_loaded(&mut self, told: Told) {
        if self.state != State::Loading {
            return;
        }
        match told {
            Told::Database(DatabaseReply::Loaded(snapshot)) => {
                self.state = State::Leading;
                self.doing.push(Doing::Lead(self.term, snapshot));
            }
            // What is there is not known: lets go.
            _ => self.on_commit_failed(),
        }
    }
}

//! What comes out of the ledger: facts for the spool, and what to do once they are durable.

use std::time::Duration;

use millrace_common::{
    id::AttemptId,
    state::AttemptState,
    term::Term,
    time::{Timestamp, Uptime},
};
use serde::{Deserialize, Serialize};

use super::input::{EndedBy, HistoryQuestion, Start};

/// A fact of the spool, in the past tense.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// A leader of this term was obeyed; lower ones are refused from now on.
    TermSeen(Term),
    /// An attempt was accepted and is about to be spawned. Nothing is ever spawned without this, or twice.
    Intended {
        /// Which.
        attempt: AttemptId,
        /// When.
        at: Timestamp,
    },
    /// Its process was started. Not waited for: what it says is only used to end the process after a crash.
    Spawned {
        /// Which.
        attempt: AttemptId,
        /// Its process, which also names its process group.
        pid: u32,
        /// Milliseconds since boot, which tells the process from a later one with the same number.
        uptime_ms: u64,
        /// The workspace that it runs in.
        workspace: u32,
        /// When.
        at: Timestamp,
    },
    /// It ended, or never ran.
    Ended {
        /// Which.
        attempt: AttemptId,
        /// How.
        end: End,
    },
    /// Its end is committed at the leader.
    Released(AttemptId),
    /// So many facts that had to be durable were ever taken in: stands at the end of a journal that was written anew.
    Counted(u64),
    /// A leader has drawn what follows from the attestation of this spool; see [`Greeting`]. Not waited for: where it
    /// is lost, the spool attests once more, which is as true as before.
    Attested,
}

impl Record {
    /// Tells whether anything may be done before this is on the disk.
    #[must_use]
    pub const fn must_be_durable(&self) -> bool {
        matches!(self, Self::TermSeen(_) | Self::Intended { .. } | Self::Ended { .. })
    }
}

/// Why an attempt was refused although nothing is wrong with it: it may run elsewhere, or here a little later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rejection {
    /// There is too little space on the disk.
    SpaceLow,
    /// The program takes no more starts.
    Draining,
    /// This machine could not start a process.
    CannotStart,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// A final state.
    pub state: AttemptState,
    /// The exit code, where a process ended with one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// One line for people; empty after a success.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Values for later tasks: a JSON object, or empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub values: String,
    /// Whether the process found nothing to do.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_skipped: bool,
    /// Whether trying again would fail the same way.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_permanent: bool,
    /// Why it was rejected, where that says nothing about the attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejection: Option<Rejection>,
    /// Whether it was ended because this program was told to stop.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_planned: bool,
    /// When the process was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Timestamp>,
    /// When nothing of it was left.
    pub ended_at: Timestamp,
    /// Bytes of its output.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub log_bytes: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl End {
    /// Makes an end without a process: nothing of the attempt ever ran, or nothing is known of how it ended.
    #[must_use]
    pub fn without_exit(state: AttemptState, reason: impl Into<String>, at: Timestamp) -> Self {
        Self {
            state,
            exit_code: None,
            reason: reason.into(),
            values: String::new(),
            is_skipped: false,
            is_permanent: false,
            rejection: None,
            is_planned: false,
            started_at: None,
            ended_at: at,
            log_bytes: 0,
        }
    }
}

/// What the leader is told about an attempt. A later one replaces an earlier one that has not left yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// It is in the spool.
    Accepted,
    /// Its process was started.
    Started {
        /// When.
        at: Timestamp,
        /// Its process.
        pid: u32,
    },
    /// It has ended.
    Ended(End),
}

/// An attempt in the spool, as a greeting or a heartbeat tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub attempt: AttemptId,
    /// Accepted, running, killing or final.
    pub state: AttemptState,
    /// How it ended; in a greeting only.
    pub end: Option<End>,
}

/// What opens a session: a full account with all ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Greeting {
    /// The highest term obeyed.
    pub term_seen: Term,
    /// Facts that had to be durable and that the spool ever took in. It never falls, unless an older copy of the spool is
    /// put in its place.
    pub spool_facts: u64,
    /// Everything.
    pub held: Vec<Held>,
    /// The attestation: nothing that an older spool of this data folder started is alive.
    ///
    /// It is true once this life of the program has looked through all processes and ended those that carry the mark of
    /// the data folder and are not of this spool, and it stays true: nobody reads an older spool again. So a restart does
    /// not take it away, nor does an attempt of this spool, which the leader judges by the spool's own account. It is said
    /// in each greeting until a leader has answered a heartbeat of a session that began with it, because a leader draws
    /// its conclusions at that heartbeat and answers it after they are committed; a welcome alone proves nothing yet.
    ///
    /// It does not speak of another data folder, nor of another machine: a leader compares the machine's id, and who moves
    /// an executor to another folder ends what runs in the old one first. Nor does it speak of a process that shed the
    /// mark by clearing its environment after it had left its group.
    pub is_clean: bool,
    /// Whether starts would be refused for want of space.
    pub is_space_low: bool,
}

/// A full account without ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heartbeat {
    /// Its number.
    pub number: u64,
    /// As in a [`Greeting`].
    pub spool_facts: u64,
    /// Everything.
    pub held: Vec<Held>,
    /// Whether starts would be refused for want of space.
    pub is_space_low: bool,
}

/// What is known of the processes of an attempt that an earlier life of this executor started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remains {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Its process and when that was started, where the crash left time to note it.
    pub process: Option<Spawned>,
}

/// A process that was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spawned {
    /// Its number, which also names its group.
    pub pid: u32,
    /// When, since boot.
    pub uptime: Uptime,
    /// The workspace that it runs in.
    pub workspace: u32,
}

/// Something to do, after the records before it are durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start the process of an attempt. Given out once in the life of an attempt.
    Spawn(Box<Start>),
    /// End an attempt: TERM, grace, KILL, and look that nothing is left.
    Kill {
        /// Which.
        attempt: AttemptId,
        /// Time between TERM and KILL.
        grace: Duration,
        /// Why.
        by: EndedBy,
    },
    /// The end of this attempt is durable: its supervisor may forget it, and its workspace is free.
    Settle(AttemptId),
    /// The leader has answered a message that left then: so much longer may attempts run without contact.
    Extend(Uptime),
    /// End whatever an earlier life of this executor left alive.
    Purge(Vec<Remains>),
    /// Tell the leader.
    Report(AttemptId, Report),
    /// Open a session.
    Greet(Greeting),
    /// Send a heartbeat.
    Heartbeat(Heartbeat),
    /// The leader does not know this attempt: its output has no reader.
    Discard(AttemptId),
    /// Heartbeats are not answered in time: look for a leader elsewhere.
    CloseSession,
    /// Tell the leader what was done.
    TellHistory(HistoryQuestion),
    /// The spool is an older copy of itself: put it aside and end, so that the next start begins a new one.
    SetAside(String),
}

/// Facts and what to do once they are durable.
#[derive(Debug, Default)]
#[must_use = "what is not written is lost, and so are the actions that wait for it"]
pub struct Batch {
    pub(super) records: Vec<Record>,
    pub(super) actions: Vec<Action>,
}

impl Batch {
    /// Returns the facts, in the order in which they became true.
    #[must_use]
    pub fn records(&self) -> &[Record] {
        &self.records
    }

    /// Tells whether the actions must wait until the facts are on the disk.
    #[must_use]
    pub fn must_be_durable(&self) -> bool {
        self.records.iter().any(Record::must_be_durable)
    }
}

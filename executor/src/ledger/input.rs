//! What happens to the ledger.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use millrace_common::{
    id::{AttemptId, SpoolId},
    interval::DataInterval,
    term::Term,
    time::{Now, Timestamp},
};
use serde::{Deserialize, Serialize};

use super::batch::Rejection;

/// Everything that a leader sends to have an attempt run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// Which attempt.
    pub attempt: AttemptId,
    /// The spool that it was assigned to.
    pub spool: SpoolId,
    /// Name of the workflow.
    pub workflow: String,
    /// Name of the task.
    pub task: String,
    /// What runs.
    pub kind: String,
    /// Parameters of the kind, as JSON text.
    pub with: Bytes,
    /// Whether texts in it hold templates.
    pub is_templated: bool,
    /// What the run is about.
    pub interval: DataInterval,
    /// Where dates are read.
    pub timezone: String,
    /// Parameters of the run: a JSON object, or empty.
    pub params: String,
    /// JSON objects of upstream tasks, by task.
    pub values: BTreeMap<String, String>,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// Time between TERM and KILL.
    pub kill_grace: Duration,
    /// How long it may run without contact to a leader; without bound where absent.
    pub orphan_timeout: Option<Duration>,
}

/// The leader's judgement over an attempt that this executor holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Adopt,
    /// End it and report.
    Kill,
    /// Forget it; end it first if it lives.
    Discard,
}

/// What a leader says. Each comes with the leader's term, compared once at the door.
#[derive(Debug, Clone)]
pub enum FromLeader {
    /// The session is open; what to do with each attempt that was named in the greeting.
    Welcome(Vec<(AttemptId, Verdict)>),
    /// A heartbeat arrived there.
    HeartbeatAnswer(u64),
    /// Run these.
    Starts(Vec<Start>),
    /// End this one.
    Kill {
        /// Which.
        attempt: AttemptId,
        /// Time between TERM and KILL.
        grace: Duration,
        /// Why.
        reason: String,
    },
    /// These ends are committed.
    Acks(Vec<AttemptId>),
    /// It wants to know what was done here.
    HistoryAsked(HistoryQuestion),
    /// The spool shows less than it once did, and is not to be gone on with. Says what is known.
    SpoolOld(String),
}

/// A question for what was done here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryQuestion {
    /// The answer repeats it.
    pub number: u64,
    /// From when on.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// Where the page before ended; empty for the first.
    pub page: String,
}

/// What became of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// How it ended.
    pub how: Ending,
    /// Bytes of its output.
    pub log_bytes: u64,
    /// When nothing of it was left.
    pub at: Timestamp,
}

/// How a process ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// With an exit code that means success, by itself.
    Succeeded {
        /// The code.
        exit_code: i32,
        /// Whether the code means that there was nothing to do.
        is_skipped: bool,
        /// Values for later tasks: a JSON object, or empty.
        values: String,
    },
    /// With another code, by a signal from elsewhere, or it did not start.
    Failed {
        /// The code, where it ended with one.
        exit_code: Option<i32>,
        /// One line for people.
        reason: String,
        /// Whether trying again would fail the same way.
        is_permanent: bool,
    },
    /// Not started, for a reason that says nothing about the attempt: nothing of it ran, and it may run elsewhere.
    NotStarted {
        /// One line for people.
        reason: String,
        /// What this machine lacks.
        rejection: Rejection,
    },
    /// Ended by this executor or by the supervisor of its processes.
    Ended {
        /// The code, where the process ended with one after it was asked to.
        exit_code: Option<i32>,
        /// Why, as the supervisor knows it; absent where the supervisor had gone as well.
        by: Option<EndedBy>,
    },
}

/// Why an attempt is being ended, in the words that the supervisor keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndedBy {
    /// The leader asked for it.
    Request,
    /// The leader does not know it.
    Discard,
    /// The executor was stopped.
    Stop,
    /// It took too long.
    Timeout,
    /// There was no contact to a leader for too long.
    Orphan,
}

/// What becomes of attempts when the program is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnStop {
    /// They go on under their supervisor, and the next life of the executor takes them over.
    Keep,
    /// They are ended and reported.
    End,
}

/// Something happened.
#[derive(Debug, Clone)]
pub enum Input {
    /// A connection to a master is open: a greeting is to be sent.
    Dialled,
    /// A leader said something.
    FromLeader(Term, FromLeader),
    /// It is time for a heartbeat.
    HeartbeatDue,
    /// The session ended. Attempts go on.
    Disconnected,
    /// The process of an attempt was started.
    Spawned {
        /// Which.
        attempt: AttemptId,
        /// Its process, which also names its process group.
        pid: u32,
        /// The workspace that it runs in.
        workspace: u32,
        /// When, on both clocks.
        at: Now,
    },
    /// Nothing of an attempt is left, or it was never started.
    Exited(AttemptId, Exit),
    /// What an older life of the program left alive has been ended, or resists.
    Purged {
        /// Whether nothing is left.
        is_complete: bool,
    },
    /// The disk was looked at.
    SpaceChecked {
        /// Whether less is free than an attempt should find.
        is_low: bool,
    },
    /// The supervisor of all processes is gone, and what it supervised dies with it.
    SupervisorLost,
    /// The program is to end: nothing new is started.
    StopRequested(OnStop),
}

/// Why an input was refused. The session that it came over must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A deposed leader speaks.
    #[error("the leader has term {given}, this executor has obeyed term {seen}")]
    LowerTerm {
        /// Its term.
        given: Term,
        /// The highest term obeyed here.
        seen: Term,
    },
}

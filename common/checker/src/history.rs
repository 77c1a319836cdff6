//! The vocabulary of a history. Everything in it can be written as a line of JSON.

use std::sync::Arc;

use millrace_common::{
    id::{AttemptId, ExecutorName, InstanceId, RunId, SpoolId, WorkflowName},
    state::{AttemptState, RunState, TaskState},
    term::Term,
    time::Timestamp,
};
use serde::{Deserialize, Serialize};

/// Something that happened, somewhere in the cluster or around it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A claim of the fence row was committed.
    Claimed {
        /// The term that it took.
        term: Term,
        /// The process that took it.
        holder: String,
    },
    /// A transaction of a leader was committed.
    Committed {
        /// The leader's term.
        term: Term,
        /// Its number within the term, from 1.
        seq: u64,
        /// What it made true, in order.
        facts: Vec<Fact>,
    },
    /// A leader sent something, after it had looked whether it still may.
    Sent {
        /// Its term.
        term: Term,
        /// When it looked, on the boot-time clock of its machine in microseconds.
        checked_at: u64,
        /// When its authority ended by what was known of it then, on the same clock.
        authority_until: u64,
    },
    /// An executor came up with a spool, and said how many attempts it runs at once.
    Offered {
        /// Which.
        executor: ExecutorName,
        /// Its spool.
        spool: SpoolId,
        /// How many.
        slots: u32,
    },
    /// A start reached an executor, whether it is obeyed or not.
    Received {
        /// Which executor.
        executor: ExecutorName,
        /// The spool that the start names.
        spool: SpoolId,
        /// Which attempt.
        attempt: AttemptId,
    },
    /// An executor was told that the end of an attempt is durable.
    Released {
        /// Which executor.
        executor: ExecutorName,
        /// Which attempt.
        attempt: AttemptId,
    },
    /// An executor did what a leader of this term said.
    Obeyed {
        /// Which.
        executor: ExecutorName,
        /// Its spool: a lost disk remembers no term.
        spool: SpoolId,
        /// The leader's term.
        term: Term,
    },
    /// The first process of an attempt began.
    Spawned {
        /// Which attempt.
        attempt: AttemptId,
    },
    /// Nothing of an attempt was left.
    Exited {
        /// Which attempt.
        attempt: AttemptId,
        /// How its first process ended.
        exit: Exit,
    },
    /// An executor has recorded how an attempt ended.
    EndRecorded {
        /// Which executor.
        executor: ExecutorName,
        /// Which attempt.
        attempt: AttemptId,
        /// A final state.
        state: AttemptState,
        /// The exit code, where a process ended with one.
        exit_code: Option<i32>,
    },
    /// The whole machine of an executor stood still for a while: what it runs cannot end itself meanwhile.
    Frozen {
        /// Which.
        executor: ExecutorName,
    },
    /// A client asked the cluster for something, and goes on asking until it is answered.
    Asked {
        /// Tells requests apart.
        request: u64,
    },
    /// A client was answered, or gave up asking.
    Answered {
        /// Which request.
        request: u64,
        /// What it was told.
        answer: Answer,
    },
    /// The last fault is over: from now on there are a quorum, a database, a healthy master and a healthy executor.
    Healed,
    /// An executor never comes back.
    Gone {
        /// Which.
        executor: ExecutorName,
    },
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// It was ended from outside.
    Killed,
    /// It is gone, and whoever tells so does not tell how it ended.
    Unseen,
}

/// What a client was told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// There is a run.
    RunStarted {
        /// Of this workflow.
        workflow: WorkflowName,
        /// For this key, where the request carried one.
        key: Option<String>,
        /// Which.
        run: RunId,
    },
    /// A run is in this state.
    RunMoved {
        /// Which.
        run: RunId,
        /// The state.
        state: RunState,
    },
    /// Something that says nothing about runs, or nothing at all.
    Other,
}

/// A fact that a transaction made true.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// A definition came into force.
    WorkflowApplied {
        /// As this version.
        version: u32,
        /// Its text, as it was submitted.
        source: Arc<str>,
    },
    /// A schedule was served up to a point.
    CursorMoved {
        /// Whose.
        workflow: WorkflowName,
        /// Every interval that ends at or before this was fired or skipped.
        cursor: Timestamp,
        /// What was passed over.
        skipped: Option<Skipped>,
    },
    /// A schedule fired for a logical time, where nothing else is told of the run.
    Fired {
        /// Whose.
        workflow: WorkflowName,
        /// For which.
        at: Timestamp,
    },
    /// A run began to exist.
    RunCreated {
        /// Which.
        run: RunId,
        /// Of which workflow.
        workflow: WorkflowName,
        /// Pinned to this version.
        version: u32,
        /// The logical time that its schedule fired it for; absent where somebody asked for it.
        fired_for: Option<Timestamp>,
        /// The key that its request carried.
        key: Option<String>,
    },
    /// A run moved.
    RunMoved {
        /// Which.
        run: RunId,
        /// The state it left.
        from: RunState,
        /// The state it is in.
        to: RunState,
    },
    /// A run is to end once nothing of it is active.
    RunEnding {
        /// Which.
        run: RunId,
    },
    /// A task instance moved.
    TaskMoved {
        /// Which.
        instance: InstanceId,
        /// The state it left.
        from: TaskState,
        /// The state it is in.
        to: TaskState,
    },
    /// An attempt was placed.
    AttemptAssigned {
        /// Which.
        attempt: AttemptId,
        /// Where.
        executor: ExecutorName,
        /// To the holder of this spool.
        spool: SpoolId,
    },
    /// A live attempt moved.
    AttemptMoved {
        /// Which.
        attempt: AttemptId,
    },
    /// An attempt ended.
    AttemptEnded {
        /// Which.
        attempt: AttemptId,
        /// How.
        end: End,
    },
    /// A live setting changed, or a value was refused.
    SettingChanged {
        /// Its name.
        name: String,
        /// The value that is in force now; absent where there is none.
        value: Option<String>,
    },
    /// An executor was closed to starts.
    ExecutorClosed {
        /// Which.
        executor: ExecutorName,
    },
    /// An executor was opened again, or forgotten.
    ExecutorOpened {
        /// Which.
        executor: ExecutorName,
    },
}

/// Intervals that a schedule passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// End of the earliest.
    pub first: Timestamp,
    /// End of the latest.
    pub last: Timestamp,
}

/// How an attempt ended, as it was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// A final state.
    pub state: AttemptState,
    /// The exit code, where a process ended by itself.
    pub exit_code: Option<i32>,
    /// Whether the process found nothing to do.
    pub is_skipped: bool,
    /// How it is known that nothing of it runs.
    pub proof: Proof,
}

/// How it is known that nothing of an attempt runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// Somebody saw it, or it cannot be otherwise.
    Seen,
    /// By the passing of time, on clocks that err no more than they may.
    TimePassed,
}

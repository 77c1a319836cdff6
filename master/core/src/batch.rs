//! What comes out of the core: facts to make durable, and what to do once they are.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use millrace_common::{
    Value,
    id::{AttemptId, ExecutorName, InstanceId, KindName, RunId, SessionId, SpoolId, TaskName, WorkflowName},
    interval::DataInterval,
    schedule::Skipped,
    state::{AttemptState, RunState, TaskState},
    term::Term,
    time::Timestamp,
    workflow::Workflow,
};

use crate::{
    explain::{ExecutorSummary, Explanation, WorkCount},
    input::RequestId,
    refusal::Refusal,
    settings::SettingChanged,
    standing::{ExecutorDetail, ExecutorStanding},
};

/// A fact, in the past tense. State changes by applying these and in no other way.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// A definition came into force.
    WorkflowApplied {
        /// The version it became.
        version: u32,
        /// Its valid form.
        workflow: Arc<Workflow>,
        /// Its text.
        source: Arc<str>,
        /// When.
        at: Timestamp,
    },
    /// A schedule was served up to a point.
    CursorMoved {
        /// Whose.
        workflow: WorkflowName,
        /// Every interval that ends at or before this was fired or skipped.
        cursor: Timestamp,
        /// Intervals that were passed over, by the schedule's own rules.
        skipped: Option<Skipped>,
    },
    /// A run began to exist.
    RunCreated(Box<RunCreated>),
    /// A run went from one state to another.
    RunMoved {
        /// Which.
        run: RunId,
        /// The state it left.
        from: RunState,
        /// The state it is in.
        to: RunState,
        /// When.
        at: Timestamp,
        /// Why, where that is not plain.
        reason: Option<Arc<str>>,
    },
    /// A run is to end in a state once nothing of it is active.
    RunEnding {
        /// Which.
        run: RunId,
        /// The final state that it will have.
        to: RunState,
        /// Why.
        reason: Arc<str>,
    },
    /// A task instance went from one state to another.
    TaskMoved {
        /// Which.
        instance: InstanceId,
        /// The state it left.
        from: TaskState,
        /// The state it is in.
        to: TaskState,
        /// When.
        at: Timestamp,
        /// When it may start again, in `up_for_retry`.
        retry_at: Option<Timestamp>,
        /// What it hands on, in `success`: a JSON object.
        values: Option<Arc<str>>,
    },
    /// An attempt was placed. Only after this is durable is it sent.
    AttemptAssigned {
        /// Which.
        attempt: AttemptId,
        /// Where.
        executor: ExecutorName,
        /// To the holder of this spool and nobody else.
        spool: SpoolId,
        /// The machine on which that spool was, where the executor knows it.
        machine: Option<Arc<str>>,
        /// When.
        at: Timestamp,
    },
    /// An attempt went from one live state to another.
    AttemptMoved {
        /// Which.
        attempt: AttemptId,
        /// The state it left.
        from: AttemptState,
        /// The state it is in.
        to: AttemptState,
        /// When.
        at: Timestamp,
    },
    /// An attempt ended. Its task instance moves in the same batch.
    AttemptEnded {
        /// Which.
        attempt: AttemptId,
        /// The state it left.
        from: AttemptState,
        /// How.
        end: AttemptEnd,
        /// When the leader decided so.
        at: Timestamp,
    },
    /// A live setting was set, unset or refused.
    SettingChanged(Box<SettingChanged>),
    /// An executor was closed to starts.
    ExecutorClosed {
        /// Which.
        executor: ExecutorName,
        /// How, why, by whom and when.
        standing: ExecutorStanding,
    },
    /// An executor that was closed to starts is open to them again.
    ExecutorOpened {
        /// Which.
        executor: ExecutorName,
        /// By whom.
        by: Arc<str>,
        /// When.
        at: Timestamp,
    },
    /// An executor that is not connected and holds nothing was left out.
    ExecutorForgotten {
        /// Which.
        executor: ExecutorName,
        /// By whom.
        by: Arc<str>,
        /// When.
        at: Timestamp,
    },
}

/// How a run came to be. It never changes afterwards.
#[derive(Debug, Clone, PartialEq)]
pub struct RunCreated {
    /// Its id.
    pub run: RunId,
    /// Of which workflow.
    pub workflow: WorkflowName,
    /// Pinned to this version.
    pub version: u32,
    /// What caused it.
    pub trigger: Trigger,
    /// What it is about.
    pub interval: DataInterval,
    /// Its parameters: a JSON object, defaults filled in.
    pub params: Arc<str>,
    /// The key that its request carried.
    pub idempotency_key: Option<Arc<str>>,
    /// When.
    pub at: Timestamp,
}

/// What caused a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// The workflow's schedule. There is at most one such run for each logical time.
    Schedule,
    /// A person or program.
    Manual,
    /// A person or program, after this run had ended.
    Retry(RunId),
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptEnd {
    /// A final state.
    pub state: AttemptState,
    /// The exit code, where a process ended by itself.
    pub exit_code: Option<i32>,
    /// One line for people; empty after a success.
    pub reason: Arc<str>,
    /// What it hands on: a JSON object.
    pub values: Option<Arc<str>>,
    /// Whether the process found nothing to do.
    pub is_skipped: bool,
    /// Whether trying again would fail the same way.
    pub is_permanent: bool,
    /// When its process started, by the executor's clock.
    pub started_at: Option<Timestamp>,
    /// When it ended, by the executor's clock.
    pub ended_at: Timestamp,
    /// Bytes of its output.
    pub log_bytes: u64,
    /// Why the executor refused it, where it is `rejected`.
    pub reject_reason: RejectReason,
    /// Whether it was ended because its executor was told to stop: nobody is at fault.
    pub is_planned: bool,
    /// How it is known that nothing of it runs.
    pub proof: Proof,
}

impl AttemptEnd {
    /// Tells whether it counts against the rejections that a task instance may have: not where the task is not at fault.
    #[must_use]
    pub const fn counts_as_rejection(&self) -> bool {
        matches!((self.state, self.reject_reason), (AttemptState::Rejected, RejectReason::Other))
    }

    /// Tells whether it was lost in a way that the task may have caused: not by a planned stop, nor by a person's word, which
    /// comes with a look at what happened.
    #[must_use]
    pub const fn counts_as_loss(&self) -> bool {
        matches!(self.state, AttemptState::Lost) && !self.is_planned && !matches!(self.proof, Proof::Operator)
    }

    /// Tells whether it shows that the executor can start processes.
    pub(crate) const fn shows_process(&self) -> bool {
        self.started_at.is_some() || matches!(self.state, AttemptState::Succeeded)
    }

    /// Tells whether it was not started for a reason that the executor brings with it.
    ///
    /// A refusal that is permanent is about the attempt, and so is a program that is not there: a workflow with a slip in it
    /// must not close one executor after the other.
    pub(crate) const fn shows_failed_start(&self) -> bool {
        matches!(
            (self.state, self.reject_reason, self.is_permanent),
            (AttemptState::Rejected, RejectReason::Other | RejectReason::CannotStart, false)
        )
    }
}

/// Why an executor refused an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RejectReason {
    /// It did not say, or the reason is one that the attempt brings with it.
    #[default]
    Other,
    /// Its disk was too full.
    SpaceLow,
    /// It takes no more starts.
    Draining,
    /// It could not start a process; nothing of the attempt ran.
    CannotStart,
}

/// How it is known that nothing of an attempt runs: without one, no further attempt may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// The executor reported its end.
    Reported,
    /// The executor refused it, durably.
    Refused,
    /// Its machine has booted since.
    Rebooted,
    /// The executor attests, with a spool, that it holds nothing of it.
    CleanSlate,
    /// The time has passed after which the executor ends it by itself.
    OrphanTimePassed,
    /// A person says so.
    Operator,
}

impl Proof {
    /// Every one of them.
    pub const ALL: [Self; 6] = [
        Self::Reported,
        Self::Refused,
        Self::Rebooted,
        Self::CleanSlate,
        Self::OrphanTimePassed,
        Self::Operator,
    ];

    /// Returns the number that the store keeps.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Reported => 1,
            Self::Refused => 2,
            Self::Rebooted => 3,
            Self::CleanSlate => 4,
            Self::OrphanTimePassed => 5,
            Self::Operator => 6,
        }
    }
}

/// Something to do, after the facts that caused it are durable.
#[derive(Debug, Clone)]
pub enum Effect {
    /// Tell an executor.
    Send(SessionId, Message),
    /// Answer a client.
    Answer(RequestId, Answer),
    /// Tell whoever looks after the cluster.
    Alarm(Alarm),
}

/// Something that a person has to look into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Alarm {
    /// An executor came with something alive whose attempt had ended by a proof: that proof was wrong, and a later attempt of
    /// the task may have run beside it. It is being ended; what is recorded stays.
    AliveAfterEnd {
        /// Which executor.
        executor: ExecutorName,
        /// Which attempt.
        attempt: AttemptId,
    },
    /// A spool shows less than it once did: an older copy took its place.
    SpoolOld {
        /// Which executor.
        executor: ExecutorName,
        /// Its spool.
        spool: SpoolId,
        /// What it shows no more.
        reason: Arc<str>,
    },
    /// A second executor wants the name of one that is connected.
    Rival {
        /// Which name.
        executor: ExecutorName,
        /// The machine of the second, where it is known.
        machine: Option<Arc<str>>,
    },
}

/// What a leader tells an executor.
#[derive(Debug, Clone)]
pub enum Message {
    /// It is registered; what to do with each attempt that it holds.
    Welcome(Vec<(AttemptId, Verdict)>),
    /// It is not registered.
    Refused(Arc<str>),
    /// It is not registered, because its spool is an older copy of itself: it is to begin a new one.
    SpoolOld(Arc<str>),
    /// Its account arrived.
    HeartbeatAnswer(u64),
    /// Run this attempt.
    Start(Box<Start>),
    /// End this attempt.
    Kill {
        /// Which.
        attempt: AttemptId,
        /// Time between TERM and KILL.
        grace: Duration,
        /// Why, for its log.
        reason: Arc<str>,
    },
    /// The end of this attempt is durable: forget it.
    Ack(AttemptId),
}

/// The leader's judgement over an attempt that an executor holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Adopt,
    /// End it and report.
    Kill,
    /// Forget it; end it first if it lives.
    Discard,
}

/// Everything that an executor needs to run an attempt.
#[derive(Debug, Clone)]
pub struct Start {
    /// Which attempt.
    pub attempt: AttemptId,
    /// The spool it was assigned to.
    pub spool: SpoolId,
    /// The workflow's name.
    pub workflow: WorkflowName,
    /// The task's name.
    pub task: TaskName,
    /// What runs.
    pub kind: KindName,
    /// Parameters of the kind; texts may hold templates.
    pub with: Arc<Value>,
    /// Whether there is anything to render in `with`.
    pub is_templated: bool,
    /// What the run is about.
    pub interval: DataInterval,
    /// The time zone of the workflow's schedule, UTC where it has none.
    pub timezone: Arc<str>,
    /// Parameters of the run: a JSON object.
    pub params: Arc<str>,
    /// Values of the upstream tasks that the templates name.
    pub values: BTreeMap<TaskName, Arc<str>>,
    /// How long it may take.
    pub timeout: Option<Duration>,
    /// Time between TERM and KILL.
    pub kill_grace: Duration,
    /// How long it may run without contact to a leader; without bound where absent.
    pub orphan_timeout: Option<Duration>,
}

/// What a client is told.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The definition is in force.
    WorkflowApplied {
        /// As this version.
        version: u32,
        /// Whether it differs from what was in force before.
        is_changed: bool,
    },
    /// The run exists.
    RunStarted {
        /// Its id.
        run: RunId,
        /// Whether an earlier request with the same key made it.
        is_repeat: bool,
    },
    /// Done; the run is in this state.
    RunMoved(RunState),
    /// Why things wait.
    Explained(Box<Explanation>),
    /// What the executors do.
    Executors(Vec<ExecutorSummary>),
    /// What one executor does, after what was asked for was done.
    Executor(Box<ExecutorDetail>),
    /// The executor is left out.
    ExecutorForgotten,
    /// The attempt has ended in this state.
    AttemptEnded(AttemptState),
    /// The setting is as it was asked for.
    SettingTaken {
        /// Whether it was different before.
        is_changed: bool,
    },
    /// The account of all settings was looked at.
    SettingsTaken,
    /// What there is to do.
    Work(WorkCount),
    /// Not legal now.
    Refused(Refusal),
}

/// Facts and what to do once they are durable.
#[derive(Debug)]
#[must_use = "facts that are not committed are lost, and so are the effects that wait for them"]
pub struct Batch {
    term: Term,
    changes: Vec<Change>,
    effects: Vec<Effect>,
}

impl Batch {
    pub(crate) const fn new(term: Term, changes: Vec<Change>, effects: Vec<Effect>) -> Self {
        Self { term, changes, effects }
    }

    /// Returns the term whose leader decided this.
    #[must_use]
    pub const fn term(&self) -> Term {
        self.term
    }

    /// Returns the facts, in the order in which they became true.
    #[must_use]
    pub fn changes(&self) -> &[Change] {
        &self.changes
    }

    /// Returns the effects before they may be done, for tests that plant that very fault.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn effects(&self) -> &[Effect] {
        &self.effects
    }

    /// Hands out facts and effects. Only a store that has made the facts durable may call this.
    #[must_use]
    pub fn release(self) -> (Vec<Change>, Vec<Effect>) {
        (self.changes, self.effects)
    }
}

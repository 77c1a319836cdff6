//! Every cause of work.

use std::{collections::BTreeMap, sync::Arc};

use millrace_common::{
    id::{AttemptId, ExecutorName, RunId, SessionId, SpoolId, TaskName, WorkflowName},
    state::{AttemptState, RunState, TaskState},
    time::Timestamp,
    workflow::Workflow,
};

use crate::{
    batch::{AttemptEnd, RunCreated},
    settings::{SetSetting, SettingsAccount},
    standing::{CloseExecutor, ConfirmLost},
};

/// Identifies a client's request within a term; its answer carries the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// Something happened outside.
#[derive(Debug, Clone)]
pub enum Input {
    /// A client asks for something; exactly one [`Effect::Answer`](crate::Effect::Answer) follows.
    Requested(RequestId, Request),
    /// The live settings were read from where they are kept. What is different from before follows.
    SettingsRead(Box<SettingsAccount>),
    /// An executor registered with this leader and told everything that it holds.
    ExecutorConnected(SessionId, Box<Hello>),
    /// An executor takes no more starts; what it runs goes on.
    ExecutorDraining(SessionId),
    /// A session ended; its executor may be back at any time.
    ExecutorDisconnected(SessionId),
    /// An executor's periodic account.
    HeartbeatReceived {
        /// The session it came over.
        session: SessionId,
        /// Its number, which the answer repeats.
        number: u64,
        /// All attempts that the executor holds and in what state.
        held: Vec<(AttemptId, AttemptState)>,
        /// Whether it would refuse starts for want of disk space.
        is_space_low: bool,
        /// Durable facts that its spool has taken in; 0 where it does not say.
        spool_facts: u64,
    },
    /// An executor reports about one attempt.
    AttemptReported {
        /// The session it came over.
        session: SessionId,
        /// Which attempt.
        attempt: AttemptId,
        /// What happened to it.
        report: Report,
    },
}

/// What a client may ask for.
#[derive(Debug, Clone)]
pub enum Request {
    /// Put a definition in force.
    ApplyWorkflow {
        /// Its valid form.
        workflow: Arc<Workflow>,
        /// Its text, which the store keeps.
        source: Arc<str>,
    },
    /// Start a run.
    StartRun(StartRun),
    /// End a run: nothing new starts, what runs is killed.
    CancelRun(RunId),
    /// Start nothing new of a run; what runs goes on.
    PauseRun(RunId),
    /// Undo a pause.
    ResumeRun(RunId),
    /// Make a new run that keeps what succeeded in an ended one.
    RetryRun(Box<EndedRun>),
    /// Say why a run, or one of its tasks, waits.
    ExplainRun {
        /// The run.
        run: RunId,
        /// One task only.
        task: Option<TaskName>,
    },
    /// Say what the executors do.
    ListExecutors,
    /// Say what one executor does, and what was placed on it.
    ShowExecutor(ExecutorName),
    /// Place nothing more on an executor; what was placed there goes on.
    CloseExecutor(CloseExecutor),
    /// Undo that.
    OpenExecutor {
        /// Which.
        executor: ExecutorName,
        /// Who asks.
        by: Arc<str>,
    },
    /// Leave out an executor that is not coming back.
    ForgetExecutor {
        /// Which.
        executor: ExecutorName,
        /// Who asks.
        by: Arc<str>,
    },
    /// Take a person's word that nothing of an attempt runs any more.
    ConfirmLost(ConfirmLost),
    /// Set or unset a live setting, where the database keeps them.
    SetSetting(SetSetting),
    /// Look at all live settings, where etcd keeps them.
    TakeSettings(Box<SettingsAccount>),
    /// Say what there is to do, in numbers.
    CountWork,
}

/// A request to start a run.
#[derive(Debug, Clone)]
pub struct StartRun {
    /// Of which workflow; its newest version is taken.
    pub workflow: WorkflowName,
    /// Parameters as a JSON object, checked against the definition by whoever asks.
    pub params: Arc<str>,
    /// What the run is about; the moment of the request where absent.
    pub logical_date: Option<Timestamp>,
    /// The same key gives the same run.
    pub idempotency_key: Option<Arc<str>>,
}

/// An ended run as the store knows it, to be retried.
#[derive(Debug, Clone)]
pub struct EndedRun {
    /// How it was created.
    pub created: RunCreated,
    /// The definition it was pinned to.
    pub workflow: Arc<Workflow>,
    /// Its final state.
    pub state: RunState,
    /// State and values of each of its instances that left `waiting`, by position.
    pub tasks: BTreeMap<u32, (TaskState, Option<Arc<str>>)>,
}

/// What an executor says of itself when it connects.
#[derive(Debug, Clone)]
pub struct Hello {
    /// Its name.
    pub executor: ExecutorName,
    /// Attempts that it runs at once.
    pub slots: u32,
    /// What it is labelled with.
    pub labels: BTreeMap<String, String>,
    /// Kinds that it can run.
    pub kinds: Vec<String>,
    /// Its spool.
    pub spool: SpoolId,
    /// Its machine, the same across boots; absent where the executor does not know it.
    pub machine: Option<Arc<str>>,
    /// Changes with each boot of its machine.
    pub boot: Arc<str>,
    /// Whether the spool is new and nothing of an older one is left alive.
    pub is_clean: bool,
    /// Whether it would refuse starts for want of disk space.
    pub is_space_low: bool,
    /// Version of its program.
    pub version: Arc<str>,
    /// Names this start of its program; absent where it does not say.
    pub process: Option<Arc<str>>,
    /// Durable facts that its spool has taken in; 0 where it does not say.
    pub spool_facts: u64,
    /// Everything in its spool.
    pub held: Vec<Held>,
}

/// An attempt in an executor's spool.
#[derive(Debug, Clone)]
pub struct Held {
    /// Which attempt.
    pub attempt: AttemptId,
    /// Accepted, running, killing, or ended with how.
    pub report: Report,
}

/// What an executor says about an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// It is in the spool, durably.
    Accepted,
    /// Its process was started.
    Started {
        /// When, by the executor's clock.
        at: Timestamp,
    },
    /// It is being ended.
    Killing,
    /// It has ended; durable in the spool until this is acknowledged.
    Ended(AttemptEnd),
}

//! What a term is restored from: the rows that the store has of everything that is not final.

use std::{collections::BTreeMap, sync::Arc};

use millrace_common::{
    id::{ExecutorName, InstanceIndex, RunId, SpoolId, WorkflowName},
    state::{AttemptState, RunState, TaskState},
    time::Timestamp,
    workflow::Workflow,
};

use crate::{batch::RunCreated, settings::SettingRow, standing::ExecutorStanding};

/// The durable state, as far as scheduling needs it.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Workflows: the version in force of each, and each older version that a live run is pinned to.
    pub workflows: Vec<WorkflowRow>,
    /// Workflows whose version in force this program cannot read.
    pub unreadable: Vec<UnreadableRow>,
    /// Runs that are not final.
    pub runs: Vec<RunRow>,
    /// Runs that are not final and that the store left out; what executors run of them is left alone.
    pub quarantined: Vec<RunId>,
    /// Executors that are closed to starts.
    pub standings: Vec<StandingRow>,
    /// What operators gave the live settings.
    pub settings: Vec<SettingRow>,
}

/// An executor that is closed to starts.
#[derive(Debug, Clone)]
pub struct StandingRow {
    /// Which.
    pub executor: ExecutorName,
    /// How, why, by whom and since when.
    pub standing: ExecutorStanding,
}

/// One version of a workflow.
#[derive(Debug, Clone)]
pub struct WorkflowRow {
    /// Which version.
    pub version: u32,
    /// Whether it is the one in force.
    pub is_latest: bool,
    /// Its valid form.
    pub workflow: Arc<Workflow>,
    /// Its text.
    pub source: Arc<str>,
    /// Up to where its schedule was served; absent before the first time.
    pub cursor: Option<Timestamp>,
}

/// A version in force that this program cannot read. The next one must have a higher number all the same.
#[derive(Debug, Clone)]
pub struct UnreadableRow {
    /// Of which workflow.
    pub workflow: WorkflowName,
    /// Which version: the highest that is stored.
    pub version: u32,
    /// Up to where its schedule was served.
    pub cursor: Option<Timestamp>,
}

/// A live run.
#[derive(Debug, Clone)]
pub struct RunRow {
    /// How it came to be.
    pub created: RunCreated,
    /// Where it stands.
    pub state: RunState,
    /// When its tasks were first allowed to start.
    pub started_at: Option<Timestamp>,
    /// The final state that it is to have once nothing of it is active, and why.
    pub ending: Option<(RunState, Arc<str>)>,
    /// Its instances that left `waiting`, by position.
    pub tasks: BTreeMap<InstanceIndex, TaskRow>,
}

/// A task instance that left `waiting`.
#[derive(Debug, Clone)]
pub struct TaskRow {
    /// Where it stands.
    pub state: TaskState,
    /// When it may start again, in `up_for_retry`.
    pub retry_at: Option<Timestamp>,
    /// What it hands on.
    pub values: Option<Arc<str>>,
    /// Number of its last attempt, 0 before the first.
    pub attempts: u32,
    /// How many of them failed or timed out.
    pub failures: u32,
    /// How many of them were lost.
    pub losses: u32,
    /// How many of them were rejected.
    pub rejections: u32,
    /// The one that is live.
    pub live: Option<LiveRow>,
}

/// A live attempt.
#[derive(Debug, Clone)]
pub struct LiveRow {
    /// Where it was placed.
    pub executor: ExecutorName,
    /// The spool that it was assigned to.
    pub spool: SpoolId,
    /// The machine on which that spool was, where the executor knew it.
    pub machine: Option<Arc<str>>,
    /// Where it stands.
    pub state: AttemptState,
    /// When it was placed.
    pub assigned_at: Timestamp,
}

//! Why a run waits, as far as rows can tell: the answer of a master without a leader to ask.

use std::collections::BTreeMap;

use millrace_common::{
    id::{InstanceIndex, RunId, TaskName},
    state::TaskState,
    workflow::Workflow,
};
use millrace_core::Reason;
use millrace_proto::v1;
use millrace_store::query::{AttemptDetail, RunDetail};
use tonic::Status;

use super::{Control, view};
use crate::rpc::status;

/// Upstream tasks that a reason names; more would not be read.
const PENDING_NAMED_MAX: usize = 5;
/// What a program is told where only a leader knows.
const CODE: &str = "no_leader";

impl Control {
    /// Explains a run by what is stored.
    pub(super) async fn explain_rows(
        &self,
        run: RunId,
        only: Option<&TaskName>,
    ) -> Result<v1::ExplainRunResponse, Status> {
        let detail = self.run_detail(run).await?;
        let created = &detail.created;
        let definition = self.definition_for_view(&created.workflow, created.version).await?;
        if let Some(name) = only.filter(|name| !detail.task_names.contains(name)) {
            return Err(status::not_found(format!("run {run} has no task {name}")));
        }
        let told = Told::of(&detail, definition.as_deref().ok());
        let tasks = (0..).zip(&detail.task_names).filter(|(_, name)| only.is_none_or(|only| only == *name));
        let tasks = tasks.map(|(index, name)| {
            let state = told.state(index);
            let (code, text) = told.reason(index, state);
            v1::TaskReason { task: name.to_string(), state: state.to_string(), code, text }
        });
        let ended = detail.state.is_final();
        let reason = if ended {
            detail.reason.as_deref().unwrap_or("the run has ended").to_owned()
        } else {
            "no master leads at the moment: this is what the database tells, and nothing moves until one does"
                .to_owned()
        };
        let tasks = view::fitting(tasks);
        Ok(v1::ExplainRunResponse { state: detail.state.to_string(), reason, tasks, ..Default::default() })
    }
}

/// What is stored of a run.
struct Told<'a> {
    detail: &'a RunDetail,
    definition: Option<&'a Workflow>,
    states: BTreeMap<InstanceIndex, TaskState>,
    /// The last attempt of each task.
    attempts: BTreeMap<InstanceIndex, &'a AttemptDetail>,
}

impl<'a> Told<'a> {
    fn of(detail: &'a RunDetail, definition: Option<&'a Workflow>) -> Self {
        let states = detail.tasks.iter().map(|task| (task.index, task.state)).collect();
        let attempts = detail.attempts.iter().map(|row| (row.attempt.instance.index, row)).collect();
        Self { detail, definition, states, attempts }
    }

    /// No row yet: it has not left `waiting`.
    fn state(&self, index: InstanceIndex) -> TaskState {
        self.states.get(&index).copied().unwrap_or(TaskState::Waiting)
    }

    fn reason(&self, index: InstanceIndex, state: TaskState) -> (String, String) {
        let reason = match state {
            TaskState::Active => {
                return self
                    .attempts
                    .get(&index)
                    .map_or_else(unknown, |row| ("active".to_owned(), active(row)));
            }
            TaskState::UpForRetry => {
                let row = self.detail.tasks.iter().find(|task| task.index == index);
                row.and_then(|task| task.retry_at).map(Reason::RetryAt)
            }
            TaskState::Waiting => self.upstream(index),
            TaskState::Ready | TaskState::Deferred => None,
            TaskState::Success
            | TaskState::Failed
            | TaskState::Skipped
            | TaskState::UpstreamFailed
            | TaskState::Cancelled => Some(Reason::Ended),
        };
        reason.map_or_else(unknown, |reason| (reason.code().to_owned(), reason.to_string()))
    }

    /// Names what comes before a task and has not ended; nothing where there is no such thing, or no definition.
    fn upstream(&self, index: InstanceIndex) -> Option<Reason> {
        let definition = self.definition?;
        let rule = definition.tasks.get(index as usize)?.trigger_rule;
        let mut pending = definition.graph.upstream(index).iter().filter_map(|up| {
            let state = self.state(*up);
            let name = self.detail.task_names.get(*up as usize)?;
            (!state.is_final()).then(|| (name.clone(), state))
        });
        let named: Vec<_> = pending.by_ref().take(PENDING_NAMED_MAX).collect();
        let more = pending.count();
        (!named.is_empty()).then_some(Reason::Upstream { rule, pending: named, more })
    }
}

fn active(row: &AttemptDetail) -> String {
    format!(
        "attempt {} is {} on executor {}, assigned at {}; whether that is connected is not known",
        row.attempt.number, row.state, row.executor, row.assigned_at
    )
}

fn unknown() -> (String, String) {
    (CODE.to_owned(), "no master leads, which alone could start it".to_owned())
}

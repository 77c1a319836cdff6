//! Rows and answers as messages. Every one of them is made to fit into a message.

mod fit;

use std::{collections::BTreeMap, sync::Arc};

use millrace_common::{id::InstanceIndex, state::TaskState, time::Timestamp, workflow::Workflow};
use millrace_core::{ExecutorDetail, ExecutorSummary, Explanation, PlacedAttempt, Trigger};
use millrace_proto::v1;
use millrace_store::query::{
    AttemptDetail, RunDetail, RunSummary, TaskDetail, VersionSource, WorkflowSummary,
};

fn micros(time: Option<Timestamp>) -> Option<i64> {
    time.map(Timestamp::as_micros)
}

/// A definition, or why this build cannot read it.
type Shown<'a> = Result<&'a Workflow, &'a String>;

pub(super) fn workflow(row: &WorkflowSummary, definition: Shown<'_>) -> v1::WorkflowSummary {
    let schedule = definition.ok().and_then(|definition| definition.schedule.as_ref());
    let next = schedule.zip(row.cursor).and_then(|(schedule, cursor)| schedule.next_interval(cursor));
    v1::WorkflowSummary {
        name: row.name.to_string(),
        version: row.version,
        applied_at: row.applied_at.as_micros(),
        next_run_at: next.map(|interval| interval.end.as_micros()),
        last_run_state: row.last_run.as_ref().map_or_else(String::new, |run| run.state.to_string()),
        ..described(definition)
    }
}

pub(super) fn version(row: &VersionSource, definition: Shown<'_>) -> v1::WorkflowSummary {
    v1::WorkflowSummary {
        name: row.workflow.to_string(),
        version: row.version,
        applied_at: row.applied_at.as_micros(),
        ..described(definition)
    }
}

/// What only the definition tells.
fn described(definition: Shown<'_>) -> v1::WorkflowSummary {
    let definition = match definition {
        Ok(definition) => definition,
        Err(problem) => {
            let problem = format!(
                "{problem}, so nothing of it starts: apply the definition again, or start the build that took it"
            );
            return v1::WorkflowSummary { problem, ..v1::WorkflowSummary::default() };
        }
    };
    v1::WorkflowSummary {
        owner: definition.owner.clone(),
        schedule: definition.schedule.as_ref().map_or_else(String::new, ToString::to_string),
        tasks: u32::try_from(definition.tasks.len()).unwrap_or(u32::MAX),
        ..v1::WorkflowSummary::default()
    }
}

pub(super) fn run(row: &RunSummary) -> v1::RunSummary {
    let (trigger, retry_of) = trigger(row.trigger);
    v1::RunSummary {
        run: row.run.to_string(),
        workflow: row.workflow.to_string(),
        version: row.version,
        state: row.state.to_string(),
        trigger,
        interval_start: row.interval.start.as_micros(),
        interval_end: row.interval.end.as_micros(),
        created_at: row.created_at.as_micros(),
        started_at: micros(row.started_at),
        ended_at: micros(row.ended_at),
        reason: row.reason.as_deref().unwrap_or_default().to_owned(),
        params: String::new(),
        retry_of,
    }
}

fn trigger(trigger: Trigger) -> (String, String) {
    match trigger {
        Trigger::Schedule => ("schedule".to_owned(), String::new()),
        Trigger::Manual => ("manual".to_owned(), String::new()),
        Trigger::Retry(of) => ("retry".to_owned(), of.to_string()),
    }
}

fn run_of(detail: &RunDetail) -> v1::RunSummary {
    let created = &detail.created;
    let (trigger, retry_of) = trigger(created.trigger);
    let reason = detail.reason.as_deref().or(detail.ending.as_ref().map(|(_, reason)| &**reason));
    v1::RunSummary {
        run: created.run.to_string(),
        workflow: created.workflow.to_string(),
        version: created.version,
        state: detail.state.to_string(),
        trigger,
        interval_start: created.interval.start.as_micros(),
        interval_end: created.interval.end.as_micros(),
        created_at: created.at.as_micros(),
        started_at: micros(detail.started_at),
        ended_at: micros(detail.ended_at),
        reason: reason.unwrap_or_default().to_owned(),
        params: created.params.to_string(),
        retry_of,
    }
}

/// Shows a run; without its definition, tasks have no kind and nothing that they come after.
pub(super) fn run_detail(
    detail: &RunDetail,
    definition: Option<&Workflow>,
    mut values: BTreeMap<InstanceIndex, Arc<str>>,
) -> v1::GetRunResponse {
    let rows: BTreeMap<InstanceIndex, &TaskDetail> =
        detail.tasks.iter().map(|row| (row.index, row)).collect();
    let mut attempts: BTreeMap<InstanceIndex, Vec<v1::AttemptView>> = BTreeMap::new();
    for row in &detail.attempts {
        attempts.entry(row.attempt.instance.index).or_default().push(attempt(row));
    }
    let tasks = (0..)
        .zip(&detail.task_names)
        .map(|(index, name)| {
            let row = rows.get(&index);
            let task = definition.and_then(|definition| definition.tasks.get(index as usize));
            v1::TaskView {
                index,
                name: name.to_string(),
                kind: task.map_or_else(String::new, |task| task.kind.to_string()),
                // No row yet: it has not left `waiting`.
                state: row.map_or(TaskState::Waiting, |row| row.state).to_string(),
                upstream: definition
                    .map_or_else(Vec::new, |definition| definition.graph.upstream(index).to_vec()),
                changed_at: row.map(|row| row.moved_at.as_micros()),
                retry_at: micros(row.and_then(|row| row.retry_at)),
                values: values.remove(&index).as_deref().unwrap_or_default().to_owned(),
                attempts: attempts.remove(&index).unwrap_or_default(),
                description: task.map_or_else(String::new, |task| task.description.clone()),
            }
        })
        .collect();
    let mut view = v1::GetRunResponse { run: Some(run_of(detail)), tasks };
    fit::run(&mut view);
    view
}

fn attempt(row: &AttemptDetail) -> v1::AttemptView {
    v1::AttemptView {
        number: row.attempt.number,
        state: row.state.to_string(),
        executor: row.executor.to_string(),
        assigned_at: row.assigned_at.as_micros(),
        started_at: micros(row.started_at),
        ended_at: micros(row.ended_at),
        exit_code: row.exit_code,
        reason: row.reason.as_deref().unwrap_or_default().to_owned(),
        log_bytes: row.log_bytes,
    }
}

pub(super) fn explanation(explanation: Explanation) -> v1::ExplainRunResponse {
    let tasks = explanation.tasks.into_iter().map(|task| v1::TaskReason {
        task: task.task.to_string(),
        state: task.state.to_string(),
        code: task.reason.code().to_owned(),
        text: task.reason.to_string(),
    });
    v1::ExplainRunResponse {
        state: explanation.state.to_string(),
        reason: explanation.reason.map_or_else(String::new, |reason| reason.to_string()),
        tasks: fitting(tasks),
        schedules_paused_since: micros(explanation.schedules_paused_since),
    }
}

/// Takes as many reasons as fit into a message.
pub(super) fn fitting(reasons: impl Iterator<Item = v1::TaskReason>) -> Vec<v1::TaskReason> {
    fit::list(reasons, |task| task.task.len() + task.text.len() + task.code.len())
}

pub(super) fn executors(summaries: Vec<ExecutorSummary>) -> v1::ListExecutorsResponse {
    let bytes = |one: &v1::ExecutorView| {
        let labels = one.labels.iter().map(|(key, value)| key.len() + value.len() + fit::FRAME_BYTES);
        let kinds = one.kinds.iter().map(|kind| kind.len() + fit::FRAME_BYTES);
        let standing = one.standing_reason.len() + one.standing_by.len();
        one.name.len() + one.version.len() + standing + labels.chain(kinds).sum::<usize>()
    };
    v1::ListExecutorsResponse { executors: fit::list(summaries.into_iter().map(executor), bytes) }
}

pub(super) fn executor_detail(detail: ExecutorDetail) -> v1::ExecutorResponse {
    let attempts = detail.attempts.into_iter().map(placed_attempt).collect();
    v1::ExecutorResponse { executor: Some(executor(detail.summary)), attempts }
}

fn placed_attempt(placed: PlacedAttempt) -> v1::PlacedAttempt {
    v1::PlacedAttempt {
        attempt: placed.attempt.to_string(),
        run: placed.attempt.instance.run.to_string(),
        workflow: placed.workflow.to_string(),
        task: placed.task.to_string(),
        number: placed.attempt.number,
        state: placed.state.to_string(),
        assigned_at: placed.assigned_at.as_micros(),
    }
}

fn executor(summary: ExecutorSummary) -> v1::ExecutorView {
    let standing = summary.standing.as_ref();
    let text = |text: Option<&Arc<str>>| text.map_or_else(String::new, ToString::to_string);
    v1::ExecutorView {
        standing: standing.map_or("open", |standing| standing.closed.as_str()).to_owned(),
        standing_reason: text(standing.map(|standing| &standing.reason)),
        standing_by: text(standing.map(|standing| &standing.by)),
        standing_since: micros(standing.map(|standing| standing.since)),
        name: summary.name.to_string(),
        state: if summary.is_connected { "connected" } else { "disconnected" }.to_owned(),
        slots: summary.slots,
        slots_used: summary.slots_used,
        labels: summary.labels.into_iter().collect(),
        kinds: summary.kinds,
        version: summary.version.to_string(),
        silent_ms: Some(summary.silent_ms),
        is_space_low: summary.is_space_low,
    }
}

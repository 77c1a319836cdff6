//! Runs as text and as values.

use std::{collections::BTreeMap, fmt::Write as _};

use millrace_proto::v1;
use serde_json::{Value, json};

use crate::{
    command::workflow::with_next,
    output::{Printable, embedded, one_line, table, time, time_value, took},
};

/// A run that was started.
pub(super) struct Started(pub(super) v1::StartRunResponse);

impl Printable for Started {
    fn value(&self) -> Value {
        json!({ "run": self.0.run, "existed": self.0.existed })
    }

    fn text(&self) -> String {
        self.0.run.clone()
    }
}

/// A run that was cancelled, paused or resumed.
pub(super) struct Moved {
    pub(super) run: String,
    pub(super) state: String,
}

impl Printable for Moved {
    fn value(&self) -> Value {
        json!({ "run": self.run, "state": self.state })
    }

    fn text(&self) -> String {
        format!("run {}: {}", self.run, self.state)
    }
}

/// A page of runs.
pub(super) struct Runs(pub(super) v1::ListRunsResponse);

impl Printable for Runs {
    fn value(&self) -> Value {
        json!({ "runs": self.0.runs.iter().map(summary).collect::<Vec<_>>(), "next": self.0.next_page_token })
    }

    fn text(&self) -> String {
        let rows = self.0.runs.iter().map(|run| {
            vec![
                run.run.clone(),
                run.workflow.clone(),
                run.state.clone(),
                run.trigger.clone(),
                time(Some(run.interval_start)),
                time(Some(run.created_at)),
                took(run.started_at, run.ended_at),
            ]
        });
        let header = ["run", "workflow", "state", "trigger", "logical date", "created", "took"];
        let spare = ["created", "trigger", "logical date", "took"];
        with_next(table(&header, &spare, rows.collect()), &self.0.next_page_token)
    }
}

fn summary(run: &v1::RunSummary) -> Value {
    json!({
        "run": run.run,
        "workflow": run.workflow,
        "version": run.version,
        "state": run.state,
        "trigger": run.trigger,
        "data_interval": [time_value(Some(run.interval_start)), time_value(Some(run.interval_end))],
        "created_at": time_value(Some(run.created_at)),
        "started_at": time_value(run.started_at),
        "ended_at": time_value(run.ended_at),
        "reason": run.reason,
        "params": embedded(&run.params),
        "retry_of": run.retry_of,
    })
}

/// A run with its tasks.
pub(super) struct RunView(pub(super) v1::GetRunResponse);

impl Printable for RunView {
    fn value(&self) -> Value {
        let run = self.0.run.as_ref().map_or(Value::Null, summary);
        json!({ "run": run, "tasks": self.0.tasks.iter().map(task).collect::<Vec<_>>() })
    }

    fn text(&self) -> String {
        let mut text = head(&self.0);
        text.push_str(&tasks(self.0.tasks.iter()));
        text
    }
}

/// A run that somebody waited for: of a large one, only what did not succeed is worth a line.
pub(super) struct Ended(pub(super) RunView);

/// Tasks that are all shown at the end of a run.
const TASKS_SHOWN_MAX: usize = 50;

impl Printable for Ended {
    fn value(&self) -> Value {
        self.0.value()
    }

    fn text(&self) -> String {
        let Self(RunView(view)) = self;
        if view.tasks.len() <= TASKS_SHOWN_MAX {
            return self.0.text();
        }
        let mut text = head(view);
        let others: Vec<_> = view.tasks.iter().filter(|task| task.state != "success").collect();
        if !others.is_empty() {
            text.push_str(&tasks(others.iter().take(TASKS_SHOWN_MAX).copied()));
        }
        let id = view.run.as_ref().map_or("", |run| run.run.as_str());
        let _ = writeln!(text, "(`masterctl show {id}` lists all tasks)");
        text
    }
}

/// Says what became of a run and of how many of its tasks.
fn head(view: &v1::GetRunResponse) -> String {
    let mut text = String::new();
    if let Some(run) = &view.run {
        let _ = writeln!(text, "run {} of {} version {}: {}", run.run, run.workflow, run.version, run.state);
        let _ = writeln!(text, "logical date {}, {}", time(Some(run.interval_start)), run.trigger);
        if !run.reason.is_empty() {
            let _ = writeln!(text, "reason: {}", one_line(&run.reason));
        }
    }
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for task in &view.tasks {
        *counts.entry(&task.state).or_default() += 1;
    }
    let counts: Vec<String> = counts.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let noun = if view.tasks.len() == 1 { "task" } else { "tasks" };
    let _ = writeln!(text, "{} {noun}: {}\n", view.tasks.len(), counts.join(", "));
    text
}

fn tasks<'t>(shown: impl Iterator<Item = &'t v1::TaskView>) -> String {
    let first_line = |text: &str| text.lines().next().unwrap_or_default().to_owned();
    let row = |task: &v1::TaskView| {
        let last = task.attempts.last();
        vec![
            task.name.clone(),
            task.kind.clone(),
            task.state.clone(),
            task.attempts.len().to_string(),
            last.map(|attempt| attempt.executor.clone()).unwrap_or_default(),
            last.map(|attempt| took(attempt.started_at, attempt.ended_at)).unwrap_or_default(),
            first_line(&task.description),
            last.map(|attempt| attempt.reason.clone()).unwrap_or_default(),
        ]
    };
    let header = ["task", "kind", "state", "attempts", "executor", "took", "description", "reason"];
    table(&header, &["description", "kind", "attempts", "executor", "took"], shown.map(row).collect())
}

fn task(task: &v1::TaskView) -> Value {
    json!({
        "task": task.name,
        "description": task.description,
        "kind": task.kind,
        "state": task.state,
        "changed_at": time_value(task.changed_at),
        "retry_at": time_value(task.retry_at),
        "values": embedded(&task.values),
        "attempts": task.attempts.iter().map(attempt).collect::<Vec<_>>(),
    })
}

fn attempt(attempt: &v1::AttemptView) -> Value {
    json!({
        "attempt": attempt.number,
        "state": attempt.state,
        "executor": attempt.executor,
        "assigned_at": time_value(Some(attempt.assigned_at)),
        "started_at": time_value(attempt.started_at),
        "ended_at": time_value(attempt.ended_at),
        "exit_code": attempt.exit_code,
        "reason": attempt.reason,
        "log_bytes": attempt.log_bytes,
    })
}

/// Why things wait.
pub(super) struct Explained(pub(super) v1::ExplainRunResponse);

impl Printable for Explained {
    fn value(&self) -> Value {
        let one = |task: &v1::TaskReason| json!({ "task": task.task, "state": task.state, "code": task.code, "text": task.text });
        let tasks: Vec<Value> = self.0.tasks.iter().map(one).collect();
        let paused_since = time_value(self.0.schedules_paused_since);
        json!({ "state": self.0.state, "reason": self.0.reason, "schedules_paused_since": paused_since, "tasks": tasks })
    }

    fn text(&self) -> String {
        let mut text = format!("run: {}", self.0.state);
        if !self.0.reason.is_empty() {
            let _ = write!(text, ": {}", one_line(&self.0.reason));
        }
        let _ = writeln!(text);
        if let Some(since) = self.0.schedules_paused_since {
            let since = time(Some(since));
            let _ = writeln!(
                text,
                "all schedules are paused since {since} by schedules_paused: none starts a run, and this run goes on"
            );
        }
        if self.0.tasks.is_empty() {
            return text;
        }
        let rows =
            self.0.tasks.iter().map(|task| vec![task.task.clone(), task.state.clone(), task.text.clone()]);
        text.push_str(&table(&["task", "state", "why"], &[], rows.collect()));
        text
    }
}

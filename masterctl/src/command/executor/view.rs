//! How executors are printed.

use std::{collections::BTreeMap, time::Duration};

use millrace_common::text::ShowDuration;
use millrace_proto::v1;
use serde_json::{Value, json};

use crate::output::{Printable, one_line, table, time, time_value};

/// What the word of an executor's standing is where it takes starts.
const OPEN: &str = "open";

/// All executors.
pub(super) struct Executors(pub(super) v1::ListExecutorsResponse);

impl Printable for Executors {
    fn value(&self) -> Value {
        json!({ "executors": self.0.executors.iter().map(value).collect::<Vec<_>>() })
    }

    fn text(&self) -> String {
        let rows = self.0.executors.iter().map(|executor| {
            vec![
                executor.name.clone(),
                state(executor),
                format!("{}/{}", executor.slots_used, executor.slots),
                labels(executor),
                silent(executor),
                executor.version.clone(),
                // With spaces, so that a narrow terminal has where to break the line.
                executor.kinds.join(" "),
            ]
        });
        let header = ["executor", "state", "slots", "labels", "silent for", "version", "kinds"];
        let mut text = table(&header, &["version", "labels", "silent for"], rows.collect());
        for executor in self.0.executors.iter().filter(|executor| is_closed(executor)) {
            text.push_str(&format!("{} is {}\n", one_line(&executor.name), standing(executor)));
        }
        text
    }
}

/// One executor, with what was placed on it.
pub(super) struct Shown(pub(super) v1::ExecutorResponse);

impl Printable for Shown {
    fn value(&self) -> Value {
        let attempt = |placed: &v1::PlacedAttempt| {
            json!({
                "attempt": placed.attempt,
                "run": placed.run,
                "workflow": placed.workflow,
                "task": placed.task,
                "number": placed.number,
                "state": placed.state,
                "assigned_at": time_value(Some(placed.assigned_at)),
            })
        };
        let mut value = self.0.executor.as_ref().map_or(Value::Null, value);
        if let Some(keys) = value.as_object_mut() {
            let attempts = self.0.attempts.iter().map(attempt).collect();
            keys.insert("attempts".to_owned(), Value::Array(attempts));
        }
        value
    }

    fn text(&self) -> String {
        let Some(executor) = &self.0.executor else { return String::new() };
        let rows = [
            ("executor", executor.name.clone()),
            ("state", state(executor)),
            ("standing", standing(executor)),
            ("slots", format!("{}/{}", executor.slots_used, executor.slots)),
            ("labels", labels(executor)),
            ("kinds", executor.kinds.join(" ")),
            ("silent for", silent(executor)),
            ("version", executor.version.clone()),
        ];
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let mut text: String = rows
            .iter()
            .map(|(name, value)| {
                format!("{:<width$}  {}", name, one_line(value)).trim_end().to_owned() + "\n"
            })
            .collect();
        if !self.0.attempts.is_empty() {
            let rows = self.0.attempts.iter().map(|placed| {
                vec![
                    placed.attempt.clone(),
                    placed.workflow.clone(),
                    placed.task.clone(),
                    placed.state.clone(),
                    time(Some(placed.assigned_at)),
                ]
            });
            text.push('\n');
            text.push_str(&table(
                &["attempt", "workflow", "task", "state", "placed"],
                &["placed"],
                rows.collect(),
            ));
        }
        text
    }
}

/// An executor that is left out.
pub(super) struct Forgotten {
    pub(super) name: String,
}

impl Printable for Forgotten {
    fn value(&self) -> Value {
        json!({ "executor": self.name, "forgotten": true })
    }

    fn text(&self) -> String {
        format!("executor {} is forgotten\n", one_line(&self.name))
    }
}

/// An attempt that ended by a person's word.
pub(super) struct Confirmed {
    pub(super) attempt: String,
    pub(super) state: String,
}

impl Printable for Confirmed {
    fn value(&self) -> Value {
        json!({ "attempt": self.attempt, "state": self.state })
    }

    fn text(&self) -> String {
        format!("attempt {} is {}\n", one_line(&self.attempt), one_line(&self.state))
    }
}

fn value(executor: &v1::ExecutorView) -> Value {
    json!({
        "executor": executor.name,
        "state": executor.state,
        "standing": executor.standing,
        "standing_reason": executor.standing_reason,
        "standing_by": executor.standing_by,
        "standing_since": time_value(executor.standing_since),
        "slots": executor.slots,
        "slots_used": executor.slots_used,
        "labels": sorted(executor),
        "kinds": executor.kinds,
        "version": executor.version,
        "silent_ms": executor.silent_ms,
        "is_space_low": executor.is_space_low,
    })
}

/// Tells whether a person, or the leader, keeps starts from it. An older master says nothing about that.
fn is_closed(executor: &v1::ExecutorView) -> bool {
    !executor.standing.is_empty() && executor.standing != OPEN
}

fn state(executor: &v1::ExecutorView) -> String {
    let mut state = executor.state.clone();
    if is_closed(executor) {
        state = format!("{state}, {}", executor.standing);
    }
    if executor.is_space_low {
        state.push_str(", short of disk space");
    }
    state
}

/// Says how it is closed, why, by whom and since when.
fn standing(executor: &v1::ExecutorView) -> String {
    if !is_closed(executor) {
        return OPEN.to_owned();
    }
    let since = time(executor.standing_since);
    let reason = match executor.standing_reason.as_str() {
        "" => String::new(),
        reason => format!(": {}", one_line(reason)),
    };
    format!("{} by {} since {since}{reason}", executor.standing, one_line(&executor.standing_by))
}

fn labels(executor: &v1::ExecutorView) -> String {
    let labels: Vec<String> = sorted(executor).iter().map(|(key, value)| format!("{key}={value}")).collect();
    labels.join(",")
}

fn silent(executor: &v1::ExecutorView) -> String {
    let silent = executor.silent_ms.map(|silent| ShowDuration(Duration::from_millis(silent)).to_string());
    silent.unwrap_or_default()
}

fn sorted(executor: &v1::ExecutorView) -> BTreeMap<&String, &String> {
    executor.labels.iter().collect()
}

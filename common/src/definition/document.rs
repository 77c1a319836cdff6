//! A workflow as a document again, with everything written out.

use serde_json::{Map, Value, json};

use super::{
    param::KINDS,
    task::{ON_LOST, TRIGGER_RULES},
    workflow::SUCCESS_RULES,
};
use crate::{
    schedule::{Schedule, Trigger},
    text::ShowDuration,
    workflow::{Param, Task, Workflow},
};

/// Returns the document of a workflow with all defaults resolved; [`parse`](super::parse) reads the same workflow from it.
#[must_use]
pub fn to_document(workflow: &Workflow) -> Value {
    let mut document = Map::new();
    document.insert("workflow".to_owned(), json!(workflow.name));
    put_text(&mut document, "description", &workflow.description);
    put_text(&mut document, "owner", &workflow.owner);
    if let Some(schedule) = &workflow.schedule {
        document.insert("schedule".to_owned(), of_schedule(schedule));
    }
    if !workflow.params.is_empty() {
        let params = workflow.params.iter().map(|(name, param)| (name.to_string(), of_param(param)));
        document.insert("params".to_owned(), Value::Object(params.collect()));
    }
    document.insert("max_active_runs".to_owned(), json!(workflow.max_active_runs));
    if let Some(timeout) = workflow.run_timeout {
        document.insert("timeout".to_owned(), json!(ShowDuration(timeout).to_string()));
    }
    document.insert("success".to_owned(), word(SUCCESS_RULES, &workflow.success));
    let tasks = workflow.tasks.iter().zip(0..).map(|(task, at)| {
        let after = workflow.graph.upstream(at).iter().filter_map(|up| workflow.tasks.get(*up as usize));
        (task.name.to_string(), of_task(task, after.map(|up| json!(up.name)).collect()))
    });
    document.insert("tasks".to_owned(), Value::Object(tasks.collect()));
    Value::Object(document)
}

fn put_text(document: &mut Map<String, Value>, key: &str, text: &str) {
    if !text.is_empty() {
        document.insert(key.to_owned(), json!(text));
    }
}

/// Returns the word of a table that means a value; every table is complete.
fn word<T: PartialEq>(words: &[(&'static str, T)], meaning: &T) -> Value {
    words.iter().find(|(_, each)| each == meaning).map_or(Value::Null, |(word, _)| json!(word))
}

fn of_schedule(schedule: &Schedule) -> Value {
    let (key, trigger) = match &schedule.trigger {
        Trigger::Cron(cron) => ("cron", cron.as_str().to_owned()),
        Trigger::Every(distance) => ("every", ShowDuration(*distance).to_string()),
    };
    json!({
        key: trigger,
        "timezone": schedule.timezone.name(),
        "catchup": schedule.catchup,
        "misfire": schedule.misfire.as_str(),
    })
}

fn of_param(param: &Param) -> Value {
    let mut document = Map::new();
    document.insert("type".to_owned(), word(KINDS, &param.kind));
    if let Some(default) = &param.default {
        document.insert("default".to_owned(), default.clone());
    }
    if !param.one_of.is_empty() {
        document.insert("enum".to_owned(), json!(param.one_of));
    }
    put_text(&mut document, "description", &param.description);
    Value::Object(document)
}

fn of_task(task: &Task, after: Vec<Value>) -> Value {
    let duration = |duration| json!(ShowDuration(duration).to_string());
    let mut document = Map::new();
    let mut put = |key: &str, value: Value| drop(document.insert(key.to_owned(), value));
    put("kind", json!(task.kind));
    if !after.is_empty() {
        put("after", Value::Array(after));
    }
    if !task.description.is_empty() {
        put("description", json!(task.description));
    }
    put("with", Value::clone(&task.with));
    put("trigger_rule", word(TRIGGER_RULES, &task.trigger_rule));
    put("retries", json!(task.retry.retries));
    put("retry_delay", duration(task.retry.delay));
    put("retry_backoff", json!(task.retry.backoff));
    put("retry_delay_max", duration(task.retry.delay_max));
    if let Some(timeout) = task.timeout {
        put("timeout", duration(timeout));
    }
    put("kill_grace", duration(task.kill_grace));
    put("on_lost", word(ON_LOST, &task.on_lost));
    put("orphan_timeout", duration(task.orphan_timeout));
    if let Some(pool) = &task.pool {
        put("pool", json!(pool));
    }
    put("pool_slots", json!(task.pool_slots));
    put("priority", json!(task.priority));
    if !task.labels.is_empty() {
        put("executor", json!({ "labels": *task.labels }));
    }
    Value::Object(document)
}

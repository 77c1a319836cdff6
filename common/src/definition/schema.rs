//! The JSON Schema of a document, for editors and for other programs.
//!
//! It says what a schema can say. What spans several places, such as cycles and references in templates, only
//! [`parse`](super::parse) checks.

use serde_json::{Map, Value, json};

use super::{
    param,
    task::{self, ON_LOST, TRIGGER_RULES},
    with::{Kinds, kinds},
    workflow::{ACTIVE_RUNS, MISFIRES, OWNER_CHARS_MAX, SUCCESS_RULES},
};
use crate::limits::{NAME_CHARS_MAX, TASKS_MAX};

/// Returns the published JSON Schema of a document, draft 2020-12.
#[must_use]
pub fn schema() -> Value {
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Millrace workflow",
        "description": "A named DAG of tasks with triggers and policies.",
        "type": "object",
        "properties": {
            "workflow": described(name(), "Name of the workflow."),
            "description": text("Free text for people."),
            "owner": {
                "description": "Who answers for the workflow.",
                "type": ["string", "null"], "maxLength": OWNER_CHARS_MAX,
            },
            "schedule": described(json!({ "$ref": "#/$defs/schedule" }), "When it runs by itself; never where absent."),
            "params": {
                "description": "Parameters that a run may set, by name: a declaration, or a default alone.",
                "type": ["object", "null"],
                "propertyNames": name(),
                "additionalProperties": { "$ref": "#/$defs/param" },
            },
            "defaults": described(json!({ "$ref": "#/$defs/policy" }), "What every task has unless it says otherwise."),
            "max_active_runs": {
                "description": "Runs that may be running at once, 1 where absent.",
                "type": ["integer", "null"], "minimum": ACTIVE_RUNS.start(), "maximum": ACTIVE_RUNS.end(),
            },
            "timeout": duration("How long a run may take."),
            "success": word("Which tasks must not fail for a run to succeed: those at the end, or all; leaves where absent.", SUCCESS_RULES),
            "tasks": {
                "description": "The tasks, by name.",
                "type": "object",
                "propertyNames": name(),
                "minProperties": 1,
                "maxProperties": TASKS_MAX,
                "additionalProperties": { "$ref": "#/$defs/task" },
            },
        },
        "required": ["workflow", "tasks"],
        "additionalProperties": false,
        "$defs": defs(kinds()),
    })
}

fn defs(kinds: &Kinds) -> Value {
    let mut defs: Map<String, Value> = kinds.defs.clone();
    defs.values_mut().for_each(allow_templates);
    defs.insert("schedule".to_owned(), schedule());
    defs.insert("param".to_owned(), param());
    defs.insert("policy".to_owned(), policy());
    defs.insert("task".to_owned(), task(kinds));
    Value::Object(defs)
}

fn described(mut schema: Value, description: &str) -> Value {
    schema["description"] = json!(description);
    schema
}

fn name() -> Value {
    json!({ "type": "string", "pattern": "^[a-z0-9_-]+$", "minLength": 1, "maxLength": NAME_CHARS_MAX })
}

fn text(description: &str) -> Value {
    json!({ "description": description, "type": ["string", "null"] })
}

fn duration(description: &str) -> Value {
    json!({
        "description": format!("{description} A number with a unit, such as 90s, 5m or 1h30m."),
        "type": ["string", "null"],
        "pattern": "^\\s*([0-9]+(ms|s|m|h|d|w))+\\s*$",
    })
}

fn word<T>(description: &str, words: &[(&str, T)]) -> Value {
    let words = words.iter().map(|(word, _)| json!(word)).chain([Value::Null]);
    json!({ "description": description, "enum": words.collect::<Vec<_>>() })
}

fn whole(description: &str, bounds: &std::ops::RangeInclusive<i64>) -> Value {
    json!({
        "description": description,
        "type": ["integer", "null"], "minimum": bounds.start(), "maximum": bounds.end(),
    })
}

fn schedule() -> Value {
    json!({
        "type": ["object", "null"],
        "properties": {
            "cron": text("Five fields, six with seconds first, or @hourly, @daily, @weekly, @monthly, @yearly, @every 90s."),
            "every": duration("A fixed distance, instead of `cron`."),
            "timezone": text("Zone of the IANA database in which `cron` is read, UTC where absent."),
            "catchup": {
                "description": "Whether every missed interval runs, or only the latest.",
                "type": ["boolean", "null"],
            },
            "misfire": word("What happens to intervals that are late: skip them, run the latest, run all.", MISFIRES),
        },
        "oneOf": [{ "required": ["cron"] }, { "required": ["every"] }],
        "additionalProperties": false,
    })
}

fn param() -> Value {
    let kinds: Vec<&str> = param::KINDS.iter().map(|(word, _)| *word).collect();
    json!({
        "anyOf": [
            { "type": ["string", "number", "boolean", "null"], "description": "The default; its type is the type." },
            {
                "type": "object",
                "properties": {
                    "type": { "description": "What values it takes.", "enum": kinds },
                    "default": {
                        "description": "The value where a run gives none; must be given where absent.",
                        "type": ["string", "number", "boolean", "null"],
                    },
                    "enum": { "description": "The only values allowed.", "type": ["array", "null"], "minItems": 1 },
                    "description": text("Free text for people."),
                },
                "additionalProperties": false,
            },
        ],
    })
}

/// Returns the keys that `defaults` and tasks share.
fn policy_properties() -> Map<String, Value> {
    let properties = json!({
        "retries": whole("Further attempts after the first, 0 where absent.", &task::RETRIES),
        "retry_delay": duration("Delay before the second attempt, 5m where absent."),
        "retry_backoff": {
            "description": "Factor by which the delay grows with each attempt, 1 where absent.",
            "type": ["number", "null"],
            "minimum": task::RETRY_BACKOFF.start(), "maximum": task::RETRY_BACKOFF.end(),
        },
        "retry_delay_max": duration("Upper bound of the delay, 24h where absent."),
        "timeout": duration("How long one attempt may take."),
        "kill_grace": duration("Time between TERM and KILL, 10s where absent."),
        "on_lost": word("What happens when an attempt is lost, retry where absent.", ON_LOST),
        "orphan_timeout": duration("How long an attempt may run without contact to a leader, at least 15s, 60s where absent."),
        "pool": described(json!({ "anyOf": [name(), { "type": "null" }] }), "Cap that the task counts against."),
        "pool_slots": whole("How much of the pool it takes, 1 where absent.", &task::POOL_SLOTS),
        "priority": whole("Higher starts first where places are short, 0 where absent.", &task::PRIORITY),
        "trigger_rule": word("When it may start, given its upstream tasks; all_success where absent.", TRIGGER_RULES),
        "executor": {
            "description": "Which executors may run it.",
            "type": ["object", "null"],
            "properties": {
                "labels": {
                    "description": "Labels that the executor must carry; those of a task replace those of `defaults`.",
                    "type": ["object", "null"],
                    "additionalProperties": { "type": "string" },
                },
            },
            "additionalProperties": false,
        },
    });
    match properties {
        Value::Object(properties) => properties,
        _ => Map::new(),
    }
}

fn policy() -> Value {
    json!({ "type": ["object", "null"], "properties": policy_properties(), "additionalProperties": false })
}

fn task(kinds: &Kinds) -> Value {
    let mut properties = policy_properties();
    properties.insert(
        "kind".to_owned(),
        described(name(), "What runs: a built-in kind, or one that executors declare."),
    );
    properties.insert(
        "after".to_owned(),
        json!({
            "description": "Tasks that it comes after: a name or a list of names.",
            "anyOf": [{ "type": ["string", "null"] }, { "type": "array", "items": { "type": "string" }, "uniqueItems": true }],
        }),
    );
    properties.insert(
        "with".to_owned(),
        json!({ "description": "Parameters of the kind; texts may hold templates.", "type": ["object", "null"] }),
    );
    properties.insert("description".to_owned(), text("Free text for people."));
    let by_kind: Vec<Value> = kinds
        .with
        .iter()
        .map(|(kind, with)| {
            let needed: &[&str] = if kinds.needs_with(kind) { &["with"] } else { &[] };
            json!({
                "if": { "properties": { "kind": { "const": kind } }, "required": ["kind"] },
                "then": { "properties": { "with": with }, "required": needed },
            })
        })
        .collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": ["kind"],
        "additionalProperties": false,
        "allOf": by_kind,
    })
}

/// Lets a template stand wherever a number, a boolean or one of a few words is expected, as the check of `with` does.
fn allow_templates(schema: &mut Value) {
    let Value::Object(keys) = schema else { return };
    for (key, inner) in keys.iter_mut() {
        match (key.as_str(), inner) {
            ("properties", Value::Object(named)) => named.values_mut().for_each(allow_templates),
            ("anyOf" | "oneOf" | "allOf", Value::Array(options)) => {
                options.iter_mut().for_each(allow_templates);
            }
            ("items" | "additionalProperties", inner) => allow_templates(inner),
            _ => {}
        }
    }
    // A template fits each of several alternatives, so "exactly one" would refuse it.
    if let Some(options) = keys.remove("oneOf") {
        keys.insert("anyOf".to_owned(), options);
    }
    if !is_scalar(keys) {
        return;
    }
    let mut plain = std::mem::take(keys);
    for key in ["description", "default"] {
        keys.extend(plain.remove(key).map(|value| (key.to_owned(), value)));
    }
    keys.insert("anyOf".to_owned(), json!([plain, { "type": "string", "pattern": "\\{\\{" }]));
}

fn is_scalar(schema: &Map<String, Value>) -> bool {
    let is_scalar = |name: &Value| matches!(name.as_str(), Some("integer" | "number" | "boolean"));
    let is_constant = schema.contains_key("enum") || schema.contains_key("const");
    is_constant
        || match schema.get("type") {
            Some(Value::Array(names)) => names.iter().any(is_scalar),
            Some(name) => is_scalar(name),
            None => false,
        }
}

#[cfg(test)]
mod tests {
    use std::{
        fs,
        path::{Path, PathBuf},
    };

    use super::*;
    use crate::definition::{node, parse, problem::Problems, to_document};

    fn to_json(text: &str) -> Value {
        node::read(text, &mut Problems::new(text)).unwrap().to_json()
    }

    /// The documents of the tests, and those that users are given.
    fn documents() -> Vec<PathBuf> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let inside = |folder: PathBuf| fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let examples = inside(root.join("../examples")).filter(|path| path.is_dir()).flat_map(inside);
        let workflows = examples.filter(|path| path.ends_with("workflow.yaml"));
        inside(root.join("tests/accepted")).chain(workflows).collect()
    }

    #[test]
    fn good_documents_fit_the_schema() {
        let validator = jsonschema::draft202012::new(&schema()).unwrap();
        let documents = documents();
        assert!(documents.len() >= 4, "{documents:?}");
        for path in documents {
            let text = fs::read_to_string(&path).unwrap();
            let workflow = parse(&text).unwrap_or_else(|rejected| panic!("{}:\n{rejected}", path.display()));
            for document in [to_json(&text), to_document(&workflow)] {
                let errors: Vec<String> =
                    validator.iter_errors(&document).map(|e| format!("{}: {e}", e.instance_path())).collect();
                assert!(errors.is_empty(), "{}: {errors:#?}", path.display());
            }
        }
    }

    #[test]
    fn what_the_schema_refuses_is_refused_by_parse_too() {
        let validator = jsonschema::draft202012::new(&schema()).unwrap();
        for (task, is_good) in [
            ("kind: shell, with: { script: x }", true),
            ("kind: shell, with: { script: x, success_exit_codes: ['{{ attempt }}'] }", true),
            ("kind: shell, with: { script: x, success_exit_codes: [zero] }", false),
            ("kind: shell, with: { script: x, evn: {} }", false),
            ("kind: shell, with: { script: x, env: { A: 1 } }", false),
            (
                "kind: aoi, with: { sources: [a, { name: b }], stages: ['{{ ds }}'], on_empty: '{{ ds }}' }",
                true,
            ),
            ("kind: aoi, with: { sources: [a, { nam: b }] }", false),
            ("kind: aoi, with: { sources: [a], on_empty: maybe }", false),
            ("kind: aoi, with: { sources: [a], mirror: { ready: { min_age: 5m } } }", true),
            ("kind: aoi, with: { sources: [a], mirror: { ready: { min: 5m } } }", false),
            ("kind: aoi", false),
            ("kind: custom, with: { any: [thing] }", true),
            ("kind: custom, with: text", false),
            ("kind: custom, retries: 2, retry_delay: 1h30m, timeout: ~, after:", true),
            ("kind: custom, retries: -1", false),
            ("kind: custom, retry_delay: 5", false),
            ("kind: custom, on_lost: never", false),
            ("kind: custom, retry: 5", false),
            ("with: {}", false),
        ] {
            let text = format!("workflow: w\ntasks: {{ a: {{ {task} }} }}\n");
            assert_eq!(validator.is_valid(&to_json(&text)), is_good, "schema of {task}");
            assert_eq!(parse(&text).is_ok(), is_good, "parse of {task}");
        }
    }

    #[test]
    fn every_key_that_is_read_is_described() {
        let schema = schema();
        let keys = |pointer: &str| {
            let properties = schema.pointer(pointer).and_then(Value::as_object).unwrap();
            let mut keys: Vec<_> = properties.keys().map(String::as_str).collect();
            keys.sort_unstable();
            keys
        };
        let sorted = |known: &[&'static str]| {
            let mut known = known.to_vec();
            known.sort_unstable();
            known
        };
        assert_eq!(keys("/properties"), sorted(crate::definition::workflow::KEYS));
        assert_eq!(keys("/$defs/policy/properties"), sorted(task::POLICY_KEYS));
        assert_eq!(keys("/$defs/task/properties"), sorted(task::TASK_KEYS));
        assert_eq!(keys("/$defs/param/anyOf/1/properties"), sorted(param::KEYS));
    }
}

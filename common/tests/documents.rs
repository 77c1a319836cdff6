//! What holds for every document: reading never panics, and an accepted document can be written and read again.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::PathBuf};

use millrace_common::{
    definition::{diff, parse, to_document},
    workflow::Workflow,
};
use proptest::{collection::vec, option, prelude::*, sample::select};
use serde_json::{Map, Value, json};

fn accepted() -> Vec<String> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/accepted");
    let mut paths: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.into_iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// Checks whatever a text gives: a workflow that survives writing, or problems that point into the text.
fn check(text: &str) -> Result<(), TestCaseError> {
    match parse(text) {
        Ok(workflow) => survives(&workflow),
        Err(rejected) => {
            prop_assert!(!rejected.problems.is_empty());
            prop_assert!(rejected.problems.is_sorted_by_key(|problem| problem.span.start));
            for problem in &rejected.problems {
                prop_assert!(text.get(problem.span.clone()).is_some());
                prop_assert!(problem.line >= 1 && problem.column >= 1);
            }
            Ok(())
        }
    }
}

fn survives(workflow: &Workflow) -> Result<(), TestCaseError> {
    let written = serde_json::to_string_pretty(&to_document(workflow)).unwrap();
    match parse(&written) {
        Ok(again) => {
            prop_assert_eq!(&again, workflow);
            prop_assert_eq!(diff(workflow, &again), vec![]);
            Ok(())
        }
        Err(rejected) => Err(TestCaseError::fail(format!("{written}\n{rejected}"))),
    }
}

/// A piece of YAML that is likely to mean something.
fn token() -> impl Strategy<Value = String> {
    let known = select(vec![
        "workflow: w\n",
        "tasks:\n",
        "  a:\n",
        "    kind: shell\n",
        "    with: { script: x }\n",
        "[",
        "]",
        "{",
        "}",
        ",",
        ": ",
        "- ",
        "\n",
        "  ",
        "&a ",
        "*a",
        "<<: *a\n",
        "? ",
        "|\n",
        ">-\n",
        "\"",
        "'",
        "#",
        "---\n",
        "...\n",
        "!!str ",
        "! ",
        "%YAML 1.2\n",
        "\t",
        "\r\n",
        "{{ ds }}",
        "{{",
        "}}",
        "null",
        "true",
        "1e3",
        "0x",
        "\u{feff}",
        "\u{85}",
        "ü",
        "数",
        "\0",
        "\\",
        "\\x4",
        "\\ud83d",
        "@",
        "`",
        "%",
    ]);
    prop_oneof![4 => known.prop_map(str::to_owned), 1 => ".{0,6}"]
}

/// Text of all sorts, without what no YAML document can hold.
fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z ]{0,12}", "[ -z|~]{0,12}", "[a-zäöü数据😀\\n\\t\"'\\\\:#-]{0,12}"]
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter("finite", |number| number.is_finite()).prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((text(), inner), 0..4).prop_map(|entries| Value::Object(entries.into_iter().collect())),
        ]
    })
}

fn duration() -> impl Strategy<Value = Value> {
    (15_u64..500_000).prop_map(|seconds| json!(format!("{}m{}s", seconds / 60, seconds % 60)))
}

prop_compose! {
    fn task()(
        with in json_value(),
        after in option::of(0..100_usize),
        retries in option::of(0..5),
        delay in option::of(duration()),
        timeout in option::of(duration()),
        backoff in option::of(1.0..9.0_f64),
        rule in option::of(select(vec!["all_done", "one_failed", "always"])),
        pool in option::of("[a-z0-9_-]{1,9}"),
        labels in option::of(vec(("[a-z]{1,5}", "[a-z0-9 .:]{1,9}"), 0..3)),
        description in option::of(text()),
    ) -> (Map<String, Value>, Option<usize>) {
        let mut task = Map::new();
        task.insert("kind".to_owned(), json!("custom"));
        let with = if with.is_object() { with } else { json!({ "value": with }) };
        let parts = [
            ("with", Some(with)), ("description", description.map(Value::from)), ("retries", retries.map(Value::from)), ("retry_delay", delay), ("timeout", timeout),
            ("retry_backoff", backoff.map(Value::from)), ("trigger_rule", rule.map(Value::from)), ("pool", pool.map(Value::from)),
            ("executor", labels.map(|labels| json!({ "labels": labels.into_iter().collect::<std::collections::BTreeMap<_, _>>() }))),
        ];
        for (key, value) in parts {
            task.extend(value.map(|value| (key.to_owned(), value)));
        }
        (task, after)
    }
}

prop_compose! {
    fn document()(
        tasks in vec(task(), 1..8),
        owner in text(),
        description in text(),
        schedule in option::of(select(vec![
            json!({ "cron": "*/7 1-5 * * MON", "timezone": "Asia/Shanghai" }),
            json!({ "every": "90s", "catchup": true }),
            json!({ "cron": "@daily", "misfire": "skip" }),
        ])),
        param in option::of(prop_oneof![Just(json!(5)), Just(json!({ "enum": ["a", "b"], "default": "b" }))]),
        timeout in option::of(duration()),
        success in option::of(select(vec!["leaves", "all"])),
    ) -> Value {
        let mut map = Map::new();
        for (at, (mut task, after)) in tasks.into_iter().enumerate() {
            if let Some(after) = after.filter(|_| at > 0) {
                task.insert("after".to_owned(), json!([format!("t{}", after % at)]));
            }
            map.insert(format!("t{at}"), Value::Object(task));
        }
        let mut document = json!({ "workflow": "w", "owner": owner, "description": description, "tasks": map });
        for (key, value) in [("schedule", schedule), ("params", param.map(|param| json!({ "p": param }))), ("timeout", timeout), ("success", success.map(Value::from))] {
            if let Some(value) = value {
                document[key] = value;
            }
        }
        document
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_read_or_refused(bytes in vec(any::<u8>(), 0..300)) {
        check(&String::from_utf8_lossy(&bytes))?;
    }

    #[test]
    fn any_sequence_of_tokens_is_read_or_refused(tokens in vec(token(), 0..40)) {
        check(&tokens.concat())?;
    }

    #[test]
    fn damaged_documents_are_read_or_refused(
        of in 0..3_usize, at in any::<prop::sample::Index>(), len in 0..30_usize, by in vec(token(), 0..3),
    ) {
        let documents = accepted();
        let chars: Vec<char> = documents[of % documents.len()].chars().collect();
        let start = at.index(chars.len());
        let end = (start + len).min(chars.len());
        let damaged = chars[..start].iter().collect::<String>() + &by.concat() + &chars[end..].iter().collect::<String>();
        check(&damaged)?;
    }

    #[test]
    fn accepted_documents_survive_writing(document in document()) {
        let text = serde_json::to_string(&document).unwrap();
        match parse(&text) {
            Ok(workflow) => survives(&workflow)?,
            Err(rejected) => {
                // Random text can look like a template; nothing else may be wrong.
                let is_template = text.contains("{{") || text.contains("{%") || text.contains("{# ");
                prop_assert!(is_template, "{}\n{}", text, rejected);
            }
        }
    }
}

#[test]
fn documents_of_people_survive_writing() {
    for text in accepted() {
        survives(&parse(&text).unwrap()).unwrap();
    }
}

use serde_json::json;

use super::*;
use crate::{id::RunId, interval::DataInterval, time::Timestamp};

fn variables() -> Variables {
    let start = Timestamp::parse("2026-01-30T18:30:00Z").unwrap();
    let end = Timestamp::parse("2026-01-31T18:30:00Z").unwrap();
    let run = RunId::new(start, 7);
    let object = |value: Value| value.as_object().cloned().unwrap();
    Variables::new(run, "nightly".parse().unwrap(), "report".parse().unwrap(), 2, DataInterval { start, end })
        .with_timezone(chrono_tz::Asia::Shanghai)
        .with_params(object(json!({
            "region": "north", "n": 5, "ratio": 2.675, "whole": 3.0, "flag": true, "none": null,
            "list": ["a", 1, false], "spaced": "  x y ", "sql": "it's", "empty": "",
        })))
        .with_values(
            "orders".parse().unwrap(),
            object(json!({ "rows": 1200, "files": { "first": "a.csv" } })),
        )
        .with_values("task-name".parse().unwrap(), object(json!({ "key": "v" })))
}

fn rendered(text: &str) -> String {
    match render_value(&json!(text), &variables()) {
        Ok(Value::String(text)) => text,
        other => panic!("{text} gave {other:?}"),
    }
}

fn refused_as(text: &str) -> TemplateError {
    match Template::check(text) {
        Err(error) => error,
        Ok(refs) => panic!("{text} was accepted with {refs:?}"),
    }
}

fn fails_as(text: &str) -> String {
    match render_value(&json!({ "env": { "A": [text] } }), &variables()) {
        Err(error) => {
            assert_eq!(error.path, "env.A[0]");
            error.source.message
        }
        Ok(value) => panic!("{text} gave {value}"),
    }
}

#[test]
fn names_have_the_values_of_the_attempt() {
    for (text, expected) in [
        ("{{ ds }}", "2026-01-31"),
        ("{{ds_nodash}}", "20260131"),
        ("{{ ts }}", "2026-01-30T18:30:00Z"),
        ("{{ ts_nodash }}", "20260130T183000"),
        ("{{ logical_date }}", "2026-01-30T18:30:00Z"),
        ("{{ data_interval_start }}/{{ data_interval_end }}", "2026-01-30T18:30:00Z/2026-01-31T18:30:00Z"),
        ("{{ workflow }}.{{ task }}.{{ attempt }}", "nightly.report.2"),
        ("{{ params.region }}-{{ params['n'] }}", "north-5"),
        ("{{ params.flag }} {{ params.whole }} {{ params.list }}", "true 3.0 [\"a\",1,false]"),
        ("{{ values.orders.rows }}", "1200"),
        ("{{ values['task-name'].key }}", "v"),
        ("{{ values.orders.files.first }}", "a.csv"),
        ("{{ params.list[1] }}", "1"),
        ("a{{ params.empty }}b", "ab"),
        ("{{ '{{' }} {{ \"}}\" }} {{ 'it\\'s' }} {{ 'ü' }}", "{{ }} it's ü"),
        ("{{ 1 }}{{ -2 }}{{ 1.5 }}{{ true }}", "1-21.5true"),
    ] {
        assert_eq!(rendered(text), expected, "{text}");
    }
}

#[test]
fn filters_do_what_their_names_say() {
    for (text, expected) in [
        ("{{ params.missing | default('x') }}", "x"),
        ("{{ params.none | default('x') }}", "x"),
        ("{{ params.region | default('x') }}", "north"),
        ("{{ params.region | upper | lower | upper }}", "NORTH"),
        ("{{ params.spaced | trim }}", "x y"),
        ("{{ params.region | replace('th', 'd') }}", "nord"),
        ("{{ params.list | join(', ') }}", "a, 1, false"),
        ("{{ params.list | join }}", "a1false"),
        ("{{ params.list | length }}{{ params.region | length }}", "35"),
        ("{{ params.list | first }}{{ params.list | last }}{{ params.region | first }}", "afalsen"),
        ("{{ params.ratio | int }} {{ '7' | int }} {{ params.flag | int }}", "2 7 1"),
        ("{{ params.n | float }}", "5.0"),
        ("{{ params.n | string | length }}", "1"),
        ("{{ params.ratio | round(1) }} {{ params.ratio | round | int }} {{ params.n | round }}", "2.7 3 5"),
        ("{{ -5 | abs }}", "5"),
        ("{{ params.list | tojson }} {{ params.region | tojson }}", "[\"a\",1,false] \"north\""),
        (
            "{{ ds | ds_add(-31) }} {{ ds_nodash | ds_add(1) }} {{ ts | ds_add(1) }}",
            "2025-12-31 20260201 2026-01-31",
        ),
        ("{{ ds | ds_nodash }} {{ ts | ds_nodash }}", "20260131 20260130"),
        ("{{ ds | date_format('%Y/%m/%d') }} {{ ts | date_format('%H:%M %z') }}", "2026/01/31 18:30 +0000"),
        (
            "{{ params.sql | quote }} {{ params.region | quote }} {{ params.empty | quote }}",
            "'it'\"'\"'s' north ''",
        ),
    ] {
        assert_eq!(rendered(text), expected, "{text}");
    }
}

#[test]
fn what_is_not_there_is_an_error_and_not_an_empty_text() {
    assert_eq!(fails_as("{{ params.missing }}"), "`params.missing` has no value");
    assert_eq!(fails_as("{{ params.missing | upper }}"), "`params.missing` has no value");
    assert_eq!(fails_as("{{ values.other.key }}"), "`values.other.key` has no value");
    assert_eq!(fails_as("{{ params.none }}"), "`params.none` has no value");
    assert_eq!(fails_as("{{ params.region.inner.more }}"), "`params.region.inner.more` has no value");
    assert_eq!(
        fails_as("{{ params.region | ds_add(1) }}"),
        "a date such as 2026-01-31 or an RFC 3339 time is needed"
    );
    assert_eq!(
        fails_as("{{ ds | date_format('%q%') }}"),
        "the filter `date_format` needs a format such as '%Y/%m/%d'"
    );
    assert_eq!(fails_as("{{ params.region | int }}"), "`int` needs a number");
    assert_eq!(fails_as("{{ params.region | join }}"), "`join` needs a list");
    let far = format!("{{{{ ds {}}}}}", "| ds_add(365000) ".repeat(9));
    assert_eq!(fails_as(&far), "the date is out of range");
}

#[test]
fn text_without_expressions_stays_as_it_is() {
    for text in ["", "plain", "${#array[@]} ${v%%.*}", "awk '{print $1}'", "{ {x} }", "}}", "{%", "{# no end"]
    {
        assert_eq!(Template::check(text), Ok(Refs::default()), "{text}");
        assert_eq!(rendered(text), text);
    }
    assert_eq!(render_value(&json!([1, null, true]), &variables()), Ok(json!([1, null, true])));
    assert_eq!(rendered("${#a} {{ ds }} {%"), "${#a} 2026-01-31 {%");
}

#[test]
fn rendered_text_is_not_rendered_again() {
    let mut variables = variables();
    variables.params.insert("region".to_owned(), json!("{{ run_id }}"));
    assert_eq!(render_value(&json!("{{ params.region }}"), &variables), Ok(json!("{{ run_id }}")));
}

#[test]
fn mentions_are_listed_with_their_place() {
    let text = "a {{ values['task-name'].key | upper }} {{ params.region }} {{ ds }}";
    let refs = Template::check(text).unwrap();
    let shown: Vec<_> = refs.names.iter().map(|name| (name.path.join("/"), &text[name.at.clone()])).collect();
    assert_eq!(
        shown,
        [
            ("values/task-name/key".to_owned(), "values['task-name'].key"),
            ("params/region".to_owned(), "params.region"),
            ("ds".to_owned(), "ds"),
        ]
    );
    assert_eq!(refs.values().map(|(task, _)| task).collect::<Vec<_>>(), ["task-name"]);
    assert_eq!(refs.params().map(|(name, _)| name).collect::<Vec<_>>(), ["region"]);
}

#[test]
fn bombs_are_refused_when_they_are_read() {
    let doubling = format!(
        "{{% set ns = namespace(x='aaaaaaaaaaaaaaaa') %}}{}{{{{ ns.x }}}}",
        "{% set ns.x = ns.x ~ ns.x %}".repeat(24)
    );
    let many_filters = format!("{{{{ ds {}}}}}", "| upper ".repeat(17));
    for (text, message) in [
        (doubling.as_str(), "statements are not supported in templates, only `{{ ... }}`"),
        ("{{ 'x' | indent(300000000) }}", "`indent` is not a known filter"),
        ("{{ 'x' * 1000000000 }}", "the operator `*` is not supported"),
        ("{{ ds ~ ds }}", "the operator `~` is not supported"),
        (
            "{%- for i in range(1000000000) %}x{% endfor %}",
            "statements are not supported in templates, only `{{ ... }}`",
        ),
        (
            "{% macro m() %}{{ m() }}{% endmacro %}",
            "statements are not supported in templates, only `{{ ... }}`",
        ),
        ("{{ range(1000000000) }}", "`range` is not a known name"),
        ("{{ namespace() }}", "`namespace` is not a known name"),
        ("{{ params.region.upper() }}", "calls are not supported"),
        ("{{ [ds, ds] }}", "lists and maps are not supported"),
        ("{{ {'a': 1} }}", "lists and maps are not supported"),
        ("{{ ds if ds else ts }}", "a name, a constant, `|` or `}}` is expected here"),
        ("{{ (ds) }}", "calls are not supported"),
        ("{{ params[ds] }}", "only constants are allowed here"),
        ("{# \n comment #}{# x #}", "comments are not supported in templates"),
        (many_filters.as_str(), "an expression has at most 16 filters"),
        ("{{ params.a | round(300000000) }}", "the filter `round` needs a number of places between 0 and 17"),
        ("{{ ds | ds_add(9223372036854775807) }}", "the filter `ds_add` needs a whole number of days"),
        ("{{ ds | replace('', 'x') }}", "the filter `replace` needs a text that is not empty"),
    ] {
        let error = refused_as(text);
        assert_eq!(error.message, message, "{text}");
    }
}

#[test]
fn every_step_of_an_expression_is_bounded() {
    let mut variables = variables();
    variables.params.insert("big".to_owned(), json!("a".repeat(60_000)));
    variables.params.insert("many".to_owned(), json!(vec!["aaaa"; 10_000]));
    let too_large = too_large();
    for text in [
        // Each of these would pass through megabytes or more, although what they give in the end is short.
        "{{ params.big | replace('a', 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa') | length }}",
        "{{ params.many | join('----------------------------------------------') | length }}",
        "{{ params.big | quote | replace('a', 'bb') | replace('b', 'cc') | length }}",
        "{{ params.big }}{{ params.big }}",
    ] {
        let error = render_value(&json!(text), &variables).unwrap_err();
        assert_eq!(error.source.message, too_large, "{text}");
    }
    let steps: Vec<_> = (0..6_000).map(|_| "{{ ds | upper }}").collect();
    let error = render_value(&json!(steps), &variables).unwrap_err();
    assert!(error.source.message.contains("steps"), "{error:?}");
}

#[test]
fn mistakes_are_explained_where_they_are() {
    for (text, at, message, hint) in [
        ("x {{ dss }}", "dss", "`dss` is not a known name", Some("did you mean `ds`?")),
        (
            "{{ execution_date }}",
            "execution_date",
            "`execution_date` is not a known name",
            Some("did you mean `logical_date`?"),
        ),
        (
            "{{ yesterday_ds }}",
            "yesterday_ds",
            "`yesterday_ds` is not a known name",
            Some("write `ds | ds_add(-1)`"),
        ),
        ("{{ ds | uper }}", "uper", "`uper` is not a known filter", Some("did you mean `upper`?")),
        ("a {{ ds", "{{", "this `{{` is not closed", Some("to write `{{` itself, use `{{ '{{' }}`")),
        ("{{ ds | replace('a') }}", "replace", "the filter `replace` takes 2 constants, not 1", None),
        (
            "{{ values.a }}",
            "values.a",
            "`values` needs a task and a key",
            Some("write `values.<task>.<key>`"),
        ),
        (
            "{{ values.a-b.c }}",
            "values.a",
            "`values` needs a task and a key",
            Some("write `values.<task>.<key>`"),
        ),
        ("{{ ds | default(ts) }}", "ts", "only constants are allowed here", None),
        ("{{ 'abc }}", "'", "this quote is not closed", None),
        ("{{- ds }}", "-", "`{{-` is not supported, write `{{`", None),
        (
            "{{ ds -}}",
            "-",
            "the operator `-` is not supported",
            Some("a key with `-` is written as values['task-name'].key"),
        ),
        ("{{ .Names }}", ".", "'.' is not expected here", Some("to write `{{` itself, use `{{ '{{' }}`")),
        ("{{ }}", "}", "the expression ends too early", None),
        (
            "{{ params. }}",
            "",
            "a key is missing after `.`",
            Some("a key that is not a plain word is written as ['key']"),
        ),
    ] {
        let error = refused_as(text);
        assert_eq!(error.message, message, "{text}");
        assert_eq!(&text[error.at.clone()], at, "{text}: {error:?}");
        assert_eq!(error.hint.as_deref(), hint, "{text}");
    }
}

#[test]
fn variables_travel_as_json() {
    let variables = variables();
    let text = serde_json::to_string(&variables).unwrap();
    assert_eq!(serde_json::from_str::<Variables>(&text).unwrap(), variables);
}

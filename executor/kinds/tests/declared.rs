//! Kinds that a configuration declares, from its text to the values of a real process.

#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod launched;

use std::{collections::BTreeMap, path::Path};

use launched::{launch, start};
use millrace_common::id::KindName;
use millrace_kinds::{
    LaunchError, Registry,
    declared::{Declaration, DeclarationError},
    report::read_values,
};
use serde_json::{Value, json};

/// A kind that hands its parameters back as its values.
const ECHO: &str = r#"
[echo]
argv = ["/bin/sh", "-c", 'cat > "$MILLRACE_VALUES"; printf "%s" "$SITE"; pwd']
description = "Hands its parameters back."
env = { SITE = "plant-1 " }
cwd = "/usr"
skip_exit_codes = [75]

[echo.parameters]
type = "object"
additionalProperties = false
required = ["table"]

[echo.parameters.properties]
table = { type = "string", minLength = 1 }
rows = { type = "array", items = { type = "object", properties = { size = { type = "integer", maximum = 10 } } } }
"#;

fn declarations(text: &str) -> BTreeMap<KindName, Declaration> {
    toml::from_str(text).unwrap()
}

fn registry(text: &str) -> Registry {
    let mut registry = Registry::builtin();
    registry.declare(declarations(text)).unwrap();
    registry
}

fn refused(text: &str) -> Vec<DeclarationError> {
    Registry::builtin().declare(declarations(text)).unwrap_err().0
}

#[test]
fn parameters_go_in_as_json_and_values_come_out() {
    let folder = tempfile::tempdir().unwrap();
    let registry = registry(ECHO);
    let with = json!({ "table": "a\"b'; $(id)", "rows": [{ "size": 3 }] });
    let launch = launch(registry.get("echo").unwrap(), &with, folder.path()).unwrap();
    let output = start(&launch, folder.path());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "plant-1 /usr\n");
    assert_eq!(Value::Object(read_values(&folder.path().join("values")).unwrap()), with);
    assert_eq!((launch.exit.success, launch.exit.skip), (vec![0], vec![75]));
}

#[test]
fn every_misfit_is_listed_with_its_path() {
    let registry = registry(ECHO);
    let with = json!({ "table": "", "rows": [{ "size": 1 }, { "size": 99 }], "more": 1 });
    let error = launch(registry.get("echo").unwrap(), &with, Path::new("/nowhere")).unwrap_err();
    let text = error.to_string();
    let LaunchError::Misfits { kind, misfits } = error else { panic!("{error:?}") };
    let mut paths: Vec<_> = misfits.0.iter().map(|misfit| misfit.path.as_str()).collect();
    paths.sort_unstable();
    assert_eq!((kind.as_str(), paths), ("echo", vec!["", "rows[1].size", "table"]));
    assert!(
        text.contains("`rows[1].size` 99 is greater than the maximum of 10") && text.contains("more"),
        "{text}"
    );
}

#[test]
fn no_parameters_are_an_empty_object() {
    let registry = registry("[touch]\nargv = [\"/bin/true\"]");
    let kind = registry.get("touch").unwrap();
    assert_eq!(launch(kind, &Value::Null, Path::new("/nowhere")).unwrap().stdin, b"{}");
    assert!(launch(kind, &json!([1]), Path::new("/nowhere")).is_err());
}

#[test]
fn a_broken_schema_is_found_when_the_configuration_is_read() {
    for schema in [
        r#"{ type = "objekt" }"#,
        r#"{ properties = { a = { minimum = "1" } } }"#,
        r#"{ properties = { a = { pattern = "(" } } }"#,
    ] {
        let errors = refused(&format!("[k]\nargv = [\"/bin/true\"]\nparameters = {schema}"));
        assert!(
            matches!(&errors[..], [DeclarationError::Schema { kind, .. }] if kind.as_str() == "k"),
            "{errors:?}"
        );
    }
    let text = refused("[k]\nargv = [\"x\"]\nparameters = { properties = { a = { minimum = \"1\" } } }")[0]
        .to_string();
    assert!(text.contains("properties.a.minimum"), "{text}");
}

#[test]
fn a_schema_is_never_fetched() {
    for reference in ["https://127.0.0.1:1/schema.json", "file:///etc/hostname"] {
        let errors = refused(&format!("[k]\nargv = [\"x\"]\nparameters = {{ \"$ref\" = \"{reference}\" }}"));
        assert!(matches!(&errors[..], [DeclarationError::Schema { .. }]), "{errors:?}");
    }
}

#[test]
fn all_that_is_wrong_with_all_declarations_comes_at_once() {
    let text = r#"
        [shell]
        argv = ["/bin/true"]
        [a]
        argv = []
        cwd = "here"
        env = { MILLRACE_X = "1" }
        skip_exit_codes = [0]
        [b]
        argv = ["/bin/true"]
        parameters = { type = 1 }
        [good]
        argv = ["/bin/true"]
    "#;
    let mut registry = Registry::builtin();
    let error = registry.declare(declarations(text)).unwrap_err();
    let kinds = error.0.iter().map(|error| match error {
        DeclarationError::BuiltIn(kind) => format!("{kind} is built in"),
        DeclarationError::Misfits { kind, misfits } => format!("{kind} has {}", misfits.0.len()),
        DeclarationError::Schema { kind, .. } => format!("{kind} has a schema"),
    });
    assert_eq!(kinds.collect::<Vec<_>>(), ["a has 4", "b has a schema", "shell is built in"]);
    assert!(error.to_string().contains("`argv` names no program"), "{error}");
    assert!(registry.get("good").is_err(), "a half-read configuration must not be used");
}

#[test]
fn unknown_keys_are_refused() {
    let error = toml::from_str::<BTreeMap<KindName, Declaration>>("[k]\nargv = [\"x\"]\ncommand = \"y\"")
        .unwrap_err();
    assert!(error.to_string().contains("command"), "{error}");
}

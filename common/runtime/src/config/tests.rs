use std::time::Duration;

use serde::Deserialize;

use super::*;

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    name: String,
    slots: u32,
    masters: Vec<String>,
    output: Output,
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Output {
    #[serde(with = "duration_text")]
    interval: Duration,
    #[serde(with = "size_text")]
    cap: u64,
    #[serde(with = "optional_duration_text")]
    rest: Option<Duration>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { name: "here".into(), slots: 8, masters: Vec::new(), output: Output::default() }
    }
}

impl Default for Output {
    fn default() -> Self {
        Self { interval: Duration::from_secs(1), cap: 1 << 20, rest: None }
    }
}

const PREFIX: &str = "MILLRACE_EXECUTOR_";

fn load_text(
    text: &str,
    variables: &[(&str, &str)],
    flags: &[(&str, String)],
) -> Result<Settings, ConfigError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("executor.toml");
    fs::write(&path, text).unwrap();
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load_from(Some(&path), PREFIX, variables, flags)
}

#[test]
fn flags_win_over_the_environment_and_that_over_the_file() {
    let file = "name = 'file'\nslots = 1\n[output]\ninterval = '5s'\ncap = '2KiB'\nrest = '1m'\n";
    let variables = [
        ("MILLRACE_EXECUTOR_SLOTS", "2"),
        ("MILLRACE_EXECUTOR_OUTPUT__INTERVAL", "7s"),
        ("MILLRACE_LOG", "debug"),
        ("OTHER", "x"),
    ];
    let settings =
        load_text(file, &variables, &[("slots", "3".into()), ("masters", r#"["a", "b"]"#.into())]).unwrap();
    let output = Output { interval: Duration::from_secs(7), cap: 2048, rest: Some(Duration::from_secs(60)) };
    let masters = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(settings, Settings { name: "file".into(), slots: 3, masters, output });
}

#[test]
fn an_absent_file_gives_the_defaults() {
    let settings: Settings = load_from(None, PREFIX, std::iter::empty(), &[]).unwrap();
    assert_eq!(settings, Settings::default());
}

#[test]
fn an_unknown_key_is_refused_with_path_and_file() {
    let text = load_text("[output]\nintervall = '5s'\n", &[], &[]).unwrap_err().to_string();
    assert!(text.contains("executor.toml") && text.contains("output.intervall"), "{text}");
    assert!(text.contains("unknown field") && text.contains("interval"), "{text}");
}

#[test]
fn an_unknown_key_of_the_environment_names_the_variable() {
    let text = load_text("", &[("MILLRACE_EXECUTOR_OUTPUT__CAPP", "1B")], &[]).unwrap_err().to_string();
    assert!(text.starts_with("environment variable MILLRACE_EXECUTOR_OUTPUT__CAPP"), "{text}");
}

#[test]
fn a_wrong_value_names_its_key_and_layer() {
    let text = load_text("", &[], &[("output.interval", "5".into())]).unwrap_err().to_string();
    assert!(text.starts_with("flag for output.interval: `output.interval`"), "{text}");
    let text = load_text("[output]\ninterval = '5'\n", &[], &[]).unwrap_err().to_string();
    assert!(text.contains("needs a unit") && text.contains("executor.toml"), "{text}");
}

#[test]
fn nothing_stands_below_a_value() {
    let text = load_text("slots = 1", &[("MILLRACE_EXECUTOR_SLOTS__MAX", "1")], &[]).unwrap_err().to_string();
    assert!(text.contains("`slots` holds a value"), "{text}");
}

#[test]
fn broken_syntax_names_the_file_and_the_line() {
    let error = load_text("name = \n", &[], &[]).unwrap_err();
    let text = crate::Chain(&error).to_string();
    assert!(text.contains("executor.toml") && text.contains("line 1"), "{text}");
}

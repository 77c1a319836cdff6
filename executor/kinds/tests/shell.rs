//! The `shell` kind, with real processes.

#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]

mod launched;

use std::{os::unix::fs::PermissionsExt as _, path::Path};

use launched::{launch, start};
use millrace_kinds::{LaunchError, launch::ExitCodes, shell::Shell};
use serde_json::{Value, json};

fn output(with: &Value) -> (String, Option<i32>) {
    let folder = tempfile::tempdir().unwrap();
    let launch = launch(&Shell, with, folder.path()).unwrap();
    let output = start(&launch, folder.path());
    (String::from_utf8(output.stdout).unwrap(), output.status.code())
}

fn misfits(with: &Value) -> Vec<String> {
    match launch(&Shell, with, Path::new("/nowhere")).unwrap_err() {
        LaunchError::Misfits { misfits, .. } => misfits.0.into_iter().map(|misfit| misfit.path).collect(),
        LaunchError::With { path, .. } => vec![path],
        other => panic!("{other:?}"),
    }
}

#[test]
fn arguments_arrive_as_they_were_written() {
    let with = json!({ "command": ["/usr/bin/printf", "<%s>", "a b", "$(id)", "*", ";", "'\"\\", "", "表"] });
    assert_eq!(output(&with), ("<a b><$(id)><*><;><'\"\\><><表>".into(), Some(0)));
}

#[test]
fn the_environment_is_what_the_task_names() {
    let (text, _) =
        output(&json!({ "command": ["/usr/bin/env"], "env": { "A": "1 $B\n2", "LD_LIBRARY_PATH": "/x" } }));
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with("MILLRACE_VALUES=")).collect();
    assert_eq!(lines, ["A=1 $B", "2", "LD_LIBRARY_PATH=/x"]);
}

#[test]
fn a_script_stops_at_its_first_failure() {
    let (text, code) = output(&json!({ "script": "echo one\nfalse\necho two" }));
    assert_eq!((text.as_str(), code), ("one\n", Some(1)));
    let (_, code) = output(&json!({ "script": "echo $NOT_SET" }));
    assert_ne!(code, Some(0));
}

#[test]
fn a_script_reaches_its_interpreter_unchanged() {
    let script = "#!x\n\t$(id) `id` \\ 'q' \"q\" 表\r\n";
    assert_eq!(
        output(&json!({ "script": script, "interpreter": ["/bin/cat", "--"] })),
        (script.into(), Some(0))
    );
}

#[test]
fn a_script_is_private_and_out_of_the_way() {
    let folder = tempfile::tempdir().unwrap();
    let launch = launch(&Shell, &json!({ "script": "ls" }), folder.path()).unwrap();
    let file = Path::new(launch.argv.last().unwrap());
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(file.parent(), Some(folder.path()));
    assert_eq!(start(&launch, folder.path()).stdout, b"");
}

#[test]
fn a_script_never_takes_over_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let with = json!({ "script": "true" });
    launch(&Shell, &with, folder.path()).unwrap();
    assert!(matches!(launch(&Shell, &with, folder.path()), Err(LaunchError::Prepare(_))));
}

#[test]
fn values_of_a_task_are_no_text_of_its_script() {
    let with =
        json!({ "script": "printf '%s' \"$DAY\"", "env": { "DAY": "x\"; echo owned; $(echo owned)" } });
    assert_eq!(output(&with).0, "x\"; echo owned; $(echo owned)");
}

#[test]
fn standard_input_and_folder_are_the_tasks_own() {
    let with = json!({ "command": ["/bin/sh", "-c", "pwd; cat"], "stdin": "a\nb", "cwd": "/usr" });
    assert_eq!(output(&with).0, "/usr\na\nb");
    assert_eq!(output(&json!({ "command": ["/bin/cat"] })).0, "");
}

#[test]
fn exit_codes_mean_what_the_task_says() {
    let folder = tempfile::tempdir().unwrap();
    let with = json!({ "command": ["x"], "success_exit_codes": [0, 3], "skip_exit_codes": [99] });
    let exit = launch(&Shell, &with, folder.path()).unwrap().exit;
    assert_eq!(exit, ExitCodes { success: vec![0, 3], skip: vec![99] });
    let exit = launch(&Shell, &json!({ "command": ["x"] }), folder.path()).unwrap().exit;
    assert_eq!(exit, ExitCodes { success: vec![0], skip: vec![] });
}

#[test]
fn bad_parameters_are_named_by_their_paths() {
    for (with, paths) in [
        (json!(null), vec![""]),
        (json!({}), vec!["command"]),
        (json!({ "command": [] }), vec!["command"]),
        (json!({ "command": [""] }), vec!["command"]),
        (json!({ "command": ["a", "b\0"] }), vec!["command[1]"]),
        (json!({ "command": ["a", 1] }), vec!["command[1]"]),
        (json!({ "command": "ls -l" }), vec!["command"]),
        (json!({ "command": ["a"], "script": "b" }), vec!["script"]),
        (json!({ "command": ["a"], "interpreter": ["b"] }), vec!["interpreter"]),
        (json!({ "script": "a\0" }), vec!["script"]),
        (json!({ "script": "a", "interpreter": [] }), vec!["interpreter"]),
        (json!({ "command": ["a"], "cwd": "here" }), vec!["cwd"]),
        (json!({ "command": ["a"], "env": { "MILLRACE_VALUES": "x" } }), vec!["env.MILLRACE_VALUES"]),
        (
            json!({ "command": ["a"], "env": { "1A": "x", "A": "\0", "B=": "" } }),
            vec!["env.1A", "env.A", "env.B="],
        ),
        (json!({ "command": ["a"], "success_exit_codes": [] }), vec!["success_exit_codes"]),
        (
            json!({ "command": ["a"], "skip_exit_codes": [0, 300] }),
            vec!["skip_exit_codes", "skip_exit_codes"],
        ),
        (json!({ "command": ["x".repeat(131_072)] }), vec!["command[0]"]),
    ] {
        assert_eq!(misfits(&with), paths, "{with}");
    }
}

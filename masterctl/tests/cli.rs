//! The program as a person meets it without a master: help, problems of definitions, failures and their exit codes.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    fs,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output, Stdio},
};

const BAD: &str = "workflow: bad\nowner: 王芳\nshedule: { cron: '61 * * * *' }\ntasks:\n  a: { kind: shel, with: { comand: [x] } }\n  b: { kind: shell, after: [c], with: { command: [x] } }\n";
const GOOD: &str = "workflow: good\ntasks:\n  a: { kind: shell, with: { command: [x] } }\n  b: { kind: shell, after: a, with: { command: [x] } }\n";
const ATTEMPT: &str = "01a1fe10-9f1a-7000-bee7-c0d5dcd6e292.0.1";
const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789abcdef";

fn masterctl(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_masterctl"));
    command
        .current_dir(folder)
        .env_remove("MILLRACE_MASTER")
        .env_remove("MILLRACE_TOKEN_FILE")
        .stdin(Stdio::null());
    command
}

fn run(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    said(&masterctl(folder).args(arguments).output().unwrap())
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("bad.yaml"), BAD).unwrap();
    fs::write(folder.path().join("good.yaml"), GOOD).unwrap();
    let token = folder.path().join("token");
    fs::write(&token, TOKEN).unwrap();
    fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
    folder
}

#[test]
fn the_help_names_every_command_and_every_exit_code() {
    let folder = folder();
    let (code, text, problems) = run(folder.path(), &["--help"]);
    assert_eq!((code, problems.as_str()), (Some(0), ""));
    let commands = [
        "validate",
        "apply",
        "run",
        "list",
        "show",
        "logs",
        "cancel",
        "pause",
        "resume",
        "retry",
        "explain",
        "graph",
        "executor",
        "attempt",
        "cluster",
        "schema",
        "completion",
    ];
    for command in commands {
        assert!(text.lines().any(|line| line.trim_start().starts_with(command)), "{command} in {text}");
        let (code, text, _) = run(folder.path(), &[command, "--help"]);
        assert_eq!(code, Some(0), "{command}");
        assert!(text.contains("Usage: masterctl"), "{command}: {text}");
    }
    assert!(text.contains("\nExit codes:\n  0    done\n"), "{text}");
}

#[test]
fn problems_are_shown_in_the_text_with_what_to_do() {
    let folder = folder();
    let (code, text, problems) = run(folder.path(), &["validate", "bad.yaml", "good.yaml"]);
    assert_eq!((code, text.as_str()), (Some(1), ""));
    for part in [
        "  × unknown key `shedule`\n   ╭─[bad.yaml:3:1]\n 2 │ owner: 王芳\n 3 │ shedule: { cron: '61 * * * *' }\n   · ───┬───\n   ·    ╰── here\n",
        "  help: did you mean `schedule`?",
        "  help: did you mean `shell`?",
        "there is no task `c`",
    ] {
        assert!(problems.contains(part), "{part} in {problems}");
    }
    assert!(!problems.contains('\u{1b}'), "no colours where there is no terminal");
}

#[test]
fn programs_get_problems_on_standard_output() {
    let folder = folder();
    for command in ["validate", "apply"] {
        let (code, text, problems) = run(folder.path(), &[command, "bad.yaml", "-o", "json"]);
        assert_eq!((code, problems.as_str()), (Some(1), ""), "{command}");
        for part in [r#""valid": []"#, r#""line": 3"#, r#""hint": "did you mean `schedule`?""#] {
            assert!(text.contains(part), "{command}: {part} in {text}");
        }
    }
}

#[test]
fn definitions_come_from_files_folders_and_standard_input() {
    let folder = folder();
    fs::create_dir(folder.path().join("below")).unwrap();
    fs::rename(folder.path().join("good.yaml"), folder.path().join("below/good.yaml")).unwrap();
    fs::write(folder.path().join("below/notes.txt"), "no definition").unwrap();
    let (code, text, _) = run(folder.path(), &["validate", "below"]);
    assert_eq!((code, text.as_str()), (Some(0), "below/good.yaml: valid\n"));
    let mut child = masterctl(folder.path())
        .args(["validate", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(GOOD.as_bytes()).unwrap();
    let (code, text, _) = said(&child.wait_with_output().unwrap());
    assert_eq!((code, text.as_str()), (Some(0), "<stdin>: valid\n"));
    let (code, _, problems) = run(folder.path(), &["validate", "absent.yaml"]);
    assert_eq!(code, Some(2));
    assert!(problems.starts_with("error: cannot read absent.yaml: "), "{problems}");
}

#[test]
fn a_workflow_that_two_files_define_is_refused() {
    let folder = folder();
    fs::write(folder.path().join("twin.yaml"), GOOD).unwrap();
    let (code, _, problems) = run(folder.path(), &["validate", "good.yaml", "twin.yaml"]);
    assert_eq!(code, Some(1));
    assert!(problems.contains("workflow good is defined twice: in good.yaml and in twin.yaml"), "{problems}");
}

#[test]
fn a_file_is_drawn_without_a_master() {
    let folder = folder();
    assert_eq!(run(folder.path(), &["graph", "good.yaml"]).1, "● a\n● b\n");
    assert!(run(folder.path(), &["graph", "good.yaml", "--format", "dot"]).1.contains("\"a\" -> \"b\";"));
    assert!(run(folder.path(), &["graph", "good.yaml", "--format", "svg"]).1.starts_with("<svg "));
    assert!(run(folder.path(), &["graph", "good.yaml", "-o", "yaml"]).1.contains("upstream"));
}

#[test]
fn every_failure_says_what_to_do_and_has_its_code() {
    let folder = folder();
    let run_id = "01a1fe10-9f1a-7000-bee7-c0d5dcd6e292";
    for (arguments, code, words) in [
        (&["--master", "http://127.0.0.1:1", "list"][..], 3, "name another with --master"),
        (&["--master", "127.0.0.1:7070", "list"], 2, "not an address such as http://127.0.0.1:7070"),
        (&["--master", "https://127.0.0.1:7070", "list"], 2, "there is no TLS in this build, write http://"),
        (&["--token-file", "absent", "list"], 5, "name the master's token file with --token-file"),
        (&["cancel", "nightly"], 2, "`masterctl list runs --workflow nightly` shows ids"),
        (&["logs", "Übung", "a"], 2, "`masterctl list runs` shows ids"),
        (&["run", "w", "-p", "a"], 2, "\"a\" is not NAME=VALUE"),
        (&["run", "w", "-p", "a=1", "-p", "a=2"], 2, "parameter a is given twice"),
        (&["run", "w", "--logical-date", "yesterday"], 2, "neither a day such as 2026-01-31"),
        (&["show", "--master", "http://127.0.0.1:1", run_id], 3, "no master answers at http://127.0.0.1:1"),
        (&["list", "runs", "--state", "done"], 2, "queued, running, paused, success, failed, cancelled"),
        (&["executor", "cordon", "x1"], 2, "--reason"),
        (
            &["attempt", "confirm-lost", "a1", "--reason", "gone"],
            2,
            "`masterctl executor show NAME` prints those",
        ),
        (
            &["attempt", "confirm-lost", ATTEMPT, "--reason", "gone"],
            2,
            "repeat it with --yes if you are certain",
        ),
        (&["attempt", "confirm-lost", ATTEMPT, "--yes"], 2, "--reason"),
        (&["lsit"], 2, "list"),
    ] {
        let token = ["--token-file", "token"];
        let arguments = if arguments.contains(&"--token-file") {
            arguments.to_vec()
        } else {
            [arguments, &token].concat()
        };
        let (found, text, problems) = run(folder.path(), &arguments);
        assert_eq!((found, text.as_str()), (Some(code), ""), "{arguments:?}: {problems}");
        assert!(problems.starts_with("error: ") && problems.contains(words), "{arguments:?}: {problems}");
    }
}

#[test]
fn a_token_that_others_can_read_is_refused() {
    let folder = folder();
    fs::set_permissions(folder.path().join("token"), fs::Permissions::from_mode(0o644)).unwrap();
    let (code, _, problems) = run(folder.path(), &["list", "--token-file", "token"]);
    assert_eq!(code, Some(5));
    assert!(problems.contains("run `chmod 600 token`") && !problems.contains(TOKEN), "{problems}");
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let folder = folder();
    for arguments in ["schema", "completion bash"] {
        let script = format!(
            "{} {arguments} | head -c 1 > /dev/null; echo ${{PIPESTATUS[0]}}",
            env!("CARGO_BIN_EXE_masterctl")
        );
        let output = Command::new("bash").args(["-c", &script]).current_dir(folder.path()).output().unwrap();
        let (_, text, problems) = said(&output);
        assert_eq!((text.as_str(), problems.as_str()), ("0\n", ""), "{arguments}");
    }
}

#[test]
fn the_schema_is_json_and_a_shell_completes_commands() {
    let folder = folder();
    assert!(run(folder.path(), &["schema"]).1.starts_with("{\n"));
    assert!(run(folder.path(), &["schema", "-o", "yaml"]).1.contains("title: Millrace workflow"));
    for shell in ["bash", "zsh", "fish"] {
        assert!(run(folder.path(), &["completion", shell]).1.contains("explain"), "{shell}");
    }
}

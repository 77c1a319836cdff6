//! The command line at a person's terminal and in a program's pipe, against a real standalone Millrace.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader, Read as _},
    path::Path,
    process::{Command, Output, Stdio},
};

use millrace_tests::{Standalone, program, skip, wait_for};
use serde_json::Value;

const HELLO: &str = "workflow: hello\ndescription: 每晚的报表\nowner: 王芳\nparams: { who: { type: string, default: world }, n: 3 }\nschedule: { cron: \"30 2 * * *\", timezone: America/Chicago }\ntasks:\n  greet: { kind: shell, description: Grüßt, with: { script: 'echo \"你好 $WHO\"', env: { WHO: \"{{ params.who }}\" } } }\n  echo: { kind: shell, after: greet, with: { command: [echo, \"{{ ds }}\"] } }\n";
const SLEEPER: &str = "workflow: sleeper\ntasks:\n  nap: { kind: shell, kill_grace: 1s, with: { command: [sleep, \"300\"] } }\n";

fn started(folder: &tempfile::TempDir) -> Standalone {
    let mut millrace = Standalone::prepare(folder.path(), "", "slots = 8").unwrap();
    millrace.start().unwrap();
    millrace
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Returns exit code and what was said to the person.
fn failed(output: &Output) -> (Option<i32>, String) {
    assert_eq!(text(&output.stdout), "", "a failure prints nothing for programs");
    (output.status.code(), text(&output.stderr))
}

/// Runs a line of shell in which `masterctl` is the program.
fn shell(millrace: &Standalone, line: &str) -> Output {
    let script = format!("masterctl() {{ '{}' \"$@\"; }}; {line}", program("masterctl").unwrap().display());
    millrace.caller(Path::new("bash")).args(["-c", &script]).output().unwrap()
}

/// Runs `masterctl` in a terminal of so many columns and returns all that it wrote there.
fn in_terminal(millrace: &Standalone, columns: u16, arguments: &str) -> Option<String> {
    Command::new("script").arg("--version").output().ok()?;
    let line = format!("stty cols {columns}; exec '{}' {arguments}", program("masterctl").unwrap().display());
    let output = millrace.caller(Path::new("script")).args(["-qec", &line, "/dev/null"]).output().unwrap();
    Some(text(&output.stdout).replace("\r\n", "\n"))
}

#[test]
fn wrong_names_are_answered_with_right_ones() {
    let folder = tempfile::tempdir().unwrap();
    let millrace = started(&folder);
    millrace.apply("hello", HELLO).unwrap();
    for arguments in
        [&["run", "helo"][..], &["show", "helo"], &["graph", "helo"], &["run", "helo", "-p", "n=1"]]
    {
        let (code, problem) = failed(&millrace.masterctl(arguments).unwrap());
        assert_eq!(code, Some(4), "{arguments:?}");
        assert!(
            problem.contains("there is no workflow helo") && problem.contains("did you mean hello?"),
            "{problem}"
        );
    }
    let (code, problem) = failed(&millrace.masterctl(&["show", "quite-another"]).unwrap());
    assert_eq!(code, Some(4));
    assert!(problem.contains("`masterctl list` shows those that there are"), "{problem}");
    let (code, problem) = failed(&millrace.masterctl(&["run", "hello", "-p", "wo=x"]).unwrap());
    assert_eq!(code, Some(4));
    assert!(problem.contains("did you mean \"who\"?"), "{problem}");
    let run = millrace.run(&["hello"]).unwrap();
    let (code, problem) = failed(&millrace.masterctl(&["logs", &run, "nobody"]).unwrap());
    assert_eq!(code, Some(4));
    assert!(problem.contains("has no task \"nobody\""), "{problem}");
}

#[test]
fn what_a_run_is_given_is_read_as_the_workflow_declares_it() {
    let folder = tempfile::tempdir().unwrap();
    let millrace = started(&folder);
    millrace.apply("hello", HELLO).unwrap();
    let arguments = ["run", "hello", "-p", "who=7", "-p", "n=4", "--logical-date", "2026-01-31", "--wait"];
    let ended = millrace.json(&arguments).unwrap();
    assert_eq!(ended["run"]["params"], serde_json::json!({ "who": "7", "n": 4 }));
    assert_eq!(ended["run"]["data_interval"][0], "2026-01-31T06:00:00Z", "midnight in Chicago");
    let run = ended["run"]["run"].as_str().unwrap();
    assert_eq!(millrace.ctl(&["logs", run, "echo", "-f"]).unwrap(), "2026-01-31\n");
    assert_eq!(millrace.ctl(&["logs", run, "greet", "-f"]).unwrap(), "你好 7\n");
}

#[test]
fn an_interrupt_ends_the_waiting_and_not_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let millrace = started(&folder);
    millrace.apply("sleeper", SLEEPER).unwrap();
    let mut waiting = millrace
        .caller(&program("masterctl").unwrap())
        .args(["run", "sleeper", "--wait"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(waiting.stderr.take().unwrap());
    let mut first = String::new();
    said.read_line(&mut first).unwrap();
    let run =
        first.trim_end().strip_prefix("run ").and_then(|rest| rest.strip_suffix(" is started")).unwrap();
    // The first view of the run has come, so the interrupt finds somebody who waits.
    said.read_line(&mut String::new()).unwrap();
    millrace.task_reaches(run, "nap", "active").unwrap();
    Command::new("kill").args(["-INT", &waiting.id().to_string()]).status().unwrap();
    let status = waiting.wait().unwrap();
    let mut rest = String::new();
    said.read_to_string(&mut rest).unwrap();
    assert_eq!(status.code(), Some(130), "{rest}");
    assert!(rest.contains(&format!("`masterctl cancel {run}` ends it")), "{rest}");
    assert_eq!(millrace.state(run).unwrap(), "running");

    let mut follower = millrace
        .caller(&program("masterctl").unwrap())
        .args(["logs", run, "nap", "-f"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    Command::new("kill").args(["-INT", &follower.id().to_string()]).status().unwrap();
    assert!(!follower.wait().unwrap().success());
    assert_eq!(millrace.state(run).unwrap(), "running");

    let cancelled = millrace.masterctl(&["cancel", run]).unwrap();
    assert!(cancelled.status.success());
    assert_eq!(millrace.ended(run).unwrap()["run"]["state"], "cancelled");
}

#[test]
fn a_narrow_terminal_shows_whole_names() {
    let folder = tempfile::tempdir().unwrap();
    let millrace = started(&folder);
    millrace.apply("hello", HELLO).unwrap();
    let run = millrace.run(&["hello"]).unwrap();
    millrace.ended(&run).unwrap();
    let Some(shown) = in_terminal(&millrace, 60, "list runs") else {
        return skip("a_narrow_terminal_shows_whole_names", "script(1) is not installed");
    };
    assert!(shown.contains(&format!("{run}  hello")), "{shown}");
    assert!(shown.contains("no room for"), "{shown}");
    for arguments in ["list", "list runs", &format!("show {run}"), "executor list", "cluster status"] {
        let shown = in_terminal(&millrace, 60, arguments).unwrap();
        // The note about what was left out may be longer; the table is not.
        let long: Vec<&str> =
            shown.lines().filter(|line| !line.starts_with(['(', 'r']) && line.chars().count() > 60).collect();
        assert!(long.is_empty(), "{arguments}: {long:?}");
        assert!(!shown.contains('\u{1b}'), "{arguments} has colours in spite of NO_COLOR: {shown:?}");
    }
    let in_pipe = millrace.ctl(&["list", "runs"]).unwrap();
    assert!(in_pipe.contains("LOGICAL DATE") && !in_pipe.contains("no room"), "{in_pipe}");
}

#[test]
fn a_pipe_gets_rows_and_may_close_early() {
    let folder = tempfile::tempdir().unwrap();
    let millrace = started(&folder);
    millrace.apply("hello", HELLO).unwrap();
    millrace.apply("sleeper", SLEEPER).unwrap();
    let first = shell(&millrace, "masterctl list | head -1; echo ${PIPESTATUS[0]}");
    assert_eq!(text(&first.stderr), "");
    assert!(text(&first.stdout).starts_with("WORKFLOW "), "{first:?}");
    assert!(text(&first.stdout).ends_with("\n0\n"), "{first:?}");
    let names = shell(&millrace, "masterctl list workflows | awk 'NR > 1 { print $1 }'");
    assert_eq!(text(&names.stdout), "hello\nsleeper\n");
    let page = shell(&millrace, "masterctl list --limit 1 | tail -1");
    assert_eq!(text(&page.stdout), "more: --after hello\n");
}

#[test]
fn a_large_run_is_told_in_few_lines() {
    let folder = tempfile::tempdir().unwrap();
    let millrace = started(&folder);
    let mut definition = "workflow: big\nsuccess: all\ntasks:\n".to_owned();
    for at in 0..500 {
        let program = if at == 250 { "false" } else { "true" };
        let _ = writeln!(definition, "  t{at}: {{ kind: shell, with: {{ command: [\"{program}\"] }} }}");
    }
    let all: Vec<String> = (0..500).map(|at| format!("t{at}")).collect();
    let _ = writeln!(
        definition,
        "  end: {{ kind: shell, after: [{}], trigger_rule: all_done, with: {{ command: [\"true\"] }} }}",
        all.join(", ")
    );
    millrace.apply("big", &definition).unwrap();
    let output = millrace.masterctl(&["run", "big", "--wait"]).unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let (shown, progress) = (text(&output.stdout), text(&output.stderr));
    assert!(shown.contains("501 tasks: 1 failed, 500 success") && shown.contains("t250"), "{shown}");
    assert!(shown.lines().count() < 12, "{shown}");
    assert!(progress.contains("task t250 failed: exit code 1"), "{progress}");
    assert!(progress.lines().count() < 20, "{progress}");
    let run = shown.split_whitespace().nth(1).unwrap();
    assert!(millrace.ctl(&["show", run]).unwrap().lines().count() > 500);
    let picture = millrace.ctl(&["graph", run]).unwrap();
    assert!(picture.lines().all(|line| line.chars().count() < 100), "{picture}");
}

#[test]
fn apply_says_what_changes_and_changes_nothing_where_one_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let millrace = started(&folder);
    millrace.apply("hello", HELLO).unwrap();
    let definitions = folder.path().join("definitions");
    fs::create_dir(&definitions).unwrap();
    fs::write(definitions.join("hello.yaml"), HELLO.replace("n: 3", "n: 4")).unwrap();
    fs::write(definitions.join("wrong.yaml"), "workflow: wrong\ntasks: {}\n").unwrap();
    let path = definitions.display().to_string();
    let (code, problem) = failed(&millrace.masterctl(&["apply", &path]).unwrap());
    assert_eq!(code, Some(1));
    assert!(problem.contains("a workflow needs at least one task"), "{problem}");
    fs::remove_file(definitions.join("wrong.yaml")).unwrap();
    let would = millrace.ctl(&["apply", "--dry-run", &path]).unwrap();
    assert!(would.starts_with("hello: would change, version 2\n  params.n"), "{would}");
    assert!(millrace.ctl(&["apply", &path]).unwrap().starts_with("hello: changed, version 2\n"));
}

/// Adds the keys of a document; what stands below these is named by people and not by us.
fn collect(value: &Value, found: &mut BTreeSet<String>) {
    const NAMED_BY_PEOPLE: [&str; 3] = ["params", "values", "labels"];
    match value {
        Value::Object(entries) => {
            for (key, inner) in entries {
                found.insert(key.clone());
                if !NAMED_BY_PEOPLE.contains(&key.as_str()) {
                    collect(inner, found);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        _ => {}
    }
}

#[test]
fn the_guide_has_every_key_that_programs_get() {
    let folder = tempfile::tempdir().unwrap();
    let millrace = started(&folder);
    let file = folder.path().join("hello.yaml").display().to_string();
    millrace.apply("hello", HELLO).unwrap();
    let ended = millrace.json(&["run", "hello", "--wait"]).unwrap();
    let run = ended["run"]["run"].as_str().unwrap();
    wait_for("the executor to be connected", || {
        let listed = millrace.json(&["executor", "list"])?;
        Ok((!listed["executors"][0].is_null()).then_some(()))
    })
    .unwrap();
    let guide = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/guide.md")).unwrap();
    let (_, part) = guide.split_once("### Output for programs").unwrap();
    for (row, arguments) in [
        ("`validate`", &["validate", &file][..]),
        ("`apply`", &["apply", &file]),
        ("`run`", &["run", "hello"]),
        ("`list workflows`", &["list"]),
        ("`show RUN`", &["list", "runs"]),
        ("`show RUN`", &["show", run]),
        ("`show WORKFLOW`", &["show", "hello"]),
        ("`explain`", &["explain", run]),
        ("`graph`", &["graph", run]),
        ("`executor list`", &["executor", "list"]),
        ("`cluster status`", &["cluster", "status"]),
    ] {
        let line = part.lines().find(|line| line.starts_with(&format!("| {row}"))).unwrap();
        let mut found = BTreeSet::new();
        collect(&millrace.json(arguments).unwrap(), &mut found);
        let missing: Vec<_> = found
            .iter()
            .filter(|key| !line.contains(&format!("`{key}`")) && !["runs", "next"].contains(&key.as_str()))
            .collect();
        assert!(missing.is_empty(), "{row} of the guide has no {missing:?}");
    }
}

#[test]
fn a_standalone_says_why_it_does_not_start() {
    let folder = tempfile::tempdir().unwrap();
    let millrace = started(&folder);
    let start = |data: &Path, settings: &str| {
        fs::create_dir_all(data).unwrap();
        let file = data.join("settings.toml");
        fs::write(&file, settings).unwrap();
        let output = Command::new(program("millrace").unwrap())
            .arg("run")
            .arg("--data")
            .arg(data)
            .arg("--config")
            .arg(&file)
            .output()
            .unwrap();
        (output.status.code(), text(&output.stderr))
    };
    let other = folder.path().join("other");
    let (code, problem) = start(&other, "[master]\nlisen = \"127.0.0.1:0\"\n");
    assert_eq!(code, Some(2), "{problem}");
    assert!(problem.contains("error: ") && problem.contains("lisen"), "{problem}");
    let (code, problem) = start(&other, "[master]\nretention = \"1s\"\n[executor]\nslots = 0\n");
    assert_eq!(code, Some(2), "{problem}");
    assert!(problem.contains("master: `retention`") && problem.contains("executor: `slots`"), "{problem}");
    let (code, problem) = start(folder.path(), "[master]\nlisten = \"127.0.0.1:0\"\n");
    assert_eq!(code, Some(1), "{problem}");
    assert!(problem.contains("error: ") && !problem.contains('\u{1b}'), "{problem}");
    assert!(millrace.ctl(&["cluster", "status"]).is_ok());
}

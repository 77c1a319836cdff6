//! The command line against a real standalone Millrace: what people do, and what they get.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use millrace_tests::{Standalone, find_task, wait_for};

const SLEEPER: &str = "workflow: sleeper\ntasks:\n  nap: { kind: shell, kill_grace: 1s, with: { command: [sleep, \"300\"] } }\n  after: { kind: shell, after: nap, with: { command: [\"true\"] } }\n";

fn started(folder: &tempfile::TempDir) -> Standalone {
    let mut millrace = Standalone::prepare(folder.path(), "pools = { one = 1 }", "slots = 4").unwrap();
    millrace.start().unwrap();
    millrace
}

#[test]
fn a_run_is_applied_started_watched_and_shown() {
    let folder = tempfile::tempdir().unwrap();
    let millrace = started(&folder);
    let text = "workflow: hello\nparams: { who: { type: string, default: world } }\ntasks:\n  greet: { kind: shell, with: { script: 'echo hello $WHO; echo who=$WHO >> $MILLRACE_VALUES', env: { WHO: \"{{ params.who }}\" } } }\n  echo: { kind: shell, after: greet, with: { command: [echo, \"{{ values.greet.who }}\"] } }\n";
    assert!(millrace.apply("hello", text).unwrap().contains("hello: new, version 1"));
    assert!(millrace.apply("hello", text).unwrap().contains("unchanged"));
    let waited = millrace.json(&["run", "hello", "--wait", "-p", "who=mes"]).unwrap();
    assert_eq!(waited["run"]["state"], "success");
    let run = waited["run"]["run"].as_str().unwrap();
    assert_eq!(find_task(&waited, "greet").unwrap()["values"]["who"], "mes");
    assert_eq!(millrace.ctl(&["logs", run, "greet", "-f"]).unwrap(), "hello mes\n");
    assert_eq!(millrace.ctl(&["logs", run, "echo", "-f"]).unwrap(), "mes\n");
    assert!(millrace.ctl(&["list", "runs"]).unwrap().contains(run));
    assert!(millrace.ctl(&["list", "workflows"]).unwrap().contains("hello"));
    assert!(millrace.ctl(&["graph", run]).unwrap().contains("echo"));
    assert!(millrace.ctl(&["executor", "list"]).unwrap().contains("connected"));
    let yaml = millrace.ctl(&["show", "hello", "-o", "yaml"]).unwrap();
    assert!(yaml.contains("version: 1"), "{yaml}");
}

#[test]
fn the_same_key_gives_the_same_run() {
    let folder = tempfile::tempdir().unwrap();
    let mut millrace = started(&folder);
    millrace
        .apply("w", "workflow: w\ntasks: { a: { kind: shell, with: { command: [\"true\"] } } }\n")
        .unwrap();
    let first = millrace.run(&["w", "--key", "order-1"]).unwrap();
    assert_eq!(millrace.run(&["w", "--key", "order-1"]).unwrap(), first);
    millrace.ended(&first).unwrap();
    millrace.kill().unwrap();
    millrace.start().unwrap();
    assert_eq!(millrace.run(&["w", "--key", "order-1"]).unwrap(), first);
    assert_ne!(millrace.run(&["w", "--key", "order-2"]).unwrap(), first);
}

#[test]
fn a_cancelled_run_leaves_no_process() {
    let folder = tempfile::tempdir().unwrap();
    let millrace = started(&folder);
    let marker = folder.path().join("pids");
    // It ignores TERM, forks away from its group, and writes down who it is.
    let script = format!(
        "trap '' TERM; echo $$ >> {0}; setsid sh -c 'trap \"\" TERM; echo $$ >> {0}; while :; do sleep 1; done' & while :; do sleep 1; done",
        marker.display()
    );
    let text = format!(
        "workflow: stubborn\ntasks:\n  t:\n    kind: shell\n    kill_grace: 1s\n    with:\n      command: [sh, -c, {}]\n",
        serde_json::to_string(&script).unwrap()
    );
    millrace.apply("stubborn", &text).unwrap();
    let run = millrace.run(&["stubborn"]).unwrap();
    let pids = wait_for("both processes to be there", || {
        let text = fs::read_to_string(&marker).unwrap_or_default();
        let pids: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        Ok((pids.len() == 2).then_some(pids))
    })
    .unwrap();
    millrace.ctl(&["cancel", &run]).unwrap();
    let ended = millrace.ended(&run).unwrap();
    assert_eq!(ended["run"]["state"], "cancelled");
    assert_eq!(find_task(&ended, "t").unwrap()["attempts"][0]["state"], "killed");
    for pid in pids {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is still there");
    }
}

#[test]
fn paused_runs_start_nothing_and_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let millrace = started(&folder);
    let text = "workflow: p\ntasks:\n  a: { kind: shell, with: { command: [sleep, \"1\"] } }\n  b: { kind: shell, after: a, with: { command: [\"true\"] } }\n";
    millrace.apply("p", text).unwrap();
    let run = millrace.run(&["p"]).unwrap();
    millrace.task_reaches(&run, "a", "active").unwrap();
    assert!(millrace.ctl(&["pause", &run]).unwrap().contains("paused"));
    millrace.task_reaches(&run, "b", "ready").unwrap();
    assert!(millrace.ctl(&["explain", &run]).unwrap().contains("paused"));
    millrace.ctl(&["resume", &run]).unwrap();
    assert_eq!(millrace.ended(&run).unwrap()["run"]["state"], "success");
}

#[test]
fn a_retried_run_keeps_what_succeeded() {
    let folder = tempfile::tempdir().unwrap();
    let millrace = started(&folder);
    let gate = folder.path().join("gate");
    let text = format!(
        "workflow: r\ntasks:\n  good: {{ kind: shell, with: {{ command: [\"true\"] }} }}\n  bad: {{ kind: shell, after: good, with: {{ command: [test, -e, {}] }} }}\n",
        gate.display()
    );
    millrace.apply("r", &text).unwrap();
    let output = millrace.masterctl(&["run", "r", "--wait"]).unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let runs = millrace.json(&["list", "runs"]).unwrap();
    let failed = runs["runs"][0]["run"].as_str().unwrap().to_owned();
    assert_eq!(runs["runs"][0]["state"], "failed");
    fs::write(&gate, "").unwrap();
    let retried = millrace.json(&["retry", &failed, "--wait"]).unwrap();
    assert_eq!(retried["run"]["state"], "success");
    assert_eq!(retried["run"]["retry_of"], failed.as_str());
    assert_eq!(find_task(&retried, "good").unwrap()["attempts"].as_array().unwrap().len(), 0);
    assert_eq!(millrace.state(&failed).unwrap(), "failed", "an ended run never changes");
}

#[test]
fn waiting_has_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let millrace = started(&folder);
    let text = "workflow: why\nmax_active_runs: 1\ntasks:\n  far: { kind: shell, executor: { labels: { site: mars } }, with: { command: [\"true\"] } }\n  unpooled: { kind: shell, pool: nowhere, with: { command: [\"true\"] } }\n  late: { kind: shell, after: far, with: { command: [\"true\"] } }\n";
    millrace.apply("why", text).unwrap();
    let run = millrace.run(&["why"]).unwrap();
    let queued = millrace.run(&["why"]).unwrap();
    let explained = millrace.json(&["explain", &run]).unwrap();
    let code = |task: &str| {
        let tasks = explained["tasks"].as_array().unwrap();
        tasks.iter().find(|one| one["task"] == task).unwrap()["code"].as_str().unwrap().to_owned()
    };
    assert_eq!(code("far"), "no_executor_with_labels");
    assert_eq!(code("unpooled"), "unknown_pool");
    assert_eq!(code("late"), "upstream");
    assert!(millrace.ctl(&["explain", &queued]).unwrap().contains("max_active_runs of the workflow is 1"));
}

#[test]
fn exit_codes_are_as_documented() {
    let folder = tempfile::tempdir().unwrap();
    let millrace = started(&folder);
    let code = |arguments: &[&str]| millrace.masterctl(arguments).unwrap().status.code();
    let bad = folder.path().join("bad.yaml");
    fs::write(&bad, "workflow: x\ntaks: {}\n").unwrap();
    assert_eq!(code(&["validate", &bad.display().to_string()]), Some(1));
    assert_eq!(code(&["no-such-command"]), Some(2));
    assert_eq!(code(&["--master", "http://127.0.0.1:9", "cluster", "status"]), Some(3));
    assert_eq!(code(&["run", "unknown"]), Some(4));
    let wrong = folder.path().join("wrong-token");
    fs::write(&wrong, "0123456789abcdef0123456789abcdef0123456789abcdef").unwrap();
    std::process::Command::new("chmod").arg("600").arg(&wrong).status().unwrap();
    assert_eq!(code(&["--token-file", &wrong.display().to_string(), "cluster", "status"]), Some(5));
}

#[test]
fn a_stop_ends_what_runs_and_the_next_start_runs_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut millrace = started(&folder);
    millrace.apply("sleeper", SLEEPER).unwrap();
    let run = millrace.run(&["sleeper"]).unwrap();
    millrace.task_reaches(&run, "nap", "active").unwrap();
    wait_for("the attempt to run", || {
        Ok((find_task(&millrace.json(&["show", &run])?, "nap")?["attempts"][0]["state"] == "running")
            .then_some(()))
    })
    .unwrap();
    millrace.stop().unwrap();
    millrace.start().unwrap();
    let second = wait_for("a second attempt", || {
        let shown = millrace.json(&["show", &run])?;
        let attempts = find_task(&shown, "nap")?["attempts"].as_array().cloned().unwrap_or_default();
        let is_again = attempts.len() > 1 && attempts.last().is_some_and(|last| last["state"] == "running");
        Ok(is_again.then_some(attempts))
    })
    .unwrap();
    assert_eq!(second[0]["state"], "lost");
    millrace.ctl(&["cancel", &run]).unwrap();
    assert_eq!(millrace.ended(&run).unwrap()["run"]["state"], "cancelled");
}

#[test]
fn live_settings_are_set_shown_refused_and_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let mut millrace = started(&folder);
    let settings = millrace.json(&["config", "get"]).unwrap();
    let pool =
        settings["settings"].as_array().unwrap().iter().find(|one| one["setting"] == "pools.one").unwrap();
    assert_eq!((&pool["value"], &pool["source"]), (&"1".into(), &"static".into()), "{pool}");
    let said = millrace.ctl(&["config", "set", "pools.one", "3", "--by", "王芳"]).unwrap();
    assert_eq!(said, "pools.one is 3 (database)\n");
    let again = millrace.json(&["config", "set", "pools.one", "3", "--by", "bob"]).unwrap();
    assert_eq!((&again["changed"], &again["setting"]["by"]), (&false.into(), &"王芳".into()));
    let refused = millrace.ctl(&["config", "set", "pols.one", "3"]).unwrap_err().to_string();
    assert!(refused.contains("did you mean `pools.one`?"), "{refused}");
    millrace.ctl(&["config", "set", "schedules_paused", "true"]).unwrap();
    assert!(millrace.ctl(&["cluster", "status"]).unwrap().contains("all paused since"));
    millrace.kill().unwrap();
    millrace.start().unwrap();
    let table = millrace.ctl(&["config", "get", "pools.one"]).unwrap();
    assert!(table.contains("王芳"), "{table}");
    assert_eq!(millrace.ctl(&["config", "unset", "pools.one"]).unwrap(), "pools.one is 1 (static)\n");
    let history = millrace.json(&["config", "history", "pools.one"]).unwrap();
    let told: Vec<_> =
        history["changes"].as_array().unwrap().iter().map(|one| (&one["old"], &one["new"])).collect();
    let null = serde_json::Value::Null;
    assert_eq!(told, [(&"3".into(), &null), (&null, &"3".into())]);
}

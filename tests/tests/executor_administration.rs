//! Executors are closed and opened, and an attempt is confirmed as lost, as a person does it: with masterctl, on a real
//! master and real executors.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use millrace_servers::{Executor, Master, Place, built};
use millrace_tests::{find_task, wait_for};
use serde_json::Value;

/// Its task waits for a file, and for a proof other than time where its executor is gone.
const GATED: &str = "workflow: gated\nmax_active_runs: 4\ntasks:\n  wait:\n    kind: shell\n    on_lost: confirm\n    with: { script: 'until [ -e GATE ]; do sleep 0.1; done' }\n";

/// A master with executors, whose programs end with this.
struct Cluster {
    master: Master,
    gate: std::path::PathBuf,
}

impl Cluster {
    fn start() -> Self {
        let mut master = Master::prepare("m1", &Place::here(), built("millrace-master"));
        master.program.start();
        let gate = master.program.home().file("gate");
        let cluster = Self { master, gate };
        wait_for("the master to lead", || Ok(cluster.ctl(&["executor", "list"]).0.then_some(()))).unwrap();
        let file = cluster.master.program.home().file("gated.yaml");
        std::fs::write(&file, GATED.replace("GATE", &cluster.gate.display().to_string())).unwrap();
        cluster.json(&["apply", &file.display().to_string()]);
        cluster
    }

    fn executor(&self, name: &str) -> Executor {
        let mut executor = Executor::prepare(name, &Place::here(), &[self.master.url()]);
        executor.program.start();
        self.until(name, "state", "connected");
        executor
    }

    /// Runs masterctl; tells whether it succeeded, and what it said to people and to programs.
    fn ctl(&self, arguments: &[&str]) -> (bool, String, String) {
        let output = self.master.ctl().args(arguments).env("USER", "ann").output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.success(), text(&output.stderr), text(&output.stdout))
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let (succeeded, said, text) = self.ctl(&[arguments, &["-o", "json"]].concat());
        assert!(succeeded, "{arguments:?}: {said}");
        serde_json::from_str(&text).unwrap()
    }

    fn run(&self) -> String {
        self.json(&["run", "gated"])["run"].as_str().unwrap().to_owned()
    }

    fn until(&self, executor: &str, key: &str, value: &str) {
        wait_for(&format!("executor {executor} to be {value}"), || {
            let listed = self.json(&["executor", "list"]);
            let listed = listed["executors"].as_array().cloned().unwrap_or_default();
            let is_there = listed.iter().any(|one| one["executor"] == executor && one[key] == value);
            Ok(is_there.then_some(()))
        })
        .unwrap();
    }

    fn attempts(&self, run: &str) -> Vec<Value> {
        let shown = self.json(&["show", run]);
        find_task(&shown, "wait").unwrap()["attempts"].as_array().cloned().unwrap_or_default()
    }

    fn until_running(&self, run: &str, number: usize) {
        wait_for(&format!("attempt {number} to run"), || {
            let attempts = self.attempts(run);
            Ok(attempts.get(number - 1).filter(|attempt| attempt["state"] == "running").map(|_| ()))
        })
        .unwrap();
    }

    fn until_ended(&self, run: &str) -> String {
        wait_for(&format!("run {run} to end"), || {
            let shown = self.json(&["show", run]);
            let state = shown["run"]["state"].as_str().unwrap_or_default().to_owned();
            Ok((!shown["run"]["ended_at"].is_null()).then_some(state))
        })
        .unwrap()
    }
}

#[test]
fn a_drained_executor_finishes_what_it_runs_and_takes_nothing_until_it_is_undrained() {
    let mut cluster = Cluster::start();
    let mut executor = cluster.executor("e1");
    let first = cluster.run();
    cluster.until_running(&first, 1);
    let drained = cluster.json(&["executor", "drain", "e1", "--reason", "new disks"]);
    assert_eq!((&drained["standing"], &drained["standing_by"]), (&"drained".into(), &"ann".into()));
    assert_eq!(drained["attempts"][0]["run"], first.as_str());
    let second = cluster.run();
    // Neither another life of the executor nor one of the master lifts it, and what runs goes on through both.
    executor.program.kill();
    executor.program.start();
    cluster.master.program.kill();
    cluster.master.program.start();
    wait_for("the master to lead", || Ok(cluster.ctl(&["executor", "list"]).0.then_some(()))).unwrap();
    cluster.until("e1", "state", "connected");
    let (_, _, text) = cluster.ctl(&["executor", "list"]);
    assert!(text.contains("connected, drained") && text.contains("e1 is drained by ann since"), "{text}");
    let explained = cluster.json(&["explain", &second]);
    assert_eq!(explained["tasks"][0]["code"], "executor_drained", "{explained}");
    std::fs::write(&cluster.gate, "").unwrap();
    let (succeeded, said, _) = cluster.ctl(&["executor", "drain", "e1", "--reason", "new disks", "--wait"]);
    assert!(succeeded && said.ends_with("nothing runs on executor e1 any more\n"), "{said}");
    assert_eq!(cluster.until_ended(&first), "success");
    assert_eq!(cluster.attempts(&first).len(), 1, "nothing was lost");
    assert_eq!(cluster.json(&["executor", "show", "e1"])["slots_used"], 0);
    assert_eq!(cluster.json(&["executor", "undrain", "e1"])["standing"], "open");
    assert_eq!(cluster.until_ended(&second), "success");
}

#[test]
fn an_attempt_whose_machine_is_gone_is_confirmed_as_lost_and_runs_elsewhere() {
    let cluster = Cluster::start();
    let mut gone = cluster.executor("e1");
    let run = cluster.run();
    cluster.until_running(&run, 1);
    let attempt =
        cluster.json(&["executor", "show", "e1"])["attempts"][0]["attempt"].as_str().unwrap().to_owned();
    let confirm = ["attempt", "confirm-lost", attempt.as_str(), "--reason", "the machine burnt down"];
    let (succeeded, said, _) = cluster.ctl(&[&confirm[..], &["--yes"]].concat());
    assert!(!succeeded && said.contains("executor e1 is connected and speaks for attempt"), "{said}");
    gone.program.kill_all();
    cluster.until("e1", "state", "disconnected");
    let _other = cluster.executor("e2");
    let (succeeded, said, _) = cluster.ctl(&["executor", "forget", "e1"]);
    assert!(!succeeded && said.contains(&attempt), "{said}");
    let (succeeded, said, _) = cluster.ctl(&confirm);
    assert!(!succeeded && said.contains("--yes"), "nobody can be asked without a terminal: {said}");
    let confirmed = cluster.json(&[&confirm[..], &["--yes"]].concat());
    assert_eq!(confirmed["state"], "lost");
    cluster.until_running(&run, 2);
    let first = cluster.attempts(&run).remove(0);
    assert_eq!(first["reason"], "confirmed by ann: the machine burnt down");
    assert_eq!(cluster.json(&["executor", "forget", "e1"])["forgotten"], true);
    let listed = cluster.json(&["executor", "list"]);
    assert_eq!(listed["executors"].as_array().unwrap().len(), 1, "{listed}");
    std::fs::write(&cluster.gate, "").unwrap();
    assert_eq!(cluster.until_ended(&run), "success");
}

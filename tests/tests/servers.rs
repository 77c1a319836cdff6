//! A whole cluster by the hands that tests and benchmarks have: it works, and nothing of it stays.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use millrace_proto::v1;
use millrace_servers::{Etcd, Executor, Home, Master, Place, Postgres, etcd, postgres, skipped, wait_until};
use millrace_tests::{find_task, wait_for};
use nix::sys::signal::Signal;

const NAP: &str = "workflow: nap\ntasks:\n  nap: { kind: shell, with: { command: [sleep, \"300\"] } }\n";

/// Runs masterctl, which must succeed, for JSON.
fn ctl(master: &Master, arguments: &[&str]) -> serde_json::Value {
    let output = master.ctl().args(arguments).args(["-o", "json"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn masters_and_executors_run_on_real_servers_and_leave_nothing() {
    if let Some(reason) = etcd::missing().or_else(postgres::missing) {
        return skipped(&reason);
    }
    let here = Place::here();
    let (etcd, database) = (Etcd::start(3), Postgres::start_at(&here, &[]));
    let mut masters: Vec<Master> = (1..=2)
        .map(|number| Master::with_etcd(&format!("m{number}"), &here, &database.network_url(), &etcd))
        .collect();
    let urls: Vec<String> = masters.iter().map(Master::url).collect();
    let mut executor = Executor::prepare("e1", &here, &urls);
    masters.iter_mut().for_each(|master| master.program.start());
    executor.program.start();
    wait_until("an executor to be connected", || {
        let output = masters[0].ctl().args(["executor", "list"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains("connected")
    });
    let mut control = masters[0].control().await.unwrap();
    control
        .apply_workflow(v1::ApplyWorkflowRequest { source: NAP.to_owned(), dry_run: false })
        .await
        .unwrap();
    let request = v1::StartRunRequest { workflow: "nap".to_owned(), ..Default::default() };
    let run = control.start_run(request).await.unwrap().into_inner().run;
    // The executor, its supervisor, and the attempt.
    wait_for("the attempt to run", || {
        let shown = ctl(&masters[0], &["show", &run]);
        let attempts = find_task(&shown, "nap")?["attempts"].clone();
        Ok((attempts[0]["state"] == "running").then_some(()))
    })
    .unwrap();
    let all = executor.program.home().processes();
    assert_eq!(all.len(), 3, "{all:?}");
    let folder = executor.program.home().path().to_owned();
    // What a kill of the executor leaves to its supervisor goes with the folder.
    executor.program.kill();
    assert_eq!(executor.program.home().processes().len(), 2);
    drop(executor);
    assert!(Home::processes_below(&folder).is_empty());
    masters[0].program.freeze();
    assert_eq!(masters[0].program.try_ended(), None);
}

#[test]
fn one_process_alone_runs_tasks_on_a_file_and_leaves_nothing() {
    let data = tempfile::tempdir().unwrap();
    let mut master = Master::alone("m1", &Place::here(), data.path());
    master.program.set("executor.slots", 2);
    master.program.start();
    wait_until("its executor to be connected", || {
        let output = master.ctl().args(["executor", "list"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains("connected")
    });
    assert!(data.path().join("millrace.db").is_file());
    master.program.signal(Signal::SIGTERM);
    assert!(master.program.ended().success(), "{}", master.program.log());
    // Its supervisor works in the data folder, and goes by itself.
    wait_until("nothing of it to be left", || Home::processes_below(data.path()).is_empty());
}

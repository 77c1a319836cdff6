//! The main work of the users: backup, then transfer and inspection data side by side, then a report.
//!
//! Once on embedded databases, once on a real MariaDB and a real FTP server; and with the program killed at any moment.
//! What arrived is compared row by row with what was put in.

mod nightly_input;

use std::{fs, process::Command, time::Duration};

use millrace_tests::{Standalone, find_task, program, wait_for};
use nightly_input::{Embedded, Plant};

/// Kills of the program over all runs.
const KILLS: u32 = 50;
/// Kills of one run at most: a task instance that is lost too often fails, by design.
const KILLS_PER_RUN: u32 = 5;

#[test]
fn the_demo_ends_with_success_and_says_where_to_look() {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(program("millrace").unwrap())
        .arg("demo")
        .arg("--data")
        .arg(folder.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for part in [
        "backup",
        "orders",
        "aoi",
        "report",
        "success",
        "nightly report for 2018-07-25",
        "master: http://127.0.0.1:",
    ] {
        assert!(text.contains(part), "{part:?} is missing in {text}");
    }
}

#[test]
fn everything_arrives_on_embedded_databases() {
    let folder = tempfile::tempdir().unwrap();
    let embedded = Embedded::make(folder.path()).unwrap();
    let mut millrace =
        Standalone::prepare(&folder.path().join("state"), "", &embedded.executor_settings()).unwrap();
    millrace.start().unwrap();
    millrace.apply("nightly", &embedded.workflow()).unwrap();
    let run = millrace.run(&embedded.run_arguments()).unwrap();
    let ended = millrace.ended(&run).unwrap();
    assert_eq!(ended["run"]["state"], "success", "{ended:#}");
    embedded.compare().unwrap();
    let report = &find_task(&ended, "report").unwrap()["values"];
    assert_eq!(report["orders"], embedded.orders_expected().to_string());
    assert_eq!(report["rolls"], embedded.rolls_expected().to_string());
}

#[test]
fn everything_arrives_on_real_servers() {
    let folder = tempfile::tempdir().unwrap();
    let plant = Plant::make(folder.path()).unwrap();
    let mut millrace =
        Standalone::prepare(&folder.path().join("state"), "", &plant.executor_settings()).unwrap();
    millrace.start().unwrap();
    millrace.apply("nightly", &plant.workflow()).unwrap();
    let run = millrace.run(&plant.run_arguments()).unwrap();
    let ended = millrace.ended(&run).unwrap();
    let log = millrace.ctl(&["logs", &run, "aoi"]).unwrap_or_default();
    assert_eq!(ended["run"]["state"], "success", "{ended:#}\n{log}");
    plant.compare().unwrap_or_else(|problem| panic!("{problem}\n{ended:#}\n{log}"));
    plant.compare_restored_backup().unwrap();
    plant.assert_password_is_nowhere(&millrace).unwrap();
    // The same night again changes nothing.
    let again = millrace.run(&plant.run_arguments()).unwrap();
    assert_eq!(millrace.ended(&again).unwrap()["run"]["state"], "success");
    plant.compare().unwrap_or_else(|problem| panic!("{problem}\n{ended:#}\n{log}"));
}

#[test]
fn a_database_that_is_down_fails_the_backup_and_the_report_runs_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let mut plant = Plant::make(folder.path()).unwrap();
    plant.stop_database();
    let mut millrace =
        Standalone::prepare(&folder.path().join("state"), "", &plant.executor_settings()).unwrap();
    millrace.start().unwrap();
    let impatient = plant.workflow().replace("retries: 2", "retries: 0");
    millrace.apply("nightly", &impatient).unwrap();
    let run = millrace.run(&plant.run_arguments()).unwrap();
    let ended = millrace.ended(&run).unwrap();
    let state = |task: &str| find_task(&ended, task).unwrap()["state"].clone();
    assert_eq!(state("backup"), "failed");
    assert_eq!(state("orders"), "upstream_failed");
    assert_eq!(state("report"), "success");
    let reason = find_task(&ended, "backup").unwrap()["attempts"][0]["reason"].as_str().unwrap().to_owned();
    assert!(!reason.is_empty(), "a failure has a reason");
}

#[test]
fn fifty_kills_lose_nothing_and_run_nothing_twice() {
    let folder = tempfile::tempdir().unwrap();
    let embedded = Embedded::make(folder.path()).unwrap();
    let witness = folder.path().join("witness");
    let mut millrace =
        Standalone::prepare(&folder.path().join("state"), "", &embedded.executor_settings()).unwrap();
    millrace.start().unwrap();
    millrace.apply("nightly", &embedded.witnessed_workflow(&witness)).unwrap();
    let mut moments = nightly_input::Moments::new(7);
    let mut kills = 0;
    while kills < KILLS {
        let run = millrace.run(&embedded.run_arguments()).unwrap();
        let mut kills_of_run = 0;
        while kills < KILLS && kills_of_run < KILLS_PER_RUN {
            // A random moment is the point here; nothing is waited for.
            std::thread::sleep(Duration::from_millis(moments.below(400)));
            if !millrace.json(&["show", &run]).unwrap()["run"]["ended_at"].is_null() {
                break;
            }
            millrace.kill().unwrap();
            kills += 1;
            kills_of_run += 1;
            millrace.start().unwrap();
        }
        let ended = millrace.ended(&run).unwrap();
        assert_eq!(ended["run"]["state"], "success", "{ended:#}");
        for task in ended["tasks"].as_array().unwrap() {
            let attempts = task["attempts"].as_array().unwrap();
            let succeeded = attempts.iter().filter(|attempt| attempt["state"] == "succeeded").count();
            assert_eq!(succeeded, 1, "{task:#}");
            assert!(
                attempts.iter().all(|attempt| attempt["state"] == "succeeded" || attempt["state"] == "lost"),
                "{task:#}"
            );
        }
    }
    embedded.compare().unwrap();
    nightly_input::assert_no_overlap(&witness).unwrap();
}

#[test]
fn a_gigabyte_of_output_is_bounded_and_readable() {
    let folder = tempfile::tempdir().unwrap();
    let mut millrace = Standalone::prepare(folder.path(), "", "slots = 2").unwrap();
    millrace.start().unwrap();
    let text = "workflow: loud\ntasks: { shout: { kind: shell, with: { command: [sh, -c, \"head -c 1073741824 /dev/zero | tr '\\\\0' x\"] } } }\n";
    millrace.apply("loud", text).unwrap();
    let run = millrace.run(&["loud"]).unwrap();
    let ended = millrace.ended(&run).unwrap();
    assert_eq!(ended["run"]["state"], "success", "{ended:#}");
    let status = fs::read_to_string(format!("/proc/{}/status", millrace.pid().unwrap())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak_kib: u64 = peak.trim().trim_end_matches(" kB").trim().parse().unwrap();
    assert!(peak_kib < 300 << 10, "the program took {peak_kib} KiB at its peak");
    let kept = wait_for("the output to be complete", || {
        let kept: u64 = walk(folder.path().join("output").as_path()).unwrap_or(0);
        Ok((kept > 0).then_some(kept))
    })
    .unwrap();
    assert!(kept <= (257 << 20), "{kept} bytes of output are kept");
}

fn walk(folder: &std::path::Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() { walk(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(bytes)
}

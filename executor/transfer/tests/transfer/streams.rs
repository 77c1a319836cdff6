//! The stream plugins, channels, speed and the log.

use std::{collections::BTreeMap, time::Duration};

use millrace_transfer::{Job, Options, Parsed, run};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::support::{job, plugin, quick, run_job, run_with};

fn stream(records: u64) -> Value {
    let columns = json!([{"value": "DataX"}, {"value": "1724154616370", "type": "long"}]);
    plugin("streamreader", &json!({"column": columns, "sliceRecordCount": records}))
}

fn silent() -> Value {
    plugin("streamwriter", &json!({"print": false}))
}

/// The definition behind one of the recorded logs; its rows and numbers must be the recorded ones.
#[tokio::test]
async fn rows_and_numbers_are_those_of_a_recorded_run() {
    let text = r#"{
      // comment
      "core": {"container": {"job": {"sleepInterval": 100}}},
      "job": {"setting": {"speed": {"channel": 3}, "errorLimit": {"record": 0}},
        "content": [{"reader": {"name": "streamreader", "parameter": {"column": [
            {"value": "${who}", "type": "string"}, {"value": "$who2", "type": "string"},
            {"value": "${undef}", "type": "string"}, {"value": "2024-01-01 00:00:00", "type": "date"},
            {"value": true, "type": "bool"}, {"value": "1.50", "type": "double"}], "sliceRecordCount": 2}},
          "writer": {"name": "streamwriter", "parameter": {"print": true, "fieldDelimiter": "|", "password": "sekret"}}}]}}"#;
    let params = [("who", "Bob"), ("who2", "Eve")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let Parsed::Native(job) = Job::parse(text, &BTreeMap::from(params)).unwrap() else {
        panic!("not native")
    };
    let mut log = Vec::new();
    let statistics = run(&job, &Options::default(), &mut log).await.unwrap();
    let log = String::from_utf8(log).unwrap();
    let recorded = include_str!("../golden/stream_print_params.log");
    let rows = |log: &str| {
        log.lines().filter(|line| line.starts_with("Bob|")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(rows(&log), rows(recorded));
    let totals = |log: &str| {
        let line = log.lines().rfind(|line| line.contains("Total ")).unwrap();
        let at = line.find("Total ").unwrap();
        line[at..].split('|').take(3).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(totals(&log), totals(recorded));
    assert!(log.contains("splits to [3] tasks") && log.contains("Job set Channel-Number to 3 channels."));
    assert!(!log.contains("sekret") && log.contains("******"));
    assert_eq!(serde_json::to_value(&statistics).unwrap()["read_records"], 6);
}

#[tokio::test]
async fn progress_is_reported_while_it_runs() {
    let options = Options { report_interval: Duration::from_millis(1), ..quick() };
    let mut slow = job(&stream(400), &silent());
    slow["job"]["setting"]["speed"] = json!({"channel": 1, "record": 1000});
    slow["core"] = json!({"transport": {"channel": {"speed": {"record": 1000}}}});
    let started = Instant::now();
    let ran = run_with(&slow, &options).await;
    assert_eq!(ran.counts(), (400, 400, 0));
    assert!(started.elapsed() >= Duration::from_millis(400), "400 records at 1000 a second");
    assert!(ran.log.matches("StandAloneJobContainerCommunicator - Total").count() > 1, "{}", ran.log);
}

#[tokio::test]
async fn every_channel_reads_its_slice() {
    let mut job = job(&stream(5000), &silent());
    job["job"]["setting"]["speed"] = json!({"channel": 3});
    let ran = run_job(&job).await;
    assert_eq!(ran.counts(), (15_000, 15_000, 0));
    assert_eq!(ran.ok().read_bytes, 15_000 * 18);
    assert!(!ran.log.contains("DataX\t"), "nothing is printed");
}

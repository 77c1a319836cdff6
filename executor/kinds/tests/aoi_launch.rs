//! From the parameters of the `aoi` kind to the command of its attempt.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, fs, path::Path, sync::Arc};

use millrace_common::connection::Connection;
use millrace_kinds::{Kind as _, Launch, LaunchError, Payload, Site, Work, aoi::Aoi};
use serde_json::{Value, json};

fn launch(folder: &Path, with: &Value) -> Result<Launch, LaunchError> {
    let connection = |fields: Value| -> Connection { serde_json::from_value(fields).unwrap() };
    let ftp = connection(
        json!({ "engine": "ftp", "host": "plant", "user": "cloudin_pva", "password": "Rt-secret" }),
    );
    let aoi = connection(
        json!({ "engine": "mysql", "host": "db", "user": "aoi", "password_file": folder.join("password") }),
    );
    let connections =
        [("pva", ftp), ("aoi", aoi)].map(|(name, connection)| (name.parse().unwrap(), connection));
    let site = Site {
        program: "/opt/millrace-executor".into(),
        connections: Arc::new(BTreeMap::from(connections)),
        state_dir: folder.join("state"),
        ..Site::default()
    };
    let attempt = "018f2f5e-0000-7000-8000-000000000000.0.1".parse().unwrap();
    Aoi.launch(&Work { attempt, with, work_dir: folder.join("work") }, &site)
}

#[test]
fn connections_travel_on_standard_input_only() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("password"), "db-secret\n").unwrap();
    let with = json!({ "sources": ["pva"], "days": ["2018-07-25"], "load": { "connection": "aoi" } });
    let launch = launch(folder.path(), &with).unwrap();
    assert!(!format!("{:?} {:?}", launch.argv, launch.env).contains("secret"));
    let payload: Payload = serde_json::from_slice(&launch.stdin).unwrap();
    assert_eq!((payload.kind.as_str(), payload.with), ("aoi", with));
    assert_eq!(payload.connections["pva"].password.expose(), "Rt-secret");
    assert_eq!(payload.connections["aoi"].password.expose(), "db-secret");
    assert_eq!(launch.exit.skip, [millrace_kinds::run::EXIT_SKIPPED]);
    assert_eq!(launch.secrets.len(), 2);
}

#[test]
fn parameters_that_do_not_fit_are_told_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let told = |with: Value| launch(folder.path(), &with).unwrap_err().to_string();
    assert!(told(json!({ "sources": ["pva"], "dayz": [] })).contains("dayz"));
    assert!(
        told(json!({ "sources": [{ "name": "pva", "encoding": "latin1" }] })).contains("with.sources[0]")
    );
    let several = told(json!({ "sources": ["pva"], "days": ["yesterday"], "mirror": { "parallel": 99 } }));
    assert!(
        several.contains("days[0]") && several.contains("mirror.parallel") && several.contains("load"),
        "{several}"
    );
    let unknown = told(json!({ "sources": ["psa"], "days": ["2018-07-25"], "stages": ["mirror"] }));
    assert!(unknown.contains("add [connections.psa]"), "{unknown}");
}

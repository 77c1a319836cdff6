use std::collections::BTreeMap;

use millrace_common::kind::{
    aoi::{AoiWith, Ready},
    backup::BackupWith,
    datax::{AllowFailed, DataxWith, Scalar},
    shell::ShellWith,
};
use serde::Deserialize;
use serde_json::json;

use super::*;

#[derive(Debug, PartialEq, Deserialize)]
struct Numbers {
    #[serde(default)]
    small: u8,
    #[serde(default)]
    signed: i64,
    large: Option<u64>,
    part: Option<f64>,
    #[serde(default)]
    flag: bool,
    #[serde(default)]
    list: Vec<i32>,
    #[serde(default)]
    named: BTreeMap<String, u16>,
    text: Option<String>,
}

fn numbers(with: Value) -> Result<Numbers, String> {
    read(&with).map_err(|error| format!("{}: {}", error.path, error.problem))
}

#[test]
fn a_text_that_is_exactly_a_number_or_a_truth_value_stands_for_it() {
    let text = numbers(json!({
        "small": "255", "signed": "-7", "large": "18446744073709551615", "part": "0.25", "flag": "true",
        "list": ["0", 3], "named": { "a": "1" }, "text": "5",
    }));
    let plain = numbers(json!({
        "small": 255, "signed": -7, "large": 18_446_744_073_709_551_615_u64, "part": 0.25, "flag": true,
        "list": [0, 3], "named": { "a": 1 }, "text": "5",
    }));
    assert_eq!(text, plain);
    assert_eq!(numbers(json!({ "part": "2", "flag": "false" })).unwrap().part, Some(2.0));
}

#[test]
fn any_other_text_is_refused_with_its_place_and_what_is_wanted() {
    for (with, expected) in [
        (json!({ "small": "256" }), "small: the text \"256\" is not a whole number from 0 to 255"),
        (json!({ "small": "-1" }), "small: the text \"-1\" is not a whole number from 0 to 255"),
        (json!({ "small": "" }), "small: the text \"\" is not a whole number from 0 to 255"),
        (json!({ "small": " 5" }), "small: the text \" 5\" is not a whole number from 0 to 255"),
        (json!({ "small": "5\n" }), "small: the text \"5\\n\" is not a whole number from 0 to 255"),
        (json!({ "small": "+5" }), "small: the text \"+5\" is not a whole number from 0 to 255"),
        (json!({ "small": "05" }), "small: the text \"05\" is not a whole number from 0 to 255"),
        (json!({ "small": "5.0" }), "small: the text \"5.0\" is not a whole number from 0 to 255"),
        (json!({ "part": "half" }), "part: the text \"half\" is not a number"),
        (json!({ "part": "NaN" }), "part: the text \"NaN\" is not a number"),
        (json!({ "flag": "yes" }), "flag: the text \"yes\" is not true or false"),
        (json!({ "flag": "True" }), "flag: the text \"True\" is not true or false"),
        (json!({ "list": [1, "x"] }), "list[1]: the text \"x\" is not a whole number from"),
        (json!({ "named": { "a": "b" } }), "named.a: the text \"b\" is not a whole number from 0 to 65535"),
    ] {
        let error = numbers(with).unwrap_err();
        assert!(error.starts_with(expected), "{error}");
    }
    let error = numbers(json!({ "small": "9".repeat(1_000) })).unwrap_err();
    assert!(error.len() < 200 && error.contains("999..."), "{error}");
}

#[test]
fn what_is_no_text_is_read_as_ever() {
    assert!(numbers(json!({ "small": 256 })).unwrap_err().starts_with("small: invalid value: integer `256`"));
    assert!(numbers(json!({ "flag": 1 })).unwrap_err().contains("expected a boolean"));
    assert!(numbers(json!({ "text": 5 })).unwrap_err().contains("expected a string"));
    assert!(numbers(json!(7)).unwrap_err().starts_with(": invalid type"));
    assert_eq!(numbers(json!({ "large": null })).unwrap().large, None);
}

#[test]
fn parameters_of_backup_may_come_from_templates() {
    let with: BackupWith = read(&json!({
        "connection": "mes", "compression_level": "9", "routines": "false", "binlog_position": "true",
        "retention": { "keep_last": "3", "daily": "7", "dry_run": "true" },
    }))
    .unwrap();
    assert_eq!((with.compression_level, with.routines, with.binlog_position), (Some(9), false, true));
    assert_eq!((with.retention.keep_last, with.retention.daily, with.retention.dry_run), (3, 7, true));
    let error =
        read::<BackupWith>(&json!({ "connection": "mes", "retention": { "daily": "seven" } })).unwrap_err();
    assert_eq!(error.path, "retention.daily");
    assert_eq!(error.problem, "the text \"seven\" is not a whole number from 0 to 4294967295");
}

#[test]
fn parameters_of_aoi_may_come_from_templates() {
    let with: AoiWith = read(&json!({
        "sources": ["pva", { "name": "psa", "encoding": "gbk" }],
        "keep_days": "30", "lookback_days": "3", "retry_quarantined": "true",
        "mirror": { "parallel": "2", "files_max": "50", "ready": { "stable": { "polls": "3", "interval": "1s" } } },
        "unpack": { "entries_max": "9", "ratio_max": "7" },
        "load": { "connection": "aoi", "create_tables": "true", "error_limit": { "record": "5", "percentage": "0.5" } },
    }))
    .unwrap();
    assert_eq!((with.keep_days, with.lookback_days, with.retry_quarantined), (Some(30), 3, true));
    assert_eq!((with.mirror.parallel, with.mirror.files_max), (2, 50));
    assert!(matches!(with.mirror.ready, Ready::Stable(ref stable) if stable.polls == 3));
    assert_eq!((with.unpack.entries_max, with.unpack.ratio_max), (9, 7));
    let load = with.load.unwrap();
    assert!(load.create_tables && load.error_limit.record == Some(5));
    assert_eq!(load.error_limit.percentage, Some(0.5));
    let error = read::<AoiWith>(&json!({ "sources": ["pva"], "lookback_days": "a week" })).unwrap_err();
    assert_eq!(error.path, "lookback_days");
    assert_eq!(error.problem, "the text \"a week\" is not a whole number from 0 to 65535");
    for ready in [json!("now"), json!({ "min_age": "5m" }), json!({ "marker": "*.ok" })] {
        assert!(read::<AoiWith>(&json!({ "sources": [], "mirror": { "ready": ready } })).is_ok());
    }
    assert!(read::<AoiWith>(&json!({ "sources": [], "mirror": { "ready": { "now": 1 } } })).is_err());
}

#[test]
fn parameters_of_datax_may_come_from_templates() {
    let allowed = |value| {
        let with = json!({ "job": "a.json", "allow_failed_records": value });
        read::<DataxWith>(&with).map(|with| with.allow_failed_records)
    };
    assert_eq!(allowed(json!("5")).unwrap(), Some(AllowFailed::AtMost(5)));
    assert_eq!(allowed(json!("true")).unwrap(), Some(AllowFailed::Any(true)));
    assert_eq!(allowed(json!("false")).unwrap(), Some(AllowFailed::Any(false)));
    let error = allowed(json!("some")).unwrap_err();
    assert_eq!(error.path, "allow_failed_records");
    assert!(error.problem.contains("\"some\"") && error.problem.contains("a number of records"), "{error}");
    // What a job file gets is text in the end, whatever it looks like.
    let with: DataxWith = read(&json!({ "job": "a.json", "params": { "n": "5" } })).unwrap();
    assert_eq!(with.params["n"], Scalar::Text("5".into()));
}

#[test]
fn parameters_of_shell_may_come_from_templates() {
    let with: ShellWith = read(&json!({
        "command": ["true"], "success_exit_codes": ["0", "3"], "skip_exit_codes": ["99"], "env": { "N": "5" },
    }))
    .unwrap();
    assert_eq!((with.success_exit_codes, with.skip_exit_codes), (Some(vec![0, 3]), vec![99]));
    assert_eq!(with.env["N"], "5");
    let error = read::<ShellWith>(&json!({ "command": ["true"], "skip_exit_codes": ["x"] })).unwrap_err();
    assert_eq!(error.path, "skip_exit_codes[0]");
}

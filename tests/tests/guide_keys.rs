//! The documents name every key, every default and every exit code that the programs have, and none that they have not.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use millrace_common::{connection::Connection, definition, settings::KEYS, text::ShowDuration};
use millrace_executor::ExecutorConfig;
use millrace_kinds::{backup, datax::Installation, declared::Declaration};
use millrace_master::{EtcdSettings, MasterConfig};
use millrace_tests::program;
use serde_json::Value;

fn document(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)).unwrap()
}

/// Returns what stands under a heading, up to the next one of the same rank or above.
fn section<'t>(text: &'t str, heading: &str) -> &'t str {
    let start = text.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("there is no {heading:?}")) + 1;
    let body = &text[start + heading.len()..];
    let rank = heading.bytes().take_while(|byte| *byte == b'#').count();
    let is_end = |line: &str| {
        let hashes = line.bytes().take_while(|byte| *byte == b'#').count();
        (1..=rank).contains(&hashes)
    };
    let mut end = 0;
    let mut is_code = false;
    for line in body.split_inclusive('\n') {
        is_code ^= line.starts_with("```");
        if !is_code && end > 0 && is_end(line) {
            break;
        }
        end += line.len();
    }
    &body[..end]
}

/// Returns the rows of the table whose first title is `title`, as cells.
fn rows<'t>(text: &'t str, title: &str) -> Vec<Vec<&'t str>> {
    let cells =
        |line: &'t str| -> Vec<&'t str> { line.trim_matches('|').split(" | ").map(str::trim).collect() };
    let rows: Vec<_> = text
        .lines()
        .skip_while(|line| !line.starts_with(&format!("| {title} |")))
        .skip(2)
        .take_while(|line| line.starts_with('|'))
        .map(cells)
        .collect();
    assert!(!rows.is_empty(), "there is no table of {title:?}");
    rows
}

/// Returns the words of a text that stand between backticks.
fn words(text: &str) -> BTreeSet<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// Returns the keys of a table: the words in its first column.
fn keys<'t>(text: &'t str, title: &str) -> BTreeSet<&'t str> {
    rows(text, title).iter().flat_map(|row| words(row[0])).collect()
}

fn target<'s>(schema: &'s Value, part: &'s Value) -> &'s Value {
    let name = part.get("$ref").and_then(Value::as_str).and_then(|path| path.strip_prefix("#/$defs/"));
    name.map_or(part, |name| &schema["$defs"][name])
}

/// Adds the names of all keys of a schema, however deep.
fn collect<'s>(schema: &'s Value, part: &'s Value, found: &mut BTreeSet<&'s str>) {
    let part = target(schema, part);
    for (name, inner) in part.get("properties").and_then(Value::as_object).into_iter().flatten() {
        if found.insert(name) {
            collect(schema, inner, found);
        }
    }
    for key in ["anyOf", "oneOf", "allOf"] {
        part.get(key)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .for_each(|one| collect(schema, one, found));
    }
    part.get("items").into_iter().for_each(|items| collect(schema, items, found));
}

fn properties(part: &Value) -> BTreeSet<&str> {
    part["properties"].as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn the_guide_has_every_key_of_a_definition() {
    let (guide, schema) = (document("guide.md"), definition::schema());
    let table =
        |heading: &str| keys(section(&guide, heading), "Key").into_iter().map(str::to_owned).collect();
    let of = |part: &Value| properties(part).into_iter().map(str::to_owned).collect::<BTreeSet<String>>();
    let policies: BTreeSet<String> = table("### Policies, in `defaults` and in a task");
    let tasks: BTreeSet<String> = table("### Keys of a task");
    assert_eq!(table("### Keys of a workflow"), of(&schema));
    assert_eq!(table("### Keys of a schedule"), of(&schema["$defs"]["schedule"]));
    assert_eq!(table("### Keys of a parameter"), of(&schema["$defs"]["param"]["anyOf"][1]));
    assert_eq!(policies, of(&schema["$defs"]["policy"]));
    assert_eq!(tasks.union(&policies).cloned().collect::<BTreeSet<_>>(), of(&schema["$defs"]["task"]));
}

#[test]
fn the_guide_has_every_word_that_a_key_takes() {
    let (guide, schema) = (document("guide.md"), definition::schema());
    let known = words(&guide);
    let policy = &schema["$defs"]["policy"]["properties"];
    let places = [
        &policy["trigger_rule"],
        &policy["on_lost"],
        &schema["properties"]["success"],
        &schema["$defs"]["schedule"]["properties"]["misfire"],
        &schema["$defs"]["param"]["anyOf"][1]["properties"]["type"],
    ];
    for place in places {
        let words = place["enum"].as_array().unwrap();
        for word in words.iter().filter_map(Value::as_str) {
            assert!(
                known.contains(word) || guide.contains(&format!("`{word}` ")),
                "{word} is not in the guide"
            );
        }
    }
}

#[test]
fn the_guide_has_every_parameter_of_every_kind() {
    let (guide, schema) = (document("guide.md"), definition::schema());
    let by_kind = schema["$defs"]["task"]["allOf"].as_array().unwrap();
    assert!(by_kind.len() >= 4, "{by_kind:?}");
    for rule in by_kind {
        let kind = rule["if"]["properties"]["kind"]["const"].as_str().unwrap();
        let part = section(&guide, &format!("### `{kind}`"));
        let mut known = BTreeSet::new();
        collect(&schema, &rule["then"]["properties"]["with"], &mut known);
        assert!(known.len() >= 7, "{kind}: {known:?}");
        let missing: Vec<_> = known.iter().filter(|key| !mentions(part, key)).collect();
        assert!(missing.is_empty(), "the guide does not name parameters of {kind}: {missing:?}");
        let unknown: Vec<_> = keys(part, "Key").into_iter().filter(|key| !known.contains(key)).collect();
        assert!(unknown.is_empty(), "{kind} has no parameters {unknown:?}");
    }
}

/// Tells whether a text names a key, alone or in an example such as `stable: { polls: 2 }`.
fn mentions(text: &str, key: &str) -> bool {
    words(text)
        .iter()
        .any(|word| word.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).any(|one| one == key))
}

#[test]
fn the_guide_has_the_exit_codes_of_the_program() {
    let help = std::process::Command::new(program("masterctl").unwrap()).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let coded = |line: &str| {
        let (code, meaning) = line.trim_start().split_once(' ')?;
        Some((code.parse::<u8>().ok()?, meaning.trim().to_owned()))
    };
    let told: BTreeMap<u8, String> =
        help.lines().skip_while(|line| *line != "Exit codes:").skip(1).map_while(coded).collect();
    let guide = document("guide.md");
    let documented: BTreeMap<u8, String> = rows(section(&guide, "### Exit codes"), "Code")
        .iter()
        .map(|row| (row[0].parse().unwrap(), row[1].to_owned()))
        .collect();
    assert_eq!(documented, told);
    assert!(told.len() >= 7, "{told:?}");
}

#[test]
fn the_guide_has_every_live_setting_with_what_it_may_be() {
    let guide = document("guide.md");
    let documented: Vec<(&str, &str)> = rows(section(&guide, "### Live settings"), "Key")
        .iter()
        .map(|row| (row[0].trim_matches('`'), row[1]))
        .collect();
    assert_eq!(documented, KEYS.map(|key| (key.name, key.allowed)));
    let help = std::process::Command::new(program("masterctl").unwrap()).args(["config", "--help"]).output();
    let help = String::from_utf8(help.unwrap().stdout).unwrap();
    // Lines break where the terminal ends.
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for key in KEYS {
        assert!(help.contains(key.name) && help.contains(key.allowed), "--help has {}: {help}", key.name);
    }
}

/// What a master's own settings have as well goes by the same name there.
#[test]
fn live_settings_go_over_the_master_s_own_of_the_same_name() {
    let operations = document("operations.md");
    let own = settings(section(&operations, "### Settings of a master"), "Key");
    let both: Vec<&str> = KEYS.iter().map(|key| key.name).filter(|name| own.contains_key(name)).collect();
    assert_eq!(both, ["runs_per_workflow_max", "retention", "retention_runs"]);
    assert!(own.contains_key("pools"));
}

/// Returns the fields of a struct; the compiler refuses a list that is not whole.
macro_rules! fields {
    ($type:path { $($field:ident),* $(,)? }) => {{
        #[expect(dead_code, reason = "compiled for what it says, never called")]
        fn whole(value: $type) {
            let $type { $($field),* } = value;
            let _ = ($(&$field),*);
        }
        BTreeSet::from([$(stringify!($field)),*])
    }};
}

/// Returns the keys of a table of settings and what it says is their default, as far as that is one word in backticks.
fn settings<'t>(text: &'t str, title: &str) -> BTreeMap<&'t str, &'t str> {
    rows(text, title)
        .iter()
        .flat_map(|row| words(row[0]).into_iter().map(|key| (key, row[1].trim_matches('`'))))
        .collect()
}

#[test]
fn every_setting_of_a_master_is_documented_with_its_default() {
    let operations = document("operations.md");
    let documented = settings(section(&operations, "### Settings of a master"), "Key");
    let MasterConfig {
        name,
        listen,
        advertise,
        database,
        etcd,
        token_file,
        data_dir,
        pools,
        runs_per_workflow_max,
        retention,
        retention_runs,
        connections_max,
    } = MasterConfig::default();
    assert!(pools.is_empty() && advertise.is_none() && database.is_none() && etcd.is_none());
    assert_eq!(token_file, data_dir.join("token"));
    let expected = BTreeMap::from([
        ("name", name),
        ("listen", listen.to_string()),
        ("advertise", "listen".to_owned()),
        ("database", "a file in `data_dir".to_owned()),
        ("etcd", "none".to_owned()),
        ("token_file", "token` in `data_dir".to_owned()),
        ("data_dir", data_dir.display().to_string()),
        ("pools", "none".to_owned()),
        ("runs_per_workflow_max", runs_per_workflow_max.to_string()),
        ("retention", ShowDuration(retention).to_string()),
        ("retention_runs", retention_runs.to_string()),
        ("connections_max", connections_max.to_string()),
    ]);
    let documented: BTreeMap<&str, String> =
        documented.into_iter().map(|(key, default)| (key, default.to_owned())).collect();
    assert_eq!(documented, expected);
}

#[test]
fn every_setting_of_etcd_is_documented_with_its_default() {
    let operations = document("operations.md");
    let documented = settings(section(&operations, "### Settings of a master"), "Key of `etcd`");
    let known = fields!(EtcdSettings {
        endpoints,
        prefix,
        ttl,
        renewal,
        authority,
        election_timeout,
        user,
        password_file,
        tls,
        allow_old_etcd,
    });
    assert_eq!(documented.keys().copied().collect::<BTreeSet<_>>(), known);
    let defaults = EtcdSettings::default();
    for (key, default) in [
        ("prefix", defaults.prefix),
        ("ttl", ShowDuration(defaults.ttl).to_string()),
        ("renewal", ShowDuration(defaults.renewal).to_string()),
        ("authority", ShowDuration(defaults.authority).to_string()),
        ("election_timeout", ShowDuration(defaults.election_timeout).to_string()),
        ("allow_old_etcd", defaults.allow_old_etcd.to_string()),
    ] {
        assert_eq!(documented[key], default, "{key}");
    }
}

#[test]
fn every_setting_of_an_executor_is_documented_with_its_default() {
    let operations = document("operations.md");
    let part = section(&operations, "### Settings of an executor");
    let documented = settings(part, "Key");
    let known = fields!(ExecutorConfig {
        name,
        masters,
        token_file,
        data_dir,
        slots,
        labels,
        heartbeat_interval,
        answer_timeout,
        stop_timeout,
        stop_grace,
        on_stop,
        min_free,
        history_size,
        history_keep,
        log_format,
        connections,
        datax,
        backup,
        kinds,
    });
    assert_eq!(documented.keys().copied().collect::<BTreeSet<_>>(), known);
    let config = ExecutorConfig::new("a".parse().unwrap(), Vec::new(), PathBuf::new(), PathBuf::new());
    for (key, default) in [
        ("heartbeat_interval", ShowDuration(config.heartbeat_interval).to_string()),
        ("answer_timeout", ShowDuration(config.answer_timeout).to_string()),
        ("stop_timeout", ShowDuration(config.stop_timeout).to_string()),
        ("stop_grace", ShowDuration(config.stop_grace).to_string()),
        ("min_free", format!("{}MiB", config.min_free >> 20)),
        ("log_format", format!("{:?}", config.log_format).to_lowercase()),
        ("name", "must be given".to_owned()),
        ("masters", "must be given".to_owned()),
        ("token_file", "must be given".to_owned()),
        ("data_dir", "must be given".to_owned()),
    ] {
        assert_eq!(documented[key], default, "{key}");
    }
    assert!(config.labels.is_empty() && config.connections.is_empty() && config.kinds.is_empty());
}

#[test]
fn every_key_of_the_tables_of_an_executor_is_documented() {
    let operations = document("operations.md");
    let part = section(&operations, "### Settings of an executor");
    let known = [
        (
            "Key of `connections.NAME`",
            fields!(Connection { engine, host, port, user, password, password_file, database, path }),
        ),
        ("Key of `datax`", fields!(Installation { home, start, jvm, env, jobs_dir })),
        ("Key of `backup`", fields!(backup::Settings { client, target })),
        (
            "Key of `kinds.NAME`",
            fields!(Declaration { argv, parameters, env, cwd, description, skip_exit_codes }),
        ),
    ];
    for (title, known) in known {
        assert_eq!(keys(part, title), known, "{title}");
    }
}

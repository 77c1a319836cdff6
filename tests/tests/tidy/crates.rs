//! The boundaries between the crates, read from cargo: which package may see which, and what stays out of the core.

use std::process::Command;

use crate::{
    finding::{Finding, expect_none},
    source::root,
};

/// Which of our packages each of our packages may build on. Tests of a package are not restricted.
const MAY_SEE: &[(&str, &[&str])] = &[
    ("millrace-common", &[]),
    ("millrace-runtime", &["millrace-common"]),
    ("millrace-proto", &["millrace-common"]),
    ("millrace-core", &["millrace-common"]),
    ("millrace-store", &["millrace-common", "millrace-core"]),
    (
        "millrace-master",
        &[
            "millrace-common",
            "millrace-checker",
            "millrace-runtime",
            "millrace-proto",
            "millrace-core",
            "millrace-store",
        ],
    ),
    ("millrace-transfer", &["millrace-common"]),
    ("millrace-kinds", &["millrace-common", "millrace-runtime", "millrace-transfer"]),
    ("millrace-spawn", &[]),
    (
        "millrace-executor",
        &[
            "millrace-common",
            "millrace-runtime",
            "millrace-proto",
            "millrace-kinds",
            "millrace-spawn",
            "millrace-transfer",
        ],
    ),
    ("millrace-masterctl", &["millrace-common", "millrace-runtime", "millrace-proto"]),
    (
        "millrace-standalone",
        // The demo makes its own input.
        &[
            "millrace-common",
            "millrace-runtime",
            "millrace-proto",
            "millrace-master",
            "millrace-executor",
            "millrace-examples",
        ],
    ),
    ("millrace-examples", &[]),
    // It judges the others' histories, so it knows none of their code.
    ("millrace-checker", &["millrace-common"]),
    // All that it needs it needs for tests: the core's feature for tests reaches no program.
    ("millrace-simulation", &[]),
    // It starts programs as anybody would; its client speaks the wire.
    ("millrace-servers", &["millrace-proto"]),
    ("xtask", &[]),
];

/// Packages that measure or test the others and may see all of them.
const SEE_ALL: [&str; 3] = ["millrace-tests", "millrace-bench", "millrace-rig"];

/// Families of crates whose types stay behind an edge: the family, who may use it, and why nobody else does.
const FENCED: &[(&str, &[&str], &str)] = &[
    (
        "sqlx",
        &["millrace-store", "millrace-transfer", "millrace-kinds", "millrace-examples"],
        "SQL is in the store, and in task kinds that move other people's rows",
    ),
    (
        "tonic",
        &[
            "millrace-proto",
            "millrace-master",
            "millrace-executor",
            "millrace-masterctl",
            "millrace-standalone",
            "millrace-servers",
        ],
        "the wire ends at the programs",
    ),
    ("prost", &["millrace-proto"], "messages are converted where they are generated"),
    ("axum", &["millrace-master"], "only the master serves HTTP"),
    ("etcd-client", &["millrace-master"], "only masters coordinate"),
];

/// All that the core builds on directly.
const CORE_SEES: [&str; 3] = ["millrace-common", "petgraph", "thiserror"];

/// Families of crates that the core may not build on, directly or through others.
const NOT_IN_CORE: &[(&str, &[&str])] = &[
    (
        "a runtime or threads",
        &[
            "tokio",
            "async-std",
            "async-executor",
            "async-io",
            "smol",
            "futures-executor",
            "rayon",
            "crossbeam",
        ],
    ),
    (
        "sockets or what is built on them",
        &[
            "mio",
            "socket2",
            "hyper",
            "h2",
            "tower",
            "tonic",
            "axum",
            "reqwest",
            "rustls",
            "etcd-client",
            "suppaftp",
        ],
    ),
    ("a database", &["sqlx", "libsqlite3-sys", "rusqlite"]),
    ("a clock", &["time", "jiff", "quanta", "coarsetime", "iana-time-zone", "web-time"]),
    ("randomness", &["rand", "getrandom", "fastrand", "oorandom"]),
    ("the operating system", &["nix", "rustix", "signal-hook", "tempfile", "notify"]),
    ("a subscriber or a global", &["tracing", "log", "env_logger", "metrics"]),
];

/// What comes with a crate of the vocabulary although nobody calls it: the crate, what it brings, why that is harmless.
const TOLERATED: &[(&str, &str, &str)] = &[
    ("uuid", "getrandom", "serves only new_v4 and now_v7, which master/core/clippy.toml bans"),
    ("chrono", "iana-time-zone", "serves only Local, which master/core/clippy.toml bans"),
];

#[test]
fn packages_see_only_what_is_below_them() {
    let mut findings = Vec::new();
    for package in packages() {
        let Some((_, allowed)) = MAY_SEE.iter().find(|(name, _)| *name == package.name) else {
            if !SEE_ALL.contains(&package.name.as_str()) {
                let what = format!("{} is not in MAY_SEE of crates.rs", package.name);
                findings.push(Finding::at(&package.manifest, 0, what));
            }
            continue;
        };
        for needed in package.needs.iter().filter(|needed| needed.is_built && is_ours(&needed.name)) {
            if !allowed.contains(&needed.name.as_str()) {
                let what = format!("{} may not build on {}", package.name, needed.name);
                findings.push(Finding::at(&package.manifest, 0, what));
            }
        }
    }
    expect_none(findings, "move the shared part down, or turn the call round; dependencies point one way");
}

#[test]
fn foreign_types_stay_behind_their_edge() {
    let mut findings = Vec::new();
    for package in packages().iter().filter(|package| !SEE_ALL.contains(&package.name.as_str())) {
        for needed in &package.needs {
            for (family, users, reason) in FENCED {
                if is_of_family(&needed.name, family) && !users.contains(&package.name.as_str()) {
                    let what = format!("{} may not use {}: {reason}", package.name, needed.name);
                    findings.push(Finding::at(&package.manifest, 0, what));
                }
            }
        }
    }
    expect_none(
        findings,
        "ask the crate behind the edge for what is needed, in the words of millrace-common",
    );
}

#[test]
fn the_core_builds_on_three_crates() {
    let findings = packages()
        .iter()
        .filter(|package| package.name == "millrace-core")
        .flat_map(|package| &package.needs)
        .filter(|needed| needed.is_built && !CORE_SEES.contains(&needed.name.as_str()))
        .map(|needed| Finding::at("master/core/Cargo.toml", 0, format!("builds on {}", needed.name)))
        .collect();
    expect_none(findings, "the core decides: pass values in through `Input`, or do the work in the shell");
}

#[test]
fn nothing_under_the_core_has_a_runtime_a_socket_or_a_clock() {
    let edges = core_edges();
    let mut findings = Vec::new();
    for (user, used) in &edges {
        let forbidden =
            NOT_IN_CORE.iter().find(|(_, families)| families.iter().any(|family| is_of_family(used, family)));
        let is_tolerated = TOLERATED.iter().any(|(by, what, _)| user == by && used == what);
        if let Some((kind, _)) = forbidden
            && !is_tolerated
        {
            let what = format!("millrace-core reaches {used} through {user}: {kind}");
            findings.push(Finding::at("master/core/Cargo.toml", 0, what));
        }
    }
    for (by, what, _) in TOLERATED {
        if !edges.iter().any(|(user, used)| user == by && used == what) {
            let what = format!("{by} does not bring {what} any more: delete it from TOLERATED");
            findings.push(Finding::at("tests/tests/tidy/crates.rs", 0, what));
        }
    }
    expect_none(
        findings,
        "drop the feature or the crate that brings it; `cargo tree -p millrace-core -e normal -i NAME`",
    );
}

struct Package {
    name: String,
    /// From the top of the repository.
    manifest: String,
    needs: Vec<Need>,
}

struct Need {
    name: String,
    /// Whether it is needed beyond the package's tests.
    is_built: bool,
}

fn packages() -> Vec<Package> {
    let text = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: serde_json::Value = serde_json::from_str(&text).expect("cargo metadata answers in JSON");
    let packages = metadata["packages"].as_array().expect("cargo metadata lists packages");
    packages.iter().map(package).collect()
}

fn package(value: &serde_json::Value) -> Package {
    let text = |value: &serde_json::Value| value.as_str().expect("cargo metadata names things").to_string();
    let manifest = text(&value["manifest_path"]);
    let needs = value["dependencies"].as_array().expect("cargo metadata lists dependencies").iter();
    Package {
        name: text(&value["name"]),
        manifest: manifest.trim_start_matches(&*root().to_string_lossy()).trim_start_matches('/').to_string(),
        needs: needs
            .map(|need| Need { name: text(&need["name"]), is_built: need["kind"] != "dev" })
            .collect(),
    }
}

/// Returns who uses whom among all that the core is built from.
fn core_edges() -> Vec<(String, String)> {
    edges(&cargo(&["tree", "-p", "millrace-core", "-e", "normal", "--prefix", "depth"]))
}

/// Reads lines such as `2getrandom v0.4.3`: the depth, the name, the version.
fn edges(tree: &str) -> Vec<(String, String)> {
    let mut path: Vec<String> = Vec::new();
    let mut edges = Vec::new();
    for line in tree.lines() {
        let digits = line.bytes().take_while(u8::is_ascii_digit).count();
        let Ok(depth) = line[..digits].parse::<usize>() else { continue };
        let name =
            line[digits..].split(' ').next().expect("a line of cargo tree names a package").to_string();
        path.truncate(depth);
        if let Some(user) = path.last() {
            edges.push((user.clone(), name.clone()));
        }
        path.push(name);
    }
    assert!(!edges.is_empty(), "cargo tree printed no dependency:\n{tree}");
    edges
}

fn cargo(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).current_dir(root()).args(args).arg("--offline").output();
    let output = output.expect("cargo built this test, so that it can be started");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo {} failed: {errors}", args.join(" "));
    String::from_utf8(output.stdout).expect("cargo prints text")
}

fn is_ours(name: &str) -> bool {
    name == "xtask" || name.starts_with("millrace-")
}

/// Returns whether a crate is the one that names a family or a satellite of it, such as `tokio-util` of `tokio`.
fn is_of_family(name: &str, family: &str) -> bool {
    name.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with(['-', '_']))
}

mod tests {
    use super::{edges, is_of_family};

    #[test]
    fn a_family_is_its_crate_and_the_satellites() {
        assert!(is_of_family("tokio", "tokio") && is_of_family("tokio-util", "tokio"));
        assert!(is_of_family("rand_core", "rand"));
        assert!(!is_of_family("random", "rand") && !is_of_family("my-tokio", "tokio"));
    }

    #[test]
    fn a_tree_by_depth_gives_who_uses_whom() {
        let found = edges("0a v1 (/x)\n1b v1\n2c v1\n1d v1 (proc-macro)\n2c v1 (*)\n");
        let expected = [("a", "b"), ("b", "c"), ("a", "d"), ("d", "c")];
        assert_eq!(found, expected.map(|(user, used)| (user.to_string(), used.to_string())));
    }
}

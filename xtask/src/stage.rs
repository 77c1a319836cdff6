//! `cargo xtask test`: every check, in order, each timed and counted.
//!
//! The first stage that fails ends the run, and the table at the end says what ran. All stages use the dev profile and
//! the whole workspace with its tests, so that cargo decides on one set of features and builds nothing twice.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::{
    command::{cargo, is_on_path, run as run_command, run_read, target_dir},
    count::{self, Counts},
    deny, faults, setup,
};

/// Longest that all stages may take on two cores from a clean checkout; beyond it people stop running them.
const TOTAL_MAX: Duration = Duration::from_mins(35);

/// The package of the tests that run whole programs.
const E2E_PACKAGE: &str = "millrace-tests";

/// The one test program of that package that starts nothing: the repository's rules.
const TIDY: &str = "tidy";

/// One check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Stage {
    /// What the tests need is installed
    Setup,
    /// Formatting
    Fmt,
    /// Everything compiles
    Build,
    /// Lints
    Clippy,
    /// Licences, banned crates, sources, advisories
    Deny,
    /// Unit, scenario, property, simulation, conformance and tidy tests
    Tests,
    /// Examples in documentation comments
    DocTests,
    /// Documentation without broken links
    Docs,
    /// Whole programs, real servers, injected faults
    E2e,
    /// The fault rig's selection: a whole cluster in network namespaces
    Faults,
}

/// How a stage ended.
#[derive(Debug)]
struct Report {
    stage: Stage,
    passed: bool,
    took: Duration,
    counts: Counts,
}

/// Runs the stages asked for, or all.
pub(crate) fn run(only: &[Stage]) -> Result<ExitCode> {
    let stages: Vec<Stage> = Stage::value_variants()
        .iter()
        .copied()
        .filter(|stage| only.is_empty() || only.contains(stage))
        .collect();
    let mut reports = Vec::new();
    for stage in &stages {
        println!("\n=== {}", name(*stage));
        let report = run_stage(*stage);
        let passed = report.passed;
        reports.push(report);
        if !passed {
            break;
        }
    }
    print_table(&stages, &reports);
    let passed = reports.iter().all(|report| report.passed);
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::disallowed_methods, reason = "a stopwatch for people; nothing is decided by it")]
fn run_stage(stage: Stage) -> Report {
    let begun = Instant::now();
    let (passed, mut counts) = check(stage).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        (false, Counts::default())
    });
    // The closing line shall never say "0 failed" of a run that failed.
    if !passed && counts.failed == 0 {
        counts.failed = 1;
    }
    Report { stage, passed, took: begun.elapsed(), counts }
}

fn check(stage: Stage) -> Result<(bool, Counts)> {
    match stage {
        Stage::Setup => check_setup(),
        Stage::Fmt => check_by(&["fmt", "--all", "--check"]),
        Stage::Build => check_by(&["build", "--workspace", "--all-targets"]),
        Stage::Clippy => check_by(&["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]),
        Stage::Deny => check_deny(),
        Stage::Tests => {
            check_tests(&format!("not package({E2E_PACKAGE}) or binary(/^{TIDY}$/)"), &cargo_tests())
        }
        Stage::DocTests => {
            run_tests(&[vec!["test".into(), "--doc".into(), "--workspace".into(), "--no-fail-fast".into()]])
        }
        Stage::Docs => check_docs(),
        Stage::E2e => check_e2e(),
        Stage::Faults => check_faults(),
    }
}

fn check_by(args: &[&str]) -> Result<(bool, Counts)> {
    Ok((run_command(&mut cargo(args))?.success(), Counts::default()))
}

fn check_setup() -> Result<(bool, Counts)> {
    let outcome = setup::install()?;
    outcome.announce();
    let mut counts = Counts::default();
    match outcome {
        setup::Outcome::Ready => {}
        setup::Outcome::NeedsRoot(_) => return Ok((false, counts)),
        // The tests that miss a server say so themselves.
        setup::Outcome::Foreign => {
            counts.skipped.insert("setup: this machine has no Debian packages".to_string());
        }
    }
    Ok((true, counts))
}

fn check_deny() -> Result<(bool, Counts)> {
    let mut counts = Counts::default();
    let passed = match deny::check()? {
        deny::Verdict::Clean => true,
        deny::Verdict::Refused => false,
        deny::Verdict::WithoutAdvisories(reason) => {
            counts.skipped.insert(format!("advisories: {reason}"));
            true
        }
    };
    Ok((passed, counts))
}

fn check_docs() -> Result<(bool, Counts)> {
    let mut doc = cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"]);
    Ok((run_command(doc.env("RUSTDOCFLAGS", "-D warnings"))?.success(), Counts::default()))
}

fn check_e2e() -> Result<(bool, Counts)> {
    // The programs under test belong to other packages, so that running the tests alone would not build them.
    let built = check_by(&["build", "--workspace", "--all-targets"])?;
    if !built.0 {
        return Ok(built);
    }
    let mut fallback: Vec<String> = ["test", "-p", E2E_PACKAGE, "--no-fail-fast"].map(String::from).into();
    let targets = e2e_targets()?;
    if targets.is_empty() {
        bail!("{E2E_PACKAGE} has no tests of whole programs");
    }
    for target in targets {
        fallback.extend(["--test".to_string(), target]);
    }
    fallback.extend(["--", "--test-threads", "2"].map(String::from));
    check_tests(&format!("package({E2E_PACKAGE}) and not binary(/^{TIDY}$/)"), &[fallback])
}

fn check_faults() -> Result<(bool, Counts)> {
    // The whole workspace, as in the other stages: a build of some packages decides on other features.
    let built = check_by(&["build", "--workspace", "--all-targets"])?;
    if !built.0 {
        return Ok(built);
    }
    let skips = skip_file()?;
    let mut rig = faults::rig(&["--selection".to_owned()])?;
    let (status, lines) = run_read(rig.env("MILLRACE_SKIP_FILE", &skips))?;
    let said = fs::read_to_string(&skips).with_context(|| format!("cannot read {}", skips.display()))?;
    let counts = Counts { skipped: count::read_skips(&said), ..count::read_rig(&lines) };
    Ok((status.success(), counts))
}

/// Runs what the filter selects by nextest, or where that is not installed the `cargo test` commands.
fn check_tests(filter: &str, fallback: &[Vec<String>]) -> Result<(bool, Counts)> {
    if !is_on_path("cargo-nextest") {
        println!(
            "cargo-nextest is not installed: using cargo test, which is slower and runs tests in one process"
        );
        return run_tests(fallback);
    }
    let nextest = ["nextest", "run", "--workspace", "--profile", "ci", "--filterset", filter];
    run_tests(&[nextest.map(String::from).into()])
}

/// Runs each cargo command, all of them even if one fails, and counts what their tests did.
fn run_tests(commands: &[Vec<String>]) -> Result<(bool, Counts)> {
    let skips = skip_file()?;
    let mut passed = true;
    let mut counts = Counts::default();
    for args in commands {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let (status, lines) = run_read(cargo(&args).env("MILLRACE_SKIP_FILE", &skips))?;
        passed &= status.success();
        counts += &count::read(&lines);
    }
    let said = fs::read_to_string(&skips).with_context(|| format!("cannot read {}", skips.display()))?;
    counts.set_skipped(count::read_skips(&said));
    Ok((passed, counts))
}

/// Makes the empty file to which tests that cannot run here append a line with their reason.
fn skip_file() -> Result<PathBuf> {
    let folder = target_dir().join("xtask");
    let path = folder.join("skipped.txt");
    fs::create_dir_all(&folder).and_then(|()| fs::write(&path, "")).with_context(|| {
        format!("cannot write {}, where tests that cannot run here leave their reasons", path.display())
    })?;
    Ok(path)
}

/// Returns the commands that run, without nextest, all tests but those of whole programs.
fn cargo_tests() -> [Vec<String>; 2] {
    let others = ["test", "--workspace", "--exclude", E2E_PACKAGE, "--tests", "--no-fail-fast"];
    let tidy = ["test", "-p", E2E_PACKAGE, "--test", TIDY];
    [others.map(String::from).into(), tidy.map(String::from).into()]
}

/// Returns the names of the test programs that run whole programs.
fn e2e_targets() -> Result<BTreeSet<String>> {
    let output = cargo(&["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let metadata: serde_json::Value =
        serde_json::from_slice(&output.stdout).context("cannot read the answer of cargo metadata")?;
    let packages = metadata["packages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let targets = packages
        .iter()
        .filter(|package| package["name"] == E2E_PACKAGE)
        .filter_map(|package| package["targets"].as_array())
        .flatten()
        .filter(|target| target["kind"][0] == "test" && target["name"] != TIDY)
        .filter_map(|target| target["name"].as_str().map(String::from));
    Ok(targets.collect())
}

fn name(stage: Stage) -> String {
    stage.to_possible_value().map(|value| value.get_name().to_string()).unwrap_or_default()
}

fn print_table(stages: &[Stage], reports: &[Report]) {
    println!("\n{:<12}{:<10}{:>8}{:>9}{:>8}{:>9}", "stage", "result", "time", "passed", "failed", "skipped");
    let mut total = Counts::default();
    let mut took = Duration::ZERO;
    for report in reports {
        let Report { stage, passed, counts, .. } = report;
        let result = if *passed { "ok" } else { "FAILED" };
        print_row(&name(*stage), result, report.took, counts);
        total += counts;
        took += report.took;
    }
    for stage in &stages[reports.len()..] {
        println!("{:<12}{:<10}", name(*stage), "not run");
    }
    print_row("total", "", took, &total);
    if took > TOTAL_MAX {
        println!("\nThis took longer than {} minutes: something has become slow.", TOTAL_MAX.as_secs() / 60);
    }
    if !total.skipped.is_empty() {
        println!("\nSkipped:");
        for skip in &total.skipped {
            println!("  {skip}");
        }
    }
    println!("\n{}", total.summary());
}

fn print_row(stage: &str, result: &str, took: Duration, counts: &Counts) {
    let time = format!("{}:{:02}", took.as_secs() / 60, took.as_secs() % 60);
    let Counts { passed, failed, skipped } = counts;
    println!("{stage:<12}{result:<10}{time:>8}{passed:>9}{failed:>8}{:>9}", skipped.len());
}

//! Many clusters in virtual time, each from a seed: masters that crash, stand still and are deposed between any two of
//! their steps, executors that lose programs, machines and disks, networks that hold back and drop, clocks that err.
//! A checker that knows nothing of the core goes over all that happens.
//!
//! `MILLRACE_SIM_SEEDS` says how many seeds are tried, `MILLRACE_SIM_SEED` replays one and prints what happened.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::print_stdout, clippy::disallowed_macros, reason = "a replayed seed is there to be read")]

mod checker;
mod clients;
mod clock;
mod executor;
mod leader;
mod machine;
mod network;
mod plan;
#[path = "../reference/mod.rs"]
mod reference;
mod store;
mod world;

use std::collections::BTreeSet;

use millrace_core::testing::Mutation;

use self::{
    plan::Plan,
    world::{History, World},
};

/// Seeds that are tried where nothing else is asked for.
const SEEDS: u64 = 2_000;
/// Seeds within which each planted fault must be found.
const PLANTED_SEEDS: usize = 1_000;
/// Seeds that are run twice.
const REPEATED_SEEDS: u64 = 25;
/// Seeds within which everything that is checked must have happened.
const SEEN_SEEDS: u64 = 400;
/// Lines of the trace that are shown of a seed that fails.
const LINES_SHOWN: usize = 60;

#[expect(clippy::disallowed_methods, reason = "which seeds to run is asked for by the environment")]
fn asked(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().unwrap())
}

fn run(seed: u64, mutation: Option<Mutation>, is_traced: bool) -> History {
    World::new(Plan::of(seed), mutation, is_traced).run()
}

/// One seed is asked for, and nothing else is of interest.
fn is_replay() -> bool {
    asked("MILLRACE_SIM_SEED").is_some()
}

fn complain(seed: u64, violation: &str) -> ! {
    let lines = run(seed, None, true).lines;
    let shown = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n");
    let plan = Plan::of(seed);
    panic!("seed {seed}: {violation}\n\n{plan:#?}\n\n{shown}\n\nreplay with: cargo xtask sim --seed {seed}");
}

/// Runs the seeds of which `part` of `parts` is asked for, so that several processors are used.
fn run_part(part: u64, parts: u64) {
    if let Some(seed) = asked("MILLRACE_SIM_SEED") {
        if part == 0 {
            replay(seed);
        }
        return;
    }
    let seeds = asked("MILLRACE_SIM_SEEDS").unwrap_or(SEEDS);
    for seed in (part..seeds).step_by(usize::try_from(parts).unwrap()) {
        if let Some(violation) = run(seed, None, false).violation {
            complain(seed, &violation);
        }
    }
}

fn replay(seed: u64) {
    let history = run(seed, None, true);
    history.lines.iter().for_each(|line| println!("{line}"));
    if let Some(violation) = history.violation {
        complain(seed, &violation);
    }
    println!("seed {seed} breaks nothing");
}

#[test]
fn no_even_seed_breaks_an_invariant() {
    run_part(0, 2);
}

#[test]
fn no_odd_seed_breaks_an_invariant() {
    run_part(1, 2);
}

#[test]
fn a_seed_tells_the_same_history_twice() {
    for seed in 0..if is_replay() { 0 } else { REPEATED_SEEDS } {
        assert_eq!(run(seed, None, false), run(seed, None, false), "seed {seed}");
    }
}

/// A check of what never happens proves nothing.
#[test]
fn everything_that_is_checked_happens() {
    const EXPECTED: [&str; 37] = [
        "attempt assigned -> lost by OrphanTimePassed",
        "attempt assigned -> rejected by Refused",
        "attempt killing -> killed by CleanSlate",
        "attempt killing -> killed by Rebooted",
        "attempt killing -> killed by Reported",
        "attempt killing -> lost by OrphanTimePassed",
        "attempt killing -> succeeded by Reported",
        "attempt killing -> timed_out by Reported",
        "attempt running -> failed by Reported",
        "attempt running -> lost by CleanSlate",
        "attempt running -> lost by OrphanTimePassed",
        "attempt running -> lost by Rebooted",
        "attempt running -> lost by Reported",
        "attempt running -> succeeded by Reported",
        "counted heartbeat_without_session",
        "counted report_of_ended_attempt",
        "counted report_without_session",
        "counted request",
        "intervals passed over",
        "leader ends: a commit failed",
        "leader ends: it crashes after a decision",
        "leader ends: it crashes before a commit",
        "leader ends: it crashes while it releases",
        "leader ends: its authority is over",
        "run by schedule",
        "run ending: cancelled on request",
        "run ending: the run took longer than its time-out",
        "run of a retry",
        "run paused -> cancelled",
        "run paused -> running",
        "run queued -> cancelled",
        "run running -> failed",
        "task active -> ready",
        "task active -> skipped",
        "task active -> up_for_retry",
        "task waiting -> success",
        "task waiting -> upstream_failed",
    ];
    if is_replay() {
        return;
    }
    let seen: BTreeSet<String> = (0..SEEN_SEEDS).flat_map(|seed| run(seed, None, false).seen).collect();
    let missing: Vec<&str> = EXPECTED.into_iter().filter(|expected| !seen.contains(*expected)).collect();
    assert!(missing.is_empty(), "never within {SEEN_SEEDS} seeds: {missing:#?}");
}

/// Tells whether a plan can show a planted fault at all; most can show most.
fn suits(mutation: Mutation, plan: &Plan) -> bool {
    match mutation {
        // Shown only by clocks that err as much as they may, and an executor that is cut off at the right moment.
        Mutation::AuthorityIgnored | Mutation::ClockErrorIgnored => plan.is_tight,
        _ => true,
    }
}

#[test]
fn every_planted_fault_is_found() {
    if is_replay() {
        return;
    }
    let mut missed = Vec::new();
    for mutation in Mutation::ALL {
        let seeds = (0..).filter(|seed| suits(mutation, &Plan::of(*seed)));
        let found = seeds
            .take(PLANTED_SEEDS)
            .find_map(|seed| Some((seed, run(seed, Some(mutation), false).violation?)));
        match found {
            Some((seed, violation)) => println!("{mutation:?}: seed {seed}: {violation}"),
            None => missed.push(mutation),
        }
    }
    assert!(missed.is_empty(), "not found within {PLANTED_SEEDS} seeds: {missed:?}");
}

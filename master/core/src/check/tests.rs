//! Each way in which a state can be wrong is found: a check that finds nothing proves nothing.

use super::*;
use crate::{
    Hello, Input, Limits, Request, RequestId, SetSetting, StartRun, state::Run as LiveRun, testing::Harness,
    timers::Timers,
};
use millrace_common::{
    definition,
    id::{InstanceId, SessionId, SpoolId},
};
use std::{sync::Arc, time::Duration};

const DEFINITION: &str = "\
workflow: w
schedule: { every: 1h }
timeout: 1h
max_active_runs: 2
tasks:
  a: { kind: shell, pool: small, with: { command: [make] } }
  b: { kind: shell, after: a, with: { command: [make] } }
  c: { kind: shell, retries: 1, with: { command: [make] } }
  d: { kind: shell, with: { command: [make] } }
";

/// A leader with one run: `a` and `c` are active, `b` waits for `a`, `d` for a slot.
fn leader() -> Harness {
    let mut harness =
        Harness::new(Limits { pools: [("small".parse().unwrap(), 1)].into(), ..Limits::default() });
    let workflow = Arc::new(definition::parse(DEFINITION).unwrap());
    harness.input(Input::Requested(
        RequestId(1),
        Request::ApplyWorkflow { workflow, source: DEFINITION.into() },
    ));
    let hello = Hello {
        executor: "x1".parse().unwrap(),
        slots: 2,
        labels: BTreeMap::new(),
        kinds: vec!["shell".to_owned()],
        spool: SpoolId("00000000-0000-7000-8000-000000000001".parse().unwrap()),
        machine: Some("machine".into()),
        boot: "boot".into(),
        is_clean: true,
        is_space_low: false,
        version: "test".into(),
        process: None,
        spool_facts: 0,
        held: Vec::new(),
    };
    harness.input(Input::ExecutorConnected(SessionId(1), Box::new(hello)));
    let workflow = "w".parse().unwrap();
    let start = StartRun { workflow, params: "{}".into(), logical_date: None, idempotency_key: None };
    harness.input(Input::Requested(RequestId(2), Request::StartRun(start)));
    harness
}

/// Returns the rules that are broken after `spoil`.
fn broken(spoil: impl FnOnce(&mut Scheduler)) -> Vec<&'static str> {
    let mut harness = leader();
    assert_eq!((violations(&harness.scheduler), orphans(&harness.scheduler)), (Vec::new(), Vec::new()));
    spoil(&mut harness.scheduler);
    let mut found: Vec<_> = violations(&harness.scheduler);
    found.extend(orphans(&harness.scheduler));
    found.extend(over_limit(&harness.scheduler));
    found.into_iter().map(|violation| violation.rule).collect()
}

fn run(scheduler: &mut Scheduler) -> &mut LiveRun {
    scheduler.state.runs.values_mut().next().unwrap()
}

fn instance(scheduler: &mut Scheduler, index: InstanceIndex) -> InstanceId {
    run(scheduler).instance_id(index)
}

#[test]
fn what_contradicts_itself_is_found() {
    assert_eq!(broken(|scheduler| run(scheduler).unfinished += 1), ["unfinished"]);
    assert_eq!(broken(|scheduler| run(scheduler).instances[1].upstream.success = 1), ["I11", "L1"]);
    assert_eq!(broken(|scheduler| run(scheduler).instances[0].attempts = 2), ["I3"]);
    assert_eq!(broken(|scheduler| run(scheduler).instances[0].live = None), ["I3", "I15", "L1"]);
    assert_eq!(broken(|scheduler| run(scheduler).state = RunState::Paused), ["queue"]);
    assert_eq!(
        broken(|scheduler| scheduler.state.catalog.values_mut().for_each(|entry| entry.active = 2)),
        ["I15"]
    );
    let take_slot = |scheduler: &mut Scheduler| {
        let attempt = instance(scheduler, 3).attempt(1);
        for executor in scheduler.state.executors.values_mut() {
            executor.live.insert(attempt);
        }
    };
    assert_eq!(broken(take_slot), ["I15"]);
}

#[test]
fn what_nothing_will_move_is_found() {
    let forget_timers = |scheduler: &mut Scheduler| scheduler.timers = Timers::default();
    assert_eq!(broken(forget_timers), ["L1", "L1"], "the run's time-out and the schedule");
    let silence = |scheduler: &mut Scheduler| {
        scheduler.state.executors.values_mut().for_each(|executor| executor.session = None);
    };
    assert_eq!(broken(silence), ["L1", "L1"], "two attempts of an executor that is gone");
    let end = |scheduler: &mut Scheduler| run(scheduler).ending = Some((RunState::Failed, "why".into()));
    assert_eq!(
        broken(end),
        ["queue", "L1", "L1"],
        "an instance that waits and one that is ready in a run that is to end"
    );
}

#[test]
fn a_pool_that_holds_more_than_it_can_is_found_apart() {
    assert_eq!(broken(|scheduler| scheduler.limits.pools.values_mut().for_each(|limit| *limit = 0)), ["I15"]);
    let mut harness = leader();
    harness.scheduler.limits.pools.clear();
    assert!(violations(&harness.scheduler).is_empty(), "no contradiction, whatever the pools are");
}

#[test]
fn nothing_is_wrong_while_time_passes() {
    let mut harness = leader();
    harness.advance(Duration::from_secs(3 * 3_600));
    assert_eq!(violations(&harness.scheduler), []);
}

#[test]
fn what_is_given_to_something_that_is_full_is_found() {
    let mut harness = leader();
    let run = run(&mut harness.scheduler).created.run;
    let attempt = InstanceId { run, index: 0 }.attempt(1);
    let change = Change::AttemptAssigned {
        attempt,
        executor: "x1".parse().unwrap(),
        spool: SpoolId("00000000-0000-7000-8000-000000000001".parse().unwrap()),
        machine: None,
        at: harness.now.wall,
    };
    let found = |harness: &Harness| overfilled(&harness.scheduler, std::slice::from_ref(&change)).len();
    assert_eq!(found(&harness), 0);
    let set = |name: &str| {
        let (text, by) = (Some("0".into()), "alice".into());
        Request::SetSetting(SetSetting { name: name.into(), text, by })
    };
    harness.input(Input::Requested(RequestId(3), set("pools.small")));
    assert_eq!(found(&harness), 1);
    assert!(overfilled(&harness.scheduler, &[]).is_empty(), "what it has it keeps");
    harness.input(Input::Requested(RequestId(4), set("executors.x1.slots")));
    assert_eq!(found(&harness), 2);
}

//! The core against a small reference model: whatever the graph, the policies, the outcomes and the order in which things
//! happen, every task instance ends as the model says.
//!
//! The model knows no time, no executors and no order: it walks the graph once and reads from the plan what each attempt
//! does. Whatever the core does beyond that must not show in the end.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc, time::Duration};

use millrace_checker::{RULES, Says, says};
use millrace_common::{
    definition,
    id::{AttemptId, InstanceId, RunId, SessionId, SpoolId},
    state::{AttemptState, RunState, TaskState},
};
use millrace_core::{
    AttemptEnd, Change, Effect, Held, Hello, Input, Limits, Message, Proof, RejectReason, Report, Request,
    RequestId, StartRun,
    testing::{Harness, MemoryStore},
};
use proptest::prelude::*;

const TASKS_MAX: usize = 8;
/// Steps after which a run must have ended: each task has a handful of attempts of a handful of messages.
const STEPS_MAX: usize = 2_000;

/// What an attempt does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Succeeds,
    Skips,
    Fails,
    FailsForGood,
    TimesOut,
    IsLost,
    IsRejected,
}

#[derive(Debug, Clone)]
struct Planned {
    /// Bits of the earlier tasks that come before it.
    after: u8,
    rule: usize,
    retries: u32,
    /// What its attempts do, one after the other; the next one succeeds.
    outcomes: Vec<Outcome>,
}

#[derive(Debug, Clone)]
struct Plan {
    tasks: Vec<Planned>,
    /// Whether every task counts, and not the leaves only.
    all_count: bool,
    slots: u32,
    /// Decides what happens next, where several things may.
    seed: u64,
}

fn outcome() -> impl Strategy<Value = Outcome> {
    use Outcome::{Fails, FailsForGood, IsLost, IsRejected, Skips, Succeeds, TimesOut};
    prop_oneof![
        3 => Just(Succeeds),
        2 => Just(Skips),
        3 => Just(Fails),
        1 => Just(FailsForGood),
        1 => Just(TimesOut),
        1 => Just(IsLost),
        1 => Just(IsRejected),
    ]
}

prop_compose! {
    fn planned()(
        after in any::<u8>(),
        rule in prop_oneof![3 => Just(0), 5 => 0..RULES.len()],
        retries in 0..3_u32,
        outcomes in prop::collection::vec(outcome(), 0..4),
    ) -> Planned {
        Planned { after, rule, retries, outcomes }
    }
}

prop_compose! {
    fn plan()(
        tasks in prop::collection::vec(planned(), 1..=TASKS_MAX),
        all_count in any::<bool>(),
        slots in 1..5_u32,
        seed in any::<u64>(),
    ) -> Plan {
        Plan { tasks, all_count, slots, seed }
    }
}

impl Plan {
    fn upstream(&self, index: usize) -> Vec<usize> {
        (0..index).filter(|up| self.tasks[index].after >> up & 1 == 1).collect()
    }

    fn definition(&self) -> String {
        let success = if self.all_count { "all" } else { "leaves" };
        let mut text = format!("workflow: w\nsuccess: {success}\ntasks:\n");
        for (index, task) in self.tasks.iter().enumerate() {
            let (rule, retries) = (RULES[task.rule].0, task.retries);
            let after: Vec<String> = self.upstream(index).iter().map(|up| format!("t{up}")).collect();
            let after = after.join(", ");
            writeln!(text, "  t{index}: {{ kind: shell, after: [{after}], trigger_rule: {rule}, retries: {retries}, with: {{ command: [make] }} }}")
                .unwrap();
        }
        text
    }

    fn outcome(&self, index: usize, number: u32) -> Outcome {
        self.tasks[index].outcomes.get(number as usize - 1).copied().unwrap_or(Outcome::Succeeds)
    }
}

/// Losses after which a task instance is quarantined.
const LOSSES_MAX: u32 = 3;

/// How a task ends that is run, and after how many attempts.
fn modelled_attempts(task: &Planned) -> (TaskState, u32) {
    let (mut failures, mut losses) = (0, 0);
    for (number, outcome) in (1..).zip(&task.outcomes) {
        match outcome {
            Outcome::Succeeds => return (TaskState::Success, number),
            Outcome::Skips => return (TaskState::Skipped, number),
            Outcome::FailsForGood => return (TaskState::Failed, number),
            Outcome::Fails | Outcome::TimesOut if failures == task.retries => {
                return (TaskState::Failed, number);
            }
            Outcome::Fails | Outcome::TimesOut => failures += 1,
            Outcome::IsLost if losses + 1 == LOSSES_MAX => return (TaskState::Failed, number),
            Outcome::IsLost => losses += 1,
            Outcome::IsRejected => {}
        }
    }
    (TaskState::Success, u32::try_from(task.outcomes.len()).unwrap() + 1)
}

/// The reference model: how everything ends.
fn modelled(plan: &Plan) -> (RunState, Vec<(TaskState, u32)>) {
    let mut ended: Vec<(TaskState, u32)> = Vec::new();
    for (index, task) in plan.tasks.iter().enumerate() {
        let upstream: Vec<TaskState> = plan.upstream(index).iter().map(|up| ended[*up].0).collect();
        ended.push(match says(RULES[task.rule].1, &upstream) {
            Says::Run => modelled_attempts(task),
            Says::Become(state) => (state, 0),
            Says::Wait => unreachable!("everything before it has ended"),
        });
    }
    let is_leaf = |index: usize| (0..plan.tasks.len()).all(|other| !plan.upstream(other).contains(&index));
    let is_failed = |state: TaskState| matches!(state, TaskState::Failed | TaskState::UpstreamFailed);
    let counts = |index: usize| plan.all_count || is_leaf(index);
    let any_failed = (0..plan.tasks.len()).any(|index| counts(index) && is_failed(ended[index].0));
    (if any_failed { RunState::Failed } else { RunState::Success }, ended)
}

fn end(outcome: Outcome, harness: &Harness) -> AttemptEnd {
    let (state, is_skipped, is_permanent) = match outcome {
        Outcome::Succeeds => (AttemptState::Succeeded, false, false),
        Outcome::Skips => (AttemptState::Succeeded, true, false),
        Outcome::Fails => (AttemptState::Failed, false, false),
        Outcome::FailsForGood => (AttemptState::Failed, false, true),
        Outcome::TimesOut => (AttemptState::TimedOut, false, false),
        Outcome::IsLost => (AttemptState::Lost, false, false),
        Outcome::IsRejected => (AttemptState::Rejected, false, false),
    };
    AttemptEnd {
        state,
        exit_code: None,
        reason: "".into(),
        values: None,
        is_skipped,
        is_permanent,
        started_at: None,
        ended_at: harness.now.wall,
        log_bytes: 0,
        reject_reason: RejectReason::Other,
        is_planned: false,
        proof: if state == AttemptState::Rejected { Proof::Refused } else { Proof::Reported },
    }
}

/// A leader with one executor that does what the plan says, in the order that the choices say.
struct World<'p> {
    plan: &'p Plan,
    harness: Harness,
    run: RunId,
    session: SessionId,
    /// What each attempt that was started still has to say.
    to_say: Vec<(AttemptId, Report)>,
    held: BTreeMap<AttemptId, Report>,
    changes: Vec<Change>,
    random: u64,
}

type Steps = Vec<(Vec<Change>, Vec<Effect>)>;

impl<'p> World<'p> {
    fn new(plan: &'p Plan) -> Self {
        Self::of(plan, &plan.definition())
    }

    /// Begins a run of a definition.
    fn of(plan: &'p Plan, source: &str) -> Self {
        // The one executor there is refuses as much as a plan says, and nobody is there to open it again.
        let harness =
            Harness::new(Limits { failed_starts_max: 0, losses_max: LOSSES_MAX, ..Limits::default() });
        let run = RunId::new(harness.now.wall, 0);
        let session = SessionId(0);
        let (to_say, held, changes) = (Vec::new(), BTreeMap::new(), Vec::new());
        let mut world = Self { plan, harness, run, session, to_say, held, changes, random: plan.seed };
        let workflow = Arc::new(definition::parse(source).unwrap());
        world.ask(Request::ApplyWorkflow { workflow, source: source.into() });
        world.connect();
        let workflow = "w".parse().unwrap();
        world.ask(Request::StartRun(StartRun {
            workflow,
            params: "{}".into(),
            logical_date: None,
            idempotency_key: None,
        }));
        world
    }

    /// Any of `among` things, by the mixing function of SplitMix64.
    fn choose(&mut self, among: usize) -> usize {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ (mixed >> 31)) % among as u64).unwrap()
    }

    fn ask(&mut self, request: Request) {
        let steps = self.harness.input(Input::Requested(RequestId(0), request));
        self.take(steps);
    }

    fn hello(&self) -> Box<Hello> {
        let held =
            self.held.iter().map(|(attempt, report)| Held { attempt: *attempt, report: report.clone() });
        Box::new(Hello {
            executor: "x".parse().unwrap(),
            slots: self.plan.slots,
            labels: BTreeMap::new(),
            kinds: vec!["shell".to_owned()],
            spool: SpoolId("00000000-0000-7000-8000-000000000001".parse().unwrap()),
            machine: Some("machine".into()),
            boot: "boot".into(),
            is_clean: false,
            is_space_low: false,
            version: "test".into(),
            process: None,
            spool_facts: 0,
            held: held.collect(),
        })
    }

    fn connect(&mut self) {
        self.session = SessionId(self.session.0 + 1);
        let steps = self.harness.input(Input::ExecutorConnected(self.session, self.hello()));
        self.take(steps);
    }

    /// Lets the executor hear what it is told.
    fn take(&mut self, steps: Steps) {
        for (changes, effects) in steps {
            for change in &changes {
                if let Change::RunCreated(created) = change {
                    self.run = created.run;
                }
            }
            self.changes.extend(changes);
            for effect in effects {
                let Effect::Send(_, message) = effect else { continue };
                match message {
                    Message::Start(start) if !self.held.contains_key(&start.attempt) => {
                        self.start(start.attempt)
                    }
                    Message::Ack(attempt) => drop(self.held.remove(&attempt)),
                    _ => {}
                }
            }
        }
    }

    fn start(&mut self, attempt: AttemptId) {
        if self.plan.tasks.is_empty() {
            return;
        }
        let outcome = self.plan.outcome(attempt.instance.index as usize, attempt.number);
        self.held.insert(attempt, Report::Accepted);
        let started = Report::Started { at: self.harness.now.wall };
        let mut reports = vec![Report::Accepted, started, Report::Ended(end(outcome, &self.harness))];
        if outcome == Outcome::TimesOut {
            reports.insert(2, Report::Killing);
        }
        self.to_say.extend(reports.into_iter().map(|report| (attempt, report)));
    }

    fn say(&mut self, attempt: AttemptId, report: Report) {
        self.held.insert(attempt, report.clone());
        let steps = self.harness.input(Input::AttemptReported { session: self.session, attempt, report });
        self.take(steps);
    }

    fn has_ended(&self) -> bool {
        self.harness.store.runs[&self.run].state.is_final()
    }

    /// Runs to the end; `step` lets one of the messages that are left be said.
    fn run(mut self, mut step: impl FnMut(&mut Self)) -> Self {
        for _ in 0..STEPS_MAX {
            if self.has_ended() {
                return self;
            }
            if self.to_say.is_empty() {
                let steps = self.harness.advance(Duration::from_secs(3_600));
                self.take(steps);
            } else {
                step(&mut self);
            }
        }
        panic!("the run does not end: {:?}", self.harness.store.runs[&self.run]);
    }

    fn outcome(&self) -> (RunState, Vec<(TaskState, u32)>) {
        let row = &self.harness.store.runs[&self.run];
        let task = |index: u32| {
            row.tasks.get(&index).map_or((TaskState::Waiting, 0), |task| (task.state, task.attempts))
        };
        (row.state, (0..u32::try_from(self.plan.tasks.len()).unwrap()).map(task).collect())
    }

    /// Says the next message of any attempt: each attempt's own come in order.
    fn in_order(&mut self) {
        let attempts: Vec<AttemptId> = self.to_say.iter().map(|(attempt, _)| *attempt).collect();
        let attempt = attempts[self.choose(attempts.len())];
        let at = self.to_say.iter().position(|(other, _)| *other == attempt).unwrap();
        let (attempt, report) = self.to_say.remove(at);
        self.say(attempt, report);
    }

    /// Says any message, perhaps twice, perhaps not for the last time.
    fn in_any_order(&mut self) {
        let at = self.choose(self.to_say.len());
        let (attempt, report) = self.to_say[at].clone();
        if self.choose(4) > 0 {
            self.to_say.remove(at);
        }
        self.say(attempt, report);
    }
}

fn stored(store: &MemoryStore) -> String {
    format!("{:#?} {:#?} {:#?}", store.workflows, store.runs, store.attempts)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn everything_ends_as_the_model_says(plan in plan()) {
        let world = World::new(&plan).run(World::in_order);
        prop_assert_eq!(world.outcome(), modelled(&plan), "{}", plan.definition());
    }

    #[test]
    fn repeated_and_disordered_messages_change_nothing(plan in plan()) {
        let world = World::new(&plan).run(World::in_any_order);
        prop_assert_eq!(world.outcome(), modelled(&plan), "{}", plan.definition());
    }

    #[test]
    fn a_leader_that_fails_at_any_moment_changes_nothing(plan in plan(), every in 1..5_usize) {
        let world = World::new(&plan).run(|world| {
            if world.choose(every) == 0 {
                let steps = world.harness.fail_over();
                world.take(steps);
                world.connect();
            }
            world.in_order();
        });
        prop_assert_eq!(world.outcome(), modelled(&plan), "{}", plan.definition());
    }

    #[test]
    fn the_changes_replayed_give_the_same_rows(plan in plan()) {
        let world = World::new(&plan).run(World::in_order);
        let mut replayed = MemoryStore::default();
        replayed.replay(&world.changes).unwrap();
        prop_assert_eq!(stored(&replayed), stored(&world.harness.store));
    }

    #[test]
    fn a_restored_leader_goes_on_as_the_live_one(plan in plan(), steps in 0..20_usize) {
        let mut world = World::new(&plan);
        for _ in 0..steps {
            if !world.to_say.is_empty() {
                world.in_order();
            }
        }
        let mut successor = world.harness.successor();
        // Both hear all that the executor holds, then the same messages in the same order.
        let (session, hello) = (SessionId(99), world.hello());
        let mut inputs = vec![Input::ExecutorConnected(session, hello)];
        inputs.extend(world.to_say.iter().map(|(attempt, report)| Input::AttemptReported {
            session,
            attempt: *attempt,
            report: report.clone(),
        }));
        for input in inputs {
            let of = |steps: Steps| steps.into_iter().flat_map(|(changes, _)| changes).collect::<Vec<_>>();
            prop_assert_eq!(of(successor.input(input.clone())), of(world.harness.input(input)));
        }
        let ends = |harness: &mut Harness| harness.advance(Duration::from_secs(3_600));
        prop_assert_eq!(format!("{:?}", ends(&mut successor)), format!("{:?}", ends(&mut world.harness)));
    }
}

/// Returns how many facts the end of a task makes that has three tasks after it, in a workflow of `width` such tasks.
fn facts_of_an_end(width: usize) -> usize {
    let mut text = String::from("workflow: w\ntasks:\n");
    for index in 0..width {
        writeln!(text, "  a{index}: {{ kind: shell, with: {{ command: [make] }} }}").unwrap();
        for after in ["x", "y", "z"] {
            writeln!(
                text,
                "  {after}{index}: {{ kind: shell, after: a{index}, with: {{ command: [make] }} }}"
            )
            .unwrap();
        }
    }
    let plan = Plan { tasks: Vec::new(), all_count: false, slots: 1, seed: 0 };
    let mut world = World::of(&plan, &text);
    let attempt = InstanceId { run: world.run, index: 0 }.attempt(1);
    let report = Report::Ended(end(Outcome::Succeeds, &world.harness));
    let before = world.changes.len();
    let steps = world.harness.input(Input::AttemptReported { session: world.session, attempt, report });
    for (changes, _) in steps {
        world.changes.extend(changes);
    }
    world.changes.len() - before
}

#[test]
fn an_end_costs_what_comes_after_it_and_no_more() {
    // The attempt, its task, the three that become ready, and the two facts of what takes the place that is free.
    assert_eq!(facts_of_an_end(2), 7);
    assert_eq!(facts_of_an_end(1_000), 7);
}

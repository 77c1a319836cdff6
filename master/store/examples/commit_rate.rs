//! How fast the store is, beside the disk that carries it: `cargo run --release -p millrace-store --example commit_rate
//! --features testing [folder or address]`. A database on a server must be empty.
//!
//! A change here is half of what a task instance needs at each hop: its own move, or one of its attempt.
#![expect(clippy::print_stdout, reason = "the numbers are the purpose")]
#![expect(clippy::disallowed_methods, reason = "time is what is measured")]

use std::{
    error::Error,
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use millrace_common::{
    definition,
    id::{InstanceId, RunId, SpoolId},
    interval::DataInterval,
    state::{AttemptState, RunState, TaskState},
    term::Term,
    time::Timestamp,
};
use millrace_core::{AttemptEnd, Change, Proof, RejectReason, RunCreated, Trigger};
use millrace_store::{Store, StoreConfig, Writer};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Live instances for the measurement of the start.
const LIVE: u32 = 100_000;
/// Instances of one run.
const RUN_TASKS: u32 = 1_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let given = std::env::args().nth(1);
    let address = given.as_ref().filter(|given| given.contains("://"));
    let place = given.as_ref().filter(|_| address.is_none()).map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = place.join(format!("commit_rate.{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let config = match address {
        Some(address) => address.parse()?,
        None => StoreConfig::sqlite(&folder.join("data/state.db")),
    };
    let result = measure(&folder, &config).await;
    std::fs::remove_dir_all(&folder)?;
    result
}

async fn measure(folder: &Path, config: &StoreConfig) -> Outcome<()> {
    raw(folder)?;
    let start = Instant::now();
    let store = Store::open(config).await?;
    println!("open, new           {:>9.2} ms", millis(start.elapsed()));
    let mut writer = store.claim(Term(1), "example").await?;
    let mut next = Next::default();
    writer.commit_changes(&[next.workflow()?]).await?;
    for (group, rounds) in [(1, 2_000), (10, 1_000), (100, 300), (2_500, 10)] {
        commits(&mut writer, &mut next, group, rounds).await?;
    }
    live(&mut writer, &mut next).await?;
    drop((store, writer));
    let start = Instant::now();
    let store = Store::open(config).await?;
    println!("open, again         {:>9.2} ms", millis(start.elapsed()));
    for _ in 0..3 {
        let start = Instant::now();
        let loaded = store.load().await?;
        let instances: usize = loaded.snapshot.runs.iter().map(|run| run.tasks.len()).sum();
        println!("load {instances:>7} rows   {:>9.2} ms", millis(start.elapsed()));
    }
    Ok(())
}

/// What the disk does by itself: append a page and wait for it.
fn raw(folder: &Path) -> Outcome<()> {
    const ROUNDS: u32 = 1_000;
    let mut file = File::create(folder.join("raw"))?;
    let start = Instant::now();
    for _ in 0..ROUNDS {
        file.write_all(&[7; 4_096])?;
        file.sync_data()?;
    }
    report("raw fdatasync", 1, ROUNDS, start.elapsed());
    Ok(())
}

/// Takes task instances through their lives, each of the four hops of `group` instances in one commit.
async fn commits(writer: &mut Writer, next: &mut Next, group: u32, rounds: u32) -> Outcome<()> {
    let mut changes_sent = 0;
    let mut taken = Duration::ZERO;
    let lives = rounds.div_ceil(4);
    for _ in 0..lives {
        let (created, instances) = next.run(group);
        writer.commit_changes(&created).await?;
        for hop in hops(&instances) {
            changes_sent += hop.len();
            let start = Instant::now();
            writer.commit_changes(&hop).await?;
            taken += start.elapsed();
        }
    }
    let commits = lives * 4;
    report(
        &format!("{} changes a commit", changes_sent / commits as usize),
        u32::try_from(changes_sent)? / commits,
        commits,
        taken,
    );
    Ok(())
}

fn hops(instances: &[InstanceId]) -> [Vec<Change>; 4] {
    let at = Timestamp::from_micros(5);
    let both = |task: (TaskState, TaskState), change: &dyn Fn(InstanceId) -> Change| -> Vec<Change> {
        let moved = |instance| Change::TaskMoved {
            instance,
            from: task.0,
            to: task.1,
            at,
            retry_at: None,
            values: None,
        };
        instances.iter().flat_map(|instance| [moved(*instance), change(*instance)]).collect()
    };
    let state = |from, to| {
        let moved =
            move |instance: &InstanceId| Change::AttemptMoved { attempt: instance.attempt(1), from, to, at };
        instances.iter().map(moved).collect()
    };
    [
        both((TaskState::Ready, TaskState::Active), &assigned),
        state(AttemptState::Assigned, AttemptState::Accepted),
        state(AttemptState::Accepted, AttemptState::Running),
        both((TaskState::Active, TaskState::Success), &|instance| Change::AttemptEnded {
            attempt: instance.attempt(1),
            from: AttemptState::Running,
            end: AttemptEnd {
                state: AttemptState::Succeeded,
                exit_code: Some(0),
                reason: "".into(),
                values: None,
                is_skipped: false,
                is_permanent: false,
                started_at: Some(at),
                ended_at: at,
                log_bytes: 100,
                reject_reason: RejectReason::Other,
                is_planned: false,
                proof: Proof::Reported,
            },
            at,
        }),
    ]
}

fn assigned(instance: InstanceId) -> Change {
    Change::AttemptAssigned {
        attempt: instance.attempt(1),
        executor: "plant-1".parse().unwrap_or_else(|_| unreachable!("it is a name")),
        spool: SpoolId(uuid::Uuid::from_bytes([9; 16])),
        machine: Some("4c4c4544004d35108052b8c04f4e4a32".into()),
        at: Timestamp::from_micros(5),
    }
}

/// Leaves many instances with live attempts behind.
async fn live(writer: &mut Writer, next: &mut Next) -> Outcome<()> {
    for _ in 0..LIVE / RUN_TASKS {
        let (created, instances) = next.run(RUN_TASKS);
        writer.commit_changes(&created).await?;
        writer.commit_changes(&hops(&instances)[0]).await?;
    }
    Ok(())
}

/// Makes runs whose ids sort by age.
#[derive(Default)]
struct Next {
    runs: i64,
}

impl Next {
    fn workflow(&self) -> Outcome<Change> {
        let source = "workflow: flow\ntasks:\n  a:\n    kind: shell\n    with: { command: [\"true\"] }\n";
        let workflow = Arc::new(definition::parse(source)?);
        Ok(Change::WorkflowApplied {
            version: 1,
            workflow,
            source: source.into(),
            at: Timestamp::from_micros(self.runs),
        })
    }

    fn run(&mut self, tasks: u32) -> (Vec<Change>, Vec<InstanceId>) {
        self.runs += 1;
        let at = Timestamp::from_micros(self.runs * 1_000);
        let run = RunId::new(at, 1);
        let created = RunCreated {
            run,
            workflow: "flow".parse().unwrap_or_else(|_| unreachable!("it is a name")),
            version: 1,
            trigger: Trigger::Manual,
            interval: DataInterval::at(at),
            params: "{}".into(),
            idempotency_key: None,
            at,
        };
        let mut changes = vec![
            Change::RunCreated(Box::new(created)),
            Change::RunMoved { run, from: RunState::Queued, to: RunState::Running, at, reason: None },
        ];
        let instances: Vec<InstanceId> = (0..tasks).map(|index| InstanceId { run, index }).collect();
        let (from, to) = (TaskState::Waiting, TaskState::Ready);
        let ready = |instance: &InstanceId| Change::TaskMoved {
            instance: *instance,
            from,
            to,
            at,
            retry_at: None,
            values: None,
        };
        changes.extend(instances.iter().map(ready));
        (changes, instances)
    }
}

fn report(what: &str, changes: u32, commits: u32, taken: Duration) {
    let rate = f64::from(changes) * f64::from(commits) / taken.as_secs_f64();
    println!("{what:<26} {:>9.3} ms a commit {rate:>12.0} changes/s", millis(taken) / f64::from(commits));
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}

//! What a seed stands for: the size of the cluster, the workload, and which faults strike how often.
//!
//! Every seed enables some kinds of faults and not others: a world in which everything fails all the time never gets to
//! the states that only a calm world followed by one fault reaches.

use std::fmt::Write as _;

use millrace_checker::RULES;

use crate::random::Random;

/// A second in the unit of virtual time.
pub(crate) const SECOND: u64 = 1_000_000;

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// The process of the leader ends without a trace.
    LeaderCrash,
    /// The process of some master does.
    MasterCrash,
    /// The leader's process stands still for a while; often long enough for the next one to take over.
    LeaderPause,
    /// The leader's machine is suspended, and its clocks with it, where they do not count that.
    LeaderSuspend,
    /// The leader is told to hand over.
    HandOver,
    /// The leader's lease is revoked by somebody else while the leader, just renewed, hears nothing of it.
    Takeover,
    /// A link between two machines is cut, in one direction or both.
    LinkCut,
    /// The election service loses its quorum for a while; leases do not end meanwhile.
    EtcdOutage,
    /// Its own leader changes: every lease is extended.
    EtcdElection,
    /// What watches were to tell is lost.
    WatchLoss,
    /// The database is restarted.
    DatabaseRestart,
    /// Its disk is full for a while.
    DatabaseFull,
    /// It stands still for a while.
    DatabaseStall,
    /// The program of an executor ends without a trace.
    ExecutorCrash,
    /// It stands still for a while; what it runs goes on.
    ExecutorPause,
    /// The supervisor of its processes ends, and they with it.
    SupervisorCrash,
    /// The machine of an executor stands still, with all that runs on it.
    MachineFreeze,
    /// The machine of an executor is booted.
    Reboot,
    /// The disk of an executor is lost.
    DiskLoss,
    /// One connection breaks.
    Disconnect,
    /// An executor reaches no master for a while.
    Partition,
    /// The wall clock of a machine is set.
    ClockSet,
}

const FAULTS: [Fault; 21] = [
    Fault::LeaderCrash,
    Fault::MasterCrash,
    Fault::LeaderPause,
    Fault::LeaderSuspend,
    Fault::HandOver,
    Fault::Takeover,
    Fault::LinkCut,
    Fault::EtcdOutage,
    Fault::EtcdElection,
    Fault::WatchLoss,
    Fault::DatabaseRestart,
    Fault::DatabaseFull,
    Fault::DatabaseStall,
    Fault::ExecutorCrash,
    Fault::ExecutorPause,
    Fault::SupervisorCrash,
    Fault::Reboot,
    Fault::DiskLoss,
    Fault::Disconnect,
    Fault::Partition,
    Fault::ClockSet,
];

/// What is asked of a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Anything may happen, nothing may break; then all is put right and everything must end.
    Safety,
    /// At some moment a majority, a database, one master and one executor are healthy from then on, and every other fault
    /// is there to stay: with these alone everything must go on.
    Liveness,
}

/// The options that a seed stands for. Printed where it fails.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) mode: Mode,
    /// Slots of each executor.
    pub(crate) slots: Vec<u32>,
    /// Clock-rate errors of masters and executors, in parts per million.
    pub(crate) rates: Vec<i64>,
    /// Faults that strike, each with the mean time between two of its kind.
    pub(crate) faults: Vec<(Fault, u64)>,
    /// For how long they do.
    pub(crate) fault_time: u64,
    /// Per ten thousand steps of a leader: it crashes right there.
    pub(crate) step_crashes: u64,
    /// Per ten thousand steps of a leader: it stands still right there.
    pub(crate) step_pauses: u64,
    /// Per thousand messages to or from the database: its connection breaks instead.
    pub(crate) commit_faults: u64,
    /// Longest ordinary delay of a message.
    pub(crate) delay_max: u64,
    /// In a hundred messages: held back for up to [`Plan::slow_max`].
    pub(crate) slow_percent: u64,
    pub(crate) slow_max: u64,
    /// Longest delay of what a watch tells.
    pub(crate) watch_lag_max: u64,
    /// In a hundred notices of a watch: it never comes.
    pub(crate) watch_loss_percent: u64,
    /// Whether the election service answers renewals of revoked leases, as old versions do.
    pub(crate) leases_lie: bool,
    /// Whether the database ends transactions that stand idle.
    pub(crate) ends_idle: bool,
    /// Whether the supervisor of an executor ends with its program, and the processes with it.
    pub(crate) dies_whole: bool,
    /// Longest time that a disk takes to sync.
    pub(crate) sync_max: u64,
    /// In a hundred reports of executors: it is lost. What counts is what greetings and heartbeats tell.
    pub(crate) report_loss_percent: u64,
    /// How long processes that may run without contact live on although they were killed, where they cling.
    pub(crate) clings_for: u64,
    /// Whether a leader takes one input per wake-up.
    pub(crate) takes_one: bool,
    /// Whether killed processes take as long as they may, clocks err as much as they may, and little else happens.
    pub(crate) is_tight: bool,
    /// Losses and rejections of a task that are allowed, and keys of ended runs that a leader remembers.
    pub(crate) bounds: (u32, u32, usize),
    /// Requests of clients.
    pub(crate) requests: u64,
    pub(crate) definitions: Vec<String>,
}

impl Plan {
    pub(crate) fn of(seed: u64) -> Self {
        let mut random = Random::new(seed ^ 0x4D69_6C6C_7261_6365);
        let random = &mut random;
        let executors = random.between(2, 4);
        let is_tight = random.happens(20);
        let mode = if random.happens(30) && !is_tight { Mode::Liveness } else { Mode::Safety };
        let leases_lie = random.happens(6) && !is_tight;
        Self {
            seed,
            mode,
            slots: (0..executors).map(|_| u32::try_from(random.between(1, 3)).unwrap()).collect(),
            rates: (0..executors + MASTERS).map(|number| rate(number, is_tight, random)).collect(),
            faults: faults(is_tight, leases_lie, random),
            fault_time: random.between(30, 150) * SECOND,
            step_crashes: if random.happens(35) && !is_tight { random.between(1, 100) } else { 0 },
            step_pauses: if random.happens(25) && !is_tight { random.between(1, 40) } else { 0 },
            commit_faults: if random.happens(35) && !is_tight { random.between(1, 30) } else { 0 },
            delay_max: random.pick(if is_tight {
                &[2_000, 20_000]
            } else {
                &[2_000, 20_000, 300_000, SECOND]
            }),
            slow_percent: if random.happens(30) && !is_tight { random.between(1, 10) } else { 0 },
            slow_max: random.between(1, 25) * SECOND,
            watch_lag_max: random.pick(&[5_000, 5_000, 2 * SECOND, 30 * SECOND]),
            watch_loss_percent: random.pick(&[0, 0, 10, 100]),
            leases_lie,
            ends_idle: random.happens(50),
            dies_whole: random.happens(40),
            sync_max: random.pick(&[400_000, 400_000, 4 * SECOND]),
            report_loss_percent: random.pick(&[0, 0, 0, 5, 30]),
            clings_for: random.pick(&[0, 0, 60 * SECOND]),
            takes_one: random.happens(25),
            is_tight,
            bounds: (random.pick(&[2, 16]), random.pick(&[2, 16]), random.pick(&[1, 10_000])),
            requests: random.between(4, 20),
            definitions: (0..random.between(1, 3)).map(|number| definition(number, random)).collect(),
        }
    }
}

/// Returns how far a clock errs. The worst that clocks may do to a leader that waits: its own is fast, those of the
/// executors are slow.
fn rate(number: u64, is_tight: bool, random: &mut Random) -> i64 {
    match (is_tight, number < MASTERS) {
        (true, true) => RATE_MAX,
        (true, false) => -RATE_MAX,
        (false, _) => i64::try_from(random.below(2 * RATE_MAX.unsigned_abs() + 1)).unwrap() - RATE_MAX,
    }
}

fn faults(is_tight: bool, leases_lie: bool, random: &mut Random) -> Vec<(Fault, u64)> {
    let mut faults = Vec::new();
    for fault in FAULTS {
        if random.happens(if is_tight { 12 } else { 30 }) {
            faults.push((fault, random.between(15, 120) * SECOND));
        }
    }
    if random.happens(8) {
        faults.push((Fault::MachineFreeze, random.between(30, 120) * SECOND));
    }
    if is_tight || leases_lie {
        // What takes a calm minute to go wrong.
        faults.retain(|(fault, _)| *fault != Fault::Takeover);
        faults.push((Fault::Takeover, random.between(20, 40) * SECOND));
    }
    faults
}

/// How far the rate of a clock may be off, in parts per million.
const RATE_MAX: i64 = 10_000;

/// Masters that can lead.
pub(crate) const MASTERS: u64 = 3;

/// Places of the pool that tasks share.
pub(crate) const POOL: u32 = 2;

fn definition(number: u64, random: &mut Random) -> String {
    let mut text = format!("workflow: w{number}\nmax_active_runs: {}\n", random.between(1, 3));
    if random.happens(25) {
        writeln!(text, "timeout: {}s", random.between(60, 300)).unwrap();
    }
    if random.happens(40) {
        let missed =
            random.pick(&["", ", catchup: true", ", misfire: skip", ", catchup: true, misfire: once"]);
        writeln!(text, "schedule: {{ every: {}s{missed} }}", random.between(30, 600)).unwrap();
    }
    text.push_str("tasks:\n");
    for index in 0..random.between(1, 5) {
        let after: Vec<String> =
            (0..index).filter(|_| random.happens(45)).map(|up| format!("t{up}")).collect();
        writeln!(
            text,
            "  t{index}: {{ kind: shell, after: [{}]{}, with: {{ command: [make] }} }}",
            after.join(", "),
            policy(random)
        )
        .unwrap();
    }
    text
}

/// Returns the definition that later applications bring: one more run at once.
pub(crate) fn widened(source: &str) -> String {
    let mut lines: Vec<String> = source.lines().map(ToOwned::to_owned).collect();
    for line in &mut lines {
        if let Some(runs) = line.strip_prefix("max_active_runs: ") {
            *line = format!("max_active_runs: {}", runs.parse::<u32>().unwrap() + 1);
        }
    }
    lines.join("\n") + "\n"
}

fn policy(random: &mut Random) -> String {
    let mut text = String::new();
    let random = &mut *random;
    if random.happens(40) {
        let (rule, _) = random.pick(&RULES);
        write!(text, ", trigger_rule: {rule}").unwrap();
    }
    write!(text, ", retries: {}, retry_delay: {}s", random.below(3), random.between(1, 20)).unwrap();
    write!(text, ", kill_grace: {}s, orphan_timeout: {}s", random.pick(&[0, 2, 10]), random.between(15, 30))
        .unwrap();
    write!(text, ", on_lost: {}", random.pick(&["retry", "retry", "confirm", "fail"])).unwrap();
    if random.happens(20) {
        write!(text, ", timeout: {}s", random.between(5, 40)).unwrap();
    }
    if random.happens(30) {
        write!(text, ", pool: shared, pool_slots: {}", random.between(1, u64::from(POOL))).unwrap();
    }
    if random.happens(20) {
        write!(text, ", priority: {}", random.below(3)).unwrap();
    }
    text
}

/// What the process of an attempt does if it is let: the same for every attempt of a seed, whatever happens around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Succeeds,
    Skips,
    Fails(i32),
    FailsForGood,
}

impl Plan {
    /// Returns what an attempt does and how long it takes; `salt` tells attempts apart.
    pub(crate) fn outcome(&self, salt: u64) -> (Outcome, u64) {
        let mut random = Random::new(self.seed.rotate_left(17) ^ salt);
        let outcome = match random.below(20) {
            0..=12 => Outcome::Succeeds,
            13 => Outcome::Skips,
            14..=18 => Outcome::Fails(i32::try_from(random.between(1, 100)).unwrap()),
            _ => Outcome::FailsForGood,
        };
        let long = if self.is_tight { 200 * SECOND } else { 40 * SECOND };
        let longest = random.pick(&[SECOND / 10, 5 * SECOND, 40 * SECOND, long, 200 * SECOND]);
        (outcome, random.between(1_000, longest))
    }
}

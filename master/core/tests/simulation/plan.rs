//! What a seed stands for: the size of the cluster, the workload, and which faults strike how often.
//!
//! Every seed enables some kinds of faults and not others: a world in which everything fails all the time never gets to
//! the states that only a calm world followed by one fault reaches.

use std::fmt::Write as _;

use crate::reference::RULES;

/// A second in the unit of virtual time.
pub(crate) const SECOND: u64 = 1_000_000;

/// Steele, Lea, Flood: "Fast splittable pseudorandom number generators" (2014): `SplitMix64`.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// Returns a number in `0..bound`.
    pub(crate) const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// Returns a number in `low..=high`.
    pub(crate) const fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// Tells whether something happens that happens `percent` times in a hundred.
    pub(crate) const fn happens(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        among[usize::try_from(self.below(among.len() as u64)).unwrap()]
    }
}

/// Something that goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// The process of the leader ends without a trace.
    LeaderCrash,
    /// The leader stands still for a while; often long enough for the next one to take over.
    LeaderPause,
    /// The next leader takes over while the present one still believes that it leads.
    Takeover,
    /// The process of an executor ends without a trace.
    ExecutorCrash,
    /// The machine of an executor is booted.
    Reboot,
    /// The disk of an executor is lost.
    DiskLoss,
    /// One connection breaks.
    Disconnect,
    /// An executor reaches no leader for a while.
    Partition,
    /// The wall clock of a master is set.
    ClockSet,
}

const FAULTS: [Fault; 9] = [
    Fault::LeaderCrash,
    Fault::LeaderPause,
    Fault::Takeover,
    Fault::ExecutorCrash,
    Fault::Reboot,
    Fault::DiskLoss,
    Fault::Disconnect,
    Fault::Partition,
    Fault::ClockSet,
];

/// The options that a seed stands for. Printed where it fails.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
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
    /// Per thousand commits: it fails, or its outcome is unknown.
    pub(crate) commit_faults: u64,
    /// Longest ordinary delay of a message.
    pub(crate) delay_max: u64,
    /// In a hundred messages: held back for up to [`Plan::slow_max`].
    pub(crate) slow_percent: u64,
    pub(crate) slow_max: u64,
    /// Whether processes outlive the program of their executor.
    pub(crate) adopts: bool,
    /// Whether executors say what happened between greeting and welcome only if they are asked.
    pub(crate) is_terse: bool,
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
        let is_tight = random.happens(25);
        // The worst that clocks may do to a leader that waits: its own is fast, those of the executors are slow.
        let rate = |number: u64, random: &mut Random| match (is_tight, number < MASTERS) {
            (true, true) => RATE_MAX,
            (true, false) => -RATE_MAX,
            (false, _) => i64::try_from(random.below(2 * RATE_MAX.unsigned_abs() + 1)).unwrap() - RATE_MAX,
        };
        let mut faults = Vec::new();
        for fault in FAULTS {
            if random.happens(if is_tight { 20 } else { 45 }) {
                faults.push((fault, random.between(15, 120) * SECOND));
            }
        }
        if is_tight {
            // What takes a calm minute to go wrong.
            faults.retain(|(fault, _)| *fault != Fault::Takeover);
            faults.push((Fault::Takeover, random.between(40, 80) * SECOND));
        }
        Self {
            seed,
            slots: (0..executors).map(|_| u32::try_from(random.between(1, 3)).unwrap()).collect(),
            rates: (0..executors + MASTERS).map(|number| rate(number, random)).collect(),
            faults,
            fault_time: random.between(40, 240) * SECOND,
            step_crashes: if random.happens(50) && !is_tight { random.between(1, 100) } else { 0 },
            commit_faults: if random.happens(40) && !is_tight { random.between(1, 50) } else { 0 },
            delay_max: random.pick(if is_tight {
                &[2_000, 20_000]
            } else {
                &[2_000, 20_000, 300_000, 2 * SECOND]
            }),
            slow_percent: if random.happens(35) && !is_tight { random.between(1, 10) } else { 0 },
            slow_max: random.between(1, 25) * SECOND,
            adopts: random.happens(60),
            is_terse: random.happens(30),
            takes_one: random.happens(25),
            is_tight,
            bounds: (random.pick(&[2, 16]), random.pick(&[2, 16]), random.pick(&[1, 10_000])),
            requests: random.between(5, 30),
            definitions: (0..random.between(1, 3)).map(|number| definition(number, random)).collect(),
        }
    }
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

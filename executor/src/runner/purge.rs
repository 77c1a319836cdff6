//! Ending what an earlier life of the executor left alive.
//!
//! One look through `/proc` serves all attempts. A process belongs to this executor if its environment names the data
//! folder, if it is the very process that the spool noted, or if it stands in that one's group.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    time::Duration,
};

use millrace_common::{id::AttemptId, time::Uptime};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, SysconfVar, sysconf},
};

use crate::{
    ledger::Remains,
    procfs::{self, Process},
    supervisor::cgroup,
};

/// How soon processes are looked for again, and how long until the rest of the program goes on without waiting.
const SWEEP_INTERVAL: Duration = Duration::from_millis(20);
const SWEEP_INTERVAL_MAX: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);
/// The error of a start time that was noted from outside, in clock ticks.
const START_TICKS_ERROR: u64 = 3;
/// Clock ticks a second where the system does not say.
const TICKS_PER_SECOND: u64 = 100;

/// What there is to end.
#[derive(Debug)]
pub(super) struct Purge {
    data_dir: PathBuf,
    remains: Vec<Remains>,
    /// The control group of the supervisor that is gone.
    cgroup: Option<PathBuf>,
    /// Attempts that a supervisor holds: they go on. Given with the process of each, which names its group.
    spared: HashMap<AttemptId, u32>,
    next_sweep: Uptime,
    pause: Duration,
    patient_until: Option<Uptime>,
    /// What is left once the rest of the program goes on: nothing that starts later can be meant.
    suspects: Option<HashSet<Process>>,
}

/// What one look came to.
#[derive(Debug, Default)]
pub(super) struct Swept {
    /// Nothing of these is left.
    pub(super) gone: Vec<Remains>,
    /// Nothing of anything is left.
    pub(super) is_done: bool,
    /// The rest of the program may go on now; whether nothing is left.
    pub(super) tell: Option<bool>,
}

impl Purge {
    pub(super) fn new(
        data_dir: PathBuf,
        remains: Vec<Remains>,
        cgroup: Option<PathBuf>,
        spared: HashMap<AttemptId, u32>,
    ) -> Self {
        Self {
            data_dir,
            remains,
            cgroup,
            spared,
            next_sweep: Uptime::default(),
            pause: SWEEP_INTERVAL,
            patient_until: None,
            suspects: None,
        }
    }

    /// Tells whether the rest of the program waits for this.
    pub(super) const fn is_waited_for(&self) -> bool {
        self.suspects.is_none()
    }

    pub(super) const fn next_sweep(&self) -> Uptime {
        self.next_sweep
    }

    /// Looks for what is left and kills it. While the supervisor itself is not gone, more may come.
    pub(super) fn sweep(&mut self, now: Uptime, is_supervisor_gone: bool) -> Swept {
        let patient_until = *self.patient_until.get_or_insert(now + PATIENCE);
        let is_cgroup_empty = self.cgroup.as_deref().is_none_or(cgroup::end_left_over);
        let found = self.find();
        let may_be_done = is_supervisor_gone && is_cgroup_empty;
        for process in found.keys() {
            // It may have ended since it was seen.
            let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
        }
        let alive: HashSet<AttemptId> = found.values().flatten().copied().collect();
        // A process without a mark may belong to any of them.
        let has_unknown = found.values().any(Option::is_none);
        let mut swept = Swept::default();
        if !has_unknown && may_be_done {
            swept.gone = self.remains.extract_if(.., |remains| !alive.contains(&remains.attempt)).collect();
        }
        swept.is_done = found.is_empty() && may_be_done;
        let is_late = now >= patient_until;
        if self.suspects.is_none() && (swept.is_done || is_late) {
            swept.tell = Some(swept.is_done);
            if !swept.is_done {
                tracing::error!(processes = ?found.keys(), "processes of an earlier life cannot be killed; their tasks wait");
            }
            self.suspects = Some(found.into_keys().collect());
        }
        self.next_sweep = now + self.pause;
        self.pause = if is_late { SWEEP_INTERVAL_MAX } else { SWEEP_INTERVAL };
        swept
    }

    /// Finds what belongs to the earlier life, with the attempt where it is known.
    fn find(&self) -> HashMap<Process, Option<AttemptId>> {
        let noted: HashMap<i32, (AttemptId, u64)> = self
            .remains
            .iter()
            .filter_map(|remains| {
                let process = remains.process?;
                Some((i32::try_from(process.pid).ok()?, (remains.attempt, ticks(process.uptime))))
            })
            .collect();
        let is_suspect =
            |process: &Process| self.suspects.as_ref().is_none_or(|suspects| suspects.contains(process));
        let all: Vec<Process> =
            procfs::processes().filter(|process| !process.is_zombie && is_suspect(process)).collect();
        let is_noted = |process: &Process| {
            let (attempt, ticks) = noted.get(&process.pid)?;
            (process.start_ticks.abs_diff(*ticks) <= START_TICKS_ERROR).then_some(*attempt)
        };
        let groups: HashMap<i32, AttemptId> =
            all.iter().filter_map(|process| Some((process.pid, is_noted(process)?))).collect();
        let mut found = HashMap::new();
        for process in all.into_iter().filter(|process| !self.is_spared_group(process.group)) {
            let marks = procfs::marks(process.pid);
            if let Some(attempt) = groups.get(&process.group) {
                found.insert(process, Some(*attempt));
            } else if marks.is_below(&self.data_dir) && self.may_be_ended(marks.attempt) {
                found.insert(process, marks.attempt);
            }
        }
        found
    }

    fn is_spared_group(&self, group: i32) -> bool {
        self.spared.values().any(|pid| i32::try_from(*pid) == Ok(group))
    }

    /// Tells whether what carries this mark may be ended. Without a mark it may belong to an attempt that goes on.
    fn may_be_ended(&self, attempt: Option<AttemptId>) -> bool {
        attempt.map_or(self.spared.is_empty(), |attempt| !self.spared.contains_key(&attempt))
    }
}

fn ticks(uptime: Uptime) -> u64 {
    let per_second = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|ticks| u64::try_from(ticks).ok());
    let millis = u64::try_from(uptime.since_boot().as_millis()).unwrap_or(0);
    millis * per_second.unwrap_or(TICKS_PER_SECOND) / 1_000
}

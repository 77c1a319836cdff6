//! Ending attempts: TERM, grace, KILL, and looking until nothing is left.
//!
//! Pure steps over what a look through `/proc` found; the caller keeps the time and does the looking.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
    time::Duration,
};

use millrace_common::{id::AttemptId, time::Uptime};
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use super::procfs::{self, Process};

/// How soon processes that were ended are looked for again, at first and at most.
const SWEEP_MIN: Duration = Duration::from_millis(2);
const SWEEP_MAX: Duration = Duration::from_millis(500);
/// How long processes may take to vanish after KILL before somebody is told.
const VANISH_MAX: Duration = Duration::from_secs(5);
/// An attempt that is being ended.
pub(super) struct Ending {
    kill_at: Uptime,
    /// Those outside the group have been asked, too.
    is_asked: bool,
    is_killed: bool,
    is_overdue: bool,
    pub(super) next_sweep: Uptime,
    pause: Duration,
}

impl Ending {
    pub(super) fn new(now: Uptime, grace: Duration) -> Self {
        let kill_at = now + grace;
        let is_asked = grace.is_zero();
        Self { kill_at, is_asked, is_killed: false, is_overdue: false, next_sweep: now, pause: SWEEP_MIN }
    }

    /// Takes the next step against what is left.
    pub(super) fn go_on(&mut self, now: Uptime, group: Pid, members: &[Process]) {
        if !self.is_asked {
            self.is_asked = true;
            signal_outside(group, members, Signal::SIGTERM);
        }
        if now < self.kill_at {
            // The exit of the main process comes by itself; only what outlives it must be looked for.
            let has_main = members.iter().any(|process| process.pid == group.as_raw());
            self.next_sweep = if has_main { self.kill_at } else { self.kill_at.min(now + self.next_pause()) };
            return;
        }
        if !self.is_killed {
            self.is_killed = true;
            self.pause = SWEEP_MIN;
        }
        // The group at once, so that no member escapes by forking.
        let _ = killpg(group, Signal::SIGKILL);
        signal_outside(group, members, Signal::SIGKILL);
        self.next_sweep = now + self.next_pause();
    }

    fn next_pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(SWEEP_MAX);
        pause
    }

    /// Tells, once, that what was killed has not vanished in time.
    pub(super) fn is_overdue_now(&mut self, now: Uptime) -> bool {
        let is_new = !self.is_overdue && self.is_killed && now.since(self.kill_at) > VANISH_MAX;
        self.is_overdue |= is_new;
        is_new
    }
}

/// Tells whether a process group has a member. Its leader has been waited for, and its number is not given to another
/// process while it has one.
pub(super) fn is_group_alive(group: Pid) -> bool {
    killpg(group, None) != Err(Errno::ESRCH)
}

/// Finds the processes of attempts below `data_dir`, given the group of each, in one pass.
pub(super) fn members_of(
    groups: &BTreeMap<AttemptId, i32>,
    data_dir: &Path,
) -> HashMap<AttemptId, Vec<Process>> {
    let mut members: HashMap<AttemptId, Vec<Process>> = HashMap::new();
    if groups.is_empty() {
        return members;
    }
    let by_group: HashMap<i32, AttemptId> =
        groups.iter().map(|(attempt, group)| (*group, *attempt)).collect();
    for process in procfs::processes().filter(|process| !process.is_zombie) {
        let marked =
            || procfs::marks(process.pid).attempt_below(data_dir).filter(|id| groups.contains_key(id));
        if let Some(attempt) = by_group.get(&process.group).copied().or_else(marked) {
            members.entry(attempt).or_default().push(process);
        }
    }
    members
}

/// Signals those that have left the group.
fn signal_outside(group: Pid, members: &[Process], signal: Signal) {
    for process in members.iter().filter(|process| process.group != group.as_raw()) {
        // It may have ended since it was seen.
        let _ = kill(Pid::from_raw(process.pid), signal);
    }
}

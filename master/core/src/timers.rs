//! When the core wants to be called again. Each timer is a variant; what it is for stands in the state.
//!
//! Wall time is used where a deadline must survive a fail-over (schedules, retries, run time-outs), boot time where it
//! must not be moved by a clock that is set (liveness).

use std::collections::BTreeSet;

use millrace_common::{
    id::{ExecutorName, InstanceId, RunId, WorkflowName},
    time::{Now, Timestamp, Uptime},
};

/// A timer on wall time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum WallTimer {
    /// A schedule has an interval that ends.
    ScheduleDue(WorkflowName),
    /// An instance may start again.
    RetryDue(InstanceId),
    /// A run has taken longer than it may.
    RunTimeout(RunId),
}

/// A timer on boot time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum UptimeTimer {
    /// An attempt on a silent executor may have ended by itself.
    LossDue(ExecutorName),
}

/// The deadline queue. Timers are not cancelled: whoever is called looks at the state first.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    wall: BTreeSet<(Timestamp, WallTimer)>,
    uptime: BTreeSet<(Uptime, UptimeTimer)>,
}

impl Timers {
    pub(crate) fn at_wall(&mut self, deadline: Timestamp, timer: WallTimer) {
        self.wall.insert((deadline, timer));
    }

    pub(crate) fn at_uptime(&mut self, deadline: Uptime, timer: UptimeTimer) {
        self.uptime.insert((deadline, timer));
    }

    /// Returns the next deadline as boot time, given what both clocks said last.
    ///
    /// A wall clock that is set makes this wrong until the next call; callers come by at least once per heartbeat.
    pub(crate) fn next(&self, now: Now) -> Option<Uptime> {
        let wall = self.wall.first().map(|(deadline, _)| now.uptime + deadline.since(now.wall));
        let uptime = self.uptime.first().map(|(deadline, _)| *deadline);
        [wall, uptime].into_iter().flatten().min()
    }

    pub(crate) fn pop_wall(&mut self, now: Timestamp) -> Option<WallTimer> {
        let is_due = self.wall.first().is_some_and(|(deadline, _)| *deadline <= now);
        if is_due { self.wall.pop_first().map(|(_, timer)| timer) } else { None }
    }

    pub(crate) fn pop_uptime(&mut self, now: Uptime) -> Option<UptimeTimer> {
        let is_due = self.uptime.first().is_some_and(|(deadline, _)| *deadline <= now);
        if is_due { self.uptime.pop_first().map(|(_, timer)| timer) } else { None }
    }

    /// Tells whether `timer` is armed for some time.
    pub(crate) fn has_wall(&self, timer: &WallTimer) -> bool {
        self.wall.iter().any(|(_, armed)| armed == timer)
    }
}

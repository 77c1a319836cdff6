//! When the core wants to be called again. Each timer is a variant; what it is for stands in the state.
//!
//! Wall time is used for schedules, which are about it; boot time for everything that is to last a while, because a clock
//! that is set must not move it. A retry and a run's time-out are kept as wall time in the store; a new leader arms what
//! is left of them.

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
}

/// A timer on boot time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum UptimeTimer {
    /// An attempt on a silent executor may have ended by itself.
    LossDue(ExecutorName),
    /// An executor whose space came and went may be tried again.
    SpaceWaitOver(ExecutorName),
    /// An instance may start again.
    RetryDue(InstanceId),
    /// A run has taken longer than it may.
    RunTimeout(RunId),
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

    /// Tells whether `timer` is armed for some time. Looks at all of them: for checks only.
    pub(crate) fn has_wall(&self, timer: &WallTimer) -> bool {
        self.wall.iter().any(|(_, armed)| armed == timer)
    }

    /// Tells whether `timer` is armed for some time. Looks at all of them: for checks only.
    pub(crate) fn has_uptime(&self, timer: &UptimeTimer) -> bool {
        self.uptime.iter().any(|(_, armed)| armed == timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn now(wall: i64, uptime: u64) -> Now {
        Now {
            wall: Timestamp::from_micros(wall * 1_000_000),
            uptime: Uptime::new(Duration::from_secs(uptime)),
        }
    }

    fn schedule(name: &str) -> WallTimer {
        WallTimer::ScheduleDue(name.parse().unwrap())
    }

    fn loss(name: &str) -> UptimeTimer {
        UptimeTimer::LossDue(name.parse().unwrap())
    }

    #[test]
    fn the_next_deadline_is_the_earlier_one_of_both_clocks() {
        let mut timers = Timers::default();
        assert_eq!(timers.next(now(100, 5)), None);
        timers.at_wall(now(130, 0).wall, schedule("w"));
        assert_eq!(timers.next(now(100, 5)), Some(now(0, 35).uptime));
        timers.at_uptime(now(0, 20).uptime, loss("x"));
        assert_eq!(timers.next(now(100, 5)), Some(now(0, 20).uptime));
        // A deadline that has passed is due at once.
        assert_eq!(timers.next(now(200, 5)), Some(now(0, 5).uptime));
    }

    #[test]
    fn timers_come_in_the_order_of_their_deadlines_and_not_early() {
        let mut timers = Timers::default();
        timers.at_uptime(now(0, 20).uptime, loss("late"));
        timers.at_uptime(now(0, 10).uptime, loss("early"));
        timers.at_uptime(now(0, 10).uptime, loss("early"));
        assert_eq!(timers.pop_uptime(now(0, 9).uptime), None);
        assert_eq!(timers.pop_uptime(now(0, 25).uptime), Some(loss("early")));
        assert_eq!(timers.pop_uptime(now(0, 25).uptime), Some(loss("late")));
        assert_eq!(timers.pop_uptime(now(0, 25).uptime), None);
    }

    #[test]
    fn a_wall_clock_that_is_set_moves_wall_timers_only() {
        let mut timers = Timers::default();
        timers.at_wall(now(130, 0).wall, schedule("w"));
        timers.at_uptime(now(0, 20).uptime, loss("x"));
        let set = now(9_000, 6);
        assert_eq!(timers.pop_wall(set.wall), Some(schedule("w")));
        assert_eq!(timers.pop_uptime(set.uptime), None);
        assert!(timers.has_uptime(&loss("x")) && !timers.has_wall(&schedule("w")));
    }
}

//! Ending an attempt: TERM, grace, KILL, and looking until nothing is left. Pure steps; the caller signals and looks.

use std::time::Duration;

use millrace_common::time::Uptime;

use crate::ledger::EndedBy;

/// How soon processes that were ended are looked for again, at first and at most.
const SWEEP_MIN: Duration = Duration::from_millis(2);
const SWEEP_MAX: Duration = Duration::from_millis(500);
/// How long processes may take to vanish after KILL before somebody is told.
const VANISH_MAX: Duration = Duration::from_secs(5);

/// An attempt that is being ended.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) by: EndedBy,
    kill_at: Uptime,
    /// Those outside the group have been asked, too.
    is_asked: bool,
    is_killed: bool,
    is_overdue: bool,
    pub(super) next_sweep: Uptime,
    pause: Duration,
}

/// What to do about the processes that were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Nothing: they have time.
    Wait,
    /// Ask those that a signal to the group does not reach.
    Ask,
    /// Kill all.
    Kill,
}

impl Ending {
    pub(super) fn new(now: Uptime, grace: Duration, by: EndedBy) -> Self {
        Self {
            by,
            kill_at: now + grace,
            is_asked: grace.is_zero(),
            is_killed: false,
            is_overdue: false,
            next_sweep: now,
            pause: SWEEP_MIN,
        }
    }

    /// Decides the next step against what is left; `has_main` tells whether the main process is part of it.
    pub(super) fn step(&mut self, now: Uptime, has_main: bool) -> Step {
        if now < self.kill_at {
            // The exit of the main process comes by itself; only what outlives it must be looked for.
            self.next_sweep = if has_main { self.kill_at } else { self.kill_at.min(now + self.next_pause()) };
            return if std::mem::replace(&mut self.is_asked, true) { Step::Wait } else { Step::Ask };
        }
        if !self.is_killed {
            self.is_killed = true;
            self.pause = SWEEP_MIN;
        }
        self.next_sweep = now + self.next_pause();
        Step::Kill
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_once_waits_for_the_grace_and_kills_until_nothing_is_left() {
        let at = |millis| Uptime::new(Duration::from_millis(millis));
        let mut ending = Ending::new(at(1_000), Duration::from_secs(1), EndedBy::Request);
        assert_eq!((ending.step(at(1_000), true), ending.next_sweep), (Step::Ask, at(2_000)));
        assert_eq!(ending.step(at(1_500), false), Step::Wait);
        assert!(ending.next_sweep < at(1_600), "what outlives its main process is looked for soon");
        assert_eq!(ending.step(at(2_000), false), Step::Kill);
        assert!(!ending.is_overdue_now(at(7_000)));
        assert!(ending.is_overdue_now(at(7_001)) && !ending.is_overdue_now(at(7_002)));
        let mut at_once = Ending::new(at(0), Duration::ZERO, EndedBy::Stop);
        assert_eq!(at_once.step(at(0), true), Step::Kill);
    }
}

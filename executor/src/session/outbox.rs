//! Reports on their way to the leader: only the newest of each attempt, many in one message.
//!
//! A start is told a moment later than it happens, because most short attempts end within that moment and then one report
//! says it all. Ends are never held back, and they do not take with them what still waits.

use std::{collections::BTreeMap, time::Duration};

use millrace_common::{id::AttemptId, time::Uptime};
use millrace_proto::v1;

use super::wire;
use crate::ledger::Report;

/// How long news that nobody waits for may be held back.
const DELAY: Duration = Duration::from_millis(20);
/// Reports of one message; one with values of 64 KiB each would still be far from the limit of a message.
const REPORTS_MAX: usize = 1_000;
/// Bytes of the texts of one message, under the 4 MiB that a receiver takes by default.
const BYTES_MAX: usize = 2 << 20;

/// Reports that have not left yet.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    reports: BTreeMap<AttemptId, (Uptime, Report)>,
    due: Option<Uptime>,
}

impl Outbox {
    pub(super) fn push(&mut self, now: Uptime, attempt: AttemptId, report: Report) {
        let held_until = if matches!(report, Report::Ended(_)) { now } else { now + DELAY };
        let due = self.reports.get(&attempt).map_or(held_until, |(earlier, _)| held_until.min(*earlier));
        self.due = Some(self.due.map_or(due, |earlier| earlier.min(due)));
        self.reports.insert(attempt, (due, report));
    }

    /// Forgets everything: a greeting has told it.
    pub(super) fn clear(&mut self) {
        self.reports.clear();
        self.due = None;
    }

    /// Returns when something is to leave; `None` while there is nothing.
    pub(super) const fn due(&self) -> Option<Uptime> {
        self.due
    }

    pub(super) fn is_empty(&self) -> bool {
        self.reports.is_empty()
    }

    /// Takes out a message of what is due.
    pub(super) fn take(&mut self, now: Uptime) -> v1::Reports {
        let (mut count, mut bytes) = (0, 0);
        let leaving: Vec<_> = self
            .reports
            .extract_if(.., |_, (due, report)| {
                let leaves = *due <= now && count < REPORTS_MAX && bytes < BYTES_MAX;
                if leaves {
                    count += 1;
                    bytes += texts(report);
                }
                leaves
            })
            .collect();
        self.due = self.reports.values().map(|(due, _)| *due).min();
        let reports =
            leaving.into_iter().map(|(attempt, (_, report))| wire::report(attempt, report)).collect();
        v1::Reports { reports }
    }
}

/// Returns the bytes of a report that can be many.
fn texts(report: &Report) -> usize {
    match report {
        Report::Ended(end) => end.values.len() + end.reason.len(),
        Report::Accepted | Report::Started { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use millrace_common::{state::AttemptState, time::Timestamp};

    use super::*;
    use crate::ledger::End;

    fn attempt(number: u32) -> AttemptId {
        format!("018f2f5e-0000-7000-8000-000000000000.0.{number}").parse().unwrap()
    }

    fn at(millis: u64) -> Uptime {
        Uptime::new(Duration::from_millis(millis))
    }

    #[test]
    fn only_the_newest_report_leaves_and_an_end_leaves_at_once() {
        let mut outbox = Outbox::default();
        outbox.push(at(100), attempt(1), Report::Accepted);
        outbox.push(at(101), attempt(2), Report::Accepted);
        assert_eq!(outbox.due(), Some(at(120)));
        let end = End::without_exit(AttemptState::Succeeded, "", Timestamp::from_micros(1));
        outbox.push(at(102), attempt(1), Report::Ended(end));
        assert_eq!(outbox.due(), Some(at(102)));
        let reports = outbox.take(at(102)).reports;
        assert_eq!(reports.len(), 1, "what still waits does not leave with an end");
        assert!(matches!(reports[0].body, Some(v1::report::Body::Ended(_))));
        assert_eq!((outbox.due(), outbox.is_empty()), (Some(at(121)), false));
        assert_eq!(outbox.take(at(121)).reports.len(), 1);
        assert_eq!((outbox.due(), outbox.is_empty()), (None, true));
    }

    #[test]
    fn a_long_queue_leaves_in_several_messages() {
        let mut outbox = Outbox::default();
        for number in 1..=REPORTS_MAX as u32 + 1 {
            outbox.push(at(1), attempt(number), Report::Accepted);
        }
        assert_eq!(outbox.take(at(100)).reports.len(), REPORTS_MAX);
        assert!(outbox.due().is_some());
        assert_eq!(outbox.take(at(100)).reports.len(), 1);
    }
}

//! What an earlier life of the executor left: sorted by what the spool says of it.

use std::time::Duration;

use millrace_common::{id::AttemptId, secret::Secret, time::Uptime};

use super::{Event, Held, Runner};
use crate::{
    ledger::{EndedBy, Kept, Spawned, Survivor},
    supervisor::protocol::{Ended, Origin, Running, Terms},
};

/// What an earlier life has left: to be sorted by what the spool says of it.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(super) running: Vec<Running>,
    pub(super) ended: Vec<Ended>,
    /// Ends that a supervisor which is gone wrote down.
    pub(super) left: Vec<Ended>,
}

impl Found {
    /// Returns it as the ledger knows attempts.
    pub(super) fn kept(&self, contact: Option<Uptime>) -> Kept {
        let running =
            self.running.iter().map(|running| survivor(&running.origin, &running.terms, running.ended_by));
        let ended = self.ended.iter().chain(&self.left).map(|end| survivor(&end.origin, &end.terms, None));
        Kept { contact, attempts: running.chain(ended).collect() }
    }
}

fn survivor(origin: &Origin, terms: &Terms, ended_by: Option<EndedBy>) -> Survivor {
    let uptime = Uptime::new(Duration::from_millis(origin.uptime_ms));
    Survivor {
        attempt: origin.attempt,
        process: Spawned { pid: origin.pid, uptime, workspace: origin.workspace },
        started_at: origin.started_at,
        timeout: terms.timeout(),
        orphan_timeout: terms.orphan(),
        kill_grace: Duration::from_millis(terms.grace_ms),
        ended_by,
    }
}

impl Runner {
    /// Takes over what was found: what the ledger knows goes on or is told, the rest is ended.
    pub(crate) fn take_over(&mut self, found: Found, is_live: impl Fn(AttemptId) -> bool) {
        let Found { running, ended, left } = found;
        if self.link.is_some() {
            tracing::info!(
                running = running.len(),
                ended = ended.len(),
                "attempts of an earlier life were found under their supervisor"
            );
        }
        for Running { origin, terms, .. } in running {
            let attempt = origin.attempt;
            self.adopt(&origin, &terms);
            if is_live(attempt) {
                let source = self.source(attempt);
                self.events.extend(source.map(Event::Adopted));
            } else {
                tracing::warn!(%attempt, "the spool does not know an attempt that runs; it is ended");
                self.strangers.insert(attempt);
                self.kill(attempt, Duration::ZERO, EndedBy::Discard);
            }
        }
        // An end that was written down and is known is durable elsewhere, and its workspace may be another's by now.
        let left: Vec<Ended> = left.into_iter().filter(|end| is_live(end.origin.attempt)).collect();
        for end in &left {
            // What is to be hidden in it is not known any more: no file has secrets.
            self.workspaces.drop_reason(end.origin.workspace);
        }
        for end in ended.into_iter().chain(left) {
            self.adopt(&end.origin, &end.terms);
            if end.log_bytes > 0 {
                // So that what is to be hidden in its output is known when that is shipped.
                let source = self.source(end.origin.attempt);
                self.events.extend(source.map(Event::Adopted));
            }
            self.on_ended(end);
        }
    }

    fn adopt(&mut self, origin: &Origin, terms: &Terms) {
        let held = Held {
            workspace: self.workspaces.adopt(origin.workspace),
            pid: Some(origin.pid),
            secrets: terms.secrets.iter().cloned().map(Secret::new).collect(),
            program: String::new(),
        };
        self.held.insert(origin.attempt, held);
    }
}

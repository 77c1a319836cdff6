//! One attempt in the ledger.
//!
//! | state | input | next |
//! |---|---|---|
//! | – | start | starting |
//! | – | start that is refused, kill | ended |
//! | starting | spawned | running |
//! | starting, killing | not released to be spawned | ended |
//! | starting, running | kill, time-out, no contact, stop | killing |
//! | starting, running, killing | exited | ended |
//! | starting, running | its supervisor is gone, also at a restart | killing |
//! | any | restart of the executor, its supervisor lives | the same |
//! | ended | acknowledged, discarded | forgotten |

use std::time::Duration;

use millrace_common::{state::AttemptState, time::Timestamp};

use super::{
    batch::{End, Report, Spawned},
    input::{EndedBy, Ending, Exit},
};

/// An attempt that this executor holds.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) state: State,
    pub(super) kill_grace: Duration,
    pub(super) timeout: Option<Duration>,
    pub(super) orphan_timeout: Option<Duration>,
    pub(super) started_at: Option<Timestamp>,
    pub(super) process: Option<Spawned>,
}

/// Where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// Its intent is in the spool; its process is being started.
    Starting,
    /// Its process was started.
    Running,
    /// It is being ended.
    Killing(Cause),
    /// Nothing of it is left.
    Ended(End),
}

/// Why an attempt is being ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    Requested(String),
    TimedOut(Duration),
    Orphaned(Duration),
    Stopped,
    Restarted,
    Unsupervised,
    Discarded,
}

impl Cause {
    fn state(&self) -> AttemptState {
        match self {
            Self::Requested(_) => AttemptState::Killed,
            Self::TimedOut(_) => AttemptState::TimedOut,
            Self::Orphaned(_) | Self::Stopped | Self::Restarted | Self::Unsupervised | Self::Discarded => {
                AttemptState::Lost
            }
        }
    }

    fn reason(&self) -> String {
        use millrace_common::text::ShowDuration;
        match self {
            Self::Requested(reason) => reason.clone(),
            Self::TimedOut(limit) => format!("took longer than {}", ShowDuration(*limit)),
            Self::Orphaned(limit) => format!("no contact to a leader for {}", ShowDuration(*limit)),
            Self::Stopped => "the executor was stopped".to_owned(),
            Self::Restarted => {
                "the executor and its supervisor were restarted; its processes were ended".to_owned()
            }
            Self::Unsupervised => "the supervisor of its processes failed; they were ended".to_owned(),
            Self::Discarded => "the leader does not know this attempt".to_owned(),
        }
    }

    /// Returns what the supervisor is told.
    pub(super) const fn told(&self) -> EndedBy {
        match self {
            Self::Requested(_) => EndedBy::Request,
            Self::TimedOut(_) => EndedBy::Timeout,
            Self::Orphaned(_) => EndedBy::Orphan,
            // Where no supervisor is left nobody is told.
            Self::Stopped | Self::Restarted | Self::Unsupervised => EndedBy::Stop,
            Self::Discarded => EndedBy::Discard,
        }
    }
}

impl Entry {
    /// Makes an entry for what is over before it began.
    pub(super) const fn ended(end: End) -> Self {
        Self {
            state: State::Ended(end),
            kill_grace: Duration::ZERO,
            timeout: None,
            orphan_timeout: None,
            started_at: None,
            process: None,
        }
    }

    /// Makes an entry as the spool knows it: accepted, and nothing more.
    pub(super) const fn starting() -> Self {
        Self {
            state: State::Starting,
            kill_grace: Duration::ZERO,
            timeout: None,
            orphan_timeout: None,
            started_at: None,
            process: None,
        }
    }

    /// Returns the cause that a supervisor means.
    pub(super) fn cause(&self, by: EndedBy) -> Cause {
        match by {
            EndedBy::Request => Cause::Requested("ended at the leader's request".to_owned()),
            EndedBy::Discard => Cause::Discarded,
            EndedBy::Stop => Cause::Stopped,
            EndedBy::Timeout => Cause::TimedOut(self.timeout.unwrap_or_default()),
            EndedBy::Orphan => Cause::Orphaned(self.orphan_timeout.unwrap_or_default()),
        }
    }

    pub(super) const fn is_live(&self) -> bool {
        !matches!(self.state, State::Ended(_))
    }

    /// Returns the state that the leader is told.
    pub(super) const fn shown(&self) -> AttemptState {
        match &self.state {
            State::Starting => AttemptState::Accepted,
            State::Running => AttemptState::Running,
            State::Killing(_) => AttemptState::Killing,
            State::Ended(end) => end.state,
        }
    }

    /// Returns what the leader is told when it asks again.
    pub(super) fn report(&self) -> Report {
        match (&self.state, self.started_at, &self.process) {
            (State::Ended(end), ..) => Report::Ended(end.clone()),
            (_, Some(at), Some(process)) => Report::Started { at, pid: process.pid },
            _ => Report::Accepted,
        }
    }

    /// Decides the outcome. What the process did by itself before any signal of ours counts, whatever was asked since.
    pub(super) fn outcome(&self, exit: Exit) -> End {
        let mut end = End::without_exit(AttemptState::Succeeded, "", exit.at);
        end.started_at = self.started_at;
        end.log_bytes = exit.log_bytes;
        match exit.how {
            Ending::Succeeded { exit_code, is_skipped, values } => {
                end.exit_code = Some(exit_code);
                end.is_skipped = is_skipped;
                end.values = values;
            }
            Ending::Failed { exit_code, reason, is_permanent } => {
                end.state = AttemptState::Failed;
                end.exit_code = exit_code;
                end.reason = reason;
                end.is_permanent = is_permanent;
            }
            Ending::NotStarted { reason, rejection } => {
                (end.state, end.reason, end.rejection) = match &self.state {
                    State::Killing(cause) => (cause.state(), cause.reason(), None),
                    _ => (AttemptState::Rejected, reason, Some(rejection)),
                };
            }
            Ending::Ended { exit_code, by } => {
                end.exit_code = exit_code;
                // The supervisor keeps the deadlines too, and may have acted while this program could not.
                let supervised = by.map(|by| self.cause(by));
                let cause = match (&self.state, &supervised) {
                    (State::Killing(cause), _) => Some(cause),
                    (_, supervised) => supervised.as_ref(),
                };
                (end.state, end.reason) = cause.map_or_else(
                    || (AttemptState::Lost, "ended from outside".to_owned()),
                    |cause| (cause.state(), cause.reason()),
                );
                end.is_planned = matches!(cause, Some(Cause::Stopped));
            }
        }
        end
    }
}

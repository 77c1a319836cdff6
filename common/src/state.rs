//! States, as the API, the store and the pages show them.
//!
//! | thing | live | final |
//! |---|---|---|
//! | run | queued, running, paused | success, failed, cancelled |
//! | task instance | waiting, ready, active, `up_for_retry`, deferred | success, failed, skipped, `upstream_failed`, cancelled |
//! | attempt | assigned, accepted, running, killing | succeeded, failed, `timed_out`, killed, rejected, lost |

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A text or number that names no state.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a state of a {1}")]
pub struct StateError(String, &'static str);

macro_rules! states {
    ($(#[$doc:meta])* $name:ident, $thing:literal, live { $($(#[$ldoc:meta])* $live:ident = $lcode:literal $ltext:literal,)* } ended { $($(#[$edoc:meta])* $ended:ident = $ecode:literal $etext:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        #[repr(u8)]
        pub enum $name {
            $($(#[$ldoc])* $live = $lcode,)*
            $($(#[$edoc])* $ended = $ecode,)*
        }

        impl $name {
            /// Every state, live ones first.
            pub const ALL: &'static [Self] = &[$(Self::$live,)* $(Self::$ended,)*];

            /// Tells whether nothing can follow this state.
            #[must_use]
            pub const fn is_final(self) -> bool {
                matches!(self, $(Self::$ended)|*)
            }

            /// Returns the name that people and documents use.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$live => $ltext,)*
                    $(Self::$ended => $etext,)*
                }
            }

            /// Returns the number that the store keeps; it never changes its meaning.
            #[must_use]
            pub const fn code(self) -> u8 {
                self as u8
            }

            /// Reads back what [`code`](Self::code) gave.
            ///
            /// # Errors
            /// Where no state has that number.
            pub fn from_code(code: i64) -> Result<Self, StateError> {
                Self::ALL
                    .iter()
                    .copied()
                    .find(|state| i64::from(state.code()) == code)
                    .ok_or_else(|| StateError(code.to_string(), $thing))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = StateError;
            fn from_str(text: &str) -> Result<Self, StateError> {
                Self::ALL
                    .iter()
                    .copied()
                    .find(|state| state.as_str() == text)
                    .ok_or_else(|| StateError(text.to_owned(), $thing))
            }
        }
    };
}

states!(
    /// Where a run stands.
    RunState, "run",
    live {
        /// Created; waits for its workflow's limit of runs.
        Queued = 1 "queued",
        /// Its tasks may start.
        Running = 2 "running",
        /// A person stopped it from starting tasks; what runs goes on.
        Paused = 3 "paused",
    }
    ended {
        /// Every leaf ended well.
        Success = 10 "success",
        /// A leaf failed, or the run timed out.
        Failed = 11 "failed",
        /// A person cancelled it.
        Cancelled = 12 "cancelled",
    }
);

states!(
    /// Where a task instance stands.
    TaskState, "task instance",
    live {
        /// Its trigger rule is not met yet.
        Waiting = 1 "waiting",
        /// It may start and waits for a place.
        Ready = 2 "ready",
        /// An attempt is under way.
        Active = 3 "active",
        /// The last attempt failed; the next one starts after a delay.
        UpForRetry = 4 "up_for_retry",
        /// It waits for something outside and holds no slot.
        Deferred = 5 "deferred",
    }
    ended {
        /// Its last attempt succeeded.
        Success = 10 "success",
        /// Its last attempt failed and no further one is due.
        Failed = 11 "failed",
        /// It was not to run.
        Skipped = 12 "skipped",
        /// It could not run because something before it failed.
        UpstreamFailed = 13 "upstream_failed",
        /// Its run was cancelled or timed out.
        Cancelled = 14 "cancelled",
    }
);

states!(
    /// Where an attempt stands.
    AttemptState, "attempt",
    live {
        /// Placed on an executor, durably; perhaps sent, perhaps not.
        Assigned = 1 "assigned",
        /// The executor holds it, durably.
        Accepted = 2 "accepted",
        /// Its process was started.
        Running = 3 "running",
        /// It is being ended.
        Killing = 4 "killing",
    }
    ended {
        /// Its process ended well.
        Succeeded = 10 "succeeded",
        /// Its process ended badly, or could not be started.
        Failed = 11 "failed",
        /// It took longer than its time-out and was ended.
        TimedOut = 12 "timed_out",
        /// It was ended on request.
        Killed = 13 "killed",
        /// The executor refused it; it never ran.
        Rejected = 14 "rejected",
        /// Ended by silence, with a proof that nothing of it runs.
        Lost = 15 "lost",
    }
);

impl TaskState {
    /// Tells whether downstream tasks count it as a success.
    #[must_use]
    pub const fn is_success(self) -> bool {
        matches!(self, Self::Success)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_state_survives_text_and_number() {
        for state in TaskState::ALL {
            assert_eq!(state.as_str().parse(), Ok(*state));
            assert_eq!(TaskState::from_code(i64::from(state.code())), Ok(*state));
        }
        assert!("done".parse::<RunState>().is_err());
        assert!(AttemptState::from_code(0).is_err());
    }
}

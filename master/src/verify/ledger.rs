//! What an executor has written down of what it did.

use millrace_common::{
    id::{AttemptId, SpoolId},
    state::AttemptState,
    term::Term,
    time::Timestamp,
};
use millrace_proto::{
    convert::{self, WireError},
    v1::{self, history_entry::What as Wire},
};
use thiserror::Error;

/// Why the history of an executor was not read.
#[derive(Debug, Error)]
pub(crate) enum LedgerError {
    /// It has no session.
    #[error("it is not connected")]
    NotConnected,
    /// Nobody could be asked for it.
    #[error("no master leads, and executors talk to the leader only")]
    NoLeader,
    /// It does not know the question.
    #[error("its program is too old to tell its history: upgrade it")]
    TooOld,
    /// It is connected and says nothing.
    #[error("it did not tell all of it within {0} s")]
    Silent(u64),
    /// Its session ended meanwhile.
    #[error("its session ended meanwhile")]
    Gone,
    /// It has more to tell than is taken.
    #[error("it has more than {0} entries in this range: ask for a shorter one")]
    TooMany(usize),
    /// It cannot read its own files.
    #[error("it cannot read its history: {0}")]
    Unreadable(String),
    /// It does not speak as agreed.
    #[error("its answer makes no sense")]
    Wire(#[from] WireError),
}

/// The history of one executor, in the order in which it was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// The time of its oldest entry, where older ones were deleted.
    pub(crate) begins_at: Option<Timestamp>,
    pub(crate) entries: Vec<Entry>,
}

/// Something that an executor did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    /// When, by its own clock.
    pub(crate) at: Timestamp,
    pub(crate) what: What,
}

/// What it did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// It works with this spool and so many slots; `is_start` where the program has just started.
    Opened {
        spool: SpoolId,
        slots: u32,
        is_start: bool,
    },
    TermObeyed(Term),
    Accepted(AttemptId),
    Spawned(AttemptId),
    Ended {
        attempt: AttemptId,
        state: AttemptState,
        exit_code: Option<i32>,
    },
    Released(AttemptId),
}

impl What {
    /// Returns the attempt that it is about.
    pub(crate) const fn attempt(&self) -> Option<AttemptId> {
        match self {
            Self::Accepted(attempt) | Self::Spawned(attempt) | Self::Released(attempt) => Some(*attempt),
            Self::Ended { attempt, .. } => Some(*attempt),
            Self::Opened { .. } | Self::TermObeyed(_) => None,
        }
    }

    /// Says it on a line.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Opened { spool, slots, .. } => format!("works with spool {spool} and {slots} slots"),
            Self::TermObeyed(term) => format!("obeys term {term}"),
            Self::Accepted(attempt) => format!("accepted {attempt}"),
            Self::Spawned(attempt) => format!("spawned {attempt}"),
            Self::Ended { attempt, state, exit_code } => {
                let code = exit_code.map_or_else(String::new, |code| format!(" with exit code {code}"));
                format!("recorded {attempt} as {state}{code}")
            }
            Self::Released(attempt) => format!("forgot {attempt}"),
        }
    }
}

impl TryFrom<v1::HistoryEntry> for Entry {
    type Error = WireError;

    fn try_from(entry: v1::HistoryEntry) -> Result<Self, WireError> {
        let what = match entry.what.ok_or(WireError::Missing("what"))? {
            Wire::Opened(opened) => What::Opened {
                spool: convert::spool(&opened.spool_id)?,
                slots: opened.slots,
                is_start: opened.is_start,
            },
            Wire::TermObeyed(term) => What::TermObeyed(Term(term)),
            Wire::Accepted(attempt) => What::Accepted((&attempt).try_into()?),
            Wire::Spawned(attempt) => What::Spawned((&attempt).try_into()?),
            Wire::Ended(end) => What::Ended {
                attempt: convert::attempt(end.attempt.as_ref())?,
                state: convert::attempt_state(end.state)?,
                exit_code: end.exit_code,
            },
            Wire::Released(attempt) => What::Released((&attempt).try_into()?),
        };
        Ok(Self { at: convert::timestamp(entry.at), what })
    }
}

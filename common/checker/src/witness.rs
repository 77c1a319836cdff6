//! The witness log: what the processes of attempts themselves wrote, in a file outside our code's control.
//!
//! ```text
//! S <attempt> <pid> <microseconds>     it begins
//! B <attempt> <microseconds>           it lives, ten times a second
//! E <attempt> <exit> <microseconds>    it ends by itself
//! ```
//!
//! An attempt without an `E` was ended from outside, no earlier than its last line.

use std::{collections::BTreeMap, num::ParseIntError};

use millrace_common::id::{AttemptId, AttemptIdError};
use thiserror::Error;

use crate::history::{Event, Exit};

/// Why a line of a witness log cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LineError {
    /// It has not the form of one.
    #[error("line {0} is none of `S attempt pid t`, `B attempt t`, `E attempt exit t`")]
    Form(usize),
    /// It names no attempt.
    #[error("line {line} names no attempt")]
    Attempt {
        /// Which line.
        line: usize,
        /// What is wrong.
        #[source]
        source: AttemptIdError,
    },
    /// A number in it is none.
    #[error("a number in line {line} is none")]
    Number {
        /// Which line.
        line: usize,
        /// What is wrong.
        #[source]
        source: ParseIntError,
    },
}

/// Reads a witness log into the events that it tells of, ordered by time. The last line may be torn.
///
/// # Errors
/// Where a line cannot be read.
pub fn events_of(log: &str) -> Result<Vec<(u64, Event)>, LineError> {
    let mut events = Vec::new();
    let mut last_seen: BTreeMap<AttemptId, u64> = BTreeMap::new();
    let whole = log.rfind('\n').map_or("", |end| &log[..end]);
    for (line, text) in (1..).zip(whole.lines()) {
        let number = |text: &str| text.parse::<u64>().map_err(|source| LineError::Number { line, source });
        let attempt =
            |text: &str| text.parse::<AttemptId>().map_err(|source| LineError::Attempt { line, source });
        let words: Vec<&str> = text.split_whitespace().collect();
        match words[..] {
            ["S", id, pid, at] => {
                number(pid)?;
                let (attempt, at) = (attempt(id)?, number(at)?);
                last_seen.insert(attempt, at);
                events.push((at, Event::Spawned { attempt }));
            }
            ["B", id, at] => {
                last_seen.insert(attempt(id)?, number(at)?);
            }
            ["E", id, code, at] => {
                let code = code.parse().map_err(|source| LineError::Number { line, source })?;
                let attempt = attempt(id)?;
                last_seen.remove(&attempt);
                events.push((number(at)?, Event::Exited { attempt, exit: Exit::Code(code) }));
            }
            _ => return Err(LineError::Form(line)),
        }
    }
    let killed = last_seen.into_iter();
    events.extend(killed.map(|(attempt, at)| (at, Event::Exited { attempt, exit: Exit::Killed })));
    // Stable: of two events of one moment, what the log says first comes first.
    events.sort_by_key(|(at, _)| *at);
    Ok(events)
}

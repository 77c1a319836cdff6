//! Between wire messages and the vocabulary.

use millrace_common::{
    id::{AttemptId, InstanceId, RunId, SpoolId},
    state::AttemptState,
    time::Timestamp,
};
use thiserror::Error;
use uuid::Uuid;

use crate::v1;

/// Why a message was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum WireError {
    /// A field that must be there is not.
    #[error("field {0} is missing")]
    Missing(&'static str),
    /// A field has a value that it must not have.
    #[error("field {field} has no valid value: {problem}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

impl From<AttemptId> for v1::AttemptId {
    fn from(id: AttemptId) -> Self {
        Self { run: id.instance.run.as_bytes().to_vec(), index: id.instance.index, number: id.number }
    }
}

impl TryFrom<&v1::AttemptId> for AttemptId {
    type Error = WireError;
    fn try_from(id: &v1::AttemptId) -> Result<Self, WireError> {
        let run = <[u8; 16]>::try_from(id.run.as_slice()).map_err(|_| WireError::Invalid {
            field: "attempt.run",
            problem: format!("{} bytes, not 16", id.run.len()),
        })?;
        if id.number == 0 {
            return Err(WireError::Invalid {
                field: "attempt.number",
                problem: "0; numbers count from 1".to_owned(),
            });
        }
        Ok(InstanceId { run: RunId::from_bytes(run), index: id.index }.attempt(id.number))
    }
}

/// Reads an attempt id that must be there.
///
/// # Errors
/// Where it is absent or malformed.
pub fn attempt(id: Option<&v1::AttemptId>) -> Result<AttemptId, WireError> {
    id.ok_or(WireError::Missing("attempt"))?.try_into()
}

/// Reads a spool id.
///
/// # Errors
/// Where it does not have 16 bytes.
pub fn spool(bytes: &[u8]) -> Result<SpoolId, WireError> {
    Uuid::from_slice(bytes)
        .map(SpoolId)
        .map_err(|error| WireError::Invalid { field: "spool_id", problem: error.to_string() })
}

impl From<AttemptState> for v1::AttemptState {
    fn from(state: AttemptState) -> Self {
        match state {
            AttemptState::Assigned => Self::Assigned,
            AttemptState::Accepted => Self::Accepted,
            AttemptState::Running => Self::Running,
            AttemptState::Killing => Self::Killing,
            AttemptState::Succeeded => Self::Succeeded,
            AttemptState::Failed => Self::Failed,
            AttemptState::TimedOut => Self::TimedOut,
            AttemptState::Killed => Self::Killed,
            AttemptState::Rejected => Self::Rejected,
            AttemptState::Lost => Self::Lost,
        }
    }
}

/// Reads the number of an attempt state; numbers on the wire are those of the store.
///
/// # Errors
/// Where no state has that number.
pub fn attempt_state(number: i32) -> Result<AttemptState, WireError> {
    AttemptState::from_code(i64::from(number))
        .map_err(|error| WireError::Invalid { field: "state", problem: error.to_string() })
}

/// Reads a time in microseconds.
#[must_use]
pub const fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_micros(micros)
}

//! Names and identifiers.
//!
//! Names are chosen by people and checked once, here; identifiers are made by the core from a seeded source, so that a
//! recorded history can be replayed to the same ids.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, de};
use thiserror::Error;
use uuid::Uuid;

use crate::{limits::NAME_CHARS_MAX, time::Timestamp};

/// Why a text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// The text is empty.
    #[error("a name must not be empty")]
    Empty,
    /// The text is longer than [`NAME_CHARS_MAX`].
    #[error("a name has at most {NAME_CHARS_MAX} characters, this one has {0}")]
    TooLong(usize),
    /// A character outside `[a-z0-9_-]`.
    #[error("a name is made of a-z, 0-9, '_' and '-', not {0:?}")]
    Character(char),
}

fn checked(text: &str) -> Result<Arc<str>, NameError> {
    if text.is_empty() {
        return Err(NameError::Empty);
    }
    if let Some(other) = text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '_' | '-')) {
        return Err(NameError::Character(other));
    }
    if text.len() > NAME_CHARS_MAX {
        return Err(NameError::TooLong(text.len()));
    }
    Ok(text.into())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Returns the name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                checked(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    };
}

name!(
    /// The name of a workflow.
    WorkflowName
);
name!(
    /// The name of a task within its workflow.
    TaskName
);
name!(
    /// The name of a cluster-wide pool.
    PoolName
);
name!(
    /// The name of a task kind.
    KindName
);
name!(
    /// The configured name of an executor, unique in a cluster.
    ExecutorName
);
name!(
    /// The name of a parameter of a workflow.
    ParamName
);
name!(
    /// The name of a connection: credentials and address of a database or file server.
    ConnectionName
);

/// Identifies a run. Version 7, so runs sort by the time they were created.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(Uuid);

impl RunId {
    /// Makes an id from the time of creation and random bits; equal inputs give equal ids.
    #[must_use]
    pub fn new(created: Timestamp, random: u128) -> Self {
        let millis = u64::try_from(created.as_micros() / 1_000).unwrap_or(0);
        let mut bytes = [0; 10];
        bytes.copy_from_slice(&random.to_le_bytes()[..10]);
        Self(uuid::Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid())
    }

    /// Returns the 16 bytes that the store keeps.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        self.0.as_bytes()
    }

    /// Reads back what [`as_bytes`](Self::as_bytes) gave.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(Uuid::from_bytes(bytes))
    }
}

impl FromStr for RunId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(Self)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The position of a task instance in its run.
///
/// Today it equals the position of its task in the workflow; mapped tasks will append further instances to a run, which
/// is why it is not called a task index.
pub type InstanceIndex = u32;

/// Identifies a task instance: a task within a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct InstanceId {
    /// The run it belongs to.
    pub run: RunId,
    /// Its position in that run.
    pub index: InstanceIndex,
}

impl InstanceId {
    /// Returns the id of this instance's attempt with `number`.
    #[must_use]
    pub const fn attempt(self, number: u32) -> AttemptId {
        AttemptId { instance: self, number }
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.run, self.index)
    }
}

/// Identifies an attempt. Numbers count from 1 without gaps, so the id is also the fencing token of its task instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId {
    /// The task instance that is tried.
    pub instance: InstanceId,
    /// Which try it is, from 1.
    pub number: u32,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.instance, self.number)
    }
}

/// Why a text is not an attempt id.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not an attempt id of the form <run>.<instance>.<number>")]
pub struct AttemptIdError(String);

impl FromStr for AttemptId {
    type Err = AttemptIdError;
    fn from_str(text: &str) -> Result<Self, AttemptIdError> {
        let parsed = || {
            let (rest, number) = text.rsplit_once('.')?;
            let (run, index) = rest.rsplit_once('.')?;
            let instance = InstanceId { run: run.parse().ok()?, index: index.parse().ok()? };
            Some(instance.attempt(number.parse().ok().filter(|n| *n > 0)?))
        };
        parsed().ok_or_else(|| AttemptIdError(text.to_owned()))
    }
}

/// Identifies one registration of an executor with one leader. Not durable; counts within a term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SessionId(pub u64);

/// Identifies a spool directory. A new directory has a new id, so a lost disk is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SpoolId(pub Uuid);

impl fmt::Display for SpoolId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_accept_the_documented_alphabet_only() {
        assert!("nightly_mes-2".parse::<WorkflowName>().is_ok());
        assert_eq!("".parse::<WorkflowName>(), Err(NameError::Empty));
        assert_eq!("A".parse::<WorkflowName>(), Err(NameError::Character('A')));
        assert_eq!("x".repeat(101).parse::<WorkflowName>(), Err(NameError::TooLong(101)));
    }

    #[test]
    fn attempt_ids_survive_text() {
        let run = RunId::new(Timestamp::from_micros(1_700_000_000_000_000), 7);
        let id = InstanceId { run, index: 3 }.attempt(2);
        assert_eq!(id.to_string().parse::<AttemptId>(), Ok(id));
        assert!(format!("{run}.3.0").parse::<AttemptId>().is_err());
    }

    #[test]
    fn run_ids_sort_by_creation() {
        let early = RunId::new(Timestamp::from_micros(1_000_000), u128::MAX);
        let late = RunId::new(Timestamp::from_micros(2_000_000), 0);
        assert!(early < late);
    }
}

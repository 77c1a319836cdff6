//! Values to bind.

use std::sync::Arc;

use millrace_common::{
    id::{ExecutorName, RunId, SpoolId, TaskName, WorkflowName},
    time::Timestamp,
};

/// A value to bind.
#[derive(Debug, Clone)]
pub(crate) enum Cell {
    Null,
    Int(i64),
    Text(Arc<str>),
    Id([u8; 16]),
}

impl Cell {
    /// Returns how long it is, where it is a text.
    pub(crate) fn text_bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Null | Self::Int(_) | Self::Id(_) => 0,
        }
    }
}

impl From<i64> for Cell {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<u32> for Cell {
    fn from(value: u32) -> Self {
        Self::Int(value.into())
    }
}

impl From<u8> for Cell {
    fn from(value: u8) -> Self {
        Self::Int(value.into())
    }
}

impl From<bool> for Cell {
    fn from(value: bool) -> Self {
        Self::Int(value.into())
    }
}

/// Terms, sequence numbers and byte counts never get near the bound; beyond it they stick to it.
impl From<u64> for Cell {
    fn from(value: u64) -> Self {
        Self::Int(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

impl From<Timestamp> for Cell {
    fn from(value: Timestamp) -> Self {
        Self::Int(value.as_micros())
    }
}

impl From<&str> for Cell {
    fn from(value: &str) -> Self {
        Self::Text(value.into())
    }
}

impl From<&Arc<str>> for Cell {
    fn from(value: &Arc<str>) -> Self {
        Self::Text(Arc::clone(value))
    }
}

impl From<&WorkflowName> for Cell {
    fn from(value: &WorkflowName) -> Self {
        value.as_str().into()
    }
}

impl From<&TaskName> for Cell {
    fn from(value: &TaskName) -> Self {
        value.as_str().into()
    }
}

impl From<&ExecutorName> for Cell {
    fn from(value: &ExecutorName) -> Self {
        value.as_str().into()
    }
}

impl From<RunId> for Cell {
    fn from(value: RunId) -> Self {
        Self::Id(*value.as_bytes())
    }
}

impl From<SpoolId> for Cell {
    fn from(value: SpoolId) -> Self {
        Self::Id(*value.0.as_bytes())
    }
}

impl<T: Into<Self>> From<Option<T>> for Cell {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

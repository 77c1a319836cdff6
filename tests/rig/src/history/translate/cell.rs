//! The cells of a note.

use std::{fmt::Display, str::FromStr};

use anyhow::{Context as _, anyhow};
use millrace_common::{id::RunId, time::Timestamp};
use serde_json::{Map, Value};

/// A row, by column.
#[derive(Clone, Copy)]
pub(super) struct Cells<'r>(pub(super) &'r Map<String, Value>);

impl<'r> Cells<'r> {
    pub(super) fn text(self, column: &str) -> anyhow::Result<&'r str> {
        self.0.get(column).and_then(Value::as_str).with_context(|| format!("{column} holds no text"))
    }

    pub(super) fn opt_text(self, column: &str) -> Option<&'r str> {
        self.0.get(column).and_then(Value::as_str)
    }

    pub(super) fn int(self, column: &str) -> anyhow::Result<i64> {
        self.opt_int(column).with_context(|| format!("{column} holds no number"))
    }

    pub(super) fn opt_int(self, column: &str) -> Option<i64> {
        self.0.get(column).and_then(Value::as_i64)
    }

    pub(super) fn number<T: TryFrom<i64>>(self, column: &str) -> anyhow::Result<T> {
        T::try_from(self.int(column)?).map_err(|_| anyhow!("{column} is out of bounds"))
    }

    pub(super) fn parsed<T: FromStr<Err: Display>>(self, column: &str) -> anyhow::Result<T> {
        self.text(column)?.parse().map_err(|error| anyhow!("{column}: {error}"))
    }

    /// Reads an identifier in hexadecimal digits.
    pub(super) fn run(self, column: &str) -> anyhow::Result<RunId> {
        self.parsed(column)
    }

    pub(super) fn opt_time(self, column: &str) -> anyhow::Result<Option<Timestamp>> {
        Ok(self.opt_int(column).map(Timestamp::from_micros))
    }

    pub(super) fn state<S>(
        self,
        from_code: impl Fn(i64) -> Result<S, millrace_common::state::StateError>,
    ) -> anyhow::Result<S> {
        Ok(from_code(self.int("state")?)?)
    }
}

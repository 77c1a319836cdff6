//! Rows and the vocabulary: how a stored value becomes a typed one.
//!
//! Everything read is checked. A row that another build or a person wrote in a form that this build does not know is an
//! error that names the column, never a panic.

use std::{str::FromStr, sync::Arc};

use millrace_common::{
    id::{ExecutorName, InstanceId, NameError, RunId, SpoolId, WorkflowName},
    interval::DataInterval,
    state::{AttemptState, RunState, StateError, TaskState},
    term::Term,
    time::Timestamp,
};
use millrace_core::{
    Closed, ExecutorStanding, Proof, RefusedValue, RunCreated, SettingRow, SettingValue, Trigger,
};
use sqlx::{Decode, MySql, Postgres, Row as _, Sqlite};
use thiserror::Error;
use uuid::Uuid;

use crate::dialect::Row;

/// Why a row cannot be read.
#[derive(Debug, Error)]
pub enum RowError {
    /// The driver cannot give the column as the type that it has.
    #[error("column {column} cannot be read")]
    Column {
        /// Position of the column in the query, from 0.
        column: usize,
        /// The driver's reason.
        #[source]
        source: sqlx::Error,
    },
    /// A number is no state.
    #[error(transparent)]
    State(#[from] StateError),
    /// A text is no name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A number has no meaning in its column.
    #[error("{value} is no {meaning}")]
    Number {
        /// The number.
        value: i64,
        /// What it should be.
        meaning: &'static str,
    },
    /// Bytes are no identifier.
    #[error("an identifier has 16 bytes, not {0}")]
    Identifier(usize),
    /// A part of a packed line is missing, is one too many, or is not what it should be.
    #[error("{0:?} in a packed line cannot be read")]
    Field(String),
    /// A text is not the list of task names that a workflow version has.
    #[error("the list of task names cannot be read")]
    TaskNames(#[source] serde_json::Error),
}

/// The columns of a row, read one after the other in the order of the query.
pub(crate) struct Cells<'r> {
    row: &'r Row,
    at: usize,
}

impl<'r> Cells<'r> {
    pub(crate) const fn new(row: &'r Row) -> Self {
        Self { row, at: 0 }
    }

    /// Reads without comparing declared types: the schema is ours, and the comparison costs more than the reading.
    fn next<T>(&mut self) -> Result<T, RowError>
    where
        T: Decode<'r, Sqlite> + Decode<'r, Postgres> + Decode<'r, MySql>,
    {
        let column = self.at;
        self.at += 1;
        match self.row {
            Row::Sqlite(row) => row.try_get_unchecked(column),
            Row::Postgres(row) => row.try_get_unchecked(column),
            Row::MySql(row) => row.try_get_unchecked(column),
        }
        .map_err(|source| RowError::Column { column, source })
    }

    pub(crate) fn int(&mut self) -> Result<i64, RowError> {
        self.next()
    }

    pub(crate) fn opt_int(&mut self) -> Result<Option<i64>, RowError> {
        self.next()
    }

    /// Reads a count or an index.
    pub(crate) fn count(&mut self) -> Result<u32, RowError> {
        let value = self.int()?;
        u32::try_from(value).map_err(|_| RowError::Number { value, meaning: "count" })
    }

    /// Reads a number that never falls below zero.
    pub(crate) fn long(&mut self) -> Result<u64, RowError> {
        let value = self.int()?;
        u64::try_from(value).map_err(|_| RowError::Number { value, meaning: "sequence number or size" })
    }

    pub(crate) fn flag(&mut self) -> Result<bool, RowError> {
        Ok(self.opt_int()?.is_some_and(|value| value != 0))
    }

    pub(crate) fn str(&mut self) -> Result<&'r str, RowError> {
        self.next()
    }

    pub(crate) fn text(&mut self) -> Result<Arc<str>, RowError> {
        self.str().map(Into::into)
    }

    pub(crate) fn opt_text(&mut self) -> Result<Option<Arc<str>>, RowError> {
        Ok(self.next::<Option<&str>>()?.map(Into::into))
    }

    /// Reads packed lines, each of which ends with a semicolon.
    pub(crate) fn lines<T>(
        &mut self,
        mut read: impl FnMut(&mut Fields<'r>) -> Result<T, RowError>,
    ) -> Result<Vec<T>, RowError> {
        let text: Option<&str> = self.next()?;
        let line = |line| {
            let mut fields = Fields::new(line);
            let value = read(&mut fields)?;
            fields.end().map(|()| value)
        };
        text.unwrap_or("").split_terminator(';').map(line).collect()
    }

    pub(crate) fn time(&mut self) -> Result<Timestamp, RowError> {
        self.int().map(Timestamp::from_micros)
    }

    pub(crate) fn opt_time(&mut self) -> Result<Option<Timestamp>, RowError> {
        Ok(self.opt_int()?.map(Timestamp::from_micros))
    }

    pub(crate) fn interval(&mut self) -> Result<DataInterval, RowError> {
        Ok(DataInterval { start: self.time()?, end: self.time()? })
    }

    pub(crate) fn term(&mut self) -> Result<Term, RowError> {
        self.long().map(Term)
    }

    pub(crate) fn run(&mut self) -> Result<RunId, RowError> {
        let bytes: &[u8] = self.next()?;
        identifier(bytes).map(RunId::from_bytes)
    }

    pub(crate) fn opt_run(&mut self) -> Result<Option<RunId>, RowError> {
        let bytes: Option<&[u8]> = self.next()?;
        bytes.map(|bytes| identifier(bytes).map(RunId::from_bytes)).transpose()
    }

    pub(crate) fn spool(&mut self) -> Result<SpoolId, RowError> {
        let bytes: &[u8] = self.next()?;
        Ok(SpoolId(Uuid::from_bytes(identifier(bytes)?)))
    }

    pub(crate) fn instance(&mut self) -> Result<InstanceId, RowError> {
        Ok(InstanceId { run: self.run()?, index: self.count()? })
    }

    pub(crate) fn workflow(&mut self) -> Result<WorkflowName, RowError> {
        Ok(self.str()?.parse()?)
    }

    pub(crate) fn executor(&mut self) -> Result<ExecutorName, RowError> {
        Ok(self.str()?.parse()?)
    }

    pub(crate) fn run_state(&mut self) -> Result<RunState, RowError> {
        Ok(RunState::from_code(self.int()?)?)
    }

    pub(crate) fn task_state(&mut self) -> Result<TaskState, RowError> {
        Ok(TaskState::from_code(self.int()?)?)
    }

    pub(crate) fn attempt_state(&mut self) -> Result<AttemptState, RowError> {
        Ok(AttemptState::from_code(self.int()?)?)
    }

    /// Reads a final state and why, where a run is to have one.
    pub(crate) fn ending(&mut self) -> Result<Option<(RunState, Arc<str>)>, RowError> {
        let code = self.opt_int()?;
        let reason = self.opt_text()?;
        code.map(|code| Ok((RunState::from_code(code)?, reason.unwrap_or_default()))).transpose()
    }

    pub(crate) fn proof(&mut self) -> Result<Option<Proof>, RowError> {
        let Some(value) = self.opt_int()? else { return Ok(None) };
        let found = Proof::ALL.into_iter().find(|proof| i64::from(proof.code()) == value);
        found.map(Some).ok_or(RowError::Number { value, meaning: "proof" })
    }

    /// Reads how an executor is closed: `closed` to `closed_at`, in the order of the table.
    pub(crate) fn standing(&mut self) -> Result<ExecutorStanding, RowError> {
        let value = self.int()?;
        let closed = Closed::ALL.into_iter().find(|closed| i64::from(closed.code()) == value);
        let closed = closed.ok_or(RowError::Number { value, meaning: "way to close an executor" })?;
        Ok(ExecutorStanding { closed, reason: self.text()?, by: self.text()?, since: self.time()? })
    }

    /// Reads what caused a run: a number and, for a retry, the run that is retried.
    pub(crate) fn trigger(&mut self) -> Result<Trigger, RowError> {
        let code = self.int()?;
        trigger(code, self.opt_run()?)
    }

    /// Reads how a run came to be: `id` to `created_at`, in the order of the table.
    pub(crate) fn setting(&mut self) -> Result<SettingRow, RowError> {
        let name = self.text()?;
        let (text, by, at) = (self.opt_text()?, self.opt_text()?, self.opt_time()?);
        let value = text.zip(by).zip(at).map(|((text, by), at)| SettingValue { text, by, at });
        let (text, reason) = (self.opt_text()?, self.opt_text()?);
        let (by, at) = (self.opt_text()?, self.opt_time()?);
        let refused = text.zip(reason).zip(by.zip(at));
        let refused = refused.map(|((text, reason), (by, at))| RefusedValue { text, reason, by, at });
        Ok(SettingRow { name, value, refused, revision: self.long()? })
    }

    pub(crate) fn created(&mut self) -> Result<RunCreated, RowError> {
        Ok(RunCreated {
            run: self.run()?,
            workflow: self.workflow()?,
            version: self.count()?,
            trigger: self.trigger()?,
            interval: self.interval()?,
            params: self.text()?,
            idempotency_key: self.opt_text()?,
            at: self.time()?,
        })
    }
}

/// The parts of a packed line, separated by spaces.
pub(crate) struct Fields<'r> {
    rest: Option<&'r str>,
}

impl<'r> Fields<'r> {
    pub(crate) const fn new(line: &'r str) -> Self {
        Self { rest: Some(line) }
    }

    pub(crate) fn next(&mut self) -> Result<&'r str, RowError> {
        let rest = self.rest.ok_or_else(|| RowError::Field(String::new()))?;
        let (field, rest) = rest.split_once(' ').map_or((rest, None), |(field, rest)| (field, Some(rest)));
        self.rest = rest;
        Ok(field)
    }

    pub(crate) fn number<T: FromStr>(&mut self) -> Result<T, RowError> {
        let field = self.next()?;
        field.parse().map_err(|_| RowError::Field(field.to_owned()))
    }

    /// Reads a part that is empty where the column is NULL.
    pub(crate) fn opt_number<T: FromStr>(&mut self) -> Result<Option<T>, RowError> {
        let field = self.next()?;
        if field.is_empty() {
            Ok(None)
        } else {
            Some(field.parse()).transpose().map_err(|_| RowError::Field(field.to_owned()))
        }
    }

    /// Takes all that is left.
    pub(crate) fn rest(&mut self) -> &'r str {
        self.rest.take().unwrap_or("")
    }

    /// Checks that nothing is left.
    pub(crate) fn end(&self) -> Result<(), RowError> {
        self.rest.map_or(Ok(()), |rest| Err(RowError::Field(rest.to_owned())))
    }
}

/// The number that the column `trigger_code` holds and, for a retry, the run that is retried.
pub(crate) const fn trigger_code(trigger: Trigger) -> (u8, Option<RunId>) {
    match trigger {
        Trigger::Schedule => (1, None),
        Trigger::Manual => (2, None),
        Trigger::Retry(of) => (3, Some(of)),
    }
}

/// Reads back what [`trigger_code`] gave.
fn trigger(code: i64, retry_of: Option<RunId>) -> Result<Trigger, RowError> {
    match (code, retry_of) {
        (1, None) => Ok(Trigger::Schedule),
        (2, None) => Ok(Trigger::Manual),
        (3, Some(of)) => Ok(Trigger::Retry(of)),
        _ => Err(RowError::Number { value: code, meaning: "trigger" }),
    }
}

fn identifier(bytes: &[u8]) -> Result<[u8; 16], RowError> {
    bytes.try_into().map_err(|_| RowError::Identifier(bytes.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_lines_have_all_their_parts_and_no_more() {
        let read = |line: &str| {
            let mut fields = Fields::new(line);
            let parts: (u32, Option<i64>) = (fields.number()?, fields.opt_number()?);
            fields.end().map(|()| parts)
        };
        assert_eq!(read("7 -3").unwrap(), (7, Some(-3)));
        assert_eq!(read("7 ").unwrap(), (7, None));
        for wrong in ["", "7", "x 1", "7 1 2", "-7 1"] {
            assert!(matches!(read(wrong), Err(RowError::Field(_))), "{wrong:?}");
        }
    }

    #[test]
    fn triggers_survive_their_numbers() {
        let run = RunId::from_bytes([7; 16]);
        for expected in [Trigger::Schedule, Trigger::Manual, Trigger::Retry(run)] {
            let (code, of) = trigger_code(expected);
            assert_eq!(trigger(code.into(), of).unwrap(), expected);
        }
        assert!(trigger(3, None).is_err(), "a retry names the run that it retries");
        assert!(trigger(0, None).is_err());
    }
}

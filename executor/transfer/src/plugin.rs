//! The seam between the engine and its plugins, and the registry of names.
//!
//! A definition's reader is a [`Source`]: it splits into [`ReadTask`]s, each opened when its turn
//! comes. Its writer is a [`Sink`]: prepared once, it becomes a [`Target`] that opens one [`Writer`]
//! per task. A reader is pulled, so nothing piles up. Records that cannot be read or written are
//! data ([`Batch::dirty`], [`Outcome::dirty`]); an error ends the transfer.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::BoxFuture;

use crate::{
    column::Record,
    convert::Conversion,
    dirty::DirtyRecord,
    limits::PENDING_NOTES,
    parameter::Section,
    rdbms::{self, Dialect},
    setting::Setting,
    stream, text,
};

/// Why a plugin could not go on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    #[error("could not connect to {address} in {tries} tries")]
    Connect {
        address: String,
        tries: u32,
        #[source]
        source: sqlx::Error,
    },
    #[error("statement was refused: {statement}")]
    Statement {
        statement: String,
        #[source]
        source: sqlx::Error,
    },
    #[error("rows could not be read by: {query}")]
    Rows {
        query: String,
        #[source]
        source: sqlx::Error,
    },
    #[error("rows could not be written to {table}")]
    Insert {
        table: String,
        #[source]
        source: sqlx::Error,
    },
    #[error("{table} has columns this definition does not fit: {what}")]
    Columns { table: String, what: String },
    #[error(
        "record has {found} columns, the writer has {wanted}; give both plugins the same number of columns"
    )]
    ColumnCount { found: usize, wanted: usize },
    #[error("{tables} target tables do not fit {tasks} reading tasks; name 1 table, or as many as tasks")]
    Tables { tables: usize, tasks: usize },
    #[error("{path} could not be {action}")]
    File {
        path: PathBuf,
        action: &'static str,
        #[source]
        source: std::io::Error,
    },
    #[error("no file matches {patterns}")]
    NoFile { patterns: String },
    #[error("more than {limit} {what}")]
    TooMany { what: &'static str, limit: usize },
    #[error(
        "{path} has files that start with {prefix}, which writeMode nonConflict forbids; choose truncate or append"
    )]
    Conflict { path: PathBuf, prefix: String },
    #[error(
        "{path} holds a field or record that is too long at record {record}; is the delimiter or the text qualifier wrong?"
    )]
    FieldTooLong { path: PathBuf, record: u64 },
    #[error("a blocking step ended early")]
    Blocking {
        #[source]
        source: tokio::task::JoinError,
    },
}

pub(crate) type Step<'a, T> = BoxFuture<'a, Result<T, PluginError>>;

/// How large a batch may get; it is full when either part is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchLimit {
    pub(crate) records: usize,
    pub(crate) bytes: u64,
}

/// Records of one pull.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) records: Vec<Record>,
    pub(crate) bytes: u64,
    pub(crate) dirty: Vec<DirtyRecord>,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty() && self.dirty.is_empty()
    }

    pub(crate) fn is_full(&self, limit: BatchLimit) -> bool {
        self.records.len() + self.dirty.len() >= limit.records || self.bytes >= limit.bytes
    }

    pub(crate) fn push(&mut self, record: Record) {
        self.bytes += crate::column::byte_size(&record);
        self.records.push(record);
    }
}

/// What became of a batch that was written; what is not dirty is durable in the target.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) dirty: Vec<DirtyRecord>,
    /// Text that belongs into the log as it is: what streamwriter prints.
    pub(crate) printed: String,
}

/// A parsed reader.
pub(crate) trait Source: fmt::Debug + Send + Sync {
    fn name(&self) -> &'static str;

    /// Returns the tasks, at least one, or an error that says why there is nothing to read.
    fn split<'a>(&'a self, context: &'a Context) -> Step<'a, Vec<Box<dyn ReadTask>>>;
}

/// One part of what is read.
pub(crate) trait ReadTask: fmt::Debug + Send {
    fn open<'a>(self: Box<Self>, context: &'a Context) -> Step<'a, Box<dyn Reader>>;
}

/// An open task.
pub(crate) trait Reader: Send {
    /// Returns the next records, or nothing at the end. Not called again after that.
    fn next_batch(&mut self, limit: BatchLimit) -> Step<'_, Option<Batch>>;
}

/// A parsed writer.
pub(crate) trait Sink: fmt::Debug + Send + Sync {
    fn name(&self) -> &'static str;

    /// How much this writer wants at a time.
    fn batch_limit(&self) -> BatchLimit;

    /// Checks the target and brings it into the state that the definition asks for.
    fn prepare<'a>(&'a self, context: &'a Context, tasks: usize) -> Step<'a, Box<dyn Target>>;
}

/// A prepared writer.
pub(crate) trait Target: Send {
    fn open<'a>(&'a mut self, context: &'a Context, task: usize) -> Step<'a, Box<dyn Writer>>;

    /// Runs what the definition asks for after all tasks. Not called when the transfer failed.
    fn post<'a>(&'a mut self, context: &'a Context) -> Step<'a, ()>;
}

/// The writer of one task.
pub(crate) trait Writer: Send {
    fn write(&mut self, records: Vec<Record>) -> Step<'_, Outcome>;

    /// Ends the task; what was written is durable after it.
    fn finish(self: Box<Self>) -> Step<'static, ()>;
}

/// What plugins are given.
#[derive(Debug, Clone)]
pub(crate) struct Context {
    pub(crate) conversion: Arc<Conversion>,
    pub(crate) channels: u64,
    pub(crate) connect: ConnectPolicy,
    pub(crate) notes: Notes,
}

/// How often a connection is tried.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectPolicy {
    pub(crate) tries: u32,
    /// Pause after the first failed round; it doubles.
    pub(crate) pause: Duration,
}

/// Lines for the log, left by plugins between two batches. Bounded: more are dropped and counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<(Vec<String>, usize)>>);

impl Notes {
    pub(crate) fn add(&self, note: String) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.0.len() < PENDING_NOTES { notes.0.push(note) } else { notes.1 += 1 }
    }

    pub(crate) fn take(&self) -> Vec<String> {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut taken, dropped) = std::mem::take(&mut *notes);
        if dropped > 0 {
            taken.push(format!("{dropped} more notes are not shown"));
        }
        taken
    }
}

/// Reads the reader named `name`; nothing where it is not native or wrong, which the findings say.
pub(crate) fn source(name: &str, section: &Section<'_>, setting: &Setting) -> Option<Arc<dyn Source>> {
    let parameter = section.section("parameter");
    match name {
        stream::READER => stream::source(&parameter, setting),
        text::READER => text::source(&parameter),
        "mysqlreader" => rdbms::source(Dialect::Mysql, &parameter),
        "sqlitereader" => rdbms::source(Dialect::Sqlite, &parameter),
        _ => {
            section.findings().foreign(format!("reader {name} is not native"));
            None
        }
    }
}

/// Reads the writer named `name`; nothing where it is not native or wrong, which the findings say.
pub(crate) fn sink(name: &str, section: &Section<'_>) -> Option<Arc<dyn Sink>> {
    let parameter = section.section("parameter");
    match name {
        stream::WRITER => stream::sink(&parameter),
        text::WRITER => text::sink(&parameter),
        "mysqlwriter" => rdbms::sink(Dialect::Mysql, &parameter),
        "sqlitewriter" => rdbms::sink(Dialect::Sqlite, &parameter),
        _ => {
            section.findings().foreign(format!("writer {name} is not native"));
            None
        }
    }
}

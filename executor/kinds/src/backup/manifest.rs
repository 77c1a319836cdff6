//! The manifest of a backup: a JSON file beside it that says what it is and how to tell that it is whole.
//!
//! Its fields are only ever added to. What reads it back takes the few that retention and the space check need, so that
//! manifests of later versions stay readable.

use chrono::{DateTime, Utc};
use millrace_common::kind::backup::{BackupTool, Compression};
use serde::{Deserialize, Serialize};

/// The version of the form; raised when a field changes its meaning.
const FORMAT: u32 = 1;

/// Tables that are listed by name; of more, only the number is kept.
const TABLES_LISTED_MAX: usize = 10_000;

/// A table of a database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Table {
    pub(super) name: String,
    /// The storage engine; empty for SQLite.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) engine: String,
    /// An estimate of the server; exact for SQLite.
    pub(super) rows: i64,
}

/// The place in the server's binary log that a dump corresponds to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub(super) struct BinlogPosition {
    pub(super) file: String,
    pub(super) position: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) gtid: String,
}

/// What the tool knows about a backup.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Facts {
    pub(super) tool: BackupTool,
    /// The version of the server, or of SQLite.
    pub(super) server: String,
    /// The dump program as it names itself.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) client: String,
    /// The options of the dump program.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) flags: Vec<String>,
    pub(super) table_count: usize,
    pub(super) tables: Vec<Table>,
    pub(super) warnings: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) binlog: Option<BinlogPosition>,
}

impl Facts {
    /// Starts the facts of a tool.
    pub(super) fn new(tool: BackupTool, server: String, mut tables: Vec<Table>) -> Self {
        let table_count = tables.len();
        tables.truncate(TABLES_LISTED_MAX);
        Self {
            tool,
            server,
            client: String::new(),
            flags: Vec::new(),
            table_count,
            tables,
            warnings: Vec::new(),
            binlog: None,
        }
    }
}

/// Everything about a backup.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Manifest {
    format: u32,
    pub(super) database: String,
    pub(super) file: String,
    pub(super) started: DateTime<Utc>,
    pub(super) ended: DateTime<Utc>,
    /// Bytes that the tool wrote.
    pub(super) bytes: u64,
    /// Bytes of the file.
    pub(super) compressed_bytes: u64,
    pub(super) compression: Compression,
    /// SHA-256 of the file.
    pub(super) sha256: String,
    /// SHA-256 of what the tool wrote.
    pub(super) sha256_raw: String,
    #[serde(flatten)]
    pub(super) facts: Facts,
}

/// The part of a manifest that identifies and sums a backup.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) database: String,
    pub(super) file: String,
    pub(super) started: DateTime<Utc>,
    pub(super) ended: DateTime<Utc>,
}

impl Manifest {
    /// Completes a manifest.
    pub(super) fn new(
        identity: Identity,
        sealed: &super::archive::Sealed,
        codec: super::archive::Codec,
        facts: Facts,
    ) -> Self {
        let Identity { database, file, started, ended } = identity;
        Self {
            format: FORMAT,
            database,
            file,
            started,
            ended,
            bytes: sealed.raw.bytes,
            compressed_bytes: sealed.packed.bytes,
            compression: codec.compression(),
            sha256: sealed.packed.sha256.clone(),
            sha256_raw: sealed.raw.sha256.clone(),
            facts,
        }
    }
}

/// What is read back of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Entry {
    pub(super) database: String,
    pub(super) file: String,
    pub(super) started: DateTime<Utc>,
    pub(super) compressed_bytes: u64,
}

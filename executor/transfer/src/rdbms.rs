//! The database plugins: their parameters, which all databases share, and the names of the databases.
//!
//! SQL of a definition (`column`, `where`, `querySql`, `preSql`) is its author's and is run as it
//! is, with the rights of the login that the definition names. Values are always bound.

mod link;
mod mysql;
mod mysql_row;
mod query;
mod read;
mod sqlite;
mod write;

use std::sync::Arc;

use self::{
    query::{InsertText, WriteMode, clean_where, expand_table, is_duplicate, select},
    read::{Origin, ReadSpec},
    write::{TargetTable, WriteSpec},
};
use crate::{
    jdbc::{self, Address},
    limits::{BATCH_BYTES, BATCH_BYTES_MAX, BATCH_RECORDS, BATCH_RECORDS_MAX, TASKS},
    parameter::Section,
    plugin::{BatchLimit, Sink, Source},
    secret::Secret,
};

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Mysql,
    Sqlite,
}

/// Who connects, and what every connection starts with.
#[derive(Debug, Clone)]
pub(crate) struct Login {
    pub(crate) username: String,
    pub(crate) password: Secret,
    pub(crate) session: Vec<String>,
}

const READER_KEYS: [&str; 13] = [
    "username",
    "password",
    "connection",
    "column",
    "where",
    "splitPk",
    "splitFactor",
    "session",
    "fetchSize",
    "mandatoryEncoding",
    "checkSlave",
    "preSql",
    "querySql",
];

const WRITER_KEYS: [&str; 12] = [
    "username",
    "password",
    "connection",
    "column",
    "preSql",
    "postSql",
    "session",
    "batchSize",
    "batchByteSize",
    "emptyAsNull",
    "writeMode",
    "table",
];

/// Parses a reader's parameters.
pub(crate) fn source(dialect: Dialect, section: &Section<'_>) -> Option<Arc<dyn Source>> {
    section.note_unknown(&READER_KEYS);
    reader_extras(section);
    let login = login(dialect, section);
    let origins = origins(dialect, section);
    if origins.iter().map(|origin| origin.queries.len()).sum::<usize>() > TASKS {
        section.problem("connection", format!("names more than {TASKS} tables"));
    }
    Some(Arc::new(ReadSpec { dialect, login, origins }))
}

/// Parses a writer's parameters.
pub(crate) fn sink(dialect: Dialect, section: &Section<'_>) -> Option<Arc<dyn Sink>> {
    section.note_unknown(&WRITER_KEYS);
    let columns = section.texts("column");
    if columns.is_empty() {
        section.problem("column", "is required: a list of columns, or [\"*\"] for all");
    } else if let Some(name) = is_duplicate(&columns) {
        section.problem("column", format!("names {name} twice"));
    }
    let Some(mode) = WriteMode::parse(&section.text("writeMode").unwrap_or_else(|| "insert".into())) else {
        section.problem("writeMode", "must start with insert, replace or update");
        return None;
    };
    let tables = target_tables(dialect, section);
    Some(Arc::new(WriteSpec {
        dialect,
        login: login(dialect, section),
        tables,
        columns,
        mode,
        pre_sql: section.texts("preSql"),
        post_sql: section.texts("postSql"),
        limit: batch_limit(section),
        empty_as_null: section.flag("emptyAsNull").unwrap_or(true),
    }))
}

/// `batchSize` and `batchByteSize`, kept where memory stays bounded.
fn batch_limit(section: &Section<'_>) -> BatchLimit {
    let records = section.limit("batchSize").unwrap_or(BATCH_RECORDS).min(BATCH_RECORDS_MAX);
    let bytes = section.limit("batchByteSize").unwrap_or(BATCH_BYTES).min(BATCH_BYTES_MAX);
    BatchLimit { records: usize::try_from(records).unwrap_or(usize::MAX), bytes }
}

fn reader_extras(section: &Section<'_>) {
    let findings = section.findings();
    let path = |key| section.path(key);
    if section.text("splitPk").is_some_and(|key| !key.trim().is_empty()) {
        findings
            .note(format!("{}: one task reads the whole table, which gives the same rows", path("splitPk")));
    }
    if section.text("mandatoryEncoding").is_some_and(|name| !name.trim().is_empty()) {
        findings.foreign(format!("{} is not supported", path("mandatoryEncoding")));
    }
    if section.flag("checkSlave") == Some(true) {
        findings.foreign(format!("{} is not supported", path("checkSlave")));
    }
    if !section.texts("preSql").is_empty() {
        findings.foreign(format!("{} of a reader is not supported", path("preSql")));
    }
}

fn login(dialect: Dialect, section: &Section<'_>) -> Login {
    let session = section.texts("session");
    match dialect {
        Dialect::Sqlite => {
            if !session.is_empty() {
                section.findings().note(format!("{} is ignored for this database", section.path("session")));
            }
            Login { username: String::new(), password: Secret::default(), session: Vec::new() }
        }
        Dialect::Mysql => Login {
            username: section.required("username").unwrap_or_default(),
            password: section.secret("password"),
            session,
        },
    }
}

fn origins(dialect: Dialect, section: &Section<'_>) -> Vec<Origin> {
    let connections = section.sections("connection");
    if connections.is_empty() {
        section.problem("connection", "is required: a list of objects with jdbcUrl and table or querySql");
    }
    let by_query = connections.iter().filter(|connection| connection.get("querySql").is_some()).count();
    if by_query > 0 && by_query < connections.len() {
        section.problem("connection", "mixes table and querySql; use one of them everywhere");
    }
    if by_query > 0 {
        for key in ["column", "where", "splitPk"].into_iter().filter(|key| section.get(key).is_some()) {
            section.findings().note(format!("{} is ignored, because querySql is set", section.path(key)));
        }
    }
    connections.iter().map(|connection| origin(dialect, section, connection)).collect()
}

fn origin(dialect: Dialect, section: &Section<'_>, connection: &Section<'_>) -> Origin {
    let addresses = addresses(dialect, connection);
    let queries = connection.texts("querySql");
    let tables = tables(connection);
    match (queries.is_empty(), tables.is_empty()) {
        (false, false) => connection.problem("querySql", "and table exclude each other; remove one"),
        (true, true) => connection.problem("table", "is required, or querySql instead"),
        _ => {}
    }
    if !queries.is_empty() {
        let queries = queries.iter().map(|query| query.trim().trim_end_matches(';').to_owned()).collect();
        return Origin { addresses, queries };
    }
    let columns = section.texts("column");
    if columns.is_empty() {
        section.problem("column", "is required: a list of columns, or [\"*\"] for all");
    }
    let condition = section.text("where").map(|text| clean_where(&text)).filter(|text| !text.is_empty());
    let queries = tables.iter().map(|table| select(&columns, table, condition.as_deref())).collect();
    Origin { addresses, queries }
}

/// The tables of a connection, with patterns and comma lists expanded.
fn tables(connection: &Section<'_>) -> Vec<String> {
    let mut tables = Vec::new();
    for pattern in connection.texts("table") {
        for part in pattern.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            match expand_table(part) {
                Some(expanded) => tables.extend(expanded),
                None => connection.problem(
                    "table",
                    format!("{part:?} is no usable range; write t[0-9], with at most {TASKS} tables"),
                ),
            }
        }
    }
    tables
}

fn target_tables(dialect: Dialect, section: &Section<'_>) -> Vec<TargetTable> {
    let connections = section.sections("connection");
    if connections.is_empty() {
        section.problem("connection", "is required: a list of objects with jdbcUrl and table");
    }
    let mut targets = Vec::new();
    for connection in &connections {
        let addresses = addresses(dialect, connection);
        let tables = tables(connection);
        if tables.is_empty() {
            connection.problem("table", "is required: a list of tables");
        }
        targets.extend(tables.into_iter().map(|table| TargetTable { addresses: addresses.clone(), table }));
    }
    targets
}

fn addresses(dialect: Dialect, connection: &Section<'_>) -> Vec<Address> {
    let texts = connection.texts("jdbcUrl");
    if texts.is_empty() {
        connection.problem("jdbcUrl", "is required");
    }
    let mut addresses = Vec::new();
    for text in &texts {
        let parsed = match dialect {
            Dialect::Mysql => jdbc::parse_mysql(text),
            Dialect::Sqlite => jdbc::parse_sqlite(text),
        };
        match parsed {
            Ok((address, ignored)) => {
                let findings = connection.findings();
                let path = connection.path("jdbcUrl");
                ignored.iter().for_each(|key| findings.note(format!("{path}: option {key} is ignored")));
                addresses.push(address);
            }
            Err(error) => connection.problem("jdbcUrl", error.to_string()),
        }
    }
    addresses
}

impl Dialect {
    pub(crate) fn reader(self) -> &'static str {
        match self {
            Self::Mysql => "mysqlreader",
            Self::Sqlite => "sqlitereader",
        }
    }

    pub(crate) fn writer(self) -> &'static str {
        match self {
            Self::Mysql => "mysqlwriter",
            Self::Sqlite => "sqlitewriter",
        }
    }

    /// A name as the database reads it whatever it contains.
    pub(crate) fn quoted(self, name: &str) -> String {
        match self {
            Self::Mysql => format!("`{}`", name.replace('`', "``")),
            Self::Sqlite => format!("\"{}\"", name.replace('"', "\"\"")),
        }
    }

    fn insert_text(self, mode: &WriteMode, table: &str, columns: &[String]) -> InsertText {
        let tail = match (mode, self) {
            (WriteMode::Verbatim(_), _) => String::new(),
            (WriteMode::Update, Self::Mysql) => {
                let sets = columns.iter().map(|name| format!("{name}=VALUES({name})"));
                format!(" ON DUPLICATE KEY UPDATE {}", sets.collect::<Vec<_>>().join(","))
            }
            (WriteMode::Update, Self::Sqlite) => {
                let sets = columns.iter().map(|name| format!("{name}=excluded.{name}"));
                format!(" ON CONFLICT DO UPDATE SET {}", sets.collect::<Vec<_>>().join(","))
            }
        };
        InsertText::new(mode.verb(), table, columns, tail)
    }
}

//! txtfilereader and txtfilewriter: text files with a delimiter, plain or compressed.

mod files;
mod read;
mod tokens;
mod write;

use std::sync::Arc;

use encoding_rs::UTF_8;

use self::{
    read::{Cell, ReadSpec},
    tokens::Syntax,
    write::{WriteMode, WriteSpec},
};
use crate::{
    column::{Column, Kind},
    convert::Conversion,
    parameter::Section,
    plugin::{Sink, Source},
    setting::{encoding, pattern},
};

pub(crate) const READER: &str = "txtfilereader";
pub(crate) const WRITER: &str = "txtfilewriter";

const READER_KEYS: [&str; 10] = [
    "path",
    "column",
    "fieldDelimiter",
    "compress",
    "encoding",
    "skipHeader",
    "nullFormat",
    "csvReaderConfig",
    "fileFormat",
    "verbose",
];

const WRITER_KEYS: [&str; 11] = [
    "path",
    "fileName",
    "writeMode",
    "fieldDelimiter",
    "compress",
    "encoding",
    "nullFormat",
    "dateFormat",
    "fileFormat",
    "header",
    "suffix",
];

/// Parses a txtfilereader's parameters.
pub(crate) fn source(section: &Section<'_>) -> Option<Arc<dyn Source>> {
    section.note_unknown(&READER_KEYS);
    let paths = section.texts("path");
    if paths.is_empty() {
        section.problem("path", "is required: a file, a folder, or a pattern with *");
    }
    if let Some(relative) = paths.iter().find(|path| !path.starts_with('/')) {
        section.problem("path", format!("{relative:?} must be absolute"));
    }
    let cells = cells(section);
    Some(Arc::new(ReadSpec {
        paths,
        cells: cells?,
        syntax: syntax(section),
        gzip: gzip(section),
        encoding: encoding(section, "encoding").unwrap_or(UTF_8),
        skip_header: section.flag("skipHeader").unwrap_or(false),
        null_format: section.text("nullFormat"),
    }))
}

/// Nothing stands for all columns as text.
#[expect(clippy::option_option, reason = "the outer absence is a problem that was reported")]
fn cells(section: &Section<'_>) -> Option<Option<Arc<[Cell]>>> {
    if section.is_star("column") {
        return Some(None);
    }
    let columns = section.sections("column");
    if columns.is_empty() {
        section.problem("column", "is required: a list of objects with index and type, or [\"*\"]");
        return None;
    }
    let cells: Option<Arc<[Cell]>> = columns.iter().map(cell).collect();
    cells.map(Some)
}

fn cell(section: &Section<'_>) -> Option<Cell> {
    section.note_unknown(&["index", "value", "type", "format", "name"]);
    let name = section.text("type").unwrap_or_else(|| "string".to_owned());
    let Some(kind) = Kind::parse(&name).filter(|kind| *kind != Kind::Bytes) else {
        section.problem("type", format!("{name:?} is no type; write string, long, double, boolean or date"));
        return None;
    };
    let format = pattern(section, "format");
    match (section.count("index"), section.text("value")) {
        (Some(index), None) => Some(Cell::Field { index: usize::try_from(index).ok()?, kind, format }),
        (None, Some(value)) => {
            let constant = Conversion::default().cast(&Column::String(Some(value)), kind);
            constant.map(Cell::Constant).map_err(|error| section.problem("value", error.to_string())).ok()
        }
        _ => {
            section.problem("index", "or value is required, and only one of them");
            None
        }
    }
}

fn syntax(section: &Section<'_>) -> Syntax {
    let config = section.section("csvReaderConfig");
    let known = [
        "safetySwitch",
        "skipEmptyRecords",
        "useTextQualifier",
        "textQualifier",
        "trimWhitespace",
        "delimiter",
    ];
    for key in ["useComments", "escapeMode", "recordDelimiter"] {
        if config.get(key).is_some() {
            section.findings().foreign(format!("{} is not supported", config.path(key)));
        }
    }
    if config.flag("skipEmptyRecords") == Some(false) {
        section.findings().foreign(format!("{} false is not supported", config.path("skipEmptyRecords")));
    }
    config.note_unknown(&[&known[..], &["useComments", "escapeMode", "recordDelimiter"]].concat());
    let quotes = config.flag("useTextQualifier").unwrap_or(true);
    Syntax {
        delimiter: section.character("fieldDelimiter", ','),
        quote: quotes.then(|| config.character("textQualifier", '"')),
        trim: config.flag("trimWhitespace").unwrap_or(true),
        safe: config.flag("safetySwitch").unwrap_or(true),
    }
}

/// Says whether files are compressed; other methods than gzip need an external `DataX`.
fn gzip(section: &Section<'_>) -> bool {
    let method = section.text("compress").unwrap_or_default();
    match method.trim().to_ascii_lowercase().as_str() {
        "" | "none" => false,
        "gzip" | "gz" => true,
        other => {
            section.findings().foreign(format!("{} {other} is not supported", section.path("compress")));
            false
        }
    }
}

/// Parses a txtfilewriter's parameters.
pub(crate) fn sink(section: &Section<'_>) -> Option<Arc<dyn Sink>> {
    section.note_unknown(&WRITER_KEYS);
    let path = section.required("path").unwrap_or_default();
    if !path.is_empty() && !path.starts_with('/') {
        section.problem("path", format!("{path:?} must be absolute"));
    }
    let name = section.required("fileName").unwrap_or_default();
    if name.contains(['/', '\0']) || name == ".." {
        section.problem("fileName", "must be the start of a file's name, without a folder");
    }
    let mode = WriteMode::parse(&section.text("writeMode").unwrap_or_default());
    if mode.is_none() {
        section.problem("writeMode", "is required: truncate, append or nonConflict");
    }
    let format = section.text("fileFormat").unwrap_or_else(|| "text".to_owned()).to_ascii_lowercase();
    if format != "text" && format != "csv" {
        section.findings().foreign(format!("{} {format} is not supported", section.path("fileFormat")));
    }
    let suffix = section.text("suffix").unwrap_or_default();
    if suffix.contains(['/', '\0']) {
        section.problem("suffix", "must be the end of a file's name, without a folder");
    }
    Some(Arc::new(WriteSpec {
        folder: path.into(),
        name,
        suffix,
        mode: mode?,
        delimiter: section.character("fieldDelimiter", ','),
        csv: format == "csv",
        gzip: gzip(section),
        encoding: encoding(section, "encoding").unwrap_or(UTF_8),
        null_format: section.text("nullFormat").unwrap_or_else(|| "null".to_owned()),
        date_format: pattern(section, "dateFormat"),
        header: section.texts("header"),
    }))
}

//! Printing: standard output carries what was asked for and nothing else.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::Context;
use comfy_table::{ContentArrangement, Table, presets::UTF8_HORIZONTAL_ONLY};
use millrace_common::{text::ShowDuration, time::Timestamp};
use serde_json::{Value, json};

use crate::cli::Format;

/// Something that can be printed in every format.
pub(crate) trait Printable {
    /// Returns the value for programs.
    fn value(&self) -> Value;
    /// Returns the text for people.
    fn text(&self) -> String;
}

/// Whether anybody still reads what is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reader {
    /// As far as is known.
    There,
    /// It has what it wanted, as `head` does.
    Gone,
}

/// Prints in the format that was asked for.
pub(crate) fn print(what: &impl Printable, format: Format) -> anyhow::Result<()> {
    let text = match format {
        Format::Table => format!("{}\n", what.text().trim_end()),
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&what.value())?),
        Format::Yaml => serde_saphyr::to_string(&what.value())?,
    };
    // A reader that has gone does not change what the command did.
    emit(text.as_bytes()).map(drop)
}

/// Writes to standard output, at once.
pub(crate) fn emit(bytes: &[u8]) -> anyhow::Result<Reader> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(Reader::There),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(Reader::Gone),
        Err(error) => Err(error).context("cannot write to standard output"),
    }
}

/// Makes a table of rows of text; on a terminal it is made to fit.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header.to_vec());
    table.add_rows(rows.into_iter().map(|row| row.iter().map(|cell| one_line(cell)).collect::<Vec<_>>()));
    table.to_string()
}

/// Takes from a text whatever would move a terminal's cursor.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Shows a time; empty where there is none.
pub(crate) fn time(micros: Option<i64>) -> String {
    micros.map(|micros| Timestamp::from_micros(micros).to_string()).unwrap_or_default()
}

/// Returns a time for programs; null where there is none.
pub(crate) fn time_value(micros: Option<i64>) -> Value {
    micros.map_or(Value::Null, |micros| json!(Timestamp::from_micros(micros).to_string()))
}

/// Shows how long something took; empty where it has not ended.
pub(crate) fn took(from: Option<i64>, to: Option<i64>) -> String {
    let micros = from.zip(to).map(|(from, to)| u64::try_from(to.saturating_sub(from)).unwrap_or(0));
    micros.map(|micros| ShowDuration(Duration::from_millis(micros / 1_000)).to_string()).unwrap_or_default()
}

/// Reads JSON text that a master sent; empty text and anything odd is null.
pub(crate) fn embedded(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or(Value::Null)
}

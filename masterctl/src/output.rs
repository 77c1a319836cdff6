//! Printing: standard output carries what was asked for and nothing else.

use std::time::Duration;

use comfy_table::{Table, presets::UTF8_HORIZONTAL_ONLY};
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

/// Prints in the format that was asked for.
pub(crate) fn print(what: &impl Printable, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Table => println!("{}", what.text().trim_end()),
        Format::Json => println!("{}", serde_json::to_string_pretty(&what.value())?),
        Format::Yaml => print!("{}", serde_saphyr::to_string(&what.value())?),
    }
    Ok(())
}

/// Makes a table of rows of text.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY).set_header(header.to_vec());
    table.add_rows(rows);
    table.to_string()
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

//! Printing: standard output carries what was asked for and nothing else.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use anyhow::Context;
use comfy_table::{ColumnConstraint, ContentArrangement, Table, presets::NOTHING};
use millrace_common::{text::ShowDuration, time::Timestamp};
use serde_json::{Value, json};

use crate::cli::Format;

/// Spaces between two columns of a table.
const GAP: u16 = 2;
/// Characters that the last column of a table is given before it is wrapped: long reasons are, short words are not.
const LAST_COLUMN_MIN: u16 = 24;
/// Microseconds of a second.
const SECOND: i64 = 1_000_000;

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
        Format::Json | Format::Yaml => written(&what.value(), format)?,
    };
    // A reader that has gone does not change what the command did.
    emit(text.as_bytes()).map(drop)
}

/// Writes a value as programs read it.
pub(crate) fn written(value: &Value, format: Format) -> anyhow::Result<String> {
    Ok(match format {
        Format::Table | Format::Json => format!("{}\n", serde_json::to_string_pretty(value)?),
        Format::Yaml => serde_saphyr::to_string(value)?,
    })
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

/// Says something to a person, beside the output.
pub(crate) fn say(text: &str) {
    // Nobody can be told that standard error is gone.
    let _ = writeln!(io::stderr(), "{text}");
}

/// Makes a table of rows of text: one line of titles, one line a row, so that `grep` and `awk` can read it.
///
/// In a terminal that is too narrow, the columns of `spare` are left out in their order, and the last one is wrapped;
/// names and ids are never broken, because people copy them. Elsewhere nothing is cut.
pub(crate) fn table(header: &[&str], spare: &[&str], rows: Vec<Vec<String>>) -> String {
    // Some terminals do not know how wide they are.
    let width = Table::new().width().filter(|width| *width > 0);
    table_of_width(header, spare, rows, width)
}

fn table_of_width(header: &[&str], spare: &[&str], rows: Vec<Vec<String>>, width: Option<u16>) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_content_arrangement(ContentArrangement::Dynamic).force_no_tty();
    table.set_header(header.iter().map(|title| title.to_uppercase()));
    table.add_rows(rows.into_iter().map(|row| row.iter().map(|cell| one_line(cell)).collect::<Vec<_>>()));
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
    }
    let left_out = width.map_or_else(Vec::new, |width| make_room(&mut table, header, spare, width));
    let mut text = String::new();
    for line in table.lines() {
        text.push_str(line.trim_end());
        text.push('\n');
    }
    if !left_out.is_empty() {
        text.push_str(&format!("(no room for {}; -o json has everything)\n", left_out.join(", ")));
    }
    text
}

/// Leaves out what does not fit and lets only the last column be wrapped; returns the titles of what was left out.
fn make_room<'h>(table: &mut Table, header: &[&'h str], spare: &[&'h str], width: u16) -> Vec<&'h str> {
    table.set_width(width);
    let mut widths = table.column_max_content_widths();
    if let Some(last) = widths.last_mut() {
        *last = (*last).min(LAST_COLUMN_MIN);
    }
    let mut needed: u32 = widths.iter().map(|width| u32::from(*width + GAP)).sum();
    let mut left_out = Vec::new();
    for title in spare {
        let Some(at) = header.iter().position(|one| one == title) else { continue };
        if needed <= u32::from(width + GAP) {
            break;
        }
        needed -= u32::from(widths[at] + GAP);
        left_out.push(*title);
    }
    for (at, title) in header.iter().enumerate() {
        let constraint = if left_out.contains(title) {
            ColumnConstraint::Hidden
        } else if at + 1 < header.len() {
            ColumnConstraint::ContentWidth
        } else {
            continue;
        };
        if let Some(column) = table.column_mut(at) {
            column.set_constraint(constraint);
        }
    }
    left_out
}

/// Takes from a text whatever would move a terminal's cursor.
pub(crate) fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Shows a time to the second; empty where there is none.
pub(crate) fn time(micros: Option<i64>) -> String {
    let to_second = |micros: i64| Timestamp::from_micros(micros - micros.rem_euclid(SECOND)).to_string();
    micros.map(to_second).unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: [&str; 4] = ["run", "state", "created", "reason"];

    fn rows() -> Vec<Vec<String>> {
        let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
        vec![
            row(["01a1fe10-9f1a-7000-bee7-c0d5dcd6e292", "success", "2026-11-21T12:24:24Z", ""]),
            row([
                "01a1fe10-9f1a-7000-bee7-c0d5dcd6e293",
                "failed",
                "2026-11-21T12:24:24Z",
                "王芳\nran out of patience",
            ]),
        ]
    }

    #[test]
    fn a_table_in_a_file_is_never_cut() {
        let text = table_of_width(&HEADER, &["created"], rows(), None);
        assert_eq!(
            text,
            "RUN                                   STATE    CREATED               REASON\n\
             01a1fe10-9f1a-7000-bee7-c0d5dcd6e292  success  2026-11-21T12:24:24Z\n\
             01a1fe10-9f1a-7000-bee7-c0d5dcd6e293  failed   2026-11-21T12:24:24Z  王芳 ran out of patience\n"
        );
    }

    #[test]
    fn a_narrow_terminal_gets_fewer_columns_and_whole_ids() {
        let text = table_of_width(&HEADER, &["created"], rows(), Some(60));
        assert!(text.contains("01a1fe10-9f1a-7000-bee7-c0d5dcd6e293  failed"), "{text}");
        assert!(!text.contains("CREATED") && text.contains("(no room for created;"), "{text}");
        let wide = table_of_width(&HEADER, &["created"], rows(), Some(120));
        assert!(wide.contains("CREATED") && !wide.contains("no room"), "{wide}");
    }

    #[test]
    fn a_table_without_rows_has_its_titles() {
        assert_eq!(table_of_width(&["run", "state"], &[], Vec::new(), Some(60)), "RUN  STATE\n");
    }

    #[test]
    fn people_read_seconds_and_programs_everything() {
        let at = Timestamp::parse("2026-01-31T02:30:00.25Z").unwrap().as_micros();
        assert_eq!(time(Some(at)), "2026-01-31T02:30:00Z");
        assert_eq!(time_value(Some(at)), json!("2026-01-31T02:30:00.250Z"));
    }
}

//! Rows as text, the same whether they come from the generator or from a database.

use chrono::NaiveDateTime;
use millrace_examples::aoi::{Defect, Roll};
use serde_json::Value;

/// Rolls in order of their numbers, each with its defects in order of theirs.
pub(crate) type Rows = Vec<(Vec<String>, Vec<Vec<String>>)>;

/// Returns the rows that rolls should become.
pub(crate) fn expected(rolls: &[Roll]) -> Rows {
    let mut rows: Rows =
        rolls.iter().map(|roll| (piece(roll), roll.defects.iter().map(defect).collect())).collect();
    rows.sort();
    rows
}

fn piece(roll: &Roll) -> Vec<String> {
    vec![
        roll.aoi_no.clone(),
        number(roll.inspected_width),
        number(roll.inspected_length),
        number(roll.material_width),
        number(roll.run_length),
        text(roll.recipe.as_ref()),
        time(Some(roll.start_time)),
        time(Some(roll.stop_time)),
        text(roll.comment.as_ref()),
    ]
}

fn defect(defect: &Defect) -> Vec<String> {
    let lengths =
        [defect.cd_abs, defect.cd, defect.length, defect.md_abs, defect.md, defect.size, defect.width];
    let mut row = vec![defect.id.to_string(), text(defect.class.as_ref()), text(defect.severity.as_ref())];
    row.extend(lengths.map(number));
    row.push(time(defect.time));
    row
}

pub(crate) fn number(number: Option<f64>) -> String {
    number.map_or_else(|| "NULL".to_owned(), |number| number.to_string())
}

pub(crate) fn text(text: Option<&String>) -> String {
    text.map_or_else(|| "NULL".to_owned(), |text| format!("'{text}'"))
}

fn time(time: Option<NaiveDateTime>) -> String {
    time.map_or_else(|| "NULL".to_owned(), |time| time.to_string())
}

/// Returns how often each class occurs among the defects of rolls, as the values of an attempt tell it.
pub(crate) fn by(rolls: &[Roll], kind: fn(&Defect) -> Option<&String>) -> Value {
    let mut counts = std::collections::BTreeMap::<&str, u64>::new();
    for defect in rolls.iter().flat_map(|roll| &roll.defects) {
        *counts.entry(kind(defect).map_or("-", String::as_str)).or_default() += 1;
    }
    serde_json::to_value(counts).unwrap()
}

/// Returns how many defects rolls have.
pub(crate) fn defects(rolls: &[Roll]) -> usize {
    rolls.iter().map(|roll| roll.defects.len()).sum()
}

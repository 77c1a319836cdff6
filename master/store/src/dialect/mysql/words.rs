//! Statements in the words of MySQL and MariaDB, and their rows as JSON.

use serde_json::Value;
use uuid::Uuid;

use crate::{
    bulk::{Form, Kind, Shape, Statement, kind},
    dialect::Cell,
};

/// Puts a statement into words. The rows come first in each join, so that the others are looked up by their keys.
pub(crate) fn text(shape: &Shape) -> String {
    let Shape { table, columns, .. } = shape;
    let names = columns.join(", ");
    match &shape.form {
        Form::Insert => format!("INSERT INTO {table} ({names}) SELECT {names} FROM {}", rows(columns)),
        Form::Update { set, guard } => {
            // Each value is made of the column's own old one, so that the order in which they are set does not matter.
            let set: Vec<String> =
                set.iter().map(|(column, value)| format!("{table}.{column} = {value}")).collect();
            format!("UPDATE {} STRAIGHT_JOIN {table} ON {guard} SET {}", rows(columns), set.join(", "))
        }
        Form::Delete { guard } => {
            format!(
                "DELETE {table} FROM {} STRAIGHT_JOIN {table} ON {table}.{names} = v.{names}{guard}",
                rows(columns)
            )
        }
        Form::DeleteUpTo => format!("DELETE FROM {table} WHERE {names} <= ?"),
    }
}

/// Returns the rows of the document that is the one parameter, as a table `v`.
fn rows(columns: &[&str]) -> String {
    let values: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| match kind(column) {
            Kind::Id => format!("UNHEX(j.c{at}) AS {column}"),
            Kind::Int | Kind::Name | Kind::Text => format!("j.c{at} AS {column}"),
        })
        .collect();
    let paths: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| format!("c{at} {} PATH '$[{at}]'", type_of(kind(column))))
        .collect();
    format!("(SELECT {} FROM JSON_TABLE(?, '$[*]' COLUMNS ({})) j) v", values.join(", "), paths.join(", "))
}

const fn type_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Int => "BIGINT",
        Kind::Id => "CHAR(32) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        // Longer than any column, so that a text that does not fit is refused there instead of being cut off here.
        Kind::Name => "VARCHAR(1024) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
        Kind::Text => "MEDIUMTEXT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin",
    }
}

/// Returns the rows of a statement as a JSON document: an array for each row.
pub(super) fn document(statement: &Statement) -> String {
    let row = |row: &[Cell]| Value::Array(row.iter().map(value).collect());
    Value::Array(statement.rows().map(row).collect()).to_string()
}

fn value(cell: &Cell) -> Value {
    match cell {
        Cell::Null => Value::Null,
        Cell::Int(value) => Value::from(*value),
        Cell::Text(value) => Value::from(value.as_ref()),
        Cell::Id(value) => Value::from(Uuid::from_bytes(*value).simple().to_string()),
    }
}

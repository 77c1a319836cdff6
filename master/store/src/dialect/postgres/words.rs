//! Statements in PostgreSQL's words.

use std::{fmt::Write as _, sync::Arc};

use sqlx::SqlStr;

use crate::bulk::{Form, Kind, Shape, Statement, kind, safe};

/// Statements that become one. A batch has a statement for each kind of change; more than these is a large batch.
const JOINED_MAX: usize = 12;

/// Tells whether statements are few enough, and different enough, to become one. A row may be changed once by each
/// statement, so two of one shape are apart; what a batch says of one row has been folded into one shape.
pub(crate) fn joins(statements: &[Statement]) -> bool {
    let mut names: Vec<&str> = statements.iter().map(|statement| statement.shape.name).collect();
    names.sort_unstable();
    names.dedup();
    names.len() == statements.len() && statements.len() <= JOINED_MAX
}

/// Puts statements into the words of one that returns how many rows each of them changed.
///
/// All of them see the database as it was before, in no certain order. Where that makes a difference, such as the end of
/// an attempt and the start of the next, the database refuses a row, and they are run one after the other instead.
pub(crate) fn joined(shapes: &[(&Shape, usize)]) -> String {
    if let [(shape, _)] = shapes {
        return text(shape);
    }
    let mut all = String::from("WITH ");
    let mut first = 1;
    for (at, (shape, _)) in shapes.iter().enumerate() {
        let comma = if at == 0 { "" } else { ", " };
        // Writing to a text cannot fail.
        let _ = write!(all, "{comma}s{at} AS ({} RETURNING 1)", one(shape, first));
        first += shape.columns.len();
    }
    let counts: Vec<String> = (0..shapes.len()).map(|at| format!("(SELECT count(*) FROM s{at})")).collect();
    let _ = write!(all, " SELECT {}", counts.join(", "));
    all
}

/// Puts a statement into words.
pub(crate) fn text(shape: &Shape) -> String {
    one(shape, 1)
}

/// Puts a statement into words, with parameters from this number on.
fn one(shape: &Shape, first: usize) -> String {
    let Shape { table, columns, .. } = shape;
    let names = columns.join(", ");
    let arrays: Vec<String> = columns
        .iter()
        .enumerate()
        .map(|(at, column)| format!("${}::{}[]", first + at, type_of(kind(column))))
        .collect();
    let rows = format!("unnest({}) AS v ({names})", arrays.join(", "));
    match &shape.form {
        Form::Insert => format!("INSERT INTO {table} ({names}) SELECT {names} FROM {rows}"),
        Form::Update { set, guard } => {
            let set: Vec<String> = set.iter().map(|(column, value)| format!("{column} = {value}")).collect();
            format!("UPDATE {table} SET {} FROM {rows} WHERE {guard}", set.join(", "))
        }
        Form::Delete { guard } => {
            format!("DELETE FROM {table} WHERE {names} = ANY ({}){guard}", arrays.join(""))
        }
        Form::DeleteUpTo => format!("DELETE FROM {table} WHERE {names} <= ${first}"),
    }
}

const fn type_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Int => "bigint",
        Kind::Id => "bytea",
        Kind::Name | Kind::Text => "text",
    }
}

/// Numbers the parameters of a statement. No text in our SQL has a question mark.
pub(super) fn numbered(sql: &str) -> SqlStr {
    let mut numbered = String::with_capacity(sql.len() + 8);
    for (at, part) in sql.split('?').enumerate() {
        if at > 0 {
            let _ = write!(numbered, "${at}");
        }
        numbered.push_str(part);
    }
    safe(Arc::from(numbered))
}

#[cfg(test)]
mod tests {
    use super::*;

    static SHAPE: Shape = Shape {
        name: "move thing",
        subject: "thing",
        table: "thing",
        columns: &["run_id", "to_state", "reason"],
        keys: 1,
        form: Form::Update { set: &[("state", "v.to_state")], guard: "thing.run_id = v.run_id" },
        is_exact: true,
    };

    #[test]
    fn parameters_are_numbered_through_all_statements() {
        let rows = |first: usize| {
            let [second, third] = [first + 1, first + 2];
            format!(
                "unnest(${first}::bytea[], ${second}::bigint[], ${third}::text[]) AS v (run_id, to_state, reason)"
            )
        };
        let update = |first| {
            format!("UPDATE thing SET state = v.to_state FROM {} WHERE thing.run_id = v.run_id", rows(first))
        };
        assert_eq!(text(&SHAPE), update(1));
        assert_eq!(joined(&[(&SHAPE, 3)]), update(1));
        assert_eq!(
            joined(&[(&SHAPE, 3), (&SHAPE, 1)]),
            format!(
                "WITH s0 AS ({} RETURNING 1), s1 AS ({} RETURNING 1) \
                 SELECT (SELECT count(*) FROM s0), (SELECT count(*) FROM s1)",
                update(1),
                update(4)
            )
        );
        assert_eq!(numbered("a = ? AND b = ?").as_str(), "a = $1 AND b = $2");
    }
}

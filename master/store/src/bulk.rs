//! Statements over many rows: a batch costs a handful of them, not one for each row.
//!
//! A [`Shape`] is a kind of statement; its rows are cut into pieces of at most [`ROWS_MAX`]. How a piece is put into words
//! and values is the dialect's: servers take any number of rows with one prepared statement, SQLite takes a piece that is
//! filled up to the next of a few sizes.

use std::{collections::HashMap, sync::Arc};

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};
use uuid::Uuid;

use crate::dialect::{Cell, Database};

/// Rows of one statement. With 21 columns it binds 5,376 values; SQLite allows 32,766.
pub(crate) const ROWS_MAX: usize = 256;
/// Bytes of text after which a statement gets no further row, so that none is near what a server takes at once (16 MiB on
/// MariaDB) unless a single row is.
const TEXT_BYTES_MAX: usize = 1 << 20;

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Int,
    Id,
    /// Text that may be indexed.
    Name,
    Text,
}

/// Returns what a column holds, by its name: a name means the same in every table.
pub(crate) fn kind(column: &str) -> Kind {
    match column {
        "id" | "run_id" | "retry_of" | "spool_id" => Kind::Id,
        "name" | "workflow" | "executor" | "closed_by" | "machine_id" | "idempotency_key" | "value_by"
        | "refused_by" | "changed_by" => Kind::Name,
        "task_names" | "source" | "params" | "reason" | "ending_reason" | "output_values" | "value_text"
        | "refused_text" | "refused_reason" | "old_text" | "given_text" => Kind::Text,
        _ => Kind::Int,
    }
}

/// A kind of statement. In `guard` and values, `v` is the row that came along and the table goes by its name.
#[derive(Debug)]
pub(crate) struct Shape {
    /// What it does; no two shapes have the same.
    pub(crate) name: &'static str,
    /// What a row is, for messages.
    pub(crate) subject: &'static str,
    pub(crate) table: &'static str,
    /// Columns of the rows that come along.
    pub(crate) columns: &'static [&'static str],
    /// How many of them, from the first, name the row.
    pub(crate) keys: usize,
    pub(crate) form: Form,
    /// Whether each row must change exactly one.
    pub(crate) is_exact: bool,
}

#[derive(Debug)]
pub(crate) enum Form {
    /// New rows.
    Insert,
    /// Columns of the rows that `guard` matches.
    Update { set: &'static [(&'static str, &'static str)], guard: &'static str },
    /// Rows whose one key column is listed; `guard` follows with its own `AND`.
    Delete { guard: &'static str },
    /// Rows whose one column is not above the one that came along.
    DeleteUpTo,
}

/// Rows to be written by one shape.
#[derive(Debug)]
pub(crate) struct Rows {
    shape: &'static Shape,
    cells: Vec<Cell>,
}

impl Rows {
    pub(crate) const fn new(shape: &'static Shape) -> Self {
        Self { shape, cells: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn push<const N: usize>(&mut self, row: [Cell; N]) {
        assert!(N == self.shape.columns.len(), "a row has a cell for each column of its shape");
        self.cells.extend(row);
    }

    /// Returns the statements that write them.
    pub(crate) fn into_statements(self) -> impl Iterator<Item = Statement> {
        let Self { shape, cells } = self;
        let width = shape.columns.len();
        let mut rest = cells.into_iter().peekable();
        std::iter::from_fn(move || {
            rest.peek()?;
            let mut cells = Vec::new();
            let mut bytes = 0;
            while rest.peek().is_some() && cells.len() < ROWS_MAX * width && bytes < TEXT_BYTES_MAX {
                let row = rest.by_ref().take(width).inspect(|cell| bytes += cell.text_bytes());
                cells.extend(row);
            }
            Some(Statement::new(shape, cells))
        })
    }
}

/// One statement, with its values.
#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) shape: &'static Shape,
    /// How many rows it has.
    pub(crate) rows: usize,
    cells: Vec<Cell>,
}

impl Statement {
    fn new(shape: &'static Shape, cells: Vec<Cell>) -> Self {
        Self { shape, rows: cells.len() / shape.columns.len(), cells }
    }

    /// Returns its values, row by row.
    pub(crate) fn cells(&self) -> &[Cell] {
        &self.cells
    }

    /// Returns the values of one of its columns.
    pub(crate) fn column(&self, at: usize) -> impl Iterator<Item = &Cell> {
        self.cells.iter().skip(at).step_by(self.shape.columns.len())
    }

    /// Returns its values as rows.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &[Cell]> {
        self.cells.chunks(self.shape.columns.len())
    }

    fn key(&self, database: &Database) -> Key {
        (self.shape.name, database.size(self.rows))
    }

    /// Tells whether so many changed rows are what was asked for.
    pub(crate) fn is_met_by(&self, changed: u64) -> bool {
        !self.shape.is_exact || u64::try_from(self.rows).is_ok_and(|rows| rows == changed)
    }

    /// Returns the same in statements of one row each, to find the one that fails.
    pub(crate) fn singles(&self) -> impl Iterator<Item = Self> {
        self.rows().map(|row| Self::new(self.shape, row.to_vec()))
    }

    /// Names what it is about: its first row.
    pub(crate) fn subject(&self) -> String {
        let keys: Vec<String> = self.cells.iter().take(self.shape.keys).map(show).collect();
        format!("{} {}", self.shape.subject, keys.join("."))
    }
}

fn show(cell: &Cell) -> String {
    match cell {
        Cell::Null => String::new(),
        Cell::Int(value) => value.to_string(),
        Cell::Text(value) => value.to_string(),
        Cell::Id(value) => Uuid::from_bytes(*value).to_string(),
    }
}

/// Combinations of statements that are kept prepared: the few that small batches are made of.
const JOINED_MAX: usize = 32;

/// The words of statements, made once.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    single: HashMap<Key, Arc<str>>,
    joined: HashMap<Vec<Key>, Arc<str>>,
}

/// A shape by its name, and the number of rows that its words are for.
type Key = (&'static str, usize);

impl Texts {
    pub(crate) fn of(&mut self, database: &Database, statement: &Statement) -> SqlStr {
        safe(self.single(database, statement))
    }

    /// Returns the words for all `statements` at once; `None` where the database does not take them so.
    pub(crate) fn joined(&mut self, database: &Database, statements: &[Statement]) -> Option<SqlStr> {
        if !database.joins(statements) {
            return None;
        }
        let key: Vec<Key> = statements.iter().map(|statement| statement.key(database)).collect();
        if let Some(text) = self.joined.get(&key) {
            return Some(safe(Arc::clone(text)));
        }
        if self.joined.len() == JOINED_MAX {
            return None;
        }
        let shapes: Vec<(&Shape, usize)> =
            statements.iter().map(|statement| (statement.shape, statement.rows)).collect();
        let text: Arc<str> = database.joined(&shapes)?.into();
        self.joined.insert(key, Arc::clone(&text));
        Some(safe(text))
    }

    fn single(&mut self, database: &Database, statement: &Statement) -> Arc<str> {
        let Statement { shape, rows, .. } = statement;
        let text = || database.text(shape, *rows).into();
        Arc::clone(self.single.entry(statement.key(database)).or_insert_with(text))
    }
}

/// Vouches for a text: it is made of the constants of shapes and a number of question marks, nothing from
/// outside.
pub(crate) fn safe(text: Arc<str>) -> SqlStr {
    AssertSqlSafe(text).into_sql_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    static SHAPE: Shape = Shape {
        name: "insert thing",
        subject: "thing",
        table: "thing",
        columns: &["id", "state"],
        keys: 1,
        form: Form::Insert,
        is_exact: true,
    };

    fn rows_of(rows: i64) -> Vec<usize> {
        let mut all = Rows::new(&SHAPE);
        for id in 0..rows {
            all.push([id.into(), 1_i64.into()]);
        }
        all.into_statements().map(|statement| statement.rows).collect()
    }

    #[test]
    fn rows_are_cut_into_pieces() {
        assert!(rows_of(0).is_empty());
        assert_eq!(rows_of(5), [5]);
        assert_eq!(rows_of(600), [256, 256, 88]);
    }

    #[test]
    fn large_rows_are_cut_into_smaller_pieces() {
        let large = "x".repeat(TEXT_BYTES_MAX / 2);
        let mut all = Rows::new(&SHAPE);
        for _ in 0..5 {
            all.push([large.as_str().into(), 1_i64.into()]);
        }
        let pieces: Vec<usize> = all.into_statements().map(|statement| statement.rows).collect();
        assert_eq!(pieces, [2, 2, 1]);
    }

    #[test]
    fn each_row_makes_a_single() {
        let mut rows = Rows::new(&SHAPE);
        rows.push([7_i64.into(), 1_i64.into()]);
        rows.push([8_i64.into(), 1_i64.into()]);
        let statement = rows.into_statements().next().unwrap();
        let subjects: Vec<String> = statement.singles().map(|single| single.subject()).collect();
        assert_eq!(subjects, ["thing 7", "thing 8"]);
        assert!(statement.is_met_by(2) && !statement.is_met_by(1));
    }

    #[tokio::test]
    async fn small_statements_are_joined_and_only_so_many_combinations_are_kept() {
        let database = Database::Sqlite(crate::dialect::Sqlite::new(std::path::Path::new("unused")));
        let of = |rows: i64| {
            let mut all = Rows::new(&SHAPE);
            (0..rows).for_each(|id| all.push([id.into(), 1_i64.into()]));
            all.into_statements().next().unwrap()
        };
        let mut texts = Texts::default();
        let both = texts.joined(&database, &[of(1), of(1)]).unwrap();
        let insert = "INSERT INTO thing (id, state) VALUES (?, ?)";
        let begin =
            "BEGIN IMMEDIATE; UPDATE leadership SET seq = seq + 1 WHERE id = 1 AND term = ? AND seq = ?";
        assert_eq!(both.as_str(), format!("{begin}; {insert}; {insert}"));
        assert!(texts.joined(&database, &[of(1), of(17)]).is_none(), "one of them is large");
        for count in 1..=2 * JOINED_MAX {
            let statements: Vec<Statement> = (0..count).map(|_| of(1)).collect();
            assert_eq!(texts.joined(&database, &statements).is_some(), count <= JOINED_MAX);
        }
    }
}

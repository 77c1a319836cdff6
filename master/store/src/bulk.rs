//! Statements over many rows: a batch costs a handful of them, not one for each row.
//!
//! A [`Shape`] is a kind of statement; its rows are cut into pieces of at most [`ROWS_MAX`] and each piece is filled up
//! to the next of a few sizes, so that a short list of prepared statements serves all batches.

use std::{collections::HashMap, sync::Arc};

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};
use uuid::Uuid;

use crate::dialect::{Cell, Database};

/// Rows of one statement. With 21 columns it binds 5,376 values; SQLite allows 32,766.
pub(crate) const ROWS_MAX: usize = 256;
/// Numbers of rows for which statements are prepared.
const SIZES: [usize; 5] = [1, 4, 16, 64, ROWS_MAX];

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
        let mut rest = cells.into_iter().peekable();
        std::iter::from_fn(move || {
            rest.peek()?;
            let cells: Vec<Cell> = rest.by_ref().take(ROWS_MAX * shape.columns.len()).collect();
            Some(Statement::new(shape, cells))
        })
    }
}

/// One statement, with its values.
#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) shape: &'static Shape,
    /// Rows that say something; the cells are filled up to `size`.
    pub(crate) rows: usize,
    size: usize,
    cells: Vec<Cell>,
}

impl Statement {
    fn new(shape: &'static Shape, mut cells: Vec<Cell>) -> Self {
        let width = shape.columns.len();
        let rows = cells.len() / width;
        let size = SIZES.into_iter().find(|size| *size >= rows).unwrap_or(ROWS_MAX);
        cells.resize(size * width, Cell::Null);
        Self { shape, rows, size, cells }
    }

    pub(crate) fn cells(&self) -> &[Cell] {
        &self.cells
    }

    const fn key(&self) -> Key {
        (self.shape.name, self.size)
    }

    /// Tells whether so many changed rows are what was asked for.
    pub(crate) fn is_met_by(&self, changed: u64) -> bool {
        !self.shape.is_exact || u64::try_from(self.rows).is_ok_and(|rows| rows == changed)
    }

    /// Returns the same in statements of one row each, to find the one that fails.
    pub(crate) fn singles(&self) -> impl Iterator<Item = Self> {
        self.cells
            .chunks(self.shape.columns.len())
            .take(self.rows)
            .map(|row| Self::new(self.shape, row.to_vec()))
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

/// Rows of a statement that is small enough to be sent together with others.
const JOINED_ROWS_MAX: usize = 16;
/// Combinations of statements that are kept prepared: the few that small batches are made of.
const JOINED_MAX: usize = 32;

/// The words of statements, made once.
#[derive(Debug, Default)]
pub(crate) struct Texts {
    single: HashMap<Key, Arc<str>>,
    joined: HashMap<Vec<Key>, Arc<str>>,
}

/// A shape by its name, and a number of rows.
type Key = (&'static str, usize);

impl Texts {
    pub(crate) fn of(&mut self, database: &Database, statement: &Statement) -> SqlStr {
        safe(self.single(database, statement))
    }

    /// Returns the words for the beginning of a transaction, `first` and all `statements` at once; `None` where they are
    /// too many or too large for that.
    pub(crate) fn joined(
        &mut self,
        database: &Database,
        first: &'static str,
        statements: &[Statement],
    ) -> Option<SqlStr> {
        if statements.iter().any(|statement| statement.size > JOINED_ROWS_MAX) {
            return None;
        }
        let key: Vec<Key> = statements.iter().map(Statement::key).collect();
        if let Some(text) = self.joined.get(&key) {
            return Some(safe(Arc::clone(text)));
        }
        if self.joined.len() == JOINED_MAX {
            return None;
        }
        let singles: Vec<Arc<str>> =
            statements.iter().map(|statement| self.single(database, statement)).collect();
        let texts: Vec<&str> = std::iter::once(first).chain(singles.iter().map(AsRef::as_ref)).collect();
        let text: Arc<str> = database.joined(&texts)?.into();
        self.joined.insert(key, Arc::clone(&text));
        Some(safe(text))
    }

    fn single(&mut self, database: &Database, statement: &Statement) -> Arc<str> {
        let Statement { shape, size, .. } = statement;
        Arc::clone(self.single.entry(statement.key()).or_insert_with(|| database.text(shape, *size).into()))
    }
}

/// Vouches for a text: it is made of the constants of shapes and a number of question marks, nothing from outside.
fn safe(text: Arc<str>) -> SqlStr {
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

    fn sizes_of(rows: i64) -> Vec<(usize, usize)> {
        let mut all = Rows::new(&SHAPE);
        for id in 0..rows {
            all.push([id.into(), 1_i64.into()]);
        }
        all.into_statements().map(|statement| (statement.rows, statement.size)).collect()
    }

    #[test]
    fn rows_are_cut_into_few_sizes() {
        assert_eq!(sizes_of(0), []);
        assert_eq!(sizes_of(1), [(1, 1)]);
        assert_eq!(sizes_of(5), [(5, 16)]);
        assert_eq!(sizes_of(600), [(256, 256), (256, 256), (88, 256)]);
    }

    #[test]
    fn filling_rows_do_not_count_as_singles() {
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
        let both = texts.joined(&database, "FIRST", &[of(1), of(1)]).unwrap();
        let insert = "INSERT INTO thing (id, state) VALUES (?, ?)";
        assert_eq!(both.as_str(), format!("BEGIN IMMEDIATE; FIRST; {insert}; {insert}"));
        assert!(texts.joined(&database, "FIRST", &[of(1), of(17)]).is_none(), "one of them is large");
        for count in 1..=2 * JOINED_MAX {
            let statements: Vec<Statement> = (0..count).map(|_| of(1)).collect();
            assert_eq!(texts.joined(&database, "FIRST", &statements).is_some(), count <= JOINED_MAX);
        }
    }
}

//! One connection to a database, as the plugins need it; each database implements it.

use std::{sync::Arc, time::Duration};

use futures_util::{future::BoxFuture, stream::BoxStream};
use sqlx::{Database, Encode, Executor, IntoArguments, Type, database::HasStatementCache, query::Query};

use super::{Login, mysql::MysqlLink, query::InsertText, sqlite::SqliteLink};
use crate::{
    column::{Column, Record},
    convert::Conversion,
    dirty::DirtyRecord,
    jdbc::{Address, MysqlAddress},
    limits::{STATEMENT_BYTES, STATEMENT_ROWS},
    plugin::{Context, PluginError},
};

/// A row that came, or one that cannot be represented.
pub(crate) type Row = Result<Record, DirtyRecord>;

/// A value as it is bound.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Bound {
    Null,
    Text(String),
    Int(i64),
    Real(f64),
    Bytes(Vec<u8>),
}

impl Bound {
    fn size(&self) -> u64 {
        let length = match self {
            Self::Null => 1,
            Self::Int(_) | Self::Real(_) => 8,
            Self::Text(text) => text.len() + 4,
            Self::Bytes(bytes) => bytes.len() + 4,
        };
        u64::try_from(length).unwrap_or(u64::MAX)
    }
}

/// What a target column takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TargetKind {
    Text,
    Integer,
    Real,
    Date,
    Time,
    DateTime,
    Year,
    Bit,
    Bytes,
    /// Whatever comes: a column without a type.
    Any,
}

impl TargetKind {
    pub(crate) fn is_numeric(self) -> bool {
        matches!(self, Self::Integer | Self::Real | Self::Year | Self::Bit)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TargetColumn {
    pub(crate) name: String,
    pub(crate) kind: TargetKind,
}

/// What an error of a statement means for the rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A row is bad.
    Row,
    /// Nobody is to blame; the same statement may succeed now.
    Again,
    /// No other row would fare better.
    Fatal,
}

type Answer<'a, T> = BoxFuture<'a, Result<T, sqlx::Error>>;

pub(crate) trait Link: Send {
    /// Streams the rows of a query; the connection is closed at its end.
    fn rows(
        self: Box<Self>,
        query: String,
        conversion: Arc<Conversion>,
    ) -> BoxStream<'static, Result<Row, sqlx::Error>>;

    fn execute<'a>(&'a mut self, sql: &'a str) -> Answer<'a, ()>;

    /// Returns name and kind of the columns that `columns` (SQL) selects from `table`.
    fn columns<'a>(&'a mut self, table: &'a str, columns: &'a str) -> Answer<'a, Vec<TargetColumn>>;

    /// Turns a value into what its target takes, or says why it cannot.
    fn bind(&self, column: &Column, target: TargetKind, conversion: &Conversion) -> Result<Bound, String>;

    /// Inserts all rows in one transaction, or none.
    fn insert_all<'a>(&'a mut self, insert: &'a InsertText, rows: &'a [Vec<Bound>]) -> Answer<'a, ()>;

    /// Inserts one row for itself.
    fn insert_one<'a>(&'a mut self, insert: &'a InsertText, row: &'a [Bound]) -> Answer<'a, ()>;

    fn verdict(&self, error: &sqlx::Error) -> Verdict;

    fn close(self: Box<Self>) -> BoxFuture<'static, ()>;
}

/// Connects to the first address that answers. All are tried `tries` times with growing pauses,
/// unless the server itself refuses: a wrong password does not become right.
pub(crate) async fn connect(
    addresses: &[Address],
    login: &Login,
    context: &Context,
) -> Result<Box<dyn Link>, PluginError> {
    let places = single_places(addresses);
    let mut pause = context.connect.pause;
    let tries = context.connect.tries.max(1);
    let mut attempt = 0;
    loop {
        attempt += 1;
        let mut last = None;
        for place in &places {
            match connect_one(place, login).await {
                Ok(link) => return Ok(link),
                Err(source) => {
                    context.notes.add(format!("could not connect to {}: {source}", place.shown()));
                    last = Some((place.shown(), source));
                }
            }
        }
        let (address, source) =
            last.unwrap_or_else(|| (String::new(), sqlx::Error::Configuration("no address".into())));
        if attempt >= tries || matches!(source, sqlx::Error::Database(_) | sqlx::Error::Configuration(_)) {
            return Err(PluginError::Connect { address, tries: attempt, source });
        }
        tokio::time::sleep(pause).await;
        pause = pause.saturating_mul(2).min(Duration::from_secs(60));
    }
}

/// Every host of every address, in order, each as an address of its own.
fn single_places(addresses: &[Address]) -> Vec<Address> {
    let mut places = Vec::new();
    for address in addresses {
        match address {
            Address::Mysql(mysql) => places.extend(
                mysql
                    .hosts
                    .iter()
                    .map(|host| Address::Mysql(MysqlAddress { hosts: vec![host.clone()], ..mysql.clone() })),
            ),
            Address::Sqlite(_) => places.push(address.clone()),
        }
    }
    places
}

async fn connect_one(address: &Address, login: &Login) -> Result<Box<dyn Link>, sqlx::Error> {
    Ok(match address {
        Address::Mysql(address) => Box::new(MysqlLink::connect(address, login).await?),
        Address::Sqlite(address) => Box::new(SqliteLink::connect(address).await?),
    })
}

/// Cuts rows into statements that are neither too long nor have too many placeholders.
pub(crate) fn statements(
    rows: &[Vec<Bound>],
    columns: usize,
    parameters: usize,
) -> impl Iterator<Item = &[Vec<Bound>]> {
    let most = full_statement(columns, parameters);
    let mut rest = rows;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let fitting = rest.iter().take(most).take_while(|row| {
            bytes += row.iter().map(Bound::size).sum::<u64>();
            bytes <= STATEMENT_BYTES
        });
        let length = fitting.count().max(1).min(rest.len());
        let (statement, tail) = rest.split_at(length);
        rest = tail;
        (!statement.is_empty()).then_some(statement)
    })
}

/// Rows of a statement that is as long as it may be.
pub(crate) fn full_statement(columns: usize, parameters: usize) -> usize {
    (parameters / columns.max(1)).clamp(1, STATEMENT_ROWS)
}

/// Runs one INSERT; only statements of the full length are worth the cache.
pub(crate) async fn insert<DB>(
    connection: &mut DB::Connection,
    insert: &InsertText,
    rows: &[Vec<Bound>],
    persistent: bool,
) -> Result<(), sqlx::Error>
where
    DB: Database + HasStatementCache,
    DB::Arguments: IntoArguments<DB>,
    for<'c> &'c mut DB::Connection: Executor<'c, Database = DB>,
    for<'t> &'t str: Encode<'t, DB> + Type<DB>,
    for<'t> &'t [u8]: Encode<'t, DB> + Type<DB>,
    for<'t> Option<&'t str>: Encode<'t, DB> + Type<DB>,
    i64: for<'t> Encode<'t, DB> + Type<DB>,
    f64: for<'t> Encode<'t, DB> + Type<DB>,
{
    // Table and columns are the definition's own SQL; all values are bound.
    let text = sqlx::AssertSqlSafe(insert.text(rows.len()));
    let mut query: Query<'_, DB, DB::Arguments> = sqlx::query(text).persistent(persistent);
    for value in rows.iter().flatten() {
        query = match value {
            Bound::Null => query.bind(None::<&str>),
            Bound::Text(text) => query.bind(text.as_str()),
            Bound::Int(number) => query.bind(*number),
            Bound::Real(number) => query.bind(*number),
            Bound::Bytes(bytes) => query.bind(bytes.as_slice()),
        };
    }
    query.execute(connection).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_respect_rows_placeholders_and_bytes() {
        let sizes = |rows: &[Vec<Bound>], columns, parameters| {
            statements(rows, columns, parameters).map(<[_]>::len).collect::<Vec<_>>()
        };
        let small = vec![vec![Bound::Int(1), Bound::Null]; 1030];
        assert_eq!(sizes(&small, 2, 65_535), [512, 512, 6]);
        assert_eq!(sizes(&small[..250], 2, 200), [100, 100, 50]);
        let large = vec![vec![Bound::Bytes(vec![0; 3 << 20])]; 3];
        assert_eq!(sizes(&large, 1, 65_535), [1, 1, 1]);
        assert_eq!(sizes(&[], 1, 10), Vec::<usize>::new());
    }
}

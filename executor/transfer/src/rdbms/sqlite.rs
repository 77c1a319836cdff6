//! `SQLite`.
//!
//! Values have types, columns only preferences. What is read follows the value, helped by the
//! declared type where that says date or truth value. What is written is left to the column's
//! affinity, which keeps a text that is no number; dates are written as the text that `SQLite`'s own
//! date functions read, with all digits. An integer beyond 64 bits is refused where the affinity
//! would turn it into a floating point number.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::{StreamExt, future::BoxFuture, stream::BoxStream};
use sqlx::{
    AssertSqlSafe, Column as _, ConnectOptions, Decode, Executor, Row as _, Sqlite, SqlitePool, Statement,
    TypeInfo, ValueRef,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteRow, SqliteValueRef},
};

use super::{
    link::{Bound, Link, Row, TargetColumn, TargetKind, Verdict, full_statement, insert, statements},
    query::InsertText,
};
use crate::{
    column::{Column, Kind, Record},
    convert::Conversion,
    dirty::{DirtyRecord, Side},
    jdbc::SqliteAddress,
    limits::{SQLITE_BUSY_MILLIS, SQLITE_PARAMETERS, SQLITE_ROWS_AHEAD},
    moment::{Moment, parse_time},
    number,
    pattern::Pattern,
};

/// One connection; see `MysqlLink` for why it is a pool.
pub(crate) struct SqliteLink {
    pool: SqlitePool,
}

/// Primary result codes that blame the row: an SQL error (a trigger's), a value too big, a
/// constraint, a type mismatch.
const ROW_CODES: [i32; 4] = [1, 18, 19, 20];

impl SqliteLink {
    pub(crate) async fn connect(address: &SqliteAddress) -> Result<Self, sqlx::Error> {
        let options = SqliteConnectOptions::new()
            .filename(&address.path)
            .create_if_missing(false)
            .foreign_keys(address.foreign_keys)
            .busy_timeout(Duration::from_millis(SQLITE_BUSY_MILLIS))
            .row_buffer_size(SQLITE_ROWS_AHEAD)
            .disable_statement_logging();
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(options)
            .await?;
        Ok(Self { pool })
    }

    /// Declared types by lower-case name; empty where `table` is no plain name.
    async fn declared(&self, table: &str) -> Result<BTreeMap<String, String>, sqlx::Error> {
        let (schema, name) = table.rsplit_once('.').map_or((None, table), |(s, n)| (Some(s), n));
        let bare = |text: &str| text.trim().trim_matches(['"', '`', '[', ']']).to_owned();
        let query = match schema {
            None => sqlx::query_as("SELECT name, type FROM pragma_table_info(?)").bind(bare(name)),
            Some(schema) => sqlx::query_as("SELECT name, type FROM pragma_table_info(?, ?)")
                .bind(bare(name))
                .bind(bare(schema)),
        };
        let rows: Vec<(String, String)> = query.fetch_all(&self.pool).await?;
        Ok(rows.into_iter().map(|(name, kind)| (name.to_lowercase(), kind.to_uppercase())).collect())
    }
}

impl Link for SqliteLink {
    fn rows(
        self: Box<Self>,
        query: String,
        conversion: Arc<Conversion>,
    ) -> BoxStream<'static, Result<Row, sqlx::Error>> {
        // The query is the definition's own SQL on a file that the definition names.
        let rows = sqlx::query(AssertSqlSafe(query)).persistent(false).fetch(&self.pool);
        rows.map(move |row| row.map(|row| decode(&row, &conversion))).boxed()
    }

    fn execute<'a>(&'a mut self, sql: &'a str) -> BoxFuture<'a, Result<(), sqlx::Error>> {
        Box::pin(async move {
            // preSql and postSql are SQL of the definition's author.
            sqlx::raw_sql(AssertSqlSafe(sql)).execute(&self.pool).await.map(drop)
        })
    }

    fn columns<'a>(
        &'a mut self,
        table: &'a str,
        columns: &'a str,
    ) -> BoxFuture<'a, Result<Vec<TargetColumn>, sqlx::Error>> {
        Box::pin(async move {
            let declared = self.declared(table).await?;
            // Table and columns are SQL of the definition; nothing is run, only described.
            let sql = AssertSqlSafe(format!("select {columns} from {table} where 1=2"));
            let statement = (&self.pool).prepare(sqlx::SqlSafeStr::into_sql_str(sql)).await?;
            Ok(statement
                .columns()
                .iter()
                .map(|column| TargetColumn {
                    name: column.name().to_owned(),
                    kind: declared
                        .get(&column.name().to_lowercase())
                        .map_or(TargetKind::Any, |kind| target_kind(kind)),
                })
                .collect())
        })
    }

    fn bind(&self, column: &Column, target: TargetKind, conversion: &Conversion) -> Result<Bound, String> {
        bind(column, target, conversion)
    }

    fn insert_all<'a>(
        &'a mut self,
        text: &'a InsertText,
        rows: &'a [Vec<Bound>],
    ) -> BoxFuture<'a, Result<(), sqlx::Error>> {
        Box::pin(async move {
            let mut transaction = self.pool.begin().await?;
            let full = full_statement(text.columns, SQLITE_PARAMETERS);
            for rows in statements(rows, text.columns, SQLITE_PARAMETERS) {
                let done = insert::<Sqlite>(&mut transaction, text, rows, rows.len() == full).await;
                if let Err(error) = done {
                    // The first error says what is wrong; a failed rollback ends with the connection.
                    let _ = transaction.rollback().await;
                    return Err(error);
                }
            }
            transaction.commit().await
        })
    }

    fn insert_one<'a>(
        &'a mut self,
        text: &'a InsertText,
        row: &'a [Bound],
    ) -> BoxFuture<'a, Result<(), sqlx::Error>> {
        Box::pin(async move {
            let mut connection = self.pool.acquire().await?;
            insert::<Sqlite>(&mut connection, text, &[row.to_vec()], true).await
        })
    }

    fn verdict(&self, error: &sqlx::Error) -> Verdict {
        let sqlx::Error::Database(error) = error else { return Verdict::Fatal };
        // The low byte of an extended code is its primary code.
        let code = error.code().and_then(|code| code.parse::<i32>().ok()).map(|code| code & 0xff);
        if code.is_some_and(|code| ROW_CODES.contains(&code)) { Verdict::Row } else { Verdict::Fatal }
    }

    fn close(self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move { self.pool.close().await })
    }
}

/// The affinity of a declared type by `SQLite`'s rules, after the names that say more than they do.
fn target_kind(declared: &str) -> TargetKind {
    let has = |part: &str| declared.contains(part);
    match declared {
        "" => TargetKind::Any,
        "DATE" => TargetKind::Date,
        "TIME" => TargetKind::Time,
        _ if declared.starts_with("DATETIME") || declared.starts_with("TIMESTAMP") => TargetKind::DateTime,
        _ if has("INT") => TargetKind::Integer,
        _ if has("CHAR") || has("CLOB") || has("TEXT") => TargetKind::Text,
        _ if has("BLOB") => TargetKind::Bytes,
        _ => TargetKind::Real,
    }
}

fn bind(column: &Column, target: TargetKind, conversion: &Conversion) -> Result<Bound, String> {
    match (column, target) {
        (Column::Date(Some(moment)), _) => Ok(date(*moment, target, conversion)),
        (Column::Bytes(Some(bytes)), TargetKind::Bytes | TargetKind::Any) => Ok(Bound::Bytes(bytes.clone())),
        (Column::String(Some(text)), TargetKind::Bytes) => Ok(Bound::Bytes(text.clone().into_bytes())),
        (Column::String(Some(text)), _) => Ok(Bound::Text(text.clone())),
        (Column::Long(Some(digits)), _) => long(digits, target),
        (Column::Double(Some(text)), TargetKind::Any) => Ok(exact_real(text)),
        (Column::Bool(Some(value)), TargetKind::Text) => Ok(Bound::Text(value.to_string())),
        (Column::Bool(Some(value)), _) => Ok(Bound::Int((*value).into())),
        (Column::Bytes(Some(bytes)), TargetKind::Integer | TargetKind::Real) => {
            Ok(Bound::Bytes(bytes.clone()))
        }
        _ => match conversion.text(column) {
            Ok(text) => Ok(text.map_or(Bound::Null, |text| Bound::Text(text.into_owned()))),
            Err(error) => Err(error.to_string()),
        },
    }
}

fn date(moment: Moment, target: TargetKind, conversion: &Conversion) -> Bound {
    let shown = match target {
        TargetKind::Integer => {
            return moment.unix_millis(conversion.zone).map_or(Bound::Null, Bound::Int);
        }
        TargetKind::Date => moment.date().map(Moment::Date),
        TargetKind::DateTime => moment.date_time().map(Moment::DateTime),
        TargetKind::Time => Some(Moment::Time(moment.time())),
        _ => Some(moment),
    };
    shown.map_or(Bound::Null, |moment| Bound::Text(moment.sql_text()))
}

fn long(digits: &str, target: TargetKind) -> Result<Bound, String> {
    match (digits.parse(), target) {
        (Ok(number), _) => Ok(Bound::Int(number)),
        (Err(_), TargetKind::Integer | TargetKind::Real) => {
            Err(format!("integer {digits} has more than 64 bits; declare the column TEXT"))
        }
        (Err(_), _) => Ok(Bound::Text(digits.to_owned())),
    }
}

/// A column without a type keeps what it gets: a number where that is the same number, else text.
fn exact_real(text: &str) -> Bound {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && same_digits(text, &format!("{number}")) => Bound::Real(number),
        _ => Bound::Text(text.to_owned()),
    }
}

fn same_digits(one: &str, other: &str) -> bool {
    let bare = |text: &str| -> String {
        let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { text };
        text.to_owned()
    };
    bare(one) == bare(other)
}

fn decode(row: &SqliteRow, conversion: &Conversion) -> Row {
    let mut record = Record::with_capacity(row.len());
    let mut refused = None;
    for (index, column) in row.columns().iter().enumerate() {
        let declared = column.type_info().name();
        match row.try_get_raw(index).ok().and_then(|value| value_of(value, declared, conversion)) {
            Some(value) => record.push(value),
            None => {
                refused = Some(format!("column {} holds text that is not UTF-8", column.name()));
                record.push(Column::String(None));
            }
        }
    }
    match refused {
        None => Ok(record),
        Some(message) => Err(DirtyRecord { side: Side::Reader, record, message }),
    }
}

/// `None` where a text is not UTF-8.
fn value_of(value: SqliteValueRef<'_>, declared: &str, conversion: &Conversion) -> Option<Column> {
    if value.is_null() {
        return Some(null_of(declared).null());
    }
    let stored = value.type_info().name().to_owned();
    match stored.as_str() {
        "INTEGER" => {
            let number = <i64 as Decode<'_, Sqlite>>::decode(value).ok()?;
            Some(match (declared, number) {
                ("BOOLEAN", 0 | 1) => Column::Bool(Some(number == 1)),
                _ => Column::Long(Some(number.to_string())),
            })
        }
        "REAL" => {
            let number = <f64 as Decode<'_, Sqlite>>::decode(value).ok()?;
            Some(Column::Double(Some(number::double_text(number))))
        }
        "BLOB" => <Vec<u8> as Decode<'_, Sqlite>>::decode(value).ok().map(|bytes| Column::Bytes(Some(bytes))),
        _ => {
            let text = <String as Decode<'_, Sqlite>>::decode(value).ok()?;
            Some(match moment_of(&text, declared, conversion) {
                Some(moment) => Column::Date(Some(moment)),
                None => Column::String(Some(text)),
            })
        }
    }
}

fn null_of(declared: &str) -> Kind {
    match declared {
        "INTEGER" => Kind::Long,
        "REAL" => Kind::Double,
        "BOOLEAN" => Kind::Bool,
        "DATE" | "TIME" | "DATETIME" => Kind::Date,
        "BLOB" => Kind::Bytes,
        _ => Kind::String,
    }
}

/// The moment in a text of a column that is declared to hold one; any other text stays text.
fn moment_of(text: &str, declared: &str, conversion: &Conversion) -> Option<Moment> {
    let read = |pattern: &Pattern| pattern.read(text);
    match declared {
        "DATE" => read(&conversion.date),
        "DATETIME" => read(&conversion.date_time),
        "TIME" => parse_time(text).map(Moment::Time),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bound(column: &Column, declared: &str) -> Result<Bound, String> {
        bind(column, target_kind(declared), &Conversion::default())
    }

    #[test]
    fn integers_beyond_64_bits_are_refused_only_where_they_would_be_rounded() {
        let large = Column::Long(Some(u64::MAX.to_string()));
        assert!(bound(&large, "BIGINT").is_err());
        assert!(bound(&large, "DECIMAL(20)").is_err());
        assert_eq!(bound(&large, "TEXT"), Ok(Bound::Text(u64::MAX.to_string())));
        assert_eq!(bound(&Column::Long(Some("-5".into())), "TEXT"), Ok(Bound::Int(-5)));
    }

    #[test]
    fn columns_without_a_type_get_numbers_that_are_exact() {
        let double = |text: &str| bound(&Column::Double(Some(text.into())), "");
        assert_eq!(double("7.500"), Ok(Bound::Real(7.5)));
        assert_eq!(double("0.1"), Ok(Bound::Real(0.1)));
        assert_eq!(double("1234567890123456789.123"), Ok(Bound::Text("1234567890123456789.123".into())));
    }

    #[test]
    fn dates_follow_the_declared_type() {
        let pattern = Pattern::parse("yyyy-MM-dd HH:mm:ss");
        let moment = pattern.and_then(|pattern| pattern.read("2024-02-29 12:34:56.789"));
        let date = |declared| bound(&Column::Date(moment), declared);
        assert_eq!(date("DATE"), Ok(Bound::Text("2024-02-29".into())));
        assert_eq!(date("TIME"), Ok(Bound::Text("12:34:56.789".into())));
        assert_eq!(date("TEXT"), Ok(Bound::Text("2024-02-29 12:34:56.789".into())));
        assert_eq!(date("TIMESTAMP"), Ok(Bound::Text("2024-02-29 12:34:56.789".into())));
        assert_eq!(date("BIGINT"), Ok(Bound::Int(1_709_181_296_789)));
    }
}

//! A source database like the plant's MES: work orders, their history, and a view over both.
//!
//! SQLite, so that the example needs no server. Every kind of value that makes transfers go wrong is there: absent values,
//! numbers with decimals, times, Chinese text, line breaks, long text and bytes.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use chrono::{NaiveDate, NaiveDateTime, NaiveTime, TimeDelta};
use sqlx::{
    Connection as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};

use crate::random::Random;

/// Rows in one insert: keeps it below the number of parameters that SQLite takes.
const ROWS_PER_INSERT: usize = 500;
/// Most orders that are made; a larger database is no longer an example.
const ORDERS_MAX: u32 = 10_000_000;

const TABLES: &str = "
CREATE TABLE mes_wpc_wo (
    wo_id INTEGER PRIMARY KEY, wo_no VARCHAR(32) NOT NULL UNIQUE, product VARCHAR(64) NOT NULL, state VARCHAR(16) NOT NULL,
    quantity DECIMAL(12,3) NOT NULL, yield_rate DOUBLE, remark TEXT, due_on DATE, created_at DATETIME NOT NULL,
    updated_at DATETIME NOT NULL, label BLOB);
CREATE TABLE mes_wpc_wo_hist (
    hist_id INTEGER PRIMARY KEY, wo_id INTEGER NOT NULL, state VARCHAR(16) NOT NULL, changed_at DATETIME NOT NULL);
CREATE VIEW yield_ro_or AS
    SELECT product, COUNT(*) AS orders, SUM(quantity) AS quantity, AVG(yield_rate) AS yield_rate FROM mes_wpc_wo GROUP BY product;
";

const TARGET: &str = "
CREATE TABLE mes_wpc_wo (
    wo_id INTEGER PRIMARY KEY, wo_no VARCHAR(32) NOT NULL, product VARCHAR(64) NOT NULL, state VARCHAR(16) NOT NULL,
    quantity DECIMAL(12,3) NOT NULL, yield_rate DOUBLE, remark TEXT, due_on DATE, created_at DATETIME NOT NULL,
    updated_at DATETIME NOT NULL);
";

const PRODUCTS: &[&str] = &["PVA-1490", "PSA-1330", "偏光片 A", "偏光片 B", "TAC \"40\""];
const STATES: &[&str] = &["open", "running", "closed", "scrapped"];
const REMARKS: &[&str] =
    &["", "急单", "two\nlines", "tab\there", "back\\slash and 'quote'", "NULL", "\u{1F4E6} boxed"];

/// A row of `mes_wpc_wo`.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// Primary key.
    pub wo_id: i64,
    /// Number that people use.
    pub wo_no: String,
    /// Product.
    pub product: String,
    /// State.
    pub state: String,
    /// Quantity with three decimals.
    pub quantity: String,
    /// Part that is good, 0 to 1.
    pub yield_rate: Option<f64>,
    /// Free text.
    pub remark: Option<String>,
    /// Day.
    pub due_on: Option<NaiveDate>,
    /// When it was made.
    pub created_at: NaiveDateTime,
    /// When it was last changed: the column that increments are cut by.
    pub updated_at: NaiveDateTime,
    /// Some bytes.
    pub label: Option<Vec<u8>>,
}

/// Returns the rows of `mes_wpc_wo`, ordered by key. Orders are spread over 30 days that begin with `first_day`.
#[must_use]
pub fn orders(first_day: NaiveDate, count: u32, seed: u64) -> Vec<Order> {
    (1..=i64::from(count)).map(|id| order(first_day, id, seed)).collect()
}

#[expect(clippy::cast_precision_loss, reason = "the numbers here are far below 2^53")]
fn order(first_day: NaiveDate, wo_id: i64, seed: u64) -> Order {
    let mut random = Random::new(seed, wo_id.unsigned_abs());
    let seconds = i64::try_from(random.below(30 * 86_400)).unwrap_or_default();
    let created_at = first_day.and_time(NaiveTime::MIN) + TimeDelta::seconds(seconds);
    let later = TimeDelta::seconds(i64::try_from(random.below(86_400)).unwrap_or_default());
    Order {
        wo_id,
        wo_no: format!("WO{}{wo_id:08}", created_at.format("%y%m%d")),
        product: (*random.pick(PRODUCTS)).to_owned(),
        state: (*random.pick(STATES)).to_owned(),
        quantity: format!("{}.{:03}", random.below(1_000_000), random.below(1_000)),
        yield_rate: (!random.one_in(7)).then(|| random.below(10_001) as f64 / 10_000.0),
        remark: (!random.one_in(3)).then(|| (*random.pick(REMARKS)).to_owned()),
        due_on: (!random.one_in(5)).then(|| (created_at + TimeDelta::days(14)).date()),
        created_at,
        updated_at: created_at + later,
        label: random.one_in(10).then(|| random.next().to_be_bytes().to_vec()),
    }
}

/// Writes a new database with `count` orders and returns them.
///
/// # Errors
/// Where the file exists already or cannot be written, or `count` is too large.
pub async fn write(file: &Path, first_day: NaiveDate, count: u32, seed: u64) -> Result<Vec<Order>> {
    ensure!(count <= ORDERS_MAX, "{count} orders are too many, at most {ORDERS_MAX} are made");
    ensure!(!file.exists(), "{} exists already; remove it or name another file", file.display());
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal);
    let mut connection = SqliteConnection::connect_with(&options)
        .await
        .with_context(|| format!("cannot make {}", file.display()))?;
    sqlx::raw_sql(TABLES).execute(&mut connection).await.context("cannot make the tables")?;
    let orders = orders(first_day, count, seed);
    let mut transaction = connection.begin().await.context("cannot begin")?;
    for chunk in orders.chunks(ROWS_PER_INSERT) {
        insert_orders(&mut transaction, chunk).await.context("cannot write orders")?;
        insert_history(&mut transaction, chunk).await.context("cannot write their history")?;
    }
    transaction.commit().await.context("cannot commit")?;
    connection.close().await.context("cannot close the database")?;
    Ok(orders)
}

/// Writes a new, empty database with the table that the orders are moved into.
///
/// # Errors
/// Where the file exists already or cannot be written.
pub async fn write_target(file: &Path) -> Result<()> {
    ensure!(!file.exists(), "{} exists already; remove it or name another file", file.display());
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal);
    let mut connection = SqliteConnection::connect_with(&options)
        .await
        .with_context(|| format!("cannot make {}", file.display()))?;
    sqlx::raw_sql(TARGET).execute(&mut connection).await.context("cannot make the table")?;
    connection.close().await.context("cannot close the database")
}

async fn insert_orders(connection: &mut SqliteConnection, orders: &[Order]) -> sqlx::Result<()> {
    let mut query = sqlx::QueryBuilder::new(
        "INSERT INTO mes_wpc_wo (wo_id, wo_no, product, state, quantity, yield_rate, remark, due_on, created_at, updated_at, label) ",
    );
    query.push_values(orders, |mut row, order| {
        row.push_bind(order.wo_id).push_bind(order.wo_no.clone()).push_bind(order.product.clone());
        row.push_bind(order.state.clone()).push_bind(order.quantity.clone()).push_bind(order.yield_rate);
        row.push_bind(order.remark.clone()).push_bind(order.due_on.map(|day| day.to_string()));
        row.push_bind(order.created_at.to_string())
            .push_bind(order.updated_at.to_string())
            .push_bind(order.label.clone());
    });
    query.build().execute(connection).await.map(drop)
}

async fn insert_history(connection: &mut SqliteConnection, orders: &[Order]) -> sqlx::Result<()> {
    let mut query = sqlx::QueryBuilder::new("INSERT INTO mes_wpc_wo_hist (wo_id, state, changed_at) ");
    let changes = orders.iter().flat_map(|order| {
        [(order, "open", order.created_at), (order, order.state.as_str(), order.updated_at)]
    });
    query.push_values(changes, |mut row, (order, state, moment)| {
        row.push_bind(order.wo_id).push_bind(state.to_owned()).push_bind(moment.to_string());
    });
    query.build().execute(connection).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Row = (i64, String, Option<f64>, Option<String>, String);

    #[tokio::test]
    async fn the_database_holds_the_orders_that_are_returned() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mes.db");
        let first_day = NaiveDate::from_ymd_opt(2018, 7, 1).unwrap();
        let orders = write(&file, first_day, 1_203, 7).await.unwrap();
        assert_eq!(orders.len(), 1_203);
        let mut connection =
            SqliteConnection::connect_with(&SqliteConnectOptions::new().filename(&file)).await.unwrap();
        let rows: Vec<Row> = sqlx::query_as(
            "SELECT wo_id, product, yield_rate, remark, updated_at FROM mes_wpc_wo ORDER BY wo_id",
        )
        .fetch_all(&mut connection)
        .await
        .unwrap();
        let expected: Vec<_> = orders
            .iter()
            .map(|o| (o.wo_id, o.product.clone(), o.yield_rate, o.remark.clone(), o.updated_at.to_string()))
            .collect();
        assert_eq!(rows, expected);
        let history: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM mes_wpc_wo_hist")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(history, 2 * 1_203);
        assert!(write(&file, first_day, 1, 7).await.is_err(), "an existing file is not overwritten");
    }
}

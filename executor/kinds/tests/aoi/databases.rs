//! Databases that rolls are written to: a SQLite file, a MariaDB and a PostgreSQL server of their own.

use std::fs;

use millrace_kinds::run::ResolvedConnection;
use millrace_servers::{MariaDb, Place, Port, Postgres};
use serde_json::json;
use sqlx::{
    Connection as _, MySqlConnection, PgConnection, SqliteConnection, mysql::MySqlConnectOptions,
    postgres::PgConnectOptions, sqlite::SqliteConnectOptions,
};

use super::{
    plant::connection,
    rows::{Rows, number, text},
};

const PASSWORD: &str = "hunter2-of-the-test";

/// Starts a MariaDB server with an empty database `aoi`, whose account may do nothing beside it.
pub(crate) fn mariadb() -> (MariaDb, ResolvedConnection) {
    let server = MariaDb::start_at(&Place::here(), "", &["--character-set-server=latin1"]);
    server.sql(&format!(
        "CREATE DATABASE aoi; CREATE USER aoi@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON aoi.* TO aoi@'%';"
    ));
    let to = account("mysql", server.port());
    (server, to)
}

/// Starts a PostgreSQL server with an empty database `aoi`, whose account needs its password.
pub(crate) fn postgres() -> (Postgres, ResolvedConnection) {
    let mut server = Postgres::prepare(&Place::here(), Some(Port::take()), &[]);
    let access = "local all admin trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
    fs::write(server.folder().join("data/pg_hba.conf"), access).unwrap();
    server.resume();
    server.sql(&format!("CREATE ROLE aoi LOGIN PASSWORD '{PASSWORD}'"));
    server.sql("CREATE DATABASE aoi OWNER aoi");
    let to = account("postgres", server.socket_port());
    (server, to)
}

fn account(engine: &str, port: u16) -> ResolvedConnection {
    let password = PASSWORD;
    connection(&json!({
        "engine": engine, "host": "127.0.0.1", "port": port, "user": "aoi", "password": password, "database": "aoi",
    }))
}

fn mysql_options(to: &ResolvedConnection) -> MySqlConnectOptions {
    let options = MySqlConnectOptions::new().host(&to.host).port(to.port.unwrap()).username(&to.user);
    options.password(to.password.expose()).database(&to.database)
}

fn postgres_options(to: &ResolvedConnection) -> PgConnectOptions {
    let options =
        PgConnectOptions::new_without_pgpass().host(&to.host).port(to.port.unwrap()).username(&to.user);
    options.password(to.password.expose()).database(&to.database)
}

type Piece = (
    i64,
    String,
    Option<f64>,
    Option<f64>,
    Option<f64>,
    Option<f64>,
    Option<String>,
    String,
    Option<String>,
    Option<String>,
);
type Lengths = (Option<f64>, Option<f64>, Option<f64>, Option<f64>, Option<f64>, Option<f64>, Option<f64>);

/// Reads all rows, and the ids of the rolls, over a connection of any engine.
macro_rules! read {
    ($connection:expr, $time:literal, $cast:literal) => {{
        let pieces: Vec<Piece> = sqlx::query_as(concat!(
            "SELECT pieceid, aoi_no, inspected_width, inspected_length, material_width, run_length, recipe, ",
            $cast,
            "(start_time",
            $time,
            ", ",
            $cast,
            "(stop_time",
            $time,
            ", comment FROM pieces_process3"
        ))
        .fetch_all(&mut $connection)
        .await
        .unwrap();
        let mut rows = Rows::new();
        let mut ids = Vec::new();
        for piece in pieces {
            let texts: Vec<(i64, Option<String>, Option<String>, Option<String>)> =
                sqlx::query_as(sqlx::AssertSqlSafe(format!(
                    concat!(
                        "SELECT defectid, defectclass, severity, ",
                        $cast,
                        "(time",
                        $time,
                        " FROM defects_process3 WHERE pieceid = {} ORDER BY defectid"
                    ),
                    piece.0
                )))
                .fetch_all(&mut $connection)
                .await
                .unwrap();
            let lengths: Vec<Lengths> = sqlx::query_as(sqlx::AssertSqlSafe(format!(
                "SELECT cdabspos, cdpos, length, mdabspos, mdpos, size, width FROM defects_process3 \
                 WHERE pieceid = {} ORDER BY defectid",
                piece.0
            )))
            .fetch_all(&mut $connection)
            .await
            .unwrap();
            let defects =
                texts.iter().zip(&lengths).map(|(texts, lengths)| defect_row(texts, lengths)).collect();
            ids.push((piece.1.clone(), piece.0));
            rows.push((piece_row(&piece), defects));
        }
        rows.sort();
        ids.sort();
        (rows, ids)
    }};
}

fn piece_row(piece: &Piece) -> Vec<String> {
    let time = |time: Option<&String>| time.cloned().unwrap_or_else(|| "NULL".to_owned());
    vec![
        piece.1.clone(),
        number(piece.2),
        number(piece.3),
        number(piece.4),
        number(piece.5),
        text(piece.6.as_ref()),
        time(Some(&piece.7)),
        time(piece.8.as_ref()),
        text(piece.9.as_ref()),
    ]
}

fn defect_row(
    texts: &(i64, Option<String>, Option<String>, Option<String>),
    lengths: &Lengths,
) -> Vec<String> {
    let lengths = [lengths.0, lengths.1, lengths.2, lengths.3, lengths.4, lengths.5, lengths.6];
    let mut row = vec![texts.0.to_string(), text(texts.1.as_ref()), text(texts.2.as_ref())];
    row.extend(lengths.map(number));
    row.push(texts.3.clone().unwrap_or_else(|| "NULL".to_owned()));
    row
}

/// Returns all rows of a target, and the ids of the rolls by their numbers.
pub(crate) async fn rows(to: &ResolvedConnection) -> (Rows, Vec<(String, i64)>) {
    match to.engine.as_str() {
        "mysql" => {
            let mut connection = MySqlConnection::connect_with(&mysql_options(to)).await.unwrap();
            read!(connection, ", '%Y-%m-%d %H:%i:%s')", "DATE_FORMAT")
        }
        "postgres" => {
            let mut connection = PgConnection::connect_with(&postgres_options(to)).await.unwrap();
            read!(connection, ", 'YYYY-MM-DD HH24:MI:SS')", "TO_CHAR")
        }
        _ => {
            let options = SqliteConnectOptions::new().filename(to.path.as_ref().unwrap());
            let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
            read!(connection, ")", "TRIM")
        }
    }
}

/// Runs statements on the SQLite database of a connection.
pub(crate) async fn sqlite(to: &ResolvedConnection, statements: &str) {
    let options = SqliteConnectOptions::new().filename(to.path.as_ref().unwrap()).create_if_missing(true);
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql(sqlx::AssertSqlSafe(statements)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

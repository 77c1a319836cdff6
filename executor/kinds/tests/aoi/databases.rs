//! Databases that rolls are written to: a SQLite file, a MariaDB and a PostgreSQL server of their own.

use std::{
    fs,
    net::TcpListener,
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use millrace_kinds::run::ResolvedConnection;
use serde_json::json;
use sqlx::{
    Connection as _, MySqlConnection, PgConnection, SqliteConnection, mysql::MySqlConnectOptions,
    postgres::PgConnectOptions, sqlite::SqliteConnectOptions,
};
use tempfile::TempDir;

use super::{
    plant::connection,
    rows::{Rows, number, text},
};

/// How long a server may take to start on a busy machine.
const START: Duration = Duration::from_secs(90);
const PASSWORD: &str = "hunter2-of-the-test";

/// A server process with its folder.
pub(crate) struct Server {
    process: Child,
    port: u16,
    _folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may have ended already; then there is nothing to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Starts a MariaDB server with an empty database `aoi`.
pub(crate) async fn mariadb() -> (Server, ResolvedConnection) {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let user = is_root().then_some("--user=root");
    let installed = Command::new(program("mariadb-install-db"))
        .args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"])
        .args(user)
        .arg(format!("--datadir={}", at("data")))
        .stdout(Stdio::null())
        .status()
        .expect("mariadb-install-db is installed");
    assert!(installed.success(), "mariadb-install-db failed");
    let setup = format!(
        "CREATE DATABASE aoi; CREATE USER aoi@'%' IDENTIFIED BY '{PASSWORD}'; GRANT ALL ON aoi.* TO aoi@'%';"
    );
    fs::write(at("setup.sql"), setup.replace("; ", ";\n")).unwrap();
    let port = free_port();
    let process = Command::new(program("mariadbd"))
        .arg("--no-defaults")
        .args(user)
        .args([format!("--datadir={}", at("data")), format!("--socket={}", at("socket"))])
        .args([format!("--pid-file={}", at("pid")), format!("--log-error={}", at("error.log"))])
        .args([format!("--init-file={}", at("setup.sql")), format!("--port={port}")])
        .args(["--bind-address=127.0.0.1", "--skip-name-resolve", "--character-set-server=latin1"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("mariadbd is installed");
    let to = account("mysql", port);
    let log = folder.path().join("error.log");
    let server = Server { process, port, _folder: folder };
    until(&log, async || MySqlConnection::connect_with(&mysql_options(&to)).await.is_ok()).await;
    (server, to)
}

/// Starts a PostgreSQL server with an empty database `aoi`.
pub(crate) async fn postgres() -> (Server, ResolvedConnection) {
    let folder = TempDir::new().unwrap();
    let data = folder.path().join("data");
    fs::write(folder.path().join("password"), PASSWORD).unwrap();
    own(folder.path());
    own(&folder.path().join("password"));
    let installed = as_owner(&mut Command::new(program("initdb")))
        .args(["--username=aoi", "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale", "--no-sync"])
        .arg(format!("--pwfile={}", folder.path().join("password").display()))
        .arg(format!("--pgdata={}", data.display()))
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .status()
        .expect("initdb is installed");
    assert!(installed.success(), "initdb failed");
    let port = free_port();
    let log = folder.path().join("error.log");
    let process = as_owner(&mut Command::new(program("postgres")))
        .arg(format!("-D{}", data.display()))
        .args([format!("-p{port}"), format!("-k{}", folder.path().display()), "-h127.0.0.1".to_owned()])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .expect("postgres is installed");
    let mut to = account("postgres", port);
    to.database = "postgres".to_owned();
    let server = Server { process, port, _folder: folder };
    until(&log, async || PgConnection::connect_with(&postgres_options(&to)).await.is_ok()).await;
    let mut connection = PgConnection::connect_with(&postgres_options(&to)).await.unwrap();
    sqlx::raw_sql("CREATE DATABASE aoi").execute(&mut connection).await.unwrap();
    to.database = "aoi".to_owned();
    (server, to)
}

impl Server {
    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

fn account(engine: &str, port: u16) -> ResolvedConnection {
    let password = PASSWORD;
    connection(&json!({
        "engine": engine, "host": "127.0.0.1", "port": port, "user": "aoi", "password": password, "database": "aoi",
    }))
}

async fn until(log: &Path, is_ready: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + START;
    while !is_ready().await {
        let errors = fs::read_to_string(log).unwrap_or_default();
        assert!(Instant::now() < deadline, "no answer in {START:?}:\n{errors}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

/// PostgreSQL refuses to run as root; then it runs as an account that has nothing.
fn owner() -> Option<(u32, u32)> {
    let account =
        ["postgres", "nobody"].iter().find_map(|name| nix::unistd::User::from_name(name).ok().flatten());
    is_root().then(|| account.map(|user| (user.uid.as_raw(), user.gid.as_raw()))).flatten()
}

fn as_owner(command: &mut Command) -> &mut Command {
    match owner() {
        Some((uid, gid)) => command.uid(uid).gid(gid),
        None => command,
    }
}

fn own(path: &Path) {
    if let Some((uid, gid)) = owner() {
        chown(path, Some(uid), Some(gid)).unwrap();
    }
}

fn program(name: &str) -> PathBuf {
    let places = ["/usr/sbin", "/usr/bin", "/usr/local/bin", "/usr/lib/postgresql/15/bin"];
    let found = places.iter().map(|place| Path::new(place).join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| PathBuf::from(name))
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

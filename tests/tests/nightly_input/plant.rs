//! The nightly work on a real MariaDB and a real FTP server with two accounts, as in a plant.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use anyhow::{Context, ensure};
use millrace_examples::{aoi, source};
use millrace_servers::{MariaDb, Place, mariadb};
use millrace_tests::{Standalone, free_port, wait_for};

use super::{COLUMNS, DAY, WORKFLOW};

const ORDERS: u32 = 1_000;
const ROLLS: u32 = 2;
const SEED: u64 = 23;
const FTP_PASSWORD: &str = "ftp-Secret-1";
/// A password with all that needs care: in option files, in SQL, in shells.
const DATABASE_PASSWORD: &str = "pa\"ss\\wo#rd'; $x";

/// A server for two accounts with a home each, as the inspection machines offer it.
const FTP_SERVER: &str = r#"
import sys
from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler
from pyftpdlib.servers import FTPServer
port, root, password = int(sys.argv[1]), sys.argv[2], sys.argv[3]
authorizer = DummyAuthorizer()
for film in ("pva", "psa"):
    authorizer.add_user("cloudin_" + film, password, root + "/cloudin_" + film)
FTPHandler.authorizer = authorizer
FTPServer(("127.0.0.1", port), FTPHandler).serve_forever()
"#;

/// Servers and their input.
pub(crate) struct Plant {
    root: PathBuf,
    database: Option<MariaDb>,
    port: u16,
    user: String,
    password: String,
    ftp: Child,
    ftp_port: u16,
    rolls: Vec<aoi::Roll>,
    orders: Vec<source::Order>,
    root_param: String,
}

impl Drop for Plant {
    fn drop(&mut self) {
        // It may have ended already; either way nothing of it stays.
        let _ = self.ftp.kill();
        let _ = self.ftp.wait();
    }
}

impl Plant {
    pub(crate) fn make(root: &Path) -> anyhow::Result<Self> {
        let root = root.canonicalize()?;
        let day = DAY.parse::<chrono::NaiveDate>()?;
        let request = aoi::Request { first_day: day, days: 1, rolls: ROLLS, seed: SEED };
        let rolls = aoi::write(&request, &root.join("ftp"), |film| format!("cloudin_{}", film.name()))?;
        let (ftp, ftp_port) = start_ftp(&root.join("ftp"))?;
        let database = MariaDb::start_at(&Place::here(), DATABASE_PASSWORD, &[]);
        let orders = source::orders(day - chrono::TimeDelta::days(24), ORDERS, SEED);
        fill(&database, &orders);
        let (port, user, password) =
            (database.port(), mariadb::USER.to_owned(), DATABASE_PASSWORD.to_owned());
        fs::create_dir_all(root.join("jobs"))?;
        fs::write(root.join("jobs/mes_wpc_wo.json"), job(port, &user, &password))?;
        let root_param = format!("root={}", root.display());
        Ok(Self {
            root,
            database: Some(database),
            port,
            user,
            password,
            ftp,
            ftp_port,
            rolls,
            orders,
            root_param,
        })
    }

    pub(crate) fn stop_database(&mut self) {
        self.database = None;
    }

    pub(crate) fn executor_settings(&self) -> String {
        let Self { root, port, user, ftp_port, .. } = self;
        let secret = root.join("mes.password");
        write_secret(&secret, &self.password);
        let ftp_secret = root.join("ftp.password");
        write_secret(&ftp_secret, FTP_PASSWORD);
        let database = |name: &str, database: &str| {
            format!(
                "[executor.connections.{name}]\nengine = \"mysql\"\nhost = \"127.0.0.1\"\nport = {port}\nuser = \"{user}\"\npassword_file = \"{}\"\ndatabase = \"{database}\"\n",
                secret.display()
            )
        };
        let ftp = |film: &str| {
            format!(
                "[executor.connections.{film}]\nengine = \"ftp\"\nhost = \"127.0.0.1\"\nport = {ftp_port}\nuser = \"cloudin_{film}\"\npassword_file = \"{}\"\n",
                ftp_secret.display()
            )
        };
        format!(
            "slots = 4\n{}{}{}{}",
            database("mes", "mes"),
            database("warehouse", "wh"),
            ftp("pva"),
            ftp("psa")
        )
    }

    /// The repository's workflow, its archives fetched by FTP as its comment says.
    pub(crate) fn workflow(&self) -> String {
        let (head, rest) = WORKFLOW.split_once("      sources:\n").unwrap_or((WORKFLOW, ""));
        let rest: Vec<&str> = rest.lines().skip_while(|line| line.trim_start().starts_with("- {")).collect();
        format!("{head}      sources: [pva, {{ name: psa, encoding: gbk }}]\n{}\n", rest.join("\n"))
    }

    pub(crate) fn run_arguments(&self) -> [&str; 5] {
        ["nightly", "--logical-date", DAY, "-p", &self.root_param]
    }

    fn database(&self) -> anyhow::Result<&MariaDb> {
        self.database.as_ref().context("the database was stopped")
    }

    pub(crate) fn compare(&self) -> anyhow::Result<()> {
        let database = self.database()?;
        let sent = database.sql(&format!(
            "SELECT {COLUMNS} FROM mes.mes_wpc_wo WHERE created_at < '{DAY}' + INTERVAL 1 DAY ORDER BY wo_id"
        ));
        let arrived = database.sql(&format!("SELECT {COLUMNS} FROM wh.mes_wpc_wo ORDER BY wo_id"));
        ensure!(!sent.is_empty() && sent == arrived, "orders differ:\n{sent}\n---\n{arrived}");
        let pieces = database.sql("SELECT aoi_no FROM wh.pieces_process3 ORDER BY aoi_no");
        let mut expected: Vec<&str> = self.rolls.iter().map(|roll| roll.aoi_no.as_str()).collect();
        expected.sort_unstable();
        let pieces: Vec<&str> = pieces.lines().collect();
        ensure!(pieces == expected, "rolls {pieces:?} arrived, {expected:?} were sent");
        let defects = database.sql("SELECT COUNT(*) FROM wh.defects_process3");
        let expected: usize = self.rolls.iter().map(|roll| roll.defects.len()).sum();
        ensure!(defects.trim() == expected.to_string(), "{defects} defects arrived of {expected}");
        Ok(())
    }

    /// Loads the newest dump into a second server and compares it with its source.
    pub(crate) fn compare_restored_backup(&self) -> anyhow::Result<()> {
        let folder = self.root.join("backup/mes");
        let mut dumps: Vec<PathBuf> = fs::read_dir(&folder)
            .with_context(|| format!("cannot read {}", folder.display()))?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.to_string_lossy().ends_with(".sql.zst"))
            .collect();
        dumps.sort();
        let dump = dumps.pop().context("there is a dump")?;
        let text = zstd::decode_all(fs::File::open(&dump)?)?;
        let other = MariaDb::start();
        other.try_sql(&text).map_err(|problem| anyhow::anyhow!("the dump does not load: {problem}"))?;
        let all = "SELECT * FROM mes.mes_wpc_wo ORDER BY wo_id";
        let (source, restored) = (self.database()?.sql(all), other.sql(all));
        ensure!(
            source.lines().count() == self.orders.len() && source == restored,
            "the restored rows differ"
        );
        Ok(())
    }

    /// Looks for the passwords in everything that was written.
    pub(crate) fn assert_password_is_nowhere(&self, millrace: &Standalone) -> anyhow::Result<()> {
        for password in [self.password.as_str(), FTP_PASSWORD] {
            let found = find_text(millrace.folder(), password.as_bytes())?;
            ensure!(found.is_empty(), "a password stands in {found:?}");
        }
        Ok(())
    }
}

fn find_text(folder: &Path, text: &[u8]) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(find_text(&path, text)?);
        } else if path.is_file()
            && fs::read(&path)?.windows(text.len()).any(|window| window == text)
            && path.file_name().is_some_and(|name| name != "millrace.toml")
        {
            found.push(path);
        }
    }
    Ok(found)
}

fn write_secret(path: &Path, text: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    // The start of the program fails with a clear message where this does.
    let _ = fs::write(path, text);
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o600));
}

fn start_ftp(root: &Path) -> anyhow::Result<(Child, u16)> {
    let port = free_port()?;
    let mut ftp = Command::new("/usr/bin/python3")
        .args(["-c", FTP_SERVER, &port.to_string()])
        .arg(root)
        .arg(FTP_PASSWORD)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start the FTP server")?;
    wait_for("the FTP server to listen", || {
        if let Some(status) = ftp.try_wait()? {
            anyhow::bail!("the FTP server ended with {status}; python3-pyftpdlib is missing");
        }
        Ok(std::net::TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(()))
    })?;
    Ok((ftp, port))
}

fn fill(database: &MariaDb, orders: &[source::Order]) {
    let table = "mes_wpc_wo (wo_id BIGINT PRIMARY KEY, wo_no VARCHAR(32) NOT NULL, product VARCHAR(64) NOT NULL, \
         state VARCHAR(16) NOT NULL, quantity DECIMAL(12,3) NOT NULL, yield_rate DOUBLE, remark TEXT, due_on DATE, \
         created_at DATETIME NOT NULL, updated_at DATETIME NOT NULL) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4";
    database.sql(&format!(
        "CREATE DATABASE mes; CREATE DATABASE wh; CREATE TABLE mes.{table}; CREATE TABLE wh.{table};"
    ));
    let text = |text: &str| format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"));
    let option = |value: Option<String>| value.unwrap_or_else(|| "NULL".to_owned());
    for chunk in orders.chunks(200) {
        let rows: Vec<String> = chunk
            .iter()
            .map(|order| {
                format!(
                    "({}, {}, {}, {}, {}, {}, {}, {}, '{}', '{}')",
                    order.wo_id,
                    text(&order.wo_no),
                    text(&order.product),
                    text(&order.state),
                    order.quantity,
                    option(order.yield_rate.map(|rate| rate.to_string())),
                    option(order.remark.as_deref().map(text)),
                    option(order.due_on.map(|day| format!("'{day}'"))),
                    order.created_at,
                    order.updated_at,
                )
            })
            .collect();
        database.sql(&format!("SET NAMES utf8mb4; INSERT INTO mes.mes_wpc_wo VALUES {};", rows.join(",")));
    }
}

fn job(port: u16, user: &str, password: &str) -> String {
    let columns: Vec<&str> = COLUMNS.split(", ").collect();
    let address = |database: &str| format!("jdbc:mysql://127.0.0.1:{port}/{database}?useSSL=false");
    serde_json::json!({ "job": {
        "setting": { "speed": { "channel": 1 }, "errorLimit": { "record": 0 } },
        "content": [{
            "reader": { "name": "mysqlreader", "parameter": {
                "username": user, "password": password, "column": columns,
                "where": "created_at < '${bizdate}' + INTERVAL 1 DAY",
                "connection": [{ "table": ["mes_wpc_wo"], "jdbcUrl": [address("mes")] }],
            } },
            "writer": { "name": "mysqlwriter", "parameter": {
                "username": user, "password": password, "column": columns, "writeMode": "replace",
                "connection": [{ "table": ["mes_wpc_wo"], "jdbcUrl": address("wh") }],
            } },
        }],
    } })
    .to_string()
}

//! A MariaDB server of its own for each test: free port, temporary folder, ended by its own process id.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use sqlx::{
    AssertSqlSafe, Connection, MySqlConnection, Row,
    mysql::{MySqlConnectOptions, MySqlSslMode},
};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::support::{plugin, text_of};

/// How long a server may take to start on a busy machine.
const START: Duration = Duration::from_secs(90);
const PASSWORD: &str = "hunter2-of-the-test";

pub(crate) struct Server {
    process: Child,
    port: u16,
    folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        // The process may have ended already; then there is nothing to end.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Server {
    pub(crate) async fn start() -> Self {
        let template = template();
        for _ in 0..5 {
            let folder = TempDir::new().expect("a temporary folder");
            copy(&template, folder.path());
            if let Some(server) = Self::try_start(folder).await {
                return server;
            }
        }
        panic!("the server did not start on five ports");
    }

    /// Nothing if the port was taken by somebody else meanwhile.
    async fn try_start(folder: TempDir) -> Option<Self> {
        let port =
            TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its number").port();
        let setup = folder.path().join("setup.sql");
        let statements = format!(
            "CREATE USER dx@'%' IDENTIFIED BY '{PASSWORD}';\nGRANT ALL ON *.* TO dx@'%';\nCREATE DATABASE a;\n"
        );
        fs::write(&setup, statements).expect("a file");
        let process = Command::new(program("mariadbd"))
            .arg("--no-defaults")
            .args(user())
            .arg(format!("--datadir={}", folder.path().join("data").display()))
            .arg(format!("--socket={}", folder.path().join("socket").display()))
            .arg(format!("--pid-file={}", folder.path().join("pid").display()))
            .arg(format!("--log-error={}", folder.path().join("error.log").display()))
            .arg(format!("--init-file={}", setup.display()))
            .arg(format!("--port={port}"))
            .args(["--bind-address=127.0.0.1", "--skip-name-resolve", "--innodb-buffer-pool-size=32M"])
            .args(["--innodb-log-file-size=8M", "--innodb-flush-log-at-trx-commit=0"])
            .args(["--character-set-server=utf8mb4", "--max-allowed-packet=16M"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mariadbd is installed");
        let mut server = Self { process, port, folder };
        server.answers().await.then_some(server)
    }

    async fn answers(&mut self) -> bool {
        let deadline = Instant::now() + START;
        while self.process.try_wait().expect("a child").is_none() {
            if let Ok(connection) = MySqlConnection::connect_with(&self.options()).await {
                connection.close().await.expect("a closed connection");
                return true;
            }
            let errors = fs::read_to_string(self.folder.path().join("error.log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "no answer in {START:?}:\n{errors}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    }

    fn options(&self) -> MySqlConnectOptions {
        let options = MySqlConnectOptions::new().host("127.0.0.1").port(self.port).username("dx");
        options.password(PASSWORD).database("a").ssl_mode(MySqlSslMode::Disabled).timezone(None)
    }

    pub(crate) fn url(&self) -> String {
        format!("jdbc:mysql://127.0.0.1:{}/a?useSSL=false", self.port)
    }

    /// Runs statements that are separated by semicolons.
    pub(crate) async fn sql(&self, statements: &str) {
        let mut connection = MySqlConnection::connect_with(&self.options()).await.expect("a connection");
        sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut connection).await.expect("statements");
        connection.close().await.expect("a closed connection");
    }

    /// Returns rows as the server prints them.
    pub(crate) async fn rows(&self, query: &str) -> Vec<Vec<String>> {
        let mut connection = MySqlConnection::connect_with(&self.options()).await.expect("a connection");
        let rows = sqlx::raw_sql(AssertSqlSafe(query)).fetch_all(&mut connection).await.expect("rows");
        connection.close().await.expect("a closed connection");
        rows.iter().map(|row| (0..row.len()).map(|index| text_of(row, index)).collect()).collect()
    }

    pub(crate) async fn count(&self, table: &str) -> u64 {
        self.rows(&format!("SELECT COUNT(*) FROM {table}")).await[0][0].parse().expect("a number")
    }

    /// A reader of one table; `more` adds parameters or replaces them.
    pub(crate) fn reader(&self, table: &str, column: &Value, more: &Value) -> Value {
        let connection = json!([{"jdbcUrl": [self.url()], "table": [table]}]);
        self.with("mysqlreader", json!({"column": column, "connection": connection}), more)
    }

    /// A writer of one table; `more` adds parameters or replaces them.
    pub(crate) fn writer(&self, table: &str, column: &Value, more: &Value) -> Value {
        let connection = json!([{"jdbcUrl": self.url(), "table": [table]}]);
        self.with("mysqlwriter", json!({"column": column, "connection": connection}), more)
    }

    fn with(&self, name: &str, mut parameter: Value, more: &Value) -> Value {
        parameter["username"] = "dx".into();
        parameter["password"] = PASSWORD.into();
        for (key, value) in more.as_object().expect("an object") {
            parameter[key] = value.clone();
        }
        plugin(name, &parameter)
    }
}

/// A data folder with the system tables, made once for all tests because that takes seconds.
fn template() -> PathBuf {
    let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    fs::create_dir_all(&root).expect("a folder");
    let lock = File::create(root.join("mariadb.lock")).expect("a lock file");
    lock.lock().expect("the lock");
    let template = root.join("mariadb-template");
    if template.join("done").exists() {
        return template;
    }
    if template.exists() {
        fs::remove_dir_all(&template).expect("an unfinished template is removed");
    }
    fs::create_dir_all(template.join("data")).expect("a folder");
    let status = Command::new(program("mariadb-install-db"))
        .args(["--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"])
        .arg("--innodb-log-file-size=8M")
        .args(user())
        .arg(format!("--datadir={}", template.join("data").display()))
        .stdout(Stdio::null())
        .status()
        .expect("mariadb-install-db is installed");
    assert!(status.success(), "mariadb-install-db failed");
    fs::write(template.join("done"), "").expect("a marker");
    template
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            fs::create_dir(&target).expect("a new folder");
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

fn program(name: &str) -> PathBuf {
    let places = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
    let found = places.iter().map(|place| Path::new(place).join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| PathBuf::from(name))
}

/// The server does not run as root unless told so.
fn user() -> Option<String> {
    let own = fs::metadata("/proc/self").ok()?;
    (std::os::unix::fs::MetadataExt::uid(&own) == 0).then(|| "--user=root".to_owned())
}

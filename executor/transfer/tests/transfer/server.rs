//! A MariaDB server of its own for each test, and connections to it.

use millrace_servers::{MariaDb, Place, mariadb};
use serde_json::{Value, json};
use sqlx::{
    AssertSqlSafe, Connection, MySqlConnection, Row,
    mysql::{MySqlConnectOptions, MySqlSslMode},
};

use crate::support::{plugin, text_of};

const PASSWORD: &str = "hunter2-of-the-test";

pub(crate) struct Server(MariaDb);

impl Server {
    pub(crate) fn start() -> Self {
        let server = MariaDb::start_at(&Place::here(), PASSWORD, &["--max-allowed-packet=16M"]);
        server.sql("CREATE DATABASE a");
        Self(server)
    }

    fn options(&self) -> MySqlConnectOptions {
        let options =
            MySqlConnectOptions::new().host("127.0.0.1").port(self.0.port()).username(mariadb::USER);
        options.password(PASSWORD).database("a").ssl_mode(MySqlSslMode::Disabled).timezone(None)
    }

    pub(crate) fn url(&self) -> String {
        format!("jdbc:mysql://127.0.0.1:{}/a?useSSL=false", self.0.port())
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
        parameter["username"] = mariadb::USER.into();
        parameter["password"] = PASSWORD.into();
        for (key, value) in more.as_object().expect("an object") {
            parameter[key] = value.clone();
        }
        plugin(name, &parameter)
    }
}

//! The database of the cluster, on whichever engine, as the rig sees it: over its socket, which no network comes between.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use millrace_servers::{MariaDb, Place, Port, Postgres};

/// The password of the account in MariaDB.
const PASSWORD: &str = "rig";

/// Which server a scenario wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Postgres,
    MariaDb,
    /// A file of one process that is master and executor.
    Sqlite,
}

/// A database. What is done to a server is not done to a file, which has none.
#[derive(Debug)]
pub(crate) enum Database {
    Postgres(Postgres),
    MariaDb(MariaDb),
    /// Whoever reads it while its process is down does that process's recovery.
    Sqlite(PathBuf),
}

impl Database {
    pub(crate) fn postgres(place: &Place, settings: &[&str]) -> Self {
        let mut server = Postgres::prepare(place, Some(Port::take()), settings);
        server.resume();
        Self::Postgres(server)
    }

    pub(crate) fn mariadb(place: &Place, settings: &[&str]) -> Self {
        let mut server = MariaDb::prepare(place, Some(Port::take()), PASSWORD, settings);
        server.resume();
        Self::MariaDb(server)
    }

    /// Returns its address for masters; the servers of the rig show no certificates.
    pub(crate) fn url(&self) -> String {
        let url = match self {
            Self::Postgres(server) => server.network_url(),
            Self::MariaDb(server) => server.network_url(PASSWORD),
            Self::Sqlite(_) => String::new(),
        };
        format!("{url}?tls=off")
    }

    /// Returns the port that masters come to.
    pub(crate) fn port(&self) -> u16 {
        match self {
            Self::Postgres(server) => server.socket_port(),
            Self::MariaDb(server) => server.port(),
            Self::Sqlite(_) => 0,
        }
    }

    /// Runs statements; returns what they print, a line for each row.
    pub(crate) fn sql(&self, statements: &str) -> anyhow::Result<String> {
        let answer = match self {
            Self::Postgres(server) => server.try_sql(statements),
            Self::MariaDb(server) => server
                .try_sql(format!("USE millrace;\n{statements}").as_bytes())
                .map(|text| text.trim_end().to_owned()),
            Self::Sqlite(file) => sqlite(file, statements),
        };
        answer.map_err(|said| anyhow::anyhow!("the database says: {}", said.trim()))
    }

    /// Runs statements for rows that hold JSON and nothing else.
    pub(crate) fn json(&self, statements: &str) -> anyhow::Result<Vec<serde_json::Value>> {
        let text = self.sql(statements)?;
        let line = |line: &str| match self {
            Self::Postgres(_) | Self::Sqlite(_) => serde_json::from_str(line),
            // The client escapes what it prints.
            Self::MariaDb(_) => serde_json::from_str(&line.replace("\\\\", "\\")),
        };
        Ok(text.lines().map(line).collect::<Result<_, _>>()?)
    }

    /// Ends all sessions that come from an address.
    pub(crate) fn end_sessions(&self, address: &str) -> anyhow::Result<()> {
        if let Self::Postgres(_) = self {
            let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE client_addr = ";
            return self.sql(&format!("{end}'{address}'")).map(drop);
        }
        if let Self::Sqlite(_) = self {
            return Ok(());
        }
        let sessions = "SELECT id FROM information_schema.processlist WHERE host LIKE ";
        for id in self.sql(&format!("{sessions}'{address}:%'"))?.lines() {
            // It may have ended by itself.
            let _ = self.sql(&format!("KILL {id}"));
        }
        Ok(())
    }

    /// Tells whether a session from an address is inside a transaction that has written.
    pub(crate) fn has_open_write(&self, address: &str) -> anyhow::Result<bool> {
        let query = match self {
            Self::Postgres(_) => format!(
                "SELECT count(*) FROM pg_stat_activity WHERE client_addr = '{address}' AND backend_xid IS NOT NULL \
                 AND state LIKE 'idle in transaction%'"
            ),
            Self::MariaDb(_) => format!(
                "SELECT count(*) FROM information_schema.innodb_trx t JOIN information_schema.processlist p \
                 ON p.id = t.trx_mysql_thread_id WHERE p.host LIKE '{address}:%' AND p.command = 'Sleep' \
                 AND t.trx_rows_modified > 0"
            ),
            Self::Sqlite(_) => return Ok(false),
        };
        Ok(self.sql(&query)?.trim() != "0")
    }

    pub(crate) const fn engine(&self) -> Engine {
        match self {
            Self::Postgres(_) => Engine::Postgres,
            Self::MariaDb(_) => Engine::MariaDb,
            Self::Sqlite(_) => Engine::Sqlite,
        }
    }

    /// Starts it where it does not run, and waits until it answers.
    pub(crate) fn resume(&mut self) {
        match self {
            Self::Postgres(server) => server.resume(),
            Self::MariaDb(server) => server.resume(),
            Self::Sqlite(_) => {}
        }
    }

    /// Ends it with no chance to tidy up.
    pub(crate) fn kill(&mut self) {
        match self {
            Self::Postgres(server) => server.kill(),
            Self::MariaDb(server) => server.kill(),
            Self::Sqlite(_) => {}
        }
    }

    /// Ends it at once, as its operator would.
    pub(crate) fn stop(&mut self) {
        match self {
            Self::Postgres(server) => server.stop(),
            Self::MariaDb(server) => server.stop(),
            Self::Sqlite(_) => {}
        }
    }

    /// Stops all of it where it stands.
    pub(crate) fn freeze(&self) {
        match self {
            Self::Postgres(server) => server.freeze(),
            Self::MariaDb(server) => server.freeze(),
            Self::Sqlite(_) => {}
        }
    }

    pub(crate) fn thaw(&self) {
        match self {
            Self::Postgres(server) => server.thaw(),
            Self::MariaDb(server) => server.thaw(),
            Self::Sqlite(_) => {}
        }
    }

    pub(crate) fn log(&self) -> String {
        match self {
            Self::Postgres(server) => server.log(),
            Self::MariaDb(server) => server.log(),
            Self::Sqlite(_) => String::new(),
        }
    }
}

/// Runs statements over a file, as another process beside whoever has it open.
fn sqlite(file: &Path, statements: &str) -> Result<String, String> {
    let mut sqlite = Command::new("sqlite3");
    sqlite.args(["-batch", "-bail", "-cmd", ".timeout 5000"]).arg(file).arg(statements).stdin(Stdio::null());
    let output = sqlite.output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

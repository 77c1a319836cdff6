//! A database server of a case's own, of either kind.

use std::{path::Path, thread, time::Duration};

use millrace_servers::{MariaDb, Place, Postgres, mariadb, postgres};

use crate::place::Engine;

/// How often a server is asked whether it answers, and how long in between: 60 s altogether.
const POLLS_MAX: u32 = 3_000;
const POLL: Duration = Duration::from_millis(20);
/// The number in the name of PostgreSQL's socket.
pub(crate) const PORT: u16 = postgres::SOCKET_PORT;

/// A server that runs.
#[derive(Debug)]
pub(crate) enum Server {
    Postgres(Postgres),
    MariaDb(MariaDb),
}

/// Returns what keeps a server of this kind from being started here.
pub(crate) fn missing(engine: Engine) -> Option<String> {
    match engine {
        Engine::Sqlite => None,
        Engine::Postgres => postgres::missing(),
        Engine::MariaDb => mariadb::missing(),
    }
}

impl Server {
    /// Starts one with `settings` beside the usual ones.
    pub(crate) fn start(engine: Engine, settings: &[&str]) -> Self {
        let here = Place::here();
        let mut server = match engine {
            Engine::Sqlite => panic!("a file needs no server"),
            Engine::Postgres => Self::Postgres(Postgres::prepare(&here, None, settings)),
            Engine::MariaDb => Self::MariaDb(MariaDb::prepare(&here, None, "", settings)),
        };
        server.resume();
        server
    }

    pub(crate) fn folder(&self) -> &Path {
        match self {
            Self::Postgres(server) => server.folder(),
            Self::MariaDb(server) => server.folder(),
        }
    }

    /// Starts it again after it ended.
    pub(crate) fn resume(&mut self) {
        match self {
            Self::Postgres(server) => server.resume(),
            Self::MariaDb(server) => server.resume(),
        }
    }

    /// Kills it, with no chance to tidy up.
    pub(crate) fn kill(&mut self) {
        match self {
            Self::Postgres(server) => server.kill(),
            Self::MariaDb(server) => server.kill(),
        }
    }

    /// Has its data in another folder from the next start on, as another system would.
    pub(crate) fn move_data(&mut self) {
        match self {
            Self::Postgres(server) => server.move_data(),
            Self::MariaDb(server) => server.move_data(),
        }
    }

    /// Waits until `answers`.
    pub(crate) fn wait(&self, mut answers: impl FnMut() -> bool) {
        for _ in 0..POLLS_MAX {
            if answers() {
                return;
            }
            thread::sleep(POLL);
        }
        let log = match self {
            Self::Postgres(server) => server.log(),
            Self::MariaDb(server) => server.log(),
        };
        panic!("the server does not answer:\n{log}");
    }
}

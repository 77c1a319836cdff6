//! Where a store under test lives.

use std::{
    future::Future,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard},
    thread,
};

use millrace_common::secret::Secret;
use millrace_store::{Address, ServerConfig, Store, StoreConfig, Tls};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Row,
    mysql::{MySqlConnectOptions, MySqlConnection, MySqlSslMode},
    postgres::{PgConnectOptions, PgConnection},
    sqlite::{SqliteConnectOptions, SqliteConnection},
};
use tempfile::TempDir;

use crate::process::{PORT, Server, missing};

/// The account of the store, which may do what the documentation says it must, and no more.
const ACCOUNT: &str = "etl";
const PASSWORD: &str = "hunter2 @:/%";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Engine {
    Sqlite,
    Postgres,
    MariaDb,
}

/// A fresh database that is gone when this, and what came from it, is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) engine: Engine,
    config: StoreConfig,
    home: Home,
}

#[derive(Debug, Clone)]
enum Home {
    Folder(Arc<TempDir>),
    Server(Arc<Mutex<Server>>),
}

/// Makes a place for SQLite.
pub(crate) fn sqlite() -> Option<Place> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut config = StoreConfig::sqlite(&folder.path().join("data/state.db"));
    // Most cases have two stores on one database, as two masters have.
    config.is_unlocked = true;
    Some(Place { engine: Engine::Sqlite, config, home: Home::Folder(Arc::new(folder)) })
}

/// Makes a place on a PostgreSQL server of its own.
pub(crate) fn postgres() -> Option<Place> {
    on_server(Engine::Postgres, &[])
}

/// Makes a place on a MariaDB server of its own.
pub(crate) fn mariadb() -> Option<Place> {
    on_server(Engine::MariaDb, &[])
}

/// Makes a place on a server of its own with these settings; none where it cannot be started here.
pub(crate) fn on_server(engine: Engine, settings: &[&str]) -> Option<Place> {
    if let Some(reason) = missing(engine) {
        millrace_servers::skipped(&reason);
        return None;
    }
    let server = Server::start(engine, settings);
    let place = Place {
        engine,
        config: config(engine, &server, "millrace"),
        home: Home::Server(Arc::new(Mutex::new(server))),
    };
    place.wait();
    place.create();
    Some(place)
}

fn config(engine: Engine, server: &Server, database: &str) -> StoreConfig {
    let socket = match engine {
        Engine::MariaDb => server.folder().join("socket"),
        Engine::Sqlite | Engine::Postgres => server.folder().to_owned(),
    };
    let server = ServerConfig {
        host: "localhost".to_owned(),
        port: PORT,
        socket: Some(socket),
        database: database.to_owned(),
        user: ACCOUNT.to_owned(),
        password: Secret::new(PASSWORD.to_owned()),
        tls: Tls::Off,
    };
    let config = match engine {
        Engine::MariaDb => StoreConfig::mysql(server),
        Engine::Sqlite | Engine::Postgres => StoreConfig::postgres(server),
    };
    config.with_short_limits()
}

/// Runs a future on a thread of its own, for whoever is in a runtime already.
pub(crate) fn apart<T, F>(make: impl FnOnce() -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T>,
{
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(make())
    };
    thread::spawn(run).join().expect("it runs to its end")
}

impl Place {
    pub(crate) const fn config(&self) -> &StoreConfig {
        &self.config
    }

    pub(crate) async fn open(&self) -> Store {
        Store::open(&self.config).await.expect("the store opens")
    }

    /// Returns the way to the server through `port` of this machine.
    pub(crate) fn through(&self, port: u16) -> StoreConfig {
        let mut config = self.config.clone();
        let (Address::Postgres(server) | Address::MySql(server)) = &mut config.address else {
            panic!("a file has no port")
        };
        (server.socket, server.host, server.port) = (None, "127.0.0.1".to_owned(), port);
        config
    }

    /// The socket that the server itself listens on.
    pub(crate) fn socket(&self) -> PathBuf {
        let folder = self.server().folder().to_owned();
        match self.engine {
            Engine::MariaDb => folder.join("socket"),
            Engine::Sqlite | Engine::Postgres => folder.join(format!(".s.PGSQL.{PORT}")),
        }
    }

    /// Returns another fresh database, on the same server where there is one.
    pub(crate) fn fresh(&self, number: usize) -> Self {
        let Home::Server(server) = &self.home else { return sqlite().expect("a file is always possible") };
        let config = config(self.engine, &self.server(), &format!("millrace_{number}"));
        let fresh = Self { engine: self.engine, config, home: Home::Server(Arc::clone(server)) };
        fresh.create();
        fresh
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        match &self.home {
            Home::Folder(_) => panic!("a file has no server"),
            Home::Server(server) => server.lock().expect("a server"),
        }
    }

    fn database(&self) -> &str {
        match &self.config.address {
            Address::Sqlite(_) => "",
            Address::Postgres(server) | Address::MySql(server) => &server.database,
        }
    }

    fn wait(&self) {
        let admin = self.admin("");
        self.server().wait(|| {
            let admin = admin.clone();
            apart(move || async move { admin.run("SELECT 1").await.is_ok() })
        });
    }

    /// Makes the database and, where it is missing, the account.
    fn create(&self) {
        let (admin, database) = (self.admin(""), self.database().to_owned());
        let statements = match self.engine {
            Engine::Sqlite => vec![],
            Engine::Postgres => vec![
                format!("DO $$BEGIN CREATE ROLE {ACCOUNT} LOGIN; EXCEPTION WHEN duplicate_object THEN END$$"),
                format!("CREATE DATABASE {database} OWNER {ACCOUNT}"),
            ],
            Engine::MariaDb => vec![
                format!("CREATE USER IF NOT EXISTS {ACCOUNT}@localhost IDENTIFIED BY '{PASSWORD}'"),
                format!("CREATE DATABASE {database}"),
                format!("GRANT ALL ON {database}.* TO {ACCOUNT}@localhost"),
            ],
        };
        apart(move || async move {
            for statement in statements {
                admin.run(&statement).await.expect("the statement runs");
            }
        });
    }

    /// Returns what makes the database unreachable.
    pub(crate) fn vanish(&self) -> impl FnOnce() + Send + Sync + 'static {
        let home = self.home.clone();
        move || match home {
            Home::Folder(folder) => {
                std::fs::rename(folder.path().join("data"), folder.path().join("gone"))
                    .expect("the folder moves");
            }
            Home::Server(server) => server.lock().expect("a server").kill(),
        }
    }

    /// Makes it reachable again, and waits until it is.
    pub(crate) fn reappear(&self) {
        match &self.home {
            Home::Folder(folder) => {
                std::fs::rename(folder.path().join("gone"), folder.path().join("data"))
                    .expect("the folder moves");
            }
            Home::Server(server) => {
                server.lock().expect("a server").resume();
                self.wait();
            }
        }
    }

    /// Puts another system with the same data in the place of the server.
    pub(crate) fn replace(&self) {
        match self.engine {
            Engine::Sqlite => panic!("a file has no server"),
            Engine::MariaDb => {
                self.server().move_data();
                self.reappear();
            }
            // What follows another server gets a timeline of its own when it is told to lead.
            Engine::Postgres => {
                self.server().kill();
                std::fs::write(self.server().folder().join("data/standby.signal"), "").expect("a file");
                self.reappear();
                let admin = self.admin("");
                apart(move || async move { admin.run("SELECT pg_promote()").await.expect("it leads") });
            }
        }
    }

    /// Changes the database behind the store's back.
    pub(crate) async fn tamper(&self, sql: String) {
        self.admin(self.database()).run(&sql).await.expect("the statement runs");
    }

    /// Reads a number from the database.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        self.admin(self.database()).run(sql).await.expect("the statement runs").expect("a row")
    }

    /// Writes bytes, given in hexadecimal digits, as a literal.
    pub(crate) fn bytes(&self, digits: &str) -> String {
        match self.engine {
            Engine::Postgres => format!("'\\x{digits}'"),
            Engine::Sqlite | Engine::MariaDb => format!("X'{digits}'"),
        }
    }

    /// Returns how whoever may do everything connects to a database.
    pub(crate) fn admin(&self, database: &str) -> Admin {
        match &self.config.address {
            Address::Sqlite(file) => Admin::Sqlite(SqliteConnectOptions::new().filename(file)),
            Address::Postgres(server) => {
                let database = if database.is_empty() { "postgres" } else { database };
                let options = PgConnectOptions::new_without_pgpass().username("admin").database(database);
                Admin::Postgres(options.port(PORT).socket(server.socket.as_ref().expect("a socket")))
            }
            Address::MySql(server) => {
                let options = MySqlConnectOptions::new().username("root").ssl_mode(MySqlSslMode::Disabled);
                let options = options.socket(server.socket.as_ref().expect("a socket"));
                Admin::MySql(if database.is_empty() { options } else { options.database(database) })
            }
        }
    }

    pub(crate) fn admin_here(&self) -> Admin {
        self.admin(self.database())
    }
}

/// Whoever may do everything, beside the store.
#[derive(Debug, Clone)]
pub(crate) enum Admin {
    Sqlite(SqliteConnectOptions),
    Postgres(PgConnectOptions),
    MySql(MySqlConnectOptions),
}

impl Admin {
    pub(crate) async fn connect(&self) -> Result<Session, sqlx::Error> {
        Ok(match self {
            Self::Sqlite(options) => Session::Sqlite(options.connect().await?),
            Self::Postgres(options) => Session::Postgres(options.connect().await?),
            Self::MySql(options) => Session::MySql(options.connect().await?),
        })
    }

    /// Runs a statement on a connection of its own.
    pub(crate) async fn run(&self, sql: &str) -> Result<Option<i64>, sqlx::Error> {
        let mut session = self.connect().await?;
        let result = session.run(sql).await?;
        session.close().await?;
        Ok(result)
    }
}

/// A connection of theirs.
pub(crate) enum Session {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
    MySql(MySqlConnection),
}

impl Session {
    /// Runs a statement, and returns the number in its last row.
    pub(crate) async fn run(&mut self, sql: &str) -> Result<Option<i64>, sqlx::Error> {
        let sql = || sqlx::raw_sql(AssertSqlSafe(sql));
        // Not every statement has a number to show.
        Ok(match self {
            Self::Sqlite(session) => {
                sql().fetch_all(session).await?.last().and_then(|row| row.try_get_unchecked(0).ok())
            }
            Self::Postgres(session) => {
                sql().fetch_all(session).await?.last().and_then(|row| row.try_get_unchecked(0).ok())
            }
            Self::MySql(session) => {
                sql().fetch_all(session).await?.last().and_then(|row| row.try_get_unchecked(0).ok())
            }
        })
    }

    pub(crate) async fn close(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(session) => session.close().await,
            Self::Postgres(session) => session.close().await,
            Self::MySql(session) => session.close().await,
        }
    }
}

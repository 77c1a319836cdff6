//! Copies of SQLite files: `VACUUM INTO` takes one consistent state while others write, and the copy is checked before it
//! is compressed.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use chrono::{DateTime, Utc};
use millrace_common::kind::backup::BackupTool;
use sqlx::{
    AssertSqlSafe, Connection as _, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteError},
};

use super::{
    BackupError, Saved,
    archive::{Archive, CHUNK_BYTES, Sealed, Unfinished},
    folder::Folder,
    manifest::{Facts, Table},
    name::Database,
    now,
    plan::{Plan, Selection},
    space,
};
use crate::run::{Context, ResolvedConnection};

/// How long to wait for a writer that holds the whole file.
const BUSY_TIMEOUT: Duration = Duration::from_secs(60);

/// Code of SQLite for a disk that is full.
const SQLITE_FULL: &str = "13";

/// Makes a backup of the file of a connection.
pub(super) async fn back_up(
    plan: &Plan,
    ctx: &Context,
    connection: &ResolvedConnection,
    target: &Path,
) -> Result<Saved, BackupError> {
    let source = source(plan, connection)?;
    let failed = |error| BackupError::Sqlite { file: source.clone(), source: Box::new(error) };
    let database = database(&source)?;
    let folder = Folder::open(target, &database, ctx)?;
    let mut opened = open(&source).await.map_err(failed)?;
    let version: String =
        sqlx::query_scalar("SELECT sqlite_version()").fetch_one(&mut opened).await.map_err(failed)?;
    ctx.log(format_args!("copying {} with SQLite {version}", source.display()));
    // The copy stands beside the compressed file for a while.
    folder.ensure_space(plan.min_free, bytes(&mut opened).await.map_err(failed)?)?;
    let started = now();
    let copy = folder.stage("sqlite", started)?;
    vacuum_into(&mut opened, &source, copy.path()).await?;
    opened.close().await.map_err(failed)?;
    let tables = check(&source, copy.path()).await?;
    let sealed = pack(&folder, plan, copy, started).await?;
    folder.keep(
        sealed,
        started,
        Facts::new(BackupTool::Sqlite, format!("SQLite {version}"), tables),
        plan,
        ctx,
    )
}

fn source(plan: &Plan, connection: &ResolvedConnection) -> Result<PathBuf, BackupError> {
    if !matches!(plan.selection, Selection::OfConnection) {
        let problem = "a SQLite file is one database; leave it out".into();
        return Err(BackupError::With { path: "databases", problem });
    }
    connection.path.clone().ok_or_else(|| BackupError::With {
        path: "connection",
        problem: format!("connection {:?} has no `path` of a SQLite file", plan.connection),
    })
}

fn database(source: &Path) -> Result<Database, BackupError> {
    let stem = source.file_stem().unwrap_or_default().to_string_lossy();
    Database::parse(&stem).map_err(|problem| BackupError::With { path: "connection", problem })
}

async fn open(file: &Path) -> Result<SqliteConnection, sqlx::Error> {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .read_only(true)
        .create_if_missing(false)
        .busy_timeout(BUSY_TIMEOUT);
    SqliteConnection::connect_with(&options).await
}

/// Returns the size of a database with what its write-ahead log adds.
async fn bytes(opened: &mut SqliteConnection) -> Result<u64, sqlx::Error> {
    let pages: i64 = sqlx::query_scalar("PRAGMA page_count").fetch_one(&mut *opened).await?;
    let page_bytes: i64 = sqlx::query_scalar("PRAGMA page_size").fetch_one(opened).await?;
    Ok(u64::try_from(pages.saturating_mul(page_bytes)).unwrap_or(0))
}

async fn vacuum_into(opened: &mut SqliteConnection, source: &Path, copy: &Path) -> Result<(), BackupError> {
    let failed = |error| BackupError::Sqlite { file: source.to_owned(), source: Box::new(error) };
    let text = copy.to_str().ok_or_else(|| BackupError::With {
        path: "target",
        problem: format!("{} is not UTF-8", copy.display()),
    })?;
    // The file that is there is empty and its owner's alone; SQLite fills it as it is.
    match sqlx::query("VACUUM INTO ?").bind(text).execute(opened).await {
        Ok(_) => Ok(()),
        Err(error) if is_full(&error) => {
            let written = copy.metadata().map_or(0, |found| found.len());
            Err(space::full(copy, written))
        }
        Err(error) => Err(failed(error)),
    }
}

fn is_full(error: &sqlx::Error) -> bool {
    let error = error.as_database_error().and_then(|error| error.try_downcast_ref::<SqliteError>());
    error.is_some_and(|error| sqlx::error::DatabaseError::code(error).is_some_and(|code| code == SQLITE_FULL))
}

/// Checks a copy from within and counts its rows.
async fn check(source: &Path, copy: &Path) -> Result<Vec<Table>, BackupError> {
    let failed = |error| BackupError::Sqlite { file: copy.to_owned(), source: Box::new(error) };
    let mut opened = open(copy).await.map_err(failed)?;
    let verdict: String =
        sqlx::query_scalar("PRAGMA integrity_check(1)").fetch_one(&mut opened).await.map_err(failed)?;
    if verdict != "ok" {
        return Err(BackupError::Damaged { file: source.to_owned(), problem: verdict });
    }
    let names = "SELECT name FROM sqlite_schema WHERE type = 'table' AND rootpage > 0 AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY 1";
    let names: Vec<String> = sqlx::query_scalar(names).fetch_all(&mut opened).await.map_err(failed)?;
    let mut tables = Vec::new();
    for name in names {
        // A table's name cannot be a bound parameter; quoted like this it cannot be anything but a name.
        let count = format!("SELECT count(*) FROM \"{}\"", name.replace('"', "\"\""));
        let rows = sqlx::query_scalar(AssertSqlSafe(count)).fetch_one(&mut opened).await.map_err(failed)?;
        tables.push(Table { name, engine: String::new(), rows });
    }
    opened.close().await.map_err(failed)?;
    Ok(tables)
}

async fn pack(
    folder: &Folder<'_>,
    plan: &Plan,
    copy: Unfinished,
    started: DateTime<Utc>,
) -> Result<Sealed, BackupError> {
    let mut archive: Archive = folder.start(plan.codec, "sqlite", started)?;
    let mut file = File::open(copy.path()).map_err(BackupError::Read)?;
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let length = file.read(&mut chunk).map_err(BackupError::Read)?;
        let Some(bytes) = chunk.get(..length).filter(|bytes| !bytes.is_empty()) else {
            break;
        };
        archive.write(bytes)?;
        // A signal to end is seen between two chunks.
        tokio::task::yield_now().await;
    }
    archive.seal().await
}

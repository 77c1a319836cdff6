//! Logical dumps: runs the dump program for each database and streams what it writes into an archive.
//!
//! A dump counts as complete when the program succeeded *and* its last line is there *and* the file reads back as it was
//! written. One alone is not enough: a program killed by its own pipe can look successful, and a full disk can drop a line.
//!
//! The file keeps what the program wrote. Newer programs of MariaDB begin with a line that switches their client into its
//! sandbox, `/*M!999999\- enable the sandbox mode */`; who restores with a client of MySQL or an old one leaves it out.
//!
//! There is no deadline here: how long a dump may take is the task's own timeout.

mod complaints;

use std::{path::Path, pin::pin, time::Duration};

use chrono::{DateTime, Utc};
use millrace_common::kind::backup::{BackupTool, Consistency};
use tokio::{
    io::AsyncReadExt as _,
    process::{Child, ChildStdout},
};

use super::{
    BackupError, Failures, Saved, Settings,
    archive::{Archive, CHUNK_BYTES, Sealed},
    client::{Client, Credentials},
    folder::Folder,
    manifest::{BinlogPosition, Facts, Table},
    name::Database,
    now,
    plan::Plan,
    server::{self, Catalog},
};
use crate::run::{Context, ResolvedConnection};
use complaints::Complaints;

/// What a complete dump ends with.
pub(super) const LAST_LINE: &str = "-- Dump completed on";

/// How often a dump is tried while tables are changed under it.
const DUMP_TRIES_MAX: u32 = 3;

/// How long to wait before another try; a change of a table takes about as long.
const DUMP_RETRY_DELAY: Duration = Duration::from_secs(1);

/// How long complaints are waited for once the program has ended; something else may hold the other end of the pipe.
const COMPLAINTS_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes at the start of a dump that are looked at for the position in the binary log.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Bytes at the end of a dump that are looked at for its last line.
const TAIL_BYTES_MAX: usize = 512;

/// Tables that a warning names.
const TABLES_SHOWN_MAX: usize = 5;

/// What to dump, and where to.
#[derive(Debug)]
pub(super) struct Order<'a> {
    pub(super) plan: &'a Plan,
    pub(super) ctx: &'a Context,
    pub(super) connection: &'a ResolvedConnection,
    pub(super) target: &'a Path,
}

/// Dumps the databases of a plan, each on its own: one that fails does not keep the others from their backups.
pub(super) async fn back_up(order: &Order<'_>, settings: &Settings) -> Result<Vec<Saved>, BackupError> {
    let catalog = Catalog::load(order.plan, order.connection).await?;
    let client = Client::find(settings.client.as_deref(), catalog.is_mariadb()).await?;
    let address = server::address(order.connection);
    order.ctx.log(format_args!("{address} is {}; dumps are made by {}", catalog.version, client.title()));
    let dump = Dump { order, client: &client, server: &catalog.version };
    let of = catalog.databases.len();
    let (mut saved, mut failures) = (Vec::new(), Vec::new());
    for (database, tables) in catalog.databases {
        match dump.save(&database, tables).await {
            Ok(one) => saved.push(one),
            Err(error) if of == 1 => return Err(error),
            Err(error) => {
                order.ctx.log(format_args!("{database}: failed: {error}"));
                failures.push((database.to_string(), error));
            }
        }
    }
    if failures.is_empty() {
        Ok(saved)
    } else {
        Err(BackupError::Several { failures: Failures(failures), of })
    }
}

struct Dump<'a> {
    order: &'a Order<'a>,
    client: &'a Client,
    server: &'a str,
}

/// A dump that was taken.
struct Taken {
    started: DateTime<Utc>,
    sealed: Sealed,
    binlog: Option<BinlogPosition>,
}

impl Dump<'_> {
    async fn save(&self, database: &Database, tables: Vec<Table>) -> Result<Saved, BackupError> {
        let Order { plan, ctx, target, .. } = *self.order;
        let folder = Folder::open(target, database, ctx)?;
        folder.ensure_space(plan.min_free, 0)?;
        let warnings = warnings(database, &tables, plan.content.consistency);
        warnings.iter().for_each(|warning| ctx.log(format_args!("warning: {warning}")));
        let taken = self.take(database, &folder).await?;
        let facts = Facts {
            client: self.client.title(),
            flags: self.client.flags(plan.content).into_iter().map(str::to_owned).collect(),
            binlog: taken.binlog,
            warnings,
            ..Facts::new(BackupTool::Mysqldump, self.server.to_owned(), tables)
        };
        folder.keep(taken.sealed, taken.started, facts, plan, ctx)
    }

    /// Takes a dump, again where a table was changed under it.
    async fn take(&self, database: &Database, folder: &Folder<'_>) -> Result<Taken, BackupError> {
        for _ in 1..DUMP_TRIES_MAX {
            match self.take_once(database, folder).await {
                Err(error) if error.is_table_changed() => {
                    self.order.ctx.log(format_args!(
                        "{database}: a table was changed during the dump, which starts again"
                    ));
                    tokio::time::sleep(DUMP_RETRY_DELAY).await;
                }
                outcome => return outcome,
            }
        }
        self.take_once(database, folder).await
    }

    async fn take_once(&self, database: &Database, folder: &Folder<'_>) -> Result<Taken, BackupError> {
        let Order { plan, ctx, connection, .. } = *self.order;
        let started = now();
        let archive = folder.start(plan.codec, "sql", started)?;
        let credentials = Credentials::write(&ctx.work_dir, connection)?;
        let flags = self.client.flags(plan.content);
        let mut command = self.client.command(&credentials, &flags, database, &ctx.work_dir);
        let child = command
            .spawn()
            .map_err(|source| BackupError::Run { program: self.client.program().to_owned(), source })?;
        let complaints = Complaints::new(ctx, &connection.password);
        let (archive, glimpse) = self.watch(child, archive, credentials, &complaints, database).await?;
        if !glimpse.last_line().starts_with(LAST_LINE) {
            return Err(BackupError::CutOff { database: database.to_string(), last: glimpse.last_line() });
        }
        Ok(Taken { started, binlog: glimpse.binlog(), sealed: archive.seal().await? })
    }

    /// Takes over what the program writes until it ends. No child is left, whatever happens.
    async fn watch(
        &self,
        mut child: Child,
        archive: Archive,
        credentials: Credentials,
        complaints: &Complaints<'_>,
        database: &Database,
    ) -> Result<(Archive, Glimpse), BackupError> {
        let (output, errors) = (child.stdout.take(), child.stderr.take());
        let mut hearing = pin!(complaints.hear(errors));
        let work = pin!(async {
            let copied = copy(output, archive, credentials).await;
            if copied.is_err() {
                // It may have ended by itself; what counts is that it has when it was waited for.
                let _ = child.start_kill();
            }
            (copied, child.wait().await)
        });
        // Both go on at once: a program that cannot complain stops writing. The order does not matter.
        let mut work = work;
        let (copied, ended) = tokio::select! {
            ended = &mut work => {
                let _ = tokio::time::timeout(COMPLAINTS_TIMEOUT, hearing).await;
                ended
            }
            () = &mut hearing => work.await,
        };
        let copied = copied?;
        let status =
            ended.map_err(|source| BackupError::Run { program: self.client.program().to_owned(), source })?;
        if status.success() {
            return Ok(copied);
        }
        Err(BackupError::Client {
            database: database.to_string(),
            client: self.client.title(),
            status,
            complaint: complaints.last(),
            is_table_changed: complaints.is_table_changed(),
        })
    }
}

/// Copies the dump into the archive. The credentials go when the first bytes come: the program has connected.
async fn copy(
    output: Option<ChildStdout>,
    mut archive: Archive,
    credentials: Credentials,
) -> Result<(Archive, Glimpse), BackupError> {
    let mut glimpse = Glimpse::default();
    let mut credentials = Some(credentials);
    let Some(mut output) = output else { return Ok((archive, glimpse)) };
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let length = output.read(&mut chunk).await.map_err(BackupError::Read)?;
        let Some(bytes) = chunk.get(..length).filter(|bytes| !bytes.is_empty()) else {
            return Ok((archive, glimpse));
        };
        drop(credentials.take());
        glimpse.add(bytes);
        archive.write(bytes)?;
    }
}

/// The start and the end of a dump.
#[derive(Debug, Default)]
struct Glimpse {
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Glimpse {
    fn add(&mut self, chunk: &[u8]) {
        let room = HEAD_BYTES_MAX.saturating_sub(self.head.len());
        self.head.extend(chunk.iter().take(room));
        let skipped = chunk.len().saturating_sub(TAIL_BYTES_MAX);
        self.tail.extend(chunk.iter().skip(skipped));
        let surplus = self.tail.len().saturating_sub(TAIL_BYTES_MAX);
        self.tail.drain(..surplus);
    }

    fn last_line(&self) -> String {
        let text = String::from_utf8_lossy(&self.tail);
        text.trim_end().rsplit('\n').next().unwrap_or_default().to_owned()
    }

    /// Reads the comment that gives the position in the binary log, where there is one.
    fn binlog(&self) -> Option<BinlogPosition> {
        let (head, tail) = (String::from_utf8_lossy(&self.head), String::from_utf8_lossy(&self.tail));
        let line =
            head.lines().find(|line| line.starts_with("-- CHANGE ") && line.contains("_LOG_FILE='"))?;
        let digits = after(line, "_LOG_POS=")?;
        let digits = digits.split(|c: char| !c.is_ascii_digit()).next()?;
        let gtid = [&head, &tail].into_iter().find_map(|text| between(text, "gtid_slave_pos='"));
        Some(BinlogPosition {
            file: between(line, "_LOG_FILE='")?.to_owned(),
            position: digits.parse().ok()?,
            gtid: gtid.unwrap_or_default().to_owned(),
        })
    }
}

fn after<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    text.split_once(mark).map(|(_, rest)| rest)
}

fn between<'a>(text: &'a str, mark: &str) -> Option<&'a str> {
    after(text, mark)?.split('\'').next()
}

/// Says which tables of a database a dump in one transaction does not freeze.
fn warnings(database: &Database, tables: &[Table], consistency: Consistency) -> Vec<String> {
    let unfrozen: Vec<String> = tables
        .iter()
        .filter(|table| !table.engine.eq_ignore_ascii_case("InnoDB"))
        .map(|table| {
            format!("{} ({})", table.name, if table.engine.is_empty() { "?" } else { &table.engine })
        })
        .collect();
    if unfrozen.is_empty() || consistency == Consistency::Lock {
        return Vec::new();
    }
    let more = if unfrozen.len() > TABLES_SHOWN_MAX { ", ..." } else { "" };
    let shown = unfrozen.iter().take(TABLES_SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
    vec![format!(
        "{} of {} tables of {database} are not InnoDB and may change during the dump: {shown}{more}; \
         `consistency: lock` freezes them and holds up writers",
        unfrozen.len(),
        tables.len(),
    )]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn glimpse(chunks: &[&str]) -> Glimpse {
        let mut glimpse = Glimpse::default();
        chunks.iter().for_each(|chunk| glimpse.add(chunk.as_bytes()));
        glimpse
    }

    #[test]
    fn the_last_line_is_found_however_the_dump_is_cut_into_chunks() {
        let end = "\n-- Dump completed on 2026-05-01  2:30:07\n";
        for chunks in
            [vec!["INSERT", end], vec!["x", "\n-- Dump com", "pleted on 2026", "-05-01\n\n"], vec![end]]
        {
            assert!(glimpse(&chunks).last_line().starts_with(LAST_LINE), "{chunks:?}");
        }
        let long = "x".repeat(3 * TAIL_BYTES_MAX);
        assert!(glimpse(&[&long, end]).last_line().starts_with(LAST_LINE));
        for cut in ["", "\n", "-- Dump completed\n", "-- Dump completed on 2026\nINSERT", &long] {
            assert!(!glimpse(&[cut]).last_line().starts_with(LAST_LINE), "{cut}");
        }
    }

    #[test]
    fn the_position_in_the_binary_log_is_read_from_each_form() {
        let mariadb = glimpse(&[
            "-- MariaDB dump\n-- CHANGE MASTER TO MASTER_USE_GTID=slave_pos;\n",
            "-- CHANGE MASTER TO MASTER_LOG_FILE='mb.000001', MASTER_LOG_POS=851;\n-- SET GLOBAL gtid_slave_pos='0-7-3';\n",
        ]);
        let expected = BinlogPosition { file: "mb.000001".into(), position: 851, gtid: "0-7-3".into() };
        assert_eq!(mariadb.binlog(), Some(expected));
        let mysql = "-- CHANGE REPLICATION SOURCE TO SOURCE_LOG_FILE='binlog.000002', SOURCE_LOG_POS=157;\n";
        let expected = BinlogPosition { file: "binlog.000002".into(), position: 157, gtid: String::new() };
        assert_eq!(glimpse(&[mysql]).binlog(), Some(expected));
        assert_eq!(glimpse(&["-- MariaDB dump\nINSERT INTO `a` VALUES ('_LOG_FILE=');"]).binlog(), None);
    }

    #[test]
    fn tables_that_a_snapshot_does_not_freeze_are_named() {
        let table = |name: &str, engine: &str| Table { name: name.into(), engine: engine.into(), rows: 0 };
        let tables = [table("a", "InnoDB"), table("b", "MyISAM"), table("c", "Aria")];
        let database = Database::parse("mes").expect("a name");
        let found = warnings(&database, &tables, Consistency::Snapshot);
        assert!(
            found.len() == 1 && found[0].starts_with("2 of 3") && found[0].contains("b (MyISAM), c (Aria);"),
            "{found:?}"
        );
        assert!(warnings(&database, &tables[..1], Consistency::Snapshot).is_empty());
        assert!(warnings(&database, &tables, Consistency::Lock).is_empty());
    }
}

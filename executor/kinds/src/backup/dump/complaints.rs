//! What a dump program says on its standard error: into the attempt's log, masked, and the last of it into the error.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use millrace_common::secret::Secret;
use tokio::{io::AsyncReadExt as _, process::ChildStderr};

use crate::{backup::client::escaped, run::Context};

/// Lines that an error quotes.
const LINES_KEPT_MAX: usize = 4;

/// Bytes of a line; a longer one is broken.
const LINE_BYTES_MAX: usize = 2 << 10;

/// What stands in the place of a password.
const MASK: &str = "***";

/// Codes of the server: a table's definition has changed, a table does not exist.
const TABLE_CHANGED: [&str; 2] = ["1412", "1146"];

/// Listens to a program.
pub(super) struct Complaints<'a> {
    ctx: &'a Context,
    /// The password in the forms that it has: in the option file and as it is.
    masked: [Secret; 2],
    heard: Mutex<Heard>,
}

#[derive(Debug, Default)]
struct Heard {
    last: VecDeque<String>,
    is_table_changed: bool,
}

impl fmt::Debug for Complaints<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Complaints").field("heard", &self.heard).finish_non_exhaustive()
    }
}

impl<'a> Complaints<'a> {
    pub(super) fn new(ctx: &'a Context, password: &Secret) -> Self {
        let masked = [Secret::new(escaped(password.expose())), password.clone()];
        Self { ctx, masked, heard: Mutex::default() }
    }

    /// Takes lines until the program closes its end. What cannot be read is not worth a failure of the dump.
    pub(super) async fn hear(&self, errors: Option<ChildStderr>) {
        let Some(mut errors) = errors else { return };
        let (mut line, mut chunk) = (Vec::new(), [0; 512]);
        while let Ok(length @ 1..) = errors.read(&mut chunk).await {
            for byte in chunk.iter().take(length) {
                if *byte != b'\n' {
                    line.push(*byte);
                }
                if *byte == b'\n' || line.len() >= LINE_BYTES_MAX {
                    self.take(&line);
                    line.clear();
                }
            }
        }
        self.take(&line);
    }

    fn take(&self, line: &[u8]) {
        let line = self.masked(String::from_utf8_lossy(line).trim());
        if line.is_empty() {
            return;
        }
        self.ctx.log(&line);
        let mut heard = self.heard();
        heard.is_table_changed |= TABLE_CHANGED.iter().any(|code| has_code(&line, code));
        if heard.last.len() == LINES_KEPT_MAX {
            heard.last.pop_front();
        }
        heard.last.push_back(line);
    }

    fn masked(&self, text: &str) -> String {
        self.masked
            .iter()
            .map(Secret::expose)
            .filter(|password| !password.is_empty())
            .fold(text.to_owned(), |text, password| text.replace(password, MASK))
    }

    /// Returns what was said last.
    pub(super) fn last(&self) -> String {
        let heard = self.heard();
        if heard.last.is_empty() {
            return "it gives no reason".into();
        }
        heard.last.iter().map(String::as_str).collect::<Vec<_>>().join("; ")
    }

    /// Says whether the program complained of a table that was changed or dropped under it.
    pub(super) fn is_table_changed(&self) -> bool {
        self.heard().is_table_changed
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        // Lines are whole or absent, also after a panic elsewhere.
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says whether a line names an error of the server: `Error 1412: ...`, `error: 1146: ...`, `... (1146)`.
fn has_code(line: &str, code: &str) -> bool {
    [format!("rror {code}:"), format!("rror: {code}:"), format!("({code})")]
        .iter()
        .any(|form| line.contains(form))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn context() -> Context {
        let (work_dir, state_dir) = ("/nowhere".into(), "/nowhere".into());
        Context { connections: BTreeMap::new(), work_dir, state_dir, settings: serde_json::Value::Null }
    }

    #[test]
    fn the_last_lines_are_quoted_without_the_password() {
        let (ctx, password) = (context(), Secret::new("s3\"cret".into()));
        let complaints = Complaints::new(&ctx, &password);
        assert_eq!(complaints.last(), "it gives no reason");
        for number in 0..9 {
            complaints.take(format!("line {number} s3\"cret s3\\\"cret\r\n").as_bytes());
        }
        complaints.take(b"  ");
        assert_eq!(complaints.last(), "line 5 *** ***; line 6 *** ***; line 7 *** ***; line 8 *** ***");
        assert!(!format!("{complaints:?}").contains("cret"));
    }

    #[test]
    fn a_changed_table_is_told_from_other_errors() {
        for (line, expected) in [
            (
                "mysqldump: Error 1412: Table definition has changed, please retry transaction when dumping table `t` at row: 0",
                true,
            ),
            ("mysqldump: Couldn't execute 'show create table `t`': Table 'd.t' doesn't exist (1146)", true),
            ("mariadb-dump: Got error: 1146: \"Table 'd.t' doesn't exist\" when using LOCK TABLES", true),
            ("mysqldump: Got error: 1045: \"Access denied for user\" when trying to connect", false),
            (
                "mysqldump: Error 2013: Lost connection to server during query when dumping table `t1146` at row: 1412",
                false,
            ),
        ] {
            let (ctx, password) = (context(), Secret::default());
            let complaints = Complaints::new(&ctx, &password);
            complaints.take(line.as_bytes());
            assert_eq!(complaints.is_table_changed(), expected, "{line}");
        }
    }
}

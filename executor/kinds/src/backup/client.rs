//! The dump program: which one, what it understands, and how it gets the credentials.
//!
//! MariaDB and MySQL have drifted apart: each refuses options of the other. The password goes through a file that only its
//! owner reads, in the attempt's private folder, and that is gone as soon as the program has connected.

use std::{
    env,
    ffi::{OsStr, OsString},
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use millrace_common::kind::backup::Consistency;
use nix::unistd::{AccessFlags, access};
use tokio::process::Command;

use super::{BackupError, archive::Unfinished, name::Database, plan::Content, server};
use crate::run::ResolvedConnection;

/// How long a program may take to say its version.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Where programs are looked for when the environment does not say.
const PATH_DEFAULT: &str = "/usr/local/bin:/usr/bin:/bin";

/// Characters of an unexpected answer that an error shows.
const ANSWER_CHARS_MAX: usize = 200;

/// Bytes of a value in an option file; the programs read lines of at most 4 KiB and an escape doubles a byte.
const OPTION_BYTES_MAX: usize = 1_500;

/// Who makes a dump program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    Mariadb,
    Mysql,
}

/// A dump program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Client {
    program: PathBuf,
    family: Family,
    version: (u32, u32, u32),
}

impl Client {
    /// Takes the program that is set, or finds the one that suits a server.
    pub(super) async fn find(set: Option<&Path>, is_mariadb: bool) -> Result<Self, BackupError> {
        let program = match set {
            Some(program) => program.to_owned(),
            None => search(if is_mariadb {
                ["mariadb-dump", "mysqldump"]
            } else {
                ["mysqldump", "mariadb-dump"]
            })?,
        };
        let answer = version_answer(&program).await?;
        Self::recognise(program, &answer)
    }

    fn recognise(program: PathBuf, answer: &str) -> Result<Self, BackupError> {
        let family = if answer.contains("MariaDB") { Family::Mariadb } else { Family::Mysql };
        match version(answer) {
            Some(version) => Ok(Self { program, family, version }),
            None => {
                let answer = answer.trim().chars().take(ANSWER_CHARS_MAX).collect();
                Err(BackupError::NotAClient { program, answer })
            }
        }
    }

    /// Returns the path of the program.
    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// Returns name and version for people.
    pub(super) fn title(&self) -> String {
        let name = self.program.file_name().unwrap_or(self.program.as_os_str()).to_string_lossy();
        let family = match self.family {
            Family::Mariadb => "MariaDB",
            Family::Mysql => "MySQL",
        };
        let (major, minor, patch) = self.version;
        format!("{name} {major}.{minor}.{patch} ({family})")
    }

    /// Returns the options that say what a dump contains; nothing in them is secret.
    pub(super) fn flags(&self, content: Content) -> Vec<&'static str> {
        let mut flags = vec![match content.consistency {
            Consistency::Snapshot => "--single-transaction",
            Consistency::Lock => "--lock-all-tables",
        }];
        // The comments carry the last line, which proves that a dump is complete.
        flags.extend(["--quick", "--hex-blob", "--comments", "--dump-date"]);
        flags.extend(["--default-character-set=utf8mb4", "--max-allowed-packet=1G"]);
        flags.push(if content.routines { "--routines" } else { "--skip-routines" });
        flags.push(if content.events { "--events" } else { "--skip-events" });
        flags.push(if content.triggers { "--triggers" } else { "--skip-triggers" });
        if self.family == Family::Mysql {
            // Without them the account needs PROCESS, a dump sets the identity of the server it is restored into, and
            // servers of other versions or of MariaDB are asked for a table that they do not have.
            flags.extend(["--no-tablespaces", "--set-gtid-purged=OFF"]);
            if self.version.0 >= 8 {
                flags.push("--column-statistics=0");
            }
        }
        if content.binlog_position {
            flags.extend(self.binlog_flags());
        }
        flags
    }

    fn binlog_flags(&self) -> &'static [&'static str] {
        match self.family {
            Family::Mariadb => &["--master-data=2", "--gtid"],
            Family::Mysql if self.version >= (8, 0, 26) => &["--source-data=2"],
            Family::Mysql => &["--master-data=2"],
        }
    }

    /// Returns the command that dumps a database. The option file must come first.
    pub(super) fn command(
        &self,
        credentials: &Credentials,
        flags: &[&'static str],
        database: &Database,
        home: &Path,
    ) -> Command {
        let mut command = clean_command(&self.program);
        let mut option = OsString::from("--defaults-extra-file=");
        option.push(credentials.path());
        // With a home of its own the program finds no option file of a person there.
        command.arg(option).args(flags).args(["--databases", "--", database.as_str()]).env("HOME", home);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command
    }
}

/// Returns a command with an environment of nothing but a path and a language.
fn clean_command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("LC_ALL", "C").env("PATH", path());
    command
}

#[expect(
    clippy::disallowed_methods,
    reason = "where programs are is what the runner puts into the environment"
)]
fn path() -> OsString {
    env::var_os("PATH").unwrap_or_else(|| PATH_DEFAULT.into())
}

fn search(names: [&str; 2]) -> Result<PathBuf, BackupError> {
    search_in(&path(), names)
}

fn search_in(path: &OsStr, names: [&str; 2]) -> Result<PathBuf, BackupError> {
    let programs = names.iter().flat_map(|name| env::split_paths(path).map(move |folder| folder.join(name)));
    let mut programs = programs.filter(|program| program.is_absolute() && program.is_file());
    programs
        .find(|program| access(program, AccessFlags::X_OK).is_ok())
        .ok_or_else(|| BackupError::NoClient(names.join(" nor ")))
}

async fn version_answer(program: &Path) -> Result<String, BackupError> {
    let failed = |source| BackupError::Run { program: program.to_owned(), source };
    let mut command = clean_command(program);
    command.arg("--version").stdin(Stdio::null()).kill_on_drop(true);
    match tokio::time::timeout(VERSION_TIMEOUT, command.output()).await {
        Ok(output) => Ok(String::from_utf8_lossy(&output.map_err(failed)?.stdout).into_owned()),
        Err(_) => Err(failed(io::Error::new(io::ErrorKind::TimedOut, "it does not say its version"))),
    }
}

/// Reads the version of what the program belongs to. The forms that there are:
/// `mariadb-dump  Ver 10.19 Distrib 10.11.6-MariaDB, for ...`, `mariadb-dump from 11.4.2-MariaDB, client 10.19 for ...`,
/// `mysqldump  Ver 10.13 Distrib 5.7.44, for ...`, `mysqldump  Ver 8.0.36 for ...`.
fn version(answer: &str) -> Option<(u32, u32, u32)> {
    let words: Vec<&str> = answer.split_whitespace().collect();
    let after = |word: &str| {
        let found = words.iter().position(|found| *found == word)?;
        words.get(found + 1).copied()
    };
    let text = after("Distrib").or_else(|| after("from")).or_else(|| after("Ver"))?;
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let mut next = || numbers.next().and_then(Result::ok);
    Some((next()?, next()?, next().unwrap_or(0)))
}

/// The file that hands account and password to a dump program; removed when dropped.
#[derive(Debug)]
pub(super) struct Credentials(Unfinished);

impl Credentials {
    /// Writes the file into a private folder.
    pub(super) fn write(folder: &Path, connection: &ResolvedConnection) -> Result<Self, BackupError> {
        let text = option_file(connection).map_err(BackupError::Credentials)?;
        let (file, mut opened) =
            Unfinished::create(folder.join("client.cnf")).map_err(BackupError::Credentials)?;
        opened.write_all(text.as_bytes()).map_err(BackupError::Credentials)?;
        Ok(Self(file))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

fn option_file(connection: &ResolvedConnection) -> io::Result<String> {
    let mut text = String::from("[client]\n");
    match &connection.path {
        // A host called `localhost` would otherwise mean a socket to the program and a port to everybody else.
        None => text.push_str(&format!(
            "protocol=tcp\nhost={}\nport={}\n",
            quoted("host", &connection.host)?,
            server::port(connection)
        )),
        Some(socket) => {
            text.push_str(&format!(
                "protocol=socket\nsocket={}\n",
                quoted("socket", &socket.display().to_string())?
            ));
        }
    }
    text.push_str(&format!("user={}\n", quoted("user", &connection.user)?));
    text.push_str(&format!("password={}\n", quoted("password", connection.password.expose())?));
    Ok(text)
}

/// Quotes a value for an option file. Within quotes only the backslash and what it introduces are special.
fn quoted(name: &str, value: &str) -> io::Result<String> {
    let refuse = |problem: String| io::Error::new(io::ErrorKind::InvalidInput, problem);
    if value.len() > OPTION_BYTES_MAX {
        return Err(refuse(format!("the {name} is longer than {OPTION_BYTES_MAX} bytes")));
    }
    if value.contains('\0') {
        return Err(refuse(format!("the {name} contains a NUL character")));
    }
    Ok(format!("\"{}\"", escaped(value)))
}

/// Returns a value as it stands between the quotes of an option file.
pub(super) fn escaped(value: &str) -> String {
    let mut escaped = String::new();
    for c in value.chars() {
        match c {
            '\\' => escaped.push_str("\\\\"),
            '"' => escaped.push_str("\\\""),
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use millrace_common::secret::Secret;

    use super::*;

    const CONTENT: Content = Content {
        consistency: Consistency::Snapshot,
        routines: true,
        events: true,
        triggers: true,
        binlog_position: true,
    };

    fn client(answer: &str) -> Client {
        Client::recognise("/usr/bin/mysqldump".into(), answer).expect("a client")
    }

    fn connection(password: &str) -> ResolvedConnection {
        ResolvedConnection {
            engine: "mysql".into(),
            host: "db".into(),
            port: None,
            user: "etl".into(),
            password: Secret::new(password.into()),
            database: String::new(),
            path: None,
        }
    }

    #[test]
    fn every_form_of_a_version_is_recognised() {
        for (answer, family, version) in [
            (
                "mariadb-dump  Ver 10.19 Distrib 10.11.6-MariaDB, for debian-linux-gnu (x86_64)",
                Family::Mariadb,
                (10, 11, 6),
            ),
            (
                "mariadb-dump from 11.4.2-MariaDB, client 10.19 for Linux (x86_64)",
                Family::Mariadb,
                (11, 4, 2),
            ),
            ("mysqldump  Ver 10.13 Distrib 5.7.44, for Linux (x86_64)", Family::Mysql, (5, 7, 44)),
            (
                "mysqldump  Ver 8.0.36-0ubuntu0.22.04.1 for Linux on x86_64 ((Ubuntu))",
                Family::Mysql,
                (8, 0, 36),
            ),
            (
                "mysqldump  Ver 9.1.0 for macos14 on arm64 (MySQL Community Server - GPL)",
                Family::Mysql,
                (9, 1, 0),
            ),
        ] {
            let client = client(answer);
            assert_eq!((client.family, client.version), (family, version), "{answer}");
        }
        for answer in ["", "GNU tar 1.34", "Ver x"] {
            assert!(Client::recognise("/bin/tar".into(), answer).is_err(), "{answer}");
        }
    }

    #[test]
    fn each_program_gets_the_options_it_understands() {
        let mariadb = client("mariadb-dump from 11.4.2-MariaDB, client 10.19").flags(CONTENT);
        assert!(mariadb.contains(&"--gtid") && mariadb.contains(&"--master-data=2"));
        let only_mysql =
            ["--set-gtid-purged=OFF", "--column-statistics=0", "--no-tablespaces", "--source-data=2"];
        assert!(only_mysql.iter().all(|flag| !mariadb.contains(flag)), "{mariadb:?}");
        let mysql = client("mysqldump  Ver 8.0.36 for Linux").flags(CONTENT);
        assert!(
            only_mysql.iter().all(|flag| mysql.contains(flag)) && !mysql.contains(&"--gtid"),
            "{mysql:?}"
        );
        let older = client("mysqldump  Ver 10.13 Distrib 5.7.44, for Linux").flags(CONTENT);
        assert!(older.contains(&"--master-data=2") && !older.contains(&"--column-statistics=0"), "{older:?}");
    }

    #[test]
    fn content_is_said_both_ways() {
        let client = client("mysqldump  Ver 8.0.36 for Linux");
        let none = Content {
            consistency: Consistency::Lock,
            routines: false,
            events: false,
            triggers: false,
            binlog_position: false,
        };
        let (with, without) = (client.flags(CONTENT), client.flags(none));
        for part in ["routines", "events", "triggers"] {
            assert!(
                with.contains(&format!("--{part}").as_str())
                    && without.contains(&format!("--skip-{part}").as_str())
            );
        }
        assert!(without.contains(&"--lock-all-tables") && !without.contains(&"--single-transaction"));
        assert!(!without.contains(&"--source-data=2"));
    }

    #[test]
    fn only_the_owner_reads_the_credentials_and_they_go_with_their_value() {
        let folder = tempfile::tempdir().expect("a folder");
        let credentials = Credentials::write(folder.path(), &connection("a\"b\\c#d 'e\n")).expect("written");
        let path = credentials.path().to_owned();
        assert_eq!(fs::metadata(&path).expect("the file").permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&path).expect("the file");
        assert!(text.ends_with("user=\"etl\"\npassword=\"a\\\"b\\\\c#d 'e\\n\"\n"), "{text}");
        assert!(text.contains("protocol=tcp\nhost=\"db\"\nport=3306\n"), "{text}");
        drop(credentials);
        assert!(!path.exists());
        let socket = ResolvedConnection { path: Some("/run/db.sock".into()), ..connection("") };
        assert!(option_file(&socket).expect("a text").contains("protocol=socket\nsocket=\"/run/db.sock\"\n"));
    }

    #[test]
    fn a_password_that_an_option_file_cannot_hold_is_refused_without_being_shown() {
        for bad in ["secret\0word".to_owned(), "secret".repeat(1_000)] {
            let error = option_file(&connection(&bad)).expect_err("refused").to_string();
            assert!(error.contains("password") && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn the_command_has_the_option_file_first_and_the_database_last() {
        let folder = tempfile::tempdir().expect("a folder");
        let credentials = Credentials::write(folder.path(), &connection("s3cret")).expect("written");
        let client = client("mysqldump  Ver 8.0.36 for Linux");
        let database = Database::parse("mes").expect("a name");
        let command = client.command(&credentials, &["--quick"], &database, folder.path());
        let arguments: Vec<_> =
            command.as_std().get_args().map(|word| word.to_string_lossy().into_owned()).collect();
        assert!(arguments[0].starts_with("--defaults-extra-file=/"), "{arguments:?}");
        assert_eq!(arguments[1..], ["--quick", "--databases", "--", "mes"]);
        assert!(!format!("{command:?}").contains("s3cret"));
    }

    #[test]
    fn a_program_is_taken_only_where_it_can_be_run() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = folder.path().join("mysqldump");
        fs::write(&program, "#!/bin/sh\n").expect("written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o600)).expect("not a program");
        let names = ["mariadb-dump", "mysqldump"];
        let error = search_in(folder.path().as_os_str(), names).expect_err("no program");
        assert!(error.to_string().contains("neither mariadb-dump nor mysqldump is installed"), "{error}");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).expect("a program");
        assert_eq!(search_in(folder.path().as_os_str(), names).expect("found"), program);
    }
}

//! Names: of databases, which come from definitions and servers, and of files, which are made of them.
//!
//! A database's name becomes an argument of a program, a folder and part of a file name. It is therefore checked once,
//! here, against the little that is harmless as all three.

use std::fmt;

use chrono::{DateTime, Utc};

/// Characters of a database name; the limit of MySQL and MariaDB.
const DATABASE_CHARS_MAX: usize = 64;

/// The end of the name of a file that is not complete.
pub(super) const UNFINISHED: &str = ".tmp";

/// The end of the name of a manifest, after the name of the file that it describes.
pub(super) const MANIFEST: &str = ".json";

/// The name of a database that is harmless as an argument, a folder and part of a file name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Database(String);

impl Database {
    /// Checks a name.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let is_first = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let is_later = |c: char| is_first(c) || matches!(c, '-' | '.' | '$');
        let is_name = text.starts_with(is_first) && text.chars().all(is_later);
        if !is_name {
            let shown: String = text.chars().take(DATABASE_CHARS_MAX).collect();
            return Err(format!(
                "{shown:?} cannot be the name of a folder: a database here starts with a letter, a digit or '_' \
                 and goes on with those, '-', '.' and '$'"
            ));
        }
        if text.len() > DATABASE_CHARS_MAX {
            return Err(format!(
                "a database name has at most {DATABASE_CHARS_MAX} characters, this one has {}",
                text.len()
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// Returns the name as text.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Says whether a file name is one of this database's.
    pub(super) fn owns(&self, file: &str) -> bool {
        // A name of another database may begin with this one and an underscore, but it has a folder of its own.
        file.strip_prefix(self.as_str()).is_some_and(|rest| rest.starts_with('_'))
    }

    /// Returns the name of a backup file. `again` numbers those of one second.
    pub(super) fn file_name(&self, started: DateTime<Utc>, again: u32, extension: &str) -> String {
        let stamp = started.format("%Y%m%dT%H%M%SZ");
        if again == 0 {
            format!("{self}_{stamp}.{extension}")
        } else {
            format!("{self}_{stamp}-{again}.{extension}")
        }
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_could_be_an_option_or_a_path_is_refused() {
        for good in ["mes", "mes-2", "_x", "7a", "a.b$c", &"a".repeat(64)] {
            assert!(Database::parse(good).is_ok(), "{good}");
        }
        let long = "a".repeat(65);
        for bad in [
            "",
            "-mes",
            "--all-databases",
            ".mes",
            "..",
            "$x",
            "a/b",
            "a b",
            "a;b",
            "a\0",
            "a\n",
            "库",
            &long,
        ] {
            assert!(Database::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_file_name_says_database_and_second() {
        let database = Database::parse("mes").expect("a name");
        let started = DateTime::from_timestamp(1_767_225_599, 987_000_000).expect("a time");
        assert_eq!(database.file_name(started, 0, "sql.zst"), "mes_20251231T235959Z.sql.zst");
        assert_eq!(database.file_name(started, 2, "sql"), "mes_20251231T235959Z-2.sql");
        assert!(
            database.owns("mes_20251231T235959Z.sql.zst")
                && !database.owns("mes2_x")
                && !database.owns("other_mes_")
        );
    }
}

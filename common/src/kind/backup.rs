//! Parameters of the `backup` kind.
//!
//! What is made, where it is put and how long it is kept. Credentials are not here: they belong to the connection, which
//! stands in the executor's configuration.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};

/// Makes a verified, compressed backup of databases and removes those that the retention no longer keeps.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BackupWith {
    /// Name of the connection to back up: a MySQL or MariaDB server, or a SQLite file.
    pub connection: String,
    /// How the backup is made; follows from the connection where absent.
    pub engine: Option<BackupTool>,
    /// Databases of a server, or `all` without those of the server itself; the connection's own database where absent.
    pub databases: Option<Databases>,
    /// Absolute path of the folder for the backups, with one sub-folder per database. Its parent folder must exist.
    /// Where absent, the executor's own folder for backups is taken.
    pub target: Option<String>,
    /// How files are compressed, `zstd` where absent.
    #[serde(default)]
    pub compression: Compression,
    /// Level of the compression: 1 to 19 for zstd (3 where absent), 1 to 9 for gzip (6 where absent).
    pub compression_level: Option<u32>,
    /// How a dump of a server is kept consistent, `snapshot` where absent.
    #[serde(default)]
    pub consistency: Consistency,
    /// Whether stored procedures and functions are part of a dump, `true` where absent.
    #[serde(default = "yes")]
    pub routines: bool,
    /// Whether events are part of a dump, `true` where absent.
    #[serde(default = "yes")]
    pub events: bool,
    /// Whether triggers are part of a dump, `true` where absent.
    #[serde(default = "yes")]
    pub triggers: bool,
    /// Whether the position in the binary log is recorded, `false` where absent. The server must keep such a log.
    #[serde(default)]
    pub binlog_position: bool,
    /// Which backups are kept; all of them where absent.
    #[serde(default)]
    pub retention: Retention,
    /// Space that must stay free in the folder beside the new backup, such as `10GiB`.
    pub min_free: Option<String>,
}

const fn yes() -> bool {
    true
}

/// How a backup is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BackupTool {
    /// A logical dump of a server by `mariadb-dump` or `mysqldump`.
    Mysqldump,
    /// A consistent copy of a SQLite file.
    Sqlite,
}

/// How files are compressed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Compression {
    /// Zstandard with a long window.
    #[default]
    Zstd,
    /// gzip, for tools that read nothing else.
    Gzip,
    /// As it is.
    None,
}

/// How a dump is kept consistent while others write.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Consistency {
    /// One transaction; nobody is held up, but only InnoDB tables are consistent.
    #[default]
    Snapshot,
    /// A global read lock for the whole dump; all tables are consistent, and writers wait.
    Lock,
}

/// Which databases of a server.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(untagged)]
pub enum Databases {
    /// All that the account sees, without those of the server itself.
    All(All),
    /// Those named.
    Named(Vec<String>),
}

/// The word `all`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "snake_case")]
pub enum All {
    /// All databases.
    All,
}

/// Read by hand because an untagged enum answers a mistake with "did not match any variant".
impl<'de> Deserialize<'de> for Databases {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DatabasesVisitor)
    }
}

struct DatabasesVisitor;

impl<'de> de::Visitor<'de> for DatabasesVisitor {
    type Value = Databases;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of database names, or `all`")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Databases, E> {
        if text == "all" {
            return Ok(Databases::All(All::All));
        }
        Err(E::invalid_value(de::Unexpected::Str(text), &self))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut names: A) -> Result<Databases, A::Error> {
        let mut named = Vec::new();
        while let Some(name) = names.next_element()? {
            named.push(name);
        }
        Ok(Databases::Named(named))
    }
}

/// Which backups of a database are kept.
///
/// A backup that one of the rules keeps is kept, and the newest always is. Days, ISO weeks, months and years are those of
/// UTC; only those that have a backup count, so that a pause in the backups deletes nothing. With no rule at all,
/// everything is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// How many of the newest backups.
    pub keep_last: u32,
    /// For how many days the newest of the day.
    pub daily: u32,
    /// For how many ISO weeks the newest of the week.
    pub weekly: u32,
    /// For how many months the newest of the month.
    pub monthly: u32,
    /// For how many years the newest of the year.
    pub yearly: u32,
    /// Whether the log only says what would be deleted, and nothing is.
    pub dry_run: bool,
}

impl Retention {
    /// Says whether there is a rule, so that something can be deleted at all.
    #[must_use]
    pub const fn has_rule(&self) -> bool {
        self.keep_last > 0 || self.daily > 0 || self.weekly > 0 || self.monthly > 0 || self.yearly > 0
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn few_words_make_a_complete_backup() {
        let with: BackupWith = serde_json::from_value(json!({
            "connection": "mes", "databases": ["mes", "wms"], "retention": { "daily": 7, "weekly": 4 },
        }))
        .expect("parameters");
        assert_eq!(with.databases, Some(Databases::Named(vec!["mes".into(), "wms".into()])));
        assert!(with.routines && with.events && with.triggers && !with.binlog_position);
        assert_eq!((with.compression, with.consistency), (Compression::Zstd, Consistency::Snapshot));
        assert_eq!(with.retention, Retention { daily: 7, weekly: 4, ..Retention::default() });
    }

    #[test]
    fn databases_are_a_list_or_all() {
        let read = |value| serde_json::from_value::<Databases>(value);
        assert_eq!(read(json!("all")).expect("all"), Databases::All(All::All));
        for wrong in [json!("mes"), json!(7), json!({ "mes": true }), json!([7])] {
            let error = read(wrong).expect_err("not databases").to_string();
            assert!(error.contains("database names") || error.contains("a string"), "{error}");
        }
    }

    #[test]
    fn an_unknown_parameter_is_refused() {
        let error = serde_json::from_value::<BackupWith>(json!({ "connection": "mes", "keep": 3 }))
            .expect_err("unknown");
        assert!(error.to_string().contains("unknown field `keep`"), "{error}");
        let nested = json!({ "connection": "mes", "retention": { "days": 3 } });
        let error = serde_json::from_value::<BackupWith>(nested).expect_err("unknown");
        assert!(error.to_string().contains("unknown field `days`"), "{error}");
    }

    #[test]
    fn the_schema_offers_both_forms_of_databases() {
        let schema = schemars::schema_for!(BackupWith).to_value().to_string();
        for part in ["\"all\"", "additionalProperties\":false", "keep_last", "Zstandard"] {
            assert!(schema.contains(part), "{part} is missing in {schema}");
        }
    }
}

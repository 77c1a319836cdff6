//! From parameters to a plan: everything about them that can be known without a server or a disk.

use std::{collections::BTreeSet, path::PathBuf};

use millrace_common::{
    kind::backup::{BackupTool, BackupWith, Compression, Consistency, Databases, Retention},
    text::parse_size,
};

use super::{archive::Codec, name::Database};

/// A parameter that cannot be used.
#[derive(Debug)]
pub(super) struct Misfit {
    /// The parameter.
    pub(super) path: &'static str,
    /// What is wrong with it.
    pub(super) problem: String,
}

/// Which databases to back up.
#[derive(Debug)]
pub(super) enum Selection {
    /// The connection's own.
    OfConnection,
    /// All that the account sees.
    All,
    /// Those named, each once.
    Named(Vec<Database>),
}

/// What a dump contains, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Content {
    pub(super) consistency: Consistency,
    pub(super) routines: bool,
    pub(super) events: bool,
    pub(super) triggers: bool,
    pub(super) binlog_position: bool,
}

/// Parameters, checked.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) connection: String,
    pub(super) tool: Option<BackupTool>,
    pub(super) selection: Selection,
    pub(super) target: Option<PathBuf>,
    pub(super) codec: Codec,
    pub(super) content: Content,
    pub(super) retention: Retention,
    /// Bytes to leave free.
    pub(super) min_free: u64,
}

impl TryFrom<BackupWith> for Plan {
    type Error = Misfit;

    fn try_from(with: BackupWith) -> Result<Self, Misfit> {
        Ok(Self {
            selection: selection(with.databases)?,
            target: target(with.target)?,
            codec: codec(with.compression, with.compression_level)?,
            min_free: min_free(with.min_free.as_deref())?,
            content: Content {
                consistency: with.consistency,
                routines: with.routines,
                events: with.events,
                triggers: with.triggers,
                binlog_position: with.binlog_position,
            },
            connection: with.connection,
            tool: with.engine,
            retention: with.retention,
        })
    }
}

fn selection(databases: Option<Databases>) -> Result<Selection, Misfit> {
    let names = match databases {
        None => return Ok(Selection::OfConnection),
        Some(Databases::All(_)) => return Ok(Selection::All),
        Some(Databases::Named(names)) => names,
    };
    if names.is_empty() {
        return Err(Misfit {
            path: "databases",
            problem: "the list is empty; name databases or write `all`".into(),
        });
    }
    let mut seen = BTreeSet::new();
    let mut databases = Vec::new();
    for name in names {
        let database = Database::parse(&name).map_err(|problem| Misfit { path: "databases", problem })?;
        if seen.insert(database.clone()) {
            databases.push(database);
        }
    }
    Ok(Selection::Named(databases))
}

fn target(target: Option<String>) -> Result<Option<PathBuf>, Misfit> {
    let Some(target) = target.map(PathBuf::from) else { return Ok(None) };
    if !target.is_absolute() {
        let problem = format!("{} is not an absolute path", target.display());
        return Err(Misfit { path: "target", problem });
    }
    Ok(Some(target))
}

fn codec(compression: Compression, level: Option<u32>) -> Result<Codec, Misfit> {
    let (codec, levels) = match compression {
        Compression::Zstd => (Codec::Zstd { level: level.unwrap_or(3) }, 1..=19),
        Compression::Gzip => (Codec::Gzip { level: level.unwrap_or(6) }, 1..=9),
        Compression::None => (Codec::Plain, 0..=0),
    };
    match level {
        Some(level) if !levels.contains(&level) => Err(Misfit {
            path: "compression_level",
            problem: match compression {
                Compression::None => "there is no level without compression; leave it out".into(),
                Compression::Zstd | Compression::Gzip => {
                    format!("{level} is not between {} and {}", levels.start(), levels.end())
                }
            },
        }),
        _ => Ok(codec),
    }
}

fn min_free(text: Option<&str>) -> Result<u64, Misfit> {
    text.map_or(Ok(0), |text| {
        parse_size(text).map_err(|error| Misfit { path: "min_free", problem: error.to_string() })
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn plan(more: &Value) -> Result<Plan, Misfit> {
        let mut with = json!({ "connection": "mes" });
        let members = with.as_object_mut().expect("an object");
        members.extend(more.as_object().expect("an object").clone());
        Plan::try_from(serde_json::from_value::<BackupWith>(with).expect("parameters"))
    }

    #[test]
    fn defaults_are_zstd_of_level_3_for_the_database_of_the_connection() {
        let plan = plan(&json!({})).expect("a plan");
        assert_eq!((plan.codec, plan.min_free, plan.target), (Codec::Zstd { level: 3 }, 0, None));
        assert!(matches!(plan.selection, Selection::OfConnection));
    }

    #[test]
    fn a_misfit_names_its_parameter() {
        for (with, path) in [
            (json!({ "databases": [] }), "databases"),
            (json!({ "databases": ["mes", "--all-databases"] }), "databases"),
            (json!({ "databases": ["../mes"] }), "databases"),
            (json!({ "target": "backups" }), "target"),
            (json!({ "target": "" }), "target"),
            (json!({ "compression_level": 20 }), "compression_level"),
            (json!({ "compression": "gzip", "compression_level": 0 }), "compression_level"),
            (json!({ "compression": "none", "compression_level": 1 }), "compression_level"),
            (json!({ "min_free": "10" }), "min_free"),
        ] {
            let misfit = plan(&with).expect_err("a misfit");
            assert_eq!(misfit.path, path, "{with}: {}", misfit.problem);
        }
    }

    #[test]
    fn a_database_named_twice_is_backed_up_once() {
        let plan = plan(&json!({ "databases": ["b", "a", "b"] })).expect("a plan");
        let Selection::Named(databases) = plan.selection else { panic!("not named") };
        assert_eq!(databases.iter().map(Database::as_str).collect::<Vec<_>>(), ["b", "a"]);
    }
}

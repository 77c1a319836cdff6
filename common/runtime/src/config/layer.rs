//! Tables put over each other, with a memory of where each key came from.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::de::DeserializeOwned;
use toml::{Table, Value};

use super::ConfigError;

/// Where a key was set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// Nowhere: a key that must be set is absent and there is no file.
    Defaults,
    /// In the configuration file.
    File(PathBuf),
    /// In an environment variable.
    Environment(String),
    /// On the command line.
    Flag(String),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Defaults => f.write_str("configuration (no file given)"),
            Self::File(path) => write!(f, "configuration file {}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
            Self::Flag(name) => write!(f, "flag for {name}"),
        }
    }
}

/// The merged configuration.
pub(super) struct Layers {
    table: Table,
    base: Origin,
    /// Keys that a later layer set, by their path with dots.
    overrides: BTreeMap<String, Origin>,
}

impl Layers {
    pub(super) fn new(table: Table, base: Origin) -> Self {
        Self { table, base, overrides: BTreeMap::new() }
    }

    /// Puts one value over what is there.
    pub(super) fn set<'a>(
        &mut self,
        key: impl Iterator<Item = &'a str>,
        text: &str,
        origin: Origin,
    ) -> Result<(), ConfigError> {
        let path: Vec<&str> = key.collect();
        let joined = path.join(".");
        let Some((last, parents)) = path.split_last() else { return Ok(()) };
        let mut table = &mut self.table;
        for parent in parents {
            let entry = table.entry((*parent).to_owned()).or_insert_with(|| Value::Table(Table::new()));
            let Value::Table(inner) = entry else {
                let problem = format!("`{parent}` holds a value, so nothing can stand below it");
                return Err(ConfigError::Key { origin, key: joined, problem });
            };
            table = inner;
        }
        table.insert((*last).to_owned(), read_value(text));
        self.overrides.insert(joined, origin);
        Ok(())
    }

    /// Reads the whole into the program's struct.
    pub(super) fn read<T: DeserializeOwned>(self) -> Result<T, ConfigError> {
        let Self { table, base, overrides } = self;
        serde_path_to_error::deserialize(table).map_err(|error| {
            let key = error.path().to_string();
            let origin = origin_of(&key, &overrides).unwrap_or(base);
            ConfigError::Key { origin, key, problem: error.inner().message().to_owned() }
        })
    }
}

/// Finds the override that set `key` or something below it.
fn origin_of(key: &str, overrides: &BTreeMap<String, Origin>) -> Option<Origin> {
    let is_below = |long: &str, short: &str| {
        long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    overrides.iter().find(|(set, _)| is_below(key, set)).map(|(_, origin)| origin.clone())
}

/// Reads a value that looks like TOML as TOML, anything else as text.
fn read_value(text: &str) -> Value {
    let looks_like_toml = text.starts_with(['[', '{', '"', '\''])
        || matches!(text, "true" | "false")
        || text.parse::<i64>().is_ok()
        || text.parse::<f64>().is_ok_and(|number| number.is_finite() && text.contains('.'));
    if !looks_like_toml {
        return Value::String(text.to_owned());
    }
    format!("value = {text}")
        .parse::<Table>()
        .ok()
        .and_then(|mut table| table.remove("value"))
        .unwrap_or_else(|| Value::String(text.to_owned()))
}

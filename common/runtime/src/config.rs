//! Configuration: a TOML file, over it the environment, over that the flags.
//!
//! Layers are merged as tables and read once into the program's own struct, so that a wrong or unknown key is refused
//! with its path and with the file, variable or flag that it came from. Nothing is read again at run time.

mod layer;
pub mod quantity;

use std::{env, fs, io, path::Path, path::PathBuf};

use serde::de::DeserializeOwned;
use thiserror::Error;
use toml::Table;

use self::layer::Layers;
pub use self::layer::Origin;
pub use self::quantity::{duration_text, optional_duration_text, size_text};

/// Bytes of the largest configuration file that is read.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Why a configuration was refused.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read configuration file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not TOML; the cause says where.
    #[error("configuration file {path} is not TOML")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A key is unknown or has a wrong value.
    #[error("{origin}: `{key}`: {problem}")]
    Key {
        /// Where the key was set.
        origin: Origin,
        /// Path of the key; empty for the whole.
        key: String,
        /// What is wrong with it.
        problem: String,
    },
}

/// Loads a configuration. `environment_prefix` is the program's own, such as `MILLRACE_EXECUTOR_`, with which
/// `MILLRACE_EXECUTOR_A__B` sets `a.b`; variables of other programs and of attempts never fall under it. `flags` are pairs of a key such as `a.b` and its value as text.
///
/// Values from the environment and from flags are read as TOML where they look like it (numbers, `true`, lists, tables,
/// quoted text) and are text otherwise.
///
/// # Errors
/// Where the file cannot be read, is not TOML, or a key is unknown or has a wrong value.
pub fn load<T: DeserializeOwned>(
    file: Option<&Path>,
    environment_prefix: &str,
    flags: &[(&str, String)],
) -> Result<T, ConfigError> {
    #[expect(clippy::disallowed_methods, reason = "this is where the environment becomes configuration")]
    let variables = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    load_from(file, environment_prefix, variables, flags)
}

fn load_from<T: DeserializeOwned>(
    file: Option<&Path>,
    prefix: &str,
    variables: impl Iterator<Item = (String, String)>,
    flags: &[(&str, String)],
) -> Result<T, ConfigError> {
    let mut layers = match file {
        Some(path) => Layers::new(read_file(path)?, Origin::File(path.to_owned())),
        None => Layers::new(Table::new(), Origin::Defaults),
    };
    let mut variables: Vec<_> = variables
        .filter_map(|(name, value)| Some((name.strip_prefix(prefix)?.to_ascii_lowercase(), name, value)))
        .filter(|(key, ..)| !key.is_empty())
        .collect();
    variables.sort();
    for (key, name, value) in variables {
        layers.set(key.split("__"), &value, Origin::Environment(name))?;
    }
    for (key, value) in flags {
        layers.set(key.split('.'), value, Origin::Flag((*key).to_owned()))?;
    }
    layers.read()
}

fn read_file(path: &Path) -> Result<Table, ConfigError> {
    let unread = |source| ConfigError::Read { path: path.to_owned(), source };
    let bytes = fs::metadata(path).map_err(unread)?.len();
    if bytes > FILE_BYTES_MAX {
        return Err(unread(io::Error::other(format!(
            "it has {bytes} bytes, at most {FILE_BYTES_MAX} are read"
        ))));
    }
    let text = fs::read_to_string(path).map_err(unread)?;
    text.parse().map_err(|source| ConfigError::Syntax { path: path.to_owned(), source: Box::new(source) })
}

#[cfg(test)]
mod tests;

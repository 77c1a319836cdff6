//! Settings of both halves, below one folder.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use millrace_common::{
    connection::{Connection, Engine},
    id::ConnectionName,
};
use millrace_executor::{ExecutorConfig, OnStop};
use millrace_master::MasterConfig;
use millrace_runtime::config;
use serde::Deserialize;

/// Name of the executor in this process.
const EXECUTOR: &str = "local";
/// Stands for the master's address until that is known.
const MASTER: &str = "http://127.0.0.1:0";

/// Settings of both halves.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StandaloneConfig {
    /// The master's part.
    #[serde(default)]
    pub(crate) master: MasterConfig,
    /// The executor's part. Its name, folders and master are not to be set: they follow from being here.
    pub(crate) executor: ExecutorConfig,
}

/// Reads the settings; everything is kept below `data`.
pub(crate) fn load(file: Option<&Path>, data: Option<PathBuf>) -> anyhow::Result<StandaloneConfig> {
    let data = data.unwrap_or_else(|| MasterConfig::default().data_dir);
    std::fs::create_dir_all(&data)
        .with_context(|| format!("cannot make the data folder {}", data.display()))?;
    let data = data.canonicalize()?;
    let path = |path: PathBuf| path.display().to_string();
    let settings = [
        ("master.data_dir", path(data.clone())),
        ("master.token_file", path(data.join("token"))),
        ("executor.name", EXECUTOR.to_owned()),
        ("executor.masters", format!("[\"{MASTER}\"]")),
        ("executor.token_file", path(data.join("token"))),
        ("executor.data_dir", path(data.join("executor"))),
    ];
    let mut config: StandaloneConfig = config::load(file, "MILLRACE_STANDALONE_", &settings)?;
    // Who stops the one program means all of it.
    config.executor.on_stop.get_or_insert(OnStop::End);
    let problems = config.problems();
    ensure!(problems.is_empty(), "the settings are refused: {}", problems.join("; "));
    Ok(config)
}

impl StandaloneConfig {
    /// Returns all that is wrong with the settings of both halves.
    fn problems(&self) -> Vec<String> {
        let master = self.master.problems().into_iter().map(|problem| format!("master: {problem}"));
        let executor = self.executor.problems().into_iter().map(|problem| format!("executor: {problem}"));
        master.chain(executor).collect()
    }
}

/// Returns the settings of the demo, whose input is below `root`.
pub(crate) fn for_demo(root: &Path) -> anyhow::Result<StandaloneConfig> {
    let state = root.join("state");
    std::fs::create_dir_all(&state)?;
    let mut master = MasterConfig::in_folder(state.clone());
    master.listen.set_port(0);
    let token_file = master.token_file.clone();
    let mut executor =
        ExecutorConfig::new(EXECUTOR.parse()?, vec![MASTER.to_owned()], token_file, state.join("executor"));
    executor.on_stop = Some(OnStop::End);
    for (name, file) in [("mes", "mes.db"), ("warehouse", "warehouse.db")] {
        executor.connections.insert(name.parse::<ConnectionName>()?, sqlite(root.join(file)));
    }
    Ok(StandaloneConfig { master, executor })
}

fn sqlite(path: PathBuf) -> Connection {
    Connection {
        engine: Engine::Sqlite,
        host: String::new(),
        port: None,
        user: String::new(),
        password: None,
        password_file: None,
        database: String::new(),
        path: Some(path),
    }
}

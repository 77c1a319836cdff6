//! The nightly work on SQLite files and a folder of archives.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::ensure;
use millrace_examples::{aoi, source};
use sqlx::{Connection, Row, SqliteConnection};

use super::{COLUMNS, DAY, JOB, WORKFLOW};

const ORDERS: u32 = 2_000;
const ROLLS: u32 = 3;
const SEED: u64 = 11;

/// The input, below one folder.
pub(crate) struct Embedded {
    root: PathBuf,
    rolls: Vec<aoi::Roll>,
    runtime: tokio::runtime::Runtime,
    root_param: String,
}

impl Embedded {
    pub(crate) fn make(root: &Path) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let root = root.canonicalize()?;
        fs::create_dir_all(root.join("jobs"))?;
        fs::write(root.join("jobs/mes_wpc_wo.json"), JOB)?;
        let day = DAY.parse::<chrono::NaiveDate>()?;
        runtime.block_on(source::write(
            &root.join("mes.db"),
            day - chrono::TimeDelta::days(24),
            ORDERS,
            SEED,
        ))?;
        runtime.block_on(source::write_target(&root.join("warehouse.db")))?;
        let request = aoi::Request { first_day: day, days: 1, rolls: ROLLS, seed: SEED };
        let rolls = aoi::write(&request, &root.join("aoi"), |film| film.name().to_owned())?;
        let root_param = format!("root={}", root.display());
        Ok(Self { root, rolls, runtime, root_param })
    }

    pub(crate) fn executor_settings(&self) -> String {
        let root = self.root.display();
        format!(
            "slots = 4\n[executor.connections.mes]\nengine = \"sqlite\"\npath = \"{root}/mes.db\"\n[executor.connections.warehouse]\nengine = \"sqlite\"\npath = \"{root}/warehouse.db\"\n"
        )
    }

    pub(crate) fn workflow(&self) -> String {
        WORKFLOW.to_owned()
    }

    /// The workflow with two more tasks that write down when they start and end, in parallel with the others.
    pub(crate) fn witnessed_workflow(&self, witness: &Path) -> String {
        let witness = witness.display();
        let script = format!(
            "echo S ${{MILLRACE_ATTEMPT%.*}} $MILLRACE_ATTEMPT >> {witness}; sleep 0.3; echo E ${{MILLRACE_ATTEMPT%.*}} $MILLRACE_ATTEMPT >> {witness}"
        );
        let task = |name: &str, after: &str| {
            format!(
                "  {name}:\n    kind: shell\n    after: [{after}]\n    with: {{ command: [sh, -c, \"{script}\"] }}\n"
            )
        };
        format!("{WORKFLOW}{}{}{}", task("w1", "backup"), task("w2", "w1"), task("w3", "w2"))
    }

    pub(crate) fn run_arguments(&self) -> [&str; 5] {
        ["nightly", "--logical-date", DAY, "-p", &self.root_param]
    }

    pub(crate) fn orders_expected(&self) -> usize {
        self.rows("mes.db", &self.expected_query()).map_or(0, |rows| rows.len())
    }

    pub(crate) fn rolls_expected(&self) -> usize {
        self.rolls.len()
    }

    fn expected_query(&self) -> String {
        format!("SELECT {COLUMNS} FROM mes_wpc_wo WHERE created_at < date('{DAY}', '+1 day') ORDER BY wo_id")
    }

    /// Compares what arrived with what was put in.
    pub(crate) fn compare(&self) -> anyhow::Result<()> {
        let sent = self.rows("mes.db", &self.expected_query())?;
        let arrived =
            self.rows("warehouse.db", &format!("SELECT {COLUMNS} FROM mes_wpc_wo ORDER BY wo_id"))?;
        ensure!(
            !sent.is_empty() && sent == arrived,
            "{} orders were sent, {} arrived",
            sent.len(),
            arrived.len()
        );
        let pieces = self.rows("warehouse.db", "SELECT aoi_no, start_time FROM pieces_process3")?;
        ensure!(pieces.len() == self.rolls.len(), "{} rolls arrived of {}", pieces.len(), self.rolls.len());
        let defects = self.rows("warehouse.db", "SELECT COUNT(*) FROM defects_process3")?;
        let expected: usize = self.rolls.iter().map(|roll| roll.defects.len()).sum();
        ensure!(defects == vec![vec![expected.to_string()]], "{defects:?} defects arrived of {expected}");
        Ok(())
    }

    fn rows(&self, file: &str, query: &str) -> anyhow::Result<Vec<Vec<String>>> {
        let address = format!("sqlite://{}?mode=ro", self.root.join(file).display());
        self.runtime.block_on(async {
            let mut connection = SqliteConnection::connect(&address).await?;
            // The text of this test, not of anybody else.
            let rows = sqlx::query(sqlx::AssertSqlSafe(query.to_owned())).fetch_all(&mut connection).await?;
            Ok(rows
                .iter()
                .map(|row| {
                    (0..row.len())
                        .map(|at| {
                            row.try_get_unchecked::<Option<String>, _>(at).map_or_else(
                                |error| error.to_string(),
                                |text| text.unwrap_or_else(|| "NULL".to_owned()),
                            )
                        })
                        .collect()
                })
                .collect())
        })
    }
}

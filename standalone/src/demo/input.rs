//! Input of the demo: a MES database, a warehouse, inspection archives, and the job file.

use std::path::{Path, PathBuf};

use anyhow::Context;
use millrace_common::time::Timestamp;
use millrace_examples::{aoi, source};

/// The job file of the workflow's transfer, as it stands in the repository.
const TRANSFER: &str = include_str!("../../../examples/nightly/jobs/mes_wpc_wo.json");
/// The day that the run is about; the archives are made for it.
const DAY: &str = "2018-07-25T00:00:00Z";
/// Work orders of the MES.
const ORDERS: u32 = 5_000;
/// Inspected rolls of each film.
const ROLLS: u32 = 6;
/// Everything follows from it.
const SEED: u64 = 1;

/// A folder that goes with the demo, unless a person named or kept it.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    is_ours: bool,
}

impl Scratch {
    pub(crate) fn new(named: Option<PathBuf>) -> anyhow::Result<Self> {
        let is_ours = named.is_none();
        let path = named
            .unwrap_or_else(|| std::env::temp_dir().join(format!("millrace-demo-{}", std::process::id())));
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self { path: path.canonicalize()?, is_ours })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Leaves the folder where it is.
    pub(crate) fn keep(mut self) {
        self.is_ours = false;
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.is_ours {
            // Left over where it fails; the system empties its temporary folder.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Returns the logical date of the demo's run, in microseconds since 1970.
pub(crate) fn logical_date() -> i64 {
    Timestamp::parse(DAY).unwrap_or_default().as_micros()
}

/// Writes all input below `root`; what is there already is left as it is.
pub(crate) async fn write(root: &Path) -> anyhow::Result<()> {
    let folder = root.join("jobs");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("mes_wpc_wo.json"), TRANSFER)?;
    let mes = root.join("mes.db");
    if mes.exists() {
        return Ok(());
    }
    let day = Timestamp::parse(DAY).unwrap_or_default().to_datetime().date_naive();
    let first_day = day - chrono::TimeDelta::days(24);
    source::write(&mes, first_day, ORDERS, SEED).await?;
    source::write_target(&root.join("warehouse.db")).await?;
    let request = aoi::Request { first_day: day, days: 1, rolls: ROLLS, seed: SEED };
    aoi::write(&request, &root.join("aoi"), |film| film.name().to_owned())?;
    Ok(())
}

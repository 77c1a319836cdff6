//! Deletes the output of runs that are gone: the store deletes runs, and this follows, whenever it was interrupted.

use std::{collections::BTreeSet, io, path::PathBuf, sync::Arc, time::Duration};

use millrace_common::id::RunId;
use millrace_runtime::chain::Chain;
use millrace_store::{
    Store,
    query::{QueryError, RunFilter},
};
use thiserror::Error;
use tokio::task::{JoinError, spawn_blocking};
use tokio_util::sync::CancellationToken;

use super::{OutputStore, fs};

/// Pause before the first sweep and between two.
const INTERVAL: Duration = Duration::from_secs(30 * 60);
/// Folders that one sweep looks at; the next one goes on after them.
const FOLDERS_MAX: usize = 10_000;
/// Runs that one query returns.
const RUNS_PER_QUERY: u32 = 1_000;

#[derive(Debug, Error)]
enum SweepError {
    #[error("the folder of outputs cannot be read")]
    Io(#[from] io::Error),
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error("the program is stopping")]
    Stopped(#[from] JoinError),
}

/// Sweeps from time to time until `stop` is cancelled.
pub(crate) async fn sweep(output: Arc<OutputStore>, store: Store, stop: CancellationToken) {
    let mut after = None;
    while stop.run_until_cancelled(tokio::time::sleep(INTERVAL)).await.is_some() {
        match stop.run_until_cancelled(sweep_once(&output, &store, after)).await {
            Some(Ok(reached)) => after = reached,
            Some(Err(error)) => tracing::warn!(error = %Chain(&error), "old output could not be deleted"),
            None => return,
        }
    }
}

/// Deletes output of runs that are not in the store, of those after `after`; returns where to go on, if there are more.
async fn sweep_once(
    output: &OutputStore,
    store: &Store,
    after: Option<RunId>,
) -> Result<Option<RunId>, SweepError> {
    let root = output.root.clone();
    let mut folders = spawn_blocking(move || folders(root, after)).await??;
    let reached = folders.last().copied().filter(|_| folders.len() == FOLDERS_MAX);
    let known = known_runs(store, &folders).await?;
    folders.retain(|run| !known.contains(run));
    let gone: Vec<PathBuf> = folders.iter().map(|run| output.root.join(run.to_string())).collect();
    if !gone.is_empty() {
        tracing::info!(count = gone.len(), "output of deleted runs is deleted");
        spawn_blocking(move || gone.iter().try_for_each(fs::remove_dir_all)).await??;
    }
    Ok(reached)
}

/// Returns the runs that have output, in order, at most [`FOLDERS_MAX`] after `after`.
fn folders(root: PathBuf, after: Option<RunId>) -> io::Result<Vec<RunId>> {
    let mut first = BTreeSet::new();
    for entry in fs::read_dir(root)? {
        // What is not named after a run is not ours.
        let Some(run) = entry?.file_name().to_str().and_then(|name| name.parse::<RunId>().ok()) else {
            continue;
        };
        if after.is_none_or(|after| run > after) {
            first.insert(run);
            if first.len() > FOLDERS_MAX {
                first.pop_last();
            }
        }
    }
    Ok(first.into_iter().collect())
}

/// Returns the runs of the store between the first and the last of `runs`.
async fn known_runs(store: &Store, runs: &[RunId]) -> Result<BTreeSet<RunId>, QueryError> {
    let mut known = BTreeSet::new();
    let (Some(first), Some(last)) = (runs.first(), runs.last()) else { return Ok(known) };
    // Lists go back in time from the run after the last one.
    let mut before = RunId::from_bytes(u128::from_be_bytes(*last.as_bytes()).saturating_add(1).to_be_bytes());
    loop {
        let page = store.runs(&RunFilter::default(), Some(before), RUNS_PER_QUERY).await?;
        let oldest = page.rows.last().map(|row| row.run);
        known.extend(page.rows.into_iter().map(|row| row.run));
        match (page.next, oldest) {
            (Some(next), Some(oldest)) if oldest > *first => before = next,
            _ => return Ok(known),
        }
    }
}

#[cfg(test)]
mod tests {
    use millrace_common::{id::InstanceId, time::Timestamp};
    use millrace_store::StoreConfig;

    use super::*;

    #[tokio::test]
    async fn output_of_runs_that_are_not_in_the_store_goes() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&StoreConfig::sqlite(&folder.path().join("m.db"))).await.unwrap();
        let output = OutputStore::open(folder.path().join("output")).unwrap();
        for seconds in 1..4 {
            let run = RunId::new(Timestamp::from_micros(seconds * 1_000_000), 7);
            output.append(InstanceId { run, index: 0 }.attempt(1), 0, b"x".to_vec(), true).await.unwrap();
        }
        fs::create_dir(folder.path().join("output/lost+found")).unwrap();
        assert_eq!(sweep_once(&output, &store, None).await.unwrap(), None);
        let left: Vec<_> = fs::read_dir(folder.path().join("output")).unwrap().collect();
        assert_eq!(left.len(), 1, "{left:?}");
    }

    #[test]
    fn folders_come_in_order_after_the_last_one() {
        let folder = tempfile::tempdir().unwrap();
        let runs: Vec<RunId> = (1..5).map(|n| RunId::new(Timestamp::from_micros(n * 1_000_000), 7)).collect();
        for run in runs.iter().rev() {
            fs::create_dir(folder.path().join(run.to_string())).unwrap();
        }
        assert_eq!(folders(folder.path().to_owned(), None).unwrap(), runs);
        assert_eq!(folders(folder.path().to_owned(), Some(runs[1])).unwrap(), runs[2..]);
    }
}

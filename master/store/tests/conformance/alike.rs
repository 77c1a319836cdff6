//! The same batches, on every database, side by side.

use std::cell::Cell;

use millrace_core::Change;
use millrace_store::query::RunFilter;
use proptest::test_runner::{Config, TestRunner};

use crate::{
    model,
    place::{Place, mariadb, postgres, sqlite},
    sample::lead,
};

const CASES: u32 = 8;

pub(crate) fn the_same_batches_give_the_same_rows() {
    let (Some(sqlite), Some(postgres), Some(mariadb)) = (sqlite(), postgres(), mariadb()) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases: CASES, ..Config::default() });
    let number = Cell::new(0);
    runner
        .run(&model::steps(), |batches| {
            number.set(number.get() + 1);
            let batches = model::changes(batches);
            let rows = |place: &Place| runtime.block_on(rows(place.fresh(number.get()), &batches));
            let expected = rows(&sqlite);
            assert_eq!(rows(&postgres), expected, "PostgreSQL has what SQLite has");
            assert_eq!(rows(&mariadb), expected, "MariaDB has what SQLite has");
            Ok(())
        })
        .unwrap();
}

/// Commits the batches and returns everything that can be read of them, as text.
async fn rows(place: Place, batches: &[Vec<Change>]) -> String {
    let store = place.open().await;
    let mut writer = lead(&store, "first").await;
    for batch in batches {
        writer.commit_changes(batch).await.unwrap();
    }
    let mut text = format!("{:#?}\n{:#?}\n", store.leadership().await.unwrap(), store.load().await.unwrap());
    text.push_str(&format!("{:#?}\n", store.workflows(None, 100).await.unwrap()));
    let runs = store.runs(&RunFilter::default(), None, 1_000).await.unwrap();
    for run in &runs.rows {
        text.push_str(&format!("{:#?}\n", store.run(run.run).await.unwrap()));
    }
    text.push_str(&format!("{runs:#?}"));
    store.close().await;
    text
}

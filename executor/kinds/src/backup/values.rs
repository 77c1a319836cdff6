//! What a backup hands on to later tasks, and its last words in the log.

use std::time::Duration;

use millrace_common::limits::VALUES_BYTES_MAX;
use serde_json::{Map, Value, json};

use super::Saved;
use crate::run::Context;

/// Returns the values of a backup. Lists that would not fit are left out; the manifests have them.
pub(super) fn values(saved: &[Saved], took: Duration, ctx: &Context) -> Map<String, Value> {
    for one in saved {
        let manifest = &one.manifest;
        ctx.log(format_args!(
            "{}: {} tables, {} bytes as {} bytes in {}, sha256 {}",
            one.database,
            manifest.facts.table_count,
            manifest.bytes,
            manifest.compressed_bytes,
            one.file.display(),
            manifest.sha256,
        ));
    }
    let mut values = Map::from_iter([
        ("bytes".to_owned(), json!(saved.iter().map(|one| one.manifest.bytes).sum::<u64>())),
        (
            "compressed_bytes".to_owned(),
            json!(saved.iter().map(|one| one.manifest.compressed_bytes).sum::<u64>()),
        ),
        ("tables".to_owned(), json!(saved.iter().map(|one| one.manifest.facts.table_count).sum::<usize>())),
        ("databases".to_owned(), json!(saved.len())),
        ("seconds".to_owned(), json!((took.as_secs_f64() * 1_000.0).round() / 1_000.0)),
        (
            "warnings".to_owned(),
            json!(saved.iter().map(|one| one.manifest.facts.warnings.len()).sum::<usize>()),
        ),
        ("deleted".to_owned(), json!(saved.iter().map(|one| one.deleted).sum::<usize>())),
    ]);
    let lists = [("checksum".to_owned(), checksum(saved)), ("files".to_owned(), files(saved))];
    let bytes: usize = lists.iter().map(|(_, list)| list.to_string().len()).sum();
    if bytes <= VALUES_BYTES_MAX / 2 {
        values.extend(lists);
    } else {
        ctx.log(format_args!("{} databases are too many to list their files as values", saved.len()));
    }
    values
}

/// Returns the sum of the one file, or those of several by database.
fn checksum(saved: &[Saved]) -> Value {
    match saved {
        [one] => json!(one.manifest.sha256),
        many => many.iter().map(|one| (one.database.to_string(), json!(one.manifest.sha256))).collect(),
    }
}

fn files(saved: &[Saved]) -> Value {
    saved.iter().map(|one| json!(one.file.display().to_string())).collect()
}

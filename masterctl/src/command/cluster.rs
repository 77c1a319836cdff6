//! The cluster and its executors.

use std::time::Duration;

use millrace_common::text::ShowDuration;
use millrace_proto::v1;
use serde_json::{Value, json};

use crate::{
    cli::Global,
    client,
    failure::Failure,
    output::{Printable, print, table},
};

pub(super) async fn executors(global: &Global) -> Result<(), Failure> {
    let listed =
        client::connect(global).await?.list_executors(v1::ListExecutorsRequest {}).await?.into_inner();
    print(&Executors(listed), global.output)?;
    Ok(())
}

pub(super) async fn status(global: &Global) -> Result<(), Failure> {
    let cluster = client::connect(global).await?.get_cluster(v1::GetClusterRequest {}).await?.into_inner();
    print(&Status(cluster), global.output)?;
    Ok(())
}

struct Executors(v1::ListExecutorsResponse);

impl Printable for Executors {
    fn value(&self) -> Value {
        let one = |executor: &v1::ExecutorView| {
            json!({
                "executor": executor.name,
                "state": executor.state,
                "slots": executor.slots,
                "slots_used": executor.slots_used,
                "labels": sorted(executor),
                "kinds": executor.kinds,
                "version": executor.version,
                "silent_ms": executor.silent_ms,
            })
        };
        json!({ "executors": self.0.executors.iter().map(one).collect::<Vec<_>>() })
    }

    fn text(&self) -> String {
        let rows = self.0.executors.iter().map(|executor| {
            let labels: Vec<String> =
                sorted(executor).iter().map(|(key, value)| format!("{key}={value}")).collect();
            let silent =
                executor.silent_ms.map(|silent| ShowDuration(Duration::from_millis(silent)).to_string());
            vec![
                executor.name.clone(),
                executor.state.clone(),
                format!("{}/{}", executor.slots_used, executor.slots),
                labels.join(","),
                executor.kinds.join(","),
                silent.unwrap_or_default(),
                executor.version.clone(),
            ]
        });
        table(&["executor", "state", "slots", "labels", "kinds", "silent for", "version"], rows.collect())
    }
}

fn sorted(executor: &v1::ExecutorView) -> std::collections::BTreeMap<&String, &String> {
    executor.labels.iter().collect()
}

struct Status(v1::GetClusterResponse);

impl Printable for Status {
    fn value(&self) -> Value {
        let Self(cluster) = self;
        json!({
            "term": cluster.term,
            "leader": cluster.holder,
            "version": cluster.version,
            "store": cluster.store,
            "runs_live": cluster.runs_live,
            "attempts_live": cluster.attempts_live,
            "ready": cluster.ready,
        })
    }

    fn text(&self) -> String {
        let Self(cluster) = self;
        let rows = vec![
            vec!["leader".to_owned(), cluster.holder.clone()],
            vec!["term".to_owned(), cluster.term.to_string()],
            vec!["version".to_owned(), cluster.version.clone()],
            vec!["store".to_owned(), cluster.store.clone()],
            vec!["unfinished runs".to_owned(), cluster.runs_live.to_string()],
            vec!["live attempts".to_owned(), cluster.attempts_live.to_string()],
            vec!["tasks that wait for a place".to_owned(), cluster.ready.to_string()],
        ];
        table(&["cluster", ""], rows)
    }
}

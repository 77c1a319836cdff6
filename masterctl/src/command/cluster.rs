//! The cluster and its executors.

use std::time::Duration;

use millrace_common::text::ShowDuration;
use millrace_proto::v1;
use serde_json::{Value, json};

use crate::{
    cli::Global,
    client,
    failure::Failure,
    output::{Printable, one_line, print, table},
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

pub(super) async fn hand_over(global: &Global) -> Result<(), Failure> {
    let done = client::connect(global).await?.hand_over(v1::HandOverRequest {}).await?.into_inner();
    print(&HandedOver(done), global.output)?;
    Ok(())
}

pub(super) async fn adopt_etcd(global: &Global) -> Result<(), Failure> {
    let done = client::connect(global).await?.adopt_etcd(v1::AdoptEtcdRequest {}).await?.into_inner();
    print(&Adopted(done), global.output)?;
    Ok(())
}

struct HandedOver(v1::HandOverResponse);

impl Printable for HandedOver {
    fn value(&self) -> Value {
        json!({ "from": self.0.from, "term": self.0.term })
    }

    fn text(&self) -> String {
        let Self(done) = self;
        format!("{} makes way; its term was {}\n", done.from, done.term)
    }
}

struct Adopted(v1::AdoptEtcdResponse);

impl Printable for Adopted {
    fn value(&self) -> Value {
        let Self(done) = self;
        json!({ "etcd": done.etcd, "generation": done.generation, "changed": done.changed })
    }

    fn text(&self) -> String {
        let Self(done) = self;
        let what = if done.changed { "adopted" } else { "adopted again" };
        format!("etcd {} {what}; terms begin with generation {}\n", done.etcd, done.generation)
    }
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
                "is_space_low": executor.is_space_low,
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
                if executor.is_space_low {
                    format!("{}, short of disk space", executor.state)
                } else {
                    executor.state.clone()
                },
                format!("{}/{}", executor.slots_used, executor.slots),
                labels.join(","),
                silent.unwrap_or_default(),
                executor.version.clone(),
                // With spaces, so that a narrow terminal has where to break the line.
                executor.kinds.join(" "),
            ]
        });
        let header = ["executor", "state", "slots", "labels", "silent for", "version", "kinds"];
        table(&header, &["version", "labels", "silent for"], rows.collect())
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
        let rows = [
            ("leader", cluster.holder.clone()),
            ("term", cluster.term.to_string()),
            ("version", cluster.version.clone()),
            ("store", cluster.store.clone()),
            ("unfinished runs", cluster.runs_live.to_string()),
            ("live attempts", cluster.attempts_live.to_string()),
            ("tasks that wait for a place", cluster.ready.to_string()),
        ];
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let line = |(name, value): &(&str, String)| format!("{name:<width$}  {}\n", one_line(value));
        rows.iter().map(line).collect()
    }
}

//! The cluster.

mod parts;

use millrace_proto::v1;
use serde_json::{Value, json};

use crate::{
    cli::Global,
    client,
    failure::Failure,
    output::{Printable, one_line, print, time_value},
};

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
            "schedules_paused_since": time_value(cluster.schedules_paused_since),
            "problem": cluster.problem,
            "answered_by": cluster.answered_by,
            "is_from_leader": cluster.is_from_leader,
            "masters": cluster.masters.iter().map(parts::master).collect::<Vec<_>>(),
            "etcd": cluster.etcd.as_ref().map(parts::etcd),
            "database": cluster.database.as_ref().map(parts::database),
            "executors_connected": cluster.executors_connected,
            "executors_known": cluster.executors_known,
            "slots": cluster.slots,
            "slots_used": cluster.slots_used,
        })
    }

    fn text(&self) -> String {
        let Self(cluster) = self;
        let mut rows = parts::heading(cluster);
        if cluster.is_from_leader {
            rows.extend([
                ("unfinished runs", cluster.runs_live.to_string()),
                ("live attempts", cluster.attempts_live.to_string()),
                ("ready tasks", cluster.ready.to_string()),
                ("executors", parts::executors(cluster)),
            ]);
            rows.extend(parts::schedule_rows(cluster));
        }
        rows.extend(cluster.database.iter().flat_map(parts::database_rows));
        rows.extend(cluster.masters.iter().flat_map(parts::master_rows));
        let members = cluster.etcd.iter().flat_map(|etcd| &etcd.members);
        rows.extend(members.flat_map(parts::etcd_rows));
        let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        let line = |(name, value): &(&str, String)| format!("{name:<width$}  {}\n", one_line(value));
        rows.iter().map(line).collect()
    }
}

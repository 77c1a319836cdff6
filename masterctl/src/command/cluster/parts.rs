//! What a cluster depends on, some rows for each part.
//!
//! A row is a word and what is to be said of it. What would be too long for a narrow terminal goes on in rows without a
//! word, so that names and addresses stay whole.

use std::time::Duration;

use millrace_common::text::ShowDuration;
use millrace_proto::v1;
use serde_json::{Value, json};

use crate::output::{time, time_value};

/// A word, empty where the row goes on with the one above, and what is to be said.
type Row = (&'static str, String);

/// Who leads, and what is wrong.
pub(super) fn heading(cluster: &v1::GetClusterResponse) -> Vec<Row> {
    let leader = if cluster.holder.is_empty() { "nobody" } else { &cluster.holder };
    let term = if cluster.term == 0 { "not known".to_owned() } else { cluster.term.to_string() };
    let mut rows = vec![("leader", leader.to_owned()), ("term", term)];
    if !cluster.problem.is_empty() {
        rows.push(("problem", cluster.problem.clone()));
    }
    if !cluster.is_from_leader {
        rows.push(("answered by", format!("{}, which does not lead", cluster.answered_by)));
    }
    rows.extend([("version", cluster.version.clone()), ("store", cluster.store.clone())]);
    rows
}

pub(super) fn executors(cluster: &v1::GetClusterResponse) -> String {
    format!(
        "{} of {} connected, {} of {} slots taken",
        cluster.executors_connected, cluster.executors_known, cluster.slots_used, cluster.slots
    )
}

pub(super) fn master(master: &v1::MasterView) -> Value {
    json!({
        "name": master.name,
        "address": master.address,
        "state": master.state,
        "version": master.version,
        "database_problem": master.database_problem,
    })
}

pub(super) fn master_rows(master: &v1::MasterView) -> Vec<Row> {
    let v1::MasterView { name, address, state, version, database_problem } = master;
    let version = if version.is_empty() { String::new() } else { format!(", version {version}") };
    let mut rows = vec![("master", format!("{name}: {state}{version}")), ("", address.clone())];
    if !database_problem.is_empty() {
        rows.push(("", format!("without its database: {database_problem}")));
    }
    rows
}

pub(super) fn etcd(etcd: &v1::EtcdView) -> Value {
    let one = |member: &v1::EtcdMemberView| json!({ "address": member.address, "version": member.version, "problem": member.problem });
    json!({ "members": etcd.members.iter().map(one).collect::<Vec<_>>() })
}

pub(super) fn etcd_rows(member: &v1::EtcdMemberView) -> [Row; 2] {
    let v1::EtcdMemberView { address, version, problem } = member;
    let said = match problem.as_str() {
        "" => format!("answers, version {version}"),
        problem => format!("does not answer: {problem}"),
    };
    [("etcd", address.clone()), ("", said)]
}

pub(super) fn database(database: &v1::DatabaseView) -> Value {
    json!({
        "engine": database.engine,
        "name": database.name,
        "problem": database.problem,
        "problem_since": time_value(database.problem_since),
        "committed_at": time_value(database.committed_at),
        "commit_us": database.commit_us,
        "answered_at": time_value(database.answered_at),
        "answer_us": database.answer_us,
    })
}

pub(super) fn database_rows(database: &v1::DatabaseView) -> Vec<Row> {
    let mut rows = vec![("database", database.name.clone())];
    if database.problem.is_empty() {
        rows.push(("", last_seen(database)));
    } else {
        rows.push(("", format!("away since {}", time(database.problem_since))));
        rows.push(("", database.problem.clone()));
    }
    rows
}

/// Says when the database was last seen to work, and how fast it was.
fn last_seen(database: &v1::DatabaseView) -> String {
    let took = |micros: Option<i64>| {
        let micros = micros.and_then(|micros| u64::try_from(micros).ok()).unwrap_or(0);
        // Less than a millisecond says that it is fast, which is all there is to know.
        ShowDuration(Duration::from_millis(micros.div_ceil(1_000)))
    };
    match (database.committed_at, database.answered_at) {
        (Some(_), _) => {
            format!("last commit {} in {}", time(database.committed_at), took(database.commit_us))
        }
        (None, Some(_)) => {
            format!("last answer {} in {}", time(database.answered_at), took(database.answer_us))
        }
        (None, None) => "nothing was asked yet".to_owned(),
    }
}

pub(super) fn schedule_rows(cluster: &v1::GetClusterResponse) -> Vec<Row> {
    match cluster.schedules_paused_since {
        None => vec![("schedules", "as defined".to_owned())],
        Some(since) => vec![
            ("schedules", format!("all paused since {}", time(Some(since)))),
            ("", "by schedules_paused".to_owned()),
        ],
    }
}

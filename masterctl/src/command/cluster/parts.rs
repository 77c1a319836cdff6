//! What a cluster depends on, a line for each part.

use std::time::Duration;

use millrace_common::text::ShowDuration;
use millrace_proto::v1;
use serde_json::{Value, json};

use crate::output::{time, time_value};

/// Who leads, and what is wrong.
pub(super) fn heading(cluster: &v1::GetClusterResponse) -> Vec<(&'static str, String)> {
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

pub(super) fn master_line(master: &v1::MasterView) -> String {
    let v1::MasterView { name, address, state, version, database_problem } = master;
    let version = if version.is_empty() { String::new() } else { format!(", version {version}") };
    let problem = match database_problem.as_str() {
        "" => String::new(),
        problem => format!(", without its database: {problem}"),
    };
    format!("{name} at {address}: {state}{version}{problem}")
}

pub(super) fn etcd(etcd: &v1::EtcdView) -> Value {
    let one = |member: &v1::EtcdMemberView| json!({ "address": member.address, "version": member.version, "problem": member.problem });
    json!({ "members": etcd.members.iter().map(one).collect::<Vec<_>>() })
}

pub(super) fn etcd_line(member: &v1::EtcdMemberView) -> String {
    let v1::EtcdMemberView { address, version, problem } = member;
    match problem.as_str() {
        "" => format!("{address}: answers, version {version}"),
        problem => format!("{address}: does not answer: {problem}"),
    }
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

pub(super) fn database_line(database: &v1::DatabaseView) -> String {
    if !database.problem.is_empty() {
        let since = time(database.problem_since);
        return format!("{}: away since {since}: {}", database.name, database.problem);
    }
    let took = |micros: Option<i64>| {
        let took = Duration::from_micros(micros.and_then(|micros| u64::try_from(micros).ok()).unwrap_or(0));
        // Less than a millisecond says that it is fast, which is all there is to know.
        ShowDuration(Duration::from_millis(
            u64::try_from(took.as_micros().div_ceil(1_000)).unwrap_or(u64::MAX),
        ))
    };
    let seen = match (database.committed_at, database.answered_at) {
        (Some(_), _) => {
            format!("last commit at {}, which took {}", time(database.committed_at), took(database.commit_us))
        }
        (None, Some(_)) => {
            format!("last answer at {}, which took {}", time(database.answered_at), took(database.answer_us))
        }
        (None, None) => "nothing was asked yet".to_owned(),
    };
    format!("{}: {seen}", database.name)
}

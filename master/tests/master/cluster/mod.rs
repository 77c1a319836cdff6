//! Several masters as processes, with a real etcd of three members and a real database.

mod member;

mod election;
mod hand_over;
mod loss;
mod refusal;
mod settings;

use std::time::Duration;

use millrace_proto::v1;
use millrace_servers::{Etcd, Postgres, etcd, postgres, skipped};
use tonic::Status;

use self::member::Member;
use crate::support::until;

/// A database and an etcd; `None`, noted, where one of them is not installed.
fn servers() -> Option<(Postgres, Etcd)> {
    let missing = postgres::missing().or_else(etcd::missing);
    if let Some(reason) = missing {
        skipped(&reason);
        return None;
    }
    Some((Postgres::start(), Etcd::start(3)))
}

/// Timing of the tests: a lease short enough to wait for, an authority long enough for a busy machine.
const TTL: Duration = Duration::from_secs(4);
const AUTHORITY: Duration = Duration::from_millis(2_400);

/// Masters named m1, m2 and so on, that know `etcd` and share `database`.
fn members(count: usize, database: &Postgres, etcd: &Etcd) -> Vec<Member> {
    (1..=count).map(|number| Member::new(&format!("m{number}"), database, etcd)).collect()
}

/// Starts all of them and waits until one leads; returns its index.
async fn led(members: &mut [Member]) -> usize {
    for member in members.iter_mut() {
        member.start();
    }
    let leader = leader_of(members).await;
    index_of(members, &leader.holder)
}

fn index_of(members: &[Member], name: &str) -> usize {
    members.iter().position(|member| member.name == name).unwrap()
}

/// Waits until all that run agree on who leads.
async fn leader_of(members: &[Member]) -> v1::GetClusterResponse {
    until("the masters to agree on a leader", async || {
        let mut found: Option<v1::GetClusterResponse> = None;
        for member in members.iter().filter(|member| member.is_running()) {
            let cluster = member.cluster().await.ok().filter(|cluster| cluster.is_from_leader)?;
            if found.is_some_and(|other| (other.term, other.holder) != (cluster.term, cluster.holder.clone()))
            {
                return None;
            }
            found = Some(cluster);
        }
        found
    })
    .await
}

/// Puts the definition of a workflow in force through a master.
async fn apply(member: &Member, name: &str) -> Result<(), Status> {
    let source = format!("workflow: {name}\ntasks:\n  a: {{ kind: shell, with: {{ command: [make] }} }}\n");
    let request = v1::ApplyWorkflowRequest { source, dry_run: false };
    member.control().await?.apply_workflow(request).await.map(drop)
}

/// Returns the names of the workflows, as a master reads them.
async fn workflows(member: &Member) -> Vec<String> {
    let request = v1::ListWorkflowsRequest::default();
    let listed = member.control().await.unwrap().list_workflows(request).await.unwrap().into_inner();
    listed.workflows.into_iter().map(|workflow| workflow.name).collect()
}

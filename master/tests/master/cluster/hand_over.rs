//! A leadership that is given away on purpose.

use std::time::Duration;

use millrace_proto::v1;
use nix::sys::signal::Signal;

use super::{apply, leader_of, led, members, servers};
use crate::support::until;

/// How long nobody may answer a write while the leadership moves; generous for a busy machine, and half a lease.
const GAP_MAX: Duration = Duration::from_secs(2);

#[tokio::test]
async fn a_hand_over_ends_one_term_and_begins_the_next_within_a_moment() {
    let Some((database, etcd)) = servers() else { return };
    let mut members = members(2, &database, &etcd);
    let first = led(&mut members).await;
    let before = leader_of(&members).await;
    apply(&members[first], "w").await.unwrap();
    // Asked of the standby, which passes it on.
    let mut control = members[1 - first].control().await.unwrap();
    let answer = control.hand_over(v1::HandOverRequest {}).await.unwrap().into_inner();
    assert_eq!((answer.from, answer.term), (before.holder.clone(), before.term));
    let asked = tokio::time::Instant::now();
    until("a write to be done again", async || {
        let cluster = control.get_cluster(v1::GetClusterRequest {}).await.ok()?.into_inner();
        (cluster.term > before.term).then_some(())
    })
    .await;
    let gap = asked.elapsed();
    println!("gap of a hand-over: {gap:?}");
    assert!(gap < GAP_MAX, "{gap:?}");
    apply(&members[1 - first], "v").await.unwrap();
    assert_eq!(members[first].ended().await, Some(75), "to be started again, as a standby");
    members[first].start();
    assert_eq!(leader_of(&members).await.holder, members[1 - first].name);
}

#[tokio::test]
async fn a_leader_that_is_stopped_gives_the_leadership_back() {
    let Some((database, etcd)) = servers() else { return };
    let mut members = members(2, &database, &etcd);
    let first = led(&mut members).await;
    let before = leader_of(&members).await;
    members[first].signal(Signal::SIGTERM);
    let asked = tokio::time::Instant::now();
    let other = &members[1 - first];
    until("the other master to lead", async || {
        other.cluster().await.ok().filter(|cluster| cluster.term > before.term)
    })
    .await;
    assert!(asked.elapsed() < GAP_MAX, "{:?}", asked.elapsed());
    assert_eq!(members[first].ended().await, Some(0));
}

#[tokio::test]
async fn a_standby_that_is_stopped_ends_with_success() {
    let Some((database, etcd)) = servers() else { return };
    let mut members = members(2, &database, &etcd);
    let first = led(&mut members).await;
    members[1 - first].signal(Signal::SIGTERM);
    assert_eq!(members[1 - first].ended().await, Some(0));
    apply(&members[first], "w").await.unwrap();
}

//! How a leadership is lost, and that whoever lost it does nothing any more.

use std::time::Duration;

use millrace_proto::v1;
use nix::sys::signal::Signal;

use super::{AUTHORITY, apply, index_of, leader_of, led, members, servers, workflows};
use crate::support::{until, within};

#[tokio::test]
async fn a_killed_leader_is_replaced_long_before_its_lease_runs_out() {
    let Some((database, etcd)) = servers() else { return };
    let mut members = members(3, &database, &etcd);
    // A lease of 10 s: whoever waits for it is found out.
    members.iter_mut().for_each(super::Member::use_default_timing);
    let first = led(&mut members).await;
    let before = leader_of(&members).await;
    until("both standbys to hold a link", async || {
        members[first].log().matches("another master follows").nth(1).map(drop)
    })
    .await;
    members[first].signal(Signal::SIGKILL);
    let killed = tokio::time::Instant::now();
    members[first].ended().await;
    let after = leader_of(&members).await;
    let took = killed.elapsed();
    println!("take-over after a kill: {took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert!(after.term > before.term && after.holder != before.holder, "{before:?} {after:?}");
    // The killed one comes back as a standby.
    members[first].start();
    let again = leader_of(&members).await;
    assert_eq!((again.term, again.holder), (after.term, after.holder));
    apply(&members[first], "w").await.unwrap();
}

#[tokio::test]
async fn a_leader_frozen_past_its_lease_ends_when_it_is_thawed_and_writes_nothing() {
    let Some((database, etcd)) = servers() else { return };
    let mut members = members(2, &database, &etcd);
    let frozen = led(&mut members).await;
    let other = 1 - frozen;
    let before = leader_of(&members).await;
    let mut control = members[frozen].control().await.unwrap();
    members[frozen].signal(Signal::SIGSTOP);
    // Asked for while it is frozen: it finds the question when it goes on.
    let source = "workflow: late\ntasks:\n  a: { kind: shell, with: { command: [make] } }\n".to_owned();
    let mut asking = tokio::task::JoinSet::new();
    asking.spawn(
        async move { control.apply_workflow(v1::ApplyWorkflowRequest { source, dry_run: false }).await },
    );
    let after = until("the other master to lead", async || {
        members[other].cluster().await.ok().filter(|cluster| cluster.term > before.term)
    })
    .await;
    apply(&members[other], "new").await.unwrap();
    members[frozen].signal(Signal::SIGCONT);
    assert_eq!(members[frozen].ended().await, Some(75), "{}", members[frozen].log());
    let answer = within("an answer to the late question", asking.join_next()).await.unwrap().unwrap();
    assert!(answer.is_err(), "{answer:?}");
    assert_eq!(workflows(&members[other]).await, ["new"]);
    assert_eq!(members[other].cluster().await.unwrap().term, after.term);
}

#[tokio::test]
async fn a_revoked_lease_ends_the_leader() {
    let Some((database, etcd)) = servers() else { return };
    let mut members = members(2, &database, &etcd);
    let first = led(&mut members).await;
    let before = leader_of(&members).await;
    etcd.ctl(&["lease", "revoke", &etcd.lease_of("/millrace/leader")]);
    assert_eq!(members[first].ended().await, Some(75), "{}", members[first].log());
    assert!(leader_of(&members).await.term > before.term);
}

#[tokio::test]
async fn a_leader_whose_key_was_deleted_ends_although_its_lease_lives() {
    let Some((database, etcd)) = servers() else { return };
    let mut members = members(2, &database, &etcd);
    let first = led(&mut members).await;
    etcd.ctl(&["del", "/millrace/leader"]);
    assert_eq!(members[first].ended().await, Some(75), "{}", members[first].log());
    let leader = leader_of(&members).await;
    assert_ne!(index_of(&members, &leader.holder), first);
}

#[tokio::test]
async fn without_a_quorum_of_etcd_the_leader_ends_in_time_and_somebody_leads_after_it_is_back() {
    let Some((database, mut etcd)) = servers() else { return };
    let mut members = members(2, &database, &etcd);
    let first = led(&mut members).await;
    let before = leader_of(&members).await;
    let lost = tokio::time::Instant::now();
    etcd.kill(0);
    etcd.kill(1);
    assert_eq!(members[first].ended().await, Some(75));
    let took = lost.elapsed();
    // Its authority, giving back what nobody takes, and the stop of its calls.
    assert!(took < AUTHORITY + Duration::from_secs(12), "{took:?}");
    let log = members[first].log();
    assert!(log.contains("another master may lead, the term ends"), "{log}");
    etcd.resume_all();
    assert!(leader_of(&members).await.term > before.term);
}

#[tokio::test]
async fn the_loss_of_one_etcd_member_and_a_compaction_change_nothing() {
    let Some((database, mut etcd)) = servers() else { return };
    let mut members = members(3, &database, &etcd);
    led(&mut members).await;
    let before = leader_of(&members).await;
    for (index, member) in members.iter().enumerate() {
        etcd.ctl(&["put", "other", &index.to_string()]);
        let shown: serde_json::Value =
            serde_json::from_str(&etcd.ctl(&["get", "other", "-w", "json"])).unwrap();
        etcd.ctl(&["compact", &shown["header"]["revision"].to_string()]);
        etcd.kill(index);
        apply(member, &format!("w{index}")).await.unwrap();
        etcd.resume_all();
    }
    let after = leader_of(&members).await;
    assert_eq!((after.term, after.holder), (before.term, before.holder.clone()));
    // Their watches went through all of this, and still notice.
    let first = index_of(&members, &before.holder);
    members[first].signal(Signal::SIGTERM);
    assert_eq!(members[first].ended().await, Some(0));
    assert!(leader_of(&members).await.term > before.term);
}

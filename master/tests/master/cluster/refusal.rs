//! What keeps a master from leading, and what it says about that.

use millrace_proto::v1;
use millrace_servers::{Certificates, Etcd, Place, Postgres, etcd, etcd::Settings, postgres, skipped};
use nix::sys::signal::Signal;

use super::{Member, apply, leader_of, led, members, servers};
use crate::support::until;

/// Starts a master that cannot go on, and returns its exit code and what it said.
async fn refused(member: &mut Member) -> (Option<i32>, String) {
    member.start();
    (member.ended().await, member.log())
}

#[tokio::test]
async fn an_etcd_with_known_faults_is_refused_unless_that_is_allowed() {
    let Some((database, etcd)) = servers() else { return };
    let version = etcd.ctl(&["version"]);
    if !version.contains("3.4.") {
        return skipped(&format!("this etcd is not old: {version}"));
    }
    let mut member = members(1, &database, &etcd).remove(0);
    member.unset("etcd.allow_old_etcd");
    let (code, said) = refused(&mut member).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("upgrade it to 3.5.30 or 3.6.11 or later"), "{said}");
}

#[tokio::test]
async fn a_wrong_password_of_etcd_is_said_and_the_right_one_leads() {
    let Some((database, etcd)) = servers() else { return };
    let mut member = members(1, &database, &etcd).remove(0);
    etcd.ctl(&["user", "add", "root:the right one"]);
    etcd.ctl(&["user", "grant-role", "root", "root"]);
    etcd.ctl(&["auth", "enable"]);
    let file = member.folder().join("password");
    std::fs::write(&file, "a wrong one\n").unwrap();
    member.set("etcd.user", "root");
    member.set("etcd.password_file", file.display().to_string());
    let (code, said) = refused(&mut member).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("does not accept `etcd.user` with the password in `etcd.password_file`"), "{said}");
    assert!(!said.contains("a wrong one"), "{said}");
    std::fs::write(&file, "the right one\n").unwrap();
    member.start();
    assert_eq!(leader_of(std::slice::from_ref(&member)).await.holder, "m1");
}

#[tokio::test]
async fn an_etcd_that_asks_for_a_certificate_takes_ours_and_an_unknown_authority_is_refused() {
    let Some(database) = database_alone() else { return };
    let here = Place::here().address();
    let (Some(own), Some(other)) = (Certificates::make(here), Certificates::make(here)) else {
        return skipped("openssl makes no certificates here");
    };
    let etcd = Etcd::start_with(1, Settings { certificates: Some(own), ..Settings::default() });
    let mut member = members(1, &database, &etcd).remove(0);
    let tls = |authority: String| {
        let (cert, key) = (etcd.certificate("own.pem"), etcd.certificate("own.key"));
        toml::Table::from_iter(
            [("ca_file", authority), ("cert_file", cert), ("key_file", key)]
                .map(|(key, file)| (key.to_owned(), file.into())),
        )
    };
    member.set("etcd.tls", tls(other.path("ca.pem")));
    member.start();
    until("the master to say that it does not trust this etcd", async || {
        member.log().contains("no member of etcd answers").then_some(())
    })
    .await;
    member.signal(Signal::SIGTERM);
    assert_eq!(member.ended().await, Some(0));
    assert!(!member.log().contains("term="), "it has not led: {}", member.log());
    member.set("etcd.tls", tls(etcd.certificate("ca.pem")));
    member.start();
    assert_eq!(leader_of(std::slice::from_ref(&member)).await.holder, "m1");
}

#[tokio::test]
async fn an_etcd_that_was_made_anew_is_refused_until_it_is_adopted() {
    let Some((database, mut etcd)) = servers() else { return };
    let mut members = members(2, &database, &etcd);
    let first = led(&mut members).await;
    let before = leader_of(&members).await;
    apply(&members[0], "w").await.unwrap();
    etcd.wipe();
    assert_eq!(members[first].ended().await, Some(75));
    let standby = &members[1 - first];
    until("the standby to say what it found", async || {
        standby.log().contains("is not the one that this cluster belongs to").then_some(())
    })
    .await;
    let seen = standby.cluster().await.unwrap();
    assert!(!seen.is_from_leader, "nobody leads by the word of an unknown etcd: {seen:?}");
    let mut control = standby.control().await.unwrap();
    let adopted = control.adopt_etcd(v1::AdoptEtcdRequest {}).await.unwrap().into_inner();
    assert_eq!((adopted.generation, adopted.changed), (2, true));
    let after = leader_of(&members).await;
    assert!(after.term > before.term, "though the new etcd counts from the beginning: {after:?}");
    assert_eq!(after.term >> 48, 2);
    apply(standby, "v").await.unwrap();
}

#[tokio::test]
async fn an_etcd_that_counts_lower_than_before_is_refused_until_it_is_adopted() {
    let Some((database, etcd)) = servers() else { return };
    let mut members = members(1, &database, &etcd);
    led(&mut members).await;
    members[0].signal(Signal::SIGTERM);
    members[0].ended().await;
    // As after a restore of etcd from a backup: the database has seen leaderships that etcd has forgotten.
    let seen = (1_u64 << 48) + (1 << 40);
    database.sql(&format!("update leadership set term = {seen}"));
    members[0].start();
    until("the master to say what it found", async || {
        members[0].log().contains("etcd counts lower than it did").then_some(())
    })
    .await;
    let mut control = members[0].control().await.unwrap();
    let adopted = control.adopt_etcd(v1::AdoptEtcdRequest {}).await.unwrap().into_inner();
    assert_eq!((adopted.generation, adopted.changed), (2, false));
    assert!(leader_of(&members).await.term > seen);
}

#[tokio::test]
async fn a_master_whose_database_does_not_work_does_not_try_to_lead() {
    let Some((mut database, etcd)) = servers() else { return };
    let mut members = members(2, &database, &etcd);
    let first = led(&mut members).await;
    let before = leader_of(&members).await;
    database.stop();
    members[first].signal(Signal::SIGTERM);
    assert_eq!(members[first].ended().await, Some(0));
    let standby = std::slice::from_ref(&members[1 - first]);
    until("the standby to say why it does not lead", async || {
        standby[0].log().contains("without one nobody can lead").then_some(())
    })
    .await;
    assert_eq!(etcd.ctl(&["get", "/millrace/leader"]), "", "the key is free for a master with a database");
    database.resume();
    assert!(leader_of(standby).await.term > before.term);
}

#[tokio::test]
async fn a_master_may_be_there_before_etcd() {
    let Some(database) = database_alone() else { return };
    let mut etcd = Etcd::prepare(&vec![Place::here(); 3], Settings::default());
    let mut member = members(1, &database, &etcd).remove(0);
    member.start();
    until("the master to ask for etcd", async || {
        member.log().contains("no member of etcd answers").then_some(())
    })
    .await;
    etcd.resume_all();
    assert_eq!(leader_of(std::slice::from_ref(&member)).await.holder, "m1");
}

#[tokio::test]
async fn a_file_cannot_be_the_database_of_masters_that_elect_a_leader() {
    let Some(database) = database_alone() else { return };
    let etcd = Etcd::prepare(&[Place::here()], Settings::default());
    let mut member = members(1, &database, &etcd).remove(0);
    member.use_file();
    let (code, said) = refused(&mut member).await;
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("which masters cannot share"), "{said}");
}

/// A database alone.
fn database_alone() -> Option<Postgres> {
    if let Some(reason) = postgres::missing().or_else(etcd::missing) {
        skipped(&reason);
        return None;
    }
    Some(Postgres::start())
}

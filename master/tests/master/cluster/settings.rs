//! Live settings in a real etcd: who sets them, what is refused, and what a watch goes through.

use std::process::{Command, Stdio};

use millrace_proto::v1;
use millrace_servers::Etcd;
use nix::sys::signal::Signal;
use tonic::{Code, Status};

use super::{Member, leader_of, led, members, servers};
use crate::support::until;

const KEY: &str = "/millrace/settings/";

async fn setting(member: &Member, name: &str) -> v1::SettingView {
    let request = v1::ListSettingsRequest { name: name.to_owned() };
    let listed = member.control().await.unwrap().list_settings(request).await.unwrap().into_inner();
    listed.settings.into_iter().next().unwrap()
}

async fn set(member: &Member, name: &str, value: Option<&str>) -> Result<v1::SetSettingResponse, Status> {
    let request = v1::SetSettingRequest {
        name: name.to_owned(),
        value: value.map(str::to_owned),
        by: "alice".to_owned(),
    };
    member.control().await?.set_setting(request).await.map(tonic::Response::into_inner)
}

/// Waits until a setting is as `is_so` says, as a master shows it.
async fn shows(member: &Member, name: &str, is_so: impl Fn(&v1::SettingView) -> bool) -> v1::SettingView {
    until(&format!("{} to show {name}", member.name), async || {
        let shown = setting(member, name).await;
        is_so(&shown).then_some(shown)
    })
    .await
}

fn is(value: &str) -> impl Fn(&v1::SettingView) -> bool {
    move |shown| shown.value.as_deref() == Some(value)
}

async fn history(member: &Member, name: &str) -> Vec<(String, String, String, bool)> {
    let request = v1::ListSettingChangesRequest { name: name.to_owned(), ..Default::default() };
    let listed = member.control().await.unwrap().list_setting_changes(request).await.unwrap().into_inner();
    let told = |change: v1::SettingChangeView| {
        let is_refused = !change.refusal.is_empty();
        (change.by, change.old.unwrap_or_default(), change.given.unwrap_or_default(), is_refused)
    };
    listed.changes.into_iter().map(told).collect()
}

/// Writes a setting as somebody does who knows etcd, while its members may be electing their own leader.
async fn put(etcd: &Etcd, name: &str, value: &str) {
    let key = format!("{KEY}{name}");
    until("etcd to take a key", async || etcd.try_ctl(&["put", &key, value])).await;
}

/// Puts bytes into a key that no text could name on a command line.
fn put_bytes(etcd: &Etcd, key: &str, bytes: &[u8]) {
    use std::io::Write as _;
    let mut put = Command::new("etcdctl")
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", &etcd.endpoints().join(","), "put", key])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    put.stdin.take().unwrap().write_all(bytes).unwrap();
    assert!(put.wait().unwrap().success(), "etcdctl takes the bytes");
}

fn change(by: &str, old: &str, given: &str, is_refused: bool) -> (String, String, String, bool) {
    (by.to_owned(), old.to_owned(), given.to_owned(), is_refused)
}

#[tokio::test]
async fn a_setting_is_set_through_any_master_and_shown_by_all() {
    let Some((database, etcd)) = servers() else { return };
    let mut members = members(2, &database, &etcd);
    let leader = led(&mut members).await;
    let (leader, standby) = (&members[leader], &members[1 - leader]);
    let before = setting(standby, "retention").await;
    assert_eq!((before.value.as_deref(), &*before.source), (Some("30d"), "static"));
    let answer = set(standby, "pools.mes", Some(" 04\n")).await.unwrap();
    assert!(answer.changed);
    for member in [leader, standby] {
        let shown = setting(member, "pools.mes").await;
        assert_eq!((shown.value.as_deref(), &*shown.source, &*shown.by), (Some("4"), "etcd", "alice"));
        assert!(shown.since.is_some() && shown.refused.is_none(), "{shown:?}");
    }
    assert_eq!(etcd.ctl(&["get", "--print-value-only", &format!("{KEY}pools.mes")]).trim(), "4");
    assert!(!set(leader, "pools.mes", Some("4")).await.unwrap().changed);
    assert!(set(leader, "pools.mes", None).await.unwrap().changed);
    assert_eq!(setting(standby, "pools.mes").await.value, None);
    assert_eq!(etcd.ctl(&["get", "--prefix", "--keys-only", "/millrace/settings"]).trim(), "");
    assert_eq!(
        history(standby, "pools.mes").await,
        [change("alice", "4", "", false), change("alice", "", "4", false)]
    );
    // What is wrong never reaches etcd.
    for (name, value, problem) in [
        ("pools.mes", "many", "`pools.mes` is \"many\"; it must be a whole number from 0 to 1000000"),
        ("retenton", "30d", "there is no live setting `retenton`; did you mean `retention`?"),
    ] {
        let status = set(standby, name, Some(value)).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, problem));
    }
    assert_eq!(etcd.ctl(&["get", "--prefix", "--keys-only", "/millrace/settings"]).trim(), "");
}

#[tokio::test]
async fn rubbish_in_a_key_keeps_the_last_good_value_and_says_why() {
    let Some((database, etcd)) = servers() else { return };
    let mut members = members(2, &database, &etcd);
    let leader = led(&mut members).await;
    etcd.ctl(&["put", &format!("{KEY}pools.mes"), "4"]);
    let shown = shows(&members[0], "pools.mes", is("4")).await;
    assert_eq!(shown.by, "directly in etcd");
    put_bytes(&etcd, &format!("{KEY}pools.mes"), b"\xff\xfe");
    etcd.ctl(&["put", &format!("{KEY}retenton"), "30d"]);
    let shown = shows(&members[1], "pools.mes", |shown| shown.refused.is_some()).await;
    let refused = shown.refused.unwrap();
    assert_eq!(shown.value.as_deref(), Some("4"), "the last good value");
    assert_eq!(refused.value, "\u{fffd}\u{fffd}");
    assert!(refused.reason.starts_with("`pools.mes` is not text in UTF-8"), "{}", refused.reason);
    let unknown = shows(&members[1], "retenton", |shown| shown.refused.is_some()).await;
    assert!(unknown.refused.unwrap().reason.contains("did you mean `retention`?"));
    // The next leader reads rubbish before it decides anything, and goes by what was good.
    let term = leader_of(&members).await.term;
    members[leader].signal(Signal::SIGTERM);
    members[leader].ended().await;
    let other = &members[1 - leader];
    until("the other master to lead", async || {
        other.cluster().await.ok().filter(|cluster| cluster.term > term)
    })
    .await;
    let shown = setting(other, "pools.mes").await;
    assert_eq!((shown.value.as_deref(), shown.refused.is_some()), (Some("4"), true));
    // A good value ends it, and a key that is no setting can be taken away by its name.
    set(other, "pools.mes", Some("5")).await.unwrap();
    let shown = setting(other, "pools.mes").await;
    assert_eq!((shown.value.as_deref(), shown.refused), (Some("5"), None));
    set(other, "retenton", None).await.unwrap();
    let status = other
        .control()
        .await
        .unwrap()
        .list_settings(v1::ListSettingsRequest { name: "retenton".to_owned() })
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(
        history(other, "pools.mes").await,
        [
            change("alice", "4", "5", false),
            change("directly in etcd", "4", "\u{fffd}\u{fffd}", true),
            change("directly in etcd", "", "4", false),
        ]
    );
}

#[tokio::test]
async fn a_watch_goes_on_after_members_went_and_what_it_watched_was_compacted() {
    let Some((database, mut etcd)) = servers() else { return };
    let mut members = members(2, &database, &etcd);
    led(&mut members).await;
    for index in 0..3 {
        // The members' watches hang on some member: each goes once, while revisions are made and compacted.
        etcd.kill(index);
        for size in 0..3 {
            put(&etcd, "pools.mes", &format!("{index}{size}")).await;
        }
        compact(&etcd);
        shows(&members[0], "pools.mes", is(&format!("{}", index * 10 + 2))).await;
        etcd.resume_all();
        put(&etcd, "pools.wms", &index.to_string()).await;
        shows(&members[1], "pools.wms", is(&index.to_string())).await;
    }
}

/// The leader is frozen while its revision is left behind and compacted: what it reads next is all there is.
#[tokio::test]
async fn a_leader_that_slept_through_a_compaction_reads_anew() {
    let Some((database, etcd)) = servers() else { return };
    let mut members = members(1, &database, &etcd);
    members[0].use_default_timing();
    led(&mut members).await;
    etcd.ctl(&["put", &format!("{KEY}pools.mes"), "1"]);
    etcd.ctl(&["put", &format!("{KEY}pools.gone"), "1"]);
    shows(&members[0], "pools.gone", is("1")).await;
    members[0].signal(Signal::SIGSTOP);
    etcd.ctl(&["put", &format!("{KEY}pools.mes"), "2"]);
    etcd.ctl(&["del", &format!("{KEY}pools.gone")]);
    compact(&etcd);
    members[0].signal(Signal::SIGCONT);
    shows(&members[0], "pools.mes", is("2")).await;
    shows(&members[0], "pools.gone", |shown| shown.value.is_none()).await;
}

#[tokio::test]
async fn every_master_writes_the_log_lines_that_are_asked_for() {
    let Some((database, etcd)) = servers() else { return };
    let mut members = members(2, &database, &etcd);
    led(&mut members).await;
    set(&members[0], "log", Some("info,h2=debug")).await.unwrap();
    let is_said = |member: &Member, text: &str| member.log().contains(text);
    for member in &members {
        until("the new filter", async || is_said(member, "filter=\"info,h2=debug\"").then_some(())).await;
        until("lines of the transport", async || is_said(member, "frame=").then_some(())).await;
    }
    set(&members[1], "log", None).await.unwrap();
    for member in &members {
        // What the environment of the test's masters asks for.
        let first = "filter=\"info,millrace_master=debug\"";
        until("the old filter", async || is_said(member, first).then_some(())).await;
    }
}

#[tokio::test]
async fn an_etcd_that_was_made_anew_gets_the_settings_with_its_adoption() {
    let Some((database, mut etcd)) = servers() else { return };
    let mut members = members(2, &database, &etcd);
    let first = led(&mut members).await;
    set(&members[0], "pools.mes", Some("4")).await.unwrap();
    etcd.wipe();
    assert_eq!(members[first].ended().await, Some(75));
    let standby = &members[1 - first];
    until("the standby to say what it found", async || {
        standby.log().contains("is not the one that this cluster belongs to").then_some(())
    })
    .await;
    assert!(
        is("4")(&setting(standby, "pools.mes").await),
        "an empty etcd that nobody adopted unsets nothing"
    );
    standby.control().await.unwrap().adopt_etcd(v1::AdoptEtcdRequest {}).await.unwrap();
    leader_of(&members).await;
    assert_eq!(etcd.ctl(&["get", "--print-value-only", &format!("{KEY}pools.mes")]).trim(), "4");
    assert!(is("4")(&setting(standby, "pools.mes").await));
}

fn compact(etcd: &Etcd) {
    let shown: serde_json::Value = serde_json::from_str(&etcd.ctl(&["get", KEY, "-w", "json"])).unwrap();
    etcd.ctl(&["compact", &shown["header"]["revision"].to_string()]);
}

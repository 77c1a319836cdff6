//! Live settings of a master that is alone: the database keeps them.

use millrace_proto::v1::{self, AttemptState};
use tonic::Code;

use crate::support::{Control, Master, TWO, config, ended, hello, refused, until, within};

async fn all(control: &mut Control, name: &str) -> Vec<v1::SettingView> {
    let request = v1::ListSettingsRequest { name: name.to_owned() };
    control.list_settings(request).await.unwrap().into_inner().settings
}

async fn set(control: &mut Control, name: &str, value: Option<&str>) -> v1::SetSettingResponse {
    let request = v1::SetSettingRequest {
        name: name.to_owned(),
        value: value.map(str::to_owned),
        by: "alice".to_owned(),
    };
    control.set_setting(request).await.unwrap().into_inner()
}

const POOLED: &str = "workflow: pooled\nmax_active_runs: 9\ntasks:\n  a: { kind: shell, pool: mes, with: { command: [make] } }\n";

#[tokio::test]
async fn settings_are_in_force_at_once_and_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut control = master.control().await;
    let names: Vec<String> = all(&mut control, "").await.into_iter().map(|setting| setting.name).collect();
    let known = [
        "losses_max",
        "rejection_delay",
        "rejections_max",
        "retention",
        "retention_runs",
        "runs_per_workflow_max",
        "schedules_paused",
    ];
    assert!(known.iter().all(|name| names.iter().any(|found| found == name)), "{names:?}");

    master.apply(POOLED).await;
    let mut executor = master.executor("e1").await;
    let (first, second) = (master.run("pooled").await, master.run("pooled").await);
    let explain = v1::ExplainRunRequest { run: first.clone(), task: String::new() };
    let explained = control.explain_run(explain).await.unwrap().into_inner();
    assert_eq!(explained.tasks[0].code, "unknown_pool");
    let answer = set(&mut control, "pools.mes", Some("1")).await;
    let setting = answer.setting.unwrap();
    assert!(answer.changed);
    assert_eq!((setting.value.as_deref(), &*setting.source, &*setting.by), (Some("1"), "database", "alice"));
    let start = executor.start().await;
    executor.accept(&start).await;
    let explain = v1::ExplainRunRequest { run: second.clone(), task: String::new() };
    let explained = control.explain_run(explain).await.unwrap().into_inner();
    assert_eq!(explained.tasks[0].text, "pool mes is full: 1 of 1 taken");
    executor.finish(&start, ended(AttemptState::Succeeded)).await;
    master.reaches(&first, "success").await;
    drop(executor);
    master.stop().await.0.unwrap();

    let mut settings = config(folder.path());
    settings.pools = [("mes".parse().unwrap(), 7)].into();
    let master = Master::start_with(settings).await.unwrap();
    let mut control = master.control().await;
    assert_eq!(all(&mut control, "pools.mes").await[0].value.as_deref(), Some("1"), "it goes over the file");
    let back = set(&mut control, "pools.mes", None).await.setting.unwrap();
    assert_eq!((back.value.as_deref(), &*back.source, back.since), (Some("7"), "static", None));
    let request = v1::ListSettingChangesRequest { page_size: 1, ..Default::default() };
    let page = control.list_setting_changes(request.clone()).await.unwrap().into_inner();
    assert_eq!((page.changes[0].old.as_deref(), &page.changes[0].given), (Some("1"), &None));
    let rest = v1::ListSettingChangesRequest { page_token: page.next_page_token, ..request };
    let page = control.list_setting_changes(rest).await.unwrap().into_inner();
    assert_eq!((page.changes[0].given.as_deref(), &*page.next_page_token), (Some("1"), ""));
}

#[tokio::test]
async fn what_is_wrong_is_refused_with_what_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut control = master.control().await;
    for (name, value, problem) in [
        ("retention", Some("59m"), "`retention` is \"59m\"; it must be a duration from 1h to 3650d"),
        ("retenton", Some("2h"), "there is no live setting `retenton`; did you mean `retention`?"),
        ("colour", None, "there is no live setting `colour`; `masterctl config get` lists them"),
    ] {
        let request = v1::SetSettingRequest {
            name: name.to_owned(),
            value: value.map(str::to_owned),
            ..Default::default()
        };
        let status = refused(control.set_setting(request).await);
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, problem));
    }
    let request = v1::ListSettingsRequest { name: "poolz.a".to_owned() };
    let status = refused(control.list_settings(request).await);
    assert_eq!(status.code(), Code::NotFound);
    assert!(status.message().contains("did you mean `pools.a`?"), "{status:?}");
    let page = v1::ListSettingChangesRequest { page_token: "x".to_owned(), ..Default::default() };
    assert_eq!(refused(control.list_setting_changes(page).await).code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_watch_shows_every_change() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut control = master.control().await;
    let request = v1::ListSettingsRequest { name: "schedules_paused".to_owned() };
    let mut lists = control.watch_settings(request).await.unwrap().into_inner();
    let first = within("the first list", lists.message()).await.unwrap().unwrap();
    assert_eq!(first.settings[0].value.as_deref(), Some("false"));
    set(&mut control, "schedules_paused", Some("true")).await;
    until("the change on the stream", async || {
        let list = lists.message().await.unwrap()?;
        (list.settings[0].value.as_deref() == Some("true")).then_some(())
    })
    .await;
    let cluster = control.get_cluster(v1::GetClusterRequest {}).await.unwrap().into_inner();
    assert!(cluster.schedules_paused_since.is_some(), "{cluster:?}");
    master.apply(TWO).await;
    let run = master.run("two").await;
    let explain = v1::ExplainRunRequest { run, task: String::new() };
    let explained = control.explain_run(explain).await.unwrap().into_inner();
    assert_eq!(explained.schedules_paused_since, cluster.schedules_paused_since);
}

#[tokio::test]
async fn an_executor_gets_fewer_attempts_than_it_offers_where_that_is_set() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut control = master.control().await;
    set(&mut control, "executors.e1.slots", Some("1")).await;
    let executor = master.executor_with(v1::Hello { slots: 5, ..hello("e1") }).await.unwrap();
    let listed = control.list_executors(v1::ListExecutorsRequest {}).await.unwrap().into_inner();
    assert_eq!(listed.executors[0].slots, 1);
    set(&mut control, "executors.e1.slots", Some("4000")).await;
    let listed = control.list_executors(v1::ListExecutorsRequest {}).await.unwrap().into_inner();
    assert_eq!(listed.executors[0].slots, 5, "never more than it offers");
    drop(executor);
}

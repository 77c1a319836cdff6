//! Another life in the same folder.

use std::path::Path;

use millrace_common::{definition, id::RunId, interval::DataInterval, time::Timestamp};
use millrace_core::{Change, RunCreated, Trigger};
use millrace_master::{TermLost, exit_code};
use millrace_proto::v1::{self, AttemptState};
use millrace_store::{Store, StoreConfig};

use crate::support::{Master, ONE, TWO, config, data_dir, ended, held, hello, refused, until};

#[tokio::test]
async fn a_run_goes_on_after_a_restart_with_the_attempt_that_still_runs() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut executor = master.executor("e1").await;
    master.apply(TWO).await;
    let run = master.run("two").await;
    let start = executor.start().await;
    executor.accept(&start).await;
    executor.beat(1, vec![held(&start, AttemptState::Running)]).await;
    let (end, _) = master.stop().await;
    end.unwrap();

    let master = Master::start(folder.path()).await;
    let holding = v1::Hello { held: vec![held(&start, AttemptState::Running)], term_seen: 1, ..hello("e1") };
    let mut executor = master.executor_with(holding).await.unwrap();
    assert_eq!(executor.term, 2);
    assert_eq!(executor.welcome.verdicts[0].attempt, start.attempt);
    assert_eq!(executor.welcome.verdicts[0].kind(), v1::verdict::Kind::Adopt);
    executor.finish(&start, ended(AttemptState::Succeeded)).await;
    let second = executor.start().await;
    executor.finish(&second, ended(AttemptState::Succeeded)).await;
    let view = master.reaches(&run, "success").await;
    assert_eq!(view.tasks[0].attempts.len(), 1, "nothing ran twice");
}

#[tokio::test]
async fn an_end_that_was_not_acknowledged_counts_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut executor = master.executor("e1").await;
    master.apply(ONE).await;
    let run = master.run("one").await;
    let start = executor.start().await;
    executor.accept(&start).await;
    executor.beat(1, vec![held(&start, AttemptState::Running)]).await;
    master.stop().await.0.unwrap();
    let master = Master::start(folder.path()).await;
    let over =
        v1::Held { end: Some(ended(AttemptState::Succeeded)), ..held(&start, AttemptState::Succeeded) };
    let executor = master.executor_with(v1::Hello { held: vec![over], ..hello("e1") }).await.unwrap();
    assert_eq!(executor.welcome.verdicts[0].kind(), v1::verdict::Kind::Discard);
    master.reaches(&run, "success").await;
}

#[tokio::test]
async fn a_key_gives_the_same_run_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let request = || v1::StartRunRequest {
        workflow: "one".to_owned(),
        idempotency_key: "order-1".to_owned(),
        ..Default::default()
    };
    let master = Master::start(folder.path()).await;
    master.apply(ONE).await;
    let first = master.control().await.start_run(request()).await.unwrap().into_inner();
    master.stop().await.0.unwrap();
    let master = Master::start(folder.path()).await;
    let second = master.control().await.start_run(request()).await.unwrap().into_inner();
    assert_eq!((second.run, second.existed), (first.run, true));
}

/// Puts a second version of workflow `one` in force that only another build can read, and a run of it.
async fn supersede(folder: &Path) -> RunId {
    let store = Store::open(&StoreConfig::sqlite(&data_dir(folder).join("millrace.db"))).await.unwrap();
    let term = store.stored_term().await.unwrap().next();
    let mut writer = store.claim(term, "another build").await.unwrap();
    let at = Timestamp::from_micros(1_790_000_000_000_000);
    let run = RunId::new(at, 7);
    let workflow = definition::parse(ONE).unwrap();
    let created = RunCreated {
        run,
        workflow: workflow.name.clone(),
        version: 2,
        trigger: Trigger::Manual,
        interval: DataInterval::at(at),
        params: "{}".into(),
        idempotency_key: None,
        at,
    };
    let source = "a_key_of_the_future: 1".into();
    let applied = Change::WorkflowApplied { version: 2, workflow: workflow.into(), source, at };
    writer.commit_changes(&[applied, Change::RunCreated(Box::new(created))]).await.unwrap();
    run
}

#[tokio::test]
async fn a_definition_that_this_build_cannot_read_is_told_and_can_be_replaced() {
    const PROBLEM: &str = "version 2 of its definition cannot be read by this master (1:1: ";
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    master.apply(ONE).await;
    master.stop().await.0.unwrap();
    let run = supersede(folder.path()).await.to_string();
    let master = Master::start(folder.path()).await;
    let mut control = master.control().await;

    let listed = control.list_workflows(v1::ListWorkflowsRequest::default()).await.unwrap().into_inner();
    let request = v1::GetWorkflowRequest { name: "one".to_owned(), version: 0 };
    let shown = control.get_workflow(request).await.unwrap().into_inner().summary.unwrap();
    for problem in [&listed.workflows[0].problem, &shown.problem] {
        assert!(problem.starts_with(PROBLEM) && problem.contains("apply the definition again"), "{problem}");
    }
    let start = || v1::StartRunRequest { workflow: "one".to_owned(), ..Default::default() };
    let status = refused(control.start_run(start()).await);
    assert_eq!(status.code(), tonic::Code::FailedPrecondition, "{status:?}");
    assert!(status.message().contains("apply the definition again"), "{status:?}");
    let explain = v1::ExplainRunRequest { run: run.clone(), task: String::new() };
    let reason = control.explain_run(explain).await.unwrap().into_inner().reason;
    assert!(reason.starts_with(&format!("run {run} is taken out of scheduling: {PROBLEM}")), "{reason}");
    let status = refused(control.cancel_run(v1::RunRequest { run }).await);
    assert!(status.message().contains(PROBLEM), "{status:?}");

    let request = v1::ApplyWorkflowRequest { source: ONE.to_owned(), dry_run: false };
    let applied = control.apply_workflow(request).await.unwrap().into_inner();
    assert_eq!((applied.version, applied.is_new, applied.changed), (3, false, true));
    control.start_run(start()).await.unwrap();
    let listed = control.list_workflows(v1::ListWorkflowsRequest::default()).await.unwrap().into_inner();
    assert_eq!((listed.workflows[0].version, listed.workflows[0].problem.as_str()), (3, ""));
}

#[tokio::test]
async fn a_second_master_in_the_same_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _master = Master::start(folder.path()).await;
    let error = Master::start_with(config(folder.path())).await.err().unwrap();
    let problem = format!("{error:#}");
    assert!(problem.contains("is in use by another process: stop that one"), "{problem}");
    assert_eq!(exit_code(&error), 1);
}

#[tokio::test]
async fn settings_that_make_no_sense_are_refused_together() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.retention_runs = 0;
    config.name = String::new();
    let problem = format!("{:#}", Master::start_with(config).await.err().unwrap());
    assert!(problem.contains("`name` is \"\"") && problem.contains("`retention_runs` is 0"), "{problem}");
}

#[tokio::test]
async fn a_master_whose_term_was_taken_ends_with_its_own_exit_code() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut other = StoreConfig::sqlite(&data_dir(folder.path()).join("millrace.db"));
    other.is_unlocked = true;
    let other = Store::open(&other).await.unwrap();
    let taken = other.stored_term().await.unwrap().next();
    let _writer = other.claim(taken, "another master").await.unwrap();
    let mut control = master.control().await;
    let status = until("the write to be refused", async || {
        let request = v1::ApplyWorkflowRequest { source: ONE.to_owned(), dry_run: false };
        control.apply_workflow(request).await.err()
    })
    .await;
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
    let error = master.ended().await.unwrap_err();
    assert!(matches!(error.downcast_ref(), Some(TermLost::Commit(error)) if error.is_fenced()), "{error:?}");
    assert_eq!(exit_code(&error), 75);
    assert!(other.workflow(&"one".parse().unwrap(), None).await.unwrap().is_none());
}

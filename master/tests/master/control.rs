//! What people's tools call.

use millrace_common::limits::{DOCUMENT_BYTES_MAX, IDEMPOTENCY_KEY_CHARS_MAX, PARAMS_BYTES_MAX};
use millrace_proto::{
    MESSAGE_BYTES_MAX,
    v1::{self, AttemptState},
};
use tonic::{Code, Status};

use crate::support::{Control, Master, ONE, TWO, ended, hello, nobody, refused};

async fn started(
    control: &mut Control,
    request: v1::StartRunRequest,
) -> Result<v1::StartRunResponse, Status> {
    Ok(control.start_run(request).await?.into_inner())
}

fn start(params: &str, key: &str) -> v1::StartRunRequest {
    v1::StartRunRequest {
        workflow: "one".to_owned(),
        params: params.to_owned(),
        logical_date: None,
        idempotency_key: key.to_owned(),
    }
}

fn by_run(run: &str) -> v1::RunRequest {
    v1::RunRequest { run: run.to_owned() }
}

#[tokio::test]
async fn parameters_are_refused_with_all_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    master.apply(ONE).await;
    let mut control = master.control().await;
    let status = refused(started(&mut control, start(r#"{"day":"sunday","count":"x","dya":1}"#, "")).await);
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(
        status.message(),
        "the parameters do not fit the workflow:\n  \
         the workflow has no parameter \"dya\", did you mean \"day\"?\n  \
         the parameter count must be a whole number, not \"x\"\n  \
         the parameter day must be one of [\"monday\",\"friday\"], not \"sunday\""
    );
    let large = format!("{{\"day\":\"{}\"}}", "x".repeat(PARAMS_BYTES_MAX));
    for (params, text) in [
        ("[1]", "the parameters are not a JSON object"),
        ("{", "the parameters are not a JSON object"),
        (large.as_str(), "at most 65536 are kept"),
    ] {
        let status = refused(started(&mut control, start(params, "")).await);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(text), "{}", status.message());
    }
    let run = started(&mut control, start(r#"{"count":7}"#, "")).await.unwrap().run;
    assert_eq!(master.show(&run).await.run.unwrap().params, r#"{"count":7,"day":"monday"}"#);
}

#[tokio::test]
async fn the_same_key_gives_the_same_run_and_a_bad_key_none() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    master.apply(ONE).await;
    let mut control = master.control().await;
    let longest = "k".repeat(IDEMPOTENCY_KEY_CHARS_MAX);
    let first = started(&mut control, start("", &longest)).await.unwrap();
    assert!(!first.existed);
    let again = started(&mut control, start("", &longest)).await.unwrap();
    assert_eq!((again.run, again.existed), (first.run, true));
    for (key, text) in
        [("k".repeat(192), "has 192 characters, at most 191"), ("a\nb".to_owned(), "control character")]
    {
        let status = refused(started(&mut control, start("", &key)).await);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains(text), "{}", status.message());
    }
    let listed = control.list_runs(v1::ListRunsRequest::default()).await.unwrap().into_inner();
    assert_eq!(listed.runs.len(), 1);
}

#[tokio::test]
async fn a_run_is_about_a_year_that_calendars_have() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    master.apply(ONE).await;
    let mut control = master.control().await;
    for micros in [i64::MIN, -1, 253_402_300_800_000_000, i64::MAX] {
        let request = v1::StartRunRequest { logical_date: Some(micros), ..start("", "") };
        let status = refused(started(&mut control, request).await);
        assert_eq!(status.code(), Code::InvalidArgument, "{micros}");
    }
    let request = v1::StartRunRequest { logical_date: Some(0), ..start("", "") };
    let run = started(&mut control, request).await.unwrap().run;
    assert_eq!(master.show(&run).await.run.unwrap().interval_start, 0);
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut control = master.control().await;
    let id = nobody();
    let get = v1::GetRunRequest { run: id.clone() };
    let explain = v1::ExplainRunRequest { run: id.clone(), task: String::new() };
    let output = v1::ReadOutputRequest { run: id.clone(), task: "a".to_owned(), ..Default::default() };
    let answers = [
        control.get_run(get.clone()).await.err(),
        control.watch_run(get).await.err(),
        control.cancel_run(by_run(&id)).await.err(),
        control.pause_run(by_run(&id)).await.err(),
        control.resume_run(by_run(&id)).await.err(),
        control.retry_run(by_run(&id)).await.err(),
        control.explain_run(explain).await.err(),
        control.read_output(output).await.err(),
    ];
    for status in answers {
        let status = status.unwrap();
        assert_eq!(
            (status.code(), status.message()),
            (Code::NotFound, format!("there is no run {id}").as_str())
        );
    }
    let unknown = v1::GetWorkflowRequest { name: "w".to_owned(), version: 0 };
    assert_eq!(refused(control.get_workflow(unknown).await).message(), "there is no workflow w");
    let status = refused(started(&mut control, start("", "")).await);
    assert_eq!(status.message(), "there is no workflow one; apply its definition first");
}

#[tokio::test]
async fn what_is_malformed_is_invalid_and_the_message_is_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut control = master.control().await;
    let long = "é".repeat(100_000);
    for text in ["", "x", "0190-zz", &long] {
        let status = refused(control.cancel_run(by_run(text)).await);
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert!(status.message().contains("is not the id of a run") || text == long, "{status:?}");
        assert!(status.message().len() < 5_000);
    }
    let status = refused(
        control.list_runs(v1::ListRunsRequest { state: "dead".to_owned(), ..Default::default() }).await,
    );
    assert_eq!(status.message(), "\"dead\" is not a state of a run");
    for token in ["x", "'; DROP TABLE run; --"] {
        let request = v1::ListRunsRequest { page_token: token.to_owned(), ..Default::default() };
        let status = refused(control.list_runs(request).await);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().contains("is not a page token of this list"), "{status:?}");
    }
}

#[tokio::test]
async fn a_definition_with_many_problems_is_refused_with_as_many_as_fit() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut control = master.control().await;
    let mut source = "workflow: w\ntasks:\n".to_owned();
    for task in 0..300 {
        source.push_str(&format!("  t{task}: {{ kind: shell, wiht: {{}}, retries: many }}\n"));
    }
    let request = v1::ApplyWorkflowRequest { source, dry_run: false };
    let status = refused(control.apply_workflow(request).await);
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    assert!(status.message().starts_with("3:"), "{}", status.message());
    assert!(status.message().ends_with("(there is more, which is left out)"));
}

#[tokio::test]
async fn a_definition_that_is_too_large_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut control = master.control().await;
    let most = DOCUMENT_BYTES_MAX;
    for (bytes, code, text) in [
        (most + 1, Code::InvalidArgument, "the document has 4194305 bytes, at most 4194304 are read"),
        // What is larger than a message does not even reach the reader.
        (MESSAGE_BYTES_MAX + 1, Code::OutOfRange, "length too large"),
    ] {
        let source = format!("# {}", "x".repeat(bytes - 2));
        let status =
            refused(control.apply_workflow(v1::ApplyWorkflowRequest { source, dry_run: true }).await);
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(text), "{status:?}");
    }
    let source = format!("{ONE}# {}", "x".repeat(most - ONE.len() - 2));
    let applied = control.apply_workflow(v1::ApplyWorkflowRequest { source, dry_run: false }).await;
    assert_eq!(applied.unwrap().into_inner().version, 1);
}

#[tokio::test]
async fn applying_tells_what_changes_and_a_dry_run_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut control = master.control().await;
    let mut apply = async |source: &str, dry_run| {
        let request = v1::ApplyWorkflowRequest { source: source.to_owned(), dry_run };
        control.apply_workflow(request).await.unwrap().into_inner()
    };
    let changed = ONE.replace("count: 1", "count: 2");
    let told = |answer: v1::ApplyWorkflowResponse| {
        (answer.is_new, answer.changed, answer.version, answer.differences)
    };
    assert_eq!(told(apply(ONE, true).await), (true, true, 1, vec![]));
    assert_eq!(told(apply(ONE, false).await), (true, true, 1, vec![]));
    assert_eq!(told(apply(ONE, false).await), (false, false, 1, vec![]));
    let differences = vec!["params.count.default: 1 -> 2".to_owned()];
    assert_eq!(told(apply(&changed, true).await), (false, true, 2, differences.clone()));
    assert_eq!(told(apply(&changed, true).await), (false, true, 2, differences.clone()));
    assert_eq!(told(apply(&changed, false).await), (false, true, 2, differences));
    let request = v1::GetWorkflowRequest { name: "one".to_owned(), version: 1 };
    assert_eq!(control.get_workflow(request).await.unwrap().into_inner().source, ONE);
}

#[tokio::test]
async fn lists_go_page_by_page_to_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    master.apply(ONE).await;
    master.apply(TWO).await;
    let mut runs = Vec::new();
    for _ in 0..5 {
        runs.push(master.run("one").await);
    }
    runs.push(master.run("two").await);
    runs.reverse();
    let mut control = master.control().await;
    let mut request = v1::ListRunsRequest { page_size: 2, ..Default::default() };
    let mut seen = Vec::new();
    loop {
        let page = control.list_runs(request.clone()).await.unwrap().into_inner();
        assert!(page.runs.len() <= 2);
        seen.extend(page.runs.into_iter().map(|run| run.run));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(seen, runs, "newest first");
    let of_two =
        v1::ListRunsRequest { workflow: "two".to_owned(), state: "running".to_owned(), ..Default::default() };
    assert_eq!(control.list_runs(of_two).await.unwrap().into_inner().runs.len(), 1);
    let first = control.list_workflows(v1::ListWorkflowsRequest { page_size: 1, page_token: String::new() });
    let first = first.await.unwrap().into_inner();
    assert_eq!((first.workflows[0].name.as_str(), first.next_page_token.as_str()), ("one", "one"));
    let rest = v1::ListWorkflowsRequest { page_size: 1, page_token: first.next_page_token };
    let rest = control.list_workflows(rest).await.unwrap().into_inner();
    assert_eq!((rest.workflows[0].name.as_str(), rest.next_page_token.as_str()), ("two", ""));
}

#[tokio::test]
async fn a_live_run_is_paused_and_resumed_but_not_retried() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    master.apply(ONE).await;
    let run = master.run("one").await;
    let mut control = master.control().await;
    let status = refused(control.retry_run(by_run(&run)).await);
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert_eq!(status.message(), format!("run {run} is running: wait for its end, or cancel it"));
    assert_eq!(control.pause_run(by_run(&run)).await.unwrap().into_inner().state, "paused");
    assert_eq!(control.pause_run(by_run(&run)).await.unwrap().into_inner().state, "paused");
    let explained = control.explain_run(v1::ExplainRunRequest { run: run.clone(), task: String::new() });
    assert_eq!(explained.await.unwrap().into_inner().state, "paused");
    assert_eq!(control.resume_run(by_run(&run)).await.unwrap().into_inner().state, "running");
    let unknown = v1::ExplainRunRequest { run: run.clone(), task: "z".to_owned() };
    let status = refused(control.explain_run(unknown).await);
    assert_eq!(
        (status.code(), status.message()),
        (Code::NotFound, format!("run {run} has no task z").as_str())
    );
    let malformed = v1::ExplainRunRequest { run, task: "Not A Name".to_owned() };
    assert_eq!(refused(control.explain_run(malformed).await).code(), Code::InvalidArgument);
}

#[tokio::test]
async fn an_ended_run_is_retried_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut executor = master.executor("e1").await;
    master.apply(TWO).await;
    let run = master.run("two").await;
    let first = executor.start().await;
    executor.finish(&first, ended(AttemptState::Succeeded)).await;
    let second = executor.start().await;
    let reason = "exit code 1".to_owned();
    executor
        .finish(&second, v1::AttemptEnd { reason, exit_code: Some(1), ..ended(AttemptState::Failed) })
        .await;
    master.reaches(&run, "failed").await;
    let mut control = master.control().await;
    let refusals = [
        control.cancel_run(by_run(&run)).await.err(),
        control.pause_run(by_run(&run)).await.err(),
        control.resume_run(by_run(&run)).await.err(),
    ];
    for status in refusals {
        let status = status.unwrap();
        assert_eq!(status.code(), Code::FailedPrecondition);
        assert_eq!(status.message(), format!("run {run} has ended: it is failed"));
    }
    let explained = control.explain_run(v1::ExplainRunRequest { run: run.clone(), task: String::new() });
    assert_eq!(explained.await.unwrap().into_inner().state, "failed");
    let again = control.retry_run(by_run(&run)).await.unwrap().into_inner().run;
    let start = executor.start().await;
    assert_eq!(start.task, "b", "what succeeded is kept");
    executor.finish(&start, ended(AttemptState::Succeeded)).await;
    let view = master.reaches(&again, "success").await.run.unwrap();
    assert_eq!((view.trigger.as_str(), view.retry_of), ("retry", run));
}

#[tokio::test]
async fn the_cluster_is_described() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    master.apply(ONE).await;
    master.run("one").await;
    let offers = v1::Hello {
        labels: [("site".to_owned(), "north".to_owned())].into(),
        kinds: vec!["sql".to_owned()],
        ..hello("e1")
    };
    let _executor = master.executor_with(offers).await.unwrap();
    let mut control = master.control().await;
    let cluster = control.get_cluster(v1::GetClusterRequest {}).await.unwrap().into_inner();
    assert_eq!((cluster.term, cluster.holder.as_str(), cluster.store.as_str()), (1, "master-1", "sqlite"));
    assert_eq!((cluster.runs_live, cluster.attempts_live, cluster.ready), (1, 0, 1));
    let listed = control.list_executors(v1::ListExecutorsRequest {}).await.unwrap().into_inner();
    let one = &listed.executors[0];
    assert_eq!((one.name.as_str(), one.slots, one.slots_used), ("e1", 2, 0));
    assert_eq!((&one.labels["site"], &one.kinds[..]), (&"north".to_owned(), &["sql".to_owned()][..]));
}

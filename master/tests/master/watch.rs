//! Watching a run.

use millrace_proto::v1::{self, AttemptState};
use tokio_stream::StreamExt as _;
use tonic::Streaming;

use crate::support::{Master, TWO, ended, within};

async fn watch(master: &Master, run: &str) -> Streaming<v1::GetRunResponse> {
    let request = v1::GetRunRequest { run: run.to_owned() };
    master.control().await.watch_run(request).await.unwrap().into_inner()
}

async fn states(views: Streaming<v1::GetRunResponse>) -> Vec<String> {
    let views: Vec<_> = within("the end of the watch", views.collect()).await;
    views.into_iter().map(|view: Result<v1::GetRunResponse, _>| view.unwrap().run.unwrap().state).collect()
}

#[tokio::test]
async fn a_watch_ends_with_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut executor = master.executor("e1").await;
    master.apply(TWO).await;
    let run = master.run("two").await;
    let mut views = watch(&master, &run).await;
    let first = within("the first view", views.next()).await.unwrap().unwrap();
    assert_eq!(first.run.unwrap().state, "running");
    for _ in ["a", "b"] {
        let start = executor.start().await;
        executor.accept(&start).await;
        executor.finish(&start, ended(AttemptState::Succeeded)).await;
    }
    let states = states(views).await;
    assert_eq!(states.last().unwrap(), "success");
    assert!(states[..states.len() - 1].iter().all(|state| state == "running"), "{states:?}");
    assert_eq!(self::states(watch(&master, &run).await).await, ["success"], "an ended run is seen once");
}

#[tokio::test]
async fn a_slow_reader_misses_views_and_sees_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut executor = master.executor("e1").await;
    // Names that are long make views that fill every buffer on the way.
    let mut text = "workflow: wide\ntasks:\n".to_owned();
    for task in 0..1_500 {
        text.push_str(&format!(
            "  {}{task}: {{ kind: shell, with: {{ command: [make] }} }}\n",
            "t".repeat(80)
        ));
    }
    master.apply(&text).await;
    let run = master.run("wide").await;
    let views = watch(&master, &run).await;
    for _ in 0..1_500 {
        let start = executor.start().await;
        executor.finish(&start, ended(AttemptState::Succeeded)).await;
    }
    master.reaches(&run, "success").await;
    let states = states(views).await;
    assert_eq!(states.last().unwrap(), "success");
    assert!(states.len() < 100, "{} views", states.len());
}

//! Who leads, who follows, and what a standby does for those who call it.

use millrace_proto::v1::{
    self, executor_message, executor_service_client::ExecutorServiceClient, leader_message,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, transport::Endpoint};

use super::{apply, leader_of, led, members, servers, workflows};
use crate::support::{hello, until};

#[tokio::test]
async fn one_master_leads_and_the_others_answer_for_it() {
    let Some((database, etcd)) = servers() else { return };
    let mut members = members(3, &database, &etcd);
    let leader = led(&mut members).await;
    let term = leader_of(&members).await.term;
    assert_eq!(term >> 48, 1, "the first generation");
    for (index, member) in members.iter().enumerate() {
        apply(member, &format!("w{index}")).await.unwrap();
    }
    for member in &members {
        assert_eq!(workflows(member).await, ["w0", "w1", "w2"], "{}", member.name);
    }
    let runs: Vec<String> = {
        let mut runs = Vec::new();
        for member in &members {
            let request = v1::StartRunRequest {
                workflow: "w0".to_owned(),
                idempotency_key: "once".to_owned(),
                ..Default::default()
            };
            runs.push(member.control().await.unwrap().start_run(request).await.unwrap().into_inner().run);
        }
        runs
    };
    assert!(
        runs.iter().all(|run| *run == runs[0]),
        "one key is one run, whichever master is asked: {runs:?}"
    );
    // What only the leader knows, and what goes on.
    let standby = &members[(leader + 1) % 3];
    let mut control = standby.control().await.unwrap();
    let explained =
        control.explain_run(v1::ExplainRunRequest { run: runs[0].clone(), task: String::new() }).await;
    assert_eq!(explained.unwrap().into_inner().tasks.len(), 1);
    let mut views = control.watch_run(v1::GetRunRequest { run: runs[0].clone() }).await.unwrap().into_inner();
    assert_eq!(views.message().await.unwrap().unwrap().run.unwrap().run, runs[0]);
    control.cancel_run(v1::RunRequest { run: runs[0].clone() }).await.unwrap();
    let end = until("the end of the run on the stream", async || {
        let view = views.message().await.unwrap()?;
        view.run.filter(|run| run.state == "cancelled")
    });
    end.await;
    // What the leader refuses is refused by whoever passes it on, with the leader's words.
    let request = v1::RunRequest { run: runs[0].clone() };
    let status = control.cancel_run(request).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().contains("has ended"), "{status:?}");
}

#[tokio::test]
async fn an_executor_is_told_who_leads() {
    let Some((database, etcd)) = servers() else { return };
    let mut members = members(2, &database, &etcd);
    let leader = led(&mut members).await;
    let (leader, standby) = (&members[leader], &members[1 - leader]);
    let endpoint = Endpoint::from_shared(format!("http://{}", standby.address)).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let mut executors = ExecutorServiceClient::with_interceptor(channel, super::Member::token());
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let greeting = v1::ExecutorMessage { body: Some(executor_message::Body::Hello(hello("e1"))) };
    sender.send(greeting).await.unwrap();
    let mut messages = executors.session(ReceiverStream::new(receiver)).await.unwrap().into_inner();
    let said = messages.message().await.unwrap().unwrap();
    let expected = v1::NotLeader { address: format!("http://{}", leader.address) };
    assert_eq!(said.body, Some(leader_message::Body::NotLeader(expected)));
    assert_eq!(messages.message().await.unwrap(), None);
    let status = executors.ship_output(tokio_stream::pending()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
}

#[tokio::test]
async fn without_a_leader_reads_are_answered_and_writes_are_told_to_come_again() {
    let Some((database, mut etcd)) = servers() else { return };
    let mut members = members(2, &database, &etcd);
    let leader = led(&mut members).await;
    apply(&members[0], "w").await.unwrap();
    let request = v1::StartRunRequest { workflow: "w".to_owned(), ..Default::default() };
    let run = members[0].control().await.unwrap().start_run(request).await.unwrap().into_inner().run;
    for index in 0..2 {
        etcd.kill(index);
    }
    assert_eq!(members[leader].ended().await, Some(75));
    let standby = &members[1 - leader];
    let mut control = standby.control().await.unwrap();
    let explained =
        control.explain_run(v1::ExplainRunRequest { run: run.clone(), task: String::new() }).await;
    let explained = explained.unwrap().into_inner();
    assert!(explained.reason.starts_with("no master leads at the moment"), "{explained:?}");
    assert_eq!((explained.tasks[0].state.as_str(), explained.tasks[0].code.as_str()), ("ready", "no_leader"));
    let mut views = control.watch_run(v1::GetRunRequest { run: run.clone() }).await.unwrap().into_inner();
    assert_eq!(views.message().await.unwrap().unwrap().run.unwrap().run, run);
    let seen = control.get_cluster(v1::GetClusterRequest {}).await.unwrap().into_inner();
    // Without a majority etcd tells nobody that the key of the dead one is gone.
    let problems =
        ["no master leads at the moment", &format!("the leader, {}, cannot be reached", seen.holder)];
    let is_told = problems.iter().any(|problem| seen.problem.starts_with(problem));
    assert!(!seen.is_from_leader && is_told, "{seen:?}");
    let etcd_members = seen.etcd.unwrap().members;
    assert!(etcd_members.iter().take(2).all(|member| !member.problem.is_empty()), "{etcd_members:?}");
    let status = control.list_executors(v1::ListExecutorsRequest {}).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "only a leader knows: {status:?}");
    let status = apply(standby, "v").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert_eq!(status.metadata().get("retry-after").unwrap(), "1");
    assert_eq!(workflows(standby).await, ["w"]);
}

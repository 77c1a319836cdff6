//! Executors: greetings, starts, reports, and what is refused.

use millrace_proto::{
    MESSAGE_BYTES_MAX, PROTOCOL,
    v1::{self, AttemptState, executor_message::Body, leader_message},
};
use tonic::Code;

use crate::support::{Master, ONE, TWO, ended, held, hello, refused, until, within};

#[tokio::test]
async fn an_attempt_is_started_reported_and_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut executor = master.executor("e1").await;
    assert_eq!(executor.welcome.verdicts, []);
    assert_eq!(executor.term, 1);
    executor.beat(41, Vec::new()).await;
    master.apply(TWO).await;
    let run = master.run("two").await;

    let first = executor.start().await;
    assert_eq!((first.workflow.as_str(), first.task.as_str(), first.kind.as_str()), ("two", "a", "shell"));
    assert_eq!(first.spool_id, vec![7; 16]);
    executor.accept(&first).await;
    executor.beat(42, vec![held(&first, AttemptState::Running)]).await;
    let values = "{\"rows\":3}".to_owned();
    executor.finish(&first, v1::AttemptEnd { values, ..ended(AttemptState::Succeeded) }).await;
    let second = executor.start().await;
    assert_eq!(second.task, "b");
    executor.finish(&second, ended(AttemptState::Succeeded)).await;

    let view = master.reaches(&run, "success").await;
    assert_eq!(view.tasks[0].values, "{\"rows\":3}");
    assert_eq!(view.tasks[0].attempts[0].executor, "e1");
    assert_eq!(view.tasks[1].upstream, [0]);
}

#[tokio::test]
async fn a_wrong_greeting_is_refused_with_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let beat = Body::Heartbeat(v1::Heartbeat { number: 1, ..v1::Heartbeat::default() });
    let rows = [
        (beat, Code::InvalidArgument, "the first message of a session is Hello"),
        (
            Body::Hello(v1::Hello { protocol: PROTOCOL + 1, ..hello("e1") }),
            Code::FailedPrecondition,
            "upgrade the older of the two",
        ),
        (
            Body::Hello(v1::Hello { term_seen: 99, ..hello("e1") }),
            Code::FailedPrecondition,
            "the executor has obeyed term 99, this master leads term 1",
        ),
        (Body::Hello(hello("no name")), Code::InvalidArgument, "field executor has no valid value"),
        (
            Body::Hello(v1::Hello { spool_id: Vec::new(), ..hello("e1") }),
            Code::InvalidArgument,
            "field spool_id has no valid value",
        ),
        (Body::Hello(v1::Hello { slots: 0, ..hello("e1") }), Code::InvalidArgument, "it must be from 1"),
    ];
    for (first, code, text) in rows {
        let status = refused(master.session(first).await);
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(text), "{} instead of {text}", status.message());
    }
    master.executor("e1").await.beat(1, Vec::new()).await;
}

#[tokio::test]
async fn a_message_that_breaks_the_protocol_ends_the_session_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let large = vec![v1::Held {
        attempt: Some(v1::AttemptId { run: vec![0; 16], index: 1, number: 1 }),
        state: 2,
        end: None,
    }];
    let large = large.into_iter().cycle().take(MESSAGE_BYTES_MAX / 20).collect();
    let rows = [
        (Body::Hello(hello("e1")), Code::InvalidArgument, "a second Hello"),
        (
            Body::Heartbeat(v1::Heartbeat {
                number: 1,
                held: vec![v1::Held::default()],
                ..v1::Heartbeat::default()
            }),
            Code::InvalidArgument,
            "field attempt is missing",
        ),
        (
            Body::Reports(v1::Reports { reports: vec![v1::Report::default()] }),
            Code::InvalidArgument,
            "field attempt is missing",
        ),
        (
            Body::Heartbeat(v1::Heartbeat { number: 1, held: large, ..Default::default() }),
            Code::OutOfRange,
            "length too large",
        ),
    ];
    for (message, code, text) in rows {
        let mut executor = master.executor("e1").await;
        executor.say(message).await;
        let status = executor.end().await;
        assert_eq!(status.code(), code, "{status:?}");
        assert!(status.message().contains(text), "{} instead of {text}", status.message());
    }
    master.executor("e1").await.beat(1, Vec::new()).await;
}

#[tokio::test]
async fn an_executor_that_does_not_say_who_it_is_is_sent_away() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut client = master.executors().await;
    let silent = tokio_stream::pending::<v1::ExecutorMessage>();
    let status = refused(within("the deadline", client.session(silent)).await);
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(status.message(), "no Hello within 10 s");
}

#[tokio::test]
async fn a_newer_session_takes_the_place_of_the_older_one() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut older = master.executor("e1").await;
    let mut newer = master.executor("e1").await;
    assert!(matches!(older.next().await.unwrap(), leader_message::Body::Refused(_)));
    assert_eq!(older.end().await.message(), "the leader ended the session");
    newer.beat(1, Vec::new()).await;
}

#[tokio::test]
async fn a_session_that_breaks_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let executor = master.executor("e1").await;
    let mut control = master.control().await;
    let mut state = async || {
        let listed = control.list_executors(v1::ListExecutorsRequest {}).await.unwrap().into_inner();
        listed.executors[0].state.clone()
    };
    assert_eq!(state().await, "connected");
    drop(executor);
    until("the executor to be gone", async || (state().await == "disconnected").then_some(())).await;
}

#[tokio::test]
async fn a_session_that_is_open_and_silent_ends() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut executor = master.executor("e1").await;
    let status = within("the end of the session", executor.end()).await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(status.message(), "no message for 15 s: the executor sends no heartbeats");
    let mut control = master.control().await;
    until("the executor to be gone", async || {
        let listed = control.list_executors(v1::ListExecutorsRequest {}).await.unwrap().into_inner();
        (listed.executors[0].state == "disconnected").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_cancelled_run_kills_what_runs() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut executor = master.executor("e1").await;
    master.apply(ONE).await;
    let run = master.run("one").await;
    let start = executor.start().await;
    executor.accept(&start).await;
    let answer =
        master.control().await.cancel_run(v1::RunRequest { run: run.clone() }).await.unwrap().into_inner();
    assert_eq!(answer.state, "running", "it ends after its last attempt");
    let kill = loop {
        if let leader_message::Body::Kill(kill) = executor.next().await.unwrap() {
            break kill;
        }
    };
    assert_eq!((kill.attempt, kill.grace_ms), (start.attempt.clone(), 1_000));
    executor.finish(&start, ended(AttemptState::Killed)).await;
    master.reaches(&run, "cancelled").await;
}

#[tokio::test]
async fn an_executor_that_drains_gets_no_more_starts() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut draining = master.executor("e1").await;
    draining.say(Body::Draining(v1::Draining {})).await;
    draining.beat(1, Vec::new()).await;
    master.apply(ONE).await;
    let run = master.run("one").await;
    let mut other = master.executor_with(v1::Hello { spool_id: vec![8; 16], ..hello("e2") }).await.unwrap();
    let start = other.start().await;
    other.finish(&start, ended(AttemptState::Succeeded)).await;
    master.reaches(&run, "success").await;
}

#[tokio::test]
async fn an_executor_that_does_not_read_loses_its_session_and_goes_on_after_its_return() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut executor = master.executor("e1").await;
    master.apply(ONE).await;
    let run = master.run("one").await;
    let start = executor.start().await;
    executor.accept(&start).await;
    executor.overflow(&master, vec![held(&start, AttemptState::Running)]).await;
    let holding = v1::Hello { held: vec![held(&start, AttemptState::Running)], ..hello("e1") };
    let mut back = master.executor_with(holding).await.unwrap();
    assert_eq!(back.welcome.verdicts.len(), 1);
    assert_eq!(back.welcome.verdicts[0].kind(), v1::verdict::Kind::Adopt);
    back.finish(&start, ended(AttemptState::Succeeded)).await;
    master.reaches(&run, "success").await;
    let status = executor.end().await;
    assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
}

#[tokio::test]
async fn an_attempt_too_large_to_be_sent_fails_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut executor = master.executor_with(v1::Hello { slots: 200, ..hello("e1") }).await.unwrap();
    // Every upstream task hands on as much as it may, and the last task names all of it.
    let names: Vec<String> = (0..130).map(|number| format!("t{number}")).collect();
    let mut text = "workflow: large\ntasks:\n".to_owned();
    for name in &names {
        text.push_str(&format!("  {name}: {{ kind: shell, with: {{ command: [make] }} }}\n"));
    }
    let words: Vec<String> = names.iter().map(|name| format!("\"{{{{ values.{name}.x }}}}\"")).collect();
    text.push_str(&format!(
        "  last: {{ kind: shell, after: [{}], with: {{ command: [{}] }} }}\n",
        names.join(", "),
        words.join(", ")
    ));
    master.apply(&text).await;
    let run = master.run("large").await;
    for _ in &names {
        let start = executor.start().await;
        let values = format!("{{\"x\":\"{}\"}}", "v".repeat(65_500));
        executor.finish(&start, v1::AttemptEnd { values, ..ended(AttemptState::Succeeded) }).await;
    }
    let view = master.reaches(&run, "failed").await;
    let last = view.tasks.last().unwrap();
    let attempt = last.attempts.last().unwrap();
    assert_eq!((attempt.state.as_str(), last.attempts.len()), ("rejected", 1));
    assert!(attempt.reason.contains("hand on less"), "{}", attempt.reason);
    executor.beat(1, Vec::new()).await;
}

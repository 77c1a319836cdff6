//! What people do with executors, and with attempts whose executor is gone.

use millrace_proto::v1::{self, AttemptState, RejectReason, executor_message};
use tonic::Code;

use crate::support::{Control, Executor, Master, ONE, ended, held, hello, nobody, refused, until};

fn close(name: &str, reason: &str) -> v1::CloseExecutorRequest {
    v1::CloseExecutorRequest { name: name.to_owned(), reason: reason.to_owned(), by: "ann".to_owned() }
}

fn open(name: &str) -> v1::OpenExecutorRequest {
    v1::OpenExecutorRequest { name: name.to_owned(), by: "ann".to_owned() }
}

fn forget(name: &str) -> v1::ForgetExecutorRequest {
    v1::ForgetExecutorRequest { name: name.to_owned(), by: "ann".to_owned() }
}

fn confirm(attempt: &str) -> v1::ConfirmAttemptLostRequest {
    v1::ConfirmAttemptLostRequest {
        attempt: attempt.to_owned(),
        reason: "it burnt down".to_owned(),
        by: "ann".to_owned(),
    }
}

async fn shown(control: &mut Control, name: &str) -> v1::ExecutorResponse {
    control.get_executor(v1::GetExecutorRequest { name: name.to_owned() }).await.unwrap().into_inner()
}

async fn view(control: &mut Control, name: &str) -> v1::ExecutorView {
    shown(control, name).await.executor.unwrap()
}

/// Returns why the task of a run waits.
async fn why(control: &mut Control, run: &str) -> (String, String) {
    let request = v1::ExplainRunRequest { run: run.to_owned(), task: String::new() };
    let mut explained = control.explain_run(request).await.unwrap().into_inner();
    let reason = explained.tasks.remove(0);
    (reason.code, reason.text)
}

/// Ends a session, and waits until the master knows that.
async fn leave(control: &mut Control, executor: Executor, name: &str) {
    drop(executor);
    until("the executor to be gone", async || {
        (view(control, name).await.state == "disconnected").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_drained_executor_is_given_nothing_until_it_is_undrained_whoever_leads() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut control = master.control().await;
    let mut executor = master.executor("e1").await;
    master.apply(ONE).await;
    let first = master.run("one").await;
    let start = executor.start().await;
    executor.accept(&start).await;
    let drained = control.drain_executor(close("e1", "new disks")).await.unwrap().into_inner();
    let executor_view = drained.executor.unwrap();
    assert_eq!(
        (executor_view.standing.as_str(), executor_view.standing_reason.as_str()),
        ("drained", "new disks")
    );
    assert_eq!((executor_view.standing_by.as_str(), executor_view.slots_used), ("ann", 1));
    assert!(executor_view.standing_since.is_some());
    assert_eq!(drained.attempts[0].run, first);
    assert_eq!((drained.attempts[0].task.as_str(), drained.attempts[0].number), ("a", 1));
    executor.finish(&start, ended(AttemptState::Succeeded)).await;
    master.reaches(&first, "success").await;
    let second = master.run("one").await;
    let (code, text) = why(&mut control, &second).await;
    assert_eq!(code, "executor_drained");
    assert!(
        text.starts_with("executor e1 is drained by ann since 20") && text.ends_with(": new disks"),
        "{text}"
    );
    master.stop().await.0.unwrap();

    let master = Master::start(folder.path()).await;
    let mut control = master.control().await;
    let away = view(&mut control, "e1").await;
    assert_eq!((away.state.as_str(), away.standing.as_str()), ("disconnected", "drained"));
    let mut executor = master.executor_with(v1::Hello { term_seen: 1, ..hello("e1") }).await.unwrap();
    executor.beat(1, Vec::new()).await;
    assert_eq!(why(&mut control, &second).await.0, "executor_drained");
    let opened = control.undrain_executor(open("e1")).await.unwrap().into_inner().executor.unwrap();
    assert_eq!((opened.standing.as_str(), opened.standing_since), ("open", None));
    let start = executor.start().await;
    executor.finish(&start, ended(AttemptState::Succeeded)).await;
    master.reaches(&second, "success").await;
}

#[tokio::test]
async fn an_executor_on_which_nothing_starts_is_cordoned_and_the_task_goes_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut control = master.control().await;
    let mut broken = master.executor("broken").await;
    master.apply(ONE).await;
    let run = master.run("one").await;
    for _ in 0..5 {
        let start = broken.start().await;
        let end = v1::AttemptEnd {
            reason: "cannot prepare the attempt: no more processes".to_owned(),
            reject_reason: RejectReason::CannotStart.into(),
            ..ended(AttemptState::Rejected)
        };
        broken.finish(&start, end).await;
    }
    let cordoned = view(&mut control, "broken").await;
    assert_eq!((cordoned.standing.as_str(), cordoned.standing_by.as_str()), ("cordoned", "the leader"));
    assert_eq!(
        cordoned.standing_reason,
        "5 starts in a row came to nothing; the last one: cannot prepare the attempt: no more processes"
    );
    assert_eq!(why(&mut control, &run).await.0, "executor_cordoned");
    let mut sound = master.executor("sound").await;
    let start = sound.start().await;
    assert_eq!(start.attempt.as_ref().unwrap().number, 6);
    sound.finish(&start, ended(AttemptState::Succeeded)).await;
    master.reaches(&run, "success").await;
    let opened = control.undrain_executor(open("broken")).await.unwrap().into_inner();
    assert_eq!(opened.executor.unwrap().standing, "open");
}

#[tokio::test]
async fn a_persons_word_ends_an_attempt_whose_executor_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut control = master.control().await;
    let mut gone = master.executor("gone").await;
    master.apply(ONE).await;
    let run = master.run("one").await;
    let start = gone.start().await;
    gone.accept(&start).await;
    gone.beat(1, vec![held(&start, AttemptState::Running)]).await;
    let attempt = shown(&mut control, "gone").await.attempts.remove(0).attempt;
    let status = refused(control.confirm_attempt_lost(confirm(&attempt)).await);
    assert_eq!(status.code(), Code::FailedPrecondition);
    assert!(status.message().starts_with("executor gone is connected and speaks for attempt "), "{status}");
    let status = refused(control.forget_executor(forget("gone")).await);
    assert!(status.message().starts_with("executor gone is connected"), "{status}");
    leave(&mut control, gone, "gone").await;
    let status = refused(control.forget_executor(forget("gone")).await);
    assert!(status.message().contains(&attempt), "{status}");

    let state = control.confirm_attempt_lost(confirm(&attempt)).await.unwrap().into_inner().state;
    assert_eq!(state, "lost");
    let status = refused(control.confirm_attempt_lost(confirm(&attempt)).await);
    assert_eq!(
        (status.code(), status.message()),
        (Code::FailedPrecondition, format!("attempt {attempt} does not exist or has ended").as_str())
    );
    let mut other =
        master.executor_with(v1::Hello { spool_id: vec![8; 16], ..hello("other") }).await.unwrap();
    let again = other.start().await;
    assert_eq!(again.attempt.as_ref().unwrap().number, 2);
    // It was not so: what is recorded stays, and the executor is told to end it.
    let mut back = master
        .executor_with(v1::Hello { held: vec![held(&start, AttemptState::Running)], ..hello("gone") })
        .await
        .unwrap();
    assert_eq!(back.welcome.verdicts[0].kind(), v1::verdict::Kind::Discard);
    back.beat(1, vec![held(&start, AttemptState::Killing)]).await;
    other.finish(&again, ended(AttemptState::Succeeded)).await;
    let view = master.reaches(&run, "success").await;
    let attempts = &view.tasks[0].attempts;
    assert_eq!(
        (attempts[0].state.as_str(), attempts[0].reason.as_str()),
        ("lost", "confirmed by ann: it burnt down")
    );
    leave(&mut control, back, "gone").await;
    control.forget_executor(forget("gone")).await.unwrap();
    let listed = control.list_executors(v1::ListExecutorsRequest {}).await.unwrap().into_inner().executors;
    assert_eq!(listed.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["other"]);
}

#[tokio::test]
async fn what_is_wrong_with_a_request_about_executors_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut control = master.control().await;
    let _executor = master.session(executor_message::Body::Hello(hello("e1"))).await.unwrap();
    let status = refused(control.drain_executor(close("absent", "")).await);
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(
        status.message(),
        "no executor absent is known; `masterctl executor list` shows those that are"
    );
    let status = refused(control.undrain_executor(open("Absent")).await);
    assert_eq!(status.code(), Code::InvalidArgument);
    let status = refused(control.cordon_executor(close("e1", "two\nlines")).await);
    assert!(status.message().starts_with("reason: it must be one line"), "{status}");
    let status = refused(control.cordon_executor(close("e1", &"x".repeat(501))).await);
    assert_eq!(status.message(), "reason: 501 characters, at most 500");
    let status = refused(
        control.drain_executor(v1::CloseExecutorRequest { by: " ".to_owned(), ..close("e1", "") }).await,
    );
    assert_eq!(status.message(), "by: say who asks, for the record");
    let status = refused(control.confirm_attempt_lost(confirm("x")).await);
    assert!(status.message().contains("is not an attempt id"), "{status}");
    let id = format!("{}.0.1", nobody());
    let status = refused(
        control
            .confirm_attempt_lost(v1::ConfirmAttemptLostRequest { reason: String::new(), ..confirm(&id) })
            .await,
    );
    assert!(status.message().starts_with("reason: say how"), "{status}");
    let status = refused(control.confirm_attempt_lost(confirm(&id)).await);
    assert_eq!(status.code(), Code::FailedPrecondition);
}

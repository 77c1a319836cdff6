//! What executors tell of themselves and of what they did: two of one name, older copies of a spool, and `verify`.

use millrace_proto::v1::{self, history_entry::What, leader_message};

use crate::support::{Executor, Master, ONE, hello, until};

/// An executor whose process has a name and whose spool has so many facts.
fn process(name: &str, facts: u64) -> v1::Hello {
    v1::Hello { process: name.to_owned(), spool_facts: facts, has_history: true, ..hello("e1") }
}

async fn refused(master: &Master, hello: v1::Hello) -> v1::Refused {
    let mut executor = master.session(v1::executor_message::Body::Hello(hello)).await.unwrap();
    match executor.next().await.unwrap() {
        leader_message::Body::Refused(refused) => refused,
        other => panic!("a refusal, not {other:?}"),
    }
}

#[tokio::test]
async fn a_second_process_of_a_name_is_refused_and_the_first_keeps_its_session() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut first = master.executor_with(process("first", 1)).await.unwrap();
    let refused = refused(&master, process("second", 1)).await;
    assert!(refused.reason.contains("an executor named e1 is connected already"), "{}", refused.reason);
    assert!(!refused.is_spool_old);
    first.beat(1, Vec::new()).await;
    // The same process is believed at any time, and another one once the first has gone.
    let again = master.executor_with(process("first", 1)).await.unwrap();
    drop((first, again));
    until("the place to be free", async || master.executor_with(process("second", 1)).await.ok()).await;
}

#[tokio::test]
async fn a_spool_that_shows_less_than_it_did_is_to_be_begun_anew() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut executor = master.executor_with(process("first", 5)).await.unwrap();
    let beat = v1::Heartbeat { number: 1, spool_facts: 9, ..v1::Heartbeat::default() };
    executor.say(v1::executor_message::Body::Heartbeat(beat)).await;
    executor.next().await.unwrap();
    drop(executor);
    let refused = until("the session to have ended", async || {
        let mut executor =
            master.session(v1::executor_message::Body::Hello(process("second", 7))).await.unwrap();
        match executor.next().await.unwrap() {
            leader_message::Body::Refused(refused) => Some(refused).filter(|refused| refused.is_spool_old),
            other => panic!("a refusal, not {other:?}"),
        }
    })
    .await;
    assert!(refused.reason.contains("has 7 facts and had 9 before"), "{}", refused.reason);
    let new = v1::Hello { spool_id: vec![8; 16], ..process("third", 1) };
    master.executor_with(new).await.unwrap();
}

/// Answers the next question for the history with these entries.
async fn answer(executor: &mut Executor, entries: Vec<v1::HistoryEntry>) {
    loop {
        if let leader_message::Body::HistoryRequest(request) = executor.next().await.unwrap() {
            let page = v1::HistoryPage {
                number: request.number,
                entries,
                is_whole: true,
                ..v1::HistoryPage::default()
            };
            return executor.say(v1::executor_message::Body::HistoryPage(page)).await;
        }
    }
}

fn entry(what: What) -> v1::HistoryEntry {
    v1::HistoryEntry { at: 1_000_000, what: Some(what) }
}

#[tokio::test]
async fn executors_are_asked_for_what_they_did_and_what_contradicts_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    master.apply(ONE).await;
    let mut executor = master.executor_with(process("first", 1)).await.unwrap();
    let _silent = master.executor("e2").await;
    let run = master.run("one").await;
    let start = executor.start().await;
    executor.accept(&start).await;
    let end = v1::AttemptEnd {
        state: v1::AttemptState::Succeeded.into(),
        exit_code: Some(0),
        started_at: Some(1_000_000),
        ended_at: 2_000_000,
        ..v1::AttemptEnd::default()
    };
    executor.finish(&start, end).await;
    master.reaches(&run, "success").await;
    let opened = What::Opened(v1::HistoryOpened { spool_id: vec![7; 16], slots: 2, is_start: true });
    let attempt = start.attempt.clone().unwrap();
    let ended = |exit_code| {
        let (attempt, state) = (Some(attempt.clone()), v1::AttemptState::Succeeded.into());
        What::Ended(v1::HistoryEnd { attempt, state, exit_code: Some(exit_code) })
    };
    let told = [opened.clone(), What::TermObeyed(1), What::Spawned(attempt.clone()), ended(0)];
    let wrong = [opened, What::TermObeyed(2), What::TermObeyed(1), What::Spawned(attempt.clone()), ended(7)];
    for (told, rules) in [(told.to_vec(), vec![]), (wrong.to_vec(), vec!["I12", "I10"])] {
        let found = until("the range to hold the run", async || {
            let mut control = master.control().await;
            let request = v1::VerifyRequest { since: Some(0), until: None };
            let entries = told.iter().cloned().map(entry).collect();
            let (found, ()) = tokio::join!(control.verify(request), answer(&mut executor, entries));
            let found = found.unwrap().into_inner();
            Some(found).filter(|found| found.attempts == 1)
        })
        .await;
        let broken: Vec<&str> = found.violations.iter().map(|found| found.rule.as_str()).collect();
        assert_eq!(broken, rules, "{:#?}", found.violations);
        let unread: Vec<&str> = found
            .executors
            .iter()
            .filter(|read| !read.problem.is_empty())
            .map(|read| read.executor.as_str())
            .collect();
        assert_eq!(unread, ["e2"], "it has no history to tell of: {:?}", found.executors);
        assert_eq!(found.unjudged.len(), 1, "{:?}", found.unjudged);
    }
}

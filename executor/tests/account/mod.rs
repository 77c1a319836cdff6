//! What an executor says of itself and of what it did: its history, its spool, its settings.

use std::{fs, process::Command};

use millrace_common::state::AttemptState;
use millrace_proto::v1::{self, history_entry::What, leader_message::Body};
use serde_json::json;

use crate::support::{Executor, Stage, attempt, is_alive, state};

impl Stage {
    /// Asks for a page of the history and waits for it.
    async fn history(&mut self, page_token: &str) -> v1::HistoryPage {
        self.session
            .send(Body::HistoryRequest(v1::HistoryRequest {
                number: 7,
                since: 0,
                until: i64::MAX,
                page_token: page_token.to_owned(),
            }))
            .await;
        loop {
            if let Some(page) = self.session.pages.pop() {
                return page;
            }
            assert!(self.session.receive().await, "the session ended");
        }
    }
}

#[tokio::test]
async fn what_was_done_is_told_to_the_leader_that_asks() {
    let mut stage = Stage::new().await;
    assert!(stage.session.hello.has_history);
    let id = attempt(0, 1);
    let end = stage.session.run(id, &["sh", "-c", "exit 3"]).await;
    // What is done after the acknowledgement shows that this was taken in.
    stage.session.run(attempt(1, 1), &["true"]).await;
    let page = stage.history("").await;
    assert!(page.is_whole && page.problem.is_empty() && page.number == 7, "{page:?}");
    let entries: Vec<&What> = page.entries.iter().filter_map(|entry| entry.what.as_ref()).collect();
    let Some(What::Opened(opened)) = entries.first() else { panic!("{entries:?}") };
    assert!(opened.is_start && opened.spool_id == stage.session.hello.spool_id);
    let of_it = |what: &&What| match what {
        What::Accepted(of) | What::Spawned(of) | What::Released(of) => *of == id.into(),
        What::Ended(end) => end.attempt == Some(id.into()),
        What::Opened(_) | What::TermObeyed(_) => false,
    };
    let told: Vec<&What> = entries.into_iter().filter(of_it).collect();
    let [What::Accepted(_), What::Spawned(_), What::Ended(ended), What::Released(_)] = told[..] else {
        panic!("{told:?}")
    };
    assert_eq!((ended.state, ended.exit_code), (end.state, Some(3)));
    let wrong = stage.history("not a page").await;
    assert!(wrong.problem.contains("not a page"), "{wrong:?}");
}

#[tokio::test]
async fn a_spool_that_a_leader_refuses_is_put_aside_and_the_next_one_attests_a_clean_slate() {
    let mut stage = Stage::new().await;
    let facts = stage.session.hello.spool_facts;
    let id = attempt(0, 1);
    stage.session.start(stage.session.shell(id, &["sleep", "1000"])).await;
    let pid = stage.session.pid_of(id).await;
    let spool = stage.session.hello.spool_id.clone();
    stage.executor.crash();
    let (folder, mut leader) = (stage.folder, stage.leader);
    let executor = Executor::start(folder.path(), leader.address, "");
    let again = leader.greeted().await;
    assert!(again.hello.spool_id == spool && again.hello.spool_facts > facts, "facts only grow");
    assert_ne!(again.hello.process, stage.session.hello.process);
    let reason = "it has 3 facts and had 9 before".to_owned();
    again.send(Body::Refused(v1::Refused { reason: reason.clone(), is_spool_old: true })).await;
    assert_eq!(executor.exit().await.code(), Some(1));
    let log = fs::read_to_string(folder.path().join("executor.log")).unwrap();
    assert!(log.contains("put aside for a new one") && log.contains(&reason), "{log}");
    assert!(folder.path().join("data/spool/journal.old").exists());
    let _executor = Executor::start(folder.path(), leader.address, "");
    let new = leader.greeted().await;
    assert!(new.hello.spool_id != spool && new.hello.held.is_empty() && new.hello.is_clean);
    assert!(!is_alive(pid), "what the old spool did not tell of is ended before that is attested");
}

#[tokio::test]
async fn the_facts_of_a_spool_only_grow_across_restarts() {
    let mut stage = Stage::new().await;
    let mut told = stage.session.hello.spool_facts;
    for index in 0..3 {
        stage.session.run(attempt(index, 1), &["true"]).await;
        stage.executor.crash();
        stage.executor = Executor::start(stage.folder.path(), stage.leader.address, "");
        stage.session = stage.leader.session().await;
        let now = stage.session.hello.spool_facts;
        assert!(now >= told + 2, "an attempt is taken in and ends: {told}, then {now}");
        told = now;
    }
}

#[tokio::test]
async fn the_last_words_of_a_built_in_kind_are_the_reason_of_its_failure() {
    let connection = "[connections.mes]\nengine = 'mysql'\nhost = '127.0.0.1'\nport = 1\nuser = 'etl'\npassword = 'hunter22'\n";
    let mut stage = Stage::with(connection).await;
    let with = json!({ "connection": "mes", "databases": ["hunter22"], "target": stage.file("backups") });
    let id = attempt(0, 1);
    stage.session.start(stage.session.task(id, "backup", &with)).await;
    let end = stage.session.end_of(id).await;
    assert_eq!((state(&end), end.exit_code), (AttemptState::Failed, Some(1)), "{}", end.reason);
    assert!(!end.reason.starts_with("exit code") && !end.reason.is_empty(), "{}", end.reason);
    assert!(!end.reason.contains("hunter22") && !end.reason.contains('\n'), "{}", end.reason);
    let log = String::from_utf8(stage.leader.whole_output(id).await).unwrap();
    assert!(log.trim_end().ends_with(&end.reason), "{log}\n{}", end.reason);
}

#[test]
fn wrong_settings_have_an_exit_code_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let run = |text: &str| {
        let config = folder.path().join("executor.toml");
        fs::write(&config, text).unwrap();
        let program = env!("CARGO_BIN_EXE_millrace-executor");
        let output = Command::new(program).args(["run", "--config"]).arg(config).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let rest = "name = 'e1'\ntoken_file = '/nowhere'\ndata_dir = '/nowhere/data'\n";
    let (code, said) = run(&format!("{rest}masters = []\nslots = 0\n"));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("`masters` is empty") && said.contains("`slots` is 0"), "{said}");
    assert_eq!(run("nonsense = 1\n").0, Some(2));
    let (code, said) = run(&format!("{rest}masters = ['http://127.0.0.1:1']\n"));
    assert_eq!(code, Some(1), "the settings are right, the token is not there: {said}");
}

//! The executor's program against a leader that does what the test says, with real processes.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod account;
mod small_disk;
mod support;

use std::{fs, time::Duration};

use millrace_common::state::AttemptState;
use millrace_proto::v1::{self, verdict::Kind};
use serde_json::json;

use self::{
    small_disk::{SmallDisk, fill},
    support::{
        Executor, Leader, Stage, Sweeper, attempt, eventually, is_alive, pid_in, signal, state, supervisor_of,
    },
};

#[tokio::test]
async fn exit_codes_become_outcomes() {
    let mut stage = Stage::new().await;
    let session = &mut stage.session;
    let end = session.run(attempt(0, 1), &["true"]).await;
    assert_eq!((state(&end), end.exit_code, end.reason.as_str()), (AttemptState::Succeeded, Some(0), ""));
    let end = session.run(attempt(1, 1), &["sh", "-c", "exit 3"]).await;
    assert_eq!((state(&end), end.exit_code, end.permanent), (AttemptState::Failed, Some(3), false));
    let end = session.run(attempt(2, 1), &["sh", "-c", "kill -9 $$"]).await;
    assert_eq!((state(&end), end.exit_code), (AttemptState::Failed, None));
    assert!(end.reason.contains("SIGKILL"), "{}", end.reason);
    let end = session.run(attempt(3, 1), &["no-such-program"]).await;
    assert_eq!((state(&end), end.permanent), (AttemptState::Failed, true));
    assert!(end.reason.contains("no-such-program"), "{}", end.reason);
    let skip = session.task(
        attempt(4, 1),
        "shell",
        &json!({ "command": ["sh", "-c", "exit 99"], "skip_exit_codes": [99] }),
    );
    session.start(skip).await;
    let end = session.end_of(attempt(4, 1)).await;
    assert_eq!((state(&end), end.skipped), (AttemptState::Succeeded, true));
}

#[tokio::test]
async fn the_environment_tells_an_attempt_who_it_is() {
    let mut stage = Stage::new().await;
    let id = attempt(0, 2);
    let out = stage.file("environment");
    let script = format!("env > {out}; pwd >> {out}; test -z \"$(cat)\"");
    assert_eq!(state(&stage.session.run(id, &["sh", "-c", &script]).await), AttemptState::Succeeded);
    let text = fs::read_to_string(&out).unwrap();
    for line in [
        format!("MILLRACE_ATTEMPT={id}"),
        format!("MILLRACE_FENCE_TOKEN={id}"),
        format!("MILLRACE_RUN_ID={}", id.instance.run),
        "MILLRACE_WORKFLOW=nightly".to_owned(),
        "MILLRACE_TASK=load".to_owned(),
        "MILLRACE_LOGICAL_DATE=1970-01-01T00:00:00Z".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is missing in {text}");
    }
    assert!(text.contains("PATH=") && !text.contains("MILLRACE_LOG="), "{text}");
    let work_dir = text.lines().last().unwrap();
    assert!(text.contains(&format!("MILLRACE_VALUES={work_dir}/values")), "{text}");
}

#[tokio::test]
async fn values_are_handed_on_and_bad_ones_fail_the_attempt() {
    let mut stage = Stage::new().await;
    let end = stage.session.run(attempt(0, 1), &["sh", "-c", "echo rows=5 >> $MILLRACE_VALUES"]).await;
    assert_eq!((state(&end), end.values.as_str()), (AttemptState::Succeeded, r#"{"rows":"5"}"#));
    let end = stage.session.run(attempt(1, 1), &["sh", "-c", "echo nonsense >> $MILLRACE_VALUES"]).await;
    assert_eq!((state(&end), end.exit_code), (AttemptState::Failed, Some(0)));
    assert!(end.reason.contains("values file"), "{}", end.reason);
    // What one attempt left behind is not there for the next.
    let end = stage.session.run(attempt(2, 1), &["sh", "-c", "ls -A; test -z \"$(ls -A)\""]).await;
    assert_eq!((state(&end), end.values.as_str()), (AttemptState::Succeeded, ""));
}

#[tokio::test]
async fn templates_are_rendered_here_and_a_broken_one_fails_for_good() {
    let mut stage = Stage::new().await;
    let session = &mut stage.session;
    let mut start =
        session.shell(attempt(0, 1), &["echo", "{{ ds }} {{ params.region }} {{ values.up.rows }}"]);
    start.is_templated = true;
    start.run.as_mut().unwrap().params = r#"{"region":"north"}"#.into();
    start.values.insert("up".into(), r#"{"rows":"7"}"#.into());
    session.start(start).await;
    assert_eq!(state(&session.end_of(attempt(0, 1)).await), AttemptState::Succeeded);
    assert_eq!(stage.leader.whole_output(attempt(0, 1)).await, b"1970-01-01 north 7\n");
    let mut broken = stage.session.shell(attempt(1, 1), &["echo", "{{ params.nothing }}"]);
    broken.is_templated = true;
    stage.session.start(broken).await;
    let end = stage.session.end_of(attempt(1, 1)).await;
    assert_eq!((state(&end), end.permanent), (AttemptState::Failed, true));
    assert!(end.reason.contains("nothing"), "{}", end.reason);
}

#[tokio::test]
async fn an_attempt_that_takes_too_long_is_ended() {
    let mut stage = Stage::new().await;
    let id = attempt(0, 1);
    let start = v1::Start { timeout_ms: 300, ..stage.session.shell(id, &["sleep", "1000"]) };
    stage.session.start(start).await;
    let pid = stage.session.pid_of(id).await;
    let end = stage.session.end_of(id).await;
    assert_eq!((state(&end), end.reason.as_str()), (AttemptState::TimedOut, "took longer than 300ms"));
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn processes_that_ignore_term_and_leave_their_group_are_found_and_ended() {
    let mut stage = Stage::new().await;
    let id = attempt(0, 1);
    let (escaped, inner) = (stage.file("escaped"), stage.file("inner"));
    // The escaped one is a daemon: its own session, its parent gone, deaf to TERM.
    let script = format!(
        "trap '' TERM; (setsid sh -c 'trap \"\" TERM; echo $$ > {escaped}; while :; do sleep 1; done' &) ; \
         echo $$ > {inner}; while :; do sleep 1; done"
    );
    stage.session.start(stage.session.shell(id, &["sh", "-c", &script])).await;
    let (escaped, inner) = (pid_in(escaped.as_ref()).await, pid_in(inner.as_ref()).await);
    assert!(is_alive(escaped) && is_alive(inner));
    stage.session.kill(id, Duration::from_millis(200)).await;
    let end = stage.session.end_of(id).await;
    assert_eq!((state(&end), end.reason.as_str()), (AttemptState::Killed, "asked"));
    assert!(!is_alive(escaped) && !is_alive(inner), "the end was told while something lived");
}

#[tokio::test]
async fn what_a_main_process_leaves_behind_is_ended_before_its_outcome_is_told() {
    let mut stage = Stage::new().await;
    let (daemon, background) = (stage.file("daemon"), stage.file("background"));
    let script = format!(
        "(setsid sh -c 'echo $$ > {daemon}; sleep 1000' &); (echo $$; exec sleep 1000) & echo $! > {background}; \
         while ! test -s {daemon}; do sleep 0.01; done; exit 0"
    );
    let end = stage.session.run(attempt(0, 1), &["sh", "-c", &script]).await;
    assert_eq!(state(&end), AttemptState::Succeeded);
    for file in [daemon, background] {
        assert!(!is_alive(pid_in(file.as_ref()).await), "{file} lives");
    }
}

#[tokio::test]
async fn a_process_that_obeys_term_ends_within_its_grace() {
    let mut stage = Stage::new().await;
    let id = attempt(0, 1);
    let ready = stage.file("ready");
    let script = format!("trap 'echo bye; exit 7' TERM; echo $$ > {ready}; while :; do sleep 0.05; done");
    stage.session.start(stage.session.shell(id, &["sh", "-c", &script])).await;
    pid_in(ready.as_ref()).await;
    stage.session.kill(id, Duration::from_secs(30)).await;
    let end = stage.session.end_of(id).await;
    assert_eq!((state(&end), end.exit_code), (AttemptState::Killed, Some(7)));
    assert!(stage.leader.whole_output(id).await.ends_with(b"bye\n"));
}

#[tokio::test]
async fn output_is_shipped_while_an_attempt_runs_and_removed_afterwards() {
    let mut stage = Stage::new().await;
    let id = attempt(0, 1);
    let go = stage.file("go");
    let script = format!("echo first; while ! test -e {go}; do sleep 0.02; done; echo second >&2");
    stage.session.start(stage.session.shell(id, &["sh", "-c", &script])).await;
    let leader = &stage.leader;
    eventually("the first line", || leader.output(id).filter(|shipped| shipped.bytes == b"first\n")).await;
    fs::write(&go, "").unwrap();
    let end = stage.session.end_of(id).await;
    assert_eq!(end.log_bytes, 13);
    assert_eq!(stage.leader.whole_output(id).await, b"first\nsecond\n");
    let output = stage.folder.path().join("data/output");
    eventually("an empty output folder", || (fs::read_dir(&output).unwrap().count() == 0).then_some(()))
        .await;
}

#[tokio::test]
async fn passwords_of_the_configuration_never_leave_in_output() {
    let connection = "[connections.mes]\nengine = 'mysql'\npassword = 'pass-word-4711'";
    let mut stage = Stage::with(connection).await;
    let id = attempt(0, 1);
    let script = "printf 'pass-wo'; sleep 0.5; echo rd-4711; printf pass-word-4711 | base64";
    assert_eq!(state(&stage.session.run(id, &["sh", "-c", script]).await), AttemptState::Succeeded);
    let output = String::from_utf8(stage.leader.whole_output(id).await).unwrap();
    assert!(output.starts_with("**************\n"), "{output}");
    // The edges of the encoded form depend on what surrounds it; the rest is hidden.
    assert!(output.matches('*').count() > 28 && !output.contains("cGFzcy"), "{output}");
}

#[tokio::test]
async fn shipping_goes_on_where_it_stopped_when_the_session_breaks() {
    let mut stage = Stage::new().await;
    let id = attempt(0, 1);
    let go = stage.file("go");
    let script = format!("seq 1 20000; while ! test -e {go}; do sleep 0.02; done; seq 20001 40000");
    stage.session.start(stage.session.shell(id, &["sh", "-c", &script])).await;
    let leader = &stage.leader;
    eventually("some output", || leader.output(id).filter(|shipped| shipped.bytes.len() > 10_000)).await;
    drop(stage.session);
    fs::write(&go, "").unwrap();
    let mut session = stage.leader.session().await;
    let end = match session.hello.held[0].end.clone() {
        Some(end) => end,
        None => session.end_of(id).await,
    };
    let expected: String = (1..=40_000).map(|number| format!("{number}\n")).collect();
    assert_eq!((state(&end), end.log_bytes), (AttemptState::Succeeded, expected.len() as u64));
    assert!(stage.leader.whole_output(id).await == expected.as_bytes());
}

#[tokio::test]
async fn a_declared_kind_gets_its_parameters_on_standard_input_only() {
    let mut stage =
        Stage::with("[kinds.greet]\nargv = ['sh', '-c', 'cat; tr \"\\0\" \" \" < /proc/$$/cmdline']").await;
    assert!(stage.session.hello.kinds.iter().any(|kind| kind == "greet"));
    let id = attempt(0, 1);
    stage.session.start(stage.session.task(id, "greet", &json!({ "name": "marker-4711" }))).await;
    assert_eq!(state(&stage.session.end_of(id).await), AttemptState::Succeeded);
    let output = String::from_utf8(stage.leader.whole_output(id).await).unwrap();
    assert_eq!(output.matches("marker-4711").count(), 1, "{output}");
    let end = stage.session.start(stage.session.task(attempt(1, 1), "unheard-of", &json!({})));
    end.await;
    let end = stage.session.end_of(attempt(1, 1)).await;
    assert!(end.permanent && end.reason.contains("greet"), "{}", end.reason);
}

#[tokio::test]
async fn a_gigabyte_of_output_neither_blocks_nor_fills_memory() {
    let mut stage = Stage::new().await;
    let id = attempt(0, 1);
    let end = stage.session.run(id, &["head", "-c", "1073741824", "/dev/zero"]).await;
    assert_eq!((state(&end), end.reason.as_str()), (AttemptState::Succeeded, ""));
    assert!(end.log_bytes > 256 << 20 && end.log_bytes < 257 << 20, "{}", end.log_bytes);
    let status = fs::read_to_string(format!("/proc/{}/status", stage.executor.pid())).unwrap();
    let peak =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")).unwrap();
    assert!(peak.parse::<u64>().unwrap() < 128 << 10, "{peak} KiB");
    // Control messages do not wait behind the output.
    assert_eq!(state(&stage.session.run(attempt(1, 1), &["true"]).await), AttemptState::Succeeded);
}

#[tokio::test]
async fn many_attempts_end_once_each() {
    let mut stage = Stage::with("slots = 16").await;
    for round in 0..16 {
        let ids: Vec<_> = (0..16).map(|index| attempt(round * 16 + index, 1)).collect();
        let starts = ids.iter().map(|id| stage.session.shell(*id, &["true"])).collect();
        stage.session.send(v1::leader_message::Body::Starts(v1::Starts { starts })).await;
        for id in &ids {
            assert_eq!(state(&stage.session.end_of(*id).await), AttemptState::Succeeded);
        }
        assert!(ids.iter().all(|id| stage.session.ends(*id) == 1));
    }
}

#[tokio::test]
async fn attempts_go_on_without_a_session_and_their_end_waits_for_the_next() {
    let mut stage = Stage::new().await;
    let id = attempt(0, 1);
    let go = stage.file("go");
    let script = format!("while ! test -e {go}; do sleep 0.02; done");
    stage.session.start(stage.session.shell(id, &["sh", "-c", &script])).await;
    let pid = stage.session.pid_of(id).await;
    drop(stage.session);
    let lost = stage.leader.greeted().await;
    assert_eq!(lost.hello.held[0].state(), v1::AttemptState::Running);
    fs::write(&go, "").unwrap();
    eventually("the end of the process", || (!is_alive(pid)).then_some(())).await;
    drop(lost);
    // The end is durable before it is told, which may take another greeting.
    loop {
        let session = stage.leader.greeted().await;
        if session.hello.held[0].state() == v1::AttemptState::Succeeded {
            assert_eq!(session.hello.held[0].end.as_ref().unwrap().exit_code, Some(0));
            session.welcome(&[(id, Kind::Discard)]).await;
            break;
        }
    }
    assert!(stage.leader.greeted().await.hello.held.is_empty());
}

#[tokio::test]
async fn orphans_end_themselves_when_heartbeats_are_not_answered() {
    let mut stage = Stage::new().await;
    let id = attempt(0, 1);
    let orphan = v1::Start { orphan_timeout_ms: 3_000, ..stage.session.shell(id, &["sleep", "1000"]) };
    stage.session.start(orphan).await;
    let pid = stage.session.pid_of(id).await;
    stage.session.answers_heartbeats = false;
    while stage.session.receive().await {}
    // No leader welcomes it any more.
    eventually("the end of the orphan", || (!is_alive(pid)).then_some(())).await;
    drop(stage.session);
    loop {
        let session = stage.leader.greeted().await;
        if let Some(end) = &session.hello.held[0].end {
            assert_eq!(
                (state(end), end.reason.as_str()),
                (AttemptState::Lost, "no contact to a leader for 3s")
            );
            return;
        }
    }
}

#[tokio::test]
async fn after_a_crash_of_both_programs_orphans_are_ended_and_reported_as_lost() {
    let mut stage = Stage::new().await;
    let (id, done) = (attempt(0, 1), attempt(1, 1));
    let daemon = stage.file("daemon");
    let script = format!("echo before; (setsid sh -c 'echo $$ > {daemon}; sleep 1000' &); sleep 1000");
    stage.session.start(stage.session.shell(id, &["sh", "-c", &script])).await;
    let main = stage.session.pid_of(id).await;
    let daemon = pid_in(daemon.as_ref()).await;
    stage.session.start(stage.session.shell(done, &["sh", "-c", "exit 4"])).await;
    // Told and never acknowledged.
    while stage.session.ends(done) == 0 {
        assert!(stage.session.receive().await);
    }
    let spool = stage.session.hello.spool_id.clone();
    let supervisor = supervisor_of(stage.folder.path()).unwrap();
    stage.executor.crash();
    signal(supervisor, nix::sys::signal::Signal::SIGKILL);
    // What the supervisor started dies with it; what that had started is for the next life to end.
    eventually("the end of the main process", || (!is_alive(main)).then_some(())).await;
    assert!(is_alive(daemon));
    drop(stage.session);
    let _executor = Executor::start(stage.folder.path(), stage.leader.address, "");
    let mut session = stage.leader.greeted().await;
    assert!(!is_alive(main) && !is_alive(daemon));
    assert_eq!((session.hello.spool_id.clone(), session.hello.is_clean), (spool, false));
    let held = &session.hello.held;
    assert_eq!(held.len(), 2);
    let ended = held.iter().find_map(|held| held.end.as_ref().filter(|end| end.exit_code == Some(4)));
    assert_eq!(state(ended.unwrap()), AttemptState::Failed);
    session.welcome(&[(done, Kind::Discard), (id, Kind::Adopt)]).await;
    let end = session.end_of(id).await;
    assert_eq!(state(&end), AttemptState::Lost);
    assert!(end.reason.contains("restarted"), "{}", end.reason);
    assert!(stage.leader.whole_output(id).await.starts_with(b"before\n"));
    // The same attempt is not started again.
    session.start(session.shell(id, &["true"])).await;
    assert_eq!(state(&session.end_of(id).await), AttemptState::Lost);
}

#[tokio::test]
async fn a_lost_spool_attests_a_clean_slate_only_after_its_processes_are_gone() {
    let mut stage = Stage::new().await;
    assert!(stage.session.hello.is_clean);
    let id = attempt(0, 1);
    stage.session.start(stage.session.shell(id, &["sleep", "1000"])).await;
    let pid = stage.session.pid_of(id).await;
    let spool = stage.session.hello.spool_id.clone();
    stage.executor.crash();
    fs::remove_dir_all(stage.folder.path().join("data/spool")).unwrap();
    drop(stage.session);
    let _executor = Executor::start(stage.folder.path(), stage.leader.address, "");
    let session = stage.leader.greeted().await;
    assert!(session.hello.is_clean && session.hello.held.is_empty() && session.hello.spool_id != spool);
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn a_new_spool_attests_a_clean_slate_across_restarts_until_a_leader_has_heard_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut leader = Leader::start().await;
    let executor = Executor::start(folder.path(), leader.address, "");
    let unanswered = leader.greeted().await;
    assert!(unanswered.hello.is_clean);
    executor.crash();
    let executor = Executor::start(folder.path(), leader.address, "");
    let mut session = leader.session().await;
    assert!(session.hello.is_clean && session.hello.spool_id == unanswered.hello.spool_id);
    // What is durable of the second attempt was written after the answer to the first heartbeat.
    for index in 0..2 {
        assert_eq!(state(&session.run(attempt(index, 1), &["true"]).await), AttemptState::Succeeded);
    }
    executor.crash();
    let _executor = Executor::start(folder.path(), leader.address, "");
    let session = leader.greeted().await;
    assert!(!session.hello.is_clean && session.hello.spool_id == unanswered.hello.spool_id);
}

#[tokio::test]
async fn a_verdict_to_kill_what_has_ended_is_answered_with_its_end() {
    let mut stage = Stage::new().await;
    let id = attempt(0, 1);
    stage.session.start(stage.session.shell(id, &["sh", "-c", "exit 4"])).await;
    while stage.session.ends(id) == 0 {
        assert!(stage.session.receive().await);
    }
    drop(stage.session);
    let mut session = stage.leader.greeted().await;
    session.welcome(&[(id, Kind::Kill)]).await;
    let end = session.end_of(id).await;
    assert_eq!((state(&end), end.exit_code), (AttemptState::Failed, Some(4)));
}

#[tokio::test]
async fn a_full_disk_refuses_starts_for_a_while_and_keeps_results() {
    const NAME: &str = "a_full_disk_refuses_starts_for_a_while_and_keeps_results";
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let Some(_disk) = SmallDisk::mount(NAME, &data, "size=12m") else { return };
    let mut leader = Leader::start().await;
    let _executor = Executor::start(folder.path(), leader.address, "");
    let mut session = leader.session().await;
    assert!(!session.hello.is_space_low);
    let (running, later) = (attempt(0, 1), attempt(1, 1));
    let go = folder.path().join("go");
    let script = format!("while ! test -e {}; do sleep 0.02; done", go.display());
    session.start(session.shell(running, &["sh", "-c", &script])).await;
    session.pid_of(running).await;
    fill(&data.join("filler"));
    session.space_is_told(true).await;
    // So many that their ends do not fit into what the journal has already.
    for index in 100..150 {
        session.start(session.shell(attempt(index, 1), &["true"])).await;
        let end = session.end_of(attempt(index, 1)).await;
        assert_eq!((state(&end), end.reject_reason()), (AttemptState::Rejected, v1::RejectReason::SpaceLow));
        assert!(!end.permanent && end.reason.contains("min_free"), "{}", end.reason);
    }
    let reserve = data.join("spool/reserve");
    assert!(!reserve.exists(), "results have taken the place of the reserve");
    fs::write(&go, "").unwrap();
    assert_eq!(state(&session.end_of(running).await), AttemptState::Succeeded);
    fs::remove_file(data.join("filler")).unwrap();
    session.space_is_told(false).await;
    assert_eq!(state(&session.run(later, &["true"]).await), AttemptState::Succeeded);
    // What was given up for the results is kept back again.
    eventually("a reserve", || fs::metadata(&reserve).ok().filter(|file| file.len() > 1 << 20)).await;
}

#[tokio::test]
async fn a_start_that_finds_its_work_folder_full_is_rejected_and_not_failed() {
    const NAME: &str = "a_start_that_finds_its_work_folder_full_is_rejected_and_not_failed";
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path().join("data/work");
    let Some(_disk) = SmallDisk::mount(NAME, &work, "size=64k,nr_inodes=16") else { return };
    let mut leader = Leader::start().await;
    let _executor = Executor::start(folder.path(), leader.address, "");
    let mut session = leader.session().await;
    let full =
        (0..32).map(|number| fs::write(work.join(format!("filler-{number}")), "")).find_map(Result::err);
    assert_eq!(full.unwrap().kind(), std::io::ErrorKind::StorageFull);
    session.start(session.shell(attempt(0, 1), &["true"])).await;
    let end = session.end_of(attempt(0, 1)).await;
    assert_eq!((state(&end), end.reject_reason()), (AttemptState::Rejected, v1::RejectReason::SpaceLow));
    assert!(!end.permanent && end.reason.contains("cannot prepare the attempt"), "{}", end.reason);
    // The leader looks for another place meanwhile, although the rest of the disk has room.
    session.space_is_told(true).await;
    session.start(session.shell(attempt(1, 1), &["true"])).await;
    let end = session.end_of(attempt(1, 1)).await;
    assert_eq!(end.reject_reason(), v1::RejectReason::SpaceLow);
}

#[tokio::test]
async fn a_greeting_names_the_machine() {
    let stage = Stage::new().await;
    let expected = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    assert_eq!(stage.session.hello.machine_id, expected.trim());
}

#[tokio::test]
async fn a_number_that_comes_from_a_template_is_a_number_to_the_kind() {
    let mut stage = Stage::new().await;
    let session = &mut stage.session;
    for (text, expected) in [("3", AttemptState::Succeeded), ("three", AttemptState::Failed)] {
        let id = attempt(if text == "3" { 0 } else { 1 }, 1);
        let with = json!({ "command": ["sh", "-c", "exit 3"], "success_exit_codes": ["{{ params.code }}"] });
        let mut start = session.task(id, "shell", &with);
        start.is_templated = true;
        start.run.as_mut().unwrap().params = json!({ "code": text }).to_string();
        session.start(start).await;
        let end = session.end_of(id).await;
        assert_eq!(state(&end), expected, "{}", end.reason);
        let is_named = end.reason.contains("with.success_exit_codes[0]") && end.reason.contains("\"three\"");
        assert!(end.reason.is_empty() || (end.permanent && is_named), "{}", end.reason);
    }
}

#[tokio::test]
async fn a_deposed_leader_is_hung_up_on() {
    let mut stage = Stage::new().await;
    stage.session.term = 5;
    assert_eq!(state(&stage.session.run(attempt(0, 1), &["true"]).await), AttemptState::Succeeded);
    stage.session.term = 4;
    stage.session.start(stage.session.shell(attempt(1, 1), &["true"])).await;
    while stage.session.receive().await {}
    let session = stage.leader.greeted().await;
    assert_eq!(session.hello.term_seen, 5);
    assert!(session.hello.held.is_empty(), "the deposed leader's attempt was taken");
}

#[tokio::test]
async fn stopping_ends_attempts_reports_them_and_exits_in_order() {
    let mut stage = Stage::with("on_stop = 'end'").await;
    let id = attempt(0, 1);
    stage.session.start(stage.session.shell(id, &["sleep", "1000"])).await;
    let pid = stage.session.pid_of(id).await;
    stage.executor.terminate();
    let end = stage.session.end_of(id).await;
    assert_eq!((state(&end), end.reason.as_str()), (AttemptState::Lost, "the executor was stopped"));
    assert!(!is_alive(pid));
    assert!(stage.executor.exit().await.success());
    let folder = stage.folder.path();
    eventually("the end of the supervisor", || supervisor_of(folder).is_none().then_some(())).await;
}

#[tokio::test]
async fn a_second_executor_in_the_same_folder_says_so_and_ends() {
    let stage = Stage::new().await;
    let second = Executor::start(stage.folder.path(), stage.leader.address, "");
    assert!(!second.exit().await.success());
    let log = fs::read_to_string(stage.folder.path().join("executor.log")).unwrap();
    assert!(log.contains("in use by another executor"), "{log}");
}

#[tokio::test]
async fn the_master_that_is_said_to_lead_is_followed_and_the_configured_ones_are_asked_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut standby = Leader::start().await;
    let mut leader = Leader::start().await;
    let _executor = Executor::start(folder.path(), standby.address, "");
    let _sweeper = Sweeper(folder.path().to_owned());
    let not_leader = |address: String| v1::leader_message::Body::NotLeader(v1::NotLeader { address });
    let asked = standby.greeted().await;
    asked.send(not_leader(String::new())).await;
    drop(asked);
    // Nobody led, so it asks again.
    let asked = standby.greeted().await;
    asked.send(not_leader(format!("http://{}", leader.address))).await;
    let mut session = leader.session().await;
    let end = session.run(attempt(0, 1), &["true"]).await;
    assert_eq!(state(&end), AttemptState::Succeeded);
    drop(session);
    drop(leader);
    standby.greeted().await;
}

//! The executor and its supervisor, each killed, stopped or replaced under running attempts, with real processes.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::{
    fs,
    io::{Read as _, Write as _},
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    time::Duration,
};

use millrace_common::{id::AttemptId, state::AttemptState};
use millrace_proto::v1::{self, verdict::Kind};
use nix::sys::signal::Signal;
use serde_json::json;

use self::support::{
    Executor, Leader, Session, Stage, attempt, eventually, is_alive, pid_in, signal, state, supervisor_of,
};

impl Stage {
    /// As [`new`](Self::new), where the machine shows no control groups. Only root can hide them, and others cannot write to
    /// them in the first place.
    async fn without_cgroups() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("hidden");
        let own = env!("CARGO_BIN_EXE_millrace-executor");
        let hide = "umount -l \"$(findmnt -n -t cgroup2 -o TARGET | head -1)\"; exec \"$0\" \"$@\"";
        let script = if nix::unistd::geteuid().is_root() {
            format!("#!/bin/sh\nexec unshare -m sh -c '{hide}' {own} \"$@\"\n")
        } else {
            format!("#!/bin/sh\nexec {own} \"$@\"\n")
        };
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
        let stage = Self::of(&program, folder, "").await;
        text_in(&stage.file("executor.log"), "process groups").await;
        stage
    }

    fn supervisor(&self) -> u32 {
        supervisor_of(self.folder.path()).expect("a supervisor")
    }

    /// Starts a shell script and returns its process.
    async fn script(&mut self, id: AttemptId, script: &str) -> u32 {
        self.session.start(self.session.shell(id, &["sh", "-c", script])).await;
        self.session.pid_of(id).await
    }
}

/// Returns the end of the only attempt that an executor holds, from its greeting or after it.
async fn only_end(session: &mut Session, id: AttemptId) -> v1::AttemptEnd {
    let told = session.hello.held.iter().find_map(|held| held.end.clone());
    session.welcome(&[(id, Kind::Adopt)]).await;
    match told {
        Some(end) => end,
        None => session.end_of(id).await,
    }
}

/// Waits until a file holds a text.
async fn text_in(path: &str, text: &str) {
    eventually("a text in a file", || fs::read_to_string(path).ok()?.contains(text).then_some(())).await;
}

#[tokio::test]
async fn an_attempt_outlives_a_crash_of_the_executor_with_its_whole_log_values_and_exit_code() {
    let mut stage = Stage::new().await;
    let (id, go) = (attempt(0, 1), stage.file("go"));
    let script = format!(
        "echo rows=5 > $MILLRACE_VALUES; seq 1 5000; while ! test -e {go}; do sleep 0.02; done; seq 5001 9000; exit 0"
    );
    let pid = stage.script(id, &script).await;
    let supervisor = stage.supervisor();
    stage.executor.crash();
    drop(stage.session);
    let executor = Executor::start(stage.folder.path(), stage.leader.address, "");
    let mut session = stage.leader.greeted().await;
    assert_eq!(session.hello.held[0].state(), v1::AttemptState::Running);
    assert!(is_alive(pid) && supervisor_of(stage.folder.path()) == Some(supervisor));
    // And once more, so that what was adopted can be adopted again.
    executor.crash();
    drop(session);
    let _executor = Executor::start(stage.folder.path(), stage.leader.address, "");
    session = stage.leader.greeted().await;
    session.welcome(&[(id, Kind::Adopt)]).await;
    assert_eq!(session.pid_of(id).await, pid);
    fs::write(go, "").unwrap();
    let end = session.end_of(id).await;
    assert_eq!((state(&end), end.values.as_str()), (AttemptState::Succeeded, r#"{"rows":"5"}"#));
    let expected: String = (1..=9_000).map(|number| format!("{number}\n")).collect();
    assert!(stage.leader.whole_output(id).await == expected.as_bytes());
    assert_eq!(state(&session.run(attempt(1, 1), &["true"]).await), AttemptState::Succeeded);
}

#[tokio::test]
async fn an_exit_that_no_executor_was_there_for_is_told_by_the_next() {
    let mut stage = Stage::new().await;
    let (id, go) = (attempt(0, 1), stage.file("go"));
    let script = format!("while ! test -e {go}; do sleep 0.02; done; echo last; exit 9");
    let pid = stage.script(id, &script).await;
    stage.executor.crash();
    drop(stage.session);
    fs::write(go, "").unwrap();
    eventually("the end of the process", || (!is_alive(pid)).then_some(())).await;
    let _executor = Executor::start(stage.folder.path(), stage.leader.address, "");
    let mut session = stage.leader.greeted().await;
    let end = only_end(&mut session, id).await;
    assert_eq!((state(&end), end.exit_code), (AttemptState::Failed, Some(9)));
    assert_eq!(stage.leader.whole_output(id).await, b"last\n");
}

#[tokio::test]
async fn an_exit_is_not_lost_when_the_supervisor_dies_after_the_executor() {
    let mut stage = Stage::new().await;
    let (id, go) = (attempt(0, 1), stage.file("go"));
    let script = format!("while ! test -e {go}; do sleep 0.02; done; echo last; exit 9");
    stage.script(id, &script).await;
    let (supervisor, ends) = (stage.supervisor(), stage.file("data/supervisor/ends"));
    stage.executor.crash();
    drop(stage.session);
    fs::write(go, "").unwrap();
    text_in(&ends, "status").await;
    signal(supervisor, Signal::SIGKILL);
    let _executor = Executor::start(stage.folder.path(), stage.leader.address, "");
    let mut session = stage.leader.greeted().await;
    let end = only_end(&mut session, id).await;
    assert_eq!((state(&end), end.exit_code), (AttemptState::Failed, Some(9)));
    assert_eq!(stage.leader.whole_output(id).await, b"last\n");
}

#[tokio::test]
async fn another_file_of_the_program_takes_over_what_runs() {
    let mut stage = Stage::new().await;
    let (id, go) = (attempt(0, 1), stage.file("go"));
    let script = format!("while ! test -e {go}; do sleep 0.02; done; exit 4");
    let pid = stage.script(id, &script).await;
    stage.executor.terminate();
    drop(stage.session);
    assert!(stage.executor.exit().await.success());
    assert!(is_alive(pid), "a planned stop ended an attempt");
    let program = stage.folder.path().join("millrace-executor-next");
    fs::copy(env!("CARGO_BIN_EXE_millrace-executor"), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o700)).unwrap();
    let _executor = Executor::start_program(&program, stage.folder.path(), stage.leader.address, "");
    let mut session = stage.leader.greeted().await;
    session.welcome(&[(id, Kind::Adopt)]).await;
    fs::write(go, "").unwrap();
    assert_eq!(session.end_of(id).await.exit_code, Some(4));
}

#[tokio::test]
async fn when_the_supervisor_is_killed_its_attempts_die_are_told_and_others_run() {
    let mut stage = Stage::new().await;
    let (id, daemon) = (attempt(0, 1), stage.file("daemon"));
    let script = format!("(setsid sh -c 'echo $$ > {daemon}; sleep 1000' &); echo before; sleep 1000");
    let pid = stage.script(id, &script).await;
    let daemon = pid_in(daemon.as_ref()).await;
    let supervisor = stage.supervisor();
    signal(supervisor, Signal::SIGKILL);
    let end = stage.session.end_of(id).await;
    assert_eq!(state(&end), AttemptState::Lost);
    assert!(end.reason.contains("supervisor"), "{}", end.reason);
    assert_eq!(stage.session.ends(id), 1);
    assert!(!is_alive(pid) && !is_alive(daemon));
    assert_eq!(stage.leader.whole_output(id).await, b"before\n");
    assert_eq!(state(&stage.session.run(attempt(1, 1), &["true"]).await), AttemptState::Succeeded);
    assert_ne!(stage.supervisor(), supervisor);
}

#[tokio::test]
async fn the_supervisor_keeps_the_orphan_time_of_an_executor_that_is_stopped() {
    let mut stage = Stage::new().await;
    let id = attempt(0, 1);
    let orphan = v1::Start { orphan_timeout_ms: 2_000, ..stage.session.shell(id, &["sleep", "1000"]) };
    stage.session.start(orphan).await;
    let pid = stage.session.pid_of(id).await;
    signal(stage.executor.pid(), Signal::SIGSTOP);
    eventually("the end of the orphan", || (!is_alive(pid)).then_some(())).await;
    signal(stage.executor.pid(), Signal::SIGCONT);
    drop(stage.session);
    let mut session = stage.leader.greeted().await;
    let end = only_end(&mut session, id).await;
    assert_eq!((state(&end), end.reason.as_str()), (AttemptState::Lost, "no contact to a leader for 2s"));
}

#[tokio::test]
async fn the_supervisor_keeps_the_time_limit_of_an_attempt_whose_executor_is_gone() {
    let mut stage = Stage::new().await;
    let id = attempt(0, 1);
    let limited = v1::Start { timeout_ms: 2_000, ..stage.session.shell(id, &["sleep", "1000"]) };
    stage.session.start(limited).await;
    let pid = stage.session.pid_of(id).await;
    stage.executor.crash();
    drop(stage.session);
    eventually("the end of the process", || (!is_alive(pid)).then_some(())).await;
    let _executor = Executor::start(stage.folder.path(), stage.leader.address, "");
    let mut session = stage.leader.greeted().await;
    let end = only_end(&mut session, id).await;
    assert_eq!((state(&end), end.reason.as_str()), (AttemptState::TimedOut, "took longer than 2s"));
}

#[tokio::test]
async fn attempts_are_ended_although_their_supervisor_is_stopped() {
    let mut stage = Stage::new().await;
    let id = attempt(0, 1);
    let pid = stage.script(id, "trap '' TERM; while :; do sleep 0.1; done").await;
    let supervisor = stage.supervisor();
    signal(supervisor, Signal::SIGSTOP);
    stage.session.kill(id, Duration::from_millis(100)).await;
    let end = stage.session.end_of(id).await;
    assert_eq!((state(&end), end.reason.as_str()), (AttemptState::Killed, "asked"));
    assert!(!is_alive(pid) && !is_alive(supervisor));
    assert_eq!(state(&stage.session.run(attempt(1, 1), &["true"]).await), AttemptState::Succeeded);
}

/// Newer kernels kill what begins in a control group that was killed before.
#[tokio::test]
async fn what_runs_in_the_place_of_a_killed_attempt_is_left_alone() {
    let mut stage = Stage::new().await;
    for index in [0, 2, 4] {
        let (killed, next) = (attempt(index, 1), attempt(index + 1, 1));
        stage.script(killed, "trap '' TERM; while :; do sleep 0.1; done").await;
        stage.session.kill(killed, Duration::from_millis(50)).await;
        assert_eq!(state(&stage.session.end_of(killed).await), AttemptState::Killed);
        stage.session.ack(killed).await;
        let end = stage.session.run(next, &["true"]).await;
        assert_eq!((state(&end), end.reason.as_str()), (AttemptState::Succeeded, ""));
        stage.session.ack(next).await;
    }
}

#[tokio::test]
async fn a_tree_of_two_hundred_that_is_deaf_and_left_its_session_is_gone_when_its_end_is_told() {
    kill_a_tree(Stage::new().await).await;
}

#[tokio::test]
async fn such_a_tree_is_gone_without_control_groups_too() {
    kill_a_tree(Stage::without_cgroups().await).await;
}

async fn kill_a_tree(mut stage: Stage) {
    let (id, pids) = (attempt(0, 1), stage.file("pids"));
    let script = format!(
        "trap '' TERM; for n in $(seq 200); do (setsid sh -c 'trap \"\" TERM; echo $$ >> {pids}; exec sleep 1000' &); done; \
         while :; do sleep 1; done"
    );
    stage.script(id, &script).await;
    let all = eventually("two hundred processes", || {
        let text = fs::read_to_string(&pids).ok()?;
        let found: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        (found.len() == 200).then_some(found)
    })
    .await;
    assert!(all.iter().all(|pid| is_alive(*pid)));
    stage.session.kill(id, Duration::from_millis(200)).await;
    assert_eq!(state(&stage.session.end_of(id).await), AttemptState::Killed);
    let left: Vec<&u32> = all.iter().filter(|pid| is_alive(**pid)).collect();
    assert!(left.is_empty(), "{left:?} live");
}

#[tokio::test]
async fn what_a_main_process_leaves_behind_is_ended_without_control_groups_too() {
    let mut stage = Stage::without_cgroups().await;
    let (daemon, background) = (stage.file("daemon"), stage.file("background"));
    let script = format!(
        "(setsid sh -c 'echo $$ > {daemon}; sleep 1000' &); sleep 1000 & echo $! > {background}; \
         while ! test -s {daemon}; do sleep 0.01; done; exit 3"
    );
    let end = stage.session.run(attempt(0, 1), &["sh", "-c", &script]).await;
    assert_eq!(end.exit_code, Some(3));
    for file in [daemon, background] {
        assert!(!is_alive(pid_in(file.as_ref()).await), "{file} lives");
    }
    assert_eq!(state(&stage.session.run(attempt(1, 1), &["true"]).await), AttemptState::Succeeded);
}

#[tokio::test]
async fn a_planned_stop_leaves_attempts_to_the_supervisor_which_ends_after_them() {
    let mut stage = Stage::new().await;
    let (id, go) = (attempt(0, 1), stage.file("go"));
    let pid = stage.script(id, &format!("while ! test -e {go}; do sleep 0.02; done")).await;
    stage.executor.terminate();
    assert!(stage.executor.exit().await.success());
    drop(stage.session);
    assert!(is_alive(pid));
    fs::write(go, "").unwrap();
    let folder = stage.folder.path();
    eventually("the end of the supervisor", || supervisor_of(folder).is_none().then_some(())).await;
    let _executor = Executor::start(folder, stage.leader.address, "");
    let mut session = stage.leader.greeted().await;
    assert_eq!(state(&only_end(&mut session, id).await), AttemptState::Succeeded);
}

#[tokio::test]
async fn a_supervisor_of_another_version_is_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let leader = Leader::start().await;
    let own = folder.path().join("data/supervisor");
    fs::create_dir_all(&own).unwrap();
    let lock = fs::File::create(own.join("lock")).unwrap();
    lock.lock().unwrap();
    let listener = UnixListener::bind(own.join("socket")).unwrap();
    let banner = json!({ "banner": {
        "protocol": 99, "protocol_min": 98, "version": "9.9.9", "pid": 4711, "containment": "none", "mood": "later"
    } });
    let text = banner.to_string().into_bytes();
    let answer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&(text.len() as u32 + 4).to_le_bytes()).unwrap();
        stream.write_all(&(text.len() as u32).to_le_bytes()).unwrap();
        stream.write_all(&text).unwrap();
        stream
    });
    let executor = Executor::start(folder.path(), leader.address, "");
    assert!(!executor.exit().await.success());
    drop(answer.join().unwrap());
    let log = fs::read_to_string(folder.path().join("executor.log")).unwrap();
    assert!(log.contains("4711") && log.contains("9.9.9") && log.contains("98 to 99"), "{log}");
}

#[tokio::test]
async fn a_supervisor_refuses_a_version_that_it_does_not_know_and_goes_on() {
    let mut stage = Stage::new().await;
    let id = attempt(0, 1);
    let pid = stage.script(id, "sleep 1000").await;
    let socket = stage.folder.path().join("data/supervisor/socket");
    stage.executor.crash();
    drop(stage.session);
    let mut stream = UnixStream::connect(socket).unwrap();
    let hello = json!({ "hello": { "protocol": 99 } }).to_string();
    stream.write_all(&(hello.len() as u32 + 4).to_le_bytes()).unwrap();
    stream.write_all(&(hello.len() as u32).to_le_bytes()).unwrap();
    stream.write_all(hello.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("refused") && answer.contains("99"), "{answer}");
    let _executor = Executor::start(stage.folder.path(), stage.leader.address, "");
    let session = stage.leader.session().await;
    assert_eq!(session.hello.held[0].state(), v1::AttemptState::Running);
    assert!(is_alive(pid));
}

#[tokio::test]
async fn an_attempt_inherits_its_three_streams_and_no_other_descriptor() {
    let mut stage = Stage::new().await;
    // Others run meanwhile, so that there is something to inherit.
    for index in 0..3 {
        stage.script(attempt(index, 1), "sleep 1000").await;
    }
    let id = attempt(9, 1);
    let script = "ls /proc/$$/fd; readlink /proc/$$/fd/0";
    assert_eq!(state(&stage.session.run(id, &["sh", "-c", script]).await), AttemptState::Succeeded);
    let text = String::from_utf8(stage.leader.whole_output(id).await).unwrap();
    assert_eq!(text, "0\n1\n2\n/dev/null\n");
}

#[tokio::test]
async fn a_secret_is_in_no_command_line_environment_or_file_also_across_a_restart() {
    const MARKER: &str = "marker-4711-secret";
    let kind = "[kinds.greet]\nargv = ['sh', '-c', 'read line; echo ready; sleep 1000']";
    let mut stage = Stage::with(kind).await;
    let id = attempt(0, 1);
    stage.session.start(stage.session.task(id, "greet", &json!({ "password": MARKER }))).await;
    let pid = stage.session.pid_of(id).await;
    let leader = &stage.leader;
    eventually("the attempt has read it", || leader.output(id).filter(|found| found.bytes == b"ready\n"))
        .await;
    let supervisor = stage.supervisor();
    let executor = stage.executor.pid();
    stage.executor.crash();
    drop(stage.session);
    for process in [pid, supervisor, executor] {
        for name in ["cmdline", "environ"] {
            let bytes = fs::read(format!("/proc/{process}/{name}")).unwrap_or_default();
            assert!(!holds(&bytes, MARKER), "{name} of {process}");
        }
    }
    let _executor = Executor::start(stage.folder.path(), stage.leader.address, kind);
    let session = stage.leader.session().await;
    assert_eq!(session.hello.held.len(), 1);
    let file = file_with(stage.folder.path(), MARKER);
    assert_eq!(file, None);
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Finds a file below a folder that holds a text.
fn file_with(folder: &Path, text: &str) -> Option<std::path::PathBuf> {
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if entry.file_type().unwrap().is_dir() {
                folders.push(path);
            } else if holds(&fs::read(&path).unwrap_or_default(), text) {
                return Some(path);
            }
        }
    }
    None
}

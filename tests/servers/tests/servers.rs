//! The servers themselves: they answer, keep what they are told through ends of all kinds, and leave nothing behind.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use millrace_servers::{
    Etcd, Home, MariaDb, Place, Port, Postgres, Process, etcd, mariadb, postgres,
    process::{Account, command},
    skipped, wait_until,
};
use nix::{sys::signal::kill, unistd::Pid};

fn lives(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None).is_ok()
        && fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

/// Starts a shell that leaves a child in another session, with nothing in its environment and working elsewhere.
fn shell(home: &Home) -> (Process, BTreeSet<i32>) {
    let mut shell = command(&Place::here(), Account::Own, Path::new("/bin/sh"));
    shell
        .current_dir(home.path())
        .args(["-c", "cd / && env -i setsid sh -c 'echo $$ > \"$0/child\"; sleep 300; true' \"$0\" & wait"]);
    shell.arg(home.path());
    let process = Process::start(shell, &home.file("log"));
    wait_until("the child to say who it is", || {
        fs::read_to_string(home.file("child")).is_ok_and(|text| text.ends_with('\n'))
    });
    wait_until("the child's child to be there", || home.processes().len() >= 3);
    let all = home.processes();
    let child: i32 = fs::read_to_string(home.file("child")).unwrap().trim().parse().unwrap();
    assert!(all.contains(&child) && all.contains(&process.pid().cast_signed()), "{all:?}");
    (process, all)
}

#[test]
fn all_that_belongs_to_a_folder_ends_with_it() {
    let home = Home::new(&Place::here());
    let (process, all) = shell(&home);
    assert!(all.iter().all(|pid| lives(*pid)));
    drop((process, home));
    assert!(!all.iter().any(|pid| lives(*pid)), "{all:?}");
}

#[test]
fn a_panic_ends_them_too() {
    let mut all = BTreeSet::new();
    let end = catch_unwind(AssertUnwindSafe(|| {
        let home = Home::new(&Place::here());
        let (_process, found) = shell(&home);
        all = found;
        panic!("on purpose");
    }));
    assert_eq!(end.unwrap_err().downcast_ref::<&str>(), Some(&"on purpose"), "and is told as it was");
    assert!(!all.is_empty() && !all.iter().any(|pid| lives(*pid)), "{all:?}");
}

#[test]
fn a_process_outlives_the_thread_that_asked_for_it_and_stands_still_when_frozen() {
    let home = Home::new(&Place::here());
    let mut sleep = command(&Place::here(), Account::Nobody, Path::new("/bin/sleep"));
    sleep.arg("300");
    let log = home.file("log");
    let mut process = std::thread::spawn(move || Process::start(sleep, &log)).join().unwrap();
    process.freeze();
    assert_eq!(process.try_ended(), None);
    process.thaw();
    process.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&process.ended()), Some(15));
}

#[test]
fn a_place_puts_its_command_in_front() {
    let place = Place::behind(&["env", "WHERE=there"], Place::here().address());
    let output = command(&place, Account::Own, Path::new("/usr/bin/printenv")).arg("WHERE").output().unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "there\n");
    let parent = tempfile::tempdir().unwrap();
    let mut home = Home::new(&Place::here().below(parent.path()));
    assert!(home.path().starts_with(parent.path()));
    home.keep();
    let path = home.path().to_owned();
    drop(home);
    assert!(path.is_dir());
}

#[test]
fn ports_are_given_once_and_below_those_of_clients() {
    let ports: Vec<Port> = (0..50).map(|_| Port::take()).collect();
    let numbers: BTreeSet<u16> = ports.iter().map(Port::number).collect();
    assert_eq!(numbers.len(), ports.len());
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let first: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
    for number in numbers {
        assert!(number < first, "{number}, {range}");
        drop(TcpListener::bind(("127.0.0.1", number)).unwrap());
    }
}

#[test]
fn an_etcd_answers_without_one_member_and_begins_anew_when_wiped() {
    if let Some(reason) = etcd::missing() {
        return skipped(&reason);
    }
    let mut etcd = Etcd::start(3);
    etcd.ctl(&["put", "a", "1"]);
    etcd.kill(0);
    etcd.wait();
    assert_eq!(etcd.ctl(&["get", "a", "--print-value-only"]), "1\n");
    assert_eq!(etcd.try_ctl_of(0, &["get", "a"]), None, "it is down");
    etcd.kill(1);
    assert_eq!(etcd.try_ctl(&["get", "a"]), None, "one of three is no majority");
    etcd.resume_all();
    assert_eq!(etcd.ctl(&["get", "a", "--print-value-only"]), "1\n");
    etcd.member(2).freeze();
    assert_eq!(etcd.try_ctl_of(2, &["get", "a"]), None);
    etcd.member(2).thaw();
    etcd.wipe();
    assert_eq!(etcd.ctl(&["get", "a"]), "");
}

#[test]
fn a_postgresql_keeps_its_rows_through_every_end() {
    if let Some(reason) = postgres::missing() {
        return skipped(&reason);
    }
    let mut server = Postgres::start_at(&Place::here(), &["-c", "fsync=on"]);
    assert_eq!(server.sql("show fsync"), "on");
    server.sql("create table t (a int); insert into t values (1)");
    server.stop();
    assert!(server.try_sql("select 1").is_err());
    server.resume();
    server.kill();
    assert!(server.try_sql("select 1").is_err());
    server.resume();
    server.move_data();
    server.resume();
    assert_eq!(server.sql("select a from t"), "1");
    assert!(server.try_sql("select b from t").unwrap_err().contains("does not exist"));
    server.freeze();
    server.thaw();
    assert_eq!(server.sql("select a from t"), "1");
    let pids = Home::processes_below(server.folder());
    assert!(pids.len() > 3, "{pids:?}");
    drop(server);
    assert!(!pids.iter().any(|pid| lives(*pid)), "{pids:?}");
}

#[test]
fn a_mariadb_keeps_its_rows_through_every_end() {
    if let Some(reason) = mariadb::missing() {
        return skipped(&reason);
    }
    let mut server = MariaDb::start_at(&Place::here(), "pa\"ss\\wo#rd'; $x", &["--log-bin=log"]);
    server.sql("CREATE TABLE millrace.t (a INT) ENGINE=InnoDB; INSERT INTO millrace.t VALUES (1)");
    server.stop();
    assert!(server.try_sql(b"SELECT 1").is_err());
    server.resume();
    server.kill();
    server.resume();
    server.move_data();
    server.resume();
    assert_eq!(server.sql("SELECT a FROM millrace.t"), "1\n");
    server.freeze();
    server.thaw();
    assert_eq!(server.sql("SELECT @@log_bin"), "1\n");
}

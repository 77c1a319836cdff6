use millrace_common::id::{InstanceId, RunId};

use super::*;
use crate::ledger::End;

fn keep(size: u64) -> Keep {
    Keep { size, time: Duration::from_secs(3_600) }
}

fn spool() -> SpoolId {
    SpoolId(uuid::Uuid::from_u128(7))
}

fn attempt(index: u32) -> AttemptId {
    InstanceId { run: RunId::new(Timestamp::from_micros(1_000_000), 1), index }.attempt(1)
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_micros(4_000_000_000_000_000 + seconds * 1_000_000)
}

fn intended(index: u32) -> Record {
    Record::Intended { attempt: attempt(index), at: at(index.into()) }
}

fn open(data_dir: &Path, size: u64) -> History {
    History::open(data_dir, keep(size), spool(), 8).unwrap()
}

fn all(data_dir: &Path, since: Timestamp) -> Vec<What> {
    let (mut found, mut token) = (Vec::new(), String::new());
    loop {
        let page = read(data_dir, since, at(1_000_000), &token).unwrap();
        assert!(page.entries.len() <= PAGE_ENTRIES_MAX);
        found.extend(page.entries.into_iter().map(|entry| entry.what));
        match page.next {
            Some(next) => token = next,
            None => return found,
        }
    }
}

#[test]
fn what_was_done_is_read_back_in_its_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut history = open(folder.path(), 1 << 20);
    let end = End { exit_code: Some(3), ..End::without_exit(AttemptState::Failed, "broke", at(9)) };
    let spawned = Record::Spawned { attempt: attempt(1), pid: 7, uptime_ms: 1, workspace: 0, at: at(2) };
    let records = [
        Record::TermSeen(Term(4)),
        intended(1),
        spawned,
        Record::Ended { attempt: attempt(1), end },
        Record::Attested,
        Record::Released(attempt(1)),
    ];
    history.note(records.iter());
    let ended = What::Ended { attempt: attempt(1), state: AttemptState::Failed, exit_code: Some(3) };
    let expected = [
        What::Opened { spool: spool(), slots: 8, is_start: true },
        What::TermObeyed(Term(4)),
        What::Accepted(attempt(1)),
        What::Spawned(attempt(1)),
        ended,
        What::Released(attempt(1)),
    ];
    assert_eq!(all(folder.path(), Timestamp::default()), expected);
    let page = read(folder.path(), Timestamp::default(), at(5), "").unwrap();
    assert!(page.is_whole && page.next.is_none());
    assert!(!page.entries.iter().any(|entry| entry.at == at(9)), "what came later was not asked for");
}

#[test]
fn pages_go_on_over_files_and_leave_nothing_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut history = open(folder.path(), 64 << 20);
    history.keep.size = 32 * FILE_BYTES_MIN;
    for index in 0..5_000 {
        history.note([intended(index)].iter());
    }
    assert!(numbers(&folder.path().join("history")).unwrap().len() > 2, "several files");
    let accepted = all(folder.path(), Timestamp::default());
    let accepted: Vec<What> = accepted.into_iter().filter(|what| matches!(what, What::Accepted(_))).collect();
    assert_eq!(accepted, (0..5_000).map(|index| What::Accepted(attempt(index))).collect::<Vec<_>>());
}

#[test]
fn the_oldest_files_give_way_and_that_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let mut history = open(folder.path(), 4 * FILE_BYTES_MIN);
    for index in 0..5_000 {
        history.note([intended(index)].iter());
    }
    let kept: u64 = fs::read_dir(folder.path().join("history"))
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    assert!(kept <= 4 * FILE_BYTES_MIN, "{kept} bytes");
    let page = read(folder.path(), Timestamp::default(), at(1_000_000), "").unwrap();
    assert!(!page.is_whole);
    let head = What::Opened { spool: spool(), slots: 8, is_start: false };
    assert_eq!(page.entries[0].what, head, "each file says what it is about");
    assert_eq!(all(folder.path(), Timestamp::default()).last(), Some(&What::Accepted(attempt(4_999))));
}

#[test]
fn a_torn_line_and_rubbish_are_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let mut history = open(folder.path(), 1 << 20);
    history.file.write_all(b"rubbish\n{\"at\":1}\n").unwrap();
    history.note([intended(1)].iter());
    history.file.write_all(b"{\"at\": 17, \"accep").unwrap();
    assert_eq!(all(folder.path(), Timestamp::default())[1..], [What::Accepted(attempt(1))]);
    assert!(matches!(read(folder.path(), at(0), at(1), "x:1"), Err(ReadError::Token(_))));
}

#[test]
fn what_could_not_be_written_leaves_a_mark() {
    let folder = tempfile::tempdir().unwrap();
    let mut history = open(folder.path(), 1 << 20);
    let (good, path) = (history.file, folder.path().join("history/0000000001.jsonl"));
    history.file = File::open(&path).unwrap();
    history.note([intended(1)].iter());
    assert!(history.is_troubled, "a file that is open for reading takes no line");
    history.file = good;
    history.note([intended(2)].iter());
    let gap = What::Opened { spool: spool(), slots: 8, is_start: true };
    assert_eq!(all(folder.path(), Timestamp::default())[1..], [gap, What::Accepted(attempt(2))]);
    history.note([intended(3)].iter());
    assert_eq!(all(folder.path(), Timestamp::default()).len(), 4, "once");
}

#[test]
fn a_start_goes_on_where_the_earlier_life_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let mut earlier = open(folder.path(), 1 << 20);
    earlier.note([intended(1)].iter());
    earlier.file.write_all(b"{\"at\": 17, \"accep").unwrap();
    open(folder.path(), 1 << 20).note([intended(2)].iter());
    let starts = all(folder.path(), Timestamp::default());
    let start = What::Opened { spool: spool(), slots: 8, is_start: true };
    assert_eq!(starts, [start.clone(), What::Accepted(attempt(1)), start, What::Accepted(attempt(2))]);
}

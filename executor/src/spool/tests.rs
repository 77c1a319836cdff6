use std::time::Duration;

use millrace_common::{
    id::{InstanceId, RunId},
    state::AttemptState,
    term::Term,
    time::Timestamp,
};

use super::*;
use crate::{
    history::{History, Keep},
    ledger::{Batch, End, FromLeader, Input, Ledger, Limits},
};

fn records(count: u32) -> Vec<Record> {
    let instance = InstanceId { run: RunId::new(Timestamp::from_micros(1_000_000), 7), index: 3 };
    let at = Timestamp::from_micros(1_700_000_000_000_000);
    (1..=count)
        .flat_map(|number| {
            let attempt = instance.attempt(number);
            let end = End::without_exit(AttemptState::Failed, "exit code 3", at);
            [Record::Intended { attempt, at }, Record::Ended { attempt, end }]
        })
        .collect()
}

fn journal_of(records: &[Record]) -> Vec<u8> {
    let mut bytes = frame::MAGIC.to_vec();
    for record in records {
        frame::append(&mut bytes, record).unwrap();
    }
    bytes
}

fn folder_with(journal: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    drop(open(folder.path()).unwrap());
    fs::write(folder.path().join("spool/journal"), journal).unwrap();
    folder
}

#[test]
fn a_new_spool_has_a_new_id_and_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path()).unwrap();
    assert!(first.is_new && first.records.is_empty());
    let again = open(folder.path()).unwrap();
    assert!(!again.is_new && again.id == first.id);
    fs::remove_file(folder.path().join("spool/journal")).unwrap();
    let lost = open(folder.path()).unwrap();
    assert!(lost.is_new && lost.id != first.id);
}

#[test]
fn a_journal_cut_at_any_byte_gives_the_records_before_it() {
    let all = records(3);
    let whole = journal_of(&all);
    let ends: Vec<usize> = (0..=all.len()).map(|count| journal_of(&all[..count]).len()).collect();
    let folder = folder_with(&whole);
    for length in frame::MAGIC.len()..=whole.len() {
        fs::write(folder.path().join("spool/journal"), &whole[..length]).unwrap();
        let opened = open(folder.path()).unwrap();
        let count = ends.iter().filter(|end| **end <= length).count() - 1;
        assert!(!opened.is_new, "at byte {length}");
        assert_eq!(opened.records, all[..count], "at byte {length}");
        assert_eq!(opened.journal.bytes as usize, ends[count], "at byte {length}");
        assert_eq!(fs::metadata(folder.path().join("spool/journal")).unwrap().len() as usize, ends[count]);
    }
}

#[test]
fn damage_before_the_tail_begins_a_new_spool() {
    let mut bytes = journal_of(&records(2));
    bytes[frame::MAGIC.len() + 20] ^= 1;
    let folder = folder_with(&bytes);
    let before = fs::read_to_string(folder.path().join("spool/id")).unwrap();
    let opened = open(folder.path()).unwrap();
    assert!(opened.is_new && before.trim() != opened.id.to_string());
    assert!(folder.path().join("spool/journal.damaged").exists());
}

#[test]
fn a_tail_of_zeros_is_cut() {
    let all = records(1);
    let mut bytes = journal_of(&all);
    bytes.extend_from_slice(&[0; 4096]);
    let opened = open(folder_with(&bytes).path()).unwrap();
    assert_eq!((opened.is_new, opened.records), (false, all));
}

#[test]
fn a_second_executor_is_told_that_the_folder_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let held = lock(folder.path()).unwrap();
    let error = lock(folder.path()).unwrap_err();
    assert!(error.to_string().contains("in use by another executor"), "{error}");
    drop(held);
    assert!(lock(folder.path()).is_ok());
}

/// A batch with one durable record, made the only way there is.
fn batch(term: u64) -> Batch {
    let limits = Limits { slots: 1, answer_timeout: Default::default(), stop_grace: Default::default() };
    let mut ledger = Ledger::new(SpoolId(Uuid::nil()), limits);
    ledger.handle(Default::default(), Input::FromLeader(Term(term), FromLeader::Acks(Vec::new()))).unwrap();
    ledger.take_batch().unwrap()
}

#[test]
fn what_the_thread_wrote_is_read_back_and_a_rewrite_replaces_it() {
    let folder = tempfile::tempdir().unwrap();
    let opened = open(folder.path()).unwrap();
    let keep = Keep { size: 1 << 20, time: Duration::from_secs(60) };
    let history = History::open(folder.path(), keep, opened.id, 1).unwrap();
    let (spool, mut written) = Spool::start(opened.journal, history).unwrap();
    let mut released = 0;
    for term in 1..=3 {
        spool.write(batch(term)).unwrap();
    }
    while released < 3 {
        released += written.blocking_recv().unwrap().unwrap().batches.len();
    }
    let terms =
        |records: &[Record]| records.iter().filter(|record| matches!(record, Record::TermSeen(_))).count();
    assert_eq!(terms(&open(folder.path()).unwrap().records), 3);
    spool.write(batch(4)).unwrap();
    spool.rewrite(records(1)).unwrap();
    spool.write(batch(5)).unwrap();
    drop(spool);
    let after = open(folder.path()).unwrap();
    assert_eq!((after.records.len(), terms(&after.records)), (3, 1));
}

use millrace_common::{
    id::{InstanceId, RunId},
    time::Timestamp,
};

use super::*;

fn attempt(number: u32) -> AttemptId {
    InstanceId { run: RunId::new(Timestamp::from_micros(1), 7), index: 3 }.attempt(number)
}

fn store() -> (tempfile::TempDir, Arc<OutputStore>) {
    let folder = tempfile::tempdir().unwrap();
    let store = OutputStore::open(folder.path().join("output")).unwrap();
    (folder, store)
}

const fn kept(offset: u64, is_complete: bool) -> Kept {
    Kept { offset, is_complete }
}

/// Chunks as they come, each with what the answer must say; at the end the output must read as `text`.
async fn arrives(chunks: &[(u64, &str, bool, Kept)], text: &str) {
    let (_folder, store) = store();
    for (offset, bytes, is_last, expected) in chunks {
        let answer = store.append(attempt(1), *offset, bytes.as_bytes().to_vec(), *is_last).await.unwrap();
        assert_eq!(answer, *expected, "{bytes:?} at {offset} of {chunks:?}");
    }
    assert_eq!(String::from_utf8(store.read(attempt(1), 0).await.unwrap()).unwrap(), text);
}

#[tokio::test]
async fn chunks_follow_each_other() {
    let chunks =
        [(0, "ab", false, kept(2, false)), (2, "cd", false, kept(4, false)), (4, "", true, kept(4, true))];
    arrives(&chunks, "abcd").await;
}

#[tokio::test]
async fn a_repeated_chunk_is_not_written_twice() {
    let chunks = [
        (0, "abcd", true, kept(4, true)),
        (0, "abcd", true, kept(4, true)),
        (0, "ab", false, kept(4, false)),
        (4, "", true, kept(4, true)),
    ];
    arrives(&chunks, "abcd").await;
}

#[tokio::test]
async fn of_an_overlapping_chunk_only_the_rest_is_written() {
    arrives(&[(0, "abc", false, kept(3, false)), (1, "bcde", true, kept(5, true))], "abcde").await;
}

#[tokio::test]
async fn a_gap_is_answered_with_what_is_kept() {
    let chunks = [
        (5, "late", false, kept(0, false)),
        (0, "ab", false, kept(2, false)),
        (3, "d", true, kept(2, false)),
        (u64::MAX, "z", true, kept(2, false)),
        (2, "cd", true, kept(4, true)),
    ];
    arrives(&chunks, "abcd").await;
}

#[tokio::test]
async fn two_connections_that_ship_the_same_do_no_harm() {
    let (_folder, store) = store();
    let text: Vec<u8> = (0..64_u32 << 10).flat_map(u32::to_le_bytes).collect();
    let ship = async || {
        for (number, chunk) in text.chunks(4_099).enumerate() {
            let offset = (number * 4_099) as u64;
            store.append(attempt(1), offset, chunk.to_vec(), false).await.unwrap();
        }
    };
    tokio::join!(ship(), ship());
    assert!(store.read(attempt(1), 0).await.unwrap() == text);
}

#[tokio::test]
async fn reads_go_piece_by_piece_and_end_where_nothing_is() {
    let (_folder, store) = store();
    assert!(store.read(attempt(1), 0).await.unwrap().is_empty());
    let text = vec![7; PIECE_BYTES_MAX + 10];
    store.append(attempt(1), 0, text, false).await.unwrap();
    assert_eq!(store.read(attempt(1), 0).await.unwrap().len(), PIECE_BYTES_MAX);
    assert_eq!(store.read(attempt(1), PIECE_BYTES_MAX as u64).await.unwrap().len(), 10);
    assert!(store.read(attempt(1), u64::MAX).await.unwrap().is_empty());
    assert!(store.read(attempt(2), 0).await.unwrap().is_empty());
}

#[tokio::test]
async fn beyond_the_cap_output_is_taken_and_thrown_away() {
    let (_folder, store) = store();
    store.append(attempt(1), 0, b"x".to_vec(), false).await.unwrap();
    // A file with a hole: nothing of it is on the disk.
    File::options().write(true).open(store.path(attempt(1))).unwrap().set_len(OUTPUT_BYTES_MAX).unwrap();
    let answer = store.append(attempt(1), OUTPUT_BYTES_MAX + 5, b"more".to_vec(), true).await.unwrap();
    assert_eq!(answer, kept(OUTPUT_BYTES_MAX + 9, true));
    assert_eq!(fs::metadata(store.path(attempt(1))).unwrap().len(), OUTPUT_BYTES_MAX);
}

#[tokio::test]
async fn growth_is_told_with_whether_it_is_the_end() {
    let (_folder, store) = store();
    let mut notices = store.grown();
    store.append(attempt(1), 0, b"a".to_vec(), false).await.unwrap();
    store.append(attempt(1), 1, b"b".to_vec(), true).await.unwrap();
    let told = [notices.recv().await.unwrap(), notices.recv().await.unwrap()];
    assert_eq!(told.map(|notice| notice.is_complete), [false, true]);
}

#[tokio::test]
async fn only_the_owner_may_read_output() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_folder, store) = store();
    store.append(attempt(1), 0, b"a".to_vec(), true).await.unwrap();
    let path = store.path(attempt(1));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), FILE_MODE);
    assert_eq!(mode(path.parent().unwrap()), FOLDER_MODE);
}

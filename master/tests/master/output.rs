//! Output: shipped by offset, read while it grows.

use millrace_proto::v1::{self, AttemptState};
use tokio::sync::mpsc;
use tokio_stream::{StreamExt as _, wrappers::ReceiverStream};
use tonic::{Code, Status, Streaming};

use crate::support::{Executor, Master, ONE, TWO, ended, refused, until, within};

/// A connection for output.
struct Shipper {
    sender: mpsc::Sender<v1::OutputChunk>,
    answers: Streaming<v1::OutputKept>,
}

impl Shipper {
    async fn open(master: &Master) -> Self {
        let (sender, receiver) = mpsc::channel(16);
        let answers = master.executors().await.ship_output(ReceiverStream::new(receiver)).await.unwrap();
        Self { sender, answers: answers.into_inner() }
    }

    /// Ships a chunk and returns up to where output is kept, and whether all of it is.
    async fn ship(&mut self, start: &v1::Start, offset: u64, text: &str, is_last: bool) -> (u64, bool) {
        let bytes = text.as_bytes().to_vec();
        self.sender
            .send(v1::OutputChunk { attempt: start.attempt.clone(), offset, bytes, is_last })
            .await
            .unwrap();
        let kept = within("the answer", self.answers.message()).await.unwrap().unwrap();
        assert_eq!(kept.attempt, start.attempt);
        (kept.offset, kept.is_complete)
    }
}

fn ask(run: &str, follow: bool) -> v1::ReadOutputRequest {
    v1::ReadOutputRequest { run: run.to_owned(), task: "a".to_owned(), attempt: 0, offset: 0, follow }
}

async fn read(master: &Master, request: v1::ReadOutputRequest) -> Result<Streaming<v1::OutputPiece>, Status> {
    Ok(master.control().await.read_output(request).await?.into_inner())
}

/// Reads to the end; the status tells of an end that is none.
async fn all(mut pieces: Streaming<v1::OutputPiece>) -> (String, Option<Status>) {
    let mut text = String::new();
    loop {
        match within("the rest of the output", pieces.next()).await {
            Some(Ok(piece)) => {
                assert_eq!(piece.offset, text.len() as u64);
                text.push_str(&String::from_utf8(piece.bytes).unwrap());
            }
            Some(Err(status)) => return (text, Some(status)),
            None => return (text, None),
        }
    }
}

/// A master, an executor that runs an attempt, and a connection for its output.
async fn running(folder: &tempfile::TempDir) -> (Master, Executor, v1::Start, String, Shipper) {
    let master = Master::start(folder.path()).await;
    let mut executor = master.executor("e1").await;
    master.apply(ONE).await;
    let run = master.run("one").await;
    let start = executor.start().await;
    executor.accept(&start).await;
    let shipper = Shipper::open(&master).await;
    (master, executor, start, run, shipper)
}

fn ended_with(log_bytes: u64) -> v1::AttemptEnd {
    v1::AttemptEnd { log_bytes, ..ended(AttemptState::Succeeded) }
}

#[tokio::test]
async fn chunks_are_kept_once_and_a_gap_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let (master, _executor, start, run, mut shipper) = running(&folder).await;
    assert_eq!(shipper.ship(&start, 0, "hello ", false).await, (6, false));
    assert_eq!(shipper.ship(&start, 0, "hello ", false).await, (6, false), "repeated");
    assert_eq!(shipper.ship(&start, 3, "lo world", false).await, (11, false), "overlapping");
    assert_eq!(shipper.ship(&start, 20, "lost", false).await, (11, false), "a gap");
    let mut other = Shipper::open(&master).await;
    assert_eq!(other.ship(&start, 11, "\n", true).await, (12, true), "over another connection");
    assert_eq!(all(read(&master, ask(&run, false)).await.unwrap()).await.0, "hello world\n");
    let tail = v1::ReadOutputRequest { offset: 6, ..ask(&run, false) };
    let piece = read(&master, tail).await.unwrap().next().await.unwrap().unwrap();
    assert_eq!((piece.attempt, piece.offset, piece.bytes), (1, 6, b"world\n".to_vec()));
}

#[tokio::test]
async fn a_chunk_of_no_attempt_is_refused_and_the_connection_ends() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut shipper = Shipper::open(&master).await;
    shipper.sender.send(v1::OutputChunk::default()).await.unwrap();
    let status = refused(within("the refusal", shipper.answers.message()).await);
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "field attempt is missing"));
}

#[tokio::test]
async fn a_follower_sees_output_grow_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let (master, mut executor, start, run, mut shipper) = running(&folder).await;
    let mut pieces = read(&master, ask(&run, true)).await.unwrap();
    for (offset, text) in [(0, "one\n"), (4, "two\n")] {
        shipper.ship(&start, offset, text, false).await;
        let piece = within("a piece", pieces.next()).await.unwrap().unwrap();
        assert_eq!((piece.offset, piece.bytes), (offset, text.as_bytes().to_vec()));
    }
    // The attempt has ended before its last output arrives.
    executor.finish(&start, ended_with(14)).await;
    shipper.ship(&start, 8, "three\n", true).await;
    let piece = within("the last piece", pieces.next()).await.unwrap().unwrap();
    assert_eq!(piece.bytes, b"three\n");
    assert!(within("the end", pieces.next()).await.is_none());
}

#[tokio::test]
async fn a_follower_waits_for_an_attempt_that_is_still_to_come() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    master.apply(TWO).await;
    let run = master.run("two").await;
    let later = v1::ReadOutputRequest { task: "b".to_owned(), ..ask(&run, false) };
    let status = refused(read(&master, later.clone()).await);
    assert_eq!(status.message(), format!("task b of run {run} has not been tried"));
    let pieces = read(&master, v1::ReadOutputRequest { follow: true, ..later.clone() }).await.unwrap();
    let mut executor = master.executor("e1").await;
    let first = executor.start().await;
    executor.finish(&first, ended(AttemptState::Succeeded)).await;
    let second = executor.start().await;
    Shipper::open(&master).await.ship(&second, 0, "b\n", true).await;
    executor.finish(&second, ended_with(2)).await;
    assert_eq!(all(pieces).await.0, "b\n");
    let beyond = v1::ReadOutputRequest { attempt: 2, follow: true, ..later };
    let status = refused(read(&master, beyond).await);
    assert_eq!(status.message(), format!("task b of run {run} has no attempt 2"));
    let unknown = v1::ReadOutputRequest { task: "z".to_owned(), ..ask(&run, true) };
    assert_eq!(refused(read(&master, unknown).await).message(), format!("run {run} has no task \"z\""));
}

#[tokio::test]
async fn a_follower_of_silence_ends_with_the_attempt() {
    let folder = tempfile::tempdir().unwrap();
    let (master, mut executor, start, run, _shipper) = running(&folder).await;
    let pieces = read(&master, ask(&run, true)).await.unwrap();
    executor.finish(&start, ended_with(0)).await;
    let (text, status) = all(pieces).await;
    assert_eq!(text, "");
    assert!(status.is_none(), "{status:?}");
}

#[tokio::test]
async fn a_shorter_output_than_was_said_is_complete_where_its_executor_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (master, mut executor, start, run, mut shipper) = running(&folder).await;
    let pieces = read(&master, ask(&run, true)).await.unwrap();
    executor.finish(&start, ended_with(1_000_000)).await;
    shipper.ship(&start, 0, "cut", true).await;
    let (text, status) = all(pieces).await;
    assert_eq!(text, "cut");
    assert!(status.is_none(), "{status:?}");
}

#[tokio::test]
async fn output_that_never_arrives_is_not_waited_for_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let (master, mut executor, start, run, mut shipper) = running(&folder).await;
    let pieces = read(&master, ask(&run, true)).await.unwrap();
    shipper.ship(&start, 0, "some", false).await;
    executor.finish(&start, ended_with(10)).await;
    let (text, status) = all(pieces).await;
    assert_eq!(text, "some");
    let status = status.unwrap();
    assert_eq!(status.code(), Code::DataLoss);
    assert!(
        status.message().starts_with("the attempt wrote 10 bytes, of which 4 have arrived"),
        "{status:?}"
    );
}

#[tokio::test]
async fn many_pieces_arrive_in_order_at_a_slow_reader() {
    let folder = tempfile::tempdir().unwrap();
    let (master, mut executor, start, run, mut shipper) = running(&folder).await;
    let pieces = read(&master, ask(&run, true)).await.unwrap();
    let text: String = (0..40_000).map(|line| format!("this is line {line}\n")).collect();
    for (number, chunk) in text.as_bytes().chunks(64 << 10).enumerate() {
        let offset = (number * (64 << 10)) as u64;
        shipper.ship(&start, offset, std::str::from_utf8(chunk).unwrap(), false).await;
    }
    executor.finish(&start, ended_with(text.len() as u64)).await;
    // Only now does it read.
    let (read, status) = all(pieces).await;
    assert!(read == text && status.is_none(), "{} of {} bytes, {status:?}", read.len(), text.len());
}

#[tokio::test]
async fn a_reader_that_leaves_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let (master, _executor, _start, run, _shipper) = running(&folder).await;
    // More than the places that there are, one after the other.
    for _ in 0..20 {
        drop(read(&master, ask(&run, true)).await.unwrap());
    }
    let open = until("a reader", async || read(&master, ask(&run, true)).await.ok()).await;
    let (_, took) = master.stop().await;
    assert!(took.as_secs() < 3, "{took:?}");
    assert_eq!(all(open).await.1.unwrap().code(), Code::Unavailable);
}

//! A stop ends within its bound, whoever is connected and however they behave.

use std::time::Duration;

use millrace_proto::v1;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::support::{Master, ONE, hello, refused};

/// With peers that behave, a stop takes no time to speak of.
const PROMPT: Duration = Duration::from_secs(3);
/// With peers that do not, it takes as long as calls may take to end, and a little.
const BOUND: Duration = Duration::from_secs(8);

#[tokio::test]
async fn a_stop_tells_everybody_who_is_connected() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut executor = master.executor("e1").await;
    let (chunks, receiver) = mpsc::channel::<v1::OutputChunk>(1);
    let kept = master.executors().await.ship_output(ReceiverStream::new(receiver)).await;
    let mut kept = kept.unwrap().into_inner();
    master.apply(ONE).await;
    let run = master.run("one").await;
    let mut control = master.control().await;
    let mut views = control.watch_run(v1::GetRunRequest { run: run.clone() }).await.unwrap().into_inner();
    views.message().await.unwrap();
    let output = v1::ReadOutputRequest { run, task: "a".to_owned(), follow: true, ..Default::default() };
    let mut output = control.read_output(output).await.unwrap().into_inner();

    let (end, took) = master.stop().await;
    end.unwrap();
    assert!(took < PROMPT, "{took:?}");
    assert_eq!(refused(kept.message().await).code(), Code::Unavailable);
    assert_eq!(refused(output.message().await).code(), Code::Unavailable);
    let status = loop {
        if let Err(status) = views.message().await {
            break status;
        }
    };
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "this master is stopping"));
    // The end of the stream, or a word about it: either tells an executor to look for a leader.
    let status = executor.end().await;
    assert!(matches!(status.code(), Code::Unavailable | Code::Cancelled), "{status:?}");
    drop(chunks);
}

#[tokio::test]
async fn a_stop_does_not_wait_for_peers_that_do_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    // One that never greets, one that begins to, one that is idle.
    let _silent = TcpStream::connect(master.address).await.unwrap();
    let mut slow = TcpStream::connect(master.address).await.unwrap();
    slow.write_all(b"PRI * HT").await.unwrap();
    let _idle = master.channel().await;
    // A session that reads nothing of what fills its window.
    let full = master.executor("e1").await;
    full.overflow(&master, Vec::new()).await;
    let (end, took) = master.stop().await;
    end.unwrap();
    assert!(took < BOUND, "{took:?}");
    // The folder is free again, so nothing of the first life is left.
    let again = Master::start(folder.path()).await;
    again.executor_with(hello("e1")).await.unwrap();
}

#[tokio::test]
async fn calls_after_a_stop_are_not_answered() {
    let folder = tempfile::tempdir().unwrap();
    let master = Master::start(folder.path()).await;
    let mut control = master.control().await;
    control.get_cluster(v1::GetClusterRequest {}).await.unwrap();
    master.stop().await.0.unwrap();
    let status = refused(control.get_cluster(v1::GetClusterRequest {}).await);
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
}

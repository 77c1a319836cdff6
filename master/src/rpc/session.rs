//! The answering half of an executor's session.
//!
//! Ends after what is queued once the leader drops the session, at once with a status where the listening half found a
//! fault. Dropping it, as the server does when the connection breaks, ends the listening half.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::Stream;
use millrace_proto::v1;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::Status;

use crate::leader::sessions::{SESSION_QUEUE_MAX, SessionSender};

/// What the leader says to one executor.
#[derive(Debug)]
pub(crate) struct SessionStream {
    messages: mpsc::Receiver<v1::LeaderMessage>,
    fault: Option<oneshot::Receiver<Status>>,
    too_slow: CancellationToken,
    is_over: bool,
    _reader: DropGuard,
}

/// What the listening half holds.
#[derive(Debug)]
pub(crate) struct Listener {
    /// Ends the stream with a status.
    pub(crate) fault: oneshot::Sender<Status>,
    /// Cancelled when nobody reads the stream any more.
    pub(crate) reader_gone: CancellationToken,
    /// Cancelled when the executor reads too slowly.
    pub(crate) too_slow: CancellationToken,
}

/// Makes the ends of a session: the leader's, the listening half's, and the stream itself.
pub(crate) fn open() -> (SessionSender, Listener, SessionStream) {
    let (queue, messages) = mpsc::channel(SESSION_QUEUE_MAX);
    let (fault, fault_receiver) = oneshot::channel();
    let (too_slow, reader_gone) = (CancellationToken::new(), CancellationToken::new());
    let stream = SessionStream {
        messages,
        fault: Some(fault_receiver),
        too_slow: too_slow.clone(),
        is_over: false,
        _reader: reader_gone.clone().drop_guard(),
    };
    let listener = Listener { fault, reader_gone, too_slow: too_slow.clone() };
    (SessionSender { queue, too_slow }, listener, stream)
}

/// Makes the stream of a master that does not lead: it says who does, and ends.
pub(crate) fn not_leader(address: String) -> SessionStream {
    let (sender, _, stream) = open();
    let body = Some(v1::leader_message::Body::NotLeader(v1::NotLeader { address }));
    // The queue is empty, and takes one message.
    let _ = sender.queue.try_send(v1::LeaderMessage { term: 0, body });
    stream
}

/// Tells an executor why it lost its session.
pub(crate) fn too_slow() -> Status {
    Status::resource_exhausted("the executor does not read what it is told")
}

impl Stream for SessionStream {
    type Item = Result<v1::LeaderMessage, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let fault = self.fault.as_mut().map_or(Poll::Pending, |fault| Pin::new(fault).poll(context));
        match fault {
            Poll::Ready(Ok(status)) => {
                self.is_over = true;
                // What is queued is not for this executor any more.
                self.messages.close();
                return Poll::Ready(Some(Err(status)));
            }
            // The listening half ended without a fault: what is queued still goes out.
            Poll::Ready(Err(_)) => self.fault = None,
            Poll::Pending => {}
        }
        match ready!(self.messages.poll_recv(context)) {
            Some(message) => Poll::Ready(Some(Ok(message))),
            // The leader dropped the session before the listening half could say why.
            None if self.too_slow.is_cancelled() => {
                self.is_over = true;
                Poll::Ready(Some(Err(too_slow())))
            }
            None => Poll::Ready(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt as _, poll};

    use super::*;

    fn message(term: u64) -> v1::LeaderMessage {
        v1::LeaderMessage { term, body: None }
    }

    #[tokio::test]
    async fn what_is_queued_goes_out_before_the_stream_ends() {
        let (sender, listener, mut stream) = open();
        sender.queue.try_send(message(1)).unwrap();
        drop(listener);
        drop(sender);
        assert_eq!(stream.next().await.unwrap().unwrap().term, 1);
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn a_master_that_does_not_lead_says_who_does_and_nothing_else() {
        let mut stream = not_leader("http://10.0.0.1:7070".to_owned());
        let said = stream.next().await.unwrap().unwrap();
        let expected = v1::NotLeader { address: "http://10.0.0.1:7070".to_owned() };
        assert_eq!(said.body, Some(v1::leader_message::Body::NotLeader(expected)));
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn a_fault_ends_the_stream_at_once() {
        let (sender, listener, mut stream) = open();
        sender.queue.try_send(message(1)).unwrap();
        listener.fault.send(Status::invalid_argument("a second Hello")).unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap_err().message(), "a second Hello");
        assert!(stream.next().await.is_none());
        assert!(sender.queue.try_send(message(2)).is_err());
    }

    #[tokio::test]
    async fn a_reader_that_was_too_slow_is_told_so() {
        let (sender, _listener, mut stream) = open();
        sender.too_slow.cancel();
        drop(sender);
        assert_eq!(stream.next().await.unwrap().unwrap_err().code(), tonic::Code::ResourceExhausted);
        assert!(stream.next().await.is_none());
    }

    #[tokio::test]
    async fn the_listening_half_learns_that_nobody_reads() {
        let (_sender, listener, mut stream) = open();
        assert!(poll!(stream.next()).is_pending());
        assert!(!listener.reader_gone.is_cancelled());
        drop(stream);
        assert!(listener.reader_gone.is_cancelled());
    }
}

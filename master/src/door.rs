//! The way in from the network: accepts connections, bounds them, and can cut them.
//!
//! The protocol's own time-outs begin once both sides have greeted; before that, and where a peer neither reads nor
//! closes while the program stops, only the connection itself can be bounded. Beyond the limit nobody is turned away:
//! further peers wait in the kernel's queue until a connection ends.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::{Stream, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Sleep,
};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::transport::server::{Connected, TcpConnectInfo};

/// How long a peer may take to say the first words of the protocol.
const GREETING_TIME_MAX: Duration = Duration::from_secs(10);
/// Bytes of those first words: the preface of HTTP/2.
const GREETING_BYTES: usize = 24;
/// Pause after the kernel could not give a connection, as when there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections.
#[derive(Debug)]
pub(crate) struct Door {
    listener: TcpListener,
    places: Arc<Semaphore>,
    cut: CancellationToken,
}

impl Door {
    /// Opens the door for as many connections at once; `cut` breaks all of them.
    pub(crate) fn new(listener: TcpListener, connections_max: usize, cut: CancellationToken) -> Self {
        let places = Arc::new(Semaphore::new(connections_max.min(Semaphore::MAX_PERMITS)));
        Self { listener, places, cut }
    }

    /// Returns the connections as they come.
    pub(crate) fn connections(self) -> impl Stream<Item = io::Result<Connection>> + Send + 'static {
        stream::unfold(self, |door| async move {
            let connection = door.next().await?;
            Some((Ok(connection), door))
        })
    }

    async fn next(&self) -> Option<Connection> {
        // The semaphore is never closed.
        let place = Arc::clone(&self.places).acquire_owned().await.ok()?;
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => return Some(Connection::new(stream, place, &self.cut)),
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

/// A connection that ends by itself where its peer does not greet, and when it is cut.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    greeting: Option<Greeting>,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    _place: OwnedSemaphorePermit,
}

/// What is missing of the first words, and until when they may come.
#[derive(Debug)]
struct Greeting {
    missing: usize,
    deadline: Pin<Box<Sleep>>,
}

impl Connection {
    fn new(stream: TcpStream, place: OwnedSemaphorePermit, cut: &CancellationToken) -> Self {
        // Answers leave at once instead of waiting to fill a packet: a chain of short tasks is all round trips. Fails
        // only where the peer has gone, which shows in the first read.
        let _ = stream.set_nodelay(true);
        let deadline = Box::pin(tokio::time::sleep(GREETING_TIME_MAX));
        Self {
            stream,
            greeting: Some(Greeting { missing: GREETING_BYTES, deadline }),
            cut: Box::pin(cut.clone().cancelled_owned()),
            _place: place,
        }
    }

    fn poll_alive(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if self.cut.as_mut().poll(context).is_ready() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let is_late =
            self.greeting.as_mut().is_some_and(|one| one.deadline.as_mut().poll(context).is_ready());
        if is_late { Err(io::ErrorKind::TimedOut.into()) } else { Ok(()) }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.poll_alive(context)?;
        let before = into.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, into))?;
        let read = into.filled().len() - before;
        if let Some(greeting) = &mut self.greeting {
            greeting.missing = greeting.missing.saturating_sub(read);
        }
        self.greeting.take_if(|greeting| greeting.missing == 0);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_alive(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_alive(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;
    fn connect_info(&self) -> TcpConnectInfo {
        self.stream.connect_info()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    async fn door(
        connections_max: usize,
    ) -> (Pin<Box<dyn Stream<Item = io::Result<Connection>>>>, String, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let cut = CancellationToken::new();
        (Box::pin(Door::new(listener, connections_max, cut.clone()).connections()), address, cut)
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_greet_is_cut_off() {
        let (mut connections, address, _cut) = door(1).await;
        let mut peer = TcpStream::connect(&address).await.unwrap();
        peer.write_all(b"PRI * HTTP").await.unwrap();
        let mut connection = connections.next().await.unwrap().unwrap();
        let mut first = [0; 10];
        connection.read_exact(&mut first).await.unwrap();
        let error = connection.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_peer_that_greeted_is_bounded_no_more_until_it_is_cut() {
        let (mut connections, address, cut) = door(1).await;
        let mut peer = TcpStream::connect(&address).await.unwrap();
        peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
        let mut connection = connections.next().await.unwrap().unwrap();
        let mut greeting = [0; GREETING_BYTES];
        connection.read_exact(&mut greeting).await.unwrap();
        assert!(connection.greeting.is_none());
        cut.cancel();
        assert_eq!(connection.read_u8().await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
        assert_eq!(connection.write_u8(1).await.unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }

    #[tokio::test]
    async fn beyond_the_limit_a_peer_waits_for_a_place() {
        let (mut connections, address, _cut) = door(1).await;
        let _first_peer = TcpStream::connect(&address).await.unwrap();
        let _second_peer = TcpStream::connect(&address).await.unwrap();
        let first = connections.next().await.unwrap().unwrap();
        assert!(futures_util::poll!(connections.next()).is_pending());
        drop(first);
        assert!(connections.next().await.unwrap().is_ok());
    }
}

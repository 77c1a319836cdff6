//! What stands between one master and the database: it can be cut, and can lose the answer to a COMMIT.
//!
//! It knows nothing of the protocols: both send the word COMMIT as it is.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

/// A way to the database that a test can break.
pub(super) struct Proxy {
    pub(super) port: u16,
    state: Arc<State>,
    _serving: JoinSet<()>,
}

struct State {
    server: SocketAddr,
    is_cut: AtomicBool,
    /// Whether the answer to the next COMMIT is to be lost.
    loses_answer: AtomicBool,
}

impl Proxy {
    pub(super) async fn start(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let state =
            Arc::new(State { server, is_cut: AtomicBool::new(false), loses_answer: AtomicBool::new(false) });
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, Arc::clone(&state)));
        Self { port, state, _serving: serving }
    }

    /// Cuts every connection, and each new one at once.
    pub(super) fn cut(&self) {
        self.state.is_cut.store(true, Ordering::SeqCst);
    }

    /// Cuts the connection over which the next COMMIT goes, once the server has done it and before that is told.
    pub(super) fn lose_next_answer(&self) {
        self.state.loses_answer.store(true, Ordering::SeqCst);
    }

    pub(super) fn has_lost_it(&self) -> bool {
        !self.state.loses_answer.load(Ordering::SeqCst)
    }
}

async fn serve(listener: TcpListener, state: Arc<State>) {
    let mut connections = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        if !state.is_cut.load(Ordering::SeqCst) {
            connections.spawn(connect(client, Arc::clone(&state)));
        }
    }
}

async fn connect(client: TcpStream, state: Arc<State>) {
    let Ok(server) = TcpStream::connect(state.server).await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let answer_is_lost = CancellationToken::new();
    let there = async {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(bytes @ 1..) = from_client.read(&mut buffer).await {
            let message = &buffer[..bytes];
            if message.windows(6).any(|window| window == b"COMMIT")
                && state.loses_answer.swap(false, Ordering::SeqCst)
            {
                answer_is_lost.cancel();
            }
            if state.is_cut.load(Ordering::SeqCst) || to_server.write_all(message).await.is_err() {
                return;
            }
        }
    };
    let back = async {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(bytes @ 1..) = from_server.read(&mut buffer).await {
            let is_lost = answer_is_lost.is_cancelled() || state.is_cut.load(Ordering::SeqCst);
            if is_lost || to_client.write_all(&buffer[..bytes]).await.is_err() {
                return;
            }
        }
    };
    // Whichever side ends first ends both.
    tokio::select! { () = there => {}, () = back => {} }
}

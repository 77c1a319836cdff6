//! What stands between a store and its server, and breaks at a chosen moment.
//!
//! It knows nothing of the protocols: both send the word COMMIT as it is.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
};

/// What happens to the next COMMIT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Break {
    Never,
    /// The connection is cut, and the server never sees it.
    Before,
    /// The server does it, and the connection is cut instead of its answer.
    After,
    /// Neither that nor anything after it on the same connection arrives, and the connection stays open.
    Silence,
}

pub(crate) struct Proxy {
    pub(crate) port: u16,
    next: Arc<Mutex<Break>>,
}

impl Proxy {
    /// Starts one before a server's socket. Its threads end with their connections, and the last with the test.
    pub(crate) fn start(server: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("its number").port();
        let next = Arc::new(Mutex::new(Break::Never));
        let shared = Arc::clone(&next);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = UnixStream::connect(&server) else { continue };
                connect(client, server, &shared);
            }
        });
        Self { port, next }
    }

    pub(crate) fn break_next(&self, how: Break) {
        *self.next.lock().expect("a moment") = how;
    }

    /// Tells whether the next COMMIT has come.
    pub(crate) fn has_broken(&self) -> bool {
        *self.next.lock().expect("a moment") == Break::Never
    }
}

fn connect(client: TcpStream, server: UnixStream, next: &Arc<Mutex<Break>>) {
    let way = Arc::new(Way {
        client: client.try_clone().expect("a handle"),
        server: server.try_clone().expect("a handle"),
        is_answer_lost: Mutex::new(false),
    });
    let (there, back, next) = (Arc::clone(&way), way, Arc::clone(next));
    thread::spawn(move || there.carry_there(client, &next));
    thread::spawn(move || back.carry_back(server));
}

struct Way {
    client: TcpStream,
    server: UnixStream,
    is_answer_lost: Mutex<bool>,
}

impl Way {
    fn carry_there(&self, mut client: TcpStream, next: &Mutex<Break>) {
        let mut buffer = vec![0; 1 << 16];
        let mut is_silent = false;
        while let Ok(bytes @ 1..) = client.read(&mut buffer) {
            let message = buffer.get(..bytes).unwrap_or_default();
            if message.windows(6).any(|window| window == b"COMMIT") {
                match std::mem::replace(&mut *next.lock().expect("a moment"), Break::Never) {
                    Break::Never => {}
                    Break::Before => break,
                    Break::After => *self.is_answer_lost.lock().expect("a moment") = true,
                    Break::Silence => is_silent = true,
                }
            }
            if !is_silent && (&self.server).write_all(message).is_err() {
                break;
            }
        }
        // A client that has given up shows to the server only where the network still works.
        if !is_silent {
            self.cut();
        }
    }

    fn carry_back(&self, mut server: UnixStream) {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(bytes @ 1..) = server.read(&mut buffer) {
            let message = buffer.get(..bytes).unwrap_or_default();
            if *self.is_answer_lost.lock().expect("a moment") || (&self.client).write_all(message).is_err() {
                break;
            }
        }
        self.cut();
    }

    fn cut(&self) {
        // Either may be closed already.
        let _ = self.client.shutdown(Shutdown::Both);
        let _ = self.server.shutdown(Shutdown::Both);
    }
}

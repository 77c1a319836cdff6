//! The connection to the executor, from the supervisor's side. Nothing here waits: an executor that is stopped or slow must
//! not keep deadlines from being kept.

use std::{
    io::{self, ErrorKind, Read as _, Write as _},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
};

use nix::{
    poll::PollFlags,
    sys::socket::{getsockopt, sockopt::PeerCredentials},
    unistd::geteuid,
};

use super::{
    frame::{self, Arrived, FrameError},
    protocol::{Order, Word},
    report,
};

/// Bytes of one read.
const READ_BYTES: usize = 64 << 10;
/// Reads of one turn: orders must not keep exits from being noticed.
const READS_MAX: usize = 4;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    arrived: Arrived,
    /// What is to be sent. It is bounded by what is supervised: nothing new starts while the other side is silent.
    leaving: Vec<u8>,
    pub(super) is_greeted: bool,
    is_closed: bool,
}

impl Connection {
    pub(super) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            arrived: Arrived::default(),
            leaving: Vec::new(),
            is_greeted: false,
            is_closed: false,
        })
    }

    /// Returns what to wait for.
    pub(super) fn awaited(&self) -> PollFlags {
        if self.leaving.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLIN | PollFlags::POLLOUT }
    }

    pub(super) const fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// Reads what has arrived.
    pub(super) fn receive(&mut self) {
        let mut buffer = [0; READ_BYTES];
        for _ in 0..READS_MAX {
            match self.stream.read(&mut buffer) {
                Ok(0) => {
                    self.is_closed = true;
                    return;
                }
                Ok(length) => {
                    self.arrived.push(&buffer[..length]);
                    if length < buffer.len() {
                        return;
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.is_closed = true;
                    return;
                }
            }
        }
    }

    /// Takes out the next order, and the bytes behind it.
    pub(super) fn next_order(&mut self) -> Result<Option<(Order, Vec<u8>)>, FrameError> {
        Ok(self.arrived.next()?.map(|(order, tail)| (order, tail.to_vec())))
    }

    /// Has something sent with the next [`send`](Self::send).
    pub(super) fn say(&mut self, word: &Word) {
        if let Err(error) = frame::append(&mut self.leaving, word, &[]) {
            report("something cannot be said", &error);
            self.is_closed = true;
        }
    }

    /// Sends as much as the other side takes now.
    pub(super) fn send(&mut self) {
        while !self.leaving.is_empty() {
            match self.stream.write(&self.leaving) {
                Ok(length) => _ = self.leaving.drain(..length),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.is_closed = true;
                    return;
                }
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Tells whether the other side runs under the account of this process.
pub(crate) fn is_own_account(stream: &UnixStream) -> io::Result<bool> {
    Ok(getsockopt(stream, PeerCredentials)?.uid() == geteuid().as_raw())
}

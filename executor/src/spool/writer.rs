//! The thread that writes the journal: it takes all that has queued up, writes it at once and syncs once.
//!
//! Batches come back in the order in which they were given, whether or not they had to be written, so that what follows
//! from them keeps its order. A failed sync ends the program: after it nobody knows what is on the disk.

use std::{
    fs, io,
    io::Write as _,
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    thread::{self, JoinHandle},
};

use thiserror::Error;
use tokio::sync::mpsc;

use super::{Journal, begin_journal, ensure_reserve, frame, has_room_for_reserve};
use crate::{
    history::History,
    ledger::{Batch, Record},
};

/// Batches that are on their way to the disk; while there are as many, the ledger collects the next one.
pub const BATCHES_IN_FLIGHT_MAX: usize = 4;

/// Why the spool cannot be written; the program must end.
#[derive(Debug, Error)]
pub enum WriteError {
    /// A record has no written form.
    #[error("a record of the spool cannot be written")]
    Encode(#[from] serde_json::Error),
    /// The disk failed.
    #[error("the spool journal cannot be written")]
    Io(#[source] io::Error),
    /// The thread is gone.
    #[error("the spool's thread has ended")]
    Gone,
}

/// What the thread did.
#[derive(Debug)]
pub struct Written {
    /// These are durable, as far as they must be.
    pub batches: Vec<Batch>,
    /// Bytes of the journal.
    pub journal_bytes: u64,
    /// Whether the disk was full: logs must give way.
    pub is_disk_full: bool,
}

enum Work {
    Batch(Batch),
    Rewrite(Vec<Record>),
}

/// The way to the thread.
#[derive(Debug)]
pub struct Spool {
    work: Option<SyncSender<Work>>,
    thread: Option<JoinHandle<()>>,
}

impl Spool {
    /// Starts the thread; what it did comes out of the receiver.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(
        journal: Journal,
        history: History,
    ) -> io::Result<(Self, mpsc::Receiver<Result<Written, WriteError>>)> {
        // One more than batches: a rewrite may stand beside them.
        let (work, queue) = sync_channel(BATCHES_IN_FLIGHT_MAX + 1);
        let (sender, receiver) = mpsc::channel(BATCHES_IN_FLIGHT_MAX + 1);
        let has_reserve = journal.folder.join("reserve").exists();
        let writer = Writer { journal, history, queue, sender, buffer: Vec::new(), has_reserve };
        let thread = thread::Builder::new().name("spool".to_owned()).spawn(move || writer.run())?;
        Ok((Self { work: Some(work), thread: Some(thread) }, receiver))
    }

    /// Gives a batch to the thread; the caller keeps count and never has more than [`BATCHES_IN_FLIGHT_MAX`] there.
    ///
    /// # Errors
    /// Where the thread is gone.
    pub fn write(&self, batch: Batch) -> Result<(), WriteError> {
        self.give(Work::Batch(batch))
    }

    /// Has the journal written anew from these records.
    ///
    /// # Errors
    /// Where the thread is gone.
    pub fn rewrite(&self, records: Vec<Record>) -> Result<(), WriteError> {
        self.give(Work::Rewrite(records))
    }

    fn give(&self, work: Work) -> Result<(), WriteError> {
        let Some(sender) = &self.work else { return Err(WriteError::Gone) };
        sender.try_send(work).map_err(|error| match error {
            TrySendError::Full(_) | TrySendError::Disconnected(_) => WriteError::Gone,
        })
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.work = None;
        if let Some(thread) = self.thread.take() {
            // It ends after what it was given; a panic in it was shown already.
            let _ = thread.join();
        }
    }
}

struct Writer {
    journal: Journal,
    history: History,
    queue: Receiver<Work>,
    sender: mpsc::Sender<Result<Written, WriteError>>,
    buffer: Vec<u8>,
    /// Whether space is kept back for the time when the disk is full.
    has_reserve: bool,
}

impl Writer {
    fn run(mut self) {
        while let Ok(work) = self.queue.recv() {
            let done = self.serve(work);
            let is_failed = done.is_err();
            if self.sender.blocking_send(done).is_err() || is_failed {
                return;
            }
        }
    }

    fn serve(&mut self, first: Work) -> Result<Written, WriteError> {
        let mut batches = Vec::new();
        let mut work = Some(first);
        while let Some(given) = work {
            match given {
                Work::Batch(batch) => batches.push(batch),
                Work::Rewrite(records) => {
                    // What came before the snapshot is in it; should the new journal fail, it must be in the old one.
                    let is_disk_full = self.append(&batches)? | self.rewrite(&records)?;
                    return Ok(self.written(batches, is_disk_full));
                }
            }
            work = if batches.len() < BATCHES_IN_FLIGHT_MAX { self.queue.try_recv().ok() } else { None };
        }
        let is_disk_full = self.append(&batches)?;
        Ok(self.written(batches, is_disk_full))
    }

    fn written(&self, batches: Vec<Batch>, is_disk_full: bool) -> Written {
        Written { batches, journal_bytes: self.journal.bytes, is_disk_full }
    }

    /// Writes the records of all batches and syncs if any of them must be durable. Tells whether the disk was full.
    fn append(&mut self, batches: &[Batch]) -> Result<bool, WriteError> {
        self.buffer.clear();
        for record in batches.iter().flat_map(Batch::records) {
            frame::append(&mut self.buffer, record)?;
        }
        if self.buffer.is_empty() {
            return Ok(false);
        }
        let is_disk_full = self.write_out()?;
        if batches.iter().any(Batch::must_be_durable) {
            self.journal.file.sync_data().map_err(WriteError::Io)?;
        }
        self.history.note(batches.iter().flat_map(Batch::records));
        Ok(is_disk_full)
    }

    /// Writes the buffer; a full disk costs the reserve.
    fn write_out(&mut self) -> Result<bool, WriteError> {
        let Err(error) = self.journal.file.write_all(&self.buffer) else {
            self.journal.bytes += self.buffer.len() as u64;
            self.renew_reserve();
            return Ok(false);
        };
        if !is_full(&error) {
            return Err(WriteError::Io(error));
        }
        tracing::error!(%error, "the disk is full; the spool gives up its reserve");
        // What was written in part is taken back, or the next frame could not be found.
        self.journal.file.set_len(self.journal.bytes).map_err(WriteError::Io)?;
        let _ = fs::remove_file(self.journal.folder.join("reserve"));
        self.has_reserve = false;
        self.journal.file.write_all(&self.buffer).map_err(WriteError::Io)?;
        self.journal.bytes += self.buffer.len() as u64;
        Ok(true)
    }

    /// Keeps space back again once there is enough of it; until then this costs one look at the disk for each write.
    fn renew_reserve(&mut self) {
        if !self.has_reserve && has_room_for_reserve(&self.journal.folder) {
            self.has_reserve = ensure_reserve(&self.journal.folder).is_ok();
        }
    }

    /// Begins a new journal. Tells whether the disk was too full for it; then the old one, which is whole, goes on.
    fn rewrite(&mut self, records: &[Record]) -> Result<bool, WriteError> {
        self.buffer.clear();
        for record in records {
            frame::append(&mut self.buffer, record)?;
        }
        let path = self.journal.folder.join("journal");
        match begin_journal(&path, &self.buffer) {
            Ok(file) => {
                self.journal.file = file;
                self.journal.bytes = (frame::MAGIC.len() + self.buffer.len()) as u64;
                self.renew_reserve();
                Ok(false)
            }
            Err(error) if is_full(&error) => Ok(true),
            Err(error) => Err(WriteError::Io(error)),
        }
    }
}

/// Tells whether a disk has no room, for anybody or for this account.
fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

//! The output of attempts: one file each, written by offset, read while it grows.
//!
//! Output is never on the path of correctness: it arrives late, twice or not at all and no state depends on it. What is
//! at an offset never changes, so a chunk that comes twice, even over two connections at once, does no harm.

mod sweep;

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use millrace_common::id::AttemptId;
use nix::sys::statvfs::fstatvfs;
use thiserror::Error;
use tokio::{
    sync::broadcast,
    task::{JoinError, spawn_blocking},
};

pub(crate) use self::sweep::sweep;

/// Notices about grown files that wait for a slow reader.
const NOTICES_MAX: usize = 1_024;
/// Bytes that one read returns.
pub(crate) const PIECE_BYTES_MAX: usize = 256 << 10;
/// Bytes that are kept of one attempt; executors stop at 256 MiB, and who sends more is none of ours.
const OUTPUT_BYTES_MAX: u64 = 320 << 20;
/// Free bytes below which no output is taken: on a full disk an SQLite file cannot grow, and output gives way to that.
const FREE_BYTES_MIN: u64 = 256 << 20;
/// Output may hold what only the scheduler's user should read.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Keeps output below one folder: `<run>/<instance>.<number>.log`.
#[derive(Debug)]
pub(crate) struct OutputStore {
    root: PathBuf,
    grown: broadcast::Sender<Grown>,
}

/// Output of an attempt has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Grown {
    pub(crate) attempt: AttemptId,
    /// Nothing follows.
    pub(crate) is_complete: bool,
}

/// How far the output of an attempt is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Everything before this is kept.
    pub(crate) offset: u64,
    /// Nothing follows.
    pub(crate) is_complete: bool,
}

/// Why a chunk was not kept.
#[derive(Debug, Error)]
pub(crate) enum AppendError {
    #[error("the master's disk has {0} bytes left, and output is not taken below {FREE_BYTES_MIN}")]
    NoRoom(u64),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the program is stopping")]
    Stopped(#[source] JoinError),
}

impl OutputStore {
    pub(crate) fn open(root: PathBuf) -> io::Result<Arc<Self>> {
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(&root)?;
        Ok(Arc::new(Self { root, grown: broadcast::Sender::new(NOTICES_MAX) }))
    }

    /// Keeps a chunk. What is there already is not written twice; a gap is refused by answering with what is kept.
    pub(crate) async fn append(
        &self,
        attempt: AttemptId,
        offset: u64,
        bytes: Vec<u8>,
        is_last: bool,
    ) -> Result<Kept, AppendError> {
        let path = self.path(attempt);
        let kept = spawn_blocking(move || append(&path, offset, &bytes, is_last));
        let kept = kept.await.map_err(AppendError::Stopped)??;
        // Nobody reading is fine.
        let _ = self.grown.send(Grown { attempt, is_complete: kept.is_complete });
        Ok(kept)
    }

    /// Reads what is kept from `offset`, at most [`PIECE_BYTES_MAX`]; empty where nothing is.
    pub(crate) async fn read(&self, attempt: AttemptId, offset: u64) -> io::Result<Vec<u8>> {
        let path = self.path(attempt);
        spawn_blocking(move || read(&path, offset)).await.map_err(io::Error::other)?
    }

    /// Returns how many bytes are kept.
    pub(crate) async fn length(&self, attempt: AttemptId) -> io::Result<u64> {
        let path = self.path(attempt);
        let found = spawn_blocking(move || fs::metadata(path)).await.map_err(io::Error::other)?;
        match found {
            Ok(found) => Ok(found.len()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Notices of attempts whose output has grown.
    pub(crate) fn grown(&self) -> broadcast::Receiver<Grown> {
        self.grown.subscribe()
    }

    /// The path is made of numbers and a UUID only: nothing in it comes from outside as text.
    fn path(&self, attempt: AttemptId) -> PathBuf {
        let instance = attempt.instance;
        let file = format!("{}.{}.log", instance.index, attempt.number);
        self.root.join(instance.run.to_string()).join(file)
    }
}

fn append(path: &Path, offset: u64, bytes: &[u8], is_last: bool) -> Result<Kept, AppendError> {
    let file = create(path)?;
    let length = file.metadata()?.len();
    let end = offset.saturating_add(bytes.len() as u64);
    if length >= OUTPUT_BYTES_MAX {
        // Taken and thrown away: refusing it would bring it again and again.
        return Ok(Kept { offset: end, is_complete: is_last });
    }
    let Some(known) = length.checked_sub(offset) else {
        return Ok(Kept { offset: length, is_complete: false });
    };
    let new = usize::try_from(known).ok().and_then(|known| bytes.get(known..)).unwrap_or_default();
    if !new.is_empty() {
        refuse_full_disk(&file)?;
        // At its place rather than at the end: another connection may be writing the same.
        file.write_all_at(new, length)?;
    }
    Ok(Kept { offset: end.max(length), is_complete: is_last })
}

fn create(path: &Path) -> io::Result<File> {
    let open = || OpenOptions::new().create(true).truncate(false).write(true).mode(FILE_MODE).open(path);
    match (open(), path.parent()) {
        (Err(error), Some(folder)) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)?;
            open()
        }
        (opened, _) => opened,
    }
}

fn refuse_full_disk(file: &File) -> Result<(), AppendError> {
    let disk = fstatvfs(file).map_err(io::Error::from)?;
    let free = disk.blocks_available().saturating_mul(disk.fragment_size());
    if free < FREE_BYTES_MIN { Err(AppendError::NoRoom(free)) } else { Ok(()) }
}

fn read(path: &Path, offset: u64) -> io::Result<Vec<u8>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let left = file.metadata()?.len().saturating_sub(offset);
    let mut piece = vec![0; usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES_MAX)];
    let mut filled = 0;
    while filled < piece.len() {
        match file.read_at(&mut piece[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    piece.truncate(filled);
    Ok(piece)
}

#[cfg(test)]
mod tests;

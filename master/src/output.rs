//! The output of attempts: one file each, written by offset, read while it grows.
//!
//! Output is never on the path of correctness: it arrives late, twice or not at all and no state depends on it.

use std::{
    io::SeekFrom,
    path::{Path, PathBuf},
};

use millrace_common::id::AttemptId;
use tokio::{
    fs::{self, File, OpenOptions},
    io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt},
    sync::broadcast,
};

/// Notices about grown files that wait for a slow reader.
const NOTICES_MAX: usize = 1_024;
/// Bytes that one read returns.
pub(crate) const PIECE_BYTES_MAX: usize = 256 << 10;

/// Keeps output below one folder: `<run>/<instance>.<number>.log`.
#[derive(Debug)]
pub(crate) struct OutputStore {
    root: PathBuf,
    grown: broadcast::Sender<AttemptId>,
}

/// How far the output of an attempt is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kept {
    /// Everything before this is kept.
    pub(crate) offset: u64,
    /// Nothing follows.
    pub(crate) is_complete: bool,
}

impl OutputStore {
    pub(crate) async fn open(root: PathBuf) -> std::io::Result<Self> {
        fs::create_dir_all(&root).await?;
        Ok(Self { root, grown: broadcast::Sender::new(NOTICES_MAX) })
    }

    /// Keeps a chunk. What is there already is not written twice; a gap is refused by answering with what is kept.
    pub(crate) async fn append(
        &self,
        attempt: AttemptId,
        offset: u64,
        bytes: &[u8],
        is_last: bool,
    ) -> std::io::Result<Kept> {
        let path = self.path(attempt);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).await?;
        }
        let mut file = OpenOptions::new().create(true).append(true).open(&path).await?;
        let len = file.metadata().await?.len();
        let Some(new) = len.checked_sub(offset).and_then(|known| bytes.get(usize::try_from(known).ok()?..)) else {
            let is_behind = offset < len;
            return Ok(Kept { offset: len, is_complete: is_last && is_behind });
        };
        if !new.is_empty() {
            file.write_all(new).await?;
            file.flush().await?;
        }
        let end = offset + bytes.len() as u64;
        // Nobody reading is fine.
        let _ = self.grown.send(attempt);
        Ok(Kept { offset: end, is_complete: is_last })
    }

    /// Reads what is kept from `offset`, at most [`PIECE_BYTES_MAX`]; empty where nothing is.
    pub(crate) async fn read(&self, attempt: AttemptId, offset: u64) -> std::io::Result<Vec<u8>> {
        let mut file = match File::open(self.path(attempt)).await {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(offset)).await?;
        let mut piece = Vec::new();
        file.take(PIECE_BYTES_MAX as u64).read_to_end(&mut piece).await?;
        Ok(piece)
    }

    /// Notices of attempts whose output has grown.
    pub(crate) fn grown(&self) -> broadcast::Receiver<AttemptId> {
        self.grown.subscribe()
    }

    /// The path is made of numbers and a UUID only: nothing in it comes from outside as text.
    fn path(&self, attempt: AttemptId) -> PathBuf {
        let instance = attempt.instance;
        Path::new(&self.root).join(instance.run.to_string()).join(format!("{}.{}.log", instance.index, attempt.number))
    }
}

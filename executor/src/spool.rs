//! The executor's memory on disk: an append-only journal that outlives a crash.
//!
//! Owns the folder `spool/` of the data folder, and a lock on the data folder for as long as the program lives. A spool
//! that was created, lost or found damaged has a new id, so that a leader notices; a torn tail, which no acknowledged write
//! can leave, is cut. Writing is the business of one thread, `writer`, which syncs for all that queued up meanwhile.
//!
//! ```text
//! lock                 held while the program lives
//! spool/id             the spool's id; written last when a spool is created
//! spool/journal        records, see `frame`
//! spool/reserve        given up when the disk is full, so that results can still be written
//! ```

mod frame;
mod writer;

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

use millrace_common::id::SpoolId;
use thiserror::Error;
use uuid::Uuid;

pub use self::writer::{BATCHES_IN_FLIGHT_MAX, Spool, WriteError, Written};
use crate::ledger::Record;

/// Bytes of the largest journal that is read; the writer begins a new one long before.
const JOURNAL_BYTES_MAX: u64 = 1 << 30;
/// Bytes that are kept back for results: ten thousand of them.
const RESERVE_BYTES: u64 = 4 << 20;

/// Why a spool could not be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another executor uses the folder.
    #[error("data folder {0} is in use by another executor; give each its own `data_dir`")]
    InUse(PathBuf),
    /// Something in the folder could not be read or written.
    #[error("cannot use {path}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The journal is larger than any that this program writes.
    #[error("spool journal {0} is too large to be one; move the folder away to begin a new spool")]
    TooLarge(PathBuf),
}

/// The exclusive right to a data folder; given back when dropped.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

/// An open spool.
#[derive(Debug)]
pub struct Opened {
    /// Its id.
    pub id: SpoolId,
    /// Whether it has just been created: nothing is known of what ran here before.
    pub is_new: bool,
    /// What it tells, oldest first.
    pub records: Vec<Record>,
    /// Where it goes on.
    pub journal: Journal,
}

/// The open journal, ready to be appended to.
#[derive(Debug)]
pub struct Journal {
    pub(self) folder: PathBuf,
    pub(self) file: File,
    pub(self) bytes: u64,
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> OpenError {
    move |source| OpenError::Io { path: path.to_owned(), source }
}

/// Takes the exclusive right to a data folder, which is created where absent.
///
/// # Errors
/// Where another executor has it, or it cannot be used.
pub fn lock(data_dir: &Path) -> Result<FolderLock, OpenError> {
    fs::create_dir_all(data_dir).map_err(failed(data_dir))?;
    let path = data_dir.join("lock");
    let file =
        OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(FolderLock { _file: file }),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(data_dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(OpenError::Io { path, source }),
    }
}

/// Opens the spool of a data folder, creating it where there is none.
///
/// # Errors
/// Where a file of it cannot be read or written.
pub fn open(data_dir: &Path) -> Result<Opened, OpenError> {
    let folder = data_dir.join("spool");
    fs::create_dir_all(&folder).map_err(failed(&folder))?;
    let opened = match existing(&folder)? {
        Some(opened) => opened,
        None => create(&folder)?,
    };
    // Without a reserve everything works until the disk is full, so failing to make one is no reason to stop.
    if let Err(error) = ensure_reserve(&folder) {
        tracing::warn!(%error, "no space can be kept back for results");
    }
    Ok(opened)
}

/// Opens what is there; `None` where there is no whole spool.
fn existing(folder: &Path) -> Result<Option<Opened>, OpenError> {
    let Some(id) = read_id(&folder.join("id")) else { return Ok(None) };
    let path = folder.join("journal");
    let mut file = match OpenOptions::new().read(true).append(true).open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(OpenError::Io { path, source }),
    };
    let len = file.metadata().map_err(failed(&path))?.len();
    if len > JOURNAL_BYTES_MAX {
        return Err(OpenError::TooLarge(path));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(failed(&path))?;
    let content = frame::read_all(&bytes);
    if content.is_damaged {
        tracing::error!(path = %path.display(), "the spool journal is damaged; a new spool begins");
        fs::rename(&path, folder.join("journal.damaged")).map_err(failed(&path))?;
        return Ok(None);
    }
    let cut = len - content.good_bytes;
    if cut > 0 {
        tracing::warn!(bytes = cut, "the tail of the spool journal was torn and has been cut");
        file.set_len(content.good_bytes).and_then(|()| file.sync_all()).map_err(failed(&path))?;
    }
    let journal = Journal { folder: folder.to_owned(), file, bytes: content.good_bytes };
    Ok(Some(Opened { id, is_new: false, records: content.records, journal }))
}

/// Puts a spool aside: the next life of the program begins a new one. What it held stays for whoever looks into it.
///
/// # Errors
/// Where the folder cannot be changed.
pub fn set_aside(data_dir: &Path) -> Result<(), OpenError> {
    let folder = data_dir.join("spool");
    // Without its id there is no spool, whatever else is there.
    for name in ["id", "journal"] {
        let path = folder.join(name);
        match fs::rename(&path, folder.join(format!("{name}.old"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&path)(error)),
            _ => {}
        }
        sync_folder(&folder).map_err(failed(&folder))?;
    }
    Ok(())
}

/// Creates a spool: first its empty journal, at last its id, so that a crash in between leaves no spool.
fn create(folder: &Path) -> Result<Opened, OpenError> {
    let id_path = folder.join("id");
    match fs::remove_file(&id_path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(&id_path)(error)),
        _ => {}
    }
    sync_folder(folder).map_err(failed(folder))?;
    let path = folder.join("journal");
    let file = begin_journal(&path, &[]).map_err(failed(&path))?;
    let id = SpoolId(Uuid::now_v7());
    let new_path = folder.join("id.new");
    let mut new = File::create(&new_path).map_err(failed(&new_path))?;
    writeln!(new, "{id}").and_then(|()| new.sync_all()).map_err(failed(&new_path))?;
    fs::rename(&new_path, &id_path).map_err(failed(&id_path))?;
    sync_folder(folder).map_err(failed(folder))?;
    let bytes = frame::MAGIC.len() as u64;
    let journal = Journal { folder: folder.to_owned(), file, bytes };
    Ok(Opened { id, is_new: true, records: Vec::new(), journal })
}

/// Writes a whole journal and puts it in place of the one there.
fn begin_journal(path: &Path, frames: &[u8]) -> io::Result<File> {
    let new_path = path.with_extension("new");
    match fs::remove_file(&new_path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let written = write_new(&new_path, frames).inspect_err(|_| {
        // A part of a journal would only take the space that is missing.
        let _ = fs::remove_file(&new_path);
    });
    let file = written?;
    fs::rename(&new_path, path)?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))?;
    Ok(file)
}

fn write_new(path: &Path, frames: &[u8]) -> io::Result<File> {
    let mut file = OpenOptions::new().create_new(true).append(true).open(path)?;
    file.write_all(frame::MAGIC)?;
    file.write_all(frames)?;
    file.sync_all()?;
    Ok(file)
}

fn read_id(path: &Path) -> Option<SpoolId> {
    fs::read_to_string(path).ok()?.trim().parse().ok().map(SpoolId)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// Returns the bytes of a data folder's disk that its spool would still keep back for results: nobody else may count on them.
pub(crate) fn missing_reserve(data_dir: &Path) -> u64 {
    let has_reserve =
        fs::metadata(data_dir.join("spool/reserve")).is_ok_and(|file| file.len() >= RESERVE_BYTES);
    if has_reserve { 0 } else { RESERVE_BYTES }
}

/// Tells whether a reserve would leave as much free as it takes.
fn has_room_for_reserve(folder: &Path) -> bool {
    nix::sys::statvfs::statvfs(folder).is_ok_and(|found| {
        found.blocks_available().saturating_mul(found.fragment_size()) >= 2 * RESERVE_BYTES
    })
}

/// Keeps space back for the time when the disk is full.
fn ensure_reserve(folder: &Path) -> io::Result<()> {
    let path = folder.join("reserve");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path)?;
    if file.metadata()?.len() >= RESERVE_BYTES {
        return Ok(());
    }
    let length = i64::try_from(RESERVE_BYTES).unwrap_or(i64::MAX);
    nix::fcntl::posix_fallocate(&file, 0, length).map_err(|error| {
        // A part of a reserve is no reserve.
        let _ = fs::remove_file(&path);
        io::Error::from(error)
    })
}

#[cfg(test)]
mod tests;

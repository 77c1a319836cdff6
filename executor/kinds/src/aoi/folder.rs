//! A folder of this machine as an origin: a share that is mounted, or what another program has fetched.
//!
//! Links are not followed, neither as files nor as dated folders.

use std::{
    fs::{self, File},
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

use super::remote::{Entry, LISTING_ENTRIES_MAX, Remote, RemoteError, Sink, Version};

/// Bytes handed on at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// A folder that holds dated folders.
#[derive(Debug)]
pub(crate) struct FolderRemote(PathBuf);

impl FolderRemote {
    /// Opens a folder, which must be there.
    pub(crate) fn open(path: &Path) -> Result<Self, RemoteError> {
        fs::read_dir(path).map_err(|source| unreadable(path, source))?;
        Ok(Self(path.to_owned()))
    }
}

impl Remote for FolderRemote {
    fn list(&mut self, folder: &str) -> Result<Option<Vec<Entry>>, RemoteError> {
        let path = self.0.join(folder);
        match list(&path) {
            Ok(Some(entries)) => Ok(Some(entries)),
            Ok(None) => Err(RemoteError::Listing { folder: folder.to_owned() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(unreadable(&path, source)),
        }
    }

    fn version(&mut self, folder: &str, name: &str) -> Result<Option<Version>, RemoteError> {
        let path = self.0.join(folder).join(name);
        match fs::symlink_metadata(&path) {
            Ok(metadata) => Ok(metadata.is_file().then(|| version(&metadata))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(unreadable(&path, source)),
        }
    }

    fn read(
        &mut self,
        folder: &str,
        name: &str,
        offset: u64,
        sink: &mut Sink<'_>,
    ) -> Result<(), RemoteError> {
        let path = self.0.join(folder).join(name);
        let mut file = File::open(&path).map_err(|source| unreadable(&path, source))?;
        file.seek(SeekFrom::Start(offset)).map_err(|source| unreadable(&path, source))?;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            match file.read(&mut chunk) {
                Ok(0) => return Ok(()),
                Ok(count) => sink(&chunk[..count]).map_err(RemoteError::Sink)?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(unreadable(&path, source)),
            }
        }
    }
}

/// Returns size and time of a file of this machine.
pub(crate) fn version(metadata: &fs::Metadata) -> Version {
    let mtime = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    let seconds = mtime.and_then(|time| i64::try_from(time.as_secs()).ok()).unwrap_or_default();
    Version { size: metadata.len(), mtime: seconds }
}

/// Returns the regular files of a folder, or nothing where there are too many.
fn list(path: &Path) -> io::Result<Option<Vec<Entry>>> {
    let mut entries = Vec::new();
    for found in fs::read_dir(path)? {
        let found = found?;
        let metadata = found.metadata()?;
        if !metadata.is_file() {
            continue;
        }
        entries.push(Entry {
            name: found.file_name().to_string_lossy().into_owned(),
            version: version(&metadata),
        });
        if entries.len() > LISTING_ENTRIES_MAX {
            return Ok(None);
        }
    }
    Ok(Some(entries))
}

fn unreadable(path: &Path, source: io::Error) -> RemoteError {
    RemoteError::Folder { path: path.display().to_string(), source }
}

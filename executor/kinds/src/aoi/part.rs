//! A file that is arriving: `.NAME.part`, and beside it which version of the origin's file it is a part of.
//!
//! A part of the same version is continued, one of another is thrown away. The file gets its name when it is complete,
//! durable and carries the time of the origin's file.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::{Duration, UNIX_EPOCH},
};

use serde_json::{Value, json};

use super::{
    remote::Version,
    store::{StoreError, publish},
};

/// A file that is arriving.
#[derive(Debug)]
pub(crate) struct Part {
    place: PathBuf,
    path: PathBuf,
    note: PathBuf,
    file: File,
    version: Version,
    length: u64,
}

impl Part {
    /// Opens the part of a file, continuing what has arrived of the same version.
    pub(crate) fn open(place: &Path, version: Version) -> Result<Self, StoreError> {
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let path = place.with_file_name(format!(".{name}.part"));
        let note = place.with_file_name(format!(".{name}.part.json"));
        let length = if is_noted(&note, version) {
            fs::metadata(&path).map_or(0, |metadata| metadata.len())
        } else {
            0
        };
        let length = if length <= version.size { length } else { 0 };
        if length == 0 {
            // The note goes first and comes last: bytes of an old version never stand under the note of a new one.
            remove(&note)?;
        }
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let file = file.map_err(StoreError::io("opened", &path))?;
        let mut part = Self { place: place.to_owned(), path, note, file, version, length };
        if length == 0 {
            part.restart()?;
        }
        Ok(part)
    }

    /// Throws away what has arrived.
    pub(crate) fn restart(&mut self) -> Result<(), StoreError> {
        self.file.set_len(0).map_err(StoreError::io("emptied", &self.path))?;
        self.length = 0;
        let text = json!({ "size": self.version.size, "mtime": self.version.mtime }).to_string();
        fs::write(&self.note, text).map_err(StoreError::io("written", &self.note))
    }

    /// Returns how many bytes have arrived.
    pub(crate) const fn length(&self) -> u64 {
        self.length
    }

    /// Tells whether more bytes would be more than the file has.
    pub(crate) const fn overflows(&self, bytes: &[u8]) -> bool {
        self.length + bytes.len() as u64 > self.version.size
    }

    /// Tells whether all bytes have arrived.
    pub(crate) const fn is_complete(&self) -> bool {
        self.length == self.version.size
    }

    /// Adds bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.length += bytes.len() as u64;
        Ok(())
    }

    /// Returns the path of what has arrived.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the complete file its name, durably, with the time of the origin's file.
    pub(crate) fn publish(self) -> Result<(), StoreError> {
        let seconds = Duration::from_secs(u64::try_from(self.version.mtime).unwrap_or_default());
        self.file.set_modified(UNIX_EPOCH + seconds).map_err(StoreError::io("dated", &self.path))?;
        self.file.sync_all().map_err(StoreError::io("made durable", &self.path))?;
        publish(&self.path, &self.place)?;
        remove(&self.note)
    }

    /// Removes what has arrived.
    pub(crate) fn discard(self) -> Result<(), StoreError> {
        remove(&self.note)?;
        remove(&self.path)
    }
}

fn is_noted(note: &Path, version: Version) -> bool {
    let noted = fs::read(note).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    noted.is_some_and(|noted| noted == json!({ "size": version.size, "mtime": version.mtime }))
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("removed", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: Version = Version { size: 6, mtime: 1_532_480_523 };

    #[test]
    fn a_part_of_the_same_version_is_continued() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("a.zip");
        let mut part = Part::open(&place, VERSION).unwrap();
        part.write(b"abc").unwrap();
        drop(part);
        let mut part = Part::open(&place, VERSION).unwrap();
        assert_eq!((part.length(), part.is_complete(), part.overflows(b"defg")), (3, false, true));
        part.write(b"def").unwrap();
        assert!(part.is_complete());
        part.publish().unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"abcdef");
        assert_eq!(super::super::folder::version(&fs::metadata(&place).unwrap()), VERSION);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside the file");
    }

    #[test]
    fn a_part_of_another_version_is_thrown_away() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("a.zip");
        Part::open(&place, VERSION).unwrap().write(b"abc").unwrap();
        for other in [Version { size: 7, ..VERSION }, Version { mtime: 1, ..VERSION }] {
            let mut part = Part::open(&place, other).unwrap();
            assert_eq!(part.length(), 0);
            part.write(b"xyz").unwrap();
        }
        assert_eq!(Part::open(&place, VERSION).unwrap().length(), 0);
    }

    #[test]
    fn a_part_without_its_note_is_not_trusted() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("a.zip");
        Part::open(&place, VERSION).unwrap().write(b"abc").unwrap();
        fs::remove_file(folder.path().join(".a.zip.part.json")).unwrap();
        assert_eq!(Part::open(&place, VERSION).unwrap().length(), 0);
    }
}

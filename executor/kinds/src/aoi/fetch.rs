//! One file from its origin into the store: continued where it broke, checked, and only then named.

use std::{
    cell::{Cell, RefCell},
    fs,
    path::{Path, PathBuf},
};

use chrono::NaiveDate;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::{
    archive,
    folder::version,
    part::Part,
    plan::Unpack,
    remote::{Remote, RemoteError, Version},
    session::Session,
    store::StoreError,
};

/// A file to fetch.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) day: NaiveDate,
    /// Dated folder at the origin.
    pub(crate) folder: String,
    /// Name at the origin.
    pub(crate) name: String,
    pub(crate) version: Version,
    /// Place in the store.
    pub(crate) place: PathBuf,
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fetched {
    /// It is in the store.
    Done {
        /// SHA-256 of its bytes, as hexadecimal digits.
        sha256: String,
    },
    /// It was in the store already.
    Adopted {
        /// SHA-256 of its bytes, as hexadecimal digits.
        sha256: String,
    },
    /// It is no longer at the origin.
    Vanished,
    /// It is still being written.
    Changing,
}

/// Why a file could not be fetched.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The origin failed.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl FetchError {
    /// Tells whether no other file of the same origin can succeed either.
    pub(crate) const fn ends_source(&self) -> bool {
        match self {
            Self::Remote(error) => error.ends_source(),
            Self::Store(_) => true,
        }
    }
}

/// Fetches a file. One that arrived in pieces and turns out broken is fetched once more, whole.
pub(crate) fn fetch(
    session: &mut Session<'_>,
    wanted: &Wanted,
    limits: &Unpack,
) -> Result<Fetched, FetchError> {
    if fs::metadata(&wanted.place).is_ok_and(|metadata| version(&metadata) == wanted.version) {
        return Ok(Fetched::Adopted { sha256: sha256(&wanted.place)? });
    }
    let mut part = Part::open(&wanted.place, wanted.version)?;
    loop {
        let is_continued = part.length() > 0;
        let arrived = arrive(session, wanted, &mut part)?;
        if arrived != Arrived::Complete {
            part.discard()?;
            return Ok(if arrived == Arrived::Vanished { Fetched::Vanished } else { Fetched::Changing });
        }
        if is_continued && is_archive(&wanted.place) && archive::verify(part.path(), limits).is_err() {
            part.restart()?;
            continue;
        }
        let sha256 = sha256(part.path())?;
        part.publish()?;
        return Ok(Fetched::Done { sha256 });
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arrived {
    Complete,
    Vanished,
    Changing,
}

fn arrive(session: &mut Session<'_>, wanted: &Wanted, part: &mut Part) -> Result<Arrived, FetchError> {
    let length = Cell::new(part.length());
    let part = RefCell::new(part);
    let arrived = session.run(
        || length.get(),
        |remote| {
            let mut part = part.borrow_mut();
            let outcome = read(remote, wanted, &mut part);
            length.set(part.length());
            outcome
        },
    );
    Ok(arrived?)
}

fn read(remote: &mut dyn Remote, wanted: &Wanted, part: &mut Part) -> Result<Arrived, RemoteError> {
    let refused = match read_rest(remote, wanted, part) {
        Ok(Arrived::Complete) => None,
        Ok(other) => return Ok(other),
        Err(error) if is_gone(&error) => Some(error),
        Err(error) => return Err(error),
    };
    match (remote.version(&wanted.folder, &wanted.name)?, refused) {
        (None, _) => Ok(Arrived::Vanished),
        (Some(now), _) if now != wanted.version => Ok(Arrived::Changing),
        (Some(_), Some(error)) => Err(error),
        (Some(_), None) if part.is_complete() => Ok(Arrived::Complete),
        (Some(_), None) => {
            let (name, length) = (wanted.name.clone(), part.length());
            Err(RemoteError::Short { name, length, size: wanted.version.size })
        }
    }
}

/// Reads what is missing. A server that does not continue transfers is asked for the whole file.
fn read_rest(remote: &mut dyn Remote, wanted: &Wanted, part: &mut Part) -> Result<Arrived, RemoteError> {
    if part.is_complete() {
        return Ok(Arrived::Complete);
    }
    match read_on(remote, wanted, part) {
        Err(error) if is_refused_offset(&error, part.length()) => {
            part.restart().map_err(|error| RemoteError::Sink(std::io::Error::other(error)))?;
            read_on(remote, wanted, part)
        }
        other => other,
    }
}

fn read_on(remote: &mut dyn Remote, wanted: &Wanted, part: &mut Part) -> Result<Arrived, RemoteError> {
    let mut has_grown = false;
    let offset = part.length();
    let read = remote.read(&wanted.folder, &wanted.name, offset, &mut |bytes| {
        if part.overflows(bytes) {
            has_grown = true;
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        part.write(bytes)
    });
    if has_grown { Ok(Arrived::Changing) } else { read.map(|()| Arrived::Complete) }
}

const fn is_refused_offset(error: &RemoteError, offset: u64) -> bool {
    matches!(error, RemoteError::Reply { code, .. } if offset > 0 && *code >= 500 && *code != 550)
}

const fn is_gone(error: &RemoteError) -> bool {
    matches!(error, RemoteError::Reply { code: 550, .. })
}

fn is_archive(path: &Path) -> bool {
    path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("zip"))
}

/// Returns the SHA-256 of a file as hexadecimal digits.
pub(crate) fn sha256(path: &Path) -> Result<String, StoreError> {
    let mut file = fs::File::open(path).map_err(StoreError::io("read", path))?;
    let mut hasher = Sha256::new();
    std::io::copy(&mut file, &mut HashWriter(&mut hasher)).map_err(StoreError::io("read", path))?;
    Ok(hex(&hasher.finalize()))
}

struct HashWriter<'a>(&'a mut Sha256);

impl std::io::Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Returns bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

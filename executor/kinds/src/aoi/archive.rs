//! Zip archives from outside: opened within limits, and never beyond the folder they are opened in.
//!
//! What an archive says about itself is not believed: bytes are counted as they come out. One bad entry makes the whole
//! archive bad, because half a report is worse than none.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Seek as _, SeekFrom, Write},
    path::{Path, PathBuf},
};

use encoding_rs::Encoding;
use thiserror::Error;
use zip::{ZipArchive, read::ZipFile, result::ZipError};

use super::{
    name::{self, NameError},
    plan::Unpack,
    store::{StoreError, make_dir},
};

/// Bytes that an archive may unpack to whatever its own size: a small text compresses a thousand times.
const RATIO_EXEMPT_BYTES: u64 = 16 << 20;
/// Bytes at the end of an archive that hold the end of its directory: 22, and a comment of up to 65,535.
const END_BYTES_MAX: u64 = 22 + 65_535;
/// Bytes read at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// Why an archive is put aside.
#[derive(Debug, Error)]
pub(crate) enum BrokenArchive {
    /// Not a zip archive, cut off, or a checksum does not match.
    #[error("it is damaged or no zip archive: {0}")]
    Damaged(#[source] ZipError),
    /// An entry cannot be read to its end.
    #[error("its entry {entry:?} is damaged: {source}")]
    Entry {
        /// The entry.
        entry: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// More entries than allowed.
    #[error("it has {count} entries, at most {max} are unpacked (unpack.entries_max)")]
    Entries {
        /// How many.
        count: usize,
        /// How many are allowed.
        max: usize,
    },
    /// Several entries of one name, or one within another.
    #[error("two of its entries have one name or share bytes")]
    Overlap,
    /// It unpacks to more bytes than allowed.
    #[error("it unpacks to more than {max} bytes (unpack.size_max)")]
    Size {
        /// Bytes that are allowed.
        max: u64,
    },
    /// It unpacks to many times its own size.
    #[error("it unpacks to more than {max} times its own size (unpack.ratio_max)")]
    Ratio {
        /// How many times are allowed.
        max: u64,
    },
    /// An entry's name is not one to write a file under.
    #[error("its entry {entry:?} is refused: {source}")]
    Name {
        /// The entry.
        entry: String,
        /// Why.
        #[source]
        source: NameRefusal,
    },
    /// An entry is a link.
    #[error("its entry {0:?} is a link")]
    Link(String),
    /// An entry is encrypted.
    #[error("its entry {0:?} is encrypted")]
    Encrypted(String),
    /// No report is in it.
    #[error("it holds no header.csv")]
    NoReport,
}

/// Why an entry's name is refused.
#[derive(Debug, Error)]
#[error(transparent)]
pub(crate) struct NameRefusal(#[from] NameError);

/// Why an archive was not unpacked.
#[derive(Debug, Error)]
pub(crate) enum ExtractError {
    /// The archive is to blame.
    #[error(transparent)]
    Broken(#[from] BrokenArchive),
    /// This machine is.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Checks the bytes of an archive, to the last checksum. Names are checked where files are written under them: here nobody
/// knows in which encoding they are.
pub(crate) fn verify(path: &Path, limits: &Unpack) -> Result<(), ExtractError> {
    walk(path, limits, encoding_rs::UTF_8, None).map(drop)
}

/// Unpacks an archive into a folder, which must be new, and returns the bytes that came out.
pub(crate) fn extract(
    path: &Path,
    limits: &Unpack,
    encoding: &'static Encoding,
    into: &Path,
) -> Result<u64, ExtractError> {
    make_dir(into)?;
    walk(path, limits, encoding, Some(into))
}

fn walk(
    path: &Path,
    limits: &Unpack,
    encoding: &'static Encoding,
    into: Option<&Path>,
) -> Result<u64, ExtractError> {
    let mut archive = open(path, limits)?;
    let packed = fs::metadata(path).map_err(StoreError::io("read", path))?.len();
    let mut budget = Budget { limits, packed, total: 0 };
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(BrokenArchive::Damaged)?;
        let name = entry_name(&entry, encoding);
        check_entry(&entry, &name)?;
        match into.map(|into| place_of(&name, into)).transpose()? {
            Some(place) if entry.is_dir() => make_dir(&place)?,
            Some(place) => write_entry(&mut entry, &name, &mut budget, &place)?,
            None => copy(&mut entry, &name, &mut budget, &mut io::sink(), Path::new("/"))?,
        }
    }
    Ok(budget.total)
}

/// Opens an archive. Its entries are counted before its directory is read: each takes some hundred bytes of memory.
fn open(path: &Path, limits: &Unpack) -> Result<ZipArchive<File>, ExtractError> {
    let mut file = File::open(path).map_err(StoreError::io("read", path))?;
    check_count(declared_count(&mut file).map_err(StoreError::io("read", path))?, limits)?;
    let mut archive = ZipArchive::new(file).map_err(BrokenArchive::Damaged)?;
    check_count(archive.len(), limits)?;
    let is_overlapping = archive.has_overlapping_entries().map_err(BrokenArchive::Damaged)?;
    if archive.has_duplicate_names() || is_overlapping {
        return Err(BrokenArchive::Overlap.into());
    }
    Ok(archive)
}

fn check_count(count: usize, limits: &Unpack) -> Result<(), BrokenArchive> {
    let max = limits.entries_max;
    if count > max { Err(BrokenArchive::Entries { count, max }) } else { Ok(()) }
}

/// Returns the largest number of entries that anything like an end of a directory declares in the last bytes of a file.
fn declared_count(file: &mut File) -> io::Result<usize> {
    let length = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(length.saturating_sub(END_BYTES_MAX)))?;
    let mut end = Vec::new();
    file.take(END_BYTES_MAX).read_to_end(&mut end)?;
    let counts = end.windows(12).filter(|window| window.starts_with(b"PK\x05\x06"));
    Ok(counts.map(|window| usize::from(u16::from_le_bytes([window[10], window[11]]))).max().unwrap_or(0))
}

/// Returns the name of an entry; one that is not UTF-8 is read in the encoding of the source.
fn entry_name(entry: &ZipFile<'_, File>, encoding: &'static Encoding) -> String {
    let bytes = entry.name_raw();
    std::str::from_utf8(bytes)
        .map_or_else(|_| encoding.decode_without_bom_handling(bytes).0.into_owned(), ToOwned::to_owned)
}

/// Returns where an entry goes below a folder. Only the components of a checked name are ever joined.
fn place_of(name: &str, into: &Path) -> Result<PathBuf, BrokenArchive> {
    let components = name::components(name)
        .map_err(|source| BrokenArchive::Name { entry: name.to_owned(), source: source.into() })?;
    Ok(components.iter().fold(into.to_owned(), |path, part| path.join(part)))
}

fn check_entry(entry: &ZipFile<'_, File>, name: &str) -> Result<(), BrokenArchive> {
    if entry.is_symlink() {
        return Err(BrokenArchive::Link(name.to_owned()));
    }
    if entry.encrypted() {
        return Err(BrokenArchive::Encrypted(name.to_owned()));
    }
    Ok(())
}

fn write_entry(
    entry: &mut ZipFile<'_, File>,
    name: &str,
    budget: &mut Budget<'_>,
    place: &Path,
) -> Result<(), ExtractError> {
    if let Some(folder) = place.parent() {
        make_dir(folder)?;
    }
    let mut file = match OpenOptions::new().create_new(true).write(true).open(place) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(BrokenArchive::Overlap.into());
        }
        other => other.map_err(StoreError::io("written", place))?,
    };
    copy(entry, name, budget, &mut file, place)?;
    file.sync_all().map_err(StoreError::io("made durable", place))?;
    Ok(())
}

/// What may still come out of an archive.
struct Budget<'a> {
    limits: &'a Unpack,
    packed: u64,
    total: u64,
}

impl Budget<'_> {
    fn spend(&mut self, bytes: usize) -> Result<(), BrokenArchive> {
        self.total += bytes as u64;
        if self.total > self.limits.size_max {
            return Err(BrokenArchive::Size { max: self.limits.size_max });
        }
        if self.total > RATIO_EXEMPT_BYTES && self.total / self.limits.ratio_max > self.packed {
            return Err(BrokenArchive::Ratio { max: self.limits.ratio_max });
        }
        Ok(())
    }
}

fn copy(
    entry: &mut impl Read,
    name: &str,
    budget: &mut Budget<'_>,
    to: &mut dyn Write,
    place: &Path,
) -> Result<(), ExtractError> {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = match entry.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(source) => return Err(BrokenArchive::Entry { entry: name.to_owned(), source }.into()),
        };
        budget.spend(count)?;
        to.write_all(&chunk[..count]).map_err(StoreError::io("written", place))?;
    }
}

/// Returns the folders below `root` that hold a report, that is a `header.csv`, in order.
pub(crate) fn report_folders(root: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut found = Vec::new();
    let mut open = vec![root.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).map_err(StoreError::io("read", &folder))? {
            let entry = entry.map_err(StoreError::io("read", &folder))?;
            let kind = entry.file_type().map_err(StoreError::io("read", &folder))?;
            if kind.is_dir() {
                open.push(entry.path());
            } else if kind.is_file() && entry.file_name().eq_ignore_ascii_case("header.csv") {
                found.push(folder.clone());
            }
        }
    }
    found.sort();
    found.dedup();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

    use super::*;

    const LIMITS: Unpack = Unpack { command: None, entries_max: 10, size_max: 64 << 20, ratio_max: 100 };

    struct Case {
        folder: tempfile::TempDir,
    }

    impl Case {
        fn new(entries: &[(&str, &[u8])]) -> Self {
            let case = Self { folder: tempfile::tempdir().unwrap() };
            let mut writer = ZipWriter::new(File::create(case.path()).unwrap());
            for (name, bytes) in entries {
                let options = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
                writer.start_file(*name, options).unwrap();
                writer.write_all(bytes).unwrap();
            }
            writer.finish().unwrap();
            case
        }

        fn path(&self) -> PathBuf {
            self.folder.path().join("a.zip")
        }

        fn extract(&self) -> Result<u64, String> {
            extract(&self.path(), &LIMITS, encoding_rs::GBK, &self.folder.path().join("out/in"))
                .map_err(|error| error.to_string())
        }
    }

    #[test]
    fn files_come_out_as_they_went_in() {
        let case = Case::new(&[("r (2)/header.csv", b"h"), ("r (2)/defectlist.csv", b"dd")]);
        assert_eq!(case.extract(), Ok(3));
        let out = case.folder.path().join("out/in");
        assert_eq!(fs::read(out.join("r (2)/defectlist.csv")).unwrap(), b"dd");
        assert_eq!(report_folders(&out).unwrap(), [out.join("r (2)")]);
        verify(&case.path(), &LIMITS).unwrap();
    }

    #[test]
    fn entries_that_lead_out_of_the_folder_are_refused() {
        for name in ["../evil", "r/../../evil", "/tmp/evil", "..\\evil", "C:\\evil"] {
            let case = Case::new(&[("header.csv", b"h"), (name, b"x")]);
            let error = case.extract().unwrap_err();
            assert!(error.contains("leads to another folder"), "{name}: {error}");
            assert!(
                !case.folder.path().join("evil").exists() && !case.folder.path().join("out/evil").exists()
            );
        }
    }

    #[test]
    fn links_are_refused() {
        let case = Case::new(&[]);
        let mut writer = ZipWriter::new(File::create(case.path()).unwrap());
        writer.add_symlink("link", "/etc/passwd", SimpleFileOptions::default()).unwrap();
        writer.finish().unwrap();
        assert!(case.extract().unwrap_err().contains("is a link"));
    }

    #[test]
    fn bombs_are_refused_by_what_comes_out() {
        let zeros = vec![0; 20 << 20];
        let ratio = Case::new(&[("a", &zeros)]).extract().unwrap_err();
        assert!(ratio.contains("100 times"), "{ratio}");
        let case = Case::new(&[("a", &zeros)]);
        let limits = Unpack { size_max: 1 << 20, ..LIMITS };
        assert!(verify(&case.path(), &limits).unwrap_err().to_string().contains("size_max"));
        let names: Vec<String> = (0..11).map(|number| format!("f{number}")).collect();
        let many: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
        assert!(Case::new(&many).extract().unwrap_err().contains("11 entries"));
    }

    #[test]
    fn damage_is_found_by_the_checksum() {
        let text: Vec<u8> = (0..50_000_u32).flat_map(u32::to_le_bytes).collect();
        let case = Case::new(&[("a", &text)]);
        let mut bytes = fs::read(case.path()).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x55;
        fs::write(case.path(), &bytes).unwrap();
        assert!(case.extract().unwrap_err().contains("damaged"));
        fs::write(case.path(), &bytes[..middle]).unwrap();
        assert!(verify(&case.path(), &LIMITS).unwrap_err().to_string().contains("no zip archive"));
        fs::write(case.path(), b"").unwrap();
        assert!(verify(&case.path(), &LIMITS).is_err());
    }

    #[test]
    fn bytes_are_checked_whatever_the_encoding_of_the_names() {
        let case = Case::new(&[("QQQQ/header.csv", b"h")]);
        let (name, bytes) = (encoding_rs::GBK.encode("气泡").0, fs::read(case.path()).unwrap());
        let mut renamed = bytes.clone();
        let places: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"QQQQ")).collect();
        for at in places {
            renamed[at..at + 4].copy_from_slice(&name);
        }
        fs::write(case.path(), renamed).unwrap();
        verify(&case.path(), &LIMITS).unwrap();
        assert_eq!(case.extract(), Ok(1));
        assert!(case.folder.path().join("out/in/气泡/header.csv").is_file());
    }

    #[test]
    fn a_file_in_the_place_of_a_folder_is_refused() {
        let case = Case::new(&[("a", b"file"), ("a/b", b"file in it")]);
        assert!(case.extract().is_err());
    }
}

//! A backup file while it is written: raw bytes in, a compressed, summed and verified file out.
//!
//! The file is `NAME.tmp` until it was flushed to the disk, read back from there and found equal in both sums; only then
//! can it be [published](Sealed::publish). One that is dropped before removes itself.
//!
//! Files are written between the awaits rather than on threads of their own: the process does nothing else.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use flate2::{bufread::GzDecoder, write::GzEncoder};
use millrace_common::kind::backup::Compression;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use sha2::{Digest as _, Sha256};

use super::{BackupError, space};

/// Bytes that are read from a program or a file at a time.
pub(super) const CHUNK_BYTES: usize = 256 << 10;

/// The window of zstd is this power of two of bytes, 16 MiB: repetitions in a dump are near, and who restores needs as much memory.
const ZSTD_WINDOW_LOG: u32 = 24;

/// A compression with its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Codec {
    /// Zstandard.
    Zstd { level: u32 },
    /// gzip.
    Gzip { level: u32 },
    /// None.
    Plain,
}

impl Codec {
    /// Returns the name of a file with this codec, without the codec's own part in front of it.
    pub(super) fn extension(self, of: &str) -> String {
        match self {
            Self::Zstd { .. } => format!("{of}.zst"),
            Self::Gzip { .. } => format!("{of}.gz"),
            Self::Plain => of.to_owned(),
        }
    }

    /// Returns the codec as the parameters call it.
    pub(super) const fn compression(self) -> Compression {
        match self {
            Self::Zstd { .. } => Compression::Zstd,
            Self::Gzip { .. } => Compression::Gzip,
            Self::Plain => Compression::None,
        }
    }
}

/// A number of bytes and their SHA-256.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) bytes: u64,
    pub(super) sha256: String,
}

#[derive(Default)]
struct Tally {
    hash: Sha256,
    bytes: u64,
}

impl Tally {
    fn add(&mut self, chunk: &[u8]) {
        self.hash.update(chunk);
        self.bytes += chunk.len() as u64;
    }

    fn sum(self) -> Sum {
        let digest = self.hash.finalize();
        Sum { bytes: self.bytes, sha256: digest.iter().map(|byte| format!("{byte:02x}")).collect() }
    }
}

/// A file that is removed unless it gets its final name.
#[derive(Debug)]
pub(super) struct Unfinished {
    path: PathBuf,
    is_named: bool,
}

impl Unfinished {
    /// Makes a new, empty file that only its owner reads. An existing one, or a link, is an error.
    pub(super) fn create(path: PathBuf) -> io::Result<(Self, File)> {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok((Self { path, is_named: false }, file))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Gives the file its final name, in the same folder.
    pub(super) fn rename(mut self, name: &Path) -> io::Result<()> {
        fs::rename(&self.path, name)?;
        self.is_named = true;
        Ok(())
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_named {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The compressed side: sums what goes to the file.
struct Output {
    file: File,
    tally: Tally,
}

impl Write for Output {
    fn write(&mut self, chunk: &[u8]) -> io::Result<usize> {
        let written = self.file.write(chunk)?;
        self.tally.add(chunk.get(..written).unwrap_or(chunk));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

enum Encoder {
    Zstd(zstd::Encoder<'static, Output>),
    Gzip(GzEncoder<Output>),
    Plain(Output),
}

impl Encoder {
    fn new(codec: Codec, output: Output) -> io::Result<Self> {
        Ok(match codec {
            Codec::Zstd { level } => {
                let mut encoder = zstd::Encoder::new(output, i32::try_from(level).unwrap_or(i32::MAX))?;
                encoder.include_checksum(true)?;
                encoder.long_distance_matching(true)?;
                encoder.window_log(ZSTD_WINDOW_LOG)?;
                Self::Zstd(encoder)
            }
            Codec::Gzip { level } => Self::Gzip(GzEncoder::new(output, flate2::Compression::new(level))),
            Codec::Plain => Self::Plain(output),
        })
    }

    fn write_all(&mut self, chunk: &[u8]) -> io::Result<()> {
        match self {
            Self::Zstd(encoder) => encoder.write_all(chunk),
            Self::Gzip(encoder) => encoder.write_all(chunk),
            Self::Plain(output) => output.write_all(chunk),
        }
    }

    fn output(&self) -> &Output {
        match self {
            Self::Zstd(encoder) => encoder.get_ref(),
            Self::Gzip(encoder) => encoder.get_ref(),
            Self::Plain(output) => output,
        }
    }

    fn finish(self) -> io::Result<Output> {
        match self {
            Self::Zstd(encoder) => encoder.finish(),
            Self::Gzip(encoder) => encoder.finish(),
            Self::Plain(output) => Ok(output),
        }
    }
}

/// A backup file that is being written.
pub(super) struct Archive {
    encoder: Encoder,
    raw: Tally,
    codec: Codec,
    unfinished: Unfinished,
    name: PathBuf,
}

impl Archive {
    /// Starts the file that will be `name`, in place of which `unfinished` stands.
    pub(super) fn new(
        codec: Codec,
        unfinished: Unfinished,
        file: File,
        name: PathBuf,
    ) -> Result<Self, BackupError> {
        match Encoder::new(codec, Output { file, tally: Tally::default() }) {
            Ok(encoder) => Ok(Self { encoder, raw: Tally::default(), codec, unfinished, name }),
            Err(error) => Err(space::write_failed(unfinished.path(), 0, error)),
        }
    }

    /// Adds raw bytes.
    pub(super) fn write(&mut self, chunk: &[u8]) -> Result<(), BackupError> {
        self.raw.add(chunk);
        self.encoder.write_all(chunk).map_err(|error| {
            let written = self.encoder.output().tally.bytes;
            space::write_failed(self.unfinished.path(), written, error)
        })
    }

    /// Completes the file on the disk and reads it back.
    pub(super) async fn seal(self) -> Result<Sealed, BackupError> {
        let Self { encoder, raw, codec, unfinished, name } = self;
        let written = encoder.output().tally.bytes;
        let failed = |error| space::write_failed(unfinished.path(), written, error);
        let output = encoder.finish().map_err(failed)?;
        output.file.sync_all().map_err(failed)?;
        // What stands in the page cache would always be equal: ask for what stands on the disk.
        let _ = posix_fadvise(&output.file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        let (raw, packed) = (raw.sum(), output.tally.sum());
        verify(codec, unfinished.path(), &raw, &packed).await?;
        Ok(Sealed { unfinished, name, raw, packed })
    }
}

/// A backup file that is complete, on the disk and verified; it lacks its name.
#[derive(Debug)]
pub(super) struct Sealed {
    unfinished: Unfinished,
    pub(super) name: PathBuf,
    /// The sum of what the tool wrote.
    pub(super) raw: Sum,
    /// The sum of the file.
    pub(super) packed: Sum,
}

impl Sealed {
    /// Gives the file its name.
    pub(super) fn publish(self) -> Result<(), BackupError> {
        let Self { unfinished, name, .. } = self;
        unfinished.rename(&name).map_err(|source| BackupError::Write { file: name, source })
    }
}

/// Reads a file back and compares its sum, and the sum of what it unpacks to.
async fn verify(codec: Codec, path: &Path, raw: &Sum, packed: &Sum) -> Result<(), BackupError> {
    let unreadable = |source| BackupError::Write { file: path.to_owned(), source };
    let unequal = |problem| BackupError::Unequal { file: path.to_owned(), problem };
    let file = File::open(path).map_err(unreadable)?;
    let mut decoder = Decoder::new(codec, file).map_err(unreadable)?;
    let found = drain(&mut decoder).await.map_err(unreadable)?;
    if found != *raw {
        return Err(unequal("what it unpacks to has another length or sum"));
    }
    let mut input = decoder.into_input();
    // Nothing may follow what the decoder took.
    io::copy(&mut input, &mut io::sink()).map_err(unreadable)?;
    if input.into_inner().tally.sum() != *packed {
        return Err(unequal("its length or sum differs"));
    }
    Ok(())
}

async fn drain(decoder: &mut Decoder) -> io::Result<Sum> {
    let mut tally = Tally::default();
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let length = decoder.read(&mut chunk)?;
        if length == 0 {
            return Ok(tally.sum());
        }
        tally.add(chunk.get(..length).unwrap_or_default());
        // A signal to end is seen between two chunks.
        tokio::task::yield_now().await;
    }
}

/// The file as it is read back: sums what comes from it.
struct Input {
    file: File,
    tally: Tally,
}

impl Read for Input {
    fn read(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
        let length = self.file.read(chunk)?;
        self.tally.add(chunk.get(..length).unwrap_or_default());
        Ok(length)
    }
}

enum Decoder {
    Zstd(zstd::Decoder<'static, io::BufReader<Input>>),
    Gzip(Box<GzDecoder<io::BufReader<Input>>>),
    Plain(io::BufReader<Input>),
}

impl Decoder {
    fn new(codec: Codec, file: File) -> io::Result<Self> {
        let input = io::BufReader::with_capacity(CHUNK_BYTES, Input { file, tally: Tally::default() });
        Ok(match codec {
            Codec::Zstd { .. } => Self::Zstd(zstd::Decoder::with_buffer(input)?),
            Codec::Gzip { .. } => Self::Gzip(Box::new(GzDecoder::new(input))),
            Codec::Plain => Self::Plain(input),
        })
    }

    fn read(&mut self, chunk: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Zstd(decoder) => decoder.read(chunk),
            Self::Gzip(decoder) => decoder.read(chunk),
            Self::Plain(input) => input.read(chunk),
        }
    }

    fn into_input(self) -> io::BufReader<Input> {
        match self {
            Self::Zstd(decoder) => decoder.finish(),
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Plain(input) => input,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const CODECS: [Codec; 3] = [Codec::Zstd { level: 3 }, Codec::Gzip { level: 6 }, Codec::Plain];

    fn archive(folder: &Path, codec: Codec) -> Archive {
        let (unfinished, file) = Unfinished::create(folder.join("a.tmp")).expect("created");
        Archive::new(codec, unfinished, file, folder.join("a")).expect("an archive")
    }

    fn text() -> Vec<u8> {
        (0..20_000_u32)
            .flat_map(|number| format!("({number},'row {}'),\n", number % 97).into_bytes())
            .collect()
    }

    #[tokio::test]
    async fn a_published_file_unpacks_to_what_was_written() {
        for codec in CODECS {
            let folder = tempfile::tempdir().expect("a folder");
            let mut archive = archive(folder.path(), codec);
            let text = text();
            for chunk in text.chunks(99_999) {
                archive.write(chunk).expect("written");
            }
            let sealed = archive.seal().await.expect("sealed");
            assert!(!folder.path().join("a").exists(), "{codec:?}: it has its name too early");
            assert_eq!(sealed.raw.bytes, text.len() as u64);
            let packed = sealed.packed.clone();
            sealed.publish().expect("published");
            let bytes = fs::read(folder.path().join("a")).expect("the file");
            assert_eq!(bytes.len() as u64, packed.bytes);
            let unpacked = match codec {
                Codec::Zstd { .. } => zstd::decode_all(bytes.as_slice()).expect("zstd"),
                Codec::Gzip { .. } => {
                    let mut out = Vec::new();
                    flate2::read::GzDecoder::new(bytes.as_slice()).read_to_end(&mut out).expect("gzip");
                    out
                }
                Codec::Plain => bytes,
            };
            assert!(unpacked == text, "{codec:?}");
            let mode = fs::metadata(folder.path().join("a")).expect("the file").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 1);
        }
    }

    #[tokio::test]
    async fn a_file_that_changed_on_the_disk_is_noticed() {
        for codec in CODECS {
            let folder = tempfile::tempdir().expect("a folder");
            let mut archive = archive(folder.path(), codec);
            archive.write(&text()).expect("written");
            let Archive { encoder, raw, unfinished, .. } = archive;
            let output = encoder.finish().expect("finished");
            let (raw, packed) = (raw.sum(), output.tally.sum());
            verify(codec, unfinished.path(), &raw, &packed).await.expect("equal as it is");
            let good = fs::read(unfinished.path()).expect("the file");
            let mut flipped = good.clone();
            flipped[good.len() / 2] ^= 1;
            for bad in [&flipped[..], &good[..good.len() - 1], &[&good[..], b"more"].concat()[..], b""] {
                fs::write(unfinished.path(), bad).expect("spoilt");
                assert!(verify(codec, unfinished.path(), &raw, &packed).await.is_err(), "{codec:?}");
            }
        }
    }

    #[tokio::test]
    async fn nothing_is_sealed_that_does_not_read_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut archive = archive(folder.path(), Codec::Plain);
        archive.write(&text()).expect("written");
        // Somebody writes into the file; its length stays.
        let mut spoiler = OpenOptions::new().write(true).open(folder.path().join("a.tmp")).expect("opened");
        spoiler.write_all(b"x").expect("spoilt");
        let error = archive.seal().await.expect_err("not sealed");
        assert!(matches!(error, BackupError::Unequal { .. }), "{error}");
        assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 0);
    }

    #[test]
    fn a_file_that_is_dropped_is_gone() {
        let folder = tempfile::tempdir().expect("a folder");
        drop(archive(folder.path(), Codec::Plain));
        assert_eq!(fs::read_dir(folder.path()).expect("the folder").count(), 0);
    }

    #[test]
    fn a_planted_link_is_not_followed() {
        let folder = tempfile::tempdir().expect("a folder");
        let victim = folder.path().join("victim");
        fs::write(&victim, "precious").expect("written");
        std::os::unix::fs::symlink(&victim, folder.path().join("a.tmp")).expect("a link");
        assert!(Unfinished::create(folder.path().join("a.tmp")).is_err());
        assert_eq!(fs::read_to_string(&victim).expect("the file"), "precious");
    }
}

//! The output of one attempt on its way to the leader.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
    path::PathBuf,
};

use bytes::Bytes;
use millrace_common::secret::Secret;

use super::mask::Mask;

/// Bytes of output that are kept of an attempt: a night of a talkative transfer is under a tenth of it.
pub const OUTPUT_BYTES_MAX: u64 = 256 << 20;
/// Bytes by which a log may be longer for a moment before it is cut.
const CUT_SLACK_BYTES: u64 = 16 << 20;
/// What stands in place of the rest.
const MARKER: &[u8] = b"\n[millrace: the output is longer than 256 MiB; the rest is left out]\n";
/// Bytes of one message.
const CHUNK_BYTES: usize = 64 << 10;

/// Returns the length of the output that is shipped for a log of `file_bytes`.
pub(crate) const fn shown_bytes(file_bytes: u64) -> u64 {
    if file_bytes < OUTPUT_BYTES_MAX { file_bytes } else { OUTPUT_BYTES_MAX + MARKER.len() as u64 }
}

/// A piece of output.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) bytes: Bytes,
    pub(super) is_last: bool,
}

/// Where the content is.
pub(super) enum Content {
    /// The attempt lives and may write more.
    Growing(File),
    /// The attempt has ended; its log waits in the output folder.
    Whole(PathBuf),
}

/// How far a log is shipped.
pub(super) struct Log {
    content: Content,
    mask: Mask,
    /// Bytes that are there, as far as is known.
    known: u64,
    sent: u64,
    kept: u64,
    is_last_sent: bool,
    /// Whether it is to be asked how much is kept: another leader has none of what the one before has.
    asks: bool,
}

impl Log {
    pub(super) fn growing<'s>(file: File, secrets: impl IntoIterator<Item = &'s Secret>) -> Self {
        let content = Content::Growing(file);
        Self {
            content,
            mask: Mask::new(secrets),
            known: 0,
            sent: 0,
            kept: 0,
            is_last_sent: false,
            asks: false,
        }
    }

    /// Makes the log of an attempt that has ended with `bytes` of output.
    pub(super) fn whole<'s>(
        path: PathBuf,
        bytes: u64,
        secrets: impl IntoIterator<Item = &'s Secret>,
    ) -> Self {
        let content = Content::Whole(path);
        Self {
            content,
            mask: Mask::new(secrets),
            known: bytes,
            sent: 0,
            kept: 0,
            is_last_sent: false,
            asks: false,
        }
    }

    /// Notes that the attempt has ended.
    pub(super) fn end(&mut self, path: PathBuf, bytes: u64) {
        self.content = Content::Whole(path);
        self.known = bytes;
    }

    pub(super) const fn is_growing(&self) -> bool {
        matches!(self.content, Content::Growing(_))
    }

    /// Looks whether there is more, and cuts what is far too long.
    pub(super) fn look(&mut self) -> io::Result<()> {
        if let Content::Growing(file) = &self.content {
            let length = file.metadata()?.len();
            if length > OUTPUT_BYTES_MAX + CUT_SLACK_BYTES {
                // Processes append, so the next byte goes to the new end.
                file.set_len(OUTPUT_BYTES_MAX)?;
            }
            self.known = self.known.max(shown_bytes(length));
        }
        Ok(())
    }

    /// Tells whether there is something to send now.
    pub(super) const fn has_more(&self) -> bool {
        self.asks || self.sent < self.known || (!self.is_growing() && !self.is_last_sent)
    }

    /// Takes the next piece; `None` where it must wait for what comes after it.
    pub(super) fn next_piece(&mut self) -> io::Result<Option<Piece>> {
        if std::mem::take(&mut self.asks) {
            return Ok(Some(Piece { offset: self.sent, bytes: Bytes::new(), is_last: false }));
        }
        let bytes = if self.sent < OUTPUT_BYTES_MAX { self.read()? } else { self.marker() };
        let offset = self.sent;
        self.sent += bytes.len() as u64;
        let is_last = !self.is_growing() && self.sent >= self.known;
        if bytes.is_empty() && !is_last {
            // All that is there may be the beginning of a secret; look again when there is more.
            self.known = self.sent;
            return Ok(None);
        }
        self.is_last_sent = is_last;
        Ok(Some(Piece { offset, bytes, is_last }))
    }

    /// Reads the next piece from the file and hides secrets in it.
    fn read(&mut self) -> io::Result<Bytes> {
        let from = self.sent.saturating_sub(self.mask.lookback());
        let to = self.known.min(OUTPUT_BYTES_MAX).min(self.sent + CHUNK_BYTES as u64);
        let before = usize::try_from(self.sent - from).unwrap_or(0);
        let mut bytes = vec![0; usize::try_from(to.saturating_sub(from)).unwrap_or(0)];
        let length = match &self.content {
            Content::Growing(file) => read_full(file, &mut bytes, from)?,
            Content::Whole(path) => read_full(&File::open(path)?, &mut bytes, from)?,
        };
        bytes.truncate(length);
        let is_end = to >= self.known.min(OUTPUT_BYTES_MAX);
        if length < usize::try_from(to.saturating_sub(from)).unwrap_or(0) {
            // Somebody cut the file: what is gone is not waited for.
            self.known = self.known.min(from + length as u64);
        }
        let undecided = if is_end && !self.is_growing() { 0 } else { self.mask.undecided(&bytes) };
        self.mask.apply(&mut bytes);
        bytes.truncate((bytes.len() - undecided).max(before));
        Ok(Bytes::from(bytes).slice(before.min(length)..))
    }

    fn marker(&self) -> Bytes {
        let from = usize::try_from(self.sent - OUTPUT_BYTES_MAX).unwrap_or(MARKER.len()).min(MARKER.len());
        if self.known > OUTPUT_BYTES_MAX { Bytes::from_static(&MARKER[from..]) } else { Bytes::new() }
    }

    /// Notes how much the leader keeps, after a piece that ended at `end` was answered.
    pub(super) fn on_kept(&mut self, end: u64, offset: u64) {
        self.kept = offset.min(self.known);
        // It has more than we sent, from an earlier life, or it lacks something before the piece.
        if offset > self.sent || offset < end {
            self.sent = self.kept;
            self.is_last_sent = false;
        }
    }

    /// Goes back to what the leader keeps, for a new connection.
    ///
    /// Who is at its other end may be another leader. An attempt that has ended tells by its last piece; one that lives
    /// and is silent would tell nothing, so it asks.
    pub(super) const fn rewind(&mut self) {
        self.sent = self.kept;
        self.is_last_sent = false;
        self.asks = self.kept > 0 && self.is_growing();
    }

    /// Removes the file of an ended attempt.
    pub(super) fn remove(self) {
        if let Content::Whole(path) = self.content
            && let Err(error) = fs::remove_file(&path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, path = %path.display(), "shipped output could not be removed");
        }
    }
}

fn read_full(file: &File, bytes: &mut [u8], from: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < bytes.len() {
        match file.read_at(&mut bytes[length..], from + length as u64)? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn secret() -> Vec<Secret> {
        vec![Secret::new("hunter22".to_owned())]
    }

    #[test]
    fn a_secret_across_pieces_of_a_growing_log_is_hidden() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let file = File::options().create(true).append(true).read(true).open(&path).unwrap();
        let mut log = Log::growing(file.try_clone().unwrap(), &secret());
        (&file).write_all(b"password: hunt").unwrap();
        log.look().unwrap();
        let first = log.next_piece().unwrap().unwrap();
        assert_eq!(first.bytes, "password: ");
        assert!(!log.has_more() || log.next_piece().unwrap().is_none());
        (&file).write_all(b"er22 end\nhun").unwrap();
        log.look().unwrap();
        assert_eq!(log.next_piece().unwrap().unwrap().bytes, "******** end\n");
        log.end(path, 26);
        let last = log.next_piece().unwrap().unwrap();
        assert_eq!(last, Piece { offset: 23, bytes: "hun".into(), is_last: true });
        assert!(!log.has_more());
    }

    #[test]
    fn shipping_goes_on_where_the_leader_says() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "0123456789").unwrap();
        let mut log = Log::whole(path.clone(), 10, &[]);
        let piece = log.next_piece().unwrap().unwrap();
        assert_eq!((piece.offset, piece.bytes.len(), piece.is_last), (0, 10, true));
        log.on_kept(10, 4);
        assert_eq!(log.next_piece().unwrap().unwrap().bytes, "456789");
        log.on_kept(10, 10);
        assert!(!log.has_more());
        log.rewind();
        assert_eq!(log.next_piece().unwrap(), Some(Piece { offset: 10, bytes: Bytes::new(), is_last: true }));
        log.remove();
        assert!(!path.exists());
    }

    #[test]
    fn another_leader_gets_the_whole_log_of_an_attempt_that_is_silent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let file = File::options().create(true).append(true).read(true).open(&path).unwrap();
        (&file).write_all(b"0123456789").unwrap();
        let mut log = Log::growing(file, &[]);
        log.look().unwrap();
        assert_eq!(log.next_piece().unwrap().unwrap().bytes, "0123456789");
        log.on_kept(10, 10);
        assert!(!log.has_more());
        // The same leader over a new connection has it all, another one has nothing.
        for (kept, missing) in [(10, false), (0, true)] {
            log.rewind();
            assert!(log.has_more());
            let question = log.next_piece().unwrap().unwrap();
            assert_eq!(question, Piece { offset: 10, bytes: Bytes::new(), is_last: false });
            log.on_kept(10, kept);
            assert_eq!(log.has_more(), missing);
        }
        assert_eq!(
            log.next_piece().unwrap().unwrap(),
            Piece { offset: 0, bytes: "0123456789".into(), is_last: false }
        );
    }

    #[test]
    fn a_log_that_is_too_long_is_cut_and_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let file = File::options().create(true).append(true).read(true).open(&path).unwrap();
        file.set_len(OUTPUT_BYTES_MAX + CUT_SLACK_BYTES + 1).unwrap();
        let mut log = Log::growing(file.try_clone().unwrap(), &[]);
        log.look().unwrap();
        assert_eq!(file.metadata().unwrap().len(), OUTPUT_BYTES_MAX);
        log.end(path, shown_bytes(OUTPUT_BYTES_MAX));
        log.on_kept(0, OUTPUT_BYTES_MAX);
        let piece = log.next_piece().unwrap().unwrap();
        assert_eq!((piece.offset, &piece.bytes[..], piece.is_last), (OUTPUT_BYTES_MAX, MARKER, true));
    }
}

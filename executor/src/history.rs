//! What this executor has done, kept for those who look whether it was right: the spool forgets what is settled.
//!
//! Owns the folder `history/` of the data folder: files of JSON lines, one line for each fact of the spool, the oldest file
//! deleted where all of them are too large together or too old. The spool's thread writes a line after the fact itself is
//! in the journal. It is evidence and nothing rests on it: nobody waits for it to be on the disk, a full disk costs lines
//! and never an attempt, and a line that is not there says nothing.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use millrace_common::{
    id::{AttemptId, SpoolId},
    state::AttemptState,
    term::Term,
    time::{Clock as _, Timestamp},
};
use millrace_runtime::SystemClock;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ledger::Record;

/// Files that all of it is cut into.
const FILES: u64 = 16;
/// Bytes of the smallest file, whatever is set.
const FILE_BYTES_MIN: u64 = 64 << 10;
/// Entries of one page.
const PAGE_ENTRIES_MAX: usize = 4_096;
/// Lines that one page looks at, those that are not in its range included.
const PAGE_LINES_MAX: usize = 16_384;

/// How much is kept.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    /// Bytes of all files together.
    pub size: u64,
    /// How long a file is kept after its last line.
    pub time: Duration,
}

/// A line of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// When, by the clock of this machine.
    pub at: Timestamp,
    /// What was done.
    #[serde(flatten)]
    pub what: What,
}

/// Something that this executor did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It works with this spool and so many slots: said at the start of the program and at the head of each file.
    Opened {
        /// The spool.
        spool: SpoolId,
        /// The slots.
        slots: u32,
        /// Whether the program has just started, or could not write for a while: what was under way then may have no end here.
        is_start: bool,
    },
    /// It obeyed a leader of this term, higher than all before.
    TermObeyed(Term),
    /// It took an attempt.
    Accepted(AttemptId),
    /// It started the process of one.
    Spawned(AttemptId),
    /// One ended.
    Ended {
        /// Which.
        attempt: AttemptId,
        /// A final state.
        state: AttemptState,
        /// The exit code, where a process ended with one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        exit_code: Option<i32>,
    },
    /// A leader said that the end of one is committed.
    Released(AttemptId),
}

impl Entry {
    /// Returns what a fact of the spool says; absent where it says nothing of what was done.
    fn of(record: &Record, now: Timestamp) -> Option<Self> {
        let (at, what) = match record {
            Record::TermSeen(term) => (now, What::TermObeyed(*term)),
            Record::Intended { attempt, at } => (*at, What::Accepted(*attempt)),
            Record::Spawned { attempt, at, .. } => (*at, What::Spawned(*attempt)),
            Record::Ended { attempt, end } => {
                let (state, exit_code) = (end.state, end.exit_code);
                (end.ended_at, What::Ended { attempt: *attempt, state, exit_code })
            }
            Record::Released(attempt) => (now, What::Released(*attempt)),
            Record::Attested | Record::Counted(_) => return None,
        };
        Some(Self { at, what })
    }
}

/// The files, to be written to. Owned by the spool's thread.
#[derive(Debug)]
pub struct History {
    folder: PathBuf,
    keep: Keep,
    spool: SpoolId,
    slots: u32,
    number: u64,
    file: File,
    bytes: u64,
    buffer: Vec<u8>,
    is_troubled: bool,
}

impl History {
    /// Goes on with the history of a data folder, and says that the program has started.
    ///
    /// # Errors
    /// Where the folder cannot be used.
    pub fn open(data_dir: &Path, keep: Keep, spool: SpoolId, slots: u32) -> io::Result<Self> {
        let folder = folder(data_dir);
        fs::create_dir_all(&folder)?;
        let number = numbers(&folder)?.last().copied().unwrap_or(1);
        let mut file = begin(&folder, number)?;
        if is_torn(&file)? {
            file.write_all(b"\n")?;
        }
        let mut history = Self {
            bytes: file.metadata()?.len(),
            file,
            folder,
            keep,
            spool,
            slots,
            number,
            buffer: Vec::new(),
            is_troubled: false,
        };
        history.drop_old();
        let start = history.head_entry(true);
        history.write([start].iter());
        Ok(history)
    }

    /// Writes down what the spool has taken in.
    pub(crate) fn note<'r>(&mut self, records: impl Iterator<Item = &'r Record>) {
        let now = SystemClock.now().wall;
        let entries: Vec<Entry> = records.filter_map(|record| Entry::of(record, now)).collect();
        self.write(entries.iter());
    }

    fn write<'e>(&mut self, entries: impl Iterator<Item = &'e Entry>) {
        let written = self.append(entries);
        match written {
            Ok(()) => self.is_troubled = false,
            Err(error) if !self.is_troubled => {
                self.is_troubled = true;
                tracing::warn!(%error, "what was done cannot be written down for `masterctl verify`; attempts go on");
            }
            Err(_) => {}
        }
    }

    fn append<'e>(&mut self, entries: impl Iterator<Item = &'e Entry>) -> io::Result<()> {
        self.buffer.clear();
        let gap = self.is_troubled.then(|| self.head_entry(true));
        for entry in entries {
            if let (true, Some(gap)) = (self.buffer.is_empty(), &gap) {
                push_line(&mut self.buffer, gap)?;
            }
            push_line(&mut self.buffer, entry)?;
        }
        if self.buffer.is_empty() {
            return Ok(());
        }
        if self.bytes > 0 && self.bytes + self.buffer.len() as u64 > self.file_bytes_max() {
            self.begin_next()?;
        }
        self.file.write_all(&self.buffer)?;
        self.bytes += self.buffer.len() as u64;
        Ok(())
    }

    /// Begins the next file; it says for itself which spool and slots it is about.
    fn begin_next(&mut self) -> io::Result<()> {
        self.file = begin(&self.folder, self.number + 1)?;
        self.number += 1;
        let mut line = Vec::new();
        push_line(&mut line, &self.head_entry(false))?;
        self.file.write_all(&line)?;
        self.bytes = line.len() as u64;
        self.drop_old();
        Ok(())
    }

    fn head_entry(&self, is_start: bool) -> Entry {
        let what = What::Opened { spool: self.spool, slots: self.slots, is_start };
        Entry { at: SystemClock.now().wall, what }
    }

    fn file_bytes_max(&self) -> u64 {
        (self.keep.size / FILES).max(FILE_BYTES_MIN)
    }

    /// Deletes what is too old, and the oldest files where all are too large together.
    fn drop_old(&self) {
        let Ok(numbers) = numbers(&self.folder) else { return };
        let now = SystemTime::UNIX_EPOCH
            + Duration::from_micros(u64::try_from(SystemClock.now().wall.as_micros()).unwrap_or(0));
        let mut room = self.keep.size.saturating_sub(self.file_bytes_max());
        for number in numbers.into_iter().rev().filter(|number| *number != self.number) {
            let path = path_of(&self.folder, number);
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let age = metadata.modified().ok().and_then(|at| now.duration_since(at).ok()).unwrap_or_default();
            let fits = metadata.len() <= room && age <= self.keep.time;
            room = if fits { room - metadata.len() } else { 0 };
            if !fits && let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "an old file of the history cannot be deleted");
            }
        }
    }
}

/// Why a page cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It is none that this program has handed out.
    #[error("{0:?} is not a page of the history")]
    Token(String),
    /// The files cannot be read.
    #[error("the files of the history cannot be read")]
    Io(#[from] io::Error),
}

/// A part of the history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// In the order in which they were written.
    pub entries: Vec<Entry>,
    /// What to ask for next; absent on the last page.
    pub next: Option<String>,
    /// When the oldest entry that is kept was written.
    pub begins_at: Timestamp,
    /// Whether nothing was ever deleted.
    pub is_whole: bool,
}

/// Reads entries from `since` to `until`, and those before them in the same file: they say which spool it is about.
///
/// # Errors
/// Where the files cannot be read, or `page` is none.
pub fn read(data_dir: &Path, since: Timestamp, until: Timestamp, page: &str) -> Result<Page, ReadError> {
    let folder = folder(data_dir);
    let numbers = numbers(&folder)?;
    let oldest = numbers.first().copied().unwrap_or(1);
    let begins_at = first_entry(&folder, oldest).map_or(Timestamp::default(), |entry| entry.at);
    let (mut number, mut offset) = match page {
        "" => (first_file(&folder, &numbers, since).unwrap_or(oldest), 0),
        page => place(page).ok_or_else(|| ReadError::Token(page.to_owned()))?,
    };
    let mut found = Page { entries: Vec::new(), next: None, begins_at, is_whole: oldest == 1 };
    let mut lines = 0;
    loop {
        // A file that was deleted meanwhile has nothing to say.
        let end = match File::open(path_of(&folder, number)) {
            Ok(file) => read_file(file, offset, until, &mut found.entries, &mut lines)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error.into()),
        };
        if let Some(end) = end {
            found.next = Some(format!("{number}:{end}"));
            return Ok(found);
        }
        let Some(next) = numbers.iter().copied().find(|next| *next > number) else { return Ok(found) };
        (number, offset) = (next, 0);
    }
}

/// Reads entries of a file; returns where to go on, where there may be more than fits the page.
fn read_file(
    mut file: File,
    offset: u64,
    until: Timestamp,
    entries: &mut Vec<Entry>,
    lines: &mut usize,
) -> io::Result<Option<u64>> {
    file.seek(SeekFrom::Start(offset))?;
    let mut reader = BufReader::new(file);
    let (mut at, mut line) = (offset, Vec::new());
    loop {
        if entries.len() >= PAGE_ENTRIES_MAX || *lines >= PAGE_LINES_MAX {
            return Ok(Some(at));
        }
        line.clear();
        let bytes = reader.read_until(b'\n', &mut line)?;
        // The last line may be on its way, or was torn when the machine went down.
        if bytes == 0 || line.last() != Some(&b'\n') {
            return Ok(None);
        }
        at += bytes as u64;
        *lines += 1;
        if let Ok(entry) = serde_json::from_slice::<Entry>(&line)
            && (entry.at <= until || matches!(entry.what, What::Opened { .. }))
        {
            entries.push(entry);
        }
    }
}

/// Returns the last file that begins before `since`: later entries may be in it.
fn first_file(folder: &Path, numbers: &[u64], since: Timestamp) -> Option<u64> {
    let begins_before = |number: &u64| first_entry(folder, *number).is_some_and(|entry| entry.at <= since);
    numbers.iter().copied().rev().find(|number| begins_before(number))
}

fn first_entry(folder: &Path, number: u64) -> Option<Entry> {
    let mut line = String::new();
    BufReader::new(File::open(path_of(folder, number)).ok()?).read_line(&mut line).ok()?;
    serde_json::from_str(&line).ok()
}

fn push_line(buffer: &mut Vec<u8>, entry: &Entry) -> io::Result<()> {
    serde_json::to_writer(&mut *buffer, entry)?;
    buffer.push(b'\n');
    Ok(())
}

fn place(page: &str) -> Option<(u64, u64)> {
    let (number, offset) = page.split_once(':')?;
    Some((number.parse().ok()?, offset.parse().ok()?))
}

fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("history")
}

fn path_of(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:010}.jsonl"))
}

fn begin(folder: &Path, number: u64) -> io::Result<File> {
    OpenOptions::new().create(true).read(true).append(true).open(path_of(folder, number))
}

/// Tells whether the last line of a file has no end.
fn is_torn(mut file: &File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    let mut last = [0];
    file.seek(SeekFrom::End(-1))?;
    file.read_exact(&mut last)?;
    Ok(last != [b'\n'])
}

/// Returns the numbers of the files that there are, oldest first.
fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for file in fs::read_dir(folder)? {
        let name = file?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(".jsonl"));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

#[cfg(test)]
mod tests;

//! The output of attempts: files here, shipped to the leader by offset.
//!
//! Processes write to files, so neither a slow leader nor a restart of this program can block or break them. A task of its
//! own, over a connection of its own, reads what is new, hides secrets and ships it; what the leader keeps is removed. No
//! state of an attempt depends on its output: where the disk is full, output gives way to results.

mod log;
mod mask;
mod shipper;

use std::{
    collections::HashMap,
    fmt,
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use millrace_common::{id::AttemptId, secret::Secret};
use tokio::sync::Notify;

pub use self::log::OUTPUT_BYTES_MAX;
pub(crate) use self::{
    log::shown_bytes,
    shipper::{Shipper, ShipperSettings},
};

/// Returns text without secrets; what is no text is shown as such.
pub(crate) fn masked(text: &[u8], secrets: &[Secret]) -> String {
    let mut bytes = text.to_vec();
    mask::Mask::new(secrets).apply(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The output of a living attempt.
pub struct Source {
    attempt: AttemptId,
    path: PathBuf,
    secrets: Vec<Secret>,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("attempt", &self.attempt).finish_non_exhaustive()
    }
}

impl Source {
    /// Makes the source of an attempt whose process appends to the file at `path` for as long as it lives.
    pub(crate) const fn new(attempt: AttemptId, path: PathBuf, secrets: Vec<Secret>) -> Self {
        Self { attempt, path, secrets }
    }
}

/// Where the rest of the program leaves word for the task that ships output.
///
/// A table instead of a queue: most attempts are short and silent, and for those the task is not even woken.
#[derive(Debug, Default)]
pub(crate) struct Output {
    notes: Mutex<Notes>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Notes {
    growing: HashMap<AttemptId, Source>,
    /// Attempts that ended with output, its length and, where the task did not know them yet, their secrets.
    ended: Vec<(AttemptId, u64, Vec<Secret>)>,
    discarded: Vec<AttemptId>,
    is_disk_full: bool,
}

impl Output {
    /// Notes that an attempt may write from now on.
    pub(crate) fn open(&self, source: Source) {
        let mut notes = self.notes();
        let was_empty = notes.growing.is_empty();
        notes.growing.insert(source.attempt, source);
        drop(notes);
        if was_empty {
            self.wake.notify_one();
        }
    }

    /// Notes that an attempt has ended with this many bytes. Its file must be where ended ones wait, or gone.
    pub(crate) fn end(&self, attempt: AttemptId, bytes: u64) {
        let mut notes = self.notes();
        let secrets = notes.growing.remove(&attempt).map(|source| source.secrets).unwrap_or_default();
        if bytes > 0 {
            notes.ended.push((attempt, bytes, secrets));
            drop(notes);
            self.wake.notify_one();
        }
    }

    /// Notes that nobody will read the output of an attempt.
    pub(crate) fn discard(&self, attempt: AttemptId) {
        self.notes().discarded.push(attempt);
        self.wake.notify_one();
    }

    /// Has output give way to results.
    pub(crate) fn give_way(&self) {
        self.notes().is_disk_full = true;
        self.wake.notify_one();
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

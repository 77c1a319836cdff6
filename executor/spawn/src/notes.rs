//! Where children note what failed before their program was loaded.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{Failure, Step};

/// Children at once; more have to share a note, and then a failure may be told of the wrong one of two.
const NOTES: usize = 8_192;
/// Where the step stands in a note, above the number of the error.
const STEP_SHIFT: u32 = 32;

/// The place of a child's note.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Note(usize);

/// The notes. Children that have not loaded their program yet write to them.
#[derive(Debug)]
pub(crate) struct Notes {
    words: Box<[AtomicU64]>,
    free: Vec<usize>,
    used: usize,
}

impl Notes {
    pub(crate) fn new() -> Self {
        Self { words: (0..NOTES).map(|_| AtomicU64::new(0)).collect(), free: Vec::new(), used: 0 }
    }

    /// Returns the note of the next child, and where it is.
    pub(crate) fn next(&self) -> (Note, *const AtomicU64) {
        let index = self.free.last().copied().unwrap_or(self.used % NOTES);
        (Note(index), self.words.get(index).map_or(std::ptr::null(), std::ptr::from_ref))
    }

    /// Takes the note that [`next`](Self::next) returned.
    pub(crate) fn take(&mut self) {
        if self.free.pop().is_none() {
            self.used += 1;
        }
    }

    /// Returns what a child that has ended noted, and gives its place to another.
    pub(crate) fn read(&mut self, note: Note) -> Option<Failure> {
        self.free.push(note.0);
        let word = self.words.get(note.0)?.swap(0, Ordering::AcqRel);
        let step = match word >> STEP_SHIFT {
            0 => return None,
            2 => Step::Folder,
            3 => Step::Load,
            _ => Step::Create,
        };
        let errno = i32::try_from(word & u64::from(u32::MAX)).unwrap_or(libc::EIO);
        Some(Failure { step, source: io::Error::from_raw_os_error(errno) })
    }
}

/// Notes a failure; called by the child.
pub(crate) fn write(note: &AtomicU64, step: Step, errno: i32) {
    let step: u64 = match step {
        Step::Create => 1,
        Step::Folder => 2,
        Step::Load => 3,
    };
    note.store(step << STEP_SHIFT | u64::from(errno.unsigned_abs()), Ordering::Release);
}

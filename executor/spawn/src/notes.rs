//! The memory that children share with their parent, to note what failed before their program was loaded.

use std::{
    io, ptr, slice,
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

/// The notes; unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Notes {
    words: *mut AtomicU64,
    free: Vec<usize>,
    used: usize,
}

impl Notes {
    pub(crate) fn new() -> io::Result<Self> {
        let (protection, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at a place of the kernel's choice touches no memory of ours.
        let place =
            unsafe { libc::mmap(ptr::null_mut(), NOTES * size_of::<AtomicU64>(), protection, flags, -1, 0) };
        if place == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { words: place.cast(), free: Vec::new(), used: 0 })
    }

    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, zeroed by the kernel, that large, and lives as long as `self`; atomics may be
        // changed by another process meanwhile.
        unsafe { slice::from_raw_parts(self.words, NOTES) }
    }

    /// Returns the note of the next child.
    pub(crate) fn next(&self) -> Note {
        Note(self.free.last().copied().unwrap_or(self.used % NOTES))
    }

    /// Takes the note that [`next`](Self::next) returned.
    pub(crate) fn take(&mut self) -> Note {
        let note = self.next();
        if self.free.pop().is_none() {
            self.used += 1;
        }
        note
    }

    /// Notes a failure; called by the child.
    pub(crate) fn write(&self, note: Note, step: Step, errno: i32) {
        let step: u64 = match step {
            Step::Create => 1,
            Step::Folder => 2,
            Step::Load => 3,
        };
        if let Some(word) = self.words().get(note.0) {
            word.store(step << STEP_SHIFT | u64::from(errno.unsigned_abs()), Ordering::Release);
        }
    }

    /// Returns what a child that has ended noted, and gives its place to another.
    pub(crate) fn read(&mut self, note: Note) -> Option<Failure> {
        self.free.push(note.0);
        let word = self.words().get(note.0)?.swap(0, Ordering::AcqRel);
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

impl Drop for Notes {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and nothing refers to it any more.
        unsafe { libc::munmap(self.words.cast(), NOTES * size_of::<AtomicU64>()) };
    }
}

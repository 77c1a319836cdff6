//! Space on the disk: enough of it before, and a clear word when it ends.

use std::{
    io,
    path::{Path, PathBuf},
};

use nix::sys::statvfs::statvfs;

use super::BackupError;

/// A backup is expected to take at most this many halves of what the last one took.
const GROWTH_HALVES: u64 = 3;

/// Returns the bytes that an unprivileged program may still write in a folder.
pub(super) fn free(folder: &Path) -> Result<u64, BackupError> {
    let found = statvfs(folder)
        .map_err(|errno| BackupError::Folder { folder: folder.to_owned(), source: io::Error::from(errno) })?;
    Ok(found.blocks_available().saturating_mul(found.fragment_size()))
}

/// Returns the bytes to expect of a backup when the last one took `last`.
pub(super) const fn expected(last: u64) -> u64 {
    last.saturating_mul(GROWTH_HALVES) / 2
}

/// Refuses a backup that is not expected to fit.
///
/// # Errors
/// Names the folder and both numbers.
pub(super) fn ensure(folder: &Path, needed: u64) -> Result<(), BackupError> {
    let free = free(folder)?;
    if free < needed {
        return Err(BackupError::NoSpace { folder: folder.to_owned(), needed, free });
    }
    Ok(())
}

/// Names what failed while `written` bytes of an unfinished file were on the disk.
pub(super) fn write_failed(file: &Path, written: u64, source: io::Error) -> BackupError {
    if is_full(&source) {
        return full(file, written);
    }
    BackupError::Write { file: file.to_owned(), source }
}

/// Makes the error of a disk that became full with `written` bytes of an unfinished file on it.
pub(super) fn full(file: &Path, written: u64) -> BackupError {
    let folder = file.parent().map_or_else(PathBuf::new, Path::to_owned);
    let free = free(&folder).unwrap_or(0).saturating_add(written);
    BackupError::Full { folder, needed: written.max(free), free }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_may_grow_by_half() {
        assert_eq!(expected(0), 0);
        assert_eq!(expected(1_000), 1_500);
        assert_eq!(expected(u64::MAX), u64::MAX / 2);
    }

    #[test]
    fn a_lack_of_space_names_folder_and_numbers() {
        let folder = tempfile::tempdir().expect("a folder");
        ensure(folder.path(), 1).expect("a byte is free");
        let error = ensure(folder.path(), u64::MAX).expect_err("not enough").to_string();
        assert!(error.contains(&folder.path().display().to_string()), "{error}");
        assert!(error.contains(&format!("{} bytes are needed", u64::MAX)), "{error}");
    }

    #[test]
    fn a_full_disk_is_told_from_other_errors() {
        let file = Path::new("/tmp/x.sql.zst.tmp");
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            assert!(matches!(write_failed(file, 7, kind.into()), BackupError::Full { .. }));
        }
        assert!(matches!(write_failed(file, 7, io::ErrorKind::BrokenPipe.into()), BackupError::Write { .. }));
    }
}

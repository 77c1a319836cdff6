//! The data folder: one process at a time, on a disk of this machine.
//!
//! SQLite's own locks do not stop a second master from reading old state and believing it leads, and on network file
//! systems they do not even protect the file. So the folder is locked for the life of the store, and refused where
//! locks and `fsync` cannot be trusted.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
};

/// The file in the data folder that carries the lock. It is never removed: removing it would unlock it for others.
const LOCK_FILE: &str = "LOCK";
/// Definitions and parameters may hold what only the scheduler's user should read.
const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// File systems that are not on this machine, or may not be, by the number that `statfs` gives.
const NETWORK_FILESYSTEMS: &[(i64, &str)] = &[
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB2"),
    (0x6573_5546, "FUSE"),
    (0x00c3_6400, "Ceph"),
    (0x0102_1997, "9P"),
    (0x5346_414f, "AFS"),
    (0x0bd0_0bd0, "Lustre"),
    (0x0116_1970, "GFS2"),
    (0x7461_636f, "OCFS2"),
];

/// The lock on a data folder, held until it is dropped or the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

/// Makes the folder, where it is missing, for this user only.
pub(crate) fn ensure(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)
}

/// Makes the file, where it is missing, for this user only; the database makes its other files after its example.
pub(crate) fn ensure_file(file: &Path) -> io::Result<()> {
    OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(file).map(drop)
}

/// Takes the lock; `None` where another process has it.
pub(crate) fn lock(folder: &Path) -> io::Result<Option<Lock>> {
    let file = OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(folder.join(LOCK_FILE))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock { _file: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Returns the name of the file system that holds the folder, where it is a network file system.
pub(crate) fn network_filesystem(folder: &Path) -> io::Result<Option<&'static str>> {
    let found = nix::sys::statfs::statfs(folder)?;
    #[expect(clippy::useless_conversion, reason = "the width of the number depends on the machine")]
    let number = i64::from(found.filesystem_type().0);
    Ok(name_of(number))
}

/// Names a network file system by its number; numbers are compared as 32 bits, for some machines extend the sign.
fn name_of(number: i64) -> Option<&'static str> {
    let number = number & 0xffff_ffff;
    NETWORK_FILESYSTEMS.iter().find(|(known, _)| *known == number).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_filesystems_are_known_by_number() {
        assert_eq!(name_of(0x6969), Some("NFS"));
        assert_eq!(name_of(0xff53_4d42), Some("CIFS"));
        assert_eq!(
            name_of(i64::from(0xff53_4d42_u32.cast_signed())),
            Some("CIFS"),
            "a sign may have been extended"
        );
        assert_eq!(name_of(0x6573_5546), Some("FUSE"));
        assert_eq!(name_of(0xef53), None, "ext4 is on this machine");
        assert_eq!(name_of(0x0102_1994), None, "tmpfs is in this machine");
    }

    #[test]
    fn a_temporary_folder_is_on_this_machine() {
        assert_eq!(network_filesystem(&std::env::temp_dir()).unwrap(), None);
    }

    #[test]
    fn a_lock_excludes_a_second_one_until_it_is_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let first = lock(folder.path()).unwrap();
        assert!(first.is_some());
        assert!(lock(folder.path()).unwrap().is_none());
        drop(first);
        assert!(lock(folder.path()).unwrap().is_some());
    }
}

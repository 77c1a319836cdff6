//! A disk that is easily full, and what an executor says of it.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{PATIENCE, Session};

impl Session {
    /// Waits until a heartbeat says whether space is low.
    pub(crate) async fn space_is_told(&mut self, is_low: bool) {
        let wait = async {
            while self.is_space_low != is_low {
                assert!(self.receive().await, "the session ended");
            }
        };
        tokio::time::timeout(PATIENCE, wait).await.expect("a heartbeat that says so");
    }
}

/// A small file system in memory, mounted on a folder for as long as this lives.
pub(crate) struct SmallDisk(PathBuf);

impl SmallDisk {
    /// Mounts one; where that is not allowed here, `test` is recorded as skipped and nothing is returned.
    pub(crate) fn mount(test: &str, folder: &Path, options: &str) -> Option<Self> {
        fs::create_dir_all(folder).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(folder).output();
        match mounted {
            Ok(output) if output.status.success() => Some(Self(folder.to_owned())),
            Ok(output) => {
                skip(test, String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                skip(test, &error.to_string());
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

/// Records that a test cannot run here, and why.
#[expect(
    clippy::disallowed_methods,
    clippy::print_stderr,
    reason = "the test command says where skips are recorded"
)]
fn skip(test: &str, reason: &str) {
    let line = format!("SKIPPED: {test}: {reason}\n");
    eprint!("{line}");
    if let Some(path) = std::env::var_os("MILLRACE_SKIP_FILE") {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
}

/// Writes to a file until the disk is full.
pub(crate) fn fill(path: &Path) {
    let mut file = fs::File::create(path).unwrap();
    // Smaller and smaller, so that not a byte is left.
    for length in [1 << 20, 1 << 12, 1] {
        let chunk = vec![0; length];
        let error = loop {
            if let Err(error) = file.write_all(&chunk) {
                break error;
            }
        };
        assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    }
}

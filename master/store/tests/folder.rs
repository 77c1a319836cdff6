//! What belongs to SQLite alone: its folder, its lock, its disk.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "conformance/sample.rs"]
#[expect(dead_code, reason = "shared with the conformance suite")]
mod sample;

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use millrace_servers::skipped;
use millrace_store::{CommitError, OpenError, Store, StoreConfig};

use crate::sample::{applied, lead, new_run};

#[tokio::test]
async fn a_second_process_is_refused_and_told_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let config = StoreConfig::sqlite(&folder.path().join("state.db"));
    let store = Store::open(&config).await.unwrap();
    let refusal = Store::open(&config).await.unwrap_err();
    assert!(matches!(&refusal, OpenError::InUse { folder: found } if found == folder.path()), "{refusal}");
    assert!(refusal.to_string().contains(&folder.path().display().to_string()));

    // The right to write keeps the folder as well.
    let writer = lead(&store, "first").await;
    drop(store);
    assert!(matches!(Store::open(&config).await, Err(OpenError::InUse { .. })));
    drop(writer);
    Store::open(&config).await.unwrap();
}

#[tokio::test]
async fn the_folder_and_its_files_are_for_one_user() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("deep/data");
    let store = Store::open(&StoreConfig::sqlite(&data.join("state.db"))).await.unwrap();
    lead(&store, "first").await.commit_changes(&[applied("flow", 1)]).await.unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for file in ["state.db", "state.db-wal", "state.db-shm", "LOCK"] {
        assert_eq!(mode(&data.join(file)), 0o600, "{file}");
    }
}

#[tokio::test]
async fn a_damaged_file_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state.db");
    std::fs::write(&file, vec![7; 8_192]).unwrap();
    let refusal = Store::open(&StoreConfig::sqlite(&file)).await.unwrap_err();
    assert!(matches!(refusal, OpenError::Database(_)), "{refusal}");
}

#[tokio::test]
async fn a_folder_that_cannot_be_made_is_named() {
    let refusal = Store::open(&StoreConfig::sqlite(Path::new("/proc/none/state.db"))).await.unwrap_err();
    assert!(
        matches!(&refusal, OpenError::Folder { folder, .. } if folder == Path::new("/proc/none")),
        "{refusal}"
    );
}

/// A file system in memory that is unmounted at the end.
struct Mount(PathBuf);

impl Mount {
    fn new(folder: &Path, size: &str) -> Result<Self, String> {
        let options = format!("size={size}");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(folder).output();
        match mounted {
            Ok(output) if output.status.success() => Ok(Self(folder.to_owned())),
            Ok(output) => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
        assert!(unmounted.is_ok_and(|status| status.success()), "the file system is unmounted");
    }
}

#[tokio::test]
async fn a_full_disk_keeps_a_batch_whole_until_there_is_room() {
    const RUNS_MAX: u8 = 200;
    const OTHERS_BYTES: usize = 512 << 10;
    let folder = tempfile::tempdir().unwrap();
    let mount = match Mount::new(folder.path(), "2m") {
        Ok(mount) => mount,
        Err(reason) => {
            return skipped(&format!("no file system can be mounted here: {reason}"));
        }
    };
    let others = mount.0.join("others");
    std::fs::write(&others, vec![7; OTHERS_BYTES]).unwrap();
    let config = StoreConfig::sqlite(&mount.0.join("state.db"));
    let store = Store::open(&config).await.unwrap();
    let mut writer = lead(&store, "first").await;
    writer.commit_changes(&[applied("flow", 1)]).await.unwrap();
    let large: std::sync::Arc<str> = format!("{{\"text\":\"{}\"}}", "x".repeat(60_000)).into();
    let mut written = 0;
    let refusal = loop {
        assert!(written < RUNS_MAX, "the disk is smaller than this");
        let millrace_core::Change::RunCreated(mut run) = new_run(written + 1, "flow") else {
            panic!("a run")
        };
        run.params = large.clone();
        match writer.commit_changes(&[millrace_core::Change::RunCreated(run)]).await {
            Ok(_) => written += 1,
            Err(refusal) => break refusal,
        }
    };
    assert!(matches!(refusal, CommitError::DiskFull(_)), "{refusal:?}");
    assert_eq!(refusal.to_string(), "the disk of the database is full: make room");
    assert!(written > 3, "some fitted");
    let loaded = store.load().await.unwrap();
    assert_eq!(
        loaded.snapshot.runs.len(),
        usize::from(written),
        "what was answered is there, the rest is not"
    );
    let refusal = writer.retry().await.unwrap_err();
    assert!(!refusal.ends_term(), "{refusal:?}");
    std::fs::remove_file(&others).unwrap();
    assert_eq!(writer.retry().await.unwrap().seq, u64::from(written) + 2, "without a gap");
    assert_eq!(store.load().await.unwrap().snapshot.runs.len(), usize::from(written) + 1);
    store.close().await;
    drop((store, writer, loaded));
    drop(mount);
}

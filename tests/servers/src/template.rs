//! Data folders with the system tables: made once, which takes seconds, and copied for each server.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use crate::{process::give_away, programs};

/// Copies the template `name` to `to`; makes the template by `make`, which is given the folder to fill, where there is none.
pub(crate) fn copy_to(name: &str, to: &Path, make: impl FnOnce(&Path) -> Command) {
    let root = programs::folder().join("servers");
    fs::create_dir_all(&root).expect("a folder for templates");
    let lock = File::create(root.join(format!("{name}.lock"))).expect("a lock file");
    lock.lock().expect("the lock");
    let template = root.join(name);
    if !template.exists() {
        let work = tempfile::tempdir().expect("a temporary folder");
        give_away(work.path());
        let folder = work.path().join("new");
        let mut command = make(&folder);
        let made = command.output().expect("the program runs");
        assert!(made.status.success(), "{command:?}: {}", String::from_utf8_lossy(&made.stderr));
        // Named only when it is whole.
        let half: PathBuf = root.join(format!("{name}.half"));
        let _ = fs::remove_dir_all(&half);
        copy(&folder, &half);
        fs::rename(&half, &template).expect("the template gets its name");
    }
    drop(lock);
    copy(&template, to);
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").args(["-a", "--sparse=always"]).args([from, to]).status();
    assert!(copied.is_ok_and(|status| status.success()), "{} is copied", from.display());
}

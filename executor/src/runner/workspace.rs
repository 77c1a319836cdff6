//! The folders that attempts run in.
//!
//! Making and removing a folder and a log file for each attempt would cost a third of the time that a short attempt takes,
//! so workspaces are numbered and used again: one whose folder is empty and whose log is empty goes straight to the next
//! attempt. A log with content is moved to `output/<attempt>.log`, where it stays until it has been shipped.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use millrace_common::id::AttemptId;

/// Workspaces that are kept for later attempts; more are removed.
const FREE_MAX: usize = 256;

/// The workspaces of an executor.
#[derive(Debug)]
pub(crate) struct Workspaces {
    work: PathBuf,
    output: PathBuf,
    pool: Mutex<Pool>,
}

#[derive(Debug)]
struct Pool {
    free: Vec<u32>,
    next: u32,
}

/// A private folder and an empty log, for one attempt at a time.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) number: u32,
    pub(crate) dir: PathBuf,
    pub(crate) log: Arc<File>,
}

impl Workspaces {
    /// Opens the folders below `data_dir`; what an earlier life left there is not touched.
    pub(crate) fn open(data_dir: &Path) -> io::Result<Self> {
        let work = data_dir.join("work");
        let output = data_dir.join("output");
        for folder in [&work, &output] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let next = left_over(&work)?.into_iter().map(|number| number + 1).max().unwrap_or(0);
        Ok(Self { work, output, pool: Mutex::new(Pool { free: Vec::new(), next }) })
    }

    /// Hands out a workspace: an empty folder and an empty log.
    pub(crate) fn acquire(&self) -> io::Result<Workspace> {
        let (number, is_fresh) = self.take_number();
        let dir = self.work.join(number.to_string());
        let made = if is_fresh { fs::DirBuilder::new().mode(0o700).create(&dir) } else { Ok(()) };
        // Each attempt opens its log anew: a process may change the flags of what it inherits.
        let log = made.and_then(|()| {
            OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(self.log_path(number))
        })?;
        Ok(Workspace { number, dir, log: Arc::new(log) })
    }

    fn take_number(&self) -> (u32, bool) {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = pool.free.pop() {
            return (number, false);
        }
        let number = pool.next;
        pool.next += 1;
        (number, true)
    }

    /// Takes a workspace back after nothing of its attempt is left, and gives the length of the log.
    pub(crate) fn release(&self, workspace: &Workspace, attempt: AttemptId) -> u64 {
        let number = workspace.number;
        let log_bytes = workspace.log.metadata().map_or(0, |metadata| metadata.len());
        let kept = if log_bytes > 0 { self.keep_log(number, attempt) } else { Ok(()) };
        match kept.and_then(|()| empty(&workspace.dir)) {
            Ok(()) => self.give_back(number),
            Err(error) => {
                // The number is not used again, so nothing of this attempt reaches another one.
                tracing::warn!(%error, %attempt, dir = %workspace.dir.display(), "a workspace could not be emptied and is given up");
            }
        }
        log_bytes
    }

    fn give_back(&self, number: u32) {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.free.len() < FREE_MAX {
            pool.free.push(number);
            return;
        }
        drop(pool);
        let _ = fs::remove_dir(self.work.join(number.to_string()));
        let _ = fs::remove_file(self.log_path(number));
    }

    /// Moves a log with content to where it waits to be shipped.
    fn keep_log(&self, number: u32, attempt: AttemptId) -> io::Result<()> {
        fs::rename(self.log_path(number), log_file(&self.output, attempt))
    }

    /// Keeps the log of an attempt that an earlier life of this executor ran, and gives its length.
    pub(crate) fn recover(&self, number: u32, attempt: AttemptId) -> u64 {
        let length = fs::metadata(self.log_path(number)).map_or(0, |metadata| metadata.len());
        if length > 0 && self.keep_log(number, attempt).is_err() {
            return 0;
        }
        length
    }

    /// Removes what an earlier life left behind; call it when none of its processes is left.
    pub(crate) fn clear_left_over(&self) -> io::Result<()> {
        let pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        for number in left_over(&self.work)?.into_iter().filter(|number| *number < pool.next) {
            if pool.free.contains(&number) {
                continue;
            }
            let _ = fs::remove_dir_all(self.work.join(number.to_string()));
            let _ = fs::remove_file(self.log_path(number));
        }
        Ok(())
    }

    fn log_path(&self, number: u32) -> PathBuf {
        self.work.join(format!("{number}.log"))
    }
}

/// Returns where the output of an ended attempt waits to be shipped.
pub(crate) fn log_file(output: &Path, attempt: AttemptId) -> PathBuf {
    output.join(format!("{attempt}.log"))
}

fn left_over(work: &Path) -> io::Result<Vec<u32>> {
    let names = fs::read_dir(work)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut numbers: Vec<u32> = names.filter_map(|name| name.trim_end_matches(".log").parse().ok()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

fn empty(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            fs::remove_dir_all(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn attempt(number: u32) -> AttemptId {
        format!("018f2f5e-0000-7000-8000-000000000000.0.{number}").parse().unwrap()
    }

    #[test]
    fn an_untouched_workspace_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let workspaces = Workspaces::open(folder.path()).unwrap();
        let first = workspaces.acquire().unwrap();
        assert_eq!(workspaces.release(&first, attempt(1)), 0);
        let second = workspaces.acquire().unwrap();
        assert_eq!(first.number, second.number);
        assert_ne!(workspaces.acquire().unwrap().number, second.number);
    }

    #[test]
    fn what_an_attempt_leaves_does_not_reach_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let workspaces = Workspaces::open(folder.path()).unwrap();
        let first = workspaces.acquire().unwrap();
        fs::create_dir(first.dir.join("deep")).unwrap();
        fs::write(first.dir.join("deep/file"), "x").unwrap();
        (&*first.log).write_all(b"hello").unwrap();
        assert_eq!(workspaces.release(&first, attempt(1)), 5);
        assert_eq!(fs::read(log_file(&folder.path().join("output"), attempt(1))).unwrap(), b"hello");
        let second = workspaces.acquire().unwrap();
        assert_eq!(second.number, first.number);
        assert_eq!(fs::read_dir(&second.dir).unwrap().count(), 0);
        assert_eq!(second.log.metadata().unwrap().len(), 0);
    }

    #[test]
    fn logs_of_an_earlier_life_are_kept_and_its_folders_removed() {
        let folder = tempfile::tempdir().unwrap();
        let earlier = Workspaces::open(folder.path()).unwrap();
        let lost = earlier.acquire().unwrap();
        fs::write(lost.dir.join("file"), "x").unwrap();
        (&*lost.log).write_all(b"half").unwrap();
        let workspaces = Workspaces::open(folder.path()).unwrap();
        assert_eq!(workspaces.recover(lost.number, attempt(7)), 4);
        workspaces.clear_left_over().unwrap();
        assert!(log_file(&folder.path().join("output"), attempt(7)).exists());
        assert_eq!(fs::read_dir(folder.path().join("work")).unwrap().count(), 0);
        assert_ne!(workspaces.acquire().unwrap().number, lost.number);
    }
}

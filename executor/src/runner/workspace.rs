//! The folders that attempts run in.
//!
//! Making and removing a folder and a log file for each attempt would cost a third of the time that a short attempt takes,
//! so workspaces are numbered and used again: one whose folder is empty and whose log is empty goes straight to the next
//! attempt. A log with content is moved to `output/<attempt>.log`, where it stays until it has been shipped.
//!
//! A workspace is released only when the end of its attempt is durable: until then its values may be read again.

use std::{
    collections::HashSet,
    fs, io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
};

use millrace_common::id::AttemptId;
use millrace_kinds::run::REASON_FILE;

/// Workspaces that are kept for later attempts; more are removed.
const FREE_MAX: usize = 256;

/// The workspaces of an executor.
#[derive(Debug)]
pub(crate) struct Workspaces {
    work: PathBuf,
    output: PathBuf,
    free: Vec<u32>,
    next: u32,
    in_use: HashSet<u32>,
}

/// A private folder, and a log beside it, for one attempt at a time.
#[derive(Debug)]
pub(crate) struct Workspace {
    pub(crate) number: u32,
    pub(crate) dir: PathBuf,
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
        Ok(Self { work, output, free: Vec::new(), next, in_use: HashSet::new() })
    }

    /// Hands out a workspace: an empty folder, and no log or an empty one.
    pub(crate) fn acquire(&mut self) -> io::Result<Workspace> {
        if let Some(number) = self.free.pop() {
            self.in_use.insert(number);
            return Ok(self.workspace(number));
        }
        let workspace = self.workspace(self.next);
        self.next += 1;
        fs::DirBuilder::new().mode(0o700).create(&workspace.dir)?;
        self.in_use.insert(workspace.number);
        Ok(workspace)
    }

    /// Takes over a workspace that an earlier life handed out.
    pub(crate) fn adopt(&mut self, number: u32) -> Workspace {
        self.in_use.insert(number);
        self.next = self.next.max(number.saturating_add(1));
        self.workspace(number)
    }

    fn workspace(&self, number: u32) -> Workspace {
        Workspace { number, dir: self.work.join(number.to_string()) }
    }

    /// Takes a workspace back after nothing of its attempt is left, and gives the length of the log.
    pub(crate) fn release(&mut self, workspace: &Workspace, attempt: AttemptId) -> u64 {
        let number = workspace.number;
        self.in_use.remove(&number);
        let log_bytes = fs::metadata(self.log_path(number)).map_or(0, |metadata| metadata.len());
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

    fn give_back(&mut self, number: u32) {
        if self.free.len() < FREE_MAX {
            self.free.push(number);
            return;
        }
        let _ = fs::remove_dir(self.work.join(number.to_string()));
        let _ = fs::remove_file(self.log_path(number));
    }

    /// Moves a log with content to where it waits to be shipped.
    fn keep_log(&self, number: u32, attempt: AttemptId) -> io::Result<()> {
        fs::rename(self.log_path(number), log_file(&self.output, attempt))
    }

    /// Removes what an earlier life left behind; call it when none of its processes is left but those in known workspaces.
    pub(crate) fn clear_left_over(&self) -> io::Result<()> {
        let is_known = |number: &u32| self.in_use.contains(number) || self.free.contains(number);
        for number in left_over(&self.work)?.into_iter().filter(|number| !is_known(number)) {
            let _ = fs::remove_dir_all(self.work.join(number.to_string()));
            let _ = fs::remove_file(self.log_path(number));
        }
        Ok(())
    }

    /// Removes what a kind said of its failure.
    pub(crate) fn drop_reason(&self, number: u32) {
        // As a rule there is nothing.
        let _ = fs::remove_file(self.workspace(number).dir.join(REASON_FILE));
    }

    pub(crate) fn log_path(&self, number: u32) -> PathBuf {
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
    use super::*;

    fn attempt(number: u32) -> AttemptId {
        format!("018f2f5e-0000-7000-8000-000000000000.0.{number}").parse().unwrap()
    }

    #[test]
    fn an_untouched_workspace_is_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut workspaces = Workspaces::open(folder.path()).unwrap();
        let first = workspaces.acquire().unwrap();
        assert_eq!(workspaces.release(&first, attempt(1)), 0);
        let second = workspaces.acquire().unwrap();
        assert_eq!(first.number, second.number);
        assert_ne!(workspaces.acquire().unwrap().number, second.number);
    }

    #[test]
    fn what_an_attempt_leaves_does_not_reach_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let mut workspaces = Workspaces::open(folder.path()).unwrap();
        let first = workspaces.acquire().unwrap();
        fs::create_dir(first.dir.join("deep")).unwrap();
        fs::write(first.dir.join("deep/file"), "x").unwrap();
        fs::write(workspaces.log_path(first.number), "hello").unwrap();
        assert_eq!(workspaces.release(&first, attempt(1)), 5);
        assert_eq!(fs::read(log_file(&folder.path().join("output"), attempt(1))).unwrap(), b"hello");
        let second = workspaces.acquire().unwrap();
        assert_eq!(second.number, first.number);
        assert_eq!(fs::read_dir(&second.dir).unwrap().count(), 0);
        assert!(!workspaces.log_path(second.number).exists());
    }

    #[test]
    fn an_earlier_life_is_cleared_away_except_for_what_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let mut earlier = Workspaces::open(folder.path()).unwrap();
        let (lost, kept) = (earlier.acquire().unwrap(), earlier.acquire().unwrap());
        fs::write(lost.dir.join("file"), "x").unwrap();
        fs::write(earlier.log_path(kept.number), "half").unwrap();
        let mut workspaces = Workspaces::open(folder.path()).unwrap();
        let adopted = workspaces.adopt(kept.number);
        workspaces.clear_left_over().unwrap();
        assert!(adopted.dir.exists() && !lost.dir.exists());
        assert_eq!(workspaces.release(&adopted, attempt(7)), 4);
        assert!(log_file(&folder.path().join("output"), attempt(7)).exists());
        assert_eq!(workspaces.acquire().unwrap().number, kept.number);
    }
}

//! The folder of a server, and all processes that belong to it.
//!
//! A process belongs to a folder if it works in it, if its command line or its environment names it, or if it descends
//! from one that does: executors leave supervisors, which leave attempts, and databases have sessions of their own. A
//! folder that is dropped ends them all and looks until none is left.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process, thread,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{place::Place, process::LOOK};

/// How often it is looked whether processes that were killed are gone: 20 s altogether.
const LOOKS_MAX: u32 = 1_000;

/// A folder and what runs in it.
#[derive(Debug)]
pub struct Home {
    folder: TempDir,
}

impl Drop for Home {
    fn drop(&mut self) {
        let left = self.end();
        // A second panic would end the program before the first is told.
        if !thread::panicking() {
            assert!(left.is_empty(), "processes of {} do not end: {left:?}", self.path().display());
        }
    }
}

impl Home {
    /// Makes an empty one.
    ///
    /// # Panics
    /// Where that is not possible.
    #[must_use]
    pub fn new(place: &Place) -> Self {
        let folder = match place.parent() {
            Some(parent) => {
                fs::create_dir_all(parent).expect("a folder for servers");
                tempfile::Builder::new().prefix("server-").tempdir_in(parent)
            }
            None => tempfile::tempdir(),
        };
        Self { folder: folder.expect("a temporary folder") }
    }

    /// Returns where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Returns where something in it is.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Leaves the folder, for somebody to look at, when this is dropped; its processes are ended all the same.
    pub fn keep(&mut self) {
        self.folder.disable_cleanup(true);
    }

    /// Returns the processes that belong to it.
    #[must_use]
    pub fn processes(&self) -> BTreeSet<i32> {
        Self::processes_below(self.path())
    }

    /// Returns the processes that belong to a folder.
    #[must_use]
    pub fn processes_below(folder: &Path) -> BTreeSet<i32> {
        let all = all_processes();
        let mut found: BTreeSet<i32> =
            all.iter().map(|(pid, _)| *pid).filter(|pid| names(*pid, folder)).collect();
        // Their descendants, however deep.
        loop {
            let before = found.len();
            let children = all.iter().filter(|(_, parent)| found.contains(parent)).map(|(pid, _)| *pid);
            found.extend(children.collect::<Vec<_>>());
            if found.len() == before {
                return found;
            }
        }
    }

    /// Sends all of them a signal.
    pub fn signal_all(&self, signal: Signal) {
        for pid in self.processes() {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Kills all of them, again and again until none is left; returns those that do not go.
    pub fn end(&self) -> BTreeSet<i32> {
        for _ in 0..LOOKS_MAX {
            let left = self.processes();
            if left.is_empty() {
                return left;
            }
            self.signal_all(Signal::SIGKILL);
            thread::sleep(LOOK);
        }
        self.processes()
    }
}

/// Returns all processes but this one, with their parents. What has ended and is not waited for yet is none.
fn all_processes() -> Vec<(i32, i32)> {
    let own = i32::try_from(process::id()).unwrap_or(0);
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    pids.filter(|pid| *pid != own).filter_map(|pid| Some((pid, parent_of_living(pid)?))).collect()
}

fn parent_of_living(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let is_living = !matches!(fields.next()?, "Z" | "X");
    let parent = fields.next()?.parse().ok()?;
    is_living.then_some(parent)
}

/// Returns whether a process works in a folder or was told of it.
fn names(pid: i32, folder: &Path) -> bool {
    let at = |name: &str| format!("/proc/{pid}/{name}");
    if fs::read_link(at("cwd")).is_ok_and(|cwd| cwd.starts_with(folder)) {
        return true;
    }
    let told = |name: &str| fs::read(at(name)).is_ok_and(|text| holds(&text, folder.as_os_str()));
    told("cmdline") || told("environ")
}

fn holds(text: &[u8], part: &OsStr) -> bool {
    text.windows(part.len()).any(|window| window == part.as_bytes())
}

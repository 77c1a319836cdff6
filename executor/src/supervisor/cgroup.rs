//! Control groups: the containment that no process leaves by a second session, a double fork or a new environment.
//!
//! One group for each workspace, used again as workspaces are: making one for each attempt would cost as much as starting
//! its process. A group that was killed is replaced: newer kernels kill whatever begins in it later. Only the unified hierarchy (version 2) is used, and only where this program may write to its own place in
//! it; controllers are not needed.

use std::{
    cell::Cell,
    collections::{HashMap, hash_map::Entry},
    fs::{self, File},
    io::{self, Read as _, Seek as _},
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::fs::FileExt as _,
    },
    path::{Path, PathBuf},
};

/// Bytes of a group's events: two short lines.
const EVENTS_BYTES: usize = 128;

/// The groups of one supervisor.
#[derive(Debug)]
pub(crate) struct Cgroups {
    base: PathBuf,
    groups: HashMap<u32, Cgroup>,
    /// Groups that took the place of killed ones; part of their names.
    replaced: u32,
}

/// A group.
#[derive(Debug)]
pub(crate) struct Cgroup {
    path: PathBuf,
    dir: File,
    events: File,
    was_killed: Cell<bool>,
}

impl Cgroups {
    /// Makes the group that all others are below; `None` where the machine does not offer that.
    pub(crate) fn open() -> Option<Self> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
        let own = fs::read_to_string("/proc/self/cgroup").ok()?;
        let base = place(&mounts, &own)?.join(format!("millrace-{}", std::process::id()));
        fs::create_dir(&base).ok()?;
        if base.join("cgroup.kill").exists() {
            return Some(Self { base, groups: HashMap::new(), replaced: 0 });
        }
        let _ = fs::remove_dir(&base);
        None
    }

    pub(crate) fn base(&self) -> &Path {
        &self.base
    }

    /// Returns a group for the next attempt in a workspace, and makes it where there is none that can be used.
    pub(crate) fn of(&mut self, workspace: u32) -> io::Result<&Cgroup> {
        let mut name = workspace.to_string();
        if self.get(workspace).is_some_and(|group| group.was_killed.get())
            && let Some(killed) = self.groups.remove(&workspace)
        {
            // What cannot be removed yet goes with the base.
            remove(&killed.path);
            self.replaced += 1;
            name = format!("{workspace}.{}", self.replaced);
        }
        match self.groups.entry(workspace) {
            Entry::Occupied(group) => Ok(group.into_mut()),
            Entry::Vacant(place) => {
                let path = self.base.join(name);
                fs::create_dir(&path)?;
                let (dir, events) = (File::open(&path)?, File::open(path.join("cgroup.events"))?);
                Ok(place.insert(Cgroup { path, dir, events, was_killed: Cell::new(false) }))
            }
        }
    }

    /// Returns the group of a workspace, if there is one.
    pub(crate) fn get(&self, workspace: u32) -> Option<&Cgroup> {
        self.groups.get(&workspace)
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        self.groups.clear();
        remove(&self.base);
    }
}

impl Cgroup {
    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }

    /// Tells whether a process lives in it, or in a group that an attempt made below it.
    pub(crate) fn is_populated(&self) -> bool {
        let mut bytes = [0; EVENTS_BYTES];
        let length = self.events.read_at(&mut bytes, 0).unwrap_or(0);
        // What cannot be read is not known to be empty.
        !std::str::from_utf8(&bytes[..length])
            .is_ok_and(|text| text.lines().any(|line| line == "populated 0"))
    }

    /// Kills everything in it at once; no fork escapes.
    pub(crate) fn kill(&self) -> io::Result<()> {
        self.was_killed.set(true);
        fs::write(self.path.join("cgroup.kill"), "1")
    }

    /// Lists the processes in it and below.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let mut pids = Vec::new();
        let mut folders = vec![self.path.clone()];
        while let Some(folder) = folders.pop() {
            let text = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            pids.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
            folders.extend(subfolders(&folder));
        }
        pids
    }
}

/// Ends everything in the groups that a supervisor left, and removes them; tells whether nothing is left.
pub(crate) fn end_left_over(base: &Path) -> bool {
    let is_ours = base.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"millrace-"));
    let Ok(mut events) = File::open(base.join("cgroup.events")) else { return true };
    if !is_ours {
        return true;
    }
    let mut text = String::new();
    let mut is_empty = || {
        text.clear();
        events.rewind().and_then(|()| events.read_to_string(&mut text)).is_ok()
            && text.lines().any(|line| line == "populated 0")
    };
    if !is_empty() {
        // It may be empty a moment later; the caller looks again.
        let _ = fs::write(base.join("cgroup.kill"), "1");
        if !is_empty() {
            return false;
        }
    }
    remove(base);
    true
}

/// Removes a group and those below it; a populated one stays.
fn remove(folder: &Path) {
    for below in subfolders(folder) {
        remove(&below);
    }
    let _ = fs::remove_dir(folder);
}

fn subfolders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

/// Finds this process's place in the unified hierarchy, where that is mounted whole.
fn place(mounts: &str, own: &str) -> Option<PathBuf> {
    let mount = mounts.lines().find_map(|line| {
        let (fields, rest) = line.split_once(" - ")?;
        let mut fields = fields.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (rest.starts_with("cgroup2 ") && root == "/").then_some(point)
    })?;
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"))?;
    Some(Path::new(mount).join(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_is_found_in_a_mixed_and_in_a_pure_hierarchy() {
        let mixed = "37 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n\
                     38 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";
        assert_eq!(place(mixed, "4:memory:/x\n0::/\n"), Some("/sys/fs/cgroup/unified/".into()));
        let pure = "30 23 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        let own = "0::/system.slice/millrace-executor.service\n";
        assert_eq!(place(pure, own), Some("/sys/fs/cgroup/system.slice/millrace-executor.service".into()));
        assert_eq!(place("30 23 0:26 /sub /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n", own), None);
        assert_eq!(place(pure, "4:memory:/x\n"), None);
    }
}

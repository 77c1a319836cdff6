//! What belongs to an attempt, and how all of it is reached.
//!
//! Where the machine lets us, a control group: nothing leaves it. Else the process group, and every process whose
//! environment carries the attempt's mark, which a second session or a double fork does not shed. When the main process has
//! exited, whatever else lived below it has been adopted by this program (a subreaper), so no adopted child proves that
//! nothing is left; only where something is left is all of `/proc` looked through, once for all attempts concerned.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
};

use millrace_common::id::AttemptId;
use nix::{
    errno::Errno,
    sys::signal::{Signal, kill, killpg},
    unistd::Pid,
};

use super::{attempts::Live, cgroup::Cgroups, report};
use crate::procfs::{self, Children};

/// How attempts are held together.
#[derive(Debug)]
pub(super) struct Containment {
    data_dir: PathBuf,
    cgroups: Option<Cgroups>,
    /// Whether new attempts are given a group; some of those that run may still have one when this ends.
    is_grouping: bool,
    children: Children,
}

impl Containment {
    pub(super) fn open(data_dir: PathBuf) -> Self {
        let cgroups = Cgroups::open();
        Self { data_dir, is_grouping: cgroups.is_some(), cgroups, children: Children::open() }
    }

    /// Names it, for people.
    pub(super) const fn name(&self) -> &'static str {
        if self.is_grouping { "control groups" } else { "process groups" }
    }

    /// Returns the control group that all others are below.
    pub(super) fn base(&self) -> Option<&Path> {
        self.cgroups.as_ref().map(Cgroups::base)
    }

    /// Returns the control group that the attempt in a workspace begins in.
    pub(super) fn enter(&mut self, workspace: u32) -> Option<BorrowedFd<'_>> {
        if !self.is_grouping {
            return None;
        }
        match self.cgroups.as_mut()?.of(workspace) {
            Ok(cgroup) => Some(cgroup.dir()),
            Err(error) => {
                report(
                    "a control group cannot be made; attempts are held together by process groups",
                    &error,
                );
                self.is_grouping = false;
                None
            }
        }
    }

    /// Goes on without control groups for what starts from now on.
    pub(super) fn give_up(&mut self, error: &io::Error) {
        report("a control group cannot be entered; attempts are held together by process groups", error);
        self.is_grouping = false;
    }

    /// Tells whether a main process, which has been waited for, left anything behind.
    pub(super) fn has_left(&self, live: &Live, mains: &HashMap<i32, AttemptId>) -> bool {
        if self.is_grouping
            && let Some(cgroup) = self.cgroups.as_ref().and_then(|groups| groups.get(live.origin.workspace))
        {
            return cgroup.is_populated();
        }
        is_group_alive(live.pid)
            || self.adopted(mains).into_iter().any(|pid| {
                procfs::process(pid).is_some_and(|process| process.group == live.pid)
                    || procfs::marks(pid).attempt_below(&self.data_dir) == Some(live.origin.attempt)
            })
    }

    fn adopted(&self, mains: &HashMap<i32, AttemptId>) -> Vec<i32> {
        let mut children = self.children.pids();
        children.retain(|pid| !mains.contains_key(pid));
        children
    }

    /// Finds the living processes of attempts. What stands in the map has some, even where none can be listed.
    pub(super) fn members(&self, attempts: &[(AttemptId, &Live)]) -> HashMap<AttemptId, Vec<i32>> {
        let mut members: HashMap<AttemptId, Vec<i32>> = HashMap::new();
        let mut by_group = BTreeMap::new();
        for (attempt, live) in attempts {
            by_group.insert(live.pid, *attempt);
            let cgroup = self.cgroups.as_ref().and_then(|groups| groups.get(live.origin.workspace));
            if let Some(cgroup) = cgroup.filter(|cgroup| cgroup.is_populated()) {
                members.insert(*attempt, cgroup.pids());
            }
        }
        if self.is_grouping {
            return members;
        }
        let is_meant = |attempt: &AttemptId| by_group.values().any(|meant| meant == attempt);
        for process in procfs::processes().filter(|process| !process.is_zombie) {
            let marked = || procfs::marks(process.pid).attempt_below(&self.data_dir).filter(is_meant);
            if let Some(attempt) = by_group.get(&process.group).copied().or_else(marked) {
                let pids = members.entry(attempt).or_default();
                if !pids.contains(&process.pid) {
                    pids.push(process.pid);
                }
            }
        }
        members
    }

    /// Kills all of an attempt that can be reached at once.
    pub(super) fn kill(&self, workspace: u32, group: Option<i32>) {
        if let Some(cgroup) = self.cgroups.as_ref().and_then(|groups| groups.get(workspace)) {
            // Where it fails, the members are killed one by one.
            let _ = cgroup.kill();
        }
        if let Some(group) = group {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }

    /// Ends adopted processes that hid where they come from; call it when no attempt lives that they might belong to.
    pub(super) fn kill_strays(&self) {
        if self.is_grouping {
            return;
        }
        for pid in self.children.pids() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Tells whether a process group has a member. Its leader has been waited for, and its number is not given to another
/// process while it has one.
fn is_group_alive(group: i32) -> bool {
    killpg(Pid::from_raw(group), None) != Err(Errno::ESRCH)
}

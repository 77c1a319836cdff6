//! An executor that can start no process: it does not drain the queue.

use std::{fs, path::PathBuf};

use anyhow::Context as _;

use crate::{
    capability::Need,
    history::Figures,
    network,
    scenario::{Scenario, Stage},
    scene::Scene,
};

/// Starts that may fail before an executor gets no more of them.
const FAILURES_MAX: usize = 20;

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S47",
    title: "an executor cannot start processes",
    injected: "the supervisor of x1 in a control group of the `pids` controller that has no room, for 20 s",
    in_selection: false,
    needs: &[Need::PidsGroup],
    stage: Some(|| Stage { may_lose: true, ..Stage::default() }),
    not_run: None,
    act,
    judge,
};

/// A control group; removed when dropped.
struct Group(PathBuf);

impl Drop for Group {
    fn drop(&mut self) {
        // Its processes go back to where they came from, and none is left of a cluster that has gone.
        let _ = fs::write(self.0.join("pids.max"), "max");
        let members = fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        for pid in members.lines() {
            let _ = fs::write("/sys/fs/cgroup/pids/cgroup.procs", pid);
        }
        let _ = fs::remove_dir(&self.0);
    }
}

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let group = Group(PathBuf::from(format!("/sys/fs/cgroup/pids/mrig{}", std::process::id())));
    fs::create_dir_all(&group.0).context("cannot make a control group")?;
    for pid in scene.pids_with(network::EXECUTORS[0], "supervise")? {
        fs::write(group.0.join("cgroup.procs"), pid.to_string())?;
    }
    fs::write(group.0.join("pids.max"), "0")?;
    scene.fault();
    scene.pause(20.0)?;
    fs::write(group.0.join("pids.max"), "max")?;
    scene.pause(3.0)?;
    let listed = scene.cluster.ctl(&["executor", "list"])?;
    let line = listed.lines().find(|line| line.starts_with("x1")).unwrap_or_default().to_owned();
    scene.measure("x1 afterwards", line.split_whitespace().collect::<Vec<_>>().join(" "));
    // What was set aside is to be used again.
    if let Err(problem) = scene.cluster.ctl(&["executor", "undrain", "x1"]) {
        scene.measure("undrain", problem);
    }
    Ok(())
}

fn judge(scene: &mut Scene<'_>, figures: &Figures) {
    let Some(from) = scene.faults.first().copied() else { return };
    let failed = figures.ends.iter().filter(|(attempt, (at, end))| {
        let is_ours = figures.executors.get(attempt).is_some_and(|executor| executor.as_str() == "x1");
        is_ours && *at > from && end.exit_code.is_none() && !figures.lives.contains_key(attempt)
    });
    let failed = failed.count();
    scene.measure("starts that failed", failed);
    scene.expect(failed <= FAILURES_MAX, format!("{failed} starts failed on an executor that can start nothing"));
}

//! Every program is replaced, one after the other, under load.

use std::fs;

use crate::{
    scenario::{Scenario, Stage, nothing_more},
    scene::Scene,
};

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S51",
    title: "all programs are replaced one after the other, while the leader is killed now and then",
    injected: "each program's file replaced by a copy and the program restarted by SIGTERM, standbys first; SIGKILL to the leader twice; there is no earlier release yet to mix with",
    in_selection: false,
    needs: &[],
    stage: Some(Stage::default),
    not_run: None,
    act,
    judge: nothing_more,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.long("long", 6, 40, "orphan_timeout: 60s")?;
    for name in ["x1", "x2", "x3"] {
        replace(scene, name, "millrace-executor")?;
    }
    kill_leader(scene)?;
    let leader = scene.leader()?;
    let leading = scene.name_of(&leader);
    for name in ["m1", "m2", "m3"].into_iter().filter(|name| *name != leading) {
        replace(scene, name, "millrace-master")?;
    }
    scene.cluster.ctl(&["cluster", "hand-over"])?;
    scene.next_leader(&leader, 30)?;
    replace(scene, &leading, "millrace-master")?;
    kill_leader(scene)
}

/// Puts another file in the place of a program and restarts it.
pub(super) fn replace(scene: &mut Scene<'_>, name: &str, program: &str) -> anyhow::Result<()> {
    let copy = scene.file(&format!("{name}-{program}"));
    let half = scene.file("half");
    fs::copy(millrace_servers::built(program), &half)?;
    fs::rename(&half, &copy)?;
    scene.cluster.wait("the program to run", std::time::Duration::from_secs(30), |cluster| {
        Ok(cluster.program(name)?.is_running().then_some(()))
    })?;
    let program = scene.cluster.program(name)?;
    program.set_path(copy);
    program.signal(nix::sys::signal::Signal::SIGTERM);
    scene.pause(4.0)
}

fn kill_leader(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let leader = scene.leader()?;
    let name = scene.name_of(&leader);
    scene.fault();
    scene.cluster.kill(&name);
    scene.next_leader(&leader, 30)?;
    scene.pause(2.0)
}

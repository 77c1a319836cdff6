//! The wall clock of the leader jumps a year ahead, then that of its successor a day back: nothing fires twice, nor a
//! year at once.

use std::fs;

use crate::{
    capability::{Need, fake_time},
    cluster::Setting,
    history::Figures,
    load::workflows::Shape,
    scenario::{Scenario, Stage},
    scene::Scene,
};

/// The file that holds how far a program's clock is off, in the folder that it works in.
const OFFSET: &str = "clock";
/// Runs that a schedule of every 5 s may have made in the time of the scenario, and a few for each jump.
const FIRED_MAX: usize = 40;

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S41",
    title: "the leader's wall clock jumps a year ahead; that of the next leader a day back",
    injected: "libfaketime under all masters, their boot-time clocks left alone: +365 d on the leader for 12 s, then SIGKILL to it with -1 d on the others; schedules of every 5 s without catch-up",
    in_selection: false,
    needs: &[Need::FakeTime],
    stage: Some(stage),
    not_run: None,
    act,
    judge,
};

fn stage() -> Stage {
    let library = fake_time().map(|path| path.display().to_string()).unwrap_or_default();
    let set = |master, name: &str, value: &str| (master, name.to_owned(), value.to_owned());
    let variables = ["m1", "m2", "m3"].into_iter().flat_map(|master| {
        [
            set(master, "LD_PRELOAD", &library),
            set(master, "FAKETIME_TIMESTAMP_FILE", OFFSET),
            set(master, "FAKETIME_CACHE_DURATION", "1"),
            set(master, "FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ]
    });
    Stage {
        setting: Setting { variables: variables.collect(), ..Setting::default() },
        shape: Shape { catchup: false, ..Shape::default() },
        ..Stage::default()
    }
}

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let leader = scene.leader()?;
    let name = scene.name_of(&leader);
    turn(scene, &name, "+365d")?;
    scene.pause(12.0)?;
    for other in ["m1", "m2", "m3"].into_iter().filter(|other| *other != name) {
        turn(scene, other, "-1d")?;
    }
    scene.fault();
    scene.cluster.hold(&name);
    scene.cluster.kill(&name);
    scene.next_leader(&leader, 30)?;
    scene.pause(12.0)?;
    for master in ["m1", "m2", "m3"] {
        turn(scene, master, "+0")?;
    }
    scene.cluster.release(&name);
    scene.pause(2.0)?;
    let fired = "SELECT count(*) FROM run WHERE workflow = 'every-0'";
    let before = scene.count(fired)?;
    scene.pause(11.0)?;
    let after = scene.count(fired)? - before;
    scene.measure("fired within 11 s of right clocks", after);
    scene.expect(after > 0, "the clocks are right again, and a schedule of every 5 s does not fire any more");
    Ok(())
}

fn turn(scene: &mut Scene<'_>, name: &str, offset: &str) -> anyhow::Result<()> {
    let file = scene.cluster.program(name)?.home().file(OFFSET);
    Ok(fs::write(file, offset)?)
}

fn judge(scene: &mut Scene<'_>, figures: &Figures) {
    for workflow in ["every-0", "every-1"] {
        let fired = figures.workflows.values().filter(|name| name.as_str() == workflow).count();
        scene.measure(&format!("runs of {workflow}"), fired);
        scene.expect(fired <= FIRED_MAX, format!("{workflow} ran {fired} times in less than a minute"));
    }
}

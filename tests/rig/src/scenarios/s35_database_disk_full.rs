//! The disk of the database is full for a while: nothing is acknowledged that is not durable, and all recovers.

use std::{fs, path::Path};

use crate::{
    capability::Need,
    cluster::Setting,
    scenario::{Scenario, Stage, nothing_more},
    scenarios::outage,
    scene::Scene,
};

/// How many looks of two seconds the disk is kept full for.
const LOOKS: usize = 10;

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S35",
    title: "the disk of PostgreSQL is full for 20 s",
    injected: "its data on a tmpfs of 256 MiB, filled up to the last byte for 20 s, then emptied; a server that ended is started again after that",
    in_selection: false,
    needs: &[Need::Mount],
    stage: Some(|| Stage {
        setting: Setting { disks: &[("db", "256m")], ..Setting::default() },
        ..Stage::default()
    }),
    not_run: None,
    act,
    judge: nothing_more,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let ballast = scene.file("db").join("ballast");
    scene.fault();
    fill(&ballast);
    let before = scene.notes.acknowledged();
    for _ in 0..LOOKS {
        scene.pause(2.0)?;
        // What was freed meanwhile is taken too.
        fill(&ballast);
    }
    let during = scene.notes.acknowledged() - before;
    scene.measure("acknowledged while it was full", during);
    fs::remove_file(&ballast)?;
    scene.cluster.database.resume();
    let longest = outage::resumes(scene, 0)?;
    scene.measure_time("committed again after", longest);
    let complaints = scene.cluster.database.log().matches("No space left on device").count();
    scene.measure("complaints of the server", complaints);
    scene.expect(complaints > 0, "the server never noticed that its disk was full");
    Ok(())
}

/// Writes until there is no room.
pub(super) fn fill(ballast: &Path) {
    use std::io::Write as _;
    let Ok(mut file) = fs::OpenOptions::new().create(true).append(true).open(ballast) else { return };
    for size in [1 << 20, 1 << 12, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

//! The disks of all masters are full: output waits on executors, and nothing else notices; afterwards it is there, whole.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::ensure;

use super::{outage, s35_database_disk_full::fill};
use crate::{
    capability::Need,
    cluster::Setting,
    network,
    scenario::{Scenario, Stage},
    scene::Scene,
};

/// How many looks of two seconds they are kept full for.
const LOOKS: usize = 8;
/// How long the attempt lasts whose output is compared; it ends while the disks are full.
const MILLIS: u64 = 12_000;
/// How long the rest of its output may take to arrive.
const ARRIVES_WITHIN: Duration = Duration::from_secs(30);

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S40",
    title: "the disks of all masters are full for 16 s",
    injected: "each master with all that it keeps, its own log too, on a tmpfs of 400 MiB, filled up to the last byte for 16 s, then emptied; the database is elsewhere",
    in_selection: false,
    needs: &[Need::Mount],
    stage: Some(|| Stage {
        setting: Setting { disks: &[("m1", "400m"), ("m2", "400m"), ("m3", "400m")], ..Setting::default() },
        ..Stage::default()
    }),
    not_run: None,
    act,
    judge: outage::keeps_leader,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.apply(&scene.witnesses.single("talker", "", &format!("--millis {MILLIS} --count")))?;
    let run = scene.start_run("talker")?;
    let begun = "SELECT count(*) FROM run r JOIN attempt a ON a.run_id = r.id WHERE r.workflow = 'talker' AND a.state = 3";
    scene.until_count("the talker to run", begun, 1, 30)?;
    let ballasts: Vec<PathBuf> =
        network::MASTERS.iter().map(|host| scene.file(host.name).join("ballast")).collect();
    let before = scene.notes.acknowledged();
    for _ in 0..LOOKS {
        ballasts.iter().for_each(|ballast| fill(ballast));
        scene.pause(2.0)?;
    }
    let during = scene.notes.acknowledged() - before;
    scene.measure("acknowledged while they were full", during);
    scene.expect(during > 0, "nothing was acknowledged, although the database had room");
    let arrived = lines_of(scene, &run)?.len();
    scene.measure("lines of the talker that had arrived", arrived);
    ballasts.iter().try_for_each(fs::remove_file)?;
    let said = said_by(scene, &run)?;
    ensure!(arrived < said, "all output arrived although the disks were full: nothing was shown");
    scene.cluster.wait("the whole output to arrive", ARRIVES_WITHIN, |cluster| {
        let shown = cluster.ctl(&["logs", &run, "only"])?;
        Ok((shown.lines().count() >= said).then_some(()))
    })?;
    let expected: Vec<String> = (1..=said).map(|number| format!("line {number}")).collect();
    let shown = lines_of(scene, &run)?;
    scene.expect(shown == expected, format!("{said} lines were said, and other ones are shown: {shown:?}"));
    Ok(())
}

fn lines_of(scene: &Scene<'_>, run: &str) -> anyhow::Result<Vec<String>> {
    Ok(scene.cluster.ctl(&["logs", run, "only"])?.lines().map(ToOwned::to_owned).collect())
}

/// Returns how many lines the one attempt of a run has said: one with each sign of life.
fn said_by(scene: &Scene<'_>, run: &str) -> anyhow::Result<usize> {
    let witness = fs::read_to_string(scene.file("witness.log"))?;
    let is_beat = |line: &&str| line.starts_with("B ") && line.contains(run);
    Ok(witness.lines().filter(is_beat).count())
}

//! The disk of an executor is full: output gives way, results are kept, nothing new starts there until there is room.

use std::fs;

use anyhow::ensure;
use millrace_common::{id::AttemptId, state::AttemptState};

use super::s35_database_disk_full::fill;
use crate::{
    capability::Need,
    clock,
    cluster::Setting,
    history::Figures,
    scenario::{Scenario, Stage},
    scene::{Scene, seconds},
};

/// The executor whose disk it is.
const NAME: &str = "x1";
/// How many looks of two seconds it is kept full for.
const LOOKS: usize = 10;
/// How long a start that was on its way may take to show, in microseconds.
const ON_ITS_WAY: u64 = 1_500_000;
/// How long after there is room something starts there again: it is left alone for 10 s where it refused before.
const AGAIN_WITHIN: u64 = 60;

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S39",
    title: "the disk of an executor is full for 20 s",
    injected: "x1 with all that it keeps on a tmpfs of 48 MiB, filled up to the last byte for 20 s while attempts print and end there, then emptied",
    in_selection: false,
    needs: &[Need::Mount],
    // A start that is refused for want of room is made elsewhere, and counts as tried again.
    stage: Some(|| Stage {
        setting: Setting { disks: &[(NAME, "48m")], ..Setting::default() },
        may_lose: true,
        ..Stage::default()
    }),
    not_run: None,
    act,
    judge,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.apply(&scene.witnesses.single("noisy", "", "--millis 12000 --bytes-per-beat 20000"))?;
    scene.runs_of("noisy", 9)?;
    let held = format!("SELECT count(*) FROM attempt WHERE state = 3 AND executor = '{NAME}'");
    ensure!(scene.count(&held)? > 0, "nothing runs on {NAME}");
    let ballast = scene.file(NAME).join("ballast");
    fill(&ballast);
    scene.fault();
    for _ in 0..LOOKS {
        scene.pause(2.0)?;
        fill(&ballast);
    }
    let until = scene.fault();
    fs::remove_file(&ballast)?;
    let ends = scene.codes_of(NAME);
    scene.expect(ends.is_empty(), format!("{NAME} ended with {ends:?} while its disk was full"));
    let begun = format!(
        "SELECT count(*) FROM attempt WHERE executor = '{NAME}' AND assigned_at > {} AND state IN (3, 10, 11)",
        clock::wall()
    );
    let given_up = scene.log(NAME)?.matches("output that is not shipped yet is given up").count();
    scene.measure("times that output gave way, as far as the log had room to say so", given_up);
    scene.until_count("the executor to take work again", &begun, 1, AGAIN_WITHIN)?;
    scene.measure_time("takes work again after", clock::now() - until);
    Ok(())
}

fn judge(scene: &mut Scene<'_>, figures: &Figures) {
    let lost = figures.count(AttemptState::Lost) + figures.broken_off;
    scene.expect(lost == 0, format!("{lost} results were lost for want of room"));
    let [from, until, ..] = scene.faults[..] else { return };
    let full = from + ON_ITS_WAY..until;
    let is_here =
        |attempt: &AttemptId| figures.executors.get(attempt).is_some_and(|name| name.as_str() == NAME);
    let ended = figures.ends.iter().filter(|(attempt, (at, end))| {
        is_here(attempt) && full.contains(at) && end.state == AttemptState::Succeeded
    });
    let ended = ended.count();
    scene.measure("succeeded there while it was full", ended);
    scene.expect(ended > 0, "nothing ended there while the disk was full, so nothing was shown");
    let begun =
        figures.lives.iter().filter(|(attempt, life)| is_here(attempt) && full.contains(&life.first)).count();
    let took = seconds(until - from);
    scene.expect(
        begun == 0,
        format!("{begun} attempts began on {NAME} in the {took} in which its disk was full"),
    );
}

//! An executor is restarted, and its program replaced, while one long attempt runs: it ends once, with its whole output.

use std::time::Duration;

use anyhow::Context as _;

use super::s51_rolling_restart::replace;
use crate::{
    history::Figures,
    scenario::{Scenario, Stage},
    scene::Scene,
};

/// How long the attempt lives, in seconds.
const LIVES: u64 = 300;

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "W2",
    title: "an executor is restarted and its program replaced during a job of five minutes",
    injected: "SIGKILL, SIGTERM, and SIGTERM with another file in the place of the program, to the executor that runs it",
    in_selection: false,
    needs: &[],
    stage: Some(|| Stage { ends_within: Duration::from_secs(LIVES + 60), ..Stage::default() }),
    not_run: None,
    act,
    judge,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.apply(&scene.witnesses.single("job", "", &format!("--count --millis {}", LIVES * 1_000)))?;
    let run = scene.start_run("job")?;
    let on = "SELECT executor FROM attempt WHERE state = 3 AND run_id IN (SELECT id FROM run WHERE workflow = 'job')";
    let name = scene.cluster.wait("the job to run", Duration::from_secs(60), |cluster| {
        Ok(cluster.database.sql(on).ok().filter(|name| !name.is_empty()))
    })?;
    scene.pause(20.0)?;
    scene.cluster.kill(&name);
    scene.pause(20.0)?;
    scene.signal(&name, nix::sys::signal::Signal::SIGTERM)?;
    scene.pause(20.0)?;
    replace(scene, &name, "millrace-executor")?;
    let ended = "SELECT count(*) FROM run WHERE workflow = 'job' AND state >= 10";
    scene.until_count("the job to end", ended, 1, LIVES + 60)?;
    check_output(scene, &run)
}

/// Every beat of the witness wrote one numbered line: none may be missing or come twice.
fn check_output(scene: &mut Scene<'_>, run: &str) -> anyhow::Result<()> {
    let output = scene.cluster.ctl(&["logs", run, "only"]).context("the output cannot be read")?;
    let numbers: Vec<u64> =
        output.lines().filter_map(|line| line.strip_prefix("line ")?.trim().parse().ok()).collect();
    let is_whole = numbers.iter().copied().eq(1..=numbers.len() as u64);
    scene.measure("lines of its output", numbers.len());
    scene.expect(is_whole && numbers.len() as u64 > LIVES * 8, "lines of its output are missing, or come twice");
    Ok(())
}

fn judge(scene: &mut Scene<'_>, figures: &Figures) {
    let attempts = figures.attempts_of("job").count();
    scene.expect(attempts == 1, format!("the job was tried {attempts} times"));
}

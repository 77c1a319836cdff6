//! The leader stands still past its lease with starts that are committed and not sent: another leader sends them, and what
//! the old one sends when it goes on changes nothing.

use std::{collections::BTreeSet, fs};

use anyhow::{Context as _, bail};
use millrace_common::id::AttemptId;
use nix::sys::signal::Signal;

use super::s02_kill_unacknowledged::busy;
use crate::{
    history::Figures,
    scenario::Scenario,
    scene::Scene,
};

/// How often it has to be hit, and how often the leader is stopped for that altogether.
const HITS: usize = 3;
const TRIES: usize = 600;

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S07",
    title: "the leader is frozen between assignment and start",
    injected: "no failpoint: SIGSTOP to the leader at random moments, until 0.15 s later attempts are committed as assigned that no executor has begun (else SIGCONT, and again), three times; SIGCONT 8 s after another one leads",
    in_selection: false,
    needs: &[],
    stage: Some(busy),
    not_run: None,
    act,
    judge,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let (mut tries, mut unsent) = (0, 0);
    for _ in 0..HITS {
        let leader = scene.leader()?;
        let name = scene.name_of(&leader);
        loop {
            tries += 1;
            if tries > TRIES {
                bail!("the leader was stopped {TRIES} times and seldom at the moment that is meant");
            }
            scene.pause_between(5, 60)?;
            scene.signal(&name, Signal::SIGSTOP)?;
            scene.pause(0.15)?;
            let found = assigned_and_not_begun(scene)?;
            if found > 0 {
                unsent += found;
                break;
            }
            scene.signal(&name, Signal::SIGCONT)?;
        }
        scene.fault();
        scene.next_leader(&leader, 60)?;
        scene.pause(8.0)?;
        scene.signal(&name, Signal::SIGCONT)?;
        scene.pause(3.0)?;
    }
    scene.measure("stopped", format!("{tries} times"));
    scene.measure("starts that were committed and not sent", unsent);
    Ok(())
}

fn assigned_and_not_begun(scene: &Scene<'_>) -> anyhow::Result<usize> {
    let query = "SELECT encode(run_id, 'hex') || '.' || instance_index || '.' || attempt_number FROM attempt WHERE state = 1";
    let assigned = scene.cluster.database.sql(query)?;
    let log = fs::read_to_string(scene.file("witness.log"))?;
    let begun = log.lines().filter_map(|line| line.strip_prefix("S ")?.split(' ').next()?.parse().ok());
    let begun: BTreeSet<AttemptId> = begun.collect();
    let mut count = 0;
    for attempt in assigned.lines() {
        let attempt: AttemptId = attempt.parse().with_context(|| format!("{attempt} is no attempt"))?;
        count += usize::from(!begun.contains(&attempt));
    }
    Ok(count)
}

fn judge(scene: &mut Scene<'_>, figures: &Figures) {
    scene.expect(figures.repeated == 0, "another attempt was made of what should have been sent again");
}

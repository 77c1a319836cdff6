//! A task that ignores TERM, leaves its session and has many children is cancelled: nothing of it is left.

use std::time::Duration;

use anyhow::Context as _;

use crate::{
    clock,
    network,
    scenario::{Scenario, Stage, nothing_more},
    scene::Scene,
};

/// Grace, and what it takes to see that nothing is left.
const GONE_WITHIN: Duration = Duration::from_secs(2 + 8);
/// Two fork away, one leaves the session, all ignore TERM, 300 sleep.
const SCRIPT: &str = "trap '' TERM; (setsid sh -c \"trap '' TERM; sleep 999\" &) & \
     setsid sh -c \"trap '' TERM; setsid sleep 999 & sleep 999\" & \
     for i in $(seq 300); do sleep 999 & done; wait; sleep 999";

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S49",
    title: "a hostile task is cancelled",
    injected: "a script that ignores TERM, double-forks, leaves its session twice and has 300 children; then `masterctl cancel`; no fork bomb, which would need a limit on processes that is not set",
    in_selection: true,
    needs: &[],
    stage: Some(Stage::default),
    not_run: None,
    act,
    judge: nothing_more,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let script = serde_json::to_string(SCRIPT)?;
    scene.apply(&format!(
        "workflow: hostile\ndefaults: {{ kill_grace: 2s }}\ntasks:\n  only: {{ kind: shell, with: {{ command: [sh, -c, {script}] }} }}\n"
    ))?;
    let run = scene.start_run("hostile")?;
    scene.cluster.wait("the hostile task to spread", Duration::from_secs(60), |cluster| {
        Ok((sleepers(cluster)? > 300).then_some(()))
    })?;
    let at = scene.fault();
    scene.cluster.ctl(&["cancel", &run])?;
    let gone = scene.cluster.wait("nothing of it to be left", Duration::from_secs(60), |cluster| {
        Ok((sleepers(cluster)? == 0).then(clock::now))
    })?;
    scene.faults.clear();
    scene.measure_time("nothing left after", gone - at);
    scene.expect(gone - at <= clock::micros(GONE_WITHIN), "it took too long until nothing was left");
    let ended = "SELECT count(*) FROM run WHERE workflow = 'hostile' AND state = 12";
    scene.until_count("the run to be cancelled", ended, 1, 30).map(drop).context("nothing is left, and nobody says so")
}

/// Counts the processes of the hostile task on all machines.
fn sleepers(cluster: &crate::cluster::Cluster<'_>) -> anyhow::Result<usize> {
    let mut count = 0;
    for host in network::EXECUTORS {
        for pid in cluster.network.processes(host)? {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            count += usize::from(line.starts_with(b"sleep\0999"));
        }
    }
    Ok(count)
}

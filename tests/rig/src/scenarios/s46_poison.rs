//! A task that kills its executor, with the supervisor: it ends for good after a bounded number of tries, and the others go on.

use crate::{
    history::Figures,
    scenario::{Scenario, Stage},
    scene::Scene,
};

/// Attempts of one task instance that may be lost before it fails.
const TRIES_MAX: usize = 16;
/// Ends every process of the executor's program on the machine at once, the supervisor above it too.
const SCRIPT: &str = "pids=; for p in /proc/[0-9]*; do \
     [ \"$(readlink $p/ns/net)\" = \"$(readlink /proc/self/ns/net)\" ] || continue; \
     case \"$(readlink $p/exe)\" in *millrace-executor*) pids=\"$pids ${p#/proc/}\";; esac; done; \
     kill -9 $pids; sleep 30";

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S46",
    title: "a task kills its executor and the supervisor again and again",
    injected: "the task's own script: SIGKILL to all processes of `millrace-executor` on its machine",
    in_selection: false,
    needs: &[],
    stage: Some(|| Stage { may_lose: true, ..Stage::default() }),
    not_run: None,
    act,
    judge,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let script = serde_json::to_string(SCRIPT)?;
    scene.apply(&format!(
        "workflow: poison\ndefaults: {{ orphan_timeout: 15s, kill_grace: 2s }}\ntasks:\n  only: {{ kind: shell, with: {{ command: [sh, -c, {script}] }} }}\n"
    ))?;
    scene.start_run("poison")?;
    let ended = "SELECT count(*) FROM run WHERE workflow = 'poison' AND state >= 10";
    scene.until_count("the poison to be given up", ended, 1, 240).map(drop)
}

fn judge(scene: &mut Scene<'_>, figures: &Figures) {
    let tries = figures.attempts_of("poison").count();
    scene.measure("executors that it killed", tries);
    scene.expect((1..=TRIES_MAX + 1).contains(&tries), format!("it was tried {tries} times"));
}

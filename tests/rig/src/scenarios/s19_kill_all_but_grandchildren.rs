//! An executor, its supervisor and the first processes of its attempts are killed; what those had started lives on.
//! The next life ends it before it says hello.

use nix::sys::signal::{Signal, kill};

use crate::{
    history::Figures,
    network,
    scenario::{Scenario, Stage},
    scene::Scene,
};

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S19",
    title: "executor, supervisor and direct children are killed, grandchildren live on",
    injected: "SIGKILL to the executor and the supervisor of x1 (which takes the shells with it), twice; witnesses are grandchildren",
    in_selection: false,
    needs: &[],
    stage: Some(|| Stage { may_lose: true, ..Stage::default() }),
    not_run: None,
    act,
    judge,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let witness = scene.witnesses.shell("--millis 15000");
    scene.apply(&format!(
        "workflow: nested\nmax_active_runs: 100\ndefaults: {{ retries: 3, retry_delay: 1s, orphan_timeout: 15s, kill_grace: 2s }}\ntasks:\n  only: {{ kind: shell, with: {{ command: [sh, -c, {witness:?}] }} }}\n",
        witness = format!("{witness} & wait")
    ))?;
    scene.runs_of("nested", 9)?;
    let host = network::EXECUTORS[0];
    for _ in 0..2 {
        scene.fault();
        let supervisors = scene.pids_with(host, "supervise")?;
        scene.cluster.kill(host.name);
        for pid in supervisors {
            kill(pid, Signal::SIGKILL)?;
        }
        scene.pause(5.0)?;
    }
    Ok(())
}

fn judge(scene: &mut Scene<'_>, figures: &Figures) {
    scene.expect(!figures.disturbed.is_empty(), "nothing was tried again, so nothing was shown");
}

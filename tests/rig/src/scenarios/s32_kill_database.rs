//! The database is killed at random moments under load: all of it, or any one of its processes.

use anyhow::Context as _;
use nix::sys::signal::{Signal, kill};

use crate::{
    network,
    scenario::{Scenario, Stage},
    scenarios::outage,
    scene::Scene,
};

/// How often something of it is killed.
const KILLS: usize = 20;

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S32",
    title: "PostgreSQL is killed at random moments, 20 times",
    injected: "SIGKILL after random pauses of 0.2 to 1.5 s, by turns to the server with all its sessions and to one of its processes at random; started again at once; the machine stays up, so what was handed to the system is not lost",
    in_selection: false,
    needs: &[],
    stage: Some(Stage::default),
    not_run: None,
    act,
    judge: outage::keeps_leader,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut longest = 0;
    for number in 0..KILLS {
        scene.fault();
        if number % 2 == 0 {
            scene.cluster.database.kill()
        } else {
            kill_one(scene)?
        }
        scene.cluster.database.resume();
        longest = outage::resumes(scene, longest)?;
        scene.pause_between(200, 1_500)?;
    }
    scene.measure_time("committed again after, longest", longest);
    Ok(())
}

/// Kills one process of the server, whichever it is; where it is the first one, the others go by themselves.
fn kill_one(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let processes = scene.cluster.network.processes(network::DATABASE)?;
    let chosen =
        processes.get(scene.seed.index(processes.len().max(1))).context("the database does not run")?;
    // It may have ended meanwhile, as sessions do.
    let _ = kill(*chosen, Signal::SIGKILL);
    Ok(())
}

//! As S12, and the executor's own process stands still: the supervisor keeps the deadlines alone.

use nix::sys::signal::Signal;

use super::fenced;
use crate::{
    capability::Need,
    network,
    scenario::{Scenario, Stage},
    scene::Scene,
};

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S14",
    title: "an executor is isolated and its process frozen; its supervisor is not",
    injected: "nft drops all of x1, SIGSTOP to the executor's process, for 40 s; orphan time 15 s, grace 2 s",
    in_selection: false,
    needs: &[Need::Filter],
    stage: Some(|| Stage { may_lose: true, ..Stage::default() }),
    not_run: None,
    act,
    judge: fenced::judge,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    fenced::occupy(scene)?;
    scene.fault();
    scene.cluster.network.isolate(network::EXECUTORS[0])?;
    scene.signal(fenced::EXECUTOR, Signal::SIGSTOP)?;
    scene.pause(fenced::LASTS)
}

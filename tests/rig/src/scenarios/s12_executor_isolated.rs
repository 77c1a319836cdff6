//! An executor is out of reach for longer than the orphan time: it ends its attempts by itself, then they run elsewhere.

use super::fenced;
use crate::{
    capability::Need,
    network,
    scenario::{Scenario, Stage},
    scene::Scene,
};

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S12",
    title: "an executor is isolated past the orphan time",
    injected: "nft drops all that x1 sends and receives for 40 s; orphan time 15 s, grace 2 s",
    in_selection: true,
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
    scene.pause(fenced::LASTS)
}

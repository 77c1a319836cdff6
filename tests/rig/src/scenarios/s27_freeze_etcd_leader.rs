//! etcd's own leader stands still: another member leads etcd, and leases go on, or one more election is held.

use crate::{
    network,
    scenario::{Scenario, Stage, nothing_more},
    scene::Scene,
};

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S27",
    title: "etcd's own leader is frozen for 15 s",
    injected: "SIGSTOP to all of that member's machine, SIGCONT after 15 s; etcd of Debian, whose leases have known faults",
    in_selection: false,
    needs: &[],
    stage: Some(Stage::default),
    not_run: None,
    act,
    judge: nothing_more,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    use nix::sys::signal::Signal;
    let member = network::ETCD[scene.etcd_leader()?];
    scene.cluster.network.signal_all(member, Signal::SIGSTOP)?;
    scene.pause(15.0)?;
    scene.cluster.network.signal_all(member, Signal::SIGCONT)?;
    scene.pause(5.0)
}

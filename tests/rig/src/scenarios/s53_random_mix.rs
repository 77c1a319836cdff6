//! Harm of all kinds, chosen by the seed, one after the other and on top of each other.

use nix::sys::signal::Signal;

use crate::{
    capability::Need,
    network,
    scenario::{Scenario, Stage, nothing_more},
    scene::Scene,
};

/// How much harm is done.
const ROUNDS: usize = 30;

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S53",
    title: "a random mix of 30 faults",
    injected: "by the seed: kills and freezes of masters, executors, supervisors, etcd members and the database, cuts, loss; each for up to 6 s, up to three at once",
    in_selection: false,
    needs: &[Need::Filter],
    stage: Some(|| Stage { may_lose: true, ..Stage::default() }),
    not_run: None,
    act,
    judge: nothing_more,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut told = Vec::new();
    for round in 0..ROUNDS {
        told.push(harm(scene)?);
        scene.pause_between(200, 6_000)?;
        // Up to three at once, then a moment of peace.
        if round % 3 == 2 {
            scene.cluster.heal()?;
            scene.pause_between(1_000, 5_000)?;
        }
    }
    told.sort_unstable();
    told.dedup();
    scene.measure("kinds of harm", told.len());
    Ok(())
}

fn harm(scene: &mut Scene<'_>) -> anyhow::Result<&'static str> {
    let (master, executor) = (scene.seed.index(3), scene.seed.index(3));
    let (etcd, kind) = (scene.seed.index(3), scene.seed.index(12));
    let (masters, executors) = (network::MASTERS, network::EXECUTORS);
    let network = scene.cluster.network;
    Ok(match kind {
        0 | 1 => {
            scene.cluster.kill(masters[master].name);
            "kill master"
        }
        2 => {
            network.signal_all(masters[master], Signal::SIGSTOP)?;
            "freeze master"
        }
        3 => {
            scene.cluster.kill(executors[executor].name);
            "kill executor"
        }
        4 => {
            // There may be none at the moment.
            let _ = scene.kill_supervisor(executors[executor]);
            "kill supervisor"
        }
        5 => {
            network.isolate(executors[executor])?;
            "isolate executor"
        }
        6 => {
            scene.cluster.etcd.kill(etcd);
            "kill etcd member"
        }
        7 => {
            network::ETCD.iter().try_for_each(|etcd| network.cut(masters[master], *etcd))?;
            "cut master from etcd"
        }
        8 => {
            network.cut(masters[master], network::DATABASE)?;
            "cut master from database"
        }
        9 => {
            network.lose(masters[master], 30)?;
            "lose packets of a master"
        }
        10 => {
            network.reset(masters[master], executors[executor])?;
            "reset connections of an executor"
        }
        _ => {
            scene.cluster.database.kill();
            scene.cluster.database.resume();
            "kill database"
        }
    })
}

//! One executor has a bad and slow link, and much output to ship over it: heartbeats have a connection of their own.

use crate::{
    capability::Need,
    history::Figures,
    network,
    scenario::{Scenario, Stage},
    scene::Scene,
};

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S44",
    title: "an executor with much output on a slow link that loses packets",
    injected: "x1: nft loses 10 of 100 packets each way and tbf leaves 50 KB a second for what it sends, for 30 s; its attempts print 100 MB; orphan time 60 s",
    in_selection: false,
    needs: &[Need::Filter, Need::Bandwidth],
    stage: Some(Stage::default),
    not_run: None,
    act,
    judge,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    // 20 s with ten beats a second, on each of the three executors.
    scene.apply(&scene.witnesses.single("loud", "", "--millis 20000 --bytes-per-beat 170000"))?;
    let host = network::EXECUTORS[0];
    scene.cluster.network.lose(host, 10)?;
    scene.cluster.network.throttle(host, 50_000)?;
    scene.runs_of("loud", 9)?;
    scene.pause(30.0)
}

fn judge(scene: &mut Scene<'_>, figures: &Figures) {
    let attempts = figures.attempts_of("loud").count();
    scene.expect(attempts == 9, format!("{attempts} attempts of 9 loud tasks"));
}

//! An executor dies anywhere between a start and the acknowledgement of its end, alone or with its supervisor.

use crate::{
    history::Figures,
    network,
    scenario::{Scenario, Stage},
    scene::Scene,
};

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S20",
    title: "executors are killed at any point of an attempt's life",
    injected: "no failpoints: SIGKILL to an executor 24 times at random moments under short tasks, every third time with its supervisor; how often which moment was hit is counted afterwards",
    in_selection: false,
    needs: &[],
    stage: Some(|| Stage { may_lose: true, ..super::s02_kill_unacknowledged::busy() }),
    not_run: None,
    act,
    judge,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    for round in 0..24 {
        let host = network::EXECUTORS[round % 3];
        scene.pause_between(200, 800)?;
        scene.fault();
        scene.cluster.kill(host.name);
        if round % 3 == 2 {
            // It may be on its way out by itself.
            let _ = scene.kill_supervisor(host);
        }
    }
    scene.pause(3.0)
}

fn judge(scene: &mut Scene<'_>, figures: &Figures) {
    let sum = |count: fn(&Figures, u64) -> usize| scene.faults.iter().map(|at| count(figures, *at)).sum::<usize>();
    let (unstarted, unreported) = (sum(Figures::unstarted_at), sum(Figures::unreported_at));
    scene.measure("between assignment and process at a kill", unstarted);
    scene.measure("between end and its record at a kill", unreported);
    scene.expect(unstarted > 0 && unreported > 0, "a moment was never hit, so nothing was shown");
}

//! The leader dies after it has committed and before it has told: the client asks again, and the same key gives the same
//! run; the executor gets the same attempt from the next leader.

use crate::{
    history::Figures,
    load::{Plan, workflows::Shape},
    scenario::{Scenario, Stage},
    scene::Scene,
};

/// How often the leader is killed: each has a chance to hit the moment.
const KILLS: usize = 25;

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S02",
    title: "the leader is killed between commit and answer",
    injected: "no failpoint: SIGKILL to the leader 25 times at random moments under 25 submissions a second; how often the moment was hit is counted afterwards",
    in_selection: false,
    needs: &[],
    stage: Some(busy),
    not_run: None,
    act,
    judge,
};

pub(super) fn busy() -> Stage {
    Stage {
        shape: Shape { tasks: (1, 2), millis: (100, 400), failing: 0, ..Shape::default() },
        plan: Plan { per_second: 25.0, cancels: 0, workflows: Vec::new() },
        ..Stage::default()
    }
}

pub(super) fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    for _ in 0..KILLS {
        let leader = scene.leader()?;
        let name = scene.name_of(&leader);
        scene.pause_between(150, 900)?;
        scene.fault();
        scene.cluster.kill(&name);
        scene.next_leader(&leader, 30)?;
    }
    Ok(())
}

fn judge(scene: &mut Scene<'_>, figures: &Figures) {
    let hits: usize = scene.faults.iter().map(|at| figures.unacknowledged_at(*at)).sum();
    scene.measure("committed and not yet acknowledged at a kill", hits);
    scene.expect(hits > 0, "the moment was never hit, so nothing was shown");
}

//! etcd has no majority for longer than the orphan time: attempts that may be tried again end by themselves, those that
//! may not run on.

use crate::{
    history::Figures,
    scenario::{Scenario, Stage},
    scene::Scene,
};

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S26",
    title: "two of three etcd members are away past the orphan time",
    injected: "SIGKILL to two members, started again after 40 s; orphan time 15 s; half the tasks say on_lost: confirm",
    in_selection: false,
    needs: &[],
    stage: Some(|| Stage { may_lose: true, ..Stage::default() }),
    not_run: None,
    act,
    judge,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.long("again", 6, 45, "orphan_timeout: 15s")?;
    scene.long("once", 6, 45, "on_lost: confirm")?;
    let leader = scene.leader()?;
    scene.fault();
    scene.cluster.etcd.kill(0);
    scene.cluster.etcd.kill(1);
    scene.pause(40.0)?;
    scene.cluster.etcd.resume_all();
    scene.next_leader(&leader, 60).map(drop)
}

fn judge(scene: &mut Scene<'_>, figures: &Figures) {
    let again = figures.attempts_of("again").filter(|attempt| attempt.number > 1).count();
    let once = figures.attempts_of("once").filter(|attempt| attempt.number > 1).count();
    scene.measure("orphans that ended themselves and ran again", again);
    scene.expect(again > 0, "no orphan ended by itself");
    scene.expect(once == 0, format!("{once} attempts that say `confirm` were tried again"));
}

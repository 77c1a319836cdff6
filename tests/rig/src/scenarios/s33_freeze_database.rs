//! The database stands still for far longer than the orphan time: nothing is dispatched, and what runs keeps its contact.

use crate::{
    history::Figures,
    load::{Plan, workflows::Shape},
    scenario::{Scenario, Stage},
    scenarios::outage,
    scene::Scene,
};

/// How long it stands still.
const STANDS: f64 = 60.0;

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S33",
    title: "PostgreSQL stands still for 60 s; orphan time 15 s",
    injected: "SIGSTOP to the server and all its sessions, SIGCONT after 60 s; nine attempts run all the time and would be ended without an answered heartbeat in any 15 s",
    in_selection: false,
    needs: &[],
    // Few and short, so that what is due after it does not take as long again.
    stage: Some(|| Stage {
        shape: Shape { millis: (100, 800), ..Shape::default() },
        plan: Plan { per_second: 1.0, cancels: 10, workflows: Vec::new() },
        ..Stage::default()
    }),
    not_run: None,
    act,
    judge,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    scene.long("long", 9, 66, "orphan_timeout: 15s")?;
    let (before, at) = (scene.notes.acknowledged(), scene.fault());
    scene.cluster.database.freeze();
    scene.pause(STANDS)?;
    let during = scene.notes.acknowledged() - before;
    let until = scene.fault();
    scene.cluster.database.thaw();
    // What was answered already is noted within a moment.
    scene.expect(during <= 2, format!("{during} requests were acknowledged without a database"));
    scene.measure_time("stood still for", until - at);
    let took = outage::resumes(scene, 0)?;
    scene.measure_time("committed again after", took);
    Ok(())
}

fn judge(scene: &mut Scene<'_>, figures: &Figures) {
    let [from, until, ..] = scene.faults[..] else { return };
    outage::starts_nothing(scene, figures, from, until);
    outage::keeps_leader(scene, figures);
    let went_on = figures.attempts_of("long").filter(|attempt| attempt.number > 1).count();
    scene.expect(went_on == 0, "an attempt that ran all the time was tried again");
}

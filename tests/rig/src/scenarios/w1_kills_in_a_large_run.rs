//! The leader is killed ten times during one run of 2,000 tasks.

use std::fmt::Write as _;

use crate::{
    history::Figures,
    load::Plan,
    scenario::{Scenario, Stage},
    scene::Scene,
};

const TASKS: usize = 2_000;
const KILLS: usize = 10;

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "W1",
    title: "the leader is killed ten times during a run of 2,000 tasks",
    injected: "SIGKILL to the leader, 10 times, spread over the run",
    in_selection: false,
    needs: &[],
    stage: Some(|| Stage { plan: Plan { per_second: 0.5, cancels: 0, workflows: Vec::new() }, ..Stage::default() }),
    not_run: None,
    act,
    judge,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let command = scene.witnesses.command("--millis 250");
    let mut text = String::from("workflow: large\ndefaults: { orphan_timeout: 15s, kill_grace: 2s }\ntasks:\n");
    for task in 0..TASKS {
        // Half of them after another one, so that there is something to decide.
        let after = if task % 2 == 1 { format!("after: [t{}], ", task - 1) } else { String::new() };
        let _ = writeln!(text, "  t{task}: {{ kind: shell, {after}with: {{ command: {command} }} }}");
    }
    scene.apply(&text)?;
    scene.start_run("large")?;
    let ended = "SELECT count(*) FROM attempt WHERE state = 10 AND run_id IN (SELECT id FROM run WHERE workflow = 'large')";
    for kill in 1..=KILLS {
        let least = kill * TASKS / (KILLS + 1);
        scene.until_count("the run to go on", ended, least as u64, 200)?;
        let leader = scene.leader()?;
        let name = scene.name_of(&leader);
        scene.fault();
        scene.cluster.kill(&name);
        scene.next_leader(&leader, 30)?;
    }
    scene.until_count("the run to succeed", "SELECT count(*) FROM run WHERE workflow = 'large' AND state = 10", 1, 200)?;
    Ok(())
}

fn judge(scene: &mut Scene<'_>, figures: &Figures) {
    let attempts = figures.attempts_of("large").count();
    scene.measure("attempts of the large run", attempts);
    scene.expect(attempts == TASKS, format!("{attempts} attempts of {TASKS} tasks"));
}

//! From a scenario to its outcome: the cluster is made and loaded, harmed, healed, waited for, and judged.

use std::{
    fs,
    panic::{self, AssertUnwindSafe},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use millrace_checker::{Event, Rules, Violation};
use millrace_common::state::AttemptState;

use crate::{
    clock,
    cluster::Cluster,
    history::{self, Collected, Figures, History, audit},
    load::{
        Load, Notes,
        workflows::{self, Witnesses},
    },
    network::{self, Network},
    outcome::{Outcome, Verdict},
    planted,
    random::Random,
    scenario::{Scenario, Stage},
    scene::Scene,
};

/// How long the load goes on after everything is healed, so that a cluster that answers nobody is found out.
const LOAD_AFTER: f64 = 4.0;
/// How long a cluster may take to run the first attempts.
const WARM_WITHIN: u64 = 60;
/// Exit code of `masterctl verify` where nothing contradicts and something could not be looked at.
const VERIFY_PARTIAL: i32 = 7;
/// Rows that are shown of what is wrong.
const SHOWN_MAX: usize = 12;

/// Where one rig keeps what it makes.
#[derive(Debug)]
pub(crate) struct Rig {
    pub(crate) network: Network,
    pub(crate) folder: PathBuf,
    /// Where what is worth a look is left.
    pub(crate) kept: PathBuf,
    /// Whether that is everything.
    pub(crate) keeps_all: bool,
    pub(crate) seed: u64,
}

/// Plays a scenario.
pub(crate) fn play(rig: &Rig, scenario: &Scenario) -> Outcome {
    let begun = clock::now();
    let mut outcome = Outcome::of(scenario);
    let stage = scenario.stage.map(|stage| stage()).unwrap_or_default();
    let folder = rig.folder.join(scenario.id);
    let seed = Random::new(rig.seed).fork(scenario.id);
    let kept = rig.kept.join(scenario.id);
    let play = || {
        prepare(rig, &folder, &kept, &stage, seed).and_then(|(mut scene, load)| {
            let told = perform(rig, scenario, &stage, &mut scene, load);
            if rig.keeps_all || !matches!(told, Ok(Verdict::Passed)) {
                scene.cluster.keep_logs(&kept);
            }
            outcome.measured = std::mem::take(&mut scene.measured);
            outcome.verdict = told?;
            Ok(())
        })
    };
    // The hands of the rig panic where they cannot do what they are told; the other scenarios go on.
    match panic::catch_unwind(AssertUnwindSafe(play)) {
        Ok(Ok(())) => {}
        Ok(Err(error)) => outcome.fail(format!("the scenario broke off: {error:#}")),
        Err(_) => outcome.fail("the scenario panicked; what is above says why".to_owned()),
    }
    if let Err(error) = rig.network.clear() {
        outcome.fail(format!("the rig cannot tidy up: {error:#}"));
    }
    // Whatever is left has been copied.
    let _ = fs::remove_dir_all(&folder);
    outcome.took = clock::now() - begun;
    outcome
}

fn prepare<'r>(
    rig: &'r Rig,
    folder: &Path,
    kept: &Path,
    stage: &Stage,
    seed: Random,
) -> anyhow::Result<(Scene<'r>, Load)> {
    rig.network.clear()?;
    fs::create_dir_all(folder.join("locks"))?;
    let witnesses = Witnesses::new(
        &millrace_servers::built("millrace-witness"),
        &folder.join("witness.log"),
        &folder.join("locks"),
    );
    fs::write(folder.join("witness.log"), "")?;
    let mut cluster = Cluster::start(&rig.network, folder, &stage.setting, kept)?;
    audit::begin(&cluster.database)?;
    let definitions = workflows::definitions(&stage.shape, &witnesses, &seed);
    let files: Vec<String> = definitions
        .iter()
        .map(|(name, text)| {
            let file = folder.join(format!("{name}.yaml"));
            fs::write(&file, text)?;
            Ok(file.display().to_string())
        })
        .collect::<anyhow::Result<_>>()?;
    if !files.is_empty() {
        let arguments: Vec<&str> = ["apply"].into_iter().chain(files.iter().map(String::as_str)).collect();
        cluster.ctl(&arguments)?;
    }
    let notes = Arc::new(Notes::default());
    let mut plan = stage.plan.clone();
    let graphs = definitions.into_iter().map(|(name, _)| name).take(stage.shape.graphs);
    plan.workflows = graphs.collect();
    let masters = cluster.masters.iter().map(millrace_servers::Master::url).collect();
    let load = Load::start(&rig.network, masters, plan, &seed, Arc::clone(&notes))?;
    cluster.tend();
    let scene = Scene {
        cluster,
        seed: seed.fork("scenario"),
        notes,
        witnesses,
        measured: Vec::new(),
        broken: Vec::new(),
        faults: Vec::new(),
    };
    Ok((scene, load))
}

fn perform(
    rig: &Rig,
    scenario: &Scenario,
    stage: &Stage,
    scene: &mut Scene<'_>,
    mut load: Load,
) -> anyhow::Result<Verdict> {
    let ran = "SELECT count(*) FROM attempt WHERE state >= 3";
    scene.until_count("the first attempts", ran, stage.warm_up as u64, WARM_WITHIN)?;
    let acted = (scenario.act)(scene);
    scene.cluster.heal()?;
    scene.note(Event::Healed);
    let healed = (clock::now(), clock::wall());
    // What broke off is judged all the same: its history may say why.
    if let Err(error) = acted {
        scene.broken.push(format!("the scenario broke off: {error:#}"));
    }
    scene.pause(LOAD_AFTER)?;
    load.stop()?;
    let rest = wait_for_rest(scene, healed.1, stage.ends_within);
    let collected = collect(scene)?;
    let history = collected.history();
    let rules = Rules { ends_within: clock::micros(stage.ends_within), ..Rules::default() };
    let violations = history::judge(rules.clone(), &history, collected.read_at);
    let figures = Figures::of(&history);
    tell_figures(scene, &figures, rest.ok().map(|()| clock::now() - healed.0));
    judge_losses(scene, stage, &figures);
    (scenario.judge)(scene, &figures);
    verify(scene)?;
    let left = processes_of_ended(scene, &history)?;
    scene.broken.extend(left);
    if rig.keeps_all || !violations.is_empty() || !scene.broken.is_empty() {
        keep_history(&collected, &history, &rig.kept.join(scenario.id))?;
    }
    if violations.is_empty() {
        let (planted, missed) = planted::unnoticed(&collected, &rules);
        scene.measure("planted wrongs noticed", format!("{} of {planted}", planted - missed.len()));
        scene.broken.extend(missed);
    }
    Ok(verdict(&violations, &scene.broken))
}

/// Waits until all runs that were there when everything was healed have ended.
fn wait_for_rest(scene: &mut Scene<'_>, healed_wall: i64, bound: Duration) -> anyhow::Result<()> {
    let open = format!("SELECT count(*) FROM run WHERE state < 10 AND created_at <= {healed_wall}");
    scene.cluster.wait("all runs to end", bound, |cluster| {
        Ok(cluster.database.sql(&open).ok().filter(|count| count.trim() == "0").map(drop))
    })
}

/// Collects what is left behind; the order matters, since the cluster goes on meanwhile.
fn collect(scene: &Scene<'_>) -> anyhow::Result<Collected> {
    let read_at = clock::now();
    let rows = audit::read(&scene.cluster.database)?;
    let witness = fs::read_to_string(scene.file("witness.log"))?;
    let noted = scene.notes.events();
    let slots = scene.cluster.slots;
    let mut collected =
        Collected { rows, witness, noted, slots, wall_to_boot: clock::wall_to_boot(), read_at };
    collected.settle();
    Ok(collected)
}

fn tell_figures(scene: &mut Scene<'_>, figures: &Figures, rest: Option<u64>) {
    let times: Vec<(u64, u64)> = scene
        .faults
        .iter()
        .filter_map(|at| Some((figures.claimed_after(*at)?, figures.dispatched_after(*at)?)))
        .collect();
    if let Some(most) = times.iter().map(|(claimed, _)| *claimed).max() {
        scene.measure_time("fail-over, longest", most);
    }
    if let Some(most) = times.iter().map(|(_, dispatched)| *dispatched).max() {
        scene.measure_time("to the next dispatch", most);
    }
    scene.measure("terms", figures.first_commits.len());
    scene.measure("runs", figures.runs);
    scene.measure("attempts", figures.attempts);
    scene.measure("tried again", figures.repeated);
    scene.measure("of those not by own failure", figures.disturbed.len());
    scene.measure("lost", figures.count(AttemptState::Lost));
    scene.measure("overlap", format!("{} ms", figures.overlap / 1_000));
    if let Some(gap) = figures.gap {
        scene.measure_time("shortest gap", gap);
    }
    let notes = Arc::clone(&scene.notes);
    scene.measure("acknowledged", notes.acknowledged());
    scene.measure_time("slowest answer", notes.slowest());
    for (what, count) in [("refused", notes.refused()), ("on their way at the end", notes.unanswered())] {
        if count > 0 {
            scene.measure(what, count);
        }
    }
    match rest {
        Some(rest) => scene.measure_time("all ended after", rest),
        None => scene.measure("all ended after", "not within the bound"),
    }
}

fn judge_losses(scene: &mut Scene<'_>, stage: &Stage, figures: &Figures) {
    let lost = figures.count(AttemptState::Lost);
    scene.expect(stage.may_lose || lost == 0, format!("{lost} attempts were lost, and nothing was to be"));
    let broken_off = figures.broken_off;
    scene.expect(stage.may_lose || broken_off == 0, format!("{broken_off} attempts were broken off"));
    let disturbed = figures.disturbed.len();
    let what = format!("{disturbed} attempts were tried again, and not because they failed by themselves");
    scene.expect(stage.may_lose || disturbed == 0, what);
    let rejected = figures.count(AttemptState::Rejected);
    if rejected > 0 {
        scene.measure("rejected", rejected);
    }
}

/// Lets the cluster look for contradictions in what it has kept itself.
fn verify(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let output = scene.cluster.ask(&["verify", "--since", "1h"])?;
    match output.status.code() {
        Some(0) => scene.measure("verify", "clean"),
        Some(VERIFY_PARTIAL) => scene.measure("verify", "clean, of what could be looked at"),
        code => {
            let said = [output.stdout, output.stderr].concat();
            let said = String::from_utf8_lossy(&said).trim().to_owned();
            scene.broken.push(format!("`masterctl verify` ends with {code:?}: {said}"));
        }
    }
    Ok(())
}

/// Finds processes of attempts that the database has as ended.
fn processes_of_ended(scene: &Scene<'_>, history: &History) -> anyhow::Result<Vec<String>> {
    let ended = history.ended_attempts();
    let mut left = Vec::new();
    for host in network::EXECUTORS.into_iter().chain(network::MASTERS) {
        for pid in scene.cluster.network.processes(host)? {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            let environ = String::from_utf8_lossy(&environ).into_owned();
            let mark = environ.split('\0').find_map(|variable| variable.strip_prefix("MILLRACE_ATTEMPT="));
            if let Some(attempt) = mark.and_then(|mark| mark.parse().ok())
                && ended.contains(&attempt)
            {
                left.push(format!(
                    "I13: process {pid} on {} belongs to {attempt}, which has ended",
                    host.name
                ));
            }
        }
    }
    Ok(left)
}

fn verdict(violations: &[Violation], broken: &[String]) -> Verdict {
    let mut wrong: Vec<String> = violations.iter().map(ToString::to_string).collect();
    wrong.extend(broken.iter().cloned());
    if wrong.is_empty() {
        return Verdict::Passed;
    }
    let more = wrong.len().saturating_sub(SHOWN_MAX);
    wrong.truncate(SHOWN_MAX);
    if more > 0 {
        wrong.push(format!("and {more} more"));
    }
    Verdict::Failed(wrong)
}

fn keep_history(collected: &Collected, history: &History, folder: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let lines = history.events.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
    fs::write(folder.join("history.jsonl"), lines.join("\n"))?;
    fs::write(folder.join("witness.log"), &collected.witness)?;
    let rows = collected.rows.iter().map(serde_json::to_string).collect::<Result<Vec<_>, _>>()?;
    fs::write(folder.join("rows.jsonl"), rows.join("\n")).context("cannot keep what was found")
}

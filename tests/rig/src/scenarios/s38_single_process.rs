//! One process over SQLite: killed again and again under load, its disk full, and a second one beside it.

use std::{fs, time::Duration};

use anyhow::Context as _;

use super::s35_database_disk_full::fill;
use crate::{
    capability::Need,
    cluster::{ALONE, Setting},
    database::Engine,
    history::Figures,
    load::{Plan, workflows::Shape},
    network,
    scenario::{Scenario, Stage},
    scene::Scene,
};

/// The one program.
const NAME: &str = "m1";
/// How often it is killed.
const KILLS: usize = 60;
/// How many looks of a second its disk is kept full for.
const LOOKS: usize = 10;
/// Acknowledgements that may follow a full disk: what was committed before.
const ON_ITS_WAY: u64 = 2;
/// How it may end where it cannot write: it could not start, or could not commit.
const ENDS: [Option<i32>; 2] = [Some(1), Some(75)];

pub(crate) const SCENARIO: Scenario = Scenario {
    id: "S38",
    title: "`millrace` in one process over SQLite: killed 60 times, a second one beside it, its disk full",
    injected: "a second `millrace run` on the same folder; SIGKILL to the process 60 times, 0 to 1.2 s after each start, started again after 0.3 s (its supervisor lives on); all that it keeps on a tmpfs of 160 MiB, filled up to the last byte for 10 s after the log of the file was emptied by `wal_checkpoint(TRUNCATE)`; the machine stays up, so what was handed to the system is not lost",
    in_selection: false,
    needs: &[Need::Sqlite, Need::Mount],
    stage: Some(|| Stage {
        setting: Setting { engine: Engine::Sqlite, disks: &[(ALONE, "160m")], ..Setting::default() },
        shape: Shape { tasks: (1, 3), millis: (50, 600), ..Shape::default() },
        plan: Plan { per_second: 3.0, cancels: 10, workflows: Vec::new() },
        ..Stage::default()
    }),
    not_run: None,
    act,
    judge,
};

fn act(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    refuse_second(scene)?;
    kill_often(scene)?;
    until_answers(scene)?;
    check_file(scene, "after the kills")?;
    fill_disk(scene)?;
    until_answers(scene)?;
    check_file(scene, "after the disk was full")
}

/// Starts a second process on the same folder, which has to go.
fn refuse_second(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let [host, ..] = network::MASTERS;
    let settings = scene.cluster.program(NAME)?.home().file("settings.toml");
    let mut second = scene.cluster.network.command(host);
    let second = second.args(["timeout", "20"]).arg(millrace_servers::built("millrace"));
    let output =
        second.args(["run", "--config"]).arg(settings).env("MILLRACE_DATA", scene.file(ALONE)).output()?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let is_refused = output.status.code() == Some(1) && said.contains("in use by another process");
    scene.expect(is_refused, format!("a second process ended with {} and said {said:?}", output.status));
    let ends = scene.codes_of(NAME);
    scene.expect(ends.is_empty(), "the first process ended because of the second");
    Ok(())
}

fn kill_often(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let mut kills = 0;
    while kills < KILLS {
        // Nobody reads the file meanwhile: that would do the recovery that the program is to do.
        scene.pause_between(350, 1_500)?;
        if scene.cluster.program(NAME)?.is_running() {
            kills += 1;
            scene.cluster.kill(NAME);
        }
    }
    let ends = scene.codes_of(NAME);
    scene.expect(ends.is_empty(), format!("between the kills it ended by itself with {ends:?}"));
    Ok(())
}

fn fill_disk(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let ballast = scene.file(ALONE).join("ballast");
    // The log keeps its length when it begins anew: without this there would be room for seconds.
    scene.cluster.database.sql("PRAGMA wal_checkpoint(TRUNCATE)")?;
    let before = (scene.codes_of(NAME).len(), scene.notes.acknowledged());
    for _ in 0..LOOKS {
        fill(&ballast);
        scene.pause(1.0)?;
    }
    let acknowledged = scene.notes.acknowledged() - before.1;
    fs::remove_file(&ballast).context("cannot make room again")?;
    let ends = scene.codes_of(NAME).split_off(before.0);
    scene.measure("ended while its disk was full", format!("{} times", ends.len()));
    scene.measure("acknowledged while its disk was full", acknowledged);
    scene.expect(!ends.is_empty() || acknowledged <= ON_ITS_WAY, "it never noticed that its disk was full");
    let are_clean = ends.iter().all(|code| ENDS.contains(code));
    scene.expect(are_clean, format!("while its disk was full it ended with {ends:?}"));
    Ok(())
}

fn until_answers(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    let bound = Duration::from_secs(60);
    scene.cluster.wait("it to answer again", bound, |cluster| Ok(cluster.ctl(&["executor", "list"]).ok()))?;
    Ok(())
}

fn check_file(scene: &mut Scene<'_>, when: &str) -> anyhow::Result<()> {
    let found = scene.cluster.database.sql("PRAGMA integrity_check")?;
    scene.expect(found == "ok", format!("integrity_check says {when}: {found}"));
    Ok(())
}

fn judge(scene: &mut Scene<'_>, figures: &Figures) {
    // The claims show that each start went as far as leading, or how many did not.
    scene.measure("starts that came to lead", figures.claims.len());
    let again = figures.disturbed.len();
    scene.measure("attempts cut off by a kill", again);
}

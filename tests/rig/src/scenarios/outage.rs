//! What scenarios about the database have in common: when somebody commits again, and what may not happen meanwhile.

use std::time::Duration;

use crate::{
    clock,
    history::Figures,
    network::{self, Host},
    proxy::Proxy,
    scene::{Scene, seconds},
};

/// How long after the database is back somebody commits again.
pub(super) const COMMITS_WITHIN: Duration = Duration::from_secs(10);
/// What was committed before the database went away may begin so long after.
const ON_ITS_WAY: Duration = Duration::from_secs(1);
/// How many of a hundred COMMITs break their connection.
const BROKEN_PERCENT: u64 = 30;
const DATABASE: Host = network::DATABASE;

/// Waits until the database has a transaction more than now; returns how long that took, in microseconds.
pub(super) fn until_commit(scene: &mut Scene<'_>) -> anyhow::Result<u64> {
    const FENCE: &str = "SELECT term, seq FROM leadership";
    let (begun, bound) = (clock::now(), Duration::from_secs(60));
    let before = scene
        .cluster
        .wait("the database to answer", bound, |cluster| Ok(cluster.database.sql(FENCE).ok()))?;
    scene.cluster.wait("somebody to commit again", bound, |cluster| {
        Ok(cluster.database.sql(FENCE).ok().filter(|now| *now != before))
    })?;
    Ok(clock::now() - begun)
}

/// Waits until somebody commits again, and says so where it takes too long; returns the longer of both times.
pub(super) fn resumes(scene: &mut Scene<'_>, longest: u64) -> anyhow::Result<u64> {
    let took = until_commit(scene)?;
    let is_quick = took <= clock::micros(COMMITS_WITHIN);
    scene.expect(is_quick, format!("nobody committed for {} after the database was back", seconds(took)));
    Ok(took.max(longest))
}

/// Asks that an outage costs nobody the leadership.
pub(super) fn keeps_leader(scene: &mut Scene<'_>, figures: &Figures) {
    let claims = figures.claims.len();
    scene.expect(claims == 1, format!("there were {claims} terms, and the first leader could have gone on"));
}

/// Asks that no attempt begins while the database is away.
pub(super) fn starts_nothing(scene: &mut Scene<'_>, figures: &Figures, from: u64, until: u64) {
    let away = from + clock::micros(ON_ITS_WAY)..until;
    let begun = figures.lives.values().filter(|life| away.contains(&life.first)).count();
    scene.expect(begun == 0, format!("{begun} attempts began while the database was away"));
}

/// Breaks connections to the database where a COMMIT passes, until so many are broken.
pub(super) fn break_commits(scene: &mut Scene<'_>, least: u64, bound: Duration) -> anyhow::Result<()> {
    let port = scene.cluster.database.port();
    let mut proxy = Proxy::start(scene.cluster.network, DATABASE, port, BROKEN_PERCENT, &scene.seed)?;
    // They come again, by the other way.
    for master in network::MASTERS {
        scene.cluster.database.end_sessions(&master.address())?;
    }
    let broken =
        scene.cluster.wait("connections to break", bound, |_| Ok((proxy.broken() >= least).then_some(())));
    scene.measure("COMMITs that broke their connection", proxy.told());
    scene.cluster.network.heal(DATABASE)?;
    proxy.stop()?;
    broken
}

//! Whether a file is complete at its origin.
//!
//! A camera writes its report for minutes, and FTP shows half of it like a whole one. Which rule holds is a parameter; what
//! is not complete in time is left, and the caller is told.

use std::{
    collections::HashMap,
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    blocking::Log,
    fetch::Wanted,
    name,
    plan::{Mirror, Readiness},
    remote::{Entry, RemoteError, Version},
    session::Session,
};

/// Time between two looks where the rule does not name one.
const POLL: Duration = Duration::from_secs(5);

/// Files by whether they are complete.
#[derive(Debug, Default)]
pub(crate) struct Sorted {
    pub(crate) complete: Vec<Wanted>,
    pub(crate) unready: Vec<Wanted>,
}

/// Waits until files are complete, at most as long as the parameters say.
pub(crate) fn wait(
    session: &mut Session<'_>,
    wanted: Vec<Wanted>,
    mirror: &Mirror,
    log: &Log,
) -> Result<Sorted, RemoteError> {
    let mut sorted = Sorted::default();
    if mirror.ready == Readiness::Now || wanted.is_empty() {
        sorted.complete = wanted;
        return Ok(sorted);
    }
    let mut open: Vec<(Wanted, u8)> = wanted.into_iter().map(|wanted| (wanted, 1)).collect();
    // What the first listing showed counts as the first look at stability; the other rules are asked at once.
    let (pause, looks_min) = match mirror.ready {
        Readiness::Stable { polls, interval } => (interval, polls - 1),
        Readiness::Now | Readiness::MinAge(_) | Readiness::Marker(_) => (POLL.min(mirror.ready_wait), 1),
    };
    let mut waited = Duration::ZERO;
    if matches!(mirror.ready, Readiness::Stable { .. }) {
        waited += sleep(pause);
    }
    for looks in 1_u32.. {
        let now = look(session, &open)?;
        open = sort(open, &now, mirror, &mut sorted, log);
        let is_over = looks >= u32::from(looks_min) && waited + pause >= mirror.ready_wait;
        if open.is_empty() || is_over {
            break;
        }
        waited += sleep(pause);
    }
    sorted.unready = open.into_iter().map(|(wanted, _)| wanted).collect();
    Ok(sorted)
}

fn sleep(pause: Duration) -> Duration {
    thread::sleep(pause);
    pause
}

/// Lists the folders of the files that are still open.
fn look(
    session: &mut Session<'_>,
    open: &[(Wanted, u8)],
) -> Result<HashMap<String, Vec<Entry>>, RemoteError> {
    let mut folders: Vec<&str> = open.iter().map(|(wanted, _)| wanted.folder.as_str()).collect();
    folders.sort_unstable();
    folders.dedup();
    let list = |folder: &str| {
        let entries = session.run(|| 0, |remote| remote.list(folder))?;
        Ok((folder.to_owned(), entries.unwrap_or_default()))
    };
    folders.into_iter().map(list).collect()
}

fn sort(
    open: Vec<(Wanted, u8)>,
    now: &HashMap<String, Vec<Entry>>,
    mirror: &Mirror,
    sorted: &mut Sorted,
    log: &Log,
) -> Vec<(Wanted, u8)> {
    let mut rest = Vec::new();
    for (mut wanted, looks) in open {
        let entries = now.get(&wanted.folder).map_or(&[][..], Vec::as_slice);
        let Some(found) = entries.iter().find(|entry| entry.name == wanted.name) else {
            log.line(format!("{:?} is gone before it was complete", wanted.name));
            continue;
        };
        let looks = if found.version == wanted.version { looks.saturating_add(1) } else { 1 };
        wanted.version = found.version;
        if is_complete(&wanted, looks, entries, &mirror.ready) {
            sorted.complete.push(wanted);
        } else {
            rest.push((wanted, looks));
        }
    }
    rest
}

fn is_complete(wanted: &Wanted, looks: u8, entries: &[Entry], rule: &Readiness) -> bool {
    match rule {
        Readiness::Now => true,
        Readiness::Stable { polls, .. } => looks >= *polls,
        Readiness::MinAge(age) => wanted.version.size > 0 && is_older(wanted.version, *age),
        Readiness::Marker(pattern) => {
            let markers =
                [pattern.replace('*', name::stem(&wanted.name)), pattern.replace('*', &wanted.name)]
                    .map(|marker| marker.to_lowercase());
            // Names of a Windows server differ in case as whoever wrote them liked it.
            entries.iter().any(|entry| markers.contains(&entry.name.to_lowercase()))
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "the age of a file is its distance from the wall clock")]
fn is_older(version: Version, age: Duration) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let written = Duration::from_secs(u64::try_from(version.mtime).unwrap_or_default());
    now.checked_sub(written).is_some_and(|passed| passed >= age)
}

#[cfg(test)]
mod tests {
    use chrono::NaiveDate;

    use super::*;

    const VERSION: Version = Version { size: 3, mtime: 1_532_480_523 };

    fn is_marked(name: &str, pattern: &str, beside: &str) -> bool {
        let wanted = Wanted {
            day: NaiveDate::default(),
            folder: "2018/07/25".into(),
            name: name.into(),
            version: VERSION,
            place: "/store".into(),
        };
        let entries = [name, beside].map(|name| Entry { name: name.into(), version: VERSION });
        is_complete(&wanted, 1, &entries, &Readiness::Marker(pattern.into()))
    }

    #[test]
    fn a_marker_stands_beside_its_archive_in_any_case() {
        assert!(is_marked("Report (2).zip", "*.ok", "Report (2).ok"));
        assert!(is_marked("Report (2).zip", "*.ok", "report (2).OK"));
        assert!(is_marked("a_zip", "*.ok", "A.Ok"));
        assert!(is_marked("a.zip", "*.done", "a.zip.done"));
        assert!(!is_marked("a.zip", "*.ok", "b.ok"));
        assert!(!is_marked("a.zip", "*.ok", "a.ok.part"));
    }
}

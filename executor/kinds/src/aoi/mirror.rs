//! The first stage: the archives of the dated folders of one source, into the store.
//!
//! List, leave out what is known, refuse what is not harmless, wait until the rest is complete, fetch it over a few
//! connections at a time. A file that fails does not stop the others; what failed is told at the end.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use chrono::NaiveDate;
use thiserror::Error;

use super::{
    blocking::Log,
    fetch::{FetchError, Fetched, Wanted, fetch},
    ledger::{FileRow, State},
    name,
    plan::{Mirror, Source, Unpack},
    ready,
    remote::{Entry, RemoteError},
    session::{Patience, Session, Site, chain},
    store::{Area, Store, StoreError, free_space, make_dir},
};

/// Why a source could not be mirrored at all.
#[derive(Debug, Error)]
pub enum MirrorError {
    /// The origin failed.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// More files than allowed.
    #[error(
        "folder {folder:?} of source {origin:?} has {found} files, at most {max} are taken (mirror.files_max)"
    )]
    Files {
        /// The source.
        origin: String,
        /// The dated folder.
        folder: String,
        /// Files to take.
        found: usize,
        /// Files that are allowed.
        max: usize,
    },
    /// Not enough room.
    #[error(
        "{needed} bytes are to be fetched and {free} are free in the store; {reserve} must remain (mirror.free_space_min)"
    )]
    Space {
        /// Bytes to fetch.
        needed: u64,
        /// Bytes that are free.
        free: u64,
        /// Bytes that must remain.
        reserve: u64,
    },
}

/// All that mirroring one source needs.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) source: Source,
    pub(crate) site: Site,
    /// The days, with what the ledger knows of each.
    pub(crate) days: Vec<(NaiveDate, Vec<FileRow>)>,
    pub(crate) mirror: Mirror,
    pub(crate) limits: Unpack,
    pub(crate) store: Store,
}

/// What mirroring one source came to.
#[derive(Debug, Default)]
pub(crate) struct Mirrored {
    /// Files to take that are at the origin, by day: how many, and how many bytes.
    pub(crate) found: HashMap<NaiveDate, (u64, u64)>,
    /// Rows for the ledger: files that came into the store now, or were refused now.
    pub(crate) rows: Vec<FileRow>,
    /// Bytes that were transferred now.
    pub(crate) bytes: u64,
    /// Names at the origin of files that were not complete in time.
    pub(crate) unready: Vec<String>,
    /// Files that could not be fetched, and why.
    pub(crate) failed: Vec<(String, FetchError)>,
}

/// Mirrors one source.
pub(crate) fn mirror(task: &Task, log: &Log) -> Result<Mirrored, MirrorError> {
    let patience = Patience { attempts: task.mirror.attempts, delay: task.mirror.retry_delay };
    let mut session = Session::new(&task.site, patience, log);
    let mut mirrored = Mirrored::default();
    let mut wanted = Vec::new();
    for (day, known) in &task.days {
        let folder = task.source.folder(*day);
        make_dir(&task.store.folder(Area::Archives, &task.source.name, *day))?;
        match session.run(|| 0, |remote| remote.list(&folder))? {
            Some(entries) => wanted.extend(choose(task, *day, entries, known, &mut mirrored, log)?),
            None => log.line(format!("source {}: there is no folder {folder:?}", task.source.name)),
        }
    }
    let sorted = ready::wait(&mut session, wanted, &task.mirror, log)?;
    mirrored.unready.extend(sorted.unready.iter().map(|wanted| wanted.name.clone()));
    check_space(task, &sorted.complete)?;
    drop(session);
    fetch_all(task, sorted.complete, &mut mirrored, log);
    Ok(mirrored)
}

/// Returns the files of a folder that are to be fetched; notes those that are refused.
fn choose(
    task: &Task,
    day: NaiveDate,
    mut entries: Vec<Entry>,
    known: &[FileRow],
    mirrored: &mut Mirrored,
    log: &Log,
) -> Result<Vec<Wanted>, MirrorError> {
    let source = &task.source;
    let folder = source.folder(day);
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries.retain(|entry| source.takes(basename(&entry.name)));
    if entries.len() > task.mirror.files_max {
        let (origin, max) = (source.name.clone(), task.mirror.files_max);
        return Err(MirrorError::Files { origin, folder, found: entries.len(), max });
    }
    let names: Vec<String> = entries.iter().map(|entry| entry.name.clone()).collect();
    let mut wanted = Vec::new();
    for entry in entries {
        let found = mirrored.found.entry(day).or_default();
        *found = (found.0 + 1, found.1 + entry.version.size);
        let path = format!("{folder}/{}", entry.name);
        if known.iter().any(|row| row.path == path && row.version == entry.version && is_settled(task, row)) {
            continue;
        }
        if let Some(reason) = refusal(task, &entry) {
            log.line(format!("source {}: {:?} is refused: {reason}", source.name, entry.name));
            mirrored.rows.push(refused_row(task, day, entry, reason));
            continue;
        }
        let file = name::local(&entry.name, |other| names.iter().any(|name| name == other));
        let place = task.store.folder(Area::Archives, &source.name, day).join(file);
        wanted.push(Wanted { day, folder: folder.clone(), name: entry.name, version: entry.version, place });
    }
    Ok(wanted)
}

/// Globs see the last component, so that a name with a path in it is refused and counted rather than passed over.
fn basename(name: &str) -> &str {
    name.rsplit(['/', '\\']).next().unwrap_or(name)
}

/// Tells whether a known file needs no fetching: what it became is still there, or nothing shall become of it.
fn is_settled(task: &Task, row: &FileRow) -> bool {
    let folder = |area| task.store.folder(area, &row.source, row.day);
    match row.state {
        State::Quarantined | State::Refused => true,
        State::Mirrored => folder(Area::Archives).join(&row.file).is_file(),
        // A store that was emptied is filled again: what is loaded may have been deleted from the database as well.
        State::Unpacked | State::Loaded => {
            folder(Area::Archives).join(&row.file).is_file()
                || folder(Area::Reports).join(name::stem(&row.file)).is_dir()
        }
    }
}

fn refusal(task: &Task, entry: &Entry) -> Option<String> {
    if let Err(error) = name::check(&entry.name) {
        return Some(error.to_string());
    }
    let max = task.mirror.file_size_max;
    (entry.version.size > max).then(|| {
        format!("it has {} bytes, at most {max} are fetched (mirror.file_size_max)", entry.version.size)
    })
}

fn refused_row(task: &Task, day: NaiveDate, entry: Entry, reason: String) -> FileRow {
    FileRow {
        source: task.source.name.clone(),
        day,
        path: format!("{}/{}", task.source.folder(day), entry.name),
        version: entry.version,
        file: entry.name,
        sha256: None,
        state: State::Refused,
        reason: Some(reason),
    }
}

fn check_space(task: &Task, wanted: &[Wanted]) -> Result<(), MirrorError> {
    let needed: u64 = wanted.iter().map(|wanted| wanted.version.size).sum();
    let (free, reserve) = (free_space(&task.store.area(Area::Archives))?, task.mirror.free_space_min);
    if needed > 0 && free < needed.saturating_add(reserve) {
        return Err(MirrorError::Space { needed, free, reserve });
    }
    Ok(())
}

/// What the threads of one source share.
struct Shared {
    queue: Mutex<VecDeque<Wanted>>,
    mirrored: Mutex<Mirrored>,
    is_over: AtomicBool,
}

fn fetch_all(task: &Task, wanted: Vec<Wanted>, mirrored: &mut Mirrored, log: &Log) {
    let threads = usize::from(task.mirror.parallel).min(wanted.len());
    let shared = Shared {
        queue: Mutex::new(wanted.into()),
        mirrored: Mutex::new(std::mem::take(mirrored)),
        is_over: AtomicBool::new(false),
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| fetch_some(task, &shared, log));
        }
    });
    *mirrored = shared.mirrored.into_inner().unwrap_or_else(PoisonError::into_inner);
}

fn fetch_some(task: &Task, shared: &Shared, log: &Log) {
    let patience = Patience { attempts: task.mirror.attempts, delay: task.mirror.retry_delay };
    let mut session = Session::new(&task.site, patience, log);
    while !shared.is_over.load(Ordering::Relaxed) {
        let next = shared.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(wanted) = next else { return };
        let fetched = fetch(&mut session, &wanted, &task.limits);
        if fetched.as_ref().is_err_and(FetchError::ends_source) {
            shared.is_over.store(true, Ordering::Relaxed);
        }
        let mut mirrored = shared.mirrored.lock().unwrap_or_else(PoisonError::into_inner);
        note(task, &wanted, fetched, &mut mirrored, log);
    }
}

fn note(
    task: &Task,
    wanted: &Wanted,
    fetched: Result<Fetched, FetchError>,
    mirrored: &mut Mirrored,
    log: &Log,
) {
    let at = format!("{}: {}/{}", task.source.name, wanted.folder, wanted.name);
    match fetched {
        Ok(Fetched::Done { sha256 }) => {
            log.line(format!("{at} fetched, {} bytes", wanted.version.size));
            mirrored.bytes += wanted.version.size;
            mirrored.rows.push(fetched_row(task, wanted, sha256));
        }
        Ok(Fetched::Adopted { sha256 }) => {
            log.line(format!("{at} is in the store already"));
            mirrored.rows.push(fetched_row(task, wanted, sha256));
        }
        Ok(Fetched::Vanished) => log.line(format!("{at} is gone before it was fetched")),
        Ok(Fetched::Changing) => {
            log.line(format!("{at} changed while it was fetched"));
            mirrored.unready.push(wanted.name.clone());
        }
        Err(error) => {
            log.line(format!("{at} could not be fetched: {}", chain(&error)));
            mirrored.failed.push((wanted.name.clone(), error));
        }
    }
}

fn fetched_row(task: &Task, wanted: &Wanted, sha256: String) -> FileRow {
    let file = wanted.place.file_name().unwrap_or_default().to_string_lossy().into_owned();
    FileRow {
        source: task.source.name.clone(),
        day: wanted.day,
        path: format!("{}/{}", wanted.folder, wanted.name),
        version: wanted.version,
        file,
        sha256: Some(sha256),
        state: State::Mirrored,
        reason: None,
    }
}

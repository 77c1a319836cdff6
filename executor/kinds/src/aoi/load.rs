//! The third stage: reports of the store, into the database.
//!
//! All headers are read first, so that of two reports about one roll only the later is loaded. Then roll by roll: read the
//! defects, check the error limit, write in one transaction. A roll that the target already holds as the ledger says is left
//! alone.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use chrono::{NaiveDate, NaiveDateTime};
use millrace_common::kind::aoi::{ErrorLimit, Load};
use thiserror::Error;

use super::{
    archive::report_folders,
    cell::time_text,
    ledger::{Ledger, LedgerError, LoadedRoll},
    plan::Source,
    roll::{BrokenReport, Defects, Header, ReadError, Reading, Report},
    store::{Area, Store, StoreError, make_dir},
    tables::Tables,
    target::{Dialect, Target},
};
use crate::run::{Context, ResolvedConnection};

/// Dirty defects that the log shows one by one.
const DIRTY_SHOWN_MAX: u64 = 20;
/// Classes and severities that are counted one by one; further ones are counted together.
const KINDS_MAX: usize = 100;
/// Characters by which classes and severities are told apart in the counts.
const KIND_CHARS_MAX: usize = 60;

/// Why loading failed.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The ledger failed.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// No connection to the database.
    #[error("connection {connection:?}: the database cannot be opened")]
    Connect {
        /// The connection.
        connection: String,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The tables could not be made.
    #[error("connection {connection:?}: the tables {tables} cannot be made")]
    Tables {
        /// The connection.
        connection: String,
        /// The tables.
        tables: String,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// A roll could not be written.
    #[error("roll {roll} cannot be written to {tables}")]
    Write {
        /// The roll.
        roll: String,
        /// The tables.
        tables: String,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The table has a roll more than once.
    #[error(
        "table {tables} has {count} rows for roll {roll}; remove all but one and make aoi_no and start_time unique"
    )]
    Ambiguous {
        /// The roll.
        roll: String,
        /// The tables.
        tables: String,
        /// Its rows.
        count: usize,
    },
    /// More defects than allowed could not be read.
    #[error(
        "{dirty} of {defects} defects cannot be read, which is more than load.error_limit allows; roll {roll} and those after it are not written"
    )]
    Dirty {
        /// Defects that cannot be read.
        dirty: u64,
        /// Defects so far.
        defects: u64,
        /// The roll that was too much.
        roll: String,
    },
}

/// A report folder of the store.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) source: String,
    pub(crate) day: NaiveDate,
    /// The folder of its archive among the reports of the day.
    pub(crate) stem: String,
    pub(crate) folder: PathBuf,
}

/// What loading came to.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// Report folders in the store.
    pub(crate) found: u64,
    pub(crate) rolls: u64,
    /// Rolls that were written now.
    pub(crate) written: u64,
    /// Reports about a roll that a later report is about as well.
    pub(crate) superseded: u64,
    pub(crate) defects: u64,
    pub(crate) dirty: u64,
    pub(crate) by_class: BTreeMap<String, u64>,
    pub(crate) by_severity: BTreeMap<String, u64>,
    /// Reports whose rolls are in the database.
    pub(crate) done: Vec<Place>,
    /// Reports that are broken, and why.
    pub(crate) broken: Vec<(Place, String)>,
}

/// All that loading needs.
#[derive(Debug)]
pub(crate) struct Loading<'a> {
    pub(crate) load: &'a Load,
    /// The connection's name.
    pub(crate) connection: &'a str,
    pub(crate) to: &'a ResolvedConnection,
    pub(crate) dialect: Dialect,
    pub(crate) ctx: &'a Context,
}

/// A report that will be loaded.
struct Candidate {
    place: Place,
    reading: Reading,
    header: Header,
}

/// Returns the report folders of a day of a source.
pub(crate) fn places(store: &Store, source: &Source, day: NaiveDate) -> Result<Vec<Place>, StoreError> {
    let root = store.folder(Area::Reports, &source.name, day);
    make_dir(&root)?;
    let mut places = Vec::new();
    for folder in report_folders(&root)? {
        let relative = folder.strip_prefix(&root).unwrap_or(&folder);
        let Some(stem) = relative.components().next() else { continue };
        let stem = stem.as_os_str().to_string_lossy().into_owned();
        // What begins with a full stop is still being unpacked.
        if !stem.starts_with('.') {
            places.push(Place { source: source.name.clone(), day, stem, folder });
        }
    }
    Ok(places)
}

/// Loads reports.
pub(crate) async fn load(
    loading: &Loading<'_>,
    ledger: &mut Ledger,
    places: Vec<(Place, Reading)>,
) -> Result<Loaded, LoadError> {
    let mut loaded = Loaded { found: places.len() as u64, ..Loaded::default() };
    let candidates = choose(places, &mut loaded)?;
    if candidates.is_empty() {
        return Ok(loaded);
    }
    let tables = Tables::new(loading.load);
    let mut target = open(loading, &tables).await?;
    for candidate in candidates {
        match read(&candidate)? {
            Ok((sha256, defects)) => {
                count(&mut loaded, &candidate, &defects, loading)?;
                let roll = Roll { candidate: &candidate, sha256, defects: &defects };
                loaded.written += u64::from(write(loading, &tables, &mut target, ledger, &roll).await?);
                loaded.done.push(candidate.place);
            }
            Err(broken) => loaded.broken.push((candidate.place, broken.to_string())),
        }
    }
    // Every roll is committed; a connection that cannot be closed politely loses nothing.
    let _ = target.close().await;
    check_percentage(&loaded, loading.load.error_limit)?;
    Ok(loaded)
}

async fn open(loading: &Loading<'_>, tables: &Tables) -> Result<Target, LoadError> {
    let connection = loading.connection.to_owned();
    let mut target = match Target::connect(loading.dialect, loading.to).await {
        Ok(target) => target,
        Err(source) => return Err(LoadError::Connect { connection, source }),
    };
    if loading.load.create_tables {
        let made = tables.ensure(&mut target).await;
        made.map_err(|source| LoadError::Tables { connection, tables: tables.names(), source })?;
    }
    Ok(target)
}

/// Reads all headers and keeps, of the reports about one roll, the latest.
fn choose(places: Vec<(Place, Reading)>, loaded: &mut Loaded) -> Result<Vec<Candidate>, StoreError> {
    let mut latest: BTreeMap<(NaiveDateTime, String), Candidate> = BTreeMap::new();
    for (place, reading) in places {
        let header = match Report::open(&place.folder) {
            Ok(report) => report.header(&reading),
            Err(ReadError::Broken(broken)) => Err(broken),
            Err(ReadError::Store(error)) => return Err(error),
        };
        match header {
            Ok(header) => {
                let key = (header.start_time, header.aoi_no.clone());
                let candidate = Candidate { place, reading, header };
                let is_later = latest.get(&key).is_none_or(|other| candidate.rank() > other.rank());
                let old = if is_later { latest.insert(key, candidate) } else { Some(candidate) };
                if let Some(old) = old {
                    loaded.superseded += 1;
                    loaded.done.push(old.place);
                }
            }
            Err(broken) => loaded.broken.push((place, broken.to_string())),
        }
    }
    loaded.rolls = latest.len() as u64;
    Ok(latest.into_values().collect())
}

impl Candidate {
    /// Of two reports about one roll, that of the higher rank holds.
    fn rank(&self) -> (Option<NaiveDateTime>, Option<NaiveDateTime>, NaiveDate, &Path) {
        (self.header.created, self.header.stop_time, self.place.day, &self.place.folder)
    }
}

type ReadRoll = Result<(String, Defects), BrokenReport>;

fn read(candidate: &Candidate) -> Result<ReadRoll, StoreError> {
    match Report::open(&candidate.place.folder) {
        Ok(report) => {
            let defects = report.defects(&candidate.reading, candidate.header.start_time);
            Ok(defects.map(|defects| (report.sha256(), defects)))
        }
        Err(ReadError::Broken(broken)) => Ok(Err(broken)),
        Err(ReadError::Store(error)) => Err(error),
    }
}

fn count(
    loaded: &mut Loaded,
    candidate: &Candidate,
    defects: &Defects,
    loading: &Loading<'_>,
) -> Result<(), LoadError> {
    for dirty in &defects.dirty {
        loaded.dirty += 1;
        if loaded.dirty <= DIRTY_SHOWN_MAX {
            let at = format!("{}/defectlist.csv:{}", candidate.place.stem, dirty.line);
            loading.ctx.log(format_args!("{at}: {}: {}", dirty.column, dirty.problem));
        }
    }
    loaded.defects += defects.read.len() as u64;
    for defect in &defects.read {
        tally(&mut loaded.by_class, defect.class.as_deref());
        tally(&mut loaded.by_severity, defect.severity.as_deref());
    }
    let limit = loading.load.error_limit;
    let allowed = limit.record.or_else(|| limit.percentage.is_none().then_some(0));
    if allowed.is_some_and(|allowed| loaded.dirty > allowed) {
        return Err(too_dirty(loaded, &candidate.header.aoi_no));
    }
    Ok(())
}

fn tally(counts: &mut BTreeMap<String, u64>, kind: Option<&str>) {
    let kind: String = kind.unwrap_or("-").chars().take(KIND_CHARS_MAX).collect();
    let is_counted = counts.contains_key(&kind) || counts.len() < KINDS_MAX;
    *counts.entry(if is_counted { kind } else { "other".to_owned() }).or_default() += 1;
}

/// A part can only be told at the end; what was written until then stays and is written over by the next attempt.
#[expect(clippy::cast_precision_loss, reason = "a part needs no more than 15 digits")]
fn check_percentage(loaded: &Loaded, limit: ErrorLimit) -> Result<(), LoadError> {
    let all = loaded.defects + loaded.dirty;
    match limit.percentage {
        Some(part) if all > 0 && loaded.dirty as f64 / all as f64 > part => Err(too_dirty(loaded, "-")),
        _ => Ok(()),
    }
}

fn too_dirty(loaded: &Loaded, roll: &str) -> LoadError {
    LoadError::Dirty { dirty: loaded.dirty, defects: loaded.defects + loaded.dirty, roll: roll.to_owned() }
}

/// A roll, ready to be written.
struct Roll<'a> {
    candidate: &'a Candidate,
    sha256: String,
    defects: &'a Defects,
}

/// Writes a roll unless the target holds it already; tells whether it was written.
async fn write(
    loading: &Loading<'_>,
    tables: &Tables,
    target: &mut Target,
    ledger: &mut Ledger,
    roll: &Roll<'_>,
) -> Result<bool, LoadError> {
    let header = &roll.candidate.header;
    let key = (header.aoi_no.clone(), time_text(header.start_time));
    let name = format!("{}/{}", loading.connection, tables.names());
    let defects = i64::try_from(roll.defects.read.len()).unwrap_or(i64::MAX);
    let now = LoadedRoll { sha256: roll.sha256.clone(), defects };
    let is_same = !loading.load.reload && ledger.roll(&name, &key).await? == Some(now.clone());
    let failed = |source| LoadError::Write { roll: key.0.clone(), tables: tables.names(), source };
    target.begin().await.map_err(failed)?;
    let pieces = tables.piece_ids(target, header).await.map_err(failed)?;
    if pieces.len() > 1 {
        return Err(LoadError::Ambiguous { roll: key.0, tables: tables.names(), count: pieces.len() });
    }
    let piece = pieces.first().copied();
    if let (true, Some(piece)) = (is_same, piece)
        && tables.count_defects(target, piece).await.map_err(failed)? == defects
    {
        target.run("ROLLBACK".to_owned()).await.map_err(failed)?;
        return Ok(false);
    }
    tables.write(target, piece, header, &roll.defects.read).await.map_err(failed)?;
    target.run("COMMIT".to_owned()).await.map_err(failed)?;
    ledger.record_roll(&name, &key, &now).await?;
    Ok(true)
}

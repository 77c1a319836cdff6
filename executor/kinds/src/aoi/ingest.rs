//! One attempt: its stages in order, the ledger kept, the outcome decided at the end.
//!
//! Blocking work gets copies of what it needs and hands back what it did; only this module writes to the ledger.

use std::path::PathBuf;

use chrono::{Days, NaiveDate};
use millrace_common::kind::aoi::{OnBroken, OnEmpty, OnUnready, Stage};
use serde_json::{Map, Value};

use super::{
    AoiError, blocking, command,
    fetch::{FetchError, hex},
    ftp::Address,
    ledger::{FileRow, Ledger, State},
    load::{self, Loading, Place},
    mirror::{self, MirrorError},
    name,
    plan::{Origin, Plan, Source},
    remote::Version,
    roll::Reading,
    session::{Site, chain},
    store::{Lock, Store},
    summary::Summary,
    target::Dialect,
    unpack,
};
use crate::{
    report::{Outcome, Report},
    run::{Context, ResolvedConnection},
};

/// Characters of a name that a value repeats.
const SHOWN_CHARS_MAX: usize = 100;

/// One attempt.
pub(crate) struct Ingestion<'a> {
    plan: Plan,
    store: Store,
    ledger: Ledger,
    ctx: &'a Context,
    summary: Summary,
    /// What the first stage that this program did itself found to do.
    found: Option<u64>,
    /// Sources that could not be mirrored.
    sources: Vec<(String, MirrorError)>,
    /// Files that could not be fetched.
    files: Vec<(String, FetchError)>,
    /// Held until the attempt ends.
    _locks: Vec<Lock>,
}

impl<'a> Ingestion<'a> {
    /// Opens store and ledger and takes the locks of all days.
    pub(crate) async fn open(plan: Plan, ctx: &'a Context) -> Result<Self, AoiError> {
        let (root, file) = places(&plan, ctx);
        let store = Store::open(root)?;
        let ledger = Ledger::open(&file).await?;
        let mut keys: Vec<(String, NaiveDate)> = plan
            .sources
            .iter()
            .flat_map(|source| plan.days.all().map(|day| (source.name.clone(), day)))
            .collect();
        // One order for all attempts, so that no two wait for each other.
        keys.sort();
        let locked = store.clone();
        let locks: Vec<Lock> = blocking::run(ctx, move |log| {
            let wait = |key: &(String, NaiveDate)| {
                let (source, day) = (key.0.clone(), key.1);
                locked
                    .lock(&source, day, || log.line(format!("waiting for another attempt on {source} {day}")))
            };
            keys.iter().map(wait).collect::<Result<_, _>>()
        })
        .await?;
        let (summary, found, sources, files) = Default::default();
        Ok(Self { plan, store, ledger, ctx, summary, found, sources, files, _locks: locks })
    }

    /// Runs the stages and decides what they come to.
    pub(crate) async fn run(&mut self) -> Result<Report, AoiError> {
        let days: Vec<String> = self.plan.days.main.iter().map(ToString::to_string).collect();
        self.ctx.log(format_args!("days: {}", days.join(" ")));
        if self.plan.retry_quarantined {
            self.forget_quarantined().await?;
        }
        for stage in self.plan.stages.clone() {
            match self.command(stage) {
                Some(argv) => command::run(stage, &argv, &self.plan, &self.store, self.ctx).await?,
                None => self.stage(stage).await?,
            }
        }
        self.take_stock().await?;
        let values = self.summary.values(&days);
        self.ctx.log(format_args!("summary: {}", Value::Object(values.clone())));
        let report = self.decide(values, &days.join(" "))?;
        self.expire().await?;
        Ok(report)
    }

    /// Removes what the store need not keep any longer.
    async fn expire(&self) -> Result<(), AoiError> {
        let latest = self.plan.days.main.last().copied().unwrap_or_default();
        let keep = self.plan.keep_days.map(|days| Days::new(days.into()));
        let Some(first) = keep.and_then(|days| latest.checked_sub_days(days)) else { return Ok(()) };
        let (store, sources) = (self.store.clone(), self.plan.sources.clone());
        let removed = blocking::run(self.ctx, move |_| {
            sources.iter().map(|source| store.expire(&source.name, first)).sum::<Result<usize, _>>()
        });
        self.ctx.log(format_args!("{} old days removed from the store", removed.await?));
        Ok(())
    }

    fn command(&self, stage: Stage) -> Option<Vec<String>> {
        match stage {
            Stage::Mirror => self.plan.mirror.command.clone(),
            Stage::Unpack => self.plan.unpack.command.clone(),
            Stage::Load => self.plan.load.as_ref().and_then(|load| load.command.clone()),
        }
    }

    async fn stage(&mut self, stage: Stage) -> Result<(), AoiError> {
        let found = match stage {
            Stage::Mirror => self.mirror().await?,
            Stage::Unpack => self.unpack().await?,
            Stage::Load => self.load().await?,
        };
        self.found.get_or_insert(found);
        Ok(())
    }

    async fn forget_quarantined(&mut self) -> Result<(), AoiError> {
        for (source, day) in self.each_day() {
            // First, so that a crash in between leaves an archive that is only unpacked once more.
            let back = self.store.take_back(&source.name, day)?;
            let forgotten = self.ledger.forget_quarantined(&source.name, day).await?;
            if forgotten > 0 || back > 0 {
                self.ctx.log(format_args!(
                    "{} {day}: {forgotten} quarantined files are tried again",
                    source.name
                ));
            }
        }
        Ok(())
    }

    fn each_day(&self) -> Vec<(Source, NaiveDate)> {
        let days =
            |source: &Source| self.plan.days.all().map(|day| (source.clone(), day)).collect::<Vec<_>>();
        self.plan.sources.iter().flat_map(days).collect()
    }

    async fn mirror(&mut self) -> Result<u64, AoiError> {
        for source in self.plan.sources.clone() {
            let mut days = Vec::new();
            for day in self.plan.days.all() {
                days.push((day, self.ledger.files(&source.name, day).await?));
            }
            let task = mirror::Task {
                site: self.site(&source)?,
                days,
                mirror: self.plan.mirror.clone(),
                limits: self.plan.unpack.clone(),
                store: self.store.clone(),
                source,
            };
            let name = task.source.name.clone();
            match blocking::run(self.ctx, move |log| mirror::mirror(&task, log)).await {
                Ok(mirrored) => self.take_mirrored(mirrored).await?,
                Err(error) => {
                    self.ctx.log(format_args!("source {name} could not be mirrored: {}", chain(&error)));
                    self.sources.push((name, error));
                }
            }
        }
        Ok(self.summary.files + self.summary.late)
    }

    async fn take_mirrored(&mut self, mirrored: mirror::Mirrored) -> Result<(), AoiError> {
        for row in &mirrored.rows {
            self.ledger.record(row).await?;
            let is_new = row.state == State::Mirrored;
            self.summary.files_now += u64::from(is_new);
            self.summary.late += u64::from(is_new && self.plan.days.is_earlier(row.day));
        }
        for (day, (files, bytes)) in mirrored.found {
            if !self.plan.days.is_earlier(day) {
                self.summary.files += files;
                self.summary.bytes += bytes;
            }
        }
        self.summary.bytes_now += mirrored.bytes;
        self.summary.unready.extend(mirrored.unready);
        self.files.extend(mirrored.failed);
        Ok(())
    }

    fn site(&self, source: &Source) -> Result<Site, AoiError> {
        let (connection, home) = match &source.origin {
            Origin::Folder(path) => return Ok(Site::Folder(path.clone())),
            Origin::Ftp { connection, home } => (connection, home),
        };
        let to = self.connection(connection)?;
        if to.engine != "ftp" {
            return Err(engine(connection, to, "an FTP server"));
        }
        let home = home.clone().or_else(|| to.path.as_ref().map(|path| path.display().to_string()));
        Ok(Site::Ftp(Box::new(Address {
            connection: connection.clone(),
            to: to.clone(),
            home,
            encoding: source.encoding,
            timeout: self.plan.mirror.timeout,
            learned: std::sync::Arc::default(),
        })))
    }

    fn connection(&self, name: &str) -> Result<&'a ResolvedConnection, AoiError> {
        self.ctx.connections.get(name).ok_or_else(|| AoiError::Connection(name.to_owned()))
    }

    async fn unpack(&mut self) -> Result<u64, AoiError> {
        let mut found = 0;
        for (source, day) in self.each_day() {
            let known = self.ledger.files(&source.name, day).await?;
            let (limits, store) = (self.plan.unpack.clone(), self.store.clone());
            let task = unpack::Task { source, day, known, limits, store };
            let unpacked = blocking::run(self.ctx, move |log| unpack::unpack(&task, log)).await?;
            for row in &unpacked.rows {
                self.ledger.record(row).await?;
                self.summary.unpacked_now += u64::from(row.state == State::Unpacked);
            }
            if self.plan.days.is_earlier(day) {
                // Files that were mirrored by somebody else are late only now.
                self.summary.late += unpacked.unknown;
                found += unpacked.unknown;
            } else {
                self.summary.archives += unpacked.found;
                found += unpacked.found;
            }
        }
        Ok(found)
    }

    async fn load(&mut self) -> Result<u64, AoiError> {
        let Some(load) = self.plan.load.clone() else { return Ok(0) };
        let connection = load.connection.clone().unwrap_or_default();
        let to = self.connection(&connection)?;
        let dialect =
            Dialect::of(to).ok_or_else(|| engine(&connection, to, "MySQL, MariaDB, PostgreSQL or SQLite"))?;
        let mut places = Vec::new();
        for (source, day) in self.each_day() {
            let reading = Reading { encoding: source.encoding, time_formats: load.time_formats.clone() };
            let found = load::places(&self.store, &source, day)?;
            places.extend(found.into_iter().map(|place| (place, reading.clone())));
        }
        let loading = Loading { load: &load, connection: &connection, to, dialect, ctx: self.ctx };
        let loaded = load::load(&loading, &mut self.ledger, places).await?;
        for place in &loaded.done {
            self.mark(place, State::Loaded, None).await?;
        }
        for (place, reason) in &loaded.broken {
            let at = self.store.quarantine(&place.source, place.day, &place.folder, reason)?;
            self.ctx.log(format_args!(
                "{}: {} is put aside to {}: {reason}",
                place.source,
                place.stem,
                at.display()
            ));
            self.mark(place, State::Quarantined, Some(reason)).await?;
        }
        let summary = &mut self.summary;
        (summary.rolls, summary.rolls_now, summary.superseded) =
            (loaded.rolls, loaded.written, loaded.superseded);
        (summary.defects, summary.dirty) = (loaded.defects, loaded.dirty);
        (summary.by_class, summary.by_severity) = (loaded.by_class, loaded.by_severity);
        Ok(loaded.found)
    }

    /// Writes down how far the archive of a report has come.
    async fn mark(&mut self, place: &Place, state: State, reason: Option<&String>) -> Result<(), AoiError> {
        let rows = self.ledger.files(&place.source, place.day).await?;
        let row =
            rows.into_iter().find(|row| row.state != State::Refused && name::stem(&row.file) == place.stem);
        // A report that a plant's command unpacked has no row yet.
        let row = row.unwrap_or_else(|| FileRow {
            source: place.source.clone(),
            day: place.day,
            path: format!("reports/{}/{}", place.day, place.stem),
            version: Version { size: 0, mtime: 0 },
            file: place.stem.clone(),
            sha256: None,
            state,
            reason: None,
        });
        if row.state != state || row.reason.as_ref() != reason {
            self.ledger.record(&FileRow { state, reason: reason.cloned(), ..row }).await?;
        }
        Ok(())
    }

    /// Collects what the ledger says about the days: what is refused or put aside is told by every attempt.
    async fn take_stock(&mut self) -> Result<(), AoiError> {
        for (source, day) in self.each_day() {
            for row in self.ledger.files(&source.name, day).await? {
                let list = match row.state {
                    State::Quarantined => &mut self.summary.quarantined,
                    State::Refused => &mut self.summary.refused,
                    State::Mirrored | State::Unpacked | State::Loaded => continue,
                };
                let shown: String = row.file.escape_debug().take(SHOWN_CHARS_MAX).collect();
                list.push(format!("{}/{day}/{shown}", source.name));
            }
        }
        Ok(())
    }

    fn decide(&mut self, values: Map<String, Value>, days: &str) -> Result<Report, AoiError> {
        let count = self.sources.len();
        if let Some((name, source)) = self.sources.drain(..).next() {
            return Err(AoiError::Mirror { name, count, source });
        }
        let count = self.files.len();
        if let Some((name, source)) = self.files.drain(..).next() {
            return Err(AoiError::Unfetched { count, name, source });
        }
        let first = |names: &[String]| (names.len(), names.first().cloned().unwrap_or_default());
        if !self.summary.unready.is_empty() && self.plan.mirror.on_unready == OnUnready::Fail {
            let (count, name) = first(&self.summary.unready);
            return Err(AoiError::Unready { count, name });
        }
        if !self.summary.quarantined.is_empty() && self.plan.on_broken == OnBroken::Fail {
            let (count, name) = first(&self.summary.quarantined);
            return Err(AoiError::Broken { count, name });
        }
        match (self.found, self.plan.on_empty) {
            (Some(0), OnEmpty::Fail) => Err(AoiError::Empty(days.to_owned())),
            (Some(0), OnEmpty::Skip) => Ok(Report { outcome: Outcome::Skipped, values }),
            _ => Ok(Report::done(values)),
        }
    }
}

/// Returns where the store and its ledger are. The ledger stays on this machine's disk even where the store does not: a
/// database file on a share is not safe.
fn places(plan: &Plan, ctx: &Context) -> (PathBuf, PathBuf) {
    match &plan.store {
        None => (ctx.state_dir.join("store"), ctx.state_dir.join("ingest.db")),
        Some(store) => {
            use sha2::Digest as _;
            let id = hex(&sha2::Sha256::digest(store.as_os_str().as_encoded_bytes())[..6]);
            (store.clone(), ctx.state_dir.join(format!("ingest-{id}.db")))
        }
    }
}

fn engine(connection: &str, to: &ResolvedConnection, needed: &'static str) -> AoiError {
    AoiError::Engine { connection: connection.to_owned(), engine: to.engine.clone(), needed }
}

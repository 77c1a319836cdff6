//! The second stage: archives of the store, into report folders.
//!
//! An archive is unpacked once per version. What is broken goes to the quarantine and does not stop the others.

use std::{fs, path::Path};

use chrono::NaiveDate;

use super::{
    archive::{self, BrokenArchive, ExtractError},
    blocking::Log,
    folder::version,
    ledger::{FileRow, State},
    name,
    plan::{Source, Unpack},
    store::{Area, Store, StoreError, make_dir, publish},
};

/// All that unpacking one day of one source needs.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) source: Source,
    pub(crate) day: NaiveDate,
    /// What the ledger knows of the day.
    pub(crate) known: Vec<FileRow>,
    pub(crate) limits: Unpack,
    pub(crate) store: Store,
}

/// What unpacking one day of one source came to.
#[derive(Debug, Default)]
pub(crate) struct Unpacked {
    /// Archives in the store.
    pub(crate) found: u64,
    /// Rows for the ledger: archives that were unpacked or put aside now.
    pub(crate) rows: Vec<FileRow>,
    /// Archives that the ledger did not know: somebody else put them into the store.
    pub(crate) unknown: u64,
}

/// Unpacks one day of one source.
pub(crate) fn unpack(task: &Task, log: &Log) -> Result<Unpacked, StoreError> {
    let (archives, reports) = (task.folder(Area::Archives), task.folder(Area::Reports));
    make_dir(&archives)?;
    make_dir(&reports)?;
    let mut unpacked = Unpacked::default();
    for file in files(&archives)? {
        let path = archives.join(&file);
        unpacked.found += 1;
        let (mut row, is_known) = task.row(&path, file)?;
        unpacked.unknown += u64::from(!is_known);
        let place = reports.join(name::stem(&row.file));
        let is_done = matches!(row.state, State::Unpacked | State::Loaded) && place.is_dir();
        if is_done || row.state == State::Quarantined {
            continue;
        }
        match open(task, &path, &place) {
            Ok(bytes) => {
                log.line(format!("{}: {} unpacked, {bytes} bytes", task.source.name, row.file));
                row.state = State::Unpacked;
            }
            Err(ExtractError::Broken(reason)) => {
                let reason = reason.to_string();
                let at = task.store.quarantine(&task.source.name, task.day, &path, &reason)?;
                log.line(format!(
                    "{}: {} is put aside to {}: {reason}",
                    task.source.name,
                    row.file,
                    at.display()
                ));
                row.state = State::Quarantined;
                row.reason = Some(reason);
            }
            Err(ExtractError::Store(error)) => return Err(error),
        }
        unpacked.rows.push(row);
    }
    Ok(unpacked)
}

impl Task {
    fn folder(&self, area: Area) -> std::path::PathBuf {
        self.store.folder(area, &self.source.name, self.day)
    }

    /// Returns the ledger's row of an archive, or a new one, and which it is.
    fn row(&self, path: &Path, file: String) -> Result<(FileRow, bool), StoreError> {
        let version = version(&fs::metadata(path).map_err(StoreError::io("read", path))?);
        if let Some(row) = self.known.iter().find(|row| row.file == file && row.version == version) {
            return Ok((row.clone(), true));
        }
        let row = FileRow {
            source: self.source.name.clone(),
            day: self.day,
            path: format!("{}/{file}", self.source.folder(self.day)),
            version,
            file,
            sha256: None,
            state: State::Mirrored,
            reason: None,
        };
        Ok((row, false))
    }
}

/// Returns the names of the archives of a folder, in order. What begins with a full stop is still arriving.
fn files(folder: &Path) -> Result<Vec<String>, StoreError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(StoreError::io("read", folder))? {
        let entry = entry.map_err(StoreError::io("read", folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if is_file && name::stem(&name) != name && !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

fn open(task: &Task, path: &Path, place: &Path) -> Result<u64, ExtractError> {
    let made =
        place.with_file_name(format!(".{}.tmp", place.file_name().unwrap_or_default().to_string_lossy()));
    if made.exists() {
        fs::remove_dir_all(&made).map_err(StoreError::io("removed", &made))?;
    }
    let extracted = extract(task, path, &made);
    match extracted {
        Ok(bytes) => {
            publish(&made, place)?;
            Ok(bytes)
        }
        Err(error) => {
            // The reason of the failure matters more than a folder that the next attempt removes.
            let _ = fs::remove_dir_all(&made);
            Err(error)
        }
    }
}

fn extract(task: &Task, path: &Path, made: &Path) -> Result<u64, ExtractError> {
    let bytes = archive::extract(path, &task.limits, task.source.encoding, made)?;
    if archive::report_folders(made)?.is_empty() {
        return Err(BrokenArchive::NoReport.into());
    }
    Ok(bytes)
}

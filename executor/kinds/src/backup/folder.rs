//! The folder of one database's backups: what is in it, what is added, what goes.
//!
//! Only files that a manifest describes, whose name and length it gives, count as backups and can be deleted by a
//! retention. Others are left alone and named in the log, except unfinished ones that nobody can be writing any more.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use chrono::{DateTime, Utc};
use millrace_common::kind::backup::Retention;

use super::{
    BackupError, Saved, Settings,
    archive::{Archive, Codec, Sealed, Unfinished},
    manifest::{Entry, Facts, Identity, Manifest},
    name::{Database, MANIFEST, UNFINISHED},
    now,
    plan::Plan,
    retention, space,
};
use crate::run::Context;

/// An unfinished file that was not written to for this long belongs to nobody.
const UNFINISHED_AGE_MAX: Duration = Duration::from_hours(24);

/// Bytes of a manifest that are read: 10,000 tables with names of 64 four-byte characters take less.
const MANIFEST_BYTES_MAX: u64 = 16 << 20;

/// Backups of one database that can be started in one second.
const NAMES_PER_SECOND_MAX: u32 = 100;

/// Returns the folder that has the folders of the databases, and makes it where only it itself is missing.
///
/// Its parent must be there: a path below a disk that is not mounted shall be an error, not a backup on the wrong disk.
pub(super) fn target(plan: &Plan, settings: &Settings, state_dir: &Path) -> Result<PathBuf, BackupError> {
    let target = match (&plan.target, &settings.target) {
        (Some(target), _) => target.clone(),
        (None, Some(root)) => {
            ensure(root)?;
            root.join(&plan.connection)
        }
        (None, None) => state_dir.join(&plan.connection),
    };
    ensure(&target)?;
    Ok(target)
}

fn ensure(folder: &Path) -> Result<(), BackupError> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(_) if folder.is_dir() => Ok(()),
        Err(source) => Err(BackupError::Folder { folder: folder.to_owned(), source }),
        Ok(()) => folder.parent().map_or(Ok(()), sync_folder),
    }
}

/// Makes the names in a folder durable. Some network file systems cannot, and do so by themselves.
fn sync_folder(folder: &Path) -> Result<(), BackupError> {
    match File::open(folder).and_then(|opened| opened.sync_all()) {
        Err(error) if matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported) => {
            Ok(())
        }
        Err(source) => Err(BackupError::Folder { folder: folder.to_owned(), source }),
        Ok(()) => Ok(()),
    }
}

/// The folder of one database's backups.
#[derive(Debug)]
pub(super) struct Folder<'a> {
    path: PathBuf,
    database: &'a Database,
}

impl<'a> Folder<'a> {
    /// Opens the folder of a database, without unfinished files of the past.
    pub(super) fn open(target: &Path, database: &'a Database, ctx: &Context) -> Result<Self, BackupError> {
        let path = target.join(database.as_str());
        ensure(&path)?;
        let folder = Self { path, database };
        folder.remove_abandoned(ctx)?;
        Ok(folder)
    }

    /// Refuses a backup for which there is not enough space: what the last one took and half as much again, `more` bytes
    /// for the tool, and those to leave free.
    pub(super) fn ensure_space(&self, min_free: u64, more: u64) -> Result<(), BackupError> {
        let newest = self.backups()?.0.into_iter().max_by_key(|entry| entry.started);
        let expected = newest.map_or(0, |entry| space::expected(entry.compressed_bytes));
        space::ensure(&self.path, expected.saturating_add(more).saturating_add(min_free))
    }

    /// Starts a file for a backup. `of` says what it unpacks to.
    pub(super) fn start(
        &self,
        codec: Codec,
        of: &str,
        started: DateTime<Utc>,
    ) -> Result<Archive, BackupError> {
        let (unfinished, file, name) = self.claim(&codec.extension(of), started)?;
        Archive::new(codec, unfinished, file, name)
    }

    /// Makes an empty file with a new name that its caller fills and does not keep.
    pub(super) fn stage(&self, of: &str, started: DateTime<Utc>) -> Result<Unfinished, BackupError> {
        self.claim(&format!("copy.{of}"), started).map(|(unfinished, ..)| unfinished)
    }

    /// Finds a name that nobody has. Who has made the unfinished file owns the name.
    fn claim(
        &self,
        extension: &str,
        started: DateTime<Utc>,
    ) -> Result<(Unfinished, File, PathBuf), BackupError> {
        for again in 0..NAMES_PER_SECOND_MAX {
            let name = self.path.join(self.database.file_name(started, again, extension));
            let unfinished = with_suffix(&name, UNFINISHED);
            match Unfinished::create(unfinished) {
                Ok((unfinished, file)) if !name.exists() => return Ok((unfinished, file, name)),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(space::write_failed(&name, 0, error)),
            }
        }
        let source = io::Error::new(io::ErrorKind::AlreadyExists, "too many backups in one second");
        Err(BackupError::Folder { folder: self.path.clone(), source })
    }

    /// Gives a backup and its manifest their names, and then deletes what the retention no longer keeps.
    pub(super) fn keep(
        &self,
        sealed: Sealed,
        started: DateTime<Utc>,
        facts: Facts,
        plan: &Plan,
        ctx: &Context,
    ) -> Result<Saved, BackupError> {
        let file = sealed.name.clone();
        let identity =
            Identity { database: self.database.to_string(), file: file_name(&file), started, ended: now() };
        let manifest = Manifest::new(identity, &sealed, plan.codec, facts);
        // The manifest is on the disk before the backup has its name: a full disk strikes here or never.
        let described = write_manifest(&file, &manifest)?;
        sealed.publish()?;
        let name = with_suffix(&file, MANIFEST);
        described.rename(&name).map_err(|source| BackupError::Write { file: name, source })?;
        sync_folder(&self.path)?;
        let deleted = self.prune(&plan.retention, ctx)?;
        Ok(Saved { database: self.database.clone(), file, manifest, deleted })
    }

    /// Deletes what the retention no longer keeps. A file that cannot be deleted is named and does not make the new
    /// backup a failure, which would only be followed by one more.
    fn prune(&self, rules: &Retention, ctx: &Context) -> Result<usize, BackupError> {
        let (good, problems) = self.backups()?;
        problems.iter().for_each(|problem| ctx.log(problem));
        let mut deleted = 0;
        for entry in retention::expired(&good, rules) {
            let file = self.path.join(&entry.file);
            if rules.dry_run {
                ctx.log(format_args!("{}: would delete {}", self.database, file.display()));
                continue;
            }
            // The manifest goes last: one without a file is named in the log, a file without one would be there for ever.
            match fs::remove_file(&file).and_then(|()| fs::remove_file(with_suffix(&file, MANIFEST))) {
                Ok(()) => {
                    deleted += 1;
                    ctx.log(format_args!("{}: deleted {}", self.database, file.display()));
                }
                Err(error) => ctx.log(format_args!("warning: cannot delete {}: {error}", file.display())),
            }
        }
        Ok(deleted)
    }

    /// Returns the good backups in the folder, and what is wrong with others.
    fn backups(&self) -> Result<(Vec<Entry>, Vec<String>), BackupError> {
        let (mut good, mut problems) = (Vec::new(), Vec::new());
        for name in self.names()?.iter().filter(|name| name.ends_with(MANIFEST)) {
            match self.backup(name) {
                Ok(entry) => good.push(entry),
                Err(problem) => problems.push(problem),
            }
        }
        Ok((good, problems))
    }

    /// Reads a manifest and looks at the file that it describes.
    fn backup(&self, name: &str) -> Result<Entry, String> {
        let path = self.path.join(name);
        let problem = |what: &str| format!("warning: {} is left alone: {what}", path.display());
        let mut text = String::new();
        let read = File::open(&path).and_then(|file| file.take(MANIFEST_BYTES_MAX).read_to_string(&mut text));
        read.map_err(|error| problem(&error.to_string()))?;
        let entry: Entry = serde_json::from_str(&text).map_err(|error| problem(&error.to_string()))?;
        // The name in a manifest is believed only where it is the manifest's own: what it names can be deleted.
        if name.strip_suffix(MANIFEST) != Some(&entry.file) || entry.database != self.database.as_str() {
            return Err(problem("it describes another file"));
        }
        match fs::symlink_metadata(self.path.join(&entry.file)) {
            Ok(found) if !found.is_file() => Err(problem("what it describes is not a file")),
            Ok(found) if found.len() != entry.compressed_bytes => {
                Err(problem("its backup has another length"))
            }
            Ok(_) => Ok(entry),
            Err(error) => Err(problem(&format!("its backup cannot be found: {error}"))),
        }
    }

    /// Removes unfinished files that were not written to for a day.
    fn remove_abandoned(&self, ctx: &Context) -> Result<(), BackupError> {
        let now = SystemTime::from(now());
        for name in self.names()?.iter().filter(|name| name.ends_with(UNFINISHED)) {
            let path = self.path.join(name);
            let age = fs::symlink_metadata(&path).and_then(|found| found.modified()).ok();
            let age = age.and_then(|modified| now.duration_since(modified).ok()).unwrap_or_default();
            if age > UNFINISHED_AGE_MAX {
                match fs::remove_file(&path) {
                    Ok(()) => ctx.log(format_args!("removed the abandoned {}", path.display())),
                    Err(error) => ctx.log(format_args!("warning: cannot remove {}: {error}", path.display())),
                }
            }
        }
        Ok(())
    }

    /// Returns the names in the folder that are this database's, in order.
    fn names(&self) -> Result<Vec<String>, BackupError> {
        let unreadable = |source| BackupError::Folder { folder: self.path.clone(), source };
        let mut names = Vec::new();
        for found in fs::read_dir(&self.path).map_err(unreadable)? {
            let name = found.map_err(unreadable)?.file_name();
            names.extend(name.into_string().ok().filter(|name| self.database.owns(name)));
        }
        names.sort();
        Ok(names)
    }
}

fn write_manifest(file: &Path, manifest: &Manifest) -> Result<Unfinished, BackupError> {
    let path = with_suffix(&with_suffix(file, MANIFEST), UNFINISHED);
    let failed = |error| space::write_failed(&path, 0, error);
    let mut text = serde_json::to_vec_pretty(manifest).map_err(|error| failed(error.into()))?;
    text.push(b'\n');
    let (unfinished, mut file) = Unfinished::create(path.clone()).map_err(failed)?;
    file.write_all(&text).and_then(|()| file.sync_all()).map_err(failed)?;
    Ok(unfinished)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests;

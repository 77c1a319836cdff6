//! The folder that keeps what was fetched and unpacked, and how files get there.
//!
//! `archives/SOURCE/yyyy/mm/dd/NAME.zip` as fetched, `reports/SOURCE/yyyy/mm/dd/NAME/` unpacked,
//! `quarantine/SOURCE/yyyy/mm/dd/` with what is broken and a `.reason.json` beside each. Files and folders appear under
//! their names only when they are complete: they are made beside under a name that begins with a full stop, made durable
//! and renamed. One attempt at a time works on a day of a source; a lock file sees to that.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io,
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use chrono::NaiveDate;
use serde_json::json;
use thiserror::Error;

use super::name;

/// Time between two looks at a lock.
const LOCK_POLL: Duration = Duration::from_millis(200);
/// Looks at a lock: another attempt may hold a day of a source for ten minutes.
const LOCK_POLLS_MAX: u32 = 3_000;
/// Things of one name in the quarantine of a day.
const QUARANTINED_SAME_NAME_MAX: u32 = 1_000;

/// Why the store could not be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// Reading or writing failed.
    #[error("{path} in the store cannot be {verb}")]
    Io {
        /// What was to be done.
        verb: &'static str,
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another attempt works on the same.
    #[error(
        "another attempt has been working on {0} for ten minutes; see which run does, or set a pool of one slot for this task"
    )]
    Locked(PathBuf),
    /// More things of one name than are kept.
    #[error("the quarantine {0} is full of things of one name; look at them and remove them")]
    QuarantineFull(PathBuf),
}

impl StoreError {
    pub(crate) fn io(verb: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { verb, path, source }
    }
}

/// What the store keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Area {
    Archives,
    Reports,
    Quarantine,
}

impl Area {
    const fn folder(self) -> &'static str {
        match self {
            Self::Archives => "archives",
            Self::Reports => "reports",
            Self::Quarantine => "quarantine",
        }
    }
}

/// The folder that keeps everything.
#[derive(Debug, Clone)]
pub(crate) struct Store(PathBuf);

/// A lock on one day of one source; it ends when it is dropped or the process dies.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "holds the lock as long as it is open")] File);

impl Store {
    /// Opens the store, making its areas where they are missing.
    pub(crate) fn open(root: PathBuf) -> Result<Self, StoreError> {
        let store = Self(root);
        for area in [Area::Archives, Area::Reports, Area::Quarantine] {
            make_dir(&store.area(area))?;
        }
        Ok(store)
    }

    /// Returns the folder of an area.
    pub(crate) fn area(&self, area: Area) -> PathBuf {
        self.0.join(area.folder())
    }

    /// Returns the folder of a day of a source.
    pub(crate) fn folder(&self, area: Area, source: &str, day: NaiveDate) -> PathBuf {
        self.area(area).join(source).join(day.format("%Y/%m/%d").to_string())
    }

    /// Takes the lock of a day of a source, waiting for another attempt a while; `waiting` is called if that is so.
    pub(crate) fn lock(
        &self,
        source: &str,
        day: NaiveDate,
        waiting: impl FnOnce(),
    ) -> Result<Lock, StoreError> {
        if let Some(lock) = self.try_lock(source, day)? {
            return Ok(lock);
        }
        waiting();
        for _ in 0..LOCK_POLLS_MAX {
            thread::sleep(LOCK_POLL);
            if let Some(lock) = self.try_lock(source, day)? {
                return Ok(lock);
            }
        }
        Err(StoreError::Locked(self.lock_path(source, day)))
    }

    /// Takes the lock of a day of a source unless another attempt has it.
    fn try_lock(&self, source: &str, day: NaiveDate) -> Result<Option<Lock>, StoreError> {
        let path = self.lock_path(source, day);
        make_dir(&self.0.join("locks"))?;
        let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(StoreError::io("opened", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(StoreError::Io { verb: "locked", path, source }),
        }
    }

    /// Lock files are never removed: one who has opened a removed file would share the lock with one who makes it anew.
    fn lock_path(&self, source: &str, day: NaiveDate) -> PathBuf {
        self.0.join("locks").join(format!("{source}-{day}"))
    }

    /// Removes archives and reports of the days of a source before `first`, except those that another attempt works on, and
    /// returns how many days that were. The quarantine stays: people look at it and empty it.
    pub(crate) fn expire(&self, source: &str, first: NaiveDate) -> Result<usize, StoreError> {
        let mut days = BTreeSet::new();
        for area in [Area::Archives, Area::Reports] {
            days.extend(days_of(&self.area(area).join(source))?.into_iter().filter(|day| *day < first));
        }
        let mut removed = 0;
        for day in days {
            let Some(_lock) = self.try_lock(source, day)? else { continue };
            for area in [Area::Archives, Area::Reports] {
                let folder = self.folder(area, source, day);
                if folder.is_dir() {
                    fs::remove_dir_all(&folder).map_err(StoreError::io("removed", &folder))?;
                }
            }
            removed += 1;
        }
        Ok(removed)
    }

    /// Moves archives of a day back out of the quarantine, of several of one name the newest, and returns how many. Where
    /// one has arrived anew, the old one stays.
    pub(crate) fn take_back(&self, source: &str, day: NaiveDate) -> Result<usize, StoreError> {
        let (from, to) =
            (self.folder(Area::Quarantine, source, day), self.folder(Area::Archives, source, day));
        make_dir(&from)?;
        make_dir(&to)?;
        let mut moved = 0;
        for (file, number) in quarantined(&from)? {
            let name = if number == 1 { file.clone() } else { format!("{file}.{number}") };
            let (path, place) = (from.join(&name), to.join(&file));
            if place.exists() {
                continue;
            }
            fs::rename(&path, &place).map_err(StoreError::io("moved out of the quarantine", &path))?;
            // The reason is told again, should it still hold.
            let _ = fs::remove_file(from.join(format!("{name}.reason.json")));
            moved += 1;
        }
        sync_dir(&to)?;
        Ok(moved)
    }

    /// Moves a file or folder to the quarantine with the reason beside it, and returns where it went.
    pub(crate) fn quarantine(
        &self,
        source: &str,
        day: NaiveDate,
        path: &Path,
        reason: &str,
    ) -> Result<PathBuf, StoreError> {
        let folder = self.folder(Area::Quarantine, source, day);
        make_dir(&folder)?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let numbered = (1..=QUARANTINED_SAME_NAME_MAX)
            .map(|number| folder.join(if number == 1 { name.clone() } else { format!("{name}.{number}") }))
            .find(|place| !place.exists());
        let place = numbered.ok_or_else(|| StoreError::QuarantineFull(folder.clone()))?;
        let note = place.with_file_name(format!(
            "{}.reason.json",
            place.file_name().unwrap_or_default().to_string_lossy()
        ));
        let text =
            json!({ "source": source, "day": day.to_string(), "file": name, "reason": reason }).to_string();
        fs::write(&note, text).map_err(StoreError::io("written", &note))?;
        fs::rename(path, &place).map_err(StoreError::io("moved to the quarantine", path))?;
        sync_dir(&folder)?;
        Ok(place)
    }
}

/// Returns the archives in a quarantine, each with the highest number that it has.
fn quarantined(folder: &Path) -> Result<BTreeMap<String, u32>, StoreError> {
    let mut newest = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(StoreError::io("read", folder))? {
        let entry = entry.map_err(StoreError::io("read", folder))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let (file, number) = match name.rsplit_once('.').map(|(file, number)| (file, number.parse())) {
            Some((file, Ok(number))) => (file.to_owned(), number),
            _ => (name, 1),
        };
        // Reasons and reports are no archives.
        if name::stem(&file) != file && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            let known = newest.entry(file).or_insert(number);
            *known = number.max(*known);
        }
    }
    Ok(newest)
}

/// Returns the days that have a folder `yyyy/mm/dd` below a folder.
fn days_of(root: &Path) -> Result<Vec<NaiveDate>, StoreError> {
    let mut texts = vec![String::new()];
    for _ in 0..3 {
        let parents = std::mem::take(&mut texts);
        for parent in parents {
            let folder = root.join(parent.trim_start_matches('/'));
            let entries = match fs::read_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(StoreError::io("read", &folder))?,
            };
            let kinds = entries
                .filter_map(Result::ok)
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            texts.extend(kinds.map(|entry| format!("{parent}/{}", entry.file_name().to_string_lossy())));
        }
    }
    Ok(texts.iter().filter_map(|text| NaiveDate::parse_from_str(text, "/%Y/%m/%d").ok()).collect())
}

/// Makes a folder and those above it, readable by the executor's account alone; an existing one is left as it is.
pub(crate) fn make_dir(path: &Path) -> Result<(), StoreError> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(StoreError::io("made", path))
}

/// Gives a complete file or folder its name, durably. A folder that has the name is removed first.
pub(crate) fn publish(made: &Path, place: &Path) -> Result<(), StoreError> {
    if place.is_dir() {
        fs::remove_dir_all(place).map_err(StoreError::io("removed", place))?;
    }
    fs::rename(made, place).map_err(StoreError::io("renamed", made))?;
    place.parent().map_or(Ok(()), sync_dir)
}

fn sync_dir(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(StoreError::io("made durable", path))
}

/// Returns the bytes that are free for this account on the file system of a folder.
pub(crate) fn free_space(path: &Path) -> Result<u64, StoreError> {
    let stat =
        nix::sys::statvfs::statvfs(path).map_err(|error| StoreError::io("measured", path)(error.into()))?;
    Ok(stat.blocks_available().saturating_mul(stat.fragment_size()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: NaiveDate = NaiveDate::from_ymd_opt(2018, 7, 25).unwrap();

    #[test]
    fn things_of_one_name_stand_beside_each_other_in_the_quarantine() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("store")).unwrap();
        let broken = folder.path().join("a.zip");
        for (content, name) in [("1", "a.zip"), ("2", "a.zip.2")] {
            fs::write(&broken, content).unwrap();
            let place = store.quarantine("pva", DAY, &broken, "it is broken").unwrap();
            assert_eq!(place, store.folder(Area::Quarantine, "pva", DAY).join(name));
            assert_eq!(fs::read_to_string(&place).unwrap(), content);
            let reason = fs::read_to_string(place.with_file_name(format!("{name}.reason.json"))).unwrap();
            assert!(reason.contains("it is broken"), "{reason}");
        }
        assert!(!broken.exists());
    }

    #[test]
    fn the_newest_archive_of_a_name_comes_back_out_of_the_quarantine() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().join("store")).unwrap();
        let (broken, report) = (folder.path().join("a.zip"), folder.path().join("r"));
        for content in ["1", "2"] {
            fs::write(&broken, content).unwrap();
            store.quarantine("pva", DAY, &broken, "it is broken").unwrap();
        }
        fs::create_dir(&report).unwrap();
        store.quarantine("pva", DAY, &report, "it is broken").unwrap();
        assert_eq!(store.take_back("pva", DAY).unwrap(), 1);
        let place = store.folder(Area::Archives, "pva", DAY).join("a.zip");
        assert_eq!(fs::read_to_string(&place).unwrap(), "2");
        // The older one does not take the place of the newer.
        assert_eq!(store.take_back("pva", DAY).unwrap(), 0);
        assert_eq!(fs::read_to_string(&place).unwrap(), "2");
        let quarantine = store.folder(Area::Quarantine, "pva", DAY);
        let names = fs::read_dir(&quarantine).unwrap().map(|entry| entry.unwrap().file_name());
        let mut names: Vec<_> = names.map(|name| name.into_string().unwrap()).collect();
        names.sort();
        assert_eq!(names, ["a.zip", "a.zip.reason.json", "r", "r.reason.json"]);
    }

    #[test]
    fn a_folder_takes_the_place_of_its_predecessor() {
        let folder = tempfile::tempdir().unwrap();
        let (made, place) = (folder.path().join(".made"), folder.path().join("place"));
        for content in ["1", "2"] {
            make_dir(&made).unwrap();
            fs::write(made.join("file"), content).unwrap();
            publish(&made, &place).unwrap();
            assert_eq!(fs::read_to_string(place.join("file")).unwrap(), content);
        }
    }

    #[test]
    fn a_day_of_a_source_is_locked_for_one_attempt_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_owned()).unwrap();
        let lock = store.lock("pva", DAY, || panic!("nobody has it")).unwrap();
        let _other_source = store.lock("psa", DAY, || panic!("nobody has it")).unwrap();
        let file = File::open(folder.path().join("locks/pva-2018-07-25")).unwrap();
        assert!(matches!(file.try_lock(), Err(TryLockError::WouldBlock)));
        drop(lock);
        file.try_lock().unwrap();
    }

    #[test]
    fn old_days_expire_unless_an_attempt_works_on_them() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_owned()).unwrap();
        let day = |text: &str| text.parse::<NaiveDate>().unwrap();
        for text in ["2017-12-31", "2018-07-23", "2018-07-24", "2018-07-25"] {
            for area in [Area::Archives, Area::Reports, Area::Quarantine] {
                make_dir(&store.folder(area, "pva", day(text))).unwrap();
            }
        }
        make_dir(&store.area(Area::Archives).join("pva/other/folder/here")).unwrap();
        let _busy = store.lock("pva", day("2018-07-23"), || panic!("nobody has it")).unwrap();
        assert_eq!(store.expire("pva", day("2018-07-25")).unwrap(), 2);
        let left = |area| {
            let mut days = days_of(&store.area(area).join("pva")).unwrap();
            days.sort();
            days.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(left(Area::Archives), ["2018-07-23", "2018-07-25"]);
        assert_eq!(left(Area::Reports), ["2018-07-23", "2018-07-25"]);
        assert_eq!(left(Area::Quarantine).len(), 4);
        assert_eq!(store.expire("nobody", day("2018-07-25")).unwrap(), 0);
    }
}

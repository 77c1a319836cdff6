//! The supervisor's part of the data folder: how an executor finds it, and what outlives it.
//!
//! ```text
//! supervisor/lock      held while it lives: the proof of life, whatever became of process numbers
//! supervisor/socket    where later executors connect to
//! supervisor/ends      exits that nobody had settled, one JSON line each
//! supervisor/cgroup    the control group of its attempts, where there is one
//! ```

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::{
            fs::{DirBuilderExt as _, OpenOptionsExt as _},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
};

use super::protocol::{Ended, Terms};

/// The folder.
#[derive(Debug)]
pub(crate) struct Folder {
    path: PathBuf,
    /// Open, because the name of a socket must be short and that of the folder may be long.
    dir: File,
}

impl Folder {
    /// Opens it below the data folder, and makes it where absent.
    pub(crate) fn open(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join("supervisor");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        let dir = File::open(&path)?;
        Ok(Self { path, dir })
    }

    /// Takes the proof of life; `None` while another holds it.
    pub(crate) fn try_lock(&self) -> io::Result<Option<File>> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.path.join("lock"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }

    /// Begins to listen; only the holder of the lock may.
    pub(crate) fn listen(&self) -> io::Result<UnixListener> {
        match fs::remove_file(self.path.join("socket")) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => UnixListener::bind(self.short("socket")),
        }
    }

    /// Connects to who listens.
    pub(crate) fn connect(&self) -> io::Result<UnixStream> {
        UnixStream::connect(self.short("socket"))
    }

    /// Names a file by the open folder: the address of a socket has room for a hundred bytes.
    fn short(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.dir.as_raw_fd()))
    }

    /// Opens the journal of ends.
    pub(crate) fn ends(&self) -> io::Result<Ends> {
        let path = self.path.join("ends");
        let file = OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(path)?;
        let is_empty = file.metadata()?.len() == 0;
        Ok(Ends { file, is_empty })
    }

    /// Reads the ends that a supervisor left, oldest first. A line that is torn was never finished: nobody relied on it.
    pub(crate) fn left_ends(&self) -> Vec<Ended> {
        let text = fs::read_to_string(self.path.join("ends")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Notes the control group, so that it can be ended when its supervisor cannot.
    pub(crate) fn note_cgroup(&self, cgroup: Option<&Path>) -> io::Result<()> {
        let path = self.path.join("cgroup");
        match cgroup {
            Some(cgroup) => fs::write(path, cgroup.as_os_str().as_encoded_bytes()),
            None => match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        }
    }

    /// Returns the control group that was noted.
    pub(crate) fn cgroup(&self) -> Option<PathBuf> {
        use std::os::unix::ffi::OsStringExt as _;
        let bytes = fs::read(self.path.join("cgroup")).ok().filter(|bytes| !bytes.is_empty())?;
        Some(PathBuf::from(std::ffi::OsString::from_vec(bytes)))
    }
}

/// The journal of exits that no executor was there to hear of.
#[derive(Debug)]
pub(crate) struct Ends {
    file: File,
    is_empty: bool,
}

impl Ends {
    /// Makes ends durable. Secrets are left out: they are never written.
    pub(crate) fn append<'e>(&mut self, ends: impl IntoIterator<Item = &'e Ended>) -> io::Result<()> {
        let mut lines = Vec::new();
        for end in ends {
            let terms = Terms { secrets: Vec::new(), ..end.terms.clone() };
            serde_json::to_writer(&mut lines, &Ended { terms, ..end.clone() })?;
            lines.push(b'\n');
        }
        if lines.is_empty() {
            return Ok(());
        }
        self.is_empty = false;
        self.file.write_all(&lines)?;
        self.file.sync_data()
    }

    /// Forgets all: they are durable elsewhere.
    pub(crate) fn clear(&mut self) -> io::Result<()> {
        if !self.is_empty {
            self.file.set_len(0)?;
            self.is_empty = true;
        }
        Ok(())
    }
}

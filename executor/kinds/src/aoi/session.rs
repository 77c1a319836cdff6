//! Trying again: one place that opens an origin, notices that it broke and decides when to stop.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    path::PathBuf,
    thread,
    time::Duration,
};

use super::{
    blocking::Log,
    folder::FolderRemote,
    ftp::{Address, FtpRemote},
    remote::{Remote, RemoteError},
};

/// Longest pause between two tries.
const PAUSE_MAX: Duration = Duration::from_mins(1);
/// Tries of one operation altogether, with progress between them: a link that drops every few megabytes.
const TRIES_MAX: u32 = 200;

/// Where a source is, with all that opening it needs.
#[derive(Debug, Clone)]
pub(crate) enum Site {
    Ftp(Box<Address>),
    Folder(PathBuf),
}

impl Site {
    fn open(&self) -> Result<Box<dyn Remote>, RemoteError> {
        match self {
            Self::Ftp(address) => Ok(Box::new(FtpRemote::open(address)?)),
            Self::Folder(path) => Ok(Box::new(FolderRemote::open(path)?)),
        }
    }
}

/// How often and how fast to try.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Tries without progress.
    pub(crate) attempts: u8,
    /// Pause before the second.
    pub(crate) delay: Duration,
}

impl Patience {
    /// Returns the pause after `failures` tries in a row without progress, or nothing where it is over.
    fn pause(self, failures: u32, tries: u32) -> Option<Duration> {
        if failures >= u32::from(self.attempts) || tries >= TRIES_MAX {
            return None;
        }
        let doubled = self.delay.saturating_mul(1 << (failures.max(1) - 1).min(16)).min(PAUSE_MAX);
        // Between half and all of it, so that many executors do not come back to one server at the same moment.
        let part = RandomState::new().build_hasher().finish() % 1_000;
        Some(doubled / 2 + doubled / 2 * u32::try_from(part).unwrap_or_default() / 1_000)
    }
}

/// A session with an origin that is opened again where it breaks.
pub(crate) struct Session<'a> {
    site: &'a Site,
    patience: Patience,
    log: &'a Log,
    remote: Option<Box<dyn Remote>>,
}

impl<'a> Session<'a> {
    /// Makes a session; it is opened by its first use.
    pub(crate) fn new(site: &'a Site, patience: Patience, log: &'a Log) -> Self {
        Self { site, patience, log, remote: None }
    }

    /// Runs an operation, again where that may help. `progress` is a number that grows where a try got somewhere.
    pub(crate) fn run<T>(
        &mut self,
        progress: impl Fn() -> u64,
        mut operation: impl FnMut(&mut dyn Remote) -> Result<T, RemoteError>,
    ) -> Result<T, RemoteError> {
        let (mut failures, mut reached) = (0, progress());
        for tries in 1.. {
            let error = match self.remote().and_then(&mut operation) {
                Ok(result) => return Ok(result),
                Err(error) => error,
            };
            self.remote = None;
            failures = if progress() > reached { 1 } else { failures + 1 };
            reached = progress();
            let pause = error.is_retryable().then(|| self.patience.pause(failures, tries)).flatten();
            let Some(pause) = pause else { return Err(error) };
            self.log.line(format!("{}; trying again in {} ms", chain(&error), pause.as_millis()));
            thread::sleep(pause);
        }
        unreachable!("the number of tries is bounded")
    }

    fn remote(&mut self) -> Result<&mut dyn Remote, RemoteError> {
        let remote = match self.remote.take() {
            Some(remote) => remote,
            None => self.site.open()?,
        };
        Ok(self.remote.insert(remote).as_mut())
    }
}

/// Renders an error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_end() {
        let patience = Patience { attempts: 4, delay: Duration::from_millis(100) };
        for (failures, most) in [(1, 100), (2, 200), (3, 400)] {
            let pause = patience.pause(failures, failures).unwrap().as_millis();
            assert!((most / 2..=most).contains(&pause), "{failures}: {pause}");
        }
        assert_eq!(patience.pause(4, 4), None);
        assert_eq!(patience.pause(1, TRIES_MAX), None);
        let long = Patience { attempts: 20, delay: Duration::from_secs(50) };
        assert!(long.pause(19, 19).unwrap() <= PAUSE_MAX);
    }
}

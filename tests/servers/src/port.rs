//! Ports that stay one's own until they are given back, also while nobody listens on them.
//!
//! They are taken from below the range that the system gives to outgoing connections, so that no client gets one while
//! its server is down, and each is held by a locked file, so that no test beside this one does.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener},
    process,
    sync::atomic::{AtomicU16, Ordering},
};

/// The ports that are given out; Linux begins at 32,768 with those of outgoing connections.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A port that nobody else in these tests has.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// Locked as long as the port is taken.
    _lock: File,
}

impl Port {
    /// Takes a free one.
    ///
    /// # Panics
    /// Where none is free.
    #[must_use]
    pub fn take() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let folder = std::env::temp_dir().join(format!("millrace-ports-{}", nix::unistd::geteuid()));
        fs::create_dir_all(&folder).expect("a folder for the locks of ports");
        // Programs that run side by side begin at different places, so that they seldom look at the same.
        let own = u16::try_from(process::id() * 61 % u32::from(COUNT)).unwrap_or(0);
        for _ in 0..COUNT {
            let offset =
                (u32::from(own) + u32::from(NEXT.fetch_add(1, Ordering::Relaxed))) % u32::from(COUNT);
            let number = FIRST + u16::try_from(offset).unwrap_or(0);
            let lock = File::create(folder.join(number.to_string())).expect("a file to lock");
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::UNSPECIFIED, number)).is_ok() {
                return Self { number, _lock: lock };
            }
        }
        panic!("no port from {FIRST} to {} is free", FIRST + COUNT - 1)
    }

    /// Returns its number.
    #[must_use]
    pub const fn number(&self) -> u16 {
        self.number
    }
}

//! What an origin of archives can do, and why it may fail to.
//!
//! Both origins, an FTP server and a folder, are blocking: they run on threads of their own. An origin never decides to
//! try again; callers ask [`RemoteError::is_retryable`], drop the origin and open another.

use std::io;

use thiserror::Error;

/// Entries of one folder: far above the files that may be taken from it.
pub(crate) const LISTING_ENTRIES_MAX: usize = 200_000;

/// Size and time of a file: what tells one version of it from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Version {
    /// Bytes.
    pub(crate) size: u64,
    /// Seconds since 1970.
    pub(crate) mtime: i64,
}

/// A regular file of a folder, named as the origin names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) name: String,
    pub(crate) version: Version,
}

/// Takes bytes as they arrive.
pub(crate) type Sink<'a> = dyn FnMut(&[u8]) -> io::Result<()> + 'a;

/// An origin, opened.
pub(crate) trait Remote: Send {
    /// Returns the regular files of a folder, or nothing where there is no such folder.
    fn list(&mut self, folder: &str) -> Result<Option<Vec<Entry>>, RemoteError>;

    /// Returns the present version of a file, or nothing where there is no such file.
    fn version(&mut self, folder: &str, name: &str) -> Result<Option<Version>, RemoteError>;

    /// Reads a file from an offset to its end.
    fn read(&mut self, folder: &str, name: &str, offset: u64, sink: &mut Sink<'_>)
    -> Result<(), RemoteError>;
}

/// Why an origin did not do what it was asked to. No variant carries a password.
#[derive(Debug, Error)]
pub enum RemoteError {
    /// No connection to the server.
    #[error("connection {connection:?}: {address} cannot be reached")]
    Unreachable {
        /// The connection's name.
        connection: String,
        /// Host and port.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server does not know the account or the password.
    #[error(
        "connection {connection:?}: the server refuses the login of {user:?} ({reply}); correct user and password of [connections.{connection}]"
    )]
    Login {
        /// The connection's name.
        connection: String,
        /// The account.
        user: String,
        /// What the server said.
        reply: String,
    },
    /// The home folder is not there.
    #[error("connection {connection:?}: there is no folder {home:?} ({reply})")]
    Home {
        /// The connection's name.
        connection: String,
        /// The folder.
        home: String,
        /// What the server said.
        reply: String,
    },
    /// The server answered no.
    #[error("connection {connection:?}: {during} was answered with {reply}")]
    Reply {
        /// The connection's name.
        connection: String,
        /// What was asked.
        during: String,
        /// The code of the answer.
        code: u32,
        /// The answer.
        reply: String,
    },
    /// The connection broke.
    #[error("connection {connection:?}: the connection broke during {during}")]
    Broken {
        /// The connection's name.
        connection: String,
        /// What was asked.
        during: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The server answered something that is no FTP.
    #[error("connection {connection:?}: the answer to {during} is not one of FTP")]
    Protocol {
        /// The connection's name.
        connection: String,
        /// What was asked.
        during: String,
    },
    /// The server said that a transfer is complete, and it is not.
    #[error("{name} ended after {length} of {size} bytes")]
    Short {
        /// The file.
        name: String,
        /// Bytes that arrived.
        length: u64,
        /// Bytes that it should have.
        size: u64,
    },
    /// More entries or bytes than a listing may have.
    #[error("folder {folder:?} has more than {LISTING_ENTRIES_MAX} entries or too long a listing")]
    Listing {
        /// The folder.
        folder: String,
    },
    /// A folder of this machine cannot be read.
    #[error("{path} cannot be read")]
    Folder {
        /// The path.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What arrived could not be kept.
    #[error("what arrived cannot be written to the store")]
    Sink(#[source] io::Error),
}

impl RemoteError {
    /// Tells whether the same may succeed a little later over a new connection.
    pub(crate) const fn is_retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } | Self::Protocol { .. } | Self::Short { .. } => {
                true
            }
            Self::Reply { code, .. } => *code >= 400 && *code < 500,
            Self::Login { .. }
            | Self::Home { .. }
            | Self::Listing { .. }
            | Self::Folder { .. }
            | Self::Sink(_) => false,
        }
    }

    /// Tells whether no other file of the same origin can succeed either.
    pub(crate) const fn ends_source(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Login { .. } | Self::Home { .. } | Self::Sink(_) => true,
            Self::Reply { .. }
            | Self::Broken { .. }
            | Self::Protocol { .. }
            | Self::Short { .. }
            | Self::Listing { .. }
            | Self::Folder { .. } => false,
        }
    }
}

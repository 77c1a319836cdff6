//! The shared secret between masters and executors, as a file.
//!
//! A token file is made once, readable by its owner alone. A file that others can read, or a secret that anybody could
//! guess, is refused at start: a default that works is a default that stays.

use std::{
    fmt::Write as _,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use millrace_common::secret::Secret;
use thiserror::Error;

/// Random bytes of a new token.
const TOKEN_BYTES: usize = 32;
/// Characters of the shortest token that is accepted: 128 bits as hexadecimal text.
pub const TOKEN_CHARS_MIN: usize = 32;
/// Bytes of the longest token file that is read.
const TOKEN_FILE_BYTES_MAX: u64 = 4 << 10;
/// Permission bits that a token file must not have: anything for others, writing for the group.
const MODE_FORBIDDEN: u32 = 0o027;
/// Secrets of examples and of other products; nobody may run with them.
const KNOWN_DEFAULTS: &[&str] =
    &["changeme", "change_me", "default_token", "admin", "secret", "password", "token"];

/// Why no token file was made.
#[derive(Debug, Error)]
pub enum CreateTokenError {
    /// There is one already.
    #[error("token file {0} exists already; it is left as it is")]
    Exists(PathBuf),
    /// The kernel gave no random bytes.
    #[error("the system gives no random bytes")]
    Random(#[source] getrandom::Error),
    /// The file could not be written.
    #[error("cannot write token file {path}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Why a token file was refused.
#[derive(Debug, Error)]
pub enum ReadTokenError {
    /// The file could not be read.
    #[error("cannot read token file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Other accounts can read or change the file.
    #[error(
        "token file {path} has mode {mode:o}: other accounts can read or change it; run `chmod 600 {path}`"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The token is empty, too short, or one that everybody knows.
    #[error(
        "token file {path} holds {problem}; make a new one with at least {TOKEN_CHARS_MIN} random characters"
    )]
    Weak {
        /// The file.
        path: PathBuf,
        /// What is wrong with the token; never the token itself.
        problem: &'static str,
    },
}

/// Makes a token file of 64 random hexadecimal characters that only its owner can read.
///
/// The file appears complete or not at all, and an existing one is never replaced.
///
/// # Errors
/// Where the file exists already or cannot be written.
pub fn create_token_file(path: &Path) -> Result<(), CreateTokenError> {
    // Looked for first, so that nothing is written where it is there: its folder may be read-only, its disk full. Who
    // makes it meanwhile is met by the link. Of a name that leads nowhere, too, nothing is replaced.
    if path.symlink_metadata().is_ok() {
        return Err(CreateTokenError::Exists(path.to_owned()));
    }
    let mut random = [0_u8; TOKEN_BYTES];
    getrandom::fill(&mut random).map_err(CreateTokenError::Random)?;
    let mut text = String::with_capacity(2 * TOKEN_BYTES + 1);
    for byte in random {
        let _ = write!(text, "{byte:02x}");
    }
    text.push('\n');
    write_new(path, &text).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => CreateTokenError::Exists(path.to_owned()),
        _ => CreateTokenError::Write { path: path.to_owned(), source },
    })
}

/// Writes beside the target and links it into place: unlike a rename, a link never replaces what is there.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(format!(".new-{}", std::process::id()));
    let beside = path.with_file_name(name);
    let written = write_synced(&beside, text).and_then(|()| fs::hard_link(&beside, path));
    let removed = fs::remove_file(&beside);
    written.and(removed)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn write_synced(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Reads a token file.
///
/// # Errors
/// Where it cannot be read, other accounts can read or change it, or the token is weak.
pub fn read_token_file(path: &Path) -> Result<Secret, ReadTokenError> {
    let unread = |source| ReadTokenError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(unread)?;
    let mode = file.metadata().map_err(unread)?.mode() & 0o777;
    if mode & MODE_FORBIDDEN != 0 {
        return Err(ReadTokenError::Exposed { path: path.to_owned(), mode });
    }
    let mut text = String::new();
    file.take(TOKEN_FILE_BYTES_MAX).read_to_string(&mut text).map_err(unread)?;
    let token = text.trim();
    match weakness(token) {
        Some(problem) => Err(ReadTokenError::Weak { path: path.to_owned(), problem }),
        None => Ok(Secret::new(token.to_owned())),
    }
}

fn weakness(token: &str) -> Option<&'static str> {
    if token.is_empty() {
        return Some("nothing");
    }
    if KNOWN_DEFAULTS.contains(&token.to_ascii_lowercase().as_str()) {
        return Some("a token that everybody knows");
    }
    if token.len() < TOKEN_CHARS_MIN {
        return Some("a token that is too short");
    }
    let first = token.as_bytes().first();
    if token.bytes().all(|byte| Some(&byte) == first) {
        return Some("one character over and over");
    }
    token.bytes().any(|byte| !byte.is_ascii_graphic()).then_some("a character that cannot travel in a header")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_new_token_is_private_and_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        create_token_file(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(read_token_file(&path).unwrap().expose().len(), 2 * TOKEN_BYTES);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_existing_token_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        create_token_file(&path).unwrap();
        let before = fs::read(&path).unwrap();
        assert!(matches!(create_token_file(&path), Err(CreateTokenError::Exists(_))));
        assert_eq!(fs::read(&path).unwrap(), before);
    }

    #[test]
    fn an_existing_token_is_found_where_nothing_can_be_written_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        // Permissions do not keep root from writing; a longer name than a folder takes keeps everybody.
        let path = folder.path().join("t".repeat(255));
        write_synced(&path, "0123456789abcdef0123456789abcdef").unwrap();
        let refusal = create_token_file(&path).unwrap_err();
        assert!(matches!(refusal, CreateTokenError::Exists(_)), "{refusal:?}");
    }

    #[test]
    fn a_token_that_appears_meanwhile_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        write_synced(&path, "first").unwrap();
        assert_eq!(write_new(&path, "second").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_token_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        create_token_file(&path).unwrap();
        for mode in [0o644, 0o620, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(matches!(read_token_file(&path), Err(ReadTokenError::Exposed { .. })), "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read_token_file(&path).is_ok());
    }

    #[test]
    fn weak_tokens_are_refused_without_showing_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        for token in ["", "  \n", "changeme", "Default_Token", "admin", "0123456789abcdef", &"a".repeat(64)] {
            write_synced(&path, token).unwrap();
            let error = read_token_file(&path).unwrap_err();
            assert!(matches!(error, ReadTokenError::Weak { .. }), "{token:?}");
            assert!(!error.to_string().contains("0123456789"));
            fs::remove_file(&path).unwrap();
        }
    }
}

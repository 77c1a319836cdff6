//! Where definitions come from: files, folders, standard input.

use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use millrace_common::limits::DOCUMENT_BYTES_MAX;

/// Files of a folder at most; more is a mistake.
const FILES_MAX: usize = 10_000;
/// Names standard input where a path is expected.
const STDIN: &str = "-";

/// A document and where it came from.
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// Reads all documents. A folder gives its files that end in yaml, yml or json, below it as well, in order of their paths.
pub(crate) fn read(paths: &[PathBuf]) -> anyhow::Result<Vec<Source>> {
    if paths.iter().filter(|path| is_stdin(path)).count() > 1 {
        bail!("standard input can be read once only: name {STDIN} once");
    }
    let mut sources = Vec::new();
    for path in paths {
        if path.is_dir() {
            let mut files = Vec::new();
            collect(path, &mut files)?;
            files.sort();
            if files.is_empty() {
                bail!("{} holds no file that ends in .yaml, .yml or .json", path.display());
            }
            for file in files {
                sources.push(read_one(&file)?);
            }
        } else {
            sources.push(read_one(path)?);
        }
    }
    Ok(sources)
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == STDIN
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let unread = || format!("cannot read {}", folder.display());
    for entry in std::fs::read_dir(folder).with_context(unread)? {
        let entry = entry.with_context(unread)?;
        let path = entry.path();
        // Links are not followed: a loop of them would never end.
        let kind = entry.file_type().with_context(unread)?;
        let is_document = path.extension().is_some_and(|end| end == "yaml" || end == "yml" || end == "json");
        if kind.is_dir() {
            collect(&path, files)?;
        } else if kind.is_file() && is_document {
            files.push(path);
        }
        if files.len() > FILES_MAX {
            bail!("{} holds more than {FILES_MAX} files", folder.display());
        }
    }
    Ok(())
}

/// Reads a file, or standard input.
pub(crate) fn read_one(path: &Path) -> anyhow::Result<Source> {
    let (name, bytes) = if is_stdin(path) {
        ("<stdin>".to_owned(), limited(io::stdin().lock()))
    } else {
        (path.display().to_string(), File::open(path).and_then(limited))
    };
    let bytes = bytes.with_context(|| format!("cannot read {name}"))?;
    let text = String::from_utf8(bytes).with_context(|| format!("{name} is not text in UTF-8"))?;
    Ok(Source { name, text })
}

/// Reads no more than shows that a document is too large.
fn limited(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(DOCUMENT_BYTES_MAX as u64 + 4).read_to_end(&mut bytes)?;
    if bytes.len() > DOCUMENT_BYTES_MAX {
        let problem = format!("it has more than {} MiB", DOCUMENT_BYTES_MAX >> 20);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, problem));
    }
    Ok(bytes)
}

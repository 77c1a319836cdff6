//! Which files a `path` with wildcards means, and which files have a prefix.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use crate::{
    limits::{DIRECTORY_DEPTH, TASKS},
    plugin::PluginError,
};

/// Returns the files that the patterns mean, sorted, each once. `*` stands for any text, `?` for
/// one character, both across folders; a folder stands for all files below it.
pub(crate) fn matching(patterns: &[String]) -> Result<Vec<PathBuf>, PluginError> {
    let mut files = Vec::new();
    for pattern in patterns {
        if pattern.contains(['*', '?']) {
            walk(
                &parent(pattern),
                0,
                &mut |path| wildcard(pattern.as_bytes(), path.as_os_str().as_encoded_bytes()),
                &mut files,
            )?;
        } else {
            collect(Path::new(pattern), &mut files)?;
        }
    }
    files.sort();
    files.dedup();
    if files.is_empty() {
        return Err(PluginError::NoFile { patterns: patterns.join(", ") });
    }
    Ok(files)
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), PluginError> {
    let meta = fs::metadata(path).map_err(|source| failed(path, "found", source))?;
    if meta.is_dir() {
        return walk(path, 0, &mut |_| true, files);
    }
    files.push(path.to_owned());
    Ok(())
}

/// The folder before the first wildcard.
fn parent(pattern: &str) -> PathBuf {
    let wild = pattern.find(['*', '?']).unwrap_or(pattern.len());
    let end = pattern[..wild].rfind('/').map_or(0, |at| at + 1);
    PathBuf::from(&pattern[..end])
}

fn walk(
    folder: &Path,
    depth: usize,
    wanted: &mut dyn FnMut(&Path) -> bool,
    files: &mut Vec<PathBuf>,
) -> Result<(), PluginError> {
    if depth > DIRECTORY_DEPTH {
        return Err(PluginError::TooMany { what: "folders within each other", limit: DIRECTORY_DEPTH });
    }
    for entry in fs::read_dir(folder).map_err(|source| failed(folder, "listed", source))? {
        let path = entry.map_err(|source| failed(folder, "listed", source))?.path();
        // A link to nothing is no file.
        let Ok(meta) = fs::metadata(&path) else { continue };
        if meta.is_dir() {
            walk(&path, depth + 1, wanted, files)?;
        } else if meta.is_file() && wanted(&path) {
            files.push(path);
        }
        if files.len() > TASKS {
            return Err(PluginError::TooMany { what: "files", limit: TASKS });
        }
    }
    Ok(())
}

/// Returns the files directly in `folder` whose names start with `prefix`.
pub(crate) fn with_prefix(folder: &Path, prefix: &str) -> Result<Vec<PathBuf>, PluginError> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|source| failed(folder, "listed", source))? {
        let entry = entry.map_err(|source| failed(folder, "listed", source))?;
        let named = entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes());
        if named && entry.file_type().is_ok_and(|kind| !kind.is_dir()) {
            files.push(entry.path());
        }
    }
    Ok(files)
}

pub(crate) fn failed(path: &Path, action: &'static str, source: io::Error) -> PluginError {
    PluginError::File { path: path.to_owned(), action, source }
}

/// Matches with one step back to the last star, so the time is bounded by the product of lengths.
fn wildcard(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut in_text) = (0, 0);
    let mut last_star: Option<(usize, usize)> = None;
    while in_text < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                last_star = Some((at, in_text));
                at += 1;
            }
            Some(letter) if *letter == b'?' || *letter == text[in_text] => {
                at += 1;
                in_text += 1;
            }
            _ => match last_star {
                Some((star, from)) => {
                    last_star = Some((star, from + 1));
                    at = star + 1;
                    in_text = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|letter| *letter == b'*')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn wildcards_match_as_in_a_shell_but_across_folders() {
        for (pattern, text, matches) in [
            ("/a/*.txt", "/a/b.txt", true),
            ("/a/*.txt", "/a/c/b.txt", true),
            ("/a/b?.csv", "/a/b1.csv", true),
            ("/a/b?.csv", "/a/b12.csv", false),
            ("/a/*b*c", "/a/xbybzc", true),
            ("/a/*b*c", "/a/xbybz", false),
            ("*", "", true),
        ] {
            assert_eq!(wildcard(pattern.as_bytes(), text.as_bytes()), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn folders_patterns_and_files_are_found_once_and_sorted() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap();
        fs::create_dir(folder.path().join("sub")).unwrap();
        for name in ["b.txt", "a.txt", "sub/c.txt", "d.csv"] {
            fs::write(folder.path().join(name), "x").unwrap();
        }
        let names = |patterns: &[&str]| -> Vec<String> {
            let patterns: Vec<_> = patterns.iter().map(|name| format!("{root}/{name}")).collect();
            let files = matching(&patterns).unwrap();
            files.iter().map(|path| path.strip_prefix(root).unwrap().display().to_string()).collect()
        };
        assert_eq!(names(&[""]), ["a.txt", "b.txt", "d.csv", "sub/c.txt"]);
        assert_eq!(names(&["*.txt", "a.txt"]), ["a.txt", "b.txt", "sub/c.txt"]);
        assert!(matches!(matching(&[format!("{root}/*.xml")]), Err(PluginError::NoFile { .. })));
        assert!(matches!(matching(&[format!("{root}/none")]), Err(PluginError::File { .. })));
    }
}

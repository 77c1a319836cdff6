//! Names that a server or an archive chose: refused unless they are harmless as the name of one file.
//!
//! Nothing is repaired by guessing. The one change is that of the plant's `..._zip` into `....zip`.

use thiserror::Error;

/// Characters of a file name; the longest of the plant's has 60.
const NAME_CHARS_MAX: usize = 128;
/// Bytes of a file name, which with the endings added here stay under the 255 that file systems take.
const NAME_BYTES_MAX: usize = 200;
/// Components of a path within an archive.
const DEPTH_MAX: usize = 8;
/// Characters beside letters and digits that a name may have.
const MARKS: &[char] =
    &[' ', '.', '_', '-', '(', ')', '[', ']', '+', ',', '=', '@', '#', '&', '~', '!', '（', '）'];

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum NameError {
    /// Nothing, or only spaces.
    #[error("the name is empty")]
    Empty,
    /// `.`, `..`, an absolute path, a drive or a separator.
    #[error("the name leads to another folder")]
    Traversal,
    /// A hidden file, or one that programs take for an option.
    #[error("the name begins with {0:?}")]
    Beginning(char),
    /// A space or full stop at the end.
    #[error("the name ends with {0:?}")]
    Ending(char),
    /// A character that is not allowed.
    #[error("the name has the character {0:?}")]
    Character(char),
    /// Bytes that the encoding does not know.
    #[error("the name is not in the encoding of the source; set `encoding`")]
    Encoding,
    /// Longer than allowed.
    #[error("the name has {0} characters, at most {NAME_CHARS_MAX} are taken")]
    TooLong(usize),
    /// Deeper than allowed.
    #[error("the path has {0} components, at most {DEPTH_MAX} are taken")]
    TooDeep(usize),
}

/// Checks the name of one file or folder.
pub(crate) fn check(name: &str) -> Result<(), NameError> {
    let has_drive = name.as_bytes().get(1) == Some(&b':');
    if name == "." || name == ".." || has_drive || name.contains(['/', '\\', '\0']) {
        return Err(NameError::Traversal);
    }
    if name.contains('\u{FFFD}') {
        return Err(NameError::Encoding);
    }
    let Some((first, last)) = name.chars().next().zip(name.chars().next_back()) else {
        return Err(NameError::Empty);
    };
    if let Some(other) = name.chars().find(|c| !c.is_alphanumeric() && !MARKS.contains(c)) {
        return Err(NameError::Character(other));
    }
    if matches!(first, '.' | '-' | ' ' | '~') {
        return Err(NameError::Beginning(first));
    }
    if matches!(last, '.' | ' ') {
        return Err(NameError::Ending(last));
    }
    let count = name.chars().count();
    if count > NAME_CHARS_MAX || name.len() > NAME_BYTES_MAX {
        return Err(NameError::TooLong(count));
    }
    Ok(())
}

/// Checks a path within an archive and returns its components. Old Windows programs separate them by backslashes.
pub(crate) fn components(path: &str) -> Result<Vec<&str>, NameError> {
    let path = path.strip_suffix(['/', '\\']).unwrap_or(path);
    let components: Vec<&str> = path.split(['/', '\\']).collect();
    if components.len() > 1 && components[0].is_empty() {
        return Err(NameError::Traversal);
    }
    if components.len() > DEPTH_MAX {
        return Err(NameError::TooDeep(components.len()));
    }
    components.iter().try_for_each(|component| check(component))?;
    Ok(components)
}

/// Returns the name under which an archive is kept: `..._zip` becomes `....zip`, unless `is_taken` says that another file
/// of the same folder has that name; then `.zip` is added.
pub(crate) fn local(name: &str, is_taken: impl Fn(&str) -> bool) -> String {
    let ending = name.len().checked_sub(4).and_then(|at| name.get(at..)).unwrap_or_default();
    if !ending.eq_ignore_ascii_case("_zip") {
        return name.to_owned();
    }
    let renamed = format!("{}.zip", &name[..name.len() - 4]);
    if is_taken(&renamed) || check(&renamed).is_err() { format!("{name}.zip") } else { renamed }
}

/// Returns an archive's name without its ending.
pub(crate) fn stem(name: &str) -> &str {
    let at = name.len().saturating_sub(4);
    match name.get(at..) {
        Some(ending) if ending.eq_ignore_ascii_case(".zip") || ending.eq_ignore_ascii_case("_zip") => {
            &name[..at]
        }
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_plant_are_taken() {
        for name in [
            "ModularStandardReport-1KSPVA0723-02 (2).zip",
            "卷 7（补）.zip",
            "a_zip",
            "x",
            "caf\u{e9} #1.zip",
        ] {
            assert_eq!(check(name), Ok(()), "{name}");
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for name in ["..", ".", "../../x", "/etc/passwd", "a/b", "a\\b", "C:evil.zip", "c:\\x", "a\0.zip"] {
            assert_eq!(check(name), Err(NameError::Traversal), "{name:?}");
        }
    }

    #[test]
    fn names_that_mislead_programs_or_people_are_refused() {
        assert_eq!(check(""), Err(NameError::Empty));
        assert_eq!(check(".bashrc"), Err(NameError::Beginning('.')));
        assert_eq!(check("-rf.zip"), Err(NameError::Beginning('-')));
        assert_eq!(check("a.zip "), Err(NameError::Ending(' ')));
        assert_eq!(check("a\r\nDELE b.zip"), Err(NameError::Character('\r')));
        assert_eq!(check("a\u{202e}piz.exe"), Err(NameError::Character('\u{202e}')));
        assert_eq!(check("$(reboot).zip"), Err(NameError::Character('$')));
        assert_eq!(check("a\u{FFFD}.zip"), Err(NameError::Encoding));
        assert_eq!(check(&"a".repeat(129)), Err(NameError::TooLong(129)));
        assert_eq!(check(&"卷".repeat(100)), Err(NameError::TooLong(100)));
    }

    #[test]
    fn paths_of_archives_are_checked_component_by_component() {
        assert_eq!(components("report (2)/header.csv"), Ok(vec!["report (2)", "header.csv"]));
        assert_eq!(components("report\\header.csv"), Ok(vec!["report", "header.csv"]));
        assert_eq!(components("report/"), Ok(vec!["report"]));
        for path in ["../x", "a/../../x", "/x", "\\\\host\\share", "a/..", "C:/x"] {
            assert_eq!(components(path), Err(NameError::Traversal), "{path}");
        }
        assert_eq!(components("a//b"), Err(NameError::Empty));
        assert_eq!(components("1/2/3/4/5/6/7/8/9"), Err(NameError::TooDeep(9)));
    }

    #[test]
    fn underscore_endings_become_real_ones() {
        assert_eq!(local("a_zip", |_| false), "a.zip");
        assert_eq!(local("a_ZIP", |_| false), "a.zip");
        assert_eq!(local("a_zip", |name| name == "a.zip"), "a_zip.zip");
        assert_eq!(local("_zip", |_| false), "_zip.zip");
        assert_eq!(local("a.zip", |_| true), "a.zip");
        assert_eq!((stem("a.ZIP"), stem("a_zip"), stem("a"), stem("卷卷")), ("a", "a", "a", "卷卷"));
    }
}

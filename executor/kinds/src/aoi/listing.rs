//! Lines of a directory listing: MLSD, and LIST as Unix and Windows servers write it.
//!
//! A line that is not understood is counted, not guessed at. Of LIST only names and kinds are trusted: its times are those
//! of the server's wall clock and without seconds, so callers ask for size and time of each file.

use chrono::{DateTime, NaiveDateTime, Utc};
use suppaftp::list::{File, ListParser};

use super::remote::{Entry, Version};

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Line {
    /// A regular file.
    File(Entry),
    /// A folder, a link or a summary: nothing to take.
    Other,
    /// Not understood.
    Unknown,
}

/// Reads a line of MLSD: facts that end with `;`, a space, the name.
pub(crate) fn mlsd(line: &str) -> Line {
    let Some((facts, name)) = line.split_once(' ') else { return Line::Unknown };
    let (mut kind, mut size, mut mtime) = (None, None, None);
    for fact in facts.split(';').filter(|fact| !fact.is_empty()) {
        let Some((key, value)) = fact.split_once('=') else { return Line::Unknown };
        match key.to_ascii_lowercase().as_str() {
            "type" => kind = Some(value.to_ascii_lowercase()),
            "size" => size = value.parse().ok(),
            "modify" => mtime = time(value),
            _ => {}
        }
    }
    match (kind.as_deref(), size, mtime) {
        (Some("file"), Some(size), Some(mtime)) => {
            Line::File(Entry { name: name.to_owned(), version: Version { size, mtime } })
        }
        (Some("file") | None, _, _) => Line::Unknown,
        (Some(_), _, _) => Line::Other,
    }
}

/// Reads a line of LIST.
pub(crate) fn list(line: &str) -> Line {
    if line.starts_with("total ") {
        return Line::Other;
    }
    let parsed = ListParser::parse_posix(line)
        .or_else(|_| ListParser::parse_dos(line))
        .or_else(|_| ListParser::parse_dos(&with_short_year(line)));
    match parsed {
        Ok(file) if file.is_file() => Line::File(entry(&file)),
        Ok(_) => Line::Other,
        Err(_) => Line::Unknown,
    }
}

fn entry(file: &File) -> Entry {
    let mtime = DateTime::<Utc>::from(file.modified()).timestamp();
    Entry { name: file.name().to_owned(), version: Version { size: file.size() as u64, mtime } }
}

/// Windows servers may be set to write years with four digits: `07-25-2018` becomes `07-25-18`.
fn with_short_year(line: &str) -> String {
    let is_long = line.len() > 10
        && line.is_char_boundary(6)
        && line.is_char_boundary(10)
        && line.as_bytes()[5] == b'-'
        && line[6..10].bytes().all(|byte| byte.is_ascii_digit());
    if is_long { format!("{}{}", &line[..6], &line[8..]) } else { line.to_owned() }
}

/// Reads a time of RFC 3659, which is in UTC; fractions of a second are dropped.
fn time(text: &str) -> Option<i64> {
    let seconds = text.split('.').next()?;
    NaiveDateTime::parse_from_str(seconds, "%Y%m%d%H%M%S").ok().map(|time| time.and_utc().timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, size: u64, mtime: i64) -> Line {
        Line::File(Entry { name: name.to_owned(), version: Version { size, mtime } })
    }

    #[test]
    fn mlsd_lines_give_name_size_and_time() {
        let line = "type=file;size=12;modify=20180725010203;perm=r; Report (2); x.zip";
        assert_eq!(mlsd(line), file("Report (2); x.zip", 12, 1_532_480_523));
        assert_eq!(mlsd("Type=File;Size=0;Modify=20180725010203.456; a"), file("a", 0, 1_532_480_523));
        assert_eq!(mlsd("type=dir;modify=20180725010203; sub"), Line::Other);
        assert_eq!(mlsd("type=OS.unix=slink:/etc/passwd;size=1;modify=20180725010203; link"), Line::Other);
        assert_eq!(mlsd("size=1;modify=20180725010203; a"), Line::Unknown);
        assert_eq!(mlsd("type=file;size=-1;modify=20180725010203; a"), Line::Unknown);
        assert_eq!(mlsd("nonsense"), Line::Unknown);
    }

    #[test]
    fn list_lines_of_unix_and_windows_give_the_name() {
        let name = |line| match list(line) {
            Line::File(entry) => entry.name,
            other => format!("{other:?}"),
        };
        assert_eq!(name("-rw-r--r--   1 ftp ftp     1234 Jul 25  2018 Report (2).zip"), "Report (2).zip");
        assert_eq!(name("07-25-18  03:19PM               403 a b.zip"), "a b.zip");
        assert_eq!(name("07-25-2018  03:19PM             403 a b.zip"), "a b.zip");
        assert_eq!(name("07-25-18  03:19PM       <DIR>       sub"), "Other");
        assert_eq!(name("drwxr-xr-x   2 ftp ftp     4096 Jul 25  2018 sub"), "Other");
        assert_eq!(name("lrwxrwxrwx   1 ftp ftp       11 Jul 25  2018 x -> /etc/passwd"), "Other");
        assert_eq!(name("total 12"), "Other");
        assert_eq!(name("卷卷卷卷卷"), "Unknown");
    }
}

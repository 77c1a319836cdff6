//! Processes as `/proc` shows them.
//!
//! Everything here is a look at something that changes meanwhile: a process that ends while it is looked at is simply not
//! there.

use std::{
    fs::{self, File},
    io::Read as _,
    os::unix::fs::FileExt as _,
    path::Path,
};

use millrace_common::id::AttemptId;

/// Bytes of an environment that are read: twice the most that a process can be started with by default.
const ENVIRON_BYTES_MAX: u64 = 4 << 20;
/// Bytes of one read of the list of children: about a thousand of them.
const CHILDREN_BYTES: usize = 8 << 10;

/// The variable that marks every process of an attempt with its id.
pub(crate) const ATTEMPT_VARIABLE: &str = "MILLRACE_ATTEMPT";
/// The variable that holds the path of an attempt's values file, which lies in the executor's data folder.
pub(crate) const VALUES_VARIABLE: &str = "MILLRACE_VALUES";

/// A process, as its `stat` file tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) group: i32,
    /// Ended; only its parent has not asked yet how.
    pub(crate) is_zombie: bool,
    /// Clock ticks since boot when it was started.
    pub(crate) start_ticks: u64,
}

/// What the environment of a process says about where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Marks {
    pub(crate) attempt: Option<AttemptId>,
    pub(crate) values_path: Option<Vec<u8>>,
}

/// Lists all processes that this program may see, except itself.
pub(crate) fn processes() -> impl Iterator<Item = Process> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(move |pid| *pid != own)
        .filter_map(process)
}

/// Looks at one process; `None` where there is none.
pub(crate) fn process(pid: i32) -> Option<Process> {
    parse_stat(pid, &fs::read(format!("/proc/{pid}/stat")).ok()?)
}

/// The name of the program stands in brackets and may itself hold brackets and blanks, so fields count from the last one.
fn parse_stat(pid: i32, stat: &[u8]) -> Option<Process> {
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let fields: Vec<&str> =
        std::str::from_utf8(stat.get(end + 1..)?).ok()?.split_ascii_whitespace().collect();
    Some(Process {
        pid,
        is_zombie: matches!(*fields.first()?, "Z" | "X" | "x"),
        group: fields.get(2)?.parse().ok()?,
        start_ticks: fields.get(19)?.parse().ok()?,
    })
}

/// Reads the marks of a process; none where it ended, belongs to another account, or has cleared its environment.
pub(crate) fn marks(pid: i32) -> Marks {
    let mut environ = Vec::new();
    let read = File::open(format!("/proc/{pid}/environ"))
        .map(|file| file.take(ENVIRON_BYTES_MAX).read_to_end(&mut environ));
    match read {
        Ok(Ok(_)) => parse_environ(&environ),
        _ => Marks::default(),
    }
}

fn parse_environ(environ: &[u8]) -> Marks {
    let mut marks = Marks::default();
    for variable in environ.split(|byte| *byte == 0) {
        let value_of = |name: &str| variable.strip_prefix(name.as_bytes())?.strip_prefix(b"=");
        if let Some(value) = value_of(ATTEMPT_VARIABLE) {
            marks.attempt = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        } else if let Some(value) = value_of(VALUES_VARIABLE) {
            marks.values_path = Some(value.to_vec());
        }
    }
    marks
}

impl Marks {
    /// Returns the attempt that the process belongs to, if the executor of this data folder started it.
    pub(crate) fn attempt_below(&self, data_dir: &Path) -> Option<AttemptId> {
        self.attempt.filter(|_| self.is_below(data_dir))
    }

    /// Tells whether the process was started by the executor of this data folder, in this or an earlier life.
    pub(crate) fn is_below(&self, data_dir: &Path) -> bool {
        use std::os::unix::ffi::OsStrExt as _;
        let path = self.values_path.as_deref().map(std::ffi::OsStr::from_bytes).map(Path::new);
        path.is_some_and(|path| path.starts_with(data_dir))
    }
}

/// The children of this program's main thread: those that it started, and those that it adopted.
#[derive(Debug)]
pub(crate) struct Children {
    list: Option<File>,
}

impl Children {
    pub(crate) fn open() -> Self {
        let own = std::process::id();
        let list = File::open(format!("/proc/{own}/task/{own}/children"));
        Self { list: list.ok() }
    }

    /// Lists them; none where the kernel does not.
    pub(crate) fn pids(&self) -> Vec<i32> {
        let Some(list) = &self.list else { return Vec::new() };
        let mut text = Vec::new();
        loop {
            let from = text.len();
            text.resize(from + CHILDREN_BYTES, 0);
            let length = list.read_at(&mut text[from..], from as u64).unwrap_or(0);
            text.truncate(from + length);
            if length == 0 {
                break;
            }
        }
        let text = std::str::from_utf8(&text).unwrap_or_default();
        text.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_brackets_and_blanks_does_not_shift_fields() {
        let stat = b"42 (a) b (c) Z 1 40 39 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1000 1 2 3";
        let expected = Process { pid: 42, group: 40, is_zombie: true, start_ticks: 98_765 };
        assert_eq!(parse_stat(42, stat), Some(expected));
        assert_eq!(parse_stat(42, b"42 (cut"), None);
    }

    #[test]
    fn marks_are_whole_variables() {
        let id = "018f2f5e-0000-7000-8000-000000000000.0.1";
        let environ =
            format!("XMILLRACE_ATTEMPT=x\0MILLRACE_ATTEMPT={id}\0MILLRACE_VALUES=/data/work/1/values\0");
        let marks = parse_environ(environ.as_bytes());
        assert_eq!(marks.attempt, id.parse().ok());
        assert!(marks.is_below(Path::new("/data")) && marks.attempt_below(Path::new("/dat")).is_none());
        assert_eq!(parse_environ(b"MILLRACE_ATTEMPTS=x"), Marks::default());
    }

    #[test]
    fn this_program_sees_other_processes_but_not_itself() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(process(own).is_some_and(|process| !process.is_zombie && process.start_ticks > 0));
        assert!(processes().all(|process| process.pid != own));
    }
}

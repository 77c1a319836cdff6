//! The witnesses' file: the lines that the checker reads, and those about locks, which are the rig's own.

use std::collections::BTreeMap;

use anyhow::Context as _;
use millrace_checker::{Event, events_of};
use millrace_common::id::AttemptId;

/// From the first sign of an attempt to its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// Whether it said that it ends.
    pub(crate) is_ended: bool,
}

/// A second holder of the lock of a task instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Overlap {
    pub(crate) at: u64,
    pub(crate) attempt: String,
    pub(crate) holder: String,
}

#[derive(Debug)]
pub(crate) struct Read {
    pub(crate) events: Vec<(u64, Event)>,
    pub(crate) lives: BTreeMap<AttemptId, Life>,
    pub(crate) overlaps: Vec<Overlap>,
}

pub(crate) fn read(log: &str) -> anyhow::Result<Read> {
    let (mut kept, mut overlaps, mut lives) = (String::new(), Vec::new(), BTreeMap::new());
    // The last line may be torn.
    let whole = log.rfind('\n').map_or("", |end| &log[..=end]);
    for line in whole.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let ["O", attempt, holder, at] = words[..] {
            let at = at.parse().with_context(|| format!("no time in {line:?}"))?;
            overlaps.push(Overlap { at, attempt: attempt.to_owned(), holder: holder.to_owned() });
            continue;
        }
        kept.push_str(line);
        kept.push('\n');
        if let [what, attempt, .., at] = words[..]
            && let (Ok(attempt), Ok(at)) = (attempt.parse(), at.parse())
        {
            let life = lives.entry(attempt).or_insert(Life { first: at, last: at, is_ended: false });
            life.last = at;
            life.is_ended = what == "E";
        }
    }
    Ok(Read { events: events_of(&kept)?, lives, overlaps })
}

//! Which backups a retention no longer keeps: a pure decision over what the manifests say.
//!
//! Deleting is the folder's business, and happens only after a new backup was verified.

use std::collections::BTreeSet;

use chrono::{DateTime, Datelike as _, Utc};
use millrace_common::kind::backup::Retention;

use super::manifest::Entry;

/// Returns the backups to delete, oldest first. The newest is never among them, and without a rule none is.
pub(super) fn expired<'a>(backups: &'a [Entry], rules: &Retention) -> Vec<&'a Entry> {
    if !rules.has_rule() {
        return Vec::new();
    }
    let mut newest_first: Vec<&Entry> = backups.iter().collect();
    newest_first.sort_by(|a, b| (b.started, &b.file).cmp(&(a.started, &a.file)));
    let mut kept = BTreeSet::from([0]);
    kept.extend(0..newest_first.len().min(rules.keep_last as usize));
    for (count, period) in [
        (rules.daily, day as fn(DateTime<Utc>) -> (i32, u32)),
        (rules.weekly, week),
        (rules.monthly, month),
        (rules.yearly, year),
    ] {
        kept.extend(newest_of_each(&newest_first, count, period));
    }
    let mut expired: Vec<&Entry> = newest_first
        .iter()
        .enumerate()
        .filter(|(index, _)| !kept.contains(index))
        .map(|(_, entry)| *entry)
        .collect();
    expired.reverse();
    expired
}

/// Returns the positions of the newest backup of each of the last `count` periods that have one.
fn newest_of_each(
    newest_first: &[&Entry],
    count: u32,
    period: fn(DateTime<Utc>) -> (i32, u32),
) -> impl Iterator<Item = usize> {
    let mut last = None;
    newest_first
        .iter()
        .enumerate()
        .filter(move |(_, entry)| last.replace(period(entry.started)) != Some(period(entry.started)))
        .map(|(index, _)| index)
        .take(count as usize)
}

fn day(time: DateTime<Utc>) -> (i32, u32) {
    (time.year(), time.ordinal())
}

fn week(time: DateTime<Utc>) -> (i32, u32) {
    // The ISO year: the last days of December can belong to week 1 of the next one.
    (time.iso_week().year(), time.iso_week().week())
}

fn month(time: DateTime<Utc>) -> (i32, u32) {
    (time.year(), time.month())
}

fn year(time: DateTime<Utc>) -> (i32, u32) {
    (time.year(), 0)
}

#[cfg(test)]
mod tests;

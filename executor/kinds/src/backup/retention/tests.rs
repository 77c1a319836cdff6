//! Tables and properties of the retention.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn at(text: &str) -> Entry {
    let started = DateTime::parse_from_rfc3339(text).expect("a time").to_utc();
    Entry { database: "mes".into(), file: format!("mes_{text}"), started, compressed_bytes: 1 }
}

fn at_hour(hour: i64) -> Entry {
    let started = DateTime::from_timestamp(1_700_000_000 + hour * 3_600, 0).expect("a time");
    Entry { database: "mes".into(), file: format!("mes_{hour}"), started, compressed_bytes: 1 }
}

fn left(backups: &[Entry], rules: &Retention) -> Vec<Entry> {
    let gone: Vec<&Entry> = expired(backups, rules);
    backups.iter().filter(|entry| !gone.contains(entry)).cloned().collect()
}

fn names(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| &entry.file[4..]).collect()
}

#[test]
fn the_newest_of_each_day_is_kept_and_a_pause_deletes_nothing() {
    let backups =
        ["2026-03-01T02:30:00Z", "2026-03-01T14:30:00Z", "2026-03-02T02:30:00Z", "2026-06-01T02:30:00Z"]
            .map(at);
    let rules = Retention { daily: 3, ..Retention::default() };
    assert_eq!(
        names(&left(&backups, &rules)),
        ["2026-03-01T14:30:00Z", "2026-03-02T02:30:00Z", "2026-06-01T02:30:00Z"]
    );
    let rules = Retention { daily: 2, ..Retention::default() };
    assert_eq!(names(&left(&backups, &rules)), ["2026-03-02T02:30:00Z", "2026-06-01T02:30:00Z"]);
}

#[test]
fn weeks_are_those_of_iso_8601() {
    // 2026-12-28 is a Monday of week 53; 2027-01-03 is the Sunday of the same week.
    let backups =
        ["2026-12-27T00:00:00Z", "2026-12-28T00:00:00Z", "2027-01-03T00:00:00Z", "2027-01-04T00:00:00Z"]
            .map(at);
    let rules = Retention { weekly: 9, ..Retention::default() };
    assert_eq!(
        names(&left(&backups, &rules)),
        ["2026-12-27T00:00:00Z", "2027-01-03T00:00:00Z", "2027-01-04T00:00:00Z"]
    );
}

#[test]
fn months_and_years_keep_their_last_backup() {
    let backups =
        ["2024-01-31T00:00:00Z", "2025-01-01T00:00:00Z", "2025-01-31T00:00:00Z", "2025-02-01T00:00:00Z"]
            .map(at);
    let monthly = Retention { monthly: 2, ..Retention::default() };
    assert_eq!(names(&left(&backups, &monthly)), ["2025-01-31T00:00:00Z", "2025-02-01T00:00:00Z"]);
    let yearly = Retention { yearly: 2, ..Retention::default() };
    assert_eq!(names(&left(&backups, &yearly)), ["2024-01-31T00:00:00Z", "2025-02-01T00:00:00Z"]);
}

#[test]
fn without_a_rule_everything_is_kept() {
    let backups: Vec<Entry> = (0..50).map(at_hour).collect();
    assert!(expired(&backups, &Retention { dry_run: true, ..Retention::default() }).is_empty());
}

#[test]
fn a_nightly_backup_settles_at_the_numbers_of_the_rules() {
    let rules = Retention { daily: 7, weekly: 4, monthly: 12, yearly: 2, ..Retention::default() };
    let mut backups = Vec::new();
    for night in 0..1_200 {
        backups.push(at_hour(night * 24));
        backups = left(&backups, &rules);
    }
    let periods = |period: fn(DateTime<Utc>) -> (i32, u32)| {
        let mut newest = BTreeMap::new();
        for entry in &backups {
            newest.insert(period(entry.started), entry.started);
        }
        newest.len()
    };
    assert!(periods(month) >= 12 && periods(year) >= 2 && periods(week) >= 4, "{:?}", names(&backups));
    assert!(backups.len() <= 7 + 4 + 12 + 2, "{:?}", names(&backups));
    let last_week: Vec<Entry> = (1_193..1_200).map(|night| at_hour(night * 24)).collect();
    assert!(last_week.iter().all(|entry| backups.contains(entry)));
}

prop_compose! {
    fn rules()(keep_last in 0..5_u32, daily in 0..9_u32, weekly in 0..6_u32, monthly in 0..14_u32, yearly in 0..4_u32)
        -> Retention {
        Retention { keep_last, daily, weekly, monthly, yearly, dry_run: false }
    }
}

fn backups() -> impl Strategy<Value = Vec<Entry>> {
    prop::collection::btree_set(0..24 * 1_000_i64, 0..120)
        .prop_map(|hours| hours.into_iter().map(at_hour).collect::<Vec<_>>())
        .prop_shuffle()
}

proptest! {
    #[test]
    fn the_newest_is_never_deleted(backups in backups(), rules in rules()) {
        let newest = backups.iter().max_by_key(|entry| entry.started);
        let left = left(&backups, &rules);
        prop_assert_eq!(left.iter().max_by_key(|entry| entry.started), newest);
    }

    #[test]
    fn deciding_again_deletes_nothing_more(backups in backups(), rules in rules()) {
        let left = left(&backups, &rules);
        prop_assert_eq!(expired(&left, &rules), Vec::<&Entry>::new());
    }

    #[test]
    fn no_more_is_kept_than_the_rules_say(backups in backups(), rules in rules()) {
        let most = rules.keep_last + rules.daily + rules.weekly + rules.monthly + rules.yearly;
        prop_assert!(!rules.has_rule() || left(&backups, &rules).len() <= most as usize);
    }

    #[test]
    fn each_rule_keeps_its_share(backups in backups(), rules in rules()) {
        let left = left(&backups, &rules);
        let distinct = |entries: &[Entry], period: fn(DateTime<Utc>) -> (i32, u32)| {
            entries.iter().map(|entry| period(entry.started)).collect::<BTreeSet<_>>().len()
        };
        prop_assert!(left.len() >= backups.len().min(rules.keep_last as usize));
        for (count, period) in [
            (rules.daily, day as fn(DateTime<Utc>) -> (i32, u32)),
            (rules.weekly, week),
            (rules.monthly, month),
            (rules.yearly, year),
        ] {
            prop_assert!(distinct(&left, period) >= distinct(&backups, period).min(count as usize));
        }
    }

    #[test]
    fn the_order_of_the_backups_does_not_matter(backups in backups(), rules in rules()) {
        let mut sorted = backups.clone();
        sorted.sort_by_key(|entry| entry.started);
        prop_assert_eq!(expired(&backups, &rules), expired(&sorted, &rules));
    }

    #[test]
    fn a_stricter_rule_never_keeps_more(backups in backups(), rules in rules()) {
        let wider = Retention { daily: rules.daily + 1, monthly: rules.monthly + 1, ..rules };
        if rules.has_rule() {
            let kept = left(&backups, &rules);
            let more = left(&backups, &wider);
            prop_assert!(kept.iter().all(|entry| more.contains(entry)));
        }
    }
}

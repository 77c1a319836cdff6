//! Schedules against another implementation, and what must hold for every schedule.

use std::str::FromStr;

use chrono::{DateTime, Utc};
use millrace_common::{
    schedule::{FIRES_MAX, Misfire, Schedule, Trigger},
    time::Timestamp,
};
use proptest::{collection::btree_set, prelude::*, sample::select};

/// One field of a cron expression.
fn field(least: u32, most: u32) -> impl Strategy<Value = String> {
    let list = btree_set(least..=most, 1..4).prop_map(|values| {
        let values: Vec<String> = values.iter().map(ToString::to_string).collect();
        values.join(",")
    });
    let range = (least..=most, least..=most).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b)));
    let step = (1..=(most - least)).prop_map(|step| format!("*/{step}"));
    prop_oneof![3 => Just("*".to_owned()), 2 => list, 2 => range, 1 => step]
}

/// Six fields without weekday: there the two implementations count differently, and they differ in what a day of month
/// together with a weekday means.
fn expression() -> impl Strategy<Value = String> {
    (field(0, 59), field(0, 59), field(0, 23), field(1, 28), field(1, 12))
        .prop_map(|(second, minute, hour, day, month)| format!("{second} {minute} {hour} {day} {month} *"))
}

fn moment() -> impl Strategy<Value = Timestamp> {
    // 2000 to 2050, with fractions of a second.
    (946_684_800_000_000_i64..2_524_608_000_000_000).prop_map(Timestamp::from_micros)
}

fn zone() -> impl Strategy<Value = &'static str> {
    select(vec![
        "UTC",
        "Asia/Shanghai",
        "Europe/Berlin",
        "America/New_York",
        "America/Santiago",
        "Australia/Lord_Howe",
        "Asia/Kathmandu",
        "Africa/Casablanca",
    ])
}

fn every() -> impl Strategy<Value = String> {
    (1_u32..200_000).prop_map(|seconds| format!("@every {seconds}s"))
}

fn policy() -> impl Strategy<Value = (Option<bool>, Option<Misfire>)> {
    let misfire = select(vec![None, Some(Misfire::Skip), Some(Misfire::Once), Some(Misfire::All)]);
    (select(vec![None, Some(true), Some(false)]), misfire)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn fires_agree_with_another_implementation(text in expression(), start in moment()) {
        let ours = Schedule::parse(&text, "UTC").unwrap();
        let theirs = cron::Schedule::from_str(&text).unwrap();
        let mut cursor = start;
        for expected in theirs.after(&start.to_datetime()).take(20) {
            let interval = ours.next_interval(cursor).unwrap();
            prop_assert_eq!(interval.end.to_datetime(), expected);
            let before: Option<DateTime<Utc>> = theirs.after(&expected).next_back();
            prop_assert!(before.is_none_or(|before| before >= interval.start.to_datetime()));
            cursor = interval.end;
        }
    }

    #[test]
    fn intervals_touch_and_advance(
        text in prop_oneof![expression(), every()],
        timezone in zone(),
        start in moment(),
    ) {
        let schedule = Schedule::parse(&text, timezone).unwrap();
        let mut last = schedule.next_interval(start).unwrap();
        prop_assert!(last.end > start);
        for _ in 0..30 {
            let next = schedule.next_interval(last.end).unwrap();
            prop_assert_eq!(next.start, last.end);
            prop_assert!(next.end > next.start);
            last = next;
        }
    }

    #[test]
    fn every_interval_is_fired_or_skipped_once(
        text in prop_oneof![expression(), every()],
        timezone in zone(),
        policy in policy(),
        start in moment(),
        steps in proptest::collection::vec(0_i64..400_000, 1..8),
    ) {
        let schedule = Schedule::parse(&text, timezone).unwrap().missed(policy.0, policy.1);
        let Ok(schedule) = schedule else { return Ok(()) };
        let (mut now, mut cursor) = (start, Schedule::first_cursor(start));
        let mut last_end = cursor;
        for step in steps {
            now = Timestamp::from_micros(now.as_micros() + step * 1_000_000);
            let due = schedule.due(cursor, now);
            prop_assert!(due.fire.len() <= FIRES_MAX);
            prop_assert!(due.cursor >= cursor && due.cursor <= now.max(cursor));
            if let Some(skipped) = due.skipped {
                prop_assert!(skipped.first.end > last_end && skipped.last.end >= skipped.first.end);
                prop_assert!(skipped.count >= 1 && (skipped.count > 1 || skipped.first == skipped.last));
                last_end = skipped.last.end;
            }
            for interval in &due.fire {
                // Nothing lies between: what was passed over was reported.
                prop_assert_eq!(schedule.next_interval(last_end), Some(*interval));
                prop_assert!(interval.end <= now);
                last_end = interval.end;
            }
            cursor = due.cursor;
            prop_assert_eq!(due.next, schedule.next_interval(cursor).map(|next| next.end));
            prop_assert!(due.fire.len() == FIRES_MAX || due.next.is_none_or(|next| next > now));
            // Asking again at the same time finds what was left over, and in the end nothing.
            if due.fire.len() < FIRES_MAX {
                let again = schedule.due(cursor, now);
                prop_assert!(again.fire.is_empty() && again.skipped.is_none() && again.cursor == cursor);
            }
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[ -~]{0,30}", words in proptest::collection::vec("[0-9*/,LW#?+-]{1,5}", 4..8)) {
        for text in [text, words.join(" ")] {
            if let Ok(trigger) = text.parse::<Trigger>() {
                prop_assert_eq!(trigger.to_string().parse::<Trigger>().unwrap(), trigger);
            }
        }
    }
}

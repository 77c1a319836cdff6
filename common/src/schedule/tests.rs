use super::*;

fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).unwrap()
}

fn cron(text: &str, timezone: &str) -> Schedule {
    Schedule::parse(text, timezone).unwrap()
}

fn missed(text: &str, catchup: Option<bool>, misfire: Option<Misfire>) -> Schedule {
    cron(text, "UTC").missed(catchup, misfire).unwrap()
}

/// The ends of the first intervals after a cursor.
fn ends(schedule: &Schedule, cursor: &str, count: usize) -> Vec<String> {
    let mut cursor = at(cursor);
    let mut ends = Vec::new();
    while ends.len() < count
        && let Some(interval) = schedule.next_interval(cursor)
    {
        assert!(interval.start < interval.end && interval.end > cursor);
        cursor = interval.end;
        ends.push(cursor.to_string());
    }
    ends
}

fn shown(intervals: &[DataInterval]) -> Vec<String> {
    intervals.iter().map(|interval| format!("{} {}", interval.start, interval.end)).collect()
}

#[test]
fn an_interval_reaches_from_fire_to_fire() {
    let schedule = cron("30 2 * * *", "Asia/Shanghai");
    let cursor = Schedule::first_cursor(at("2026-01-31T12:00:00.5Z"));
    assert_eq!(cursor, at("2026-01-31T12:00:00Z"));
    let interval = schedule.next_interval(cursor).unwrap();
    assert_eq!(shown(&[interval]), ["2026-01-30T18:30:00Z 2026-01-31T18:30:00Z"]);
    let next = schedule.next_interval(interval.end).unwrap();
    assert_eq!(next.start, interval.end);
}

#[test]
fn nicknames_and_seconds_are_known() {
    for (text, first) in [
        ("@hourly", "2026-01-31T13:00:00Z"),
        ("@daily", "2026-02-01T00:00:00Z"),
        ("@weekly", "2026-02-01T00:00:00Z"),
        ("@monthly", "2026-02-01T00:00:00Z"),
        ("@yearly", "2027-01-01T00:00:00Z"),
        ("*/15 * * * * *", "2026-01-31T12:34:15Z"),
        ("0 8 * * 1", "2026-02-02T08:00:00Z"),
        ("0 8 * * MON", "2026-02-02T08:00:00Z"),
        ("0 8 * * 7", "2026-02-01T08:00:00Z"),
        ("0 8 L * *", "2026-02-28T08:00:00Z"),
        ("0 8 * * 6#2", "2026-02-14T08:00:00Z"),
        ("0 8 29 FEB *", "2028-02-29T08:00:00Z"),
    ] {
        assert_eq!(ends(&cron(text, "UTC"), "2026-01-31T12:34:00Z", 1), [first], "{text}");
    }
}

#[test]
fn every_counts_from_the_cursor() {
    let schedule = cron("@every 90s", "UTC");
    assert_eq!(schedule.trigger.to_string(), "@every 1m30s");
    let cursor = at("2026-01-31T12:00:07Z");
    let due = schedule.due(cursor, at("2026-01-31T12:01:36.9Z"));
    assert_eq!((due.fire.len(), due.next), (0, Some(at("2026-01-31T12:01:37Z"))));
    let due = schedule.due(cursor, at("2026-01-31T12:01:37Z"));
    assert_eq!(shown(&due.fire), ["2026-01-31T12:00:07Z 2026-01-31T12:01:37Z"]);
    assert_eq!((due.cursor, due.next), (at("2026-01-31T12:01:37Z"), Some(at("2026-01-31T12:03:07Z"))));
}

#[test]
fn a_fire_in_a_gap_happens_once_after_it() {
    // New York leaps from 02:00 to 03:00 on 8 March 2026.
    assert_eq!(
        ends(&cron("30 2 * * *", "America/New_York"), "2026-03-07T12:00:00Z", 2),
        ["2026-03-08T07:00:00Z", "2026-03-09T06:30:00Z"]
    );
}

#[test]
fn a_fire_in_an_overlap_happens_once() {
    // New York has 01:30 twice on 1 November 2026.
    assert_eq!(
        ends(&cron("30 1 * * *", "America/New_York"), "2026-10-31T12:00:00Z", 2),
        ["2026-11-01T05:30:00Z", "2026-11-02T06:30:00Z"]
    );
    assert_eq!(
        ends(&cron("*/30 * * * *", "America/New_York"), "2026-11-01T05:00:00Z", 4),
        ["2026-11-01T05:30:00Z", "2026-11-01T06:00:00Z", "2026-11-01T06:30:00Z", "2026-11-01T07:00:00Z"]
    );
}

#[test]
fn nothing_is_due_before_the_end_of_an_interval() {
    let schedule = missed("0 * * * *", None, None);
    let cursor = at("2026-01-31T12:00:00Z");
    for now in ["2026-01-31T12:59:59.999999Z", "2026-01-31T12:00:00Z", "2020-01-01T00:00:00Z"] {
        let due = schedule.due(cursor, at(now));
        let expected = Due { fire: vec![], skipped: None, cursor, next: Some(at("2026-01-31T13:00:00Z")) };
        assert_eq!(due, expected, "{now}");
    }
}

#[test]
fn without_catch_up_the_latest_missed_interval_runs() {
    let schedule = missed("0 * * * *", Some(false), None);
    let due = schedule.due(at("2026-01-31T12:00:00Z"), at("2026-01-31T16:20:00Z"));
    assert_eq!(shown(&due.fire), ["2026-01-31T15:00:00Z 2026-01-31T16:00:00Z"]);
    let skipped = due.skipped.unwrap();
    assert_eq!((skipped.count, skipped.is_exact), (3, true));
    assert_eq!(
        shown(&[skipped.first, skipped.last]),
        ["2026-01-31T12:00:00Z 2026-01-31T13:00:00Z", "2026-01-31T14:00:00Z 2026-01-31T15:00:00Z"]
    );
    assert_eq!((due.cursor, due.next), (at("2026-01-31T16:00:00Z"), Some(at("2026-01-31T17:00:00Z"))));
}

#[test]
fn late_intervals_are_skipped_where_the_policy_says_so() {
    let schedule = missed("0 * * * *", None, Some(Misfire::Skip));
    let late = schedule.due(at("2026-01-31T12:00:00Z"), at("2026-01-31T14:01:00.000001Z"));
    assert_eq!((late.fire.len(), late.skipped.unwrap().count), (0, 2));
    assert_eq!((late.cursor, late.next), (at("2026-01-31T14:00:00Z"), Some(at("2026-01-31T15:00:00Z"))));
    let in_time = schedule.due(at("2026-01-31T13:00:00Z"), at("2026-01-31T14:01:00Z"));
    assert_eq!((in_time.fire.len(), in_time.skipped), (1, None));
}

#[test]
fn catch_up_can_skip_late_ones_or_run_the_latest_of_them() {
    let cursor = at("2026-01-31T12:00:00Z");
    let now = at("2026-01-31T12:05:10Z");
    let skip = missed("* * * * *", Some(true), Some(Misfire::Skip)).due(cursor, now);
    assert_eq!(shown(&skip.fire), ["2026-01-31T12:04:00Z 2026-01-31T12:05:00Z"]);
    assert_eq!(skip.skipped.unwrap().count, 4);
    let once = missed("* * * * *", Some(true), Some(Misfire::Once)).due(cursor, now);
    assert_eq!(
        shown(&once.fire),
        ["2026-01-31T12:03:00Z 2026-01-31T12:04:00Z", "2026-01-31T12:04:00Z 2026-01-31T12:05:00Z"]
    );
    assert_eq!(once.skipped.unwrap().count, 3);
}

#[test]
fn catch_up_runs_everything_in_bounded_portions() {
    let schedule = missed("* * * * *", Some(true), None);
    assert_eq!(schedule.misfire, Misfire::All);
    let now = at("2026-01-31T16:10:30Z");
    let mut cursor = at("2026-01-31T12:00:00Z");
    let mut fired = Vec::new();
    let mut calls = 0;
    loop {
        let due = schedule.due(cursor, now);
        assert!(due.fire.len() <= FIRES_MAX && due.skipped.is_none());
        fired.extend(due.fire);
        (calls, cursor) = (calls + 1, due.cursor);
        if due.next.is_none_or(|next| next > now) {
            break;
        }
    }
    assert_eq!((fired.len(), calls), (250, 3));
    assert!(fired.windows(2).all(|pair| pair[0].end == pair[1].start));
}

#[test]
fn a_long_gap_costs_a_bounded_number_of_steps() {
    for text in ["* * * * * *", "@every 1s"] {
        let schedule = missed(text, Some(false), None);
        let due = schedule.due(at("1990-01-01T00:00:00Z"), at("2026-01-31T12:00:00Z"));
        assert_eq!(shown(&due.fire), ["2026-01-31T11:59:59Z 2026-01-31T12:00:00Z"]);
        let skipped = due.skipped.unwrap();
        assert_eq!((skipped.count, skipped.is_exact), (SKIPPED_COUNT_MAX, false));
        assert_eq!(shown(&[skipped.last]), ["2026-01-31T11:59:58Z 2026-01-31T11:59:59Z"]);
    }
}

#[test]
fn policies_that_contradict_each_other_are_refused() {
    let schedule = || cron("@daily", "UTC");
    let contradiction = schedule().missed(Some(false), Some(Misfire::All));
    assert!(matches!(contradiction, Err(ScheduleError::Contradiction)));
    assert!(schedule().missed(None, Some(Misfire::All)).unwrap().catchup);
}

#[test]
fn what_is_no_schedule_is_refused_with_a_reason() {
    for (text, message) in [
        ("", "a cron expression has 5 fields, or 6 with seconds first, this one has 0"),
        ("* * * *", "a cron expression has 5 fields, or 6 with seconds first, this one has 4"),
        ("0 0 0 1 1 * 2027", "a cron expression has no year field, remove the seventh field"),
        (
            "@reboot",
            "\"@reboot\" is not one of @hourly, @daily, @weekly, @monthly, @yearly, @every <duration>",
        ),
        ("0 0 30 2 *", "the cron expression \"0 0 30 2 *\" never fires"),
        ("0 1SUN * * *", "\"1SUN\" is not a part of a cron expression"),
        ("0 0 * * FRX", "\"FRX\" is not a part of a cron expression"),
        ("@every 10", "the distance between runs does not read: \"10\" needs a unit: ms, s, m, h, d, w"),
        ("@every 10ms", "the distance between runs is between 1s and 3660d, not 10ms"),
    ] {
        assert_eq!(text.parse::<Trigger>().unwrap_err().chain(), message);
    }
    let error = "61 * * * *".parse::<Trigger>().unwrap_err();
    assert!(
        error.chain().starts_with("the cron expression \"61 * * * *\" does not read: "),
        "{}",
        error.chain()
    );
    assert!("* ".repeat(10_000).parse::<Trigger>().is_err());
    assert!(matches!(Schedule::parse("@daily", "Asia/Peking"), Err(ScheduleError::Timezone(_))));
}

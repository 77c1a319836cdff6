use millrace_common::id::{InstanceId, RunId};
use uuid::Uuid;

use super::*;

fn attempt_id() -> AttemptId {
    InstanceId { run: RunId::new(Timestamp::from_micros(1_000_000), 7), index: 3 }.attempt(2)
}

fn a_hello() -> v1::Hello {
    v1::Hello {
        protocol: 1,
        executor: "e1".to_owned(),
        slots: 4,
        labels: [("site".to_owned(), "plant 1".to_owned())].into(),
        kinds: vec!["shell".to_owned()],
        spool_id: Uuid::from_u128(9).as_bytes().to_vec(),
        boot_id: "b".to_owned(),
        version: "0.1.0".to_owned(),
        ..v1::Hello::default()
    }
}

fn an_end(state: v1::AttemptState) -> v1::AttemptEnd {
    v1::AttemptEnd { state: state.into(), ..v1::AttemptEnd::default() }
}

fn a_held(state: v1::AttemptState, end: Option<v1::AttemptEnd>) -> v1::Held {
    v1::Held { attempt: Some(attempt_id().into()), state: state.into(), end }
}

fn a_report(body: v1::report::Body) -> v1::Report {
    v1::Report { attempt: Some(attempt_id().into()), body: Some(body) }
}

#[test]
fn a_greeting_arrives_whole() {
    let held = vec![
        a_held(v1::AttemptState::Accepted, None),
        a_held(v1::AttemptState::Running, None),
        a_held(v1::AttemptState::Killing, None),
        a_held(v1::AttemptState::Failed, Some(an_end(v1::AttemptState::Failed))),
    ];
    let hello = hello(v1::Hello { held, ..a_hello() }).unwrap();
    assert_eq!((hello.executor.as_str(), hello.slots), ("e1", 4));
    assert_eq!(hello.labels["site"], "plant 1");
    assert_eq!(hello.held.len(), 4);
    assert!(matches!(&hello.held[3].report, Report::Ended(end) if end.state == AttemptState::Failed));
}

#[test]
fn a_greeting_is_refused_by_field() {
    let many = |count: usize| (0..count).map(|number| format!("k{number}"));
    let rows: [(v1::Hello, &str); 15] = [
        (v1::Hello { executor: "E 1".to_owned(), ..a_hello() }, "executor"),
        (v1::Hello { executor: String::new(), ..a_hello() }, "executor"),
        (v1::Hello { slots: 0, ..a_hello() }, "slots"),
        (v1::Hello { slots: u32::MAX, ..a_hello() }, "slots"),
        (v1::Hello { spool_id: vec![1; 15], ..a_hello() }, "spool_id"),
        (v1::Hello { kinds: vec!["not a kind".to_owned()], ..a_hello() }, "kinds"),
        (v1::Hello { kinds: many(KINDS_MAX + 1).collect(), ..a_hello() }, "kinds"),
        (v1::Hello { labels: [(String::new(), "x".to_owned())].into(), ..a_hello() }, "labels"),
        (v1::Hello { labels: [("a".to_owned(), "x\ny".to_owned())].into(), ..a_hello() }, "labels"),
        (
            v1::Hello { labels: many(LABELS_MAX + 1).map(|key| (key, String::new())).collect(), ..a_hello() },
            "labels",
        ),
        (v1::Hello { boot_id: "x".repeat(WORD_CHARS_MAX + 1), ..a_hello() }, "boot_id"),
        (v1::Hello { machine_id: "x".repeat(MACHINE_CHARS_MAX + 1), ..a_hello() }, "machine_id"),
        (v1::Hello { machine_id: "a;b c".to_owned(), ..a_hello() }, "machine_id"),
        (v1::Hello { version: "\u{1b}[31m".to_owned(), ..a_hello() }, "version"),
        (v1::Hello { held: vec![v1::Held::default()], ..a_hello() }, "attempt"),
    ];
    for (message, field) in rows {
        let problem = hello(message).unwrap_err().to_string();
        assert!(problem.contains(&format!("field {field} ")), "{problem} does not name {field}");
    }
}

#[test]
fn what_a_spool_cannot_hold_is_refused() {
    let rows = [
        (a_held(v1::AttemptState::Assigned, None), "held.state"),
        (a_held(v1::AttemptState::Succeeded, None), "held.end"),
        (a_held(v1::AttemptState::Running, Some(an_end(v1::AttemptState::Failed))), "held.end"),
        (a_held(v1::AttemptState::Running, Some(an_end(v1::AttemptState::Running))), "held.end"),
        (a_held(v1::AttemptState::Failed, Some(an_end(v1::AttemptState::Succeeded))), "held.end"),
        (a_held(v1::AttemptState::Unspecified, None), "state"),
    ];
    for (held, field) in rows {
        let problem = hello(v1::Hello { held: vec![held.clone()], ..a_hello() }).unwrap_err().to_string();
        assert!(problem.contains(&format!("field {field} ")), "{problem} for {held:?}");
    }
}

#[test]
fn attempts_have_a_run_and_a_number_from_one() {
    let rows = [
        (None, "attempt"),
        (Some(v1::AttemptId { run: vec![0; 15], index: 0, number: 1 }), "attempt.run"),
        (Some(v1::AttemptId { run: vec![0; 16], index: 0, number: 0 }), "attempt.number"),
    ];
    for (attempt, field) in rows {
        let body = Some(v1::report::Body::Accepted(v1::Accepted {}));
        let problem = report(v1::Report { attempt, body }).unwrap_err().to_string();
        assert!(problem.contains(&format!("field {field} ")), "{problem}");
    }
    assert!(held_states(vec![v1::Held::default()]).is_err());
    let beat = held_states(vec![a_held(v1::AttemptState::Succeeded, None)]).unwrap();
    assert_eq!(beat, [(attempt_id(), AttemptState::Succeeded)], "heartbeats do not repeat ends");
}

#[test]
fn ends_are_final_and_their_values_an_object_of_bounded_size() {
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(VALUES_BYTES_MAX));
    let succeeded = || an_end(v1::AttemptState::Succeeded);
    let rows = [
        (an_end(v1::AttemptState::Running), "end.state"),
        (v1::AttemptEnd { state: 99, ..succeeded() }, "state"),
        (v1::AttemptEnd { values: "[1]".to_owned(), ..succeeded() }, "end.values"),
        (v1::AttemptEnd { values: "{".to_owned(), ..succeeded() }, "end.values"),
        (v1::AttemptEnd { values: "{\"a\":".repeat(10_000), ..succeeded() }, "end.values"),
        (v1::AttemptEnd { values: large, ..succeeded() }, "end.values"),
    ];
    for (end, field) in rows {
        let problem = report(a_report(v1::report::Body::Ended(end))).unwrap_err().to_string();
        assert!(problem.contains(&format!("field {field} ")), "{problem}");
    }
    assert_eq!(
        report(v1::Report { attempt: Some(attempt_id().into()), body: None }),
        Err(WireError::Missing("report.body"))
    );
}

#[test]
fn a_reason_becomes_one_short_line() {
    let reason = format!("first\nsecond \u{1b}[31mred{}", "é".repeat(REASON_BYTES_MAX));
    let end = v1::AttemptEnd { reason, ..an_end(v1::AttemptState::Failed) };
    let (_, report) = report(a_report(v1::report::Body::Ended(end))).unwrap();
    let Report::Ended(end) = report else { panic!("it is an end: {report:?}") };
    assert!(end.reason.starts_with("first second  [31mred"), "{}", end.reason);
    assert!(end.reason.len() <= REASON_BYTES_MAX && end.reason.ends_with('é'));
}

#[test]
fn a_refusal_is_another_proof_than_an_end() {
    for (state, proof) in
        [(v1::AttemptState::Rejected, Proof::Refused), (v1::AttemptState::Killed, Proof::Reported)]
    {
        let (_, report) = report(a_report(v1::report::Body::Ended(an_end(state)))).unwrap();
        assert!(matches!(report, Report::Ended(end) if end.proof == proof), "{state:?}");
    }
}

#[test]
fn what_an_executor_says_of_its_machine_and_its_disk_arrives() {
    let known =
        hello(v1::Hello { machine_id: "4c4c-45".to_owned(), is_space_low: true, ..a_hello() }).unwrap();
    assert_eq!((known.machine.as_deref(), known.is_space_low), (Some("4c4c-45"), true));
    let unknown = hello(a_hello()).unwrap();
    assert_eq!((unknown.machine, unknown.is_space_low), (None, false));
}

#[test]
fn a_reason_that_only_a_newer_executor_knows_is_none() {
    for (number, expected) in [
        (v1::RejectReason::Unspecified.into(), RejectReason::Other),
        (v1::RejectReason::SpaceLow.into(), RejectReason::SpaceLow),
        (v1::RejectReason::Draining.into(), RejectReason::Draining),
        (v1::RejectReason::CannotStart.into(), RejectReason::CannotStart),
        (99, RejectReason::Other),
    ] {
        let end = v1::AttemptEnd { reject_reason: number, ..an_end(v1::AttemptState::Rejected) };
        assert_eq!(attempt_end(end).unwrap().reject_reason, expected, "{number}");
    }
}

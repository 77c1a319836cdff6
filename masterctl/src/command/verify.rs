//! Looks whether the past broke an invariant.

use millrace_common::time::{Clock as _, Timestamp};
use millrace_proto::v1;
use millrace_runtime::SystemClock;
use serde_json::{Value, json};

use crate::{
    cli::{Global, PointInTime, Verify},
    client,
    failure::Failure,
    output::{Printable, one_line, print, time, time_value},
};

pub(super) async fn verify(global: &Global, asked: Verify) -> Result<(), Failure> {
    let now = SystemClock.now().wall;
    let at = |point: Option<PointInTime>| point.map(|point| at(point, now).as_micros());
    let request = v1::VerifyRequest { since: at(asked.since), until: at(asked.until) };
    let found = client::connect(global).await?.verify(request).await?.into_inner();
    let (is_clean, is_whole) = (found.violations.is_empty(), found.unjudged.is_empty());
    print(&Findings(found), global.output)?;
    match (is_clean, is_whole) {
        (false, _) => Err(Failure::Violations),
        (true, false) => Err(Failure::Unjudged),
        (true, true) => Ok(()),
    }
}

fn at(point: PointInTime, now: Timestamp) -> Timestamp {
    match point {
        PointInTime::At(at) => at,
        PointInTime::Ago(ago) => now - ago,
    }
}

struct Findings(v1::VerifyResponse);

impl Printable for Findings {
    fn value(&self) -> Value {
        let Self(found) = self;
        let violation = |one: &v1::Violation| json!({ "rule": one.rule, "what": one.what, "rows": one.rows });
        let executor = |one: &v1::HistoryRead| {
            json!({
                "executor": one.executor,
                "problem": Some(&one.problem).filter(|problem| !problem.is_empty()),
                "begins_at": time_value(one.begins_at),
                "entries": one.entries,
            })
        };
        let unjudged = |one: &v1::Unjudged| json!({ "rules": one.rules, "why": one.why });
        json!({
            "since": time_value(Some(found.since)),
            "until": time_value(Some(found.until)),
            "violations": found.violations.iter().map(violation).collect::<Vec<_>>(),
            "is_truncated": found.is_truncated,
            "unjudged": found.unjudged.iter().map(unjudged).collect::<Vec<_>>(),
            "executors": found.executors.iter().map(executor).collect::<Vec<_>>(),
            "runs": found.runs,
            "attempts": found.attempts,
            "claims": found.claims,
        })
    }

    fn text(&self) -> String {
        let Self(found) = self;
        let mut lines = Vec::new();
        for violation in &found.violations {
            lines.push(format!("{}: {}", violation.rule, one_line(&violation.what)));
            lines.extend(violation.rows.iter().map(|row| format!("    {}", one_line(row))));
        }
        if found.is_truncated {
            lines.push("there are more violations than are shown: ask for a shorter range".to_owned());
        }
        for unjudged in &found.unjudged {
            lines.push(format!(
                "not judged for everything: {}: {}",
                unjudged.rules.join(" "),
                one_line(&unjudged.why)
            ));
        }
        let read = found.executors.iter().filter(|executor| executor.problem.is_empty()).count();
        let verdict = match (found.violations.len(), found.unjudged.is_empty()) {
            (0, true) => "nothing contradicts an invariant".to_owned(),
            (0, false) => "nothing contradicts an invariant, as far as could be looked at".to_owned(),
            (1, _) => "1 violation".to_owned(),
            (count, _) => format!("{count} violations"),
        };
        lines.push(format!(
            "{verdict}: {} claims, {} runs and {} attempts from {} to {}, histories of {read} of {} executors",
            found.claims,
            found.runs,
            found.attempts,
            time(Some(found.since)),
            time(Some(found.until)),
            found.executors.len(),
        ));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> v1::VerifyResponse {
        v1::VerifyResponse { until: 86_400_000_000, runs: 2, attempts: 5, claims: 1, ..Default::default() }
    }

    #[test]
    fn a_clean_past_is_one_line() {
        let text = Findings(found()).text();
        assert_eq!(
            text,
            "nothing contradicts an invariant: 1 claims, 2 runs and 5 attempts from 1970-01-01T00:00:00Z to \
             1970-01-02T00:00:00Z, histories of 0 of 0 executors"
        );
    }

    #[test]
    fn violations_stand_with_their_rows_and_what_was_not_judged_with_why() {
        let violation = v1::Violation {
            rule: "I6".to_owned(),
            what: "a begins while b is alive".to_owned(),
            rows: vec!["attempt a\u{1b}[31m: running".to_owned()],
        };
        let unjudged =
            v1::Unjudged { rules: vec!["I4".to_owned(), "I5".to_owned()], why: "e2 is away".to_owned() };
        let executors = vec![
            v1::HistoryRead { executor: "e1".to_owned(), entries: 4, ..Default::default() },
            v1::HistoryRead { executor: "e2".to_owned(), problem: "away".to_owned(), ..Default::default() },
        ];
        let found = v1::VerifyResponse {
            violations: vec![violation],
            unjudged: vec![unjudged],
            executors,
            ..found()
        };
        let text = Findings(found.clone()).text();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "I6: a begins while b is alive");
        assert_eq!(lines[1], "    attempt a [31m: running");
        assert_eq!(lines[2], "not judged for everything: I4 I5: e2 is away");
        assert!(lines[3].starts_with("1 violation: ") && lines[3].ends_with("1 of 2 executors"), "{text}");
        let value = Findings(found).value();
        assert_eq!(value["executors"][1]["problem"], "away");
        assert_eq!(value["violations"][0]["rule"], "I6");
    }

    #[test]
    fn a_point_in_time_may_be_so_long_ago() {
        let now = Timestamp::from_micros(7_200_000_000);
        let hour = std::time::Duration::from_secs(3_600);
        assert_eq!(at(PointInTime::Ago(hour), now), Timestamp::from_micros(3_600_000_000));
        assert_eq!(at(PointInTime::At(now), now), now);
    }
}

//! Between the core's messages and the wire.

use std::collections::BTreeMap;

use millrace_common::{
    limits::VALUES_BYTES_MAX,
    state::AttemptState,
    time::Timestamp,
};
use millrace_core::{AttemptEnd, Held, Hello, Message, Proof, Report, Start, Verdict};
use millrace_proto::{
    convert::{self, WireError},
    v1::{self, leader_message::Body},
};

/// Bytes of a reason that is kept; it is one line for people.
const REASON_BYTES_MAX: usize = 2_048;

pub(crate) fn start(start: Start) -> v1::Start {
    let millis = |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    v1::Start {
        attempt: Some(start.attempt.into()),
        spool_id: start.spool.0.as_bytes().to_vec(),
        workflow: start.workflow.to_string(),
        task: start.task.to_string(),
        kind: start.kind.to_string(),
        with: start.with.to_string().into(),
        is_templated: start.is_templated,
        run: Some(v1::RunFacts {
            interval_start: start.interval.start.as_micros(),
            interval_end: start.interval.end.as_micros(),
            timezone: start.timezone.to_string(),
            params: start.params.to_string(),
        }),
        values: start.values.into_iter().map(|(task, values)| (task.to_string(), values.to_string())).collect(),
        timeout_ms: start.timeout.map_or(0, millis),
        kill_grace_ms: millis(start.kill_grace),
        orphan_timeout_ms: start.orphan_timeout.map_or(0, millis),
    }
}

pub(crate) fn leader_message(message: Message) -> Body {
    match message {
        Message::Welcome(verdicts) => Body::Welcome(v1::Welcome {
            verdicts: verdicts
                .into_iter()
                .map(|(attempt, verdict)| v1::Verdict { attempt: Some(attempt.into()), kind: verdict_kind(verdict).into() })
                .collect(),
        }),
        Message::Refused(reason) => Body::Refused(v1::Refused { reason: reason.to_string() }),
        Message::HeartbeatAnswer(number) => Body::HeartbeatAnswer(v1::HeartbeatAnswer { number }),
        Message::Start(one) => Body::Starts(v1::Starts { starts: vec![start(*one)] }),
        Message::Kill { attempt, grace, reason } => Body::Kill(v1::Kill {
            attempt: Some(attempt.into()),
            grace_ms: u64::try_from(grace.as_millis()).unwrap_or(u64::MAX),
            reason: reason.to_string(),
        }),
        Message::Ack(attempt) => Body::Acks(v1::Acks { attempts: vec![attempt.into()] }),
    }
}

fn verdict_kind(verdict: Verdict) -> v1::verdict::Kind {
    match verdict {
        Verdict::Adopt => v1::verdict::Kind::Adopt,
        Verdict::Kill => v1::verdict::Kind::Kill,
        Verdict::Discard => v1::verdict::Kind::Discard,
    }
}

pub(crate) fn hello(hello: v1::Hello) -> Result<Hello, WireError> {
    let invalid = |field, problem: String| WireError::Invalid { field, problem };
    Ok(Hello {
        executor: hello.executor.parse().map_err(|error| invalid("executor", format!("{:?}: {error}", hello.executor)))?,
        slots: hello.slots,
        labels: hello.labels.into_iter().collect::<BTreeMap<_, _>>(),
        kinds: hello.kinds,
        spool: convert::spool(&hello.spool_id)?,
        boot: hello.boot_id.into(),
        is_clean: hello.is_clean,
        version: hello.version.into(),
        held: hello.held.into_iter().map(held).collect::<Result<_, _>>()?,
    })
}

fn held(held: v1::Held) -> Result<Held, WireError> {
    let attempt = convert::attempt(held.attempt.as_ref())?;
    let report = match (convert::attempt_state(held.state)?, held.end) {
        (AttemptState::Accepted | AttemptState::Assigned, None) => Report::Accepted,
        (AttemptState::Running, None) => Report::Started { at: Timestamp::default() },
        (AttemptState::Killing, None) => Report::Killing,
        (_, Some(end)) => Report::Ended(attempt_end(end)?),
        (state, None) => {
            let problem = format!("it is {state} and does not say how it ended");
            return Err(WireError::Invalid { field: "held.end", problem });
        }
    };
    Ok(Held { attempt, report })
}

/// Reads the attempts and states of a heartbeat.
pub(crate) fn held_states(
    held: Vec<v1::Held>,
) -> Result<Vec<(millrace_common::id::AttemptId, AttemptState)>, WireError> {
    held.into_iter()
        .map(|one| Ok((convert::attempt(one.attempt.as_ref())?, convert::attempt_state(one.state)?)))
        .collect()
}

pub(crate) fn report(report: v1::Report) -> Result<(millrace_common::id::AttemptId, Report), WireError> {
    let attempt = convert::attempt(report.attempt.as_ref())?;
    let report = match report.body.ok_or(WireError::Missing("report.body"))? {
        v1::report::Body::Accepted(_) => Report::Accepted,
        v1::report::Body::Started(started) => Report::Started { at: convert::timestamp(started.at) },
        v1::report::Body::Ended(end) => Report::Ended(attempt_end(end)?),
    };
    Ok((attempt, report))
}

fn attempt_end(end: v1::AttemptEnd) -> Result<AttemptEnd, WireError> {
    let state = convert::attempt_state(end.state)?;
    if !state.is_final() {
        return Err(WireError::Invalid { field: "end.state", problem: format!("{state} is not an end") });
    }
    if end.values.len() > VALUES_BYTES_MAX {
        let problem = format!("{} bytes, at most {VALUES_BYTES_MAX}", end.values.len());
        return Err(WireError::Invalid { field: "end.values", problem });
    }
    let is_object = end.values.is_empty()
        || serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(&end.values).is_ok();
    if !is_object {
        return Err(WireError::Invalid { field: "end.values", problem: "not a JSON object".to_owned() });
    }
    let mut reason = end.reason;
    if reason.len() > REASON_BYTES_MAX {
        let cut = (0..=REASON_BYTES_MAX).rev().find(|at| reason.is_char_boundary(*at)).unwrap_or(0);
        reason.truncate(cut);
    }
    Ok(AttemptEnd {
        state,
        exit_code: end.exit_code,
        reason: reason.into(),
        values: (!end.values.is_empty()).then(|| end.values.into()),
        is_skipped: end.skipped,
        is_permanent: end.permanent,
        started_at: end.started_at.map(convert::timestamp),
        ended_at: convert::timestamp(end.ended_at),
        log_bytes: end.log_bytes,
        proof: if state == AttemptState::Rejected { Proof::Refused } else { Proof::Reported },
    })
}

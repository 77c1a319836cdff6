//! What travels between leader and executor: the core's words for it and the ledger's.

use bytes::Bytes;
use millrace_common::{
    id::{AttemptId, SpoolId},
    state::AttemptState,
    time::Timestamp,
};
use millrace_core as core;
use millrace_executor::ledger;

pub(crate) fn spool_id(number: u64) -> SpoolId {
    SpoolId(format!("00000000-0000-7000-8000-{number:012x}").parse().unwrap())
}

/// A number that tells attempts apart.
pub(crate) fn salt(attempt: AttemptId) -> u64 {
    let bytes = attempt.instance.run.as_bytes();
    let run = bytes.iter().fold(7_u64, |mixed, byte| mixed.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    run ^ (u64::from(attempt.instance.index) << 40) ^ (u64::from(attempt.number) << 50)
}

pub(crate) fn from_leader(message: core::Message) -> ledger::FromLeader {
    match message {
        core::Message::Welcome(verdicts) => {
            let verdicts = verdicts.into_iter().map(|(attempt, said)| (attempt, verdict(said)));
            ledger::FromLeader::Welcome(verdicts.collect())
        }
        core::Message::HeartbeatAnswer(number) => ledger::FromLeader::HeartbeatAnswer(number),
        core::Message::Start(asked) => ledger::FromLeader::Starts(vec![start(*asked)]),
        core::Message::Kill { attempt, grace, reason } => {
            ledger::FromLeader::Kill { attempt, grace, reason: reason.to_string() }
        }
        core::Message::Ack(attempt) => ledger::FromLeader::Acks(vec![attempt]),
        core::Message::SpoolOld(reason) => ledger::FromLeader::SpoolOld(reason.to_string()),
        core::Message::Refused(_) => unreachable!("ends the session before it is read"),
    }
}

const fn verdict(verdict: core::Verdict) -> ledger::Verdict {
    match verdict {
        core::Verdict::Adopt => ledger::Verdict::Adopt,
        core::Verdict::Kill => ledger::Verdict::Kill,
        core::Verdict::Discard => ledger::Verdict::Discard,
    }
}

fn start(start: core::Start) -> ledger::Start {
    ledger::Start {
        attempt: start.attempt,
        spool: start.spool,
        workflow: start.workflow.to_string(),
        task: start.task.to_string(),
        kind: start.kind.to_string(),
        with: Bytes::new(),
        is_templated: start.is_templated,
        interval: start.interval,
        timezone: start.timezone.to_string(),
        params: start.params.to_string(),
        values: start.values.into_iter().map(|(task, text)| (task.to_string(), text.to_string())).collect(),
        timeout: start.timeout,
        kill_grace: start.kill_grace,
        orphan_timeout: start.orphan_timeout,
    }
}

pub(crate) fn report(report: ledger::Report) -> core::Report {
    match report {
        ledger::Report::Accepted => core::Report::Accepted,
        ledger::Report::Started { at, .. } => core::Report::Started { at },
        ledger::Report::Ended(ended) => core::Report::Ended(end(ended)),
    }
}

pub(crate) fn held(held: ledger::Held, at: Timestamp) -> core::Held {
    let report = match (held.state, held.end) {
        (_, Some(ended)) => core::Report::Ended(end(ended)),
        (AttemptState::Running, None) => core::Report::Started { at },
        (AttemptState::Killing, None) => core::Report::Killing,
        (_, None) => core::Report::Accepted,
    };
    core::Held { attempt: held.attempt, report }
}

const fn reason_of(rejection: ledger::Rejection) -> core::RejectReason {
    match rejection {
        ledger::Rejection::SpaceLow => core::RejectReason::SpaceLow,
        ledger::Rejection::Draining => core::RejectReason::Draining,
        ledger::Rejection::CannotStart => core::RejectReason::CannotStart,
    }
}

fn end(end: ledger::End) -> core::AttemptEnd {
    let is_refused = end.state == AttemptState::Rejected;
    core::AttemptEnd {
        state: end.state,
        exit_code: end.exit_code,
        reason: end.reason.into(),
        values: None,
        is_skipped: end.is_skipped,
        is_permanent: end.is_permanent,
        is_planned: end.is_planned,
        reject_reason: end.rejection.map_or(core::RejectReason::Other, reason_of),
        started_at: end.started_at,
        ended_at: end.ended_at,
        log_bytes: end.log_bytes,
        proof: if is_refused { core::Proof::Refused } else { core::Proof::Reported },
    }
}

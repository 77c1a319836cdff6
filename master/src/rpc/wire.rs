//! Between the core's messages and the wire. What the domain forbids is refused here, by field.

use std::{collections::BTreeMap, sync::Arc};

use millrace_common::{
    id::{AttemptId, KindName},
    limits::VALUES_BYTES_MAX,
    state::AttemptState,
    time::Timestamp,
};
use millrace_core::{AttemptEnd, Held, Hello, Message, Proof, RejectReason, Report, Start, Verdict};
use millrace_proto::{
    convert::{self, WireError},
    v1::{self, leader_message::Body},
};

/// Bytes of a reason that are kept; it is one line for people.
const REASON_BYTES_MAX: usize = 2_048;
/// Slots of one executor: as many as its own settings allow.
const SLOTS_MAX: u32 = 4_096;
/// Labels of one executor.
const LABELS_MAX: usize = 64;
/// Kinds of one executor: the built-in ones and what a team adds.
const KINDS_MAX: usize = 256;
/// Characters of a label, a boot id or a version.
const WORD_CHARS_MAX: usize = 191;
/// Characters of the identity of a machine; those of `/etc/machine-id` have 32, UUIDs have 36.
const MACHINE_CHARS_MAX: usize = 64;
/// Bytes of a start beside its texts: numbers, ids, and what frames them.
const START_FRAME_BYTES: usize = 512;
/// Bytes that frame an entry of a map.
const ENTRY_FRAME_BYTES: usize = 24;

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
        values: start
            .values
            .into_iter()
            .map(|(task, values)| (task.to_string(), values.to_string()))
            .collect(),
        timeout_ms: start.timeout.map_or(0, millis),
        kill_grace_ms: millis(start.kill_grace),
        orphan_timeout_ms: start.orphan_timeout.map_or(0, millis),
    }
}

/// Returns how many bytes a start has on the wire, never too few.
pub(crate) fn start_bytes(start: &v1::Start) -> usize {
    let facts = start.run.as_ref().map_or(0, |run| run.params.len() + run.timezone.len());
    let values = start.values.iter().map(|(task, values)| task.len() + values.len() + ENTRY_FRAME_BYTES);
    let names = start.workflow.len() + start.task.len() + start.kind.len();
    START_FRAME_BYTES + names + start.with.len() + facts + values.sum::<usize>()
}

pub(crate) fn leader_message(message: Message) -> Body {
    match message {
        Message::Welcome(verdicts) => {
            Body::Welcome(v1::Welcome { verdicts: verdicts.into_iter().map(verdict).collect() })
        }
        Message::Refused(reason) => {
            Body::Refused(v1::Refused { reason: reason.to_string(), is_spool_old: false })
        }
        Message::SpoolOld(reason) => {
            Body::Refused(v1::Refused { reason: reason.to_string(), is_spool_old: true })
        }
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

fn verdict((attempt, verdict): (AttemptId, Verdict)) -> v1::Verdict {
    let kind = match verdict {
        Verdict::Adopt => v1::verdict::Kind::Adopt,
        Verdict::Kill => v1::verdict::Kind::Kill,
        Verdict::Discard => v1::verdict::Kind::Discard,
    };
    v1::Verdict { attempt: Some(attempt.into()), kind: kind.into() }
}

fn invalid(field: &'static str, problem: impl Into<String>) -> WireError {
    WireError::Invalid { field, problem: problem.into() }
}

pub(crate) fn hello(hello: v1::Hello) -> Result<Hello, WireError> {
    let executor = hello.executor.parse();
    let executor = executor.map_err(|error| invalid("executor", format!("{:?}: {error}", hello.executor)))?;
    if !(1..=SLOTS_MAX).contains(&hello.slots) {
        return Err(invalid("slots", format!("{}; it must be from 1 to {SLOTS_MAX}", hello.slots)));
    }
    Ok(Hello {
        executor,
        slots: hello.slots,
        labels: labels(hello.labels)?,
        kinds: kinds(hello.kinds)?,
        spool: convert::spool(&hello.spool_id)?,
        machine: machine(hello.machine_id)?,
        boot: word("boot_id", hello.boot_id)?.into(),
        is_clean: hello.is_clean,
        is_space_low: hello.is_space_low,
        version: word("version", hello.version)?.into(),
        process: Some(word("process", hello.process)?).filter(|word| !word.is_empty()).map(Into::into),
        spool_facts: hello.spool_facts,
        held: hello.held.into_iter().map(held).collect::<Result<_, _>>()?,
    })
}

fn labels(labels: impl IntoIterator<Item = (String, String)>) -> Result<BTreeMap<String, String>, WireError> {
    let labels: BTreeMap<String, String> = labels
        .into_iter()
        .map(|(key, value)| match key.is_empty() {
            true => Err(invalid("labels", "a label without a name")),
            false => Ok((word("labels", key)?, word("labels", value)?)),
        })
        .collect::<Result<_, _>>()?;
    match labels.len() {
        0..=LABELS_MAX => Ok(labels),
        count => Err(invalid("labels", format!("{count} of them, at most {LABELS_MAX}"))),
    }
}

fn kinds(kinds: Vec<String>) -> Result<Vec<String>, WireError> {
    if kinds.len() > KINDS_MAX {
        return Err(invalid("kinds", format!("{} of them, at most {KINDS_MAX}", kinds.len())));
    }
    for kind in &kinds {
        kind.parse::<KindName>().map_err(|error| invalid("kinds", error.to_string()))?;
    }
    Ok(kinds)
}

/// Reads the identity of a machine; empty where the executor does not know it.
fn machine(text: String) -> Result<Option<Arc<str>>, WireError> {
    let is_plain = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    if !is_plain || text.len() > MACHINE_CHARS_MAX {
        let problem = format!("at most {MACHINE_CHARS_MAX} letters, digits and dashes");
        return Err(invalid("machine_id", problem));
    }
    Ok(Some(text).filter(|text| !text.is_empty()).map(Into::into))
}

/// Checks a text that appears in logs and on terminals.
fn word(field: &'static str, text: String) -> Result<String, WireError> {
    if text.chars().any(char::is_control) {
        return Err(invalid(field, "a control character"));
    }
    match text.chars().count() {
        0..=WORD_CHARS_MAX => Ok(text),
        count => Err(invalid(field, format!("{count} characters, at most {WORD_CHARS_MAX}"))),
    }
}

fn held(held: v1::Held) -> Result<Held, WireError> {
    let attempt = convert::attempt(held.attempt.as_ref())?;
    let report = match (convert::attempt_state(held.state)?, held.end) {
        (AttemptState::Accepted, None) => Report::Accepted,
        (AttemptState::Running, None) => Report::Started { at: Timestamp::default() },
        (AttemptState::Killing, None) => Report::Killing,
        (AttemptState::Assigned, _) => return Err(invalid("held.state", "assigned is not in a spool")),
        (state, Some(end)) if end.state == held.state && state.is_final() => Report::Ended(attempt_end(end)?),
        (state, Some(_)) => {
            return Err(invalid("held.end", format!("it is {state} and ended in another state")));
        }
        (state, None) => {
            return Err(invalid("held.end", format!("it is {state} and does not say how it ended")));
        }
    };
    Ok(Held { attempt, report })
}

/// Reads the attempts and states of a heartbeat.
pub(crate) fn held_states(held: Vec<v1::Held>) -> Result<Vec<(AttemptId, AttemptState)>, WireError> {
    held.into_iter()
        .map(|one| Ok((convert::attempt(one.attempt.as_ref())?, convert::attempt_state(one.state)?)))
        .collect()
}

pub(crate) fn report(report: v1::Report) -> Result<(AttemptId, Report), WireError> {
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
        return Err(invalid("end.state", format!("{state} is not an end")));
    }
    check_values(&end.values)?;
    Ok(AttemptEnd {
        state,
        exit_code: end.exit_code,
        reason: one_line(&end.reason).into(),
        values: (!end.values.is_empty()).then(|| end.values.into()),
        is_skipped: end.skipped,
        is_permanent: end.permanent,
        started_at: end.started_at.map(convert::timestamp),
        ended_at: convert::timestamp(end.ended_at),
        log_bytes: end.log_bytes,
        reject_reason: reject_reason(end.reject_reason),
        is_planned: end.planned,
        proof: if state == AttemptState::Rejected { Proof::Refused } else { Proof::Reported },
    })
}

/// A reason that only a newer executor knows is none of those for which the task is not at fault.
fn reject_reason(number: i32) -> RejectReason {
    match v1::RejectReason::try_from(number) {
        Ok(v1::RejectReason::SpaceLow) => RejectReason::SpaceLow,
        Ok(v1::RejectReason::Draining) => RejectReason::Draining,
        Ok(v1::RejectReason::CannotStart) => RejectReason::CannotStart,
        Ok(v1::RejectReason::Unspecified) | Err(_) => RejectReason::Other,
    }
}

fn check_values(values: &str) -> Result<(), WireError> {
    if values.len() > VALUES_BYTES_MAX {
        return Err(invalid("end.values", format!("{} bytes, at most {VALUES_BYTES_MAX}", values.len())));
    }
    let is_object = values.is_empty()
        || serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(values).is_ok();
    if is_object { Ok(()) } else { Err(invalid("end.values", "not a JSON object")) }
}

/// Makes one line of a text that goes to logs and terminals, and shortens it.
fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(REASON_BYTES_MAX));
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if line.len() + c.len_utf8() > REASON_BYTES_MAX {
            break;
        }
        line.push(c);
    }
    line
}

#[cfg(test)]
mod tests;

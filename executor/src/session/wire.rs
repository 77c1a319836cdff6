//! Between wire messages and what the ledger knows. Every message from a leader is checked here.

use std::time::Duration;

use millrace_common::{interval::DataInterval, term::Term};
use millrace_proto::{
    convert::{self, WireError},
    v1,
};
use millrace_runtime::Chain;

use crate::{
    history,
    ledger::{End, FromLeader, Held, HistoryQuestion, Rejection, Report, Start, Verdict},
};

/// What a leader said.
#[derive(Debug)]
pub(super) enum Said {
    /// Something for the ledger.
    Ledger(Term, FromLeader),
    /// It does not want this session.
    Refused(String),
    /// Another master leads, at this address; nobody where it is empty.
    NotLeader(String),
}

/// Reads a message.
pub(super) fn said(message: v1::LeaderMessage) -> Result<Said, WireError> {
    use v1::leader_message::Body;
    let message_of = |body| Ok(Said::Ledger(Term(message.term), body));
    match message.body.ok_or(WireError::Missing("body"))? {
        Body::Welcome(welcome) => {
            let verdicts = welcome.verdicts.iter().map(verdict).collect::<Result<_, _>>()?;
            message_of(FromLeader::Welcome(verdicts))
        }
        Body::HeartbeatAnswer(answer) => message_of(FromLeader::HeartbeatAnswer(answer.number)),
        Body::Starts(starts) => {
            let starts = starts.starts.into_iter().map(start).collect::<Result<_, _>>()?;
            message_of(FromLeader::Starts(starts))
        }
        Body::Kill(kill) => message_of(FromLeader::Kill {
            attempt: convert::attempt(kill.attempt.as_ref())?,
            grace: Duration::from_millis(kill.grace_ms),
            reason: kill.reason,
        }),
        Body::Acks(acks) => {
            let attempts = acks.attempts.iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
            message_of(FromLeader::Acks(attempts))
        }
        Body::Refused(refused) if refused.is_spool_old => message_of(FromLeader::SpoolOld(refused.reason)),
        Body::Refused(refused) => Ok(Said::Refused(refused.reason)),
        Body::HistoryRequest(request) => message_of(FromLeader::HistoryAsked(HistoryQuestion {
            number: request.number,
            since: convert::timestamp(request.since),
            until: convert::timestamp(request.until),
            page: request.page_token,
        })),
        Body::NotLeader(other) => Ok(Said::NotLeader(other.address)),
    }
}

fn verdict(verdict: &v1::Verdict) -> Result<(millrace_common::id::AttemptId, Verdict), WireError> {
    use v1::verdict::Kind;
    let kind = match verdict.kind() {
        Kind::Adopt => Verdict::Adopt,
        Kind::Kill => Verdict::Kill,
        Kind::Discard => Verdict::Discard,
        Kind::Unspecified => {
            let problem = format!("{} is no verdict that this program knows", verdict.kind);
            return Err(WireError::Invalid { field: "verdict.kind", problem });
        }
    };
    Ok((convert::attempt(verdict.attempt.as_ref())?, kind))
}

fn start(start: v1::Start) -> Result<Start, WireError> {
    let facts = start.run.ok_or(WireError::Missing("start.run"))?;
    let some = |millis: u64| (millis > 0).then(|| Duration::from_millis(millis));
    Ok(Start {
        attempt: convert::attempt(start.attempt.as_ref())?,
        spool: convert::spool(&start.spool_id)?,
        workflow: start.workflow,
        task: start.task,
        kind: start.kind,
        with: start.with,
        is_templated: start.is_templated,
        interval: DataInterval {
            start: convert::timestamp(facts.interval_start),
            end: convert::timestamp(facts.interval_end),
        },
        timezone: facts.timezone,
        params: facts.params,
        values: start.values.into_iter().collect(),
        timeout: some(start.timeout_ms),
        kill_grace: Duration::from_millis(start.kill_grace_ms),
        orphan_timeout: some(start.orphan_timeout_ms),
    })
}

pub(super) fn held(held: Held) -> v1::Held {
    v1::Held {
        attempt: Some(held.attempt.into()),
        state: v1::AttemptState::from(held.state).into(),
        end: held.end.map(end),
    }
}

pub(super) fn report(attempt: millrace_common::id::AttemptId, report: Report) -> v1::Report {
    use v1::report::Body;
    let body = match report {
        Report::Accepted => Body::Accepted(v1::Accepted {}),
        Report::Started { at, pid } => Body::Started(v1::Started { at: at.as_micros(), pid }),
        Report::Ended(ended) => Body::Ended(end(ended)),
    };
    v1::Report { attempt: Some(attempt.into()), body: Some(body) }
}

fn end(end: End) -> v1::AttemptEnd {
    v1::AttemptEnd {
        state: v1::AttemptState::from(end.state).into(),
        exit_code: end.exit_code,
        reason: end.reason,
        values: end.values,
        skipped: end.is_skipped,
        permanent: end.is_permanent,
        started_at: end.started_at.map(millrace_common::time::Timestamp::as_micros),
        ended_at: end.ended_at.as_micros(),
        log_bytes: end.log_bytes,
        reject_reason: reject_reason(end.rejection).into(),
        planned: end.is_planned,
    }
}

const fn reject_reason(rejection: Option<Rejection>) -> v1::RejectReason {
    match rejection {
        None => v1::RejectReason::Unspecified,
        Some(Rejection::SpaceLow) => v1::RejectReason::SpaceLow,
        Some(Rejection::Draining) => v1::RejectReason::Draining,
        Some(Rejection::CannotStart) => v1::RejectReason::CannotStart,
    }
}

/// Puts a part of the history, or why it cannot be read, into a message.
pub(crate) fn history_page(number: u64, read: Result<history::Page, history::ReadError>) -> v1::HistoryPage {
    match read {
        Ok(page) => v1::HistoryPage {
            number,
            entries: page.entries.into_iter().map(history_entry).collect(),
            next_page_token: page.next.unwrap_or_default(),
            begins_at: page.begins_at.as_micros(),
            is_whole: page.is_whole,
            problem: String::new(),
        },
        Err(error) => {
            v1::HistoryPage { number, problem: Chain(&error).to_string(), ..v1::HistoryPage::default() }
        }
    }
}

fn history_entry(entry: history::Entry) -> v1::HistoryEntry {
    use history::What;
    use v1::history_entry::What as Wire;
    let what = match entry.what {
        What::Opened { spool, slots, is_start } => {
            Wire::Opened(v1::HistoryOpened { spool_id: spool.0.as_bytes().to_vec(), slots, is_start })
        }
        What::TermObeyed(term) => Wire::TermObeyed(term.0),
        What::Accepted(attempt) => Wire::Accepted(attempt.into()),
        What::Spawned(attempt) => Wire::Spawned(attempt.into()),
        What::Ended { attempt, state, exit_code } => Wire::Ended(v1::HistoryEnd {
            attempt: Some(attempt.into()),
            state: v1::AttemptState::from(state).into(),
            exit_code,
        }),
        What::Released(attempt) => Wire::Released(attempt.into()),
    };
    v1::HistoryEntry { at: entry.at.as_micros(), what: Some(what) }
}

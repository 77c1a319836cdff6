//! The only mapping from our errors to gRPC statuses.

use std::time::Duration;

use millrace_core::Refusal;
use millrace_proto::convert::WireError;
use millrace_runtime::chain::Chain;
use millrace_store::query::QueryError;
use tonic::{Code, Status, metadata::MetadataMap};

use crate::{
    definitions::DefinitionError,
    leader::{AskError, LeaderGone},
};

/// Bytes of a message. It travels in a header, where each byte may become three, and clients take 16 KiB of headers.
const MESSAGE_BYTES_MAX: usize = 4_000;

/// Says in seconds when a caller may try again.
pub(crate) const RETRY_AFTER_KEY: &str = "retry-after";

/// When a caller may expect a database that is away: a restart takes this long.
const DATABASE_RETRY_AFTER: Duration = Duration::from_secs(2);

/// Makes a status whose message arrives whatever it repeats of the request.
pub(super) fn of(code: Code, message: impl Into<String>) -> Status {
    let mut message = message.into();
    if message.len() > MESSAGE_BYTES_MAX {
        let end = (0..=MESSAGE_BYTES_MAX).rev().find(|at| message.is_char_boundary(*at)).unwrap_or(0);
        let end = message[..end].rfind('\n').unwrap_or(end);
        message.truncate(end);
        message.push_str("\n(there is more, which is left out)");
    }
    Status::new(code, message)
}

pub(super) fn invalid(message: impl Into<String>) -> Status {
    of(Code::InvalidArgument, message)
}

pub(super) fn not_found(message: impl Into<String>) -> Status {
    of(Code::NotFound, message)
}

pub(super) fn not_now(message: impl Into<String>) -> Status {
    of(Code::FailedPrecondition, message)
}

/// Nobody can do it now, and somebody can after about this time.
pub(crate) fn later(message: impl Into<String>, after: Duration) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert(RETRY_AFTER_KEY, after.as_secs().max(1).into());
    Status::with_metadata(Code::Unavailable, message, metadata)
}

/// The program is about to end; another one will answer.
pub(crate) fn stopping() -> Status {
    Status::unavailable("this master is stopping")
}

pub(super) fn of_refusal(refusal: &Refusal) -> Status {
    let code = match refusal {
        Refusal::UnknownWorkflow(_)
        | Refusal::UnknownRun(_)
        | Refusal::UnknownTask(..)
        | Refusal::UnknownExecutor(_) => Code::NotFound,
        Refusal::WrongState { .. }
        | Refusal::UnreadableWorkflow { .. }
        | Refusal::ExecutorConnected(_)
        | Refusal::ExecutorHolds { .. }
        | Refusal::AttemptNotLive(_)
        | Refusal::ExecutorSpeaks { .. } => Code::FailedPrecondition,
        Refusal::Setting(_) => Code::InvalidArgument,
        Refusal::TooManyRuns { .. } => Code::ResourceExhausted,
    };
    of(code, refusal.to_string())
}

pub(super) fn of_leader_gone(error: LeaderGone) -> Status {
    Status::unavailable(error.to_string())
}

pub(super) fn of_ask(error: AskError) -> Status {
    match error {
        AskError::Gone(error) => of_leader_gone(error),
        AskError::DatabaseAway => later(error.to_string(), DATABASE_RETRY_AFTER),
    }
}

pub(super) fn of_wire(error: &WireError) -> Status {
    invalid(error.to_string())
}

pub(super) fn of_definition(error: &DefinitionError) -> Status {
    match error {
        DefinitionError::Query(error) => of_query(error),
        DefinitionError::Absent(..) => not_found(error.to_string()),
        DefinitionError::Invalid(..) => not_now(Chain(error).to_string()),
        DefinitionError::Stopped(_) => stopping(),
    }
}

pub(super) fn of_query(error: &QueryError) -> Status {
    if error.is_outage() {
        tracing::warn!(error = %Chain(error), "the database does not answer a query");
        return later("the database does not answer", DATABASE_RETRY_AFTER);
    }
    tracing::error!(error = %Chain(error), "query failed");
    Status::internal("the store did not answer the query; the master's log says why")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_between_lines() {
        let line = "é".repeat(100);
        let status = invalid(vec![line.clone(); 100].join("\n"));
        assert!(status.message().len() < MESSAGE_BYTES_MAX + 100);
        assert!(status.message().ends_with(&format!("{line}\n(there is more, which is left out)")));
        assert!(invalid("é".repeat(MESSAGE_BYTES_MAX)).message().len() < MESSAGE_BYTES_MAX + 100);
        assert_eq!(invalid("short").message(), "short");
    }
}

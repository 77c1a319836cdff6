//! What people do with executors, and with attempts whose executor is gone.

use std::sync::Arc;

use millrace_common::id::{AttemptId, ExecutorName};
use millrace_core::{Answer, CloseExecutor, Closed, ConfirmLost, Request as Ask};
use millrace_proto::v1;
use tonic::Status;

use super::{Control, not_answered, view};
use crate::rpc::status;

/// Characters of a reason: it is one line for people.
const REASON_CHARS_MAX: usize = 500;
/// Characters of who asks: an account and a machine.
const BY_CHARS_MAX: usize = 191;

impl Control {
    pub(super) async fn show_executor(&self, name: &str) -> Result<v1::ExecutorResponse, Status> {
        self.ask_executor(Ask::ShowExecutor(executor_name(name)?)).await
    }

    pub(super) async fn close_executor(
        &self,
        request: v1::CloseExecutorRequest,
        closed: Closed,
    ) -> Result<v1::ExecutorResponse, Status> {
        let executor = executor_name(&request.name)?;
        let reason = one_line("reason", &request.reason, REASON_CHARS_MAX)?;
        let by = who(&request.by)?;
        self.ask_executor(Ask::CloseExecutor(CloseExecutor { executor, closed, reason, by })).await
    }

    pub(super) async fn open_executor(
        &self,
        request: v1::OpenExecutorRequest,
    ) -> Result<v1::ExecutorResponse, Status> {
        let executor = executor_name(&request.name)?;
        self.ask_executor(Ask::OpenExecutor { executor, by: who(&request.by)? }).await
    }

    pub(super) async fn forget(
        &self,
        request: v1::ForgetExecutorRequest,
    ) -> Result<v1::ForgetExecutorResponse, Status> {
        let executor = executor_name(&request.name)?;
        match self.ask(Ask::ForgetExecutor { executor, by: who(&request.by)? }).await? {
            Answer::ExecutorForgotten => Ok(v1::ForgetExecutorResponse {}),
            other => Err(not_answered(&other)),
        }
    }

    pub(super) async fn confirm_lost(
        &self,
        request: v1::ConfirmAttemptLostRequest,
    ) -> Result<v1::ConfirmAttemptLostResponse, Status> {
        let attempt: AttemptId =
            request.attempt.parse().map_err(|error| status::invalid(format!("attempt: {error}")))?;
        let reason = one_line("reason", &request.reason, REASON_CHARS_MAX)?;
        if reason.is_empty() {
            return Err(status::invalid("reason: say how it is known that nothing of the attempt runs"));
        }
        let by = who(&request.by)?;
        match self.ask(Ask::ConfirmLost(ConfirmLost { attempt, reason, by })).await? {
            Answer::AttemptEnded(state) => Ok(v1::ConfirmAttemptLostResponse { state: state.to_string() }),
            other => Err(not_answered(&other)),
        }
    }

    async fn ask_executor(&self, ask: Ask) -> Result<v1::ExecutorResponse, Status> {
        match self.ask(ask).await? {
            Answer::Executor(detail) => Ok(view::executor_detail(*detail)),
            other => Err(not_answered(&other)),
        }
    }
}

fn executor_name(text: &str) -> Result<ExecutorName, Status> {
    text.parse().map_err(|error| status::invalid(format!("{text:?} is not an executor's name: {error}")))
}

fn who(text: &str) -> Result<Arc<str>, Status> {
    let by = one_line("by", text, BY_CHARS_MAX)?;
    if by.is_empty() { Err(status::invalid("by: say who asks, for the record")) } else { Ok(by) }
}

/// Checks a text that stands in logs, in tables and in the store.
fn one_line(field: &str, text: &str, chars_max: usize) -> Result<Arc<str>, Status> {
    let text = text.trim();
    if text.chars().any(char::is_control) {
        return Err(status::invalid(format!("{field}: it must be one line without control characters")));
    }
    match text.chars().count() {
        count if count > chars_max => {
            Err(status::invalid(format!("{field}: {count} characters, at most {chars_max}")))
        }
        _ => Ok(text.into()),
    }
}

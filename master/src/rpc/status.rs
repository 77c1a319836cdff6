//! The only mapping from our errors to gRPC statuses.

use millrace_core::Refusal;
use millrace_proto::convert::WireError;
use millrace_runtime::chain::Chain;
use millrace_store::query::QueryError;
use tonic::Status;

use crate::leader::LeaderGone;

pub(super) fn of_refusal(refusal: &Refusal) -> Status {
    let message = refusal.to_string();
    match refusal {
        Refusal::UnknownWorkflow(_) | Refusal::UnknownRun(_) | Refusal::UnknownTask(..) => Status::not_found(message),
        Refusal::WrongState { .. } => Status::failed_precondition(message),
        Refusal::TooManyRuns { .. } => Status::resource_exhausted(message),
    }
}

pub(super) fn of_leader_gone(error: LeaderGone) -> Status {
    Status::unavailable(error.to_string())
}

pub(super) fn of_wire(error: &WireError) -> Status {
    Status::invalid_argument(error.to_string())
}

pub(super) fn of_query(error: &QueryError) -> Status {
    tracing::error!(error = %Chain(error), "query failed");
    Status::internal("the store did not answer the query; the master's log says why")
}

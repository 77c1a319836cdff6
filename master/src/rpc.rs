//! gRPC: where wire messages stop. Every listener asks for the token, reflection and health included.

pub(crate) mod auth;
mod control_service;
mod executor_service;
mod status;
pub(crate) mod wire;

pub(crate) use self::{control_service::Control, executor_service::Executors};

//! How a document becomes a workflow.
//!
//! A document is read in one pass over its events into a tree that keeps positions, then checked as a whole: whatever is
//! wrong is collected, so that a person sees all of it at once. Work is bounded by the limits of
//! [`limits`](crate::limits) before it is done. Reading needs no file, clock or network; whether a pool, a connection or an
//! executor exists is checked elsewhere.

mod node;
mod problem;
mod read;

mod param;
mod reference;
mod task;
mod with;
mod workflow;

mod diff;
mod document;
mod schema;

use self::problem::Problems;
pub use self::{
    diff::{Difference, diff},
    document::to_document,
    param::{ParamError, resolve_params},
    problem::{Problem, Rejected},
    schema::schema,
};
use crate::workflow::Workflow;

/// Reads a YAML or JSON document.
///
/// # Errors
/// All problems of the document, each with its place.
pub fn parse(text: &str) -> Result<Workflow, Rejected> {
    let mut problems = Problems::new(text);
    let workflow = node::read(text, &mut problems).and_then(|root| workflow::read(&root, &mut problems));
    match workflow {
        Some(workflow) if problems.is_empty() => Ok(workflow),
        _ => Err(problems.into_rejected()),
    }
}

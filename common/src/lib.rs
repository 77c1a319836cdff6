//! The vocabulary of Millrace: what all its programs agree on.
//!
//! Nothing here performs IO, reads a clock or is asynchronous. Modules are listed in reading order: names and numbers
//! first, then what a workflow is, then how a document becomes one.

/// A JSON value, as parameters and values are kept.
pub use serde_json::Value;

pub mod id;
pub mod limits;
pub mod nearest;
pub mod secret;
pub mod state;
pub mod term;
pub mod text;
pub mod time;

pub mod connection;
pub mod gather;
pub mod graph;
pub mod interval;
pub mod kind;
pub mod schedule;
pub mod settings;
pub mod template;
pub mod workflow;

pub mod definition;

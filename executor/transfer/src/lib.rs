//! Runs `DataX` definitions natively: a reader, a writer, and batches of records between them.
//!
//! [`Job::parse`] turns the text of a job file into a valid [`Job`], or says which part of it needs
//! an external `DataX` ([`Parsed::Foreign`]). [`run()`] moves the records and writes the log that
//! parsers of `DataX`'s output know. [`log`] reads that same output of an external process.
//!
//! Memory is bounded by two batches, however large the tables are. Nothing here knows the scheduler,
//! spawns processes or reads the environment. Cancellation is by killing the process: a future of
//! [`run()`] must be driven to its end, because database futures must not be dropped midway.
//!
//! Absent on purpose: parallel channels (channels are understood, tasks run one after another),
//! `splitPk` ranges, transformers, and every plugin that an external `DataX` runs better.

mod bytes;
mod column;
mod convert;
mod dirty;
mod jdbc;
mod job;
mod json;
mod limits;
pub mod log;
mod moment;
mod number;
mod parameter;
mod pattern;
mod plugin;
mod rdbms;
mod report;
mod run;
mod secret;
mod setting;
mod statistics;
mod stream;
mod substitute;
mod text;
mod throttle;

pub use crate::{
    job::{Foreign, Job, JobError, Parsed, Problem},
    plugin::PluginError,
    run::{Options, TransferError, run},
    statistics::Statistics,
};

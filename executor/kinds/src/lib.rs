//! Task kinds: what an attempt runs.
//!
//! Every attempt is a process. A kind turns checked parameters into a [`Launch`], the command that the executor's
//! runner starts. For `shell` that is the user's own command; for built-in kinds it is the executor's own binary with the
//! sub-command `run-kind`, which reads a [`Payload`] on standard input, does the work in [`run_kind`] and writes its
//! values to a file. Kill, limits, output and accounting are thereby one mechanism for all kinds, and a fault in a kind
//! cannot hurt the executor.
//!
//! Parameters and secrets travel on an inherited descriptor, never in argv or the environment.

pub mod aoi;
pub mod backup;
mod builtin;
mod check;
pub mod datax;
pub mod declared;
pub mod launch;
mod parameters;
pub mod registry;
pub mod report;
pub mod run;
pub mod shell;

pub use builtin::SUBCOMMAND;
pub use launch::{Kind, Launch, LaunchError, Site, Work};
pub use registry::Registry;
pub use report::{Outcome, Report};
pub use run::{Context, KindError, Payload, run_kind};

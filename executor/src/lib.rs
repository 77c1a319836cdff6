//! The executor: runs attempts on one machine and reports them, durably.
//!
//! ```text
//! session <-> app <-> ledger        what a leader says becomes inputs; decisions become batches
//!              |  \-> spool         a batch is durable before anything of it is done
//!              |----> runner <----> supervisor   a process of its own that starts, watches and ends attempts
//!              \----> output        files, shipped by offset over a connection of their own
//! ```
//!
//! It listens on no port: it dials the masters that it is configured with.

pub mod app;
pub mod config;
pub mod history;
pub mod ledger;
pub mod output;
mod procfs;
mod run_kind;
pub mod runner;
mod session;
pub mod spool;
mod supervisor;

pub use self::{
    app::run,
    config::ExecutorConfig,
    ledger::OnStop,
    run_kind::{is_run_kind, run_kind_main},
    supervisor::{is_supervise, supervise_main},
};

//! The master: leads, schedules and serves.
//!
//! A term owns everything that a leader owns: the scheduler, the writer behind the fence, the executors'
//! sessions. Everybody else holds a cheap handle and asks. Reads go to the store and never to the
//! scheduler's memory, except for questions about why something waits.

mod app;
mod config;
mod definitions;
mod door;
mod election;
mod exit;
mod feed;
mod leader;
mod output;
mod rpc;

pub use app::{Ready, run};
pub use config::{MasterConfig, PORT, SettingsError};
pub use exit::{TermLost, exit_code};

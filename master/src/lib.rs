//! The master: leads, schedules and serves.
//!
//! A [`term`](leader) owns everything that a leader owns: the scheduler, the writer behind the fence, the executors'
//! sessions. Everybody else holds a cheap [`Handle`](leader::Handle) and asks. Reads go to the store and never to the
//! scheduler's memory, except for questions about why something waits.

pub mod app;
pub mod config;
mod definitions;
mod election;
mod feed;
mod leader;
mod output;
mod rpc;

pub use app::{Ready, run};
pub use config::MasterConfig;

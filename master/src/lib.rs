//! The master: leads, schedules and serves.
//!
//! A term owns everything that a leader owns: the scheduler, the writer behind the fence, the executors'
//! sessions. Everybody else holds a cheap handle and asks. Reads go to the store and never to the
//! scheduler's memory, except for questions about why something waits. Several masters elect the leader through etcd; the
//! others are standbys, which answer reads and pass on the rest.

mod app;
mod config;
mod database;
mod definitions;
mod door;
mod election;
mod exit;
mod feed;
mod fleet;
mod histories;
mod leader;
mod output;
mod peer;
mod role;
mod rpc;
mod settings;
mod standby;
mod verify;

pub use app::{Ready, run};
pub use config::{MasterConfig, PORT, SettingsError};
pub use election::settings::{EtcdSettings, EtcdSettingsError, EtcdTls};
pub use exit::{TermLost, exit_code};

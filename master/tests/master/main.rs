//! A real master in this process, on a free port and in a temporary folder, with clients and executors driven by hand.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod access;
mod cluster;
mod control;
mod executors;
mod history;
mod outage;
mod output;
mod program;
mod restart;
mod session;
mod settings;
mod stop;
mod support;
mod watch;

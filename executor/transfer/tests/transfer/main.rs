//! Transfers against real files and a real server; what arrived is compared row by row.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::allow_attributes,
    reason = "a test fails by panicking"
)]

mod databases;
mod dirty;
mod files;
mod large;
mod server;
mod settings;
mod streams;
mod support;

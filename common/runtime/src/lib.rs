//! What every Millrace program shares: configuration, telemetry, shutdown, clocks, tokens.
//!
//! For binaries only: here are the clock, the environment and the signals that the other crates must not touch.

pub mod chain;
pub mod clock;
pub mod config;
pub mod jitter;
pub mod shutdown;
pub mod telemetry;
pub mod timer;
pub mod token;

pub use chain::Chain;
pub use clock::SystemClock;

//! For tests of this crate and of others: a store in memory, and a small language whose transcripts are reviewed as text.

mod harness;
mod mutation;
mod script;
mod store;

pub use harness::Harness;
pub use mutation::Mutation;
pub use script::{command_count, outcome, run_script};
pub use store::MemoryStore;

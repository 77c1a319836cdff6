//! Inputs for the example workflows, made from a seed: the same seed gives the same bytes.
//!
//! Each generator also returns the rows that must arrive, so that a test compares what was ingested with what was made
//! and not with itself. Nothing here reads a clock or asks the system for randomness.

pub mod aoi;
pub mod random;
pub mod source;

//! The repository's rules, checked over its own files.
//!
//! Each test walks the tree, collects everything that breaks one rule, and fails with all of it: file, line, and what
//! to do. Exceptions are constants beside the rule, each with its reason; one that is no longer needed fails as well,
//! so that the lists only shrink. Starts no program but `cargo metadata` and `cargo tree`.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]

mod crates;
mod finding;
mod lexer;
mod sizes;
mod source;
mod sql;
mod tree;
mod words;

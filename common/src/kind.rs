//! The parameters (`with`) of each task kind: typed, documented, and the source of their JSON Schema.
//!
//! How a kind runs is the executor's business; what it accepts is known to everybody, so that a definition is checked
//! where it is written. A kind that an executor declares in its configuration has no entry here.

pub mod aoi;
pub mod backup;
pub mod datax;
pub mod shell;

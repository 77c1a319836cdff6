//! Bounds of a definition. Each says where it comes from; bounds of the scheduler are in the core.

/// Characters of a name; with a prefix it stays under the 191 characters that a utf8mb4 index can hold.
pub const NAME_CHARS_MAX: usize = 100;
/// Bytes of a definition document: a workflow of 10,000 tasks of 400 bytes.
pub const DOCUMENT_BYTES_MAX: usize = 4 << 20;
/// Tasks of a workflow written as a document.
pub const TASKS_MAX: usize = 10_000;
/// Depth of nesting in a document.
pub const NESTING_MAX: usize = 64;
/// Values that the expansion of aliases may add to a document: stops a YAML bomb within milliseconds.
pub const ALIAS_VALUES_MAX: usize = 20_000;
/// Values in a document altogether, aliases expanded: 10,000 tasks of 30 values.
pub const DOCUMENT_VALUES_MAX: usize = 400_000;
/// Problems reported for one document; more would not be read.
pub const PROBLEMS_MAX: usize = 200;
/// Bytes that a template may render to.
pub const TEMPLATE_OUTPUT_BYTES_MAX: usize = 64 << 10;
/// Steps that a template may take.
pub const TEMPLATE_FUEL: u64 = 10_000;
/// Bytes of the values that one attempt may hand on, as JSON text.
pub const VALUES_BYTES_MAX: usize = 64 << 10;
/// Characters of an idempotency key, so that an index of every supported database can hold it.
pub const IDEMPOTENCY_KEY_CHARS_MAX: usize = 191;
/// Bytes of the parameters of a run, as JSON text.
pub const PARAMS_BYTES_MAX: usize = 64 << 10;

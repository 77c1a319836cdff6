//! Every bound of this crate, with its unit and where the number comes from.

/// Bytes of a definition's text: far above any written by hand, far below what would hurt.
pub(crate) const JOB_TEXT_BYTES: usize = 4 * 1024 * 1024;
/// Records of a batch and of a transaction unless `batchSize` says otherwise; `DataX`'s value in code.
pub(crate) const BATCH_RECORDS: u64 = 2048;
/// Largest `batchSize` that is taken as written; above it memory would no longer be bounded by design.
pub(crate) const BATCH_RECORDS_MAX: u64 = 65_536;
/// Bytes of a batch unless `batchByteSize` says otherwise. Two batches are in memory at a time.
pub(crate) const BATCH_BYTES: u64 = 32 * 1024 * 1024;
/// Bytes of a batch at most, whatever the definition says.
pub(crate) const BATCH_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Reading tasks of one definition: tables after expansion, files after wildcards, channels of a stream.
pub(crate) const TASKS: usize = 10_000;
/// Directories below a `path` of txtfilereader; more is a loop of links.
pub(crate) const DIRECTORY_DEPTH: usize = 100;
/// Characters of one field of a text file, `safetySwitch` on; the value of the reader that `DataX` uses.
pub(crate) const FIELD_CHARS: usize = 100_000;
/// Characters of one record of a text file, `safetySwitch` off: a file without line ends must not fill the memory.
pub(crate) const RECORD_CHARS: usize = 64 * 1024 * 1024;
/// Bytes read from a file at a time.
pub(crate) const FILE_CHUNK_BYTES: usize = 64 * 1024;
/// Digits of a number that is converted; an exponent could otherwise ask for gigabytes.
pub(crate) const NUMBER_DIGITS: usize = 4_096;
/// Characters of one value that a dirty record shows in the log.
pub(crate) const SHOWN_VALUE_CHARS: usize = 1_000;
/// Notes that wait to be written to the log between two batches; more are counted, not kept.
pub(crate) const PENDING_NOTES: usize = 200;
/// Seconds to connect to a server; `DataX`'s login time-out.
pub(crate) const CONNECT_SECONDS: u64 = 15;
/// Seconds the server waits for a slow reader; the value of the JDBC driver for streamed results.
pub(crate) const NET_WRITE_SECONDS: u32 = 600;
/// Milliseconds that `SQLite` waits for another writer's lock.
pub(crate) const SQLITE_BUSY_MILLIS: u64 = 30_000;
/// Rows `SQLite`'s thread may be ahead of us.
pub(crate) const SQLITE_ROWS_AHEAD: usize = 256;
/// Rows of one INSERT statement: above it the gain over fewer rows is small.
pub(crate) const STATEMENT_ROWS: usize = 512;
/// Bytes of one INSERT statement: below the smallest usual `max_allowed_packet` (16 MiB).
pub(crate) const STATEMENT_BYTES: u64 = 4 * 1024 * 1024;
/// Placeholders of one `MySQL` statement; the protocol counts them in 16 bits.
pub(crate) const MYSQL_PARAMETERS: usize = 65_535;
/// Placeholders of one `SQLite` statement (`SQLITE_MAX_VARIABLE_NUMBER`).
pub(crate) const SQLITE_PARAMETERS: usize = 32_766;
/// Tries of a single row that lost a lock (deadlock, lock wait).
pub(crate) const ROW_TRIES: u32 = 3;

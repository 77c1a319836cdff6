//! Log lines: to standard error, as text or JSON, filtered by `MILLRACE_LOG`.
//!
//! The filter can be changed while the program runs; the subscriber is one for the process, and so is its filter.
//! Messages are constant; values are fields, and the names of those that several parts use are here.

use std::{
    env,
    io::{self, IsTerminal as _},
    sync::{Mutex, OnceLock, PoisonError},
};

use serde::Deserialize;
use thiserror::Error;
use tracing_subscriber::{
    EnvFilter, Registry,
    filter::ParseError,
    layer::SubscriberExt as _,
    reload,
    util::{SubscriberInitExt as _, TryInitError},
};

/// The environment variable that holds the filter, such as `info,millrace_executor=debug`.
pub const FILTER_VARIABLE: &str = "MILLRACE_LOG";

/// Names of the fields of log lines and spans.
pub mod field {
    /// Term of a leadership.
    pub const TERM: &str = "term";
    /// Name of a workflow.
    pub const WORKFLOW: &str = "workflow";
    /// Id of a run.
    pub const RUN_ID: &str = "run_id";
    /// Name of a task.
    pub const TASK: &str = "task";
    /// Id of an attempt.
    pub const ATTEMPT: &str = "attempt";
    /// Name of an executor.
    pub const EXECUTOR_ID: &str = "executor_id";
    /// Number of a session.
    pub const SESSION_ID: &str = "session_id";
    /// Name of a pool.
    pub const POOL: &str = "pool";
    /// State before a change.
    pub const STATE_FROM: &str = "state_from";
    /// State after a change.
    pub const STATE_TO: &str = "state_to";
    /// An error with its causes, rendered by [`Chain`](crate::Chain).
    pub const ERROR: &str = "error";
}

/// The form of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line, for collectors.
    Json,
}

/// Why logging could not be set up.
#[derive(Debug, Error)]
pub enum TelemetryError {
    /// The filter is malformed.
    #[error("{FILTER_VARIABLE} is not a filter such as `info` or `info,millrace_executor=debug`: {filter:?}")]
    Filter {
        /// The filter as it stands.
        filter: String,
        /// What is wrong with it.
        #[source]
        source: ParseError,
    },
    /// Something set up logging before.
    #[error("logging is set up already")]
    Twice(#[source] TryInitError),
}

/// Sets up logging for the whole program; `default_filter` is used where `MILLRACE_LOG` is absent or empty.
///
/// # Errors
/// Where the filter is malformed or logging was set up before.
pub fn init(default_filter: &str, format: Format) -> Result<(), TelemetryError> {
    #[expect(clippy::disallowed_methods, reason = "logging is set up before the configuration is read")]
    let text = env::var(FILTER_VARIABLE).ok().filter(|text| !text.trim().is_empty());
    let text = text.unwrap_or_else(|| default_filter.to_owned());
    let filter = parsed(&text)?;
    let (filter, handle) = reload::Layer::new(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr).with_ansi(wants_colours());
    let registry = tracing_subscriber::registry().with(filter);
    match format {
        Format::Text => registry.with(lines.with_target(false)).try_init(),
        Format::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    }
    .map_err(TelemetryError::Twice)?;
    // Set once: whoever comes second was refused above.
    let _ = FILTER.set(Filter { handle, current: Mutex::new(text.clone()), first: text });
    Ok(())
}

/// The filter of this process's log lines.
struct Filter {
    handle: reload::Handle<EnvFilter, Registry>,
    /// What it was at the start.
    first: String,
    current: Mutex<String>,
}

static FILTER: OnceLock<Filter> = OnceLock::new();

fn parsed(text: &str) -> Result<EnvFilter, TelemetryError> {
    let wrong = |source| TelemetryError::Filter { filter: text.to_owned(), source };
    EnvFilter::builder().parse(text).map_err(wrong)
}

/// Returns the filter with which the program was started; absent where logging is not set up.
#[must_use]
pub fn first_filter() -> Option<&'static str> {
    FILTER.get().map(|filter| &*filter.first)
}

/// Changes which log lines are written, or goes back to those of the start. Without logging there is nothing to do.
///
/// # Errors
/// Where the filter is malformed; the one in force stays.
pub fn set_filter(text: Option<&str>) -> Result<(), TelemetryError> {
    let Some(filter) = FILTER.get() else { return Ok(()) };
    let text = text.unwrap_or(&filter.first);
    let mut current = filter.current.lock().unwrap_or_else(PoisonError::into_inner);
    if *current == text {
        return Ok(());
    }
    let next = parsed(text)?;
    // The subscriber lives as long as the process.
    let _ = filter.handle.reload(next);
    text.clone_into(&mut current);
    tracing::info!(filter = text, "log lines are filtered anew");
    Ok(())
}

/// Colours are for terminals; in a file or a journal they would be rubbish between the words.
#[expect(clippy::disallowed_methods, reason = "the common switch of all programs, no setting of this one")]
fn wants_colours() -> bool {
    io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

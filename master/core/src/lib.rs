//! The scheduling decisions of Millrace: no IO, no clock, no randomness, no `async`, no locks.
//!
//! Whoever owns a [`Scheduler`] feeds it what happens and does what it says, in this order:
//!
//! ```text
//! loop {
//!     wait for inputs, or until scheduler.poll_timeout()
//!     for each input that is there: scheduler.handle(now, input)
//!     scheduler.handle_timeout(now)
//!     while let Some(batch) = scheduler.take_batch() {
//!         let committed = store.commit(batch)?;      // an error ends the term
//!         do committed.effects                       // never before
//!     }
//! }
//! ```
//!
//! Invariants kept here, by their numbers in ARCHITECTURE.md: I3 (one live attempt per task instance), I4 (a start only after
//! its assignment is durable), I7 and I8 (one run per logical time and per key), I9 (final states stay), I11 (trigger rules),
//! I15 (limits). [`check`] says them a second time, apart from the code that keeps them.

mod attempt;
mod batch;
pub mod check;
mod explain;
mod greeting;
mod ids;
mod input;
pub mod lease;
mod limits;
mod liveness;
mod placement;
mod questions;
mod queue;
mod refusal;
mod restore;
mod run;
mod scheduler;
mod settings;
mod snapshot;
mod standing;
mod state;
mod task;
mod timers;
pub mod trigger;
mod workflow;

#[cfg(feature = "testing")]
pub mod testing;

pub use batch::{
    Alarm, Answer, AttemptEnd, Batch, Change, Effect, Message, Proof, RejectReason, RunCreated, Start,
    Trigger, Verdict,
};
pub use explain::{ExecutorSummary, Explanation, Reason, TaskReason, WorkCount};
pub use input::{EndedRun, Held, Hello, Input, Report, Request, RequestId, StartRun};
pub use limits::Limits;
pub use refusal::Refusal;
pub use restore::{RestoreError, Restored};
pub use scheduler::Scheduler;
pub use settings::{
    GivenSetting, RefusedValue, SetSetting, SettingChanged, SettingRow, SettingValue, Settings,
    SettingsAccount,
};
pub use snapshot::{LiveRow, RunRow, Snapshot, StandingRow, TaskRow, UnreadableRow, WorkflowRow};
pub use standing::{CloseExecutor, Closed, ConfirmLost, ExecutorDetail, ExecutorStanding, PlacedAttempt};

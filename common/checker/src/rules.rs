//! The trigger rules, word by word from the table that users of Airflow know, over the upstream states themselves.
//!
//! Apart from the core's own evaluation, which works on counts: what checks the core must not share its code.

use millrace_common::{
    state::TaskState::{self, Failed, Skipped, Success, UpstreamFailed},
    workflow::TriggerRule::{self, *},
};

/// What a rule says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Says {
    /// The task may start.
    Run,
    /// It is not known yet.
    Wait,
    /// It will never run and is in this state.
    Become(TaskState),
}

/// Every rule.
pub const RULES: [(&str, TriggerRule); 12] = [
    ("all_success", AllSuccess),
    ("all_failed", AllFailed),
    ("all_done", AllDone),
    ("all_done_min_one_success", AllDoneMinOneSuccess),
    ("all_skipped", AllSkipped),
    ("one_failed", OneFailed),
    ("one_success", OneSuccess),
    ("one_done", OneDone),
    ("none_failed", NoneFailed),
    ("none_failed_min_one_success", NoneFailedMinOneSuccess),
    ("none_skipped", NoneSkipped),
    ("always", Always),
];

/// Says what becomes of a task whose upstream tasks are in these states.
#[must_use]
pub fn says(rule: TriggerRule, upstream: &[TaskState]) -> Says {
    // What a cancelled task would have made is missing, as after a failure.
    let is_failed = |state: &TaskState| matches!(state, Failed | UpstreamFailed | TaskState::Cancelled);
    let all = |wanted: TaskState| upstream.iter().all(|state| *state == wanted);
    let any = |wanted: TaskState| upstream.contains(&wanted);
    let any_failed = upstream.iter().any(is_failed);
    let all_failed = upstream.iter().all(is_failed);
    let any_failed_itself = any(Failed) || any(TaskState::Cancelled);
    let ended = upstream.iter().all(|state| state.is_final());
    let runs = upstream.is_empty()
        || match rule {
            AllSuccess => all(Success),
            AllFailed => all_failed,
            AllDone => ended,
            AllDoneMinOneSuccess => ended && any(Success) && !any(Skipped),
            AllSkipped => all(Skipped),
            OneFailed => any_failed,
            OneSuccess => any(Success),
            OneDone => any(Success) || any_failed_itself,
            NoneFailed => ended && !any_failed,
            NoneFailedMinOneSuccess => ended && !any_failed && any(Success),
            NoneSkipped => ended && !any(Skipped),
            Always => true,
        };
    let becomes = match rule {
        AllSuccess | NoneFailed | NoneFailedMinOneSuccess if any_failed => Some(UpstreamFailed),
        AllSuccess | NoneFailedMinOneSuccess if ended => Some(Skipped),
        AllFailed if any(Success) || any(Skipped) => Some(Skipped),
        AllDoneMinOneSuccess | NoneSkipped if any(Skipped) => Some(Skipped),
        AllDoneMinOneSuccess if ended => Some(UpstreamFailed),
        AllSkipped if any(Success) || any_failed => Some(Skipped),
        OneFailed | OneDone if ended => Some(Skipped),
        OneSuccess if all(Skipped) => Some(Skipped),
        OneSuccess if ended => Some(UpstreamFailed),
        _ => None,
    };
    if runs { Says::Run } else { becomes.map_or(Says::Wait, Says::Become) }
}

//! From what the core commits to what the checker reads.

use millrace_checker::{End, Fact, Proof, Skipped};
use millrace_core::{Change, Proof as CoreProof, Trigger};

pub(crate) fn fact_of(change: &Change) -> Fact {
    match change {
        Change::WorkflowApplied { version, source, .. } => {
            Fact::WorkflowApplied { version: *version, source: source.clone() }
        }
        Change::CursorMoved { workflow, cursor, skipped } => Fact::CursorMoved {
            workflow: workflow.clone(),
            cursor: *cursor,
            skipped: skipped.map(|over| Skipped { first: over.first.end, last: over.last.end }),
        },
        Change::RunCreated(created) => Fact::RunCreated {
            run: created.run,
            workflow: created.workflow.clone(),
            version: created.version,
            fired_for: (created.trigger == Trigger::Schedule).then_some(created.interval.end),
            key: created.idempotency_key.as_deref().map(ToOwned::to_owned),
        },
        Change::RunMoved { run, from, to, .. } => Fact::RunMoved { run: *run, from: *from, to: *to },
        Change::RunEnding { run, .. } => Fact::RunEnding { run: *run },
        Change::TaskMoved { instance, from, to, .. } => {
            Fact::TaskMoved { instance: *instance, from: *from, to: *to }
        }
        Change::AttemptAssigned { attempt, executor, spool, .. } => {
            Fact::AttemptAssigned { attempt: *attempt, executor: executor.clone(), spool: *spool }
        }
        Change::AttemptMoved { attempt, .. } => Fact::AttemptMoved { attempt: *attempt },
        Change::AttemptEnded { attempt, end, .. } => Fact::AttemptEnded {
            attempt: *attempt,
            end: End {
                state: end.state,
                exit_code: end.exit_code,
                is_skipped: end.is_skipped,
                proof: match end.proof {
                    CoreProof::OrphanTimePassed => Proof::TimePassed,
                    CoreProof::Reported
                    | CoreProof::Refused
                    | CoreProof::Rebooted
                    | CoreProof::CleanSlate
                    | CoreProof::Operator => Proof::Seen,
                },
            },
        },
        Change::SettingChanged(changed) => Fact::SettingChanged {
            name: changed.name.to_string(),
            value: changed.now.as_ref().and_then(|row| Some(row.value.as_ref()?.text.to_string())),
        },
        Change::ExecutorClosed { executor, .. } => Fact::ExecutorClosed { executor: executor.clone() },
        Change::ExecutorOpened { executor, .. } | Change::ExecutorForgotten { executor, .. } => {
            Fact::ExecutorOpened { executor: executor.clone() }
        }
    }
}

/// Names what a change shows to have happened: a check of what never happens proves nothing.
pub(crate) fn label(change: &Change) -> Option<String> {
    match change {
        Change::CursorMoved { skipped: Some(_), .. } => Some("intervals passed over".to_owned()),
        Change::RunCreated(created) => match created.trigger {
            Trigger::Schedule => Some("run by schedule".to_owned()),
            Trigger::Manual => Some("run by hand".to_owned()),
            Trigger::Retry(_) => Some("run of a retry".to_owned()),
        },
        Change::RunMoved { from, to, .. } => Some(format!("run {from} -> {to}")),
        Change::RunEnding { reason, .. } => Some(format!("run ending: {reason}")),
        Change::TaskMoved { from, to, .. } => Some(format!("task {from} -> {to}")),
        Change::AttemptEnded { from, end, .. } => {
            Some(format!("attempt {from} -> {} by {:?}", end.state, end.proof))
        }
        Change::SettingChanged(changed) if changed.refusal.is_some() => Some("setting refused".to_owned()),
        Change::SettingChanged(_) => Some("setting changed".to_owned()),
        Change::ExecutorClosed { standing, .. } => Some(format!("executor {}", standing.closed)),
        Change::ExecutorOpened { .. } => Some("executor opened".to_owned()),
        Change::ExecutorForgotten { .. }
        | Change::WorkflowApplied { .. }
        | Change::CursorMoved { .. }
        | Change::AttemptAssigned { .. }
        | Change::AttemptMoved { .. } => None,
    }
}

//! The rows that a folded batch becomes, by shape.
//!
//! Updates go before inserts, so that the end of one attempt makes room for the next in the index of live ones.

use millrace_common::{id::TaskName, state::TaskState, term::Term};
use millrace_core::SettingRow;

use super::{
    fold::{AttemptNet, Fold, RunNet, TaskNet},
    shape::{
        ATTEMPT_ENDED, ATTEMPT_MOVED, ATTEMPT_NEW, RUN_CHANGED, RUN_NEW, SETTING_CHANGED, SETTING_GONE,
        SETTING_HISTORY, SETTING_NEW, SKIP_NEW, STANDING_GONE, STANDING_NEW, TASK_CHANGED, TASK_NEW,
        VERSION_NEW, WORKFLOW_CHANGED, WORKFLOW_NEW,
    },
};
use crate::{
    bulk::{Rows, Statement},
    dialect::Cell,
    row::trigger_code,
};

/// Which transaction writes, as the rows remember it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stamp {
    pub(crate) term: Term,
    pub(crate) seq: u64,
}

/// Returns the statements that make a batch durable, in the order in which they must run.
pub(crate) fn statements(fold: &Fold<'_>, stamp: Stamp) -> Vec<Statement> {
    let mut rows = workflow_rows(fold, stamp);
    rows.extend(setting_rows(fold, stamp));
    rows.extend(run_rows(fold));
    rows.extend(attempt_updates(fold, stamp));
    rows.extend(task_rows(fold));
    rows.push(attempt_inserts(fold, stamp));
    rows.extend(standing_rows(fold));
    rows.into_iter().flat_map(Rows::into_statements).collect()
}

fn workflow_rows(fold: &Fold<'_>, stamp: Stamp) -> Vec<Rows> {
    let mut versions = Rows::new(&VERSION_NEW);
    for version in &fold.versions {
        let names: Vec<&TaskName> = version.workflow.tasks.iter().map(|task| &task.name).collect();
        versions.push([
            (&version.workflow.name).into(),
            version.version.into(),
            version.at.into(),
            task_names(&names).as_str().into(),
            version.source.into(),
        ]);
    }
    let mut new = Rows::new(&WORKFLOW_NEW);
    let mut changed = Rows::new(&WORKFLOW_CHANGED);
    for (name, net) in &fold.workflows {
        match net.versions {
            Some((1, last)) => new.push([(*name).into(), last.into(), net.cursor.into()]),
            versions => {
                let (first, last) = versions.unzip();
                changed.push([(*name).into(), first.into(), last.into(), net.cursor.into()]);
            }
        }
    }
    let mut skips = Rows::new(&SKIP_NEW);
    for (position, (workflow, skipped)) in (0_u32..).zip(&fold.skips) {
        skips.push([
            (*workflow).into(),
            stamp.term.0.into(),
            stamp.seq.into(),
            position.into(),
            skipped.count.into(),
            skipped.is_exact.into(),
            skipped.first.start.into(),
            skipped.first.end.into(),
            skipped.last.start.into(),
            skipped.last.end.into(),
        ]);
    }
    vec![versions, new, changed, skips]
}

fn setting_rows(fold: &Fold<'_>, stamp: Stamp) -> [Rows; 4] {
    let mut new = Rows::new(&SETTING_NEW);
    let mut changed = Rows::new(&SETTING_CHANGED);
    let mut gone = Rows::new(&SETTING_GONE);
    for (name, net) in &fold.settings {
        match (net.before, net.now) {
            (None, None) => {}
            (None, Some(row)) => new.push(setting_cells(row)),
            (Some(_), Some(row)) => changed.push(setting_cells(row)),
            (Some(_), None) => gone.push([(*name).into()]),
        }
    }
    let mut history = Rows::new(&SETTING_HISTORY);
    for (position, change) in (0_u32..).zip(&fold.setting_changes) {
        let old = change.before.as_ref().and_then(|row| row.value.as_ref()).map(|value| &value.text);
        history.push([
            (&change.name).into(),
            stamp.term.0.into(),
            stamp.seq.into(),
            position.into(),
            change.at.into(),
            (&change.by).into(),
            old.into(),
            change.given.as_ref().into(),
            change.refusal.as_ref().into(),
        ]);
    }
    [new, changed, gone, history]
}

fn setting_cells(row: &SettingRow) -> [Cell; 9] {
    let (value, refused) = (row.value.as_ref(), row.refused.as_ref());
    [
        (&row.name).into(),
        value.map(|value| &value.text).into(),
        value.map(|value| &value.by).into(),
        value.map(|value| value.at).into(),
        refused.map(|refused| &refused.text).into(),
        refused.map(|refused| &refused.reason).into(),
        refused.map(|refused| &refused.by).into(),
        refused.map(|refused| refused.at).into(),
        row.revision.into(),
    ]
}

/// Returns names as a JSON array; their alphabet needs no escapes.
fn task_names(names: &[&TaskName]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    format!("[{}]", quoted.join(","))
}

fn run_rows(fold: &Fold<'_>) -> [Rows; 2] {
    let mut new = Rows::new(&RUN_NEW);
    let mut changed = Rows::new(&RUN_CHANGED);
    for (run, net) in &fold.runs {
        let state = net.moves.map(|moves| moves.to.code());
        let (ending, ending_reason) = net.ending.map(|(state, reason)| (state.code(), reason)).unzip();
        let RunNet { created, moves, started_at, ended_at, reason, .. } = net;
        let Some(created) = created else {
            changed.push([
                (*run).into(),
                moves.map(|moves| moves.from.code()).into(),
                state.into(),
                (*started_at).into(),
                (*ended_at).into(),
                (*reason).into(),
                ending.into(),
                ending_reason.into(),
            ]);
            continue;
        };
        let (code, retry_of) = trigger_code(created.trigger);
        new.push([
            (*run).into(),
            (&created.workflow).into(),
            created.version.into(),
            code.into(),
            retry_of.into(),
            created.interval.start.into(),
            created.interval.end.into(),
            (&created.params).into(),
            created.idempotency_key.as_ref().into(),
            created.at.into(),
            state.into(),
            (*started_at).into(),
            (*ended_at).into(),
            (*reason).into(),
            ending.into(),
            ending_reason.into(),
        ]);
    }
    [changed, new]
}

fn task_rows(fold: &Fold<'_>) -> [Rows; 2] {
    let mut new = Rows::new(&TASK_NEW);
    let mut changed = Rows::new(&TASK_CHANGED);
    for (instance, net) in &fold.tasks {
        let key: [Cell; 2] = [instance.run.into(), instance.index.into()];
        let [run, index] = key;
        let TaskNet { moves, moved_at, started_at, retry_at, values, attempts, failures, losses, rejections } =
            net;
        let (from, to) = moves.map(|moves| (moves.from, moves.to.code())).unzip();
        if from == Some(TaskState::Waiting) {
            new.push([
                run,
                index,
                to.into(),
                (*moved_at).into(),
                (*started_at).into(),
                (*retry_at).into(),
                attempts.unwrap_or(0).into(),
                (*failures).into(),
                (*losses).into(),
                (*rejections).into(),
                (*values).into(),
            ]);
        } else {
            changed.push([
                run,
                index,
                from.map(TaskState::code).into(),
                to.into(),
                (*moved_at).into(),
                (*started_at).into(),
                (*retry_at).into(),
                (*attempts).into(),
                (*failures).into(),
                (*losses).into(),
                (*rejections).into(),
                (*values).into(),
            ]);
        }
    }
    [changed, new]
}

/// The columns of an end: `ended_at` to `proof`.
fn end_cells(net: &AttemptNet<'_>, stamp: Stamp) -> [Cell; 10] {
    let Some(end) = net.end else { return [const { Cell::Null }; 10] };
    [
        end.ended_at.into(),
        stamp.term.0.into(),
        stamp.seq.into(),
        end.exit_code.map(i64::from).into(),
        Some(&end.reason).filter(|reason| !reason.is_empty()).into(),
        end.values.as_ref().into(),
        end.is_skipped.into(),
        end.is_permanent.into(),
        end.log_bytes.into(),
        end.proof.code().into(),
    ]
}

fn attempt_updates(fold: &Fold<'_>, stamp: Stamp) -> [Rows; 2] {
    let mut moved = Rows::new(&ATTEMPT_MOVED);
    let mut ended = Rows::new(&ATTEMPT_ENDED);
    for (attempt, net) in fold.attempts.iter().filter(|(_, net)| net.assigned.is_none()) {
        let Some(moves) = net.moves else { continue };
        let key: [Cell; 3] =
            [attempt.instance.run.into(), attempt.instance.index.into(), attempt.number.into()];
        let [run, index, number] = key;
        let (from, to): (Cell, Cell) = (moves.from.code().into(), moves.to.code().into());
        let Some(end) = net.end else {
            moved.push([run, index, number, from, to, net.moved_at.into(), net.started_at.into()]);
            continue;
        };
        let started_at = end.started_at.or(net.started_at);
        let [ended_at, term, seq, exit_code, reason, values, is_skipped, is_permanent, log_bytes, proof] =
            end_cells(net, stamp);
        ended.push([
            run,
            index,
            number,
            from,
            to,
            net.moved_at.into(),
            started_at.into(),
            ended_at,
            term,
            seq,
            exit_code,
            reason,
            values,
            is_skipped,
            is_permanent,
            log_bytes,
            proof,
        ]);
    }
    [ended, moved]
}

/// What changed is written anew: whatever was there goes first.
fn standing_rows(fold: &Fold<'_>) -> [Rows; 2] {
    let mut gone = Rows::new(&STANDING_GONE);
    let mut new = Rows::new(&STANDING_NEW);
    for (executor, standing) in &fold.standings {
        gone.push([(*executor).into()]);
        if let Some(standing) = standing {
            new.push([
                (*executor).into(),
                standing.closed.code().into(),
                (&standing.reason).into(),
                (&standing.by).into(),
                standing.since.into(),
            ]);
        }
    }
    [gone, new]
}

fn attempt_inserts(fold: &Fold<'_>, stamp: Stamp) -> Rows {
    let mut new = Rows::new(&ATTEMPT_NEW);
    for (attempt, net) in &fold.attempts {
        let (Some(assigned), Some(moves)) = (&net.assigned, net.moves) else { continue };
        let started_at = net.end.and_then(|end| end.started_at).or(net.started_at);
        let [ended_at, term, seq, exit_code, reason, values, is_skipped, is_permanent, log_bytes, proof] =
            end_cells(net, stamp);
        new.push([
            attempt.instance.run.into(),
            attempt.instance.index.into(),
            attempt.number.into(),
            moves.to.code().into(),
            assigned.executor.into(),
            assigned.spool.into(),
            assigned.machine.into(),
            assigned.at.into(),
            stamp.term.0.into(),
            stamp.seq.into(),
            net.moved_at.into(),
            started_at.into(),
            ended_at,
            term,
            seq,
            exit_code,
            reason,
            values,
            is_skipped,
            is_permanent,
            log_bytes,
            proof,
        ]);
    }
    new
}

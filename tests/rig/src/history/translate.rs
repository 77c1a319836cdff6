//! From the database's notes to the facts that the checker reads.
//!
//! The store writes the net difference of a transaction, so the steps in between are put back here, in an order in which
//! they can have happened: what ended before what began, upstream before downstream. Where there is no such order the
//! checker says so.

mod cell;
mod transaction;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use millrace_checker::{Event, Fact, Skipped};
use millrace_common::{
    definition,
    id::{ExecutorName, RunId, SpoolId, WorkflowName},
    term::Term,
    workflow::Workflow,
};

use self::{cell::Cells, transaction::Transaction};
use super::audit::Row;

/// Returns the events, on the boot-time clock, and what does not fit.
pub(super) fn events(rows: &[Row], slots: u32, wall_to_boot: i64) -> (Vec<(u64, Event)>, Vec<String>) {
    let mut translator = Translator { slots, wall_to_boot, ..Translator::default() };
    for row in rows {
        if let Err(error) = translator.take(row) {
            translator.problems.push(format!("a note about {} at {}: {error:#}", row.what, row.at));
        }
    }
    translator.finish_transaction();
    (translator.events, translator.problems)
}

#[derive(Debug, Default)]
struct Translator {
    slots: u32,
    wall_to_boot: i64,
    events: Vec<(u64, Event)>,
    problems: Vec<String>,
    /// What was committed in the first term before the notes began.
    base: Option<(Term, u64)>,
    /// The one that is being collected.
    open: Option<Transaction>,
    known: Known,
}

/// What earlier transactions have told.
#[derive(Debug, Default)]
pub(super) struct Known {
    workflows: BTreeMap<(WorkflowName, u32), Arc<Workflow>>,
    runs: BTreeMap<RunId, (WorkflowName, u32)>,
    offered: BTreeSet<(ExecutorName, SpoolId)>,
}

impl Known {
    fn workflow_of(&self, run: RunId) -> anyhow::Result<&Workflow> {
        let key = self.runs.get(&run).with_context(|| format!("run {run} is not known"))?;
        let found = self
            .workflows
            .get(key)
            .with_context(|| format!("version {} of {} is not known", key.1, key.0))?;
        Ok(found)
    }
}

impl Translator {
    fn time(&self, row: &Row) -> u64 {
        u64::try_from(row.at + self.wall_to_boot).unwrap_or(0)
    }

    fn take(&mut self, row: &Row) -> anyhow::Result<()> {
        match row.what.as_str() {
            "base" => self.on_base(row),
            "leadership" => self.on_fence(row),
            _ => {
                let Some(open) = &mut self.open else { bail!("it was written before anybody led") };
                if row.tx != open.tx {
                    bail!("it was written in transaction {} without the fence", row.tx);
                }
                open.take(row, &mut self.known)
            }
        }
    }

    fn on_base(&mut self, row: &Row) -> anyhow::Result<()> {
        let cells = Cells(&row.new);
        let (term, holder) = (Term(cells.number("term")?), cells.text("holder")?.to_owned());
        self.base = Some((term, cells.number("seq")?));
        self.events.push((self.time(row), Event::Claimed { term, holder }));
        Ok(())
    }

    fn on_fence(&mut self, row: &Row) -> anyhow::Result<()> {
        self.finish_transaction();
        let (old, new) = (row.old.as_ref().context("the fence row is made anew")?, Cells(&row.new));
        let (term, seq) = (Term(new.number("term")?), new.number::<u64>("seq")?);
        let at = self.time(row);
        if Cells(old).number::<u64>("term")? != term.0 {
            let holder = new.text("holder")?.to_owned();
            self.events.push((at, Event::Claimed { term, holder }));
            self.open = Some(Transaction::claim(row.tx, at));
            return Ok(());
        }
        // The checker counts from the first that it sees of a term.
        let before = self.base.filter(|(first, _)| *first == term).map_or(0, |(_, seq)| seq);
        self.open = Some(Transaction::new(row.tx, at, term, seq.saturating_sub(before)));
        Ok(())
    }

    fn finish_transaction(&mut self) {
        let Some(open) = self.open.take() else { return };
        let at = open.at;
        for (executor, spool) in open.spools() {
            if self.known.offered.insert((executor.clone(), spool)) {
                self.events.push((at, Event::Offered { executor, spool, slots: self.slots }));
            }
        }
        match open.event(&self.known) {
            Ok(event) => self.events.extend(event.map(|event| (at, event))),
            Err(error) => self.problems.push(format!("a transaction at {at}: {error:#}")),
        }
    }
}

/// Reads a definition that was put in force.
fn applied(row: &Row, known: &mut Known) -> anyhow::Result<Fact> {
    let cells = Cells(&row.new);
    let (version, source) = (cells.number("version")?, cells.text("source")?);
    let workflow =
        definition::parse(source).map_err(|problem| anyhow::anyhow!("a definition is none: {problem}"))?;
    known.workflows.insert((workflow.name.clone(), version), Arc::new(workflow));
    Ok(Fact::WorkflowApplied { version, source: source.into() })
}

/// Reads how far a schedule was served, and what was passed over.
fn cursor_moved(row: &Row, skips: &BTreeMap<WorkflowName, Vec<Skipped>>) -> anyhow::Result<Vec<Fact>> {
    let cells = Cells(&row.new);
    let Some(cursor) = cells.opt_time("cursor_at")? else { return Ok(Vec::new()) };
    if row.old.as_ref().map(Cells).map(|old| old.opt_time("cursor_at")).transpose()?.flatten() == Some(cursor)
    {
        return Ok(Vec::new());
    }
    let workflow: WorkflowName = cells.parsed("name")?;
    let fact = |skipped| Fact::CursorMoved { workflow: workflow.clone(), cursor, skipped };
    Ok(match skips.get(&workflow) {
        Some(skips) => skips.iter().map(|skipped| fact(Some(*skipped))).collect(),
        None => vec![fact(None)],
    })
}

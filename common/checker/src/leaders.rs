//! Who leads, who may write and send, and whether anybody does: I1, I2, I14, L2.

use std::collections::BTreeMap;

use millrace_common::term::Term;

use crate::{
    checker::{Checker, Waiver},
    history::Answer,
};

/// What the claims and transactions have told.
#[derive(Debug, Default)]
pub(crate) struct Leading {
    term: Term,
    seq: u64,
    holders: BTreeMap<Term, String>,
}

impl Checker {
    pub(crate) fn on_claimed(&mut self, term: Term, holder: &str) {
        let last = self.leading.term;
        self.ensure(term > last, "I1", || format!("{holder} claims term {term} after term {last}"));
        let earlier = self.leading.holders.insert(term, holder.to_owned());
        self.ensure(earlier.is_none(), "I1", || format!("{holder} claims term {term} of {earlier:?}"));
        (self.leading.term, self.leading.seq) = (term, 0);
    }

    pub(crate) fn on_committed(&mut self, term: Term, seq: u64) {
        let Leading { term: last, seq: before, .. } = self.leading;
        self.ensure(term == last, "I2", || format!("term {term} writes after the claim of term {last}"));
        if term == last {
            let is_next = seq.checked_sub(1) == Some(before) || (self.rules.is_sparse && seq >= before);
            self.ensure(is_next, "I2", || format!("transaction {seq} of term {term} follows {before}"));
            self.leading.seq = seq;
        }
    }

    pub(crate) fn on_sent(&mut self, term: Term, checked_at: u64, authority_until: u64) {
        let holds = checked_at < authority_until || self.is_waived(Waiver::LeasesLie);
        self.ensure(holds, "I14", || {
            let late = checked_at.saturating_sub(authority_until);
            format!("the leader of term {term} sends {late} us after its authority")
        });
    }

    pub(crate) fn on_answered(&mut self, request: u64, answer: &Answer) {
        if let Some(asked) = self.pending.remove(&request) {
            self.check_answer(request, asked);
        }
        match answer {
            Answer::RunStarted { workflow, key, run } => self.on_acknowledged(workflow, key.as_deref(), *run),
            Answer::RunMoved { run, state } => self.on_told(*run, *state),
            Answer::Other => {}
        }
    }

    fn check_answer(&mut self, request: u64, asked: u64) {
        let Some(healed_at) = self.healed_at else { return };
        let (waited, most) = (self.at.saturating_sub(asked.max(healed_at)), self.rules.answers_within);
        self.ensure(waited <= most, "L2", || {
            format!("request {request} waits {} s in a healthy cluster", waited / 1_000_000)
        });
    }

    pub(crate) fn check_answers(&mut self) {
        for (request, asked) in std::mem::take(&mut self.pending) {
            self.check_answer(request, asked);
        }
    }
}

//! The order of commits: claims in the order in which they followed each other, transactions within them.

use std::collections::{BTreeMap, BTreeSet};

use millrace_common::term::Term;
use millrace_store::query::ClaimRow;

/// Where a transaction stands among all. A claim comes before the transactions of its term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Position {
    /// Index of the claim in whose time it was written.
    claim: usize,
    /// Its number; 0 for the claim itself.
    seq: u64,
    /// Whether it was written under the term of that claim, or under an earlier one that was over.
    is_late: bool,
}

/// The claims, in their order.
#[derive(Debug)]
pub(super) struct Order {
    /// Each term with who claimed it; absent where that is not recorded any more.
    pub(super) claims: Vec<(Term, Option<ClaimRow>)>,
    index: BTreeMap<Term, usize>,
    /// The last transaction of a term, where a claim has noted it.
    last: BTreeMap<Term, u64>,
}

impl Order {
    /// Puts claims in the order in which each says which one it followed. `written` are the terms of what was written:
    /// those from before the first claim that is recorded are taken as claimed.
    pub(super) fn of(rows: &[ClaimRow], written: &BTreeSet<Term>) -> Self {
        let mut chain = chained(rows);
        let first = chain.iter().map(|row| row.term).min();
        let recorded: BTreeSet<Term> = rows.iter().map(|row| row.term).collect();
        let followed = rows.iter().map(|row| row.after.0);
        let known = written.iter().copied().filter(|term| first.is_none_or(|first| *term < first));
        let unrecorded: BTreeSet<Term> =
            followed.chain(known).filter(|term| term.0 > 0 && !recorded.contains(term)).collect();
        let mut claims: Vec<(Term, Option<ClaimRow>)> = Vec::new();
        for row in chain.drain(..) {
            claims.push((row.term, Some(row)));
        }
        for term in unrecorded {
            // Before the one that says that it followed it, or else before the first later one.
            let place =
                claims.iter().position(|(_, row)| row.as_ref().is_some_and(|row| row.after.0 == term));
            let place = place.or_else(|| claims.iter().position(|(later, _)| *later > term));
            claims.insert(place.unwrap_or(claims.len()), (term, None));
        }
        let index = (0..).zip(&claims).map(|(at, (term, _))| (*term, at)).collect();
        let last = rows.iter().map(|row| row.after).collect();
        Self { claims, index, last }
    }

    /// Returns where a claim stands.
    pub(super) const fn of_claim(index: usize) -> Position {
        Position { claim: index, seq: 0, is_late: false }
    }

    /// Returns where a transaction stands. One of a term that was over comes after the claim that ended it.
    pub(super) fn position(&self, (term, seq): (Term, u64)) -> Position {
        let is_late = self.last.get(&term).is_some_and(|last| seq > *last);
        match self.index.get(&term) {
            Some(at) if is_late => Position { claim: at + 1, seq: 0, is_late },
            Some(at) => Position { claim: *at, seq, is_late },
            // Nobody has claimed it: it is last, where the checker finds another term in force.
            None => Position { claim: self.claims.len(), seq, is_late: true },
        }
    }
}

/// Returns claims so that each comes right after the one that it followed.
fn chained(rows: &[ClaimRow]) -> Vec<ClaimRow> {
    let terms: BTreeSet<Term> = rows.iter().map(|row| row.term).collect();
    let mut followers: BTreeMap<Term, Vec<&ClaimRow>> = BTreeMap::new();
    for row in rows {
        followers.entry(row.after.0).or_default().push(row);
    }
    let mut starts: Vec<&ClaimRow> = rows.iter().filter(|row| !terms.contains(&row.after.0)).collect();
    starts.sort_by_key(|row| (row.at, row.term));
    let mut chain: Vec<ClaimRow> = Vec::new();
    let mut seen = BTreeSet::new();
    // What follows itself in a circle is reached from nowhere: it is taken at the end.
    for start in starts.into_iter().chain(rows) {
        let mut next = vec![start];
        while let Some(row) = next.pop().filter(|row| seen.insert(row.term)) {
            chain.push(row.clone());
            next.extend(followers.get(&row.term).into_iter().flatten());
        }
    }
    chain
}

#[cfg(test)]
mod tests {
    use millrace_common::time::Timestamp;

    use super::*;

    fn claim(term: u64, after: (u64, u64)) -> ClaimRow {
        ClaimRow {
            term: Term(term),
            holder: "m".into(),
            at: Timestamp::from_micros(0),
            after: (Term(after.0), after.1),
        }
    }

    fn order(rows: &[ClaimRow], written: &[u64]) -> Order {
        Order::of(rows, &written.iter().copied().map(Term).collect())
    }

    fn terms(order: &Order) -> Vec<u64> {
        order.claims.iter().map(|(term, _)| term.0).collect()
    }

    #[test]
    fn claims_follow_each_other_as_they_say() {
        let rows = [claim(9, (5, 1)), claim(3, (0, 0)), claim(5, (3, 7))];
        assert_eq!(terms(&order(&rows, &[])), [3, 5, 9]);
        let falling = [claim(5, (0, 0)), claim(3, (5, 2))];
        assert_eq!(terms(&order(&falling, &[])), [5, 3], "as they say, not as they should");
        let circle = [claim(5, (3, 2)), claim(3, (5, 2))];
        assert_eq!(terms(&order(&circle, &[])).len(), 2);
    }

    #[test]
    fn terms_from_before_the_record_are_taken_as_claimed_and_later_ones_are_not() {
        assert_eq!(terms(&order(&[claim(5, (3, 7))], &[2, 3, 9])), [2, 3, 5]);
        assert_eq!(terms(&order(&[], &[2, 3])), [2, 3]);
    }

    #[test]
    fn a_transaction_after_the_last_one_of_its_term_is_late() {
        let order = order(&[claim(3, (0, 0)), claim(5, (3, 7))], &[]);
        assert!(order.position((Term(3), 7)) < Order::of_claim(1));
        assert!(order.position((Term(3), 8)) > Order::of_claim(1));
        assert!(order.position((Term(3), 8)) < order.position((Term(5), 1)));
        assert!(order.position((Term(4), 1)) > order.position((Term(5), 100)));
    }
}

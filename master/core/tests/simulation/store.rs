//! The database: one sequence of fenced transactions, of which some fail and some leave it unknown whether they did.

use millrace_common::term::Term;
use millrace_core::{Batch, Change, Effect, testing::MemoryStore};

/// What happens to a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Commits,
    Fails,
    /// It commits, and nobody hears of it.
    CommitsUnheard,
}

/// How a commit ended for the leader.
#[derive(Debug)]
pub(crate) enum Committed {
    Done(Vec<Effect>),
    /// The leader does not know, or knows that it failed, or that it is deposed: its term is over.
    TermEnds,
}

/// The store of the cluster.
#[derive(Debug, Default)]
pub(crate) struct Store {
    pub(crate) memory: MemoryStore,
    /// A planted fault: the term of a transaction is not compared.
    pub(crate) forgets_fence: bool,
}

impl Store {
    /// Commits what a leader decided; also returns the changes that are durable now.
    ///
    /// # Errors
    /// Where the store refuses what the present leader decided: the core is wrong.
    pub(crate) fn commit(&mut self, batch: Batch, fate: Fate) -> Result<(Vec<Change>, Committed), String> {
        let is_deposed =
            !self.forgets_fence && !batch.changes().is_empty() && batch.term() != self.memory.term;
        // A batch without changes needs no transaction: it goes out whatever the store is like.
        let fate = if batch.changes().is_empty() { Fate::Commits } else { fate };
        if is_deposed || fate == Fate::Fails {
            return Ok((Vec::new(), Committed::TermEnds));
        }
        let (changes, effects) = if self.forgets_fence {
            self.memory.replay(batch.changes())?;
            batch.release()
        } else {
            self.memory.commit(batch)?
        };
        let heard = if fate == Fate::Commits { Committed::Done(effects) } else { Committed::TermEnds };
        Ok((changes, heard))
    }

    pub(crate) fn claim(&mut self) -> Term {
        self.memory.claim()
    }
}

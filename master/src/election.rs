//! Who leads.
//!
//! Without an election service there is one candidate, and the file lock on the data folder keeps it alone. It claims the
//! term after the stored one by the same code that an elected master will use.

use millrace_common::term::Term;
use millrace_store::{Store, Writer};

/// A leadership that was won and claimed: the right to write under its term.
#[derive(Debug)]
pub(crate) struct Elected {
    /// Its number.
    pub(crate) term: Term,
    /// The only way to write under it.
    pub(crate) writer: Writer,
}

/// Leads without asking anybody.
#[derive(Debug)]
pub(crate) struct Solo;

impl Solo {
    /// Claims the next term.
    pub(crate) async fn elect(self, store: &Store, holder: &str) -> anyhow::Result<Elected> {
        let term = store.stored_term().await?.next();
        let writer = store.claim(term, holder).await?;
        Ok(Elected { term, writer })
    }
}

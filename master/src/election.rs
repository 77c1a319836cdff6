//! Who leads.
//!
//! etcd says who should try; the fence in SQL says who may write. A candidate takes the leader's key under a lease, reads
//! it back, and claims in SQL the term that the key's revision gives. What it has won is [`Elected`]; what it must give
//! back is a [`Tenure`]. A master without etcd is alone, which the lock on its data folder sees to: it claims the term
//! after the stored one by the same code.
//!
//! There is no way back: who has led ends its process.

mod adoption;
mod authority;
mod candidate;
mod etcd;
mod link;
mod presence;
mod record;
pub(crate) mod settings;
mod tenure;
mod version;

use millrace_common::term::Term;
use millrace_store::{Store, Writer};

pub(crate) use self::{
    adoption::Adoption,
    authority::Authority,
    candidate::Candidate,
    etcd::{Etcd, EtcdError, EtcdId, MemberState, Range},
    presence::Presence,
    record::Record,
    tenure::Tenure,
};

#[cfg(test)]
pub(crate) use self::etcd::Entry;

/// A leadership that was won and claimed: the right to write under its term.
#[derive(Debug)]
pub(crate) struct Elected {
    /// Its number.
    pub(crate) term: Term,
    /// The only way to write under it.
    pub(crate) writer: Writer,
    /// Until when it may act.
    pub(crate) authority: Authority,
    /// What is to be given back to etcd, where there is one.
    pub(crate) tenure: Option<Tenure>,
}

/// Leads without asking anybody.
#[derive(Debug)]
pub(crate) struct Solo;

impl Solo {
    /// Claims the next term.
    pub(crate) async fn elect(self, store: &Store, holder: &str) -> anyhow::Result<Elected> {
        let term = store.stored_term().await?.next();
        let writer = store.claim(term, holder).await?;
        Ok(Elected { term, writer, authority: Authority::unlimited(), tenure: None })
    }
}

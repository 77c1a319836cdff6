//! An operator's word that the etcd that we are connected to numbers terms from now on.

use millrace_store::Store;

use super::{candidate::ElectionError, etcd::Etcd};
use crate::settings::EtcdKeeper;

/// What an adoption needs.
#[derive(Debug, Clone)]
pub(crate) struct Adoption {
    pub(crate) etcd: Etcd,
    pub(crate) store: Store,
    pub(crate) settings: EtcdKeeper,
}

/// What an adoption did.
#[derive(Debug)]
pub(crate) struct Adopted {
    /// The id of the etcd cluster.
    pub(crate) etcd: String,
    /// What terms begin with from now on.
    pub(crate) generation: u32,
    /// It was another etcd before.
    pub(crate) is_another: bool,
}

impl Adoption {
    /// Makes terms begin with the next generation, and numbers within it those of this etcd.
    ///
    /// An etcd that is known already is adopted again: it may have been restored from a backup and count lower than
    /// before. A leadership that is under way goes on until a later term is claimed.
    ///
    /// The future must run to its end.
    ///
    /// # Errors
    /// Where etcd or the database does not answer.
    pub(crate) async fn adopt(&self) -> Result<Adopted, ElectionError> {
        let (id, _) = self.etcd.identity().await?;
        let etcd = id.to_string();
        let current = self.store.generation().await.map_err(ElectionError::Database)?;
        let is_another = current.service.as_deref() != Some(&*etcd);
        if is_another {
            self.settings.carry_over().await?;
        }
        let adopted = self.store.adopt(&etcd, &current).await.map_err(ElectionError::Database)?;
        tracing::warn!(etcd, generation = adopted.number, "etcd adopted by an operator's word");
        Ok(Adopted { etcd, generation: adopted.number, is_another })
    }
}

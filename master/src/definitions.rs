//! Parsed definitions for readers, by workflow and version; a version never changes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use millrace_common::{definition, id::WorkflowName, workflow::Workflow};
use millrace_store::{Store, query::QueryError};
use thiserror::Error;

/// Parsed versions that are kept; the oldest by name and version gives way.
const KEPT_MAX: usize = 64;

/// Reads definitions through the store and keeps what it parsed.
#[derive(Debug, Default)]
pub(crate) struct Definitions {
    parsed: Mutex<BTreeMap<(WorkflowName, u32), Arc<Workflow>>>,
}

/// Why a definition is not to be had.
#[derive(Debug, Error)]
pub(crate) enum DefinitionError {
    /// The store did not answer.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// There is no such version.
    #[error("workflow {0} has no version {1}")]
    Absent(WorkflowName, u32),
    /// It was accepted once and is refused by this build.
    #[error("version {1} of workflow {0} is not valid for this build: apply the definition again")]
    Invalid(WorkflowName, u32, #[source] definition::Rejected),
}

impl Definitions {
    /// Returns a version of a workflow in its valid form.
    pub(crate) async fn get(
        &self,
        store: &Store,
        name: &WorkflowName,
        version: u32,
    ) -> Result<Arc<Workflow>, DefinitionError> {
        let key = (name.clone(), version);
        if let Some(found) = self.kept().get(&key) {
            return Ok(Arc::clone(found));
        }
        let row = store
            .workflow(name, Some(version))
            .await?
            .ok_or_else(|| DefinitionError::Absent(name.clone(), version))?;
        let parsed = definition::parse(&row.source)
            .map_err(|rejected| DefinitionError::Invalid(name.clone(), version, rejected))?;
        let parsed = Arc::new(parsed);
        let mut kept = self.kept();
        if kept.len() >= KEPT_MAX {
            kept.pop_first();
        }
        kept.insert(key, Arc::clone(&parsed));
        Ok(parsed)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, BTreeMap<(WorkflowName, u32), Arc<Workflow>>> {
        self.parsed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
